/*
 * lstate -- the State of a script, as far as C goes: one handle on the store, seen through a table's metamethods.
 *
 * A State is an empty Lua table (so that `state == { ... }` reaches __eq) with a metatable of its own. The handle is a
 * userdata that the metatable keeps; __index and __newindex have it as an upvalue, so the hot path looks nothing up.
 *
 * Rules that every function here keeps:
 *   - No Lua code runs while a read is open: values are copied out first. (Decoding can run code: it may have to require a
 *     module.) Only scalars are decoded in place; that may raise for want of memory, and the read that this leaves open is
 *     ended by the next use of the handle.
 *   - No Lua code runs and nothing raises while the lock is held, except under the protected call of zp_lstate_locked, which
 *     ends read and lock whatever happens.
 */
#ifndef ZP_BIND_LSTATE_H
#define ZP_BIND_LSTATE_H

#include <stdbool.h>

#include <lauxlib.h>

#include "bind/batch.h"
#include "bind/lpairs.h"
#include "store/store.h"
#include "sys/limit.h"
#include "watch/watch.h"

typedef struct zp_lstate {
  zp_store *store; /* NULL once closed */
  zp_watch_cursor cursor;
  zp_lfill fill;
  zp_batch *filled;     /* what the body of zp_lstate_locked is to commit */
  zp_buf key;           /* the key of a read */
  bool reading;         /* a read is open */
  bool busy;            /* within zp_lstate_locked: the State is not to be used */
  const void *snapshot; /* the table that the running atomic function was given, else NULL */
  bool has_loaded, has_written;
  double limit;    /* seconds that the next atomic function may take; 0: as long as it likes */
  bool is_limited; /* one runs that has begun a limit */
  zp_limit before; /* and that of what runs around it */
} zp_lstate;

/* User values of the handle. */
enum { ZP_UV_LINK = 1, ZP_UV_SNAPSHOT_META, ZP_UV_LOADED, ZP_UV_WRITTEN, ZP_UV_COUNT = ZP_UV_WRITTEN };

/* Whether the value at idx is a State of a server on this machine. */
bool zp_lstate_is(lua_State *L, int idx);

/* The handle of the State at idx, ready for use; raises a UsageError if it is none, is closed, or is in use by an atomic function. */
zp_lstate *zp_lstate_check(lua_State *L, int idx);

/* The same for a handle in hand (an upvalue). */
void zp_lstate_ready(lua_State *L, zp_lstate *state);

/* Push the handle of the State at idx, which is one. */
void zp_lstate_push_handle(lua_State *L, int idx);

/* Raise the error of a store's code. */
int zp_lstate_raise(lua_State *L, int rc);

/* Begin and end a read. begin raises on failure. */
void zp_lstate_read(lua_State *L, zp_lstate *state);
void zp_lstate_end(zp_lstate *state);

/* Within a read, push the value of an encoded key, or nil, and return whether it is there. Under the lock the read stays open;
   else it is ended before anything that could run Lua code. May raise. */
bool zp_lstate_push(lua_State *L, zp_lstate *state, zp_bytes key);

/* Call body, with all that is on the stack as its arguments, as the only writer of the store; results replace the arguments, their
   number is returned, and errors are passed on, after lock and read have ended. */
int zp_lstate_locked(lua_State *L, zp_lstate *state, lua_CFunction body);

/* The limit of the atomic function that runs has ended, if it has one. */
void zp_lstate_end_limit(zp_lstate *state);

/* Push a plain table: the namespace as it was at a revision. May raise. */
void zp_lstate_push_at(lua_State *L, zp_lstate *state, uint64_t revision);

/* Commit a batch of the handle's (zp_lpairs_fill), or raise. */
void zp_lstate_commit(lua_State *L, zp_lstate *state, zp_batch *batch);

/* Finish a State, with its table, a fresh metatable and its handle on the stack: only the table stays. In the metatable the key stands for
   the handle; index and newindex have the handle and the table of methods as upvalues; `more` (NULL: none) goes before the
   metamethods that all States have. May raise. */
void zp_lstate_finish_table(lua_State *L, const void *key, lua_CFunction index, lua_CFunction newindex, const luaL_Reg *more);

/* If the argument at idx is a State, replace it by a copy of its content; raise a UsageError if it is no table. */
void zp_lstate_accept(lua_State *L, int idx, const char *call);

/* Raise the error for assigning to a name that is a method's. */
int zp_lstate_refuse_method(lua_State *L, const char *name);

/* What the table of methods has for a field that is none. */
enum { ZP_FIELD_NAMESPACE = 1, ZP_FIELD_ADDRESS };

/* core.atomic(state, limit, fn, ...); limit: seconds that fn may take, or nil */
int zp_lstate_atomic(lua_State *L);

#endif
