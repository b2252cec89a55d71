/*
 * lnet -- servers on other machines for Lua: connections, and requests over them.
 *
 * A Connection is a userdata; whatever uses it keeps it alive. Any Lua code that runs between two steps, finalisers too, may use the same
 * connection, so an answer is owned by the Lua stack, not by the connection.
 */
#ifndef ZP_BIND_LNET_H
#define ZP_BIND_LNET_H

#include <stdbool.h>

#include <lua.h>

#include "net/remote.h"
#include "server/keeper.h"

/* The connection of the Connection at a stack index; raises a UsageError if it is none, or is closed. */
zp_remote *zp_lnet_check(lua_State *L, int idx);

/* Push a userdata in which an answer can live. That may run finalisers, which may use what a request is made of: so it is done before
   anything is encoded. May raise for want of memory. */
void zp_lnet_prepare(lua_State *L);

/* With that on top of the stack, where it stays: ask the server for something about the state of that identity (0: whichever it
   has), and wait for the answer, which lives as long as the userdata. NULL if the deadline (zp_clock_now seconds, ZP_FOREVER) comes first:
   the request is abandoned then. Raises what the server has failed with. */
const zp_parcel *zp_lnet_call(lua_State *L, zp_remote *remote, uint64_t state, int type, const zp_parcel *request, double deadline);

/* The same when the server is told the deadline as well, so that its answer comes a moment after it: that is waited for, at most so many
   seconds and not from a server of whom nothing is heard. */
const zp_parcel *zp_lnet_call_late(lua_State *L, zp_remote *remote, uint64_t state, int type, const zp_parcel *request, double deadline,
                                   double late);

/* The same as zp_lnet_call for those who deal with some failures themselves: 0 and the answer, ZP_ETIMEOUT, or what the server has failed
   with. Raises for signals only. */
int zp_lnet_try(lua_State *L, zp_remote *remote, uint64_t state, int type, const zp_parcel *request, double deadline,
                const zp_parcel **answer);

/* The listener of the Listener at a stack index, which keeps it; raises a UsageError if it is none, or is closed. */
zp_listener *zp_lnet_listener(lua_State *L, int idx);

/* A Lua string as bytes; raises if it is none. */
zp_bytes zp_lnet_bytes(lua_State *L, int idx);

#endif
