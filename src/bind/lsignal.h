/*
 * lsignal -- signals as errors in the running Lua code.
 *
 * What has taken longer than it may (limit.h) is ended in the same way, but again and again, so that no protected call keeps it.
 *
 * A caught signal (interrupt.h) becomes a SignalError at one of two places: where this process waits for something, or, by a hook that
 * the handler sets, at the next instruction of the script. zproc's own Lua modules are not interrupted in between: they would
 * lose what they hold.
 *
 * The hook must be set on the coroutine that is running, which Lua does not tell; so coroutine.resume and coroutine.wrap are replaced
 * by functions that note it. A coroutine that C code of others resumes is interrupted when control comes back.
 *
 * Each VM belongs to one thread, and what is kept here is kept per thread.
 */
#ifndef ZP_BIND_LSIGNAL_H
#define ZP_BIND_LSIGNAL_H

#include <lua.h>

/* Prepare a VM that belongs to the calling thread. Before anything learns what is in its library of coroutines. May raise. */
void zp_lsignal_install(lua_State *L);

/* Before the VM of the calling thread is closed: it is not interrupted any more. */
void zp_lsignal_leave(void);

/* Around a wait that ends with ZP_EINTR when there is an interrupt:
       do {
         zp_lsignal_begin_wait(L);
         rc = wait(...);
       } while (rc == ZP_EINTR);
       zp_lsignal_end_wait();
   begin raises a signal that has come; the wait must not raise. */
void zp_lsignal_begin_wait(lua_State *L);
void zp_lsignal_end_wait(void);

/* Raise a signal that has come, if there is one. */
void zp_lsignal_raise(lua_State *L);

/* As lua_resume from L, but noting that the coroutine runs. */
int zp_lsignal_resume(lua_State *L, lua_State *coroutine, int arguments, int *results);

#endif
