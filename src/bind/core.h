/*
 * core -- the module "zproc.core": the C functions that the Lua modules of zproc stand on. Not for scripts.
 */
#ifndef ZP_BIND_CORE_H
#define ZP_BIND_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include <lua.h>

#include "base/buf.h"

/* Prepare a VM whose standard libraries are open and that has run no script yet: the codec, the seed of math.random, and package.preload
   for zproc.core and the embedded Lua modules. May raise. */
void zp_core_install(lua_State *L);

/* The same for a VM in which a script runs already, as a module finds it. May raise. */
void zp_core_install_late(lua_State *L);

/* The parts of zproc.core; each sets its functions in the table on top of the stack. May raise. */
void zp_lstate_open(lua_State *L);
void zp_lchild_open(lua_State *L);
void zp_leditor_open(lua_State *L);
void zp_lequal_open(lua_State *L);
void zp_lfirst_open(lua_State *L);
void zp_lnet_open(lua_State *L);
void zp_lnotepad_open(lua_State *L);
void zp_lqueue_open(lua_State *L);
void zp_lrandom_open(lua_State *L);
void zp_lremote_open(lua_State *L);
void zp_lrqueue_open(lua_State *L);
void zp_lrun_open(lua_State *L);
void zp_lrunner_open(lua_State *L);
void zp_lserver_open(lua_State *L);
void zp_lsignal_open(lua_State *L);
void zp_lsys_open(lua_State *L);
void zp_ltable_open(lua_State *L);
void zp_lthread_open(lua_State *L);
void zp_lwatch_open(lua_State *L);

/* The Child and the Thread at a stack index; NULL if there is none. */
struct zp_child *zp_lchild_test(lua_State *L, int index);
struct zp_thread *zp_lthread_test(lua_State *L, int index);

/* The open table of processes at a stack index; NULL for nil. May raise. */
struct zp_table *zp_ltable_get(lua_State *L, int index);

/* Push the list of table:list() for bytes of zp_process. May raise. */
void zp_ltable_push_rows(lua_State *L, zp_bytes rows);

/* This process ends now, with that status: say so in the tables in which it has enlisted itself. Never raises. */
void zp_ltable_note_exit(int status);

/* In a process that core.start has started, and that is about to use the table: be in it, even if the parent has not come to that
   yet. */
void zp_lchild_announce(void);

/* Say on standard error which processes that this one has started were killed by a signal that nobody here has sent. Cheap where there are
   none. Never raises. */
void zp_lchild_tell_deaths(void);

/* True while an atomic function runs in this thread. */
bool zp_lstate_in_atomic(void);

/* The same, on the state of that identity (store.h): whoever asked its server for a change would wait for itself. */
bool zp_lstate_in_atomic_of(uint64_t identity);

#endif
