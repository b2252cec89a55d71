/*
 * core -- the module "zproc.core": the C functions that the Lua modules of zproc stand on. Not for scripts.
 */
#ifndef ZP_BIND_CORE_H
#define ZP_BIND_CORE_H

#include <stdbool.h>

#include <lua.h>

/* Prepare a VM whose standard libraries are open and that has run no script yet: the codec, and package.preload for zproc.core
   and the embedded Lua modules. May raise. */
void zp_core_install(lua_State *L);

/* The parts of zproc.core; each sets its functions in the table on top of the stack. May raise. */
void zp_lstate_open(lua_State *L);
void zp_lchild_open(lua_State *L);
void zp_lqueue_open(lua_State *L);
void zp_lserver_open(lua_State *L);
void zp_lsignal_open(lua_State *L);
void zp_lsys_open(lua_State *L);
void zp_lthread_open(lua_State *L);
void zp_lwatch_open(lua_State *L);

/* True while an atomic function runs in this thread. */
bool zp_lstate_in_atomic(void);

#endif
