/*
 * lpairs -- all pairs of a namespace at once, as bytes that the Lua stack owns: copied within a read, decoded after it, since
 * decoding can run Lua code.
 */
#ifndef ZP_BIND_LPAIRS_H
#define ZP_BIND_LPAIRS_H

#include <stdbool.h>

#include <lua.h>

#include "bind/batch.h"

/* Push a userdata for pairs, empty. Allocating can run finalisers, which may use the State: so not within a read. May raise. */
zp_batch *zp_lpairs_push(lua_State *L);

struct zp_lstate;

/* Within a read: copy all pairs. Ends the read unless the lock is held. May raise, after that. */
void zp_lpairs_collect(lua_State *L, struct zp_lstate *state, zp_batch *all);

/* Push a userdata with the pairs of the newest revision. May raise. */
zp_batch *zp_lpairs_newest(lua_State *L, struct zp_lstate *state);

/* The pairs as an array of zp_batch_count elements, borrowed as long as the userdata stays. May raise. */
const zp_change *zp_lpairs_all(lua_State *L, zp_batch *all);

/* Push a key, a value, or a plain table of all pairs. May raise. */
void zp_lpairs_push_key(lua_State *L, const zp_change *pair);
void zp_lpairs_push_value(lua_State *L, const zp_change *pair);
void zp_lpairs_push_table(lua_State *L, zp_batch *all);

/* With the pairs on top of the stack: turn them into an iterator that gives key and value; or push a list of their keys, their values, or
   {key, value}. How many values were pushed: 1. May raise. */
int zp_lpairs_iterate(lua_State *L, zp_batch *all);
int zp_lpairs_push_list(lua_State *L, zp_batch *all, bool keys, bool values);

/* With changes on top of the stack: push a list of their keys, and a table of the values of those that were not deleted. May raise. */
int zp_lpairs_push_changes(lua_State *L, zp_batch *changes);

/* A handle has a batch of its own for what it is about to write, so that a small update allocates nothing. While it is being filled values are
   encoded, which can run finalisers, and these may write through the same handle: they get another batch. */
typedef struct zp_lfill {
  zp_batch own;
  bool is_filling;
} zp_lfill;

/* Push a value that keeps it, and give an empty batch to be filled. May raise. */
zp_batch *zp_lpairs_fill(lua_State *L, zp_lfill *fill);

/* It is filled, or given up: nothing is encoded any more before it is used. */
void zp_lpairs_filled(zp_lfill *fill, const zp_batch *batch);

/* Prepare a VM. May raise. */
void zp_lpairs_open(lua_State *L);

#endif
