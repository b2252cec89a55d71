/*
 * lremote -- the State of a script whose server is on another machine.
 *
 * It looks and behaves as any State (lstate.h); each method is one request to the server. Its cursor is kept here, and travels with each
 * watch; so the server remembers nothing about it.
 */
#ifndef ZP_BIND_LREMOTE_H
#define ZP_BIND_LREMOTE_H

#include <stdbool.h>

#include <lua.h>

#include "bind/lpairs.h"
#include "net/remote.h"
#include "vm/vm.h"
#include "watch/watch.h"

typedef struct zp_lremote {
  zp_remote *remote; /* of the Connection, which is a user value of the handle; NULL once closed */
  uint64_t identity; /* of the state that was there when the Link was made; 0: not known */
  zp_buf name;       /* of the namespace */
  zp_watch_cursor cursor;
  uint64_t number; /* drawn at random; 0 until it is needed */
  zp_lfill fill;
  zp_buf key;
} zp_lremote;

bool zp_lremote_is(lua_State *L, int idx);

/* The handle of the State at idx; raises a UsageError if it is none, or is closed. */
zp_lremote *zp_lremote_check(lua_State *L, int idx);

/* Push a userdata with the pairs of the newest revision. May raise. */
zp_batch *zp_lremote_push_newest(lua_State *L, zp_lremote *state);

/* Push the Link that the State at idx, which is one, was made with. */
void zp_lremote_push_link(lua_State *L, int idx);

typedef struct zp_lremote_watch {
  uint64_t kind, id, flags; /* as in net/request.h */
  zp_bytes subject;
  const zp_change *pairs;
  size_t pair_count;
  double deadline; /* zp_clock_now seconds, ZP_FOREVER */
  zp_vm_limits limits; /* of a predicate; 0: as the server has them */
} zp_lremote_watch;

/* With what zp_lnet_prepare has pushed, before the watch was encoded, on top of the stack: wait for a match. Pushes what core.watch gives,
   and returns how many values that are; none when the time is up. May raise. */
int zp_lremote_await(lua_State *L, zp_lremote *state, const zp_lremote_watch *watch);

/* What core.atomic, core.go_live and core.renew do with the State at index 1, and the range of its kept revisions. May raise. */
int zp_lremote_atomic(lua_State *L);
int zp_lremote_go_live(lua_State *L, bool anew);
void zp_lremote_range(lua_State *L, uint64_t *oldest, uint64_t *newest);

#endif
