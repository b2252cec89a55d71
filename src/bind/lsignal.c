#include "bind/lsignal.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/clock.h"
#include "base/err.h"
#include "bind/core.h"
#include "bind/lerror.h"
#include "sys/interrupt.h"
#include "sys/limit.h"
#include "sys/notepad.h"
#include "sys/output.h"
#include "sys/thread.h"

/* The coroutine that runs in this thread, and the hook that ours has taken the place of. */
static _Thread_local struct {
  lua_State *volatile coroutine;
  lua_Hook hook;
  int mask, count;
} running;

/* ---- the hook ---- */

static void on_hook(lua_State *L, lua_Debug *ar);

/* Called from signal handlers too; lua_sethook may be. */
static void set_hook(void) {
  lua_State *L = running.coroutine;
  if (!L || lua_gethook(L) == on_hook) return;
  running.hook = lua_gethook(L);
  running.mask = lua_gethookmask(L);
  running.count = lua_gethookcount(L);
  lua_sethook(L, on_hook, LUA_MASKCOUNT, 1);
}

/* Whether there is something to raise. */
static bool is_wanted(void) { return zp_interrupt_has_signal() || zp_thread_must_stop() || zp_notepad_has_call() || zp_limit_is_over(); }

enum { GRACE = 10000 /* instructions after a signal was raised, in which the script deals with it */ };

/* Signals that have come beside the one that is raised, or come while the script deals with that, wait until it waits for something, or for a
   while. At the next instruction they would most likely be raised outside of the protected call that has caught the first. A hook of the script
   is not kept from running for that. */
static void defer(void) {
  lua_State *L = running.coroutine;
  if (!L || zp_thread_must_stop() || zp_notepad_is_insisted()) return;
  set_hook();
  if (!running.hook || zp_interrupt_has_signal()) lua_sethook(L, on_hook, LUA_MASKCOUNT, GRACE);
}

/* What is to be raised now, or 0. Whoever does not listen to the wish that his thread stops hears it again and again. */
static int take(void) {
  int signal = zp_interrupt_take();
  return zp_thread_must_stop() ? SIGTERM : signal;
}

/* Raise what there is to raise. */
static void raise_wanted(lua_State *L) {
  int signal = take();
  bool is_over = !signal && zp_limit_is_over();
  if (!signal && !is_over && !zp_notepad_take_call()) return;
  zp_interrupt_disarm();
  if (is_over) zp_lua_raise_limit(L);
  if (signal) {
    defer();
    zp_lua_raise_signal(L, signal);
  }
  zp_lua_raise_called_off(L);
}

static void on_hook(lua_State *L, lua_Debug *ar) {
  zp_lchild_tell_deaths();
  if (is_wanted()) {
    lua_getinfo(L, "S", ar);
    if (zp_lua_is_own(ar)) return;
  }
  if (!zp_thread_must_stop() && !zp_notepad_is_insisted() && !zp_limit_is_over()) lua_sethook(L, running.hook, running.mask, running.count);
  raise_wanted(L);
}

/* ---- waits ---- */

void zp_lsignal_raise(lua_State *L) { raise_wanted(L); }

void zp_lsignal_begin_wait(lua_State *L) {
  zp_lchild_tell_deaths();
  zp_output_flush_errors();
  zp_interrupt_arm();
  zp_lsignal_raise(L);
}

void zp_lsignal_end_wait(void) {
  zp_interrupt_disarm();
  zp_lchild_tell_deaths();
}

/* ---- coroutines ---- */

int zp_lsignal_resume(lua_State *L, lua_State *coroutine, int arguments, int *results) {
  lua_State *from = running.coroutine;
  bool is_hooked = from && lua_gethook(from) == on_hook;
  lua_Hook hook = running.hook;
  int mask = running.mask, count = running.count;
  running.coroutine = coroutine;
  if (is_wanted()) set_hook();
  int status = lua_resume(coroutine, L, arguments, results);
  running.coroutine = from;
  if (is_hooked) { /* what ours has taken the place of here, not in the coroutine */
    running.hook = hook;
    running.mask = mask;
    running.count = count;
  }
  if (is_wanted()) set_hook();
  return status;
}

/* Move the arguments over, resume, and move the results back: their number, or -1 and the error. */
static int resume(lua_State *L, lua_State *coroutine, int arguments) {
  if (!lua_checkstack(coroutine, arguments)) {
    lua_pushliteral(L, "too many arguments to resume");
    return -1;
  }
  lua_xmove(L, coroutine, arguments);
  int results;
  int status = zp_lsignal_resume(L, coroutine, arguments, &results);
  if (status != LUA_OK && status != LUA_YIELD) {
    lua_xmove(coroutine, L, 1);
    return -1;
  }
  if (!lua_checkstack(L, results + 1)) {
    lua_pop(coroutine, results);
    lua_pushliteral(L, "too many results to resume");
    return -1;
  }
  lua_xmove(coroutine, L, results);
  return results;
}

/* coroutine.resume(co, ...) */
static int coroutine_resume(lua_State *L) {
  lua_State *coroutine = lua_tothread(L, 1);
  luaL_argexpected(L, coroutine, 1, "coroutine");
  int results = resume(L, coroutine, lua_gettop(L) - 1);
  lua_pushboolean(L, results >= 0);
  if (results < 0) results = 1;
  lua_insert(L, -(results + 1));
  return results + 1;
}

/* What coroutine.wrap returns; upvalue: the coroutine. */
static int call_wrapped(lua_State *L) {
  lua_State *coroutine = lua_tothread(L, lua_upvalueindex(1));
  int results = resume(L, coroutine, lua_gettop(L));
  if (results >= 0) return results;
  int status = lua_status(coroutine);
  if (status != LUA_OK && status != LUA_YIELD) { /* it ended by an error: its variables may want to be closed */
    lua_resetthread(coroutine);
    lua_xmove(coroutine, L, 1); /* the error, or that of the closing */
  }
  if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
    luaL_where(L, 1);
    lua_insert(L, -2);
    lua_concat(L, 2);
  }
  return lua_error(L);
}

/* coroutine.wrap(fn) */
static int coroutine_wrap(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_State *coroutine = lua_newthread(L);
  lua_pushvalue(L, 1);
  lua_xmove(L, coroutine, 1);
  lua_pushcclosure(L, call_wrapped, 1);
  return 1;
}

/* ---- for Lua ---- */

/* core.catch_signal(number, once): from now on it is raised as an error; once: and the next one after that does what it does by
   default. */
static int core_catch_signal(lua_State *L) {
  int rc = zp_interrupt_catch((int)luaL_checkinteger(L, 1), lua_toboolean(L, 2));
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* core.raise_signal(): raise a signal that has come, if there is one. For the end of a script, after which no instruction follows. */
static int core_raise_signal(lua_State *L) {
  zp_lsignal_raise(L);
  return 0;
}

/* core.is_ignored(number): whether the signal is ignored in this process. */
static int core_is_ignored(lua_State *L) {
  lua_pushboolean(L, zp_interrupt_is_ignored((int)luaL_checkinteger(L, 1)));
  return 1;
}

/* core.die_of(number): end this process by the signal, whatever was done about it before it was caught. */
static int core_die_of(lua_State *L) {
  int number = (int)luaL_checkinteger(L, 1);
  zp_output_flush();
  zp_interrupt_release(number);
  signal(number, SIG_DFL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
  raise(number);
  _exit(128 + number); /* its default is not to end a process */
}

/* core.queue_signal(number): from now on it is put into the queue. */
static int core_queue_signal(lua_State *L) {
  int rc = zp_interrupt_queue((int)luaL_checkinteger(L, 1));
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* core.unqueue_signal(number): it does again what it did before. */
static int core_unqueue_signal(lua_State *L) {
  zp_interrupt_unqueue((int)luaL_checkinteger(L, 1));
  return 0;
}

/* core.next_signal() -> the number of the next one in the queue, which is taken out of it, or nil. */
static int core_next_signal(lua_State *L) {
  int number = zp_interrupt_next();
  if (!number) return 0;
  lua_pushinteger(L, number);
  return 1;
}

/* core.await_signal([seconds]) -> true once there is one in the queue, or nil when the time is up. */
static int core_await_signal(lua_State *L) {
  double deadline = lua_isnoneornil(L, 1) ? ZP_FOREVER : zp_clock_now() + luaL_checknumber(L, 1);
  int rc;
  do {
    zp_lsignal_begin_wait(L);
    rc = zp_interrupt_has_queued() ? 0 : zp_interrupt_wait(deadline);
  } while (rc == ZP_EINTR);
  zp_lsignal_end_wait();
  if (rc == ZP_ETIMEOUT) return 0;
  if (rc) return zp_lua_raise(L, rc);
  lua_pushboolean(L, true);
  return 1;
}

static const luaL_Reg functions[] = {
    {"queue_signal", core_queue_signal},
    {"unqueue_signal", core_unqueue_signal},
    {"next_signal", core_next_signal},
    {"await_signal", core_await_signal},
    {"catch_signal", core_catch_signal},
    {"raise_signal", core_raise_signal},
    {"is_ignored", core_is_ignored},
    {"set_signals", zp_lua_set_signals},
    {"die_of", core_die_of},
    {NULL, NULL},
};

static const luaL_Reg coroutine_functions[] = {
    {"resume", coroutine_resume},
    {"wrap", coroutine_wrap},
    {NULL, NULL},
};

void zp_lsignal_install(lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
  running.coroutine = lua_tothread(L, -1);
  lua_pop(L, 1);
  zp_interrupt_set_notify(set_hook);
  if (lua_getglobal(L, LUA_COLIBNAME) == LUA_TTABLE) luaL_setfuncs(L, coroutine_functions, 0);
  lua_pop(L, 1);
}

void zp_lsignal_leave(void) { running.coroutine = NULL; }

void zp_lsignal_open(lua_State *L) { luaL_setfuncs(L, functions, 0); }
