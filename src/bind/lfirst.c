/*
 * lfirst -- waiting for the first of several processes and threads to end.
 */
#include <lauxlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "bind/core.h"
#include "bind/lerror.h"
#include "bind/lsignal.h"
#include "sys/child.h"
#include "sys/interrupt.h"
#include "sys/thread.h"

/* Whether the process or thread on top of the stack has ended; look: ask the system, too. Pops it. */
static bool pop_ended(lua_State *L, bool look) {
  zp_child *child = zp_lchild_test(L, -1);
  zp_thread *thread = child ? NULL : zp_lthread_test(L, -1);
  if (child && look) zp_child_wait(child, 0);
  bool ended = child ? zp_child_ended(child, NULL) : thread && zp_thread_ended(thread, NULL);
  lua_pop(L, 1);
  return ended;
}

static bool has_any_ended(lua_State *L, lua_Integer count, bool look) {
  for (lua_Integer i = 1; i <= count; i++) {
    lua_rawgeti(L, 1, i);
    if (pop_ended(L, look)) return true;
  }
  return false;
}

/* core.await_first(list, [seconds]) -> true once one of these Children and Threads has ended, or nil when the time is up. */
static int core_await_first(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_Integer count = luaL_len(L, 1);
  const double LOOK = zp_child_look_after();
  double deadline = lua_isnoneornil(L, 2) ? ZP_FOREVER : zp_clock_now() + luaL_checknumber(L, 2);
  bool ended = has_any_ended(L, count, true);
  while (!ended) {
    zp_lsignal_begin_wait(L);
    int rc = 0;
    double now = zp_clock_now();
    ended = has_any_ended(L, count, false);
    if (!ended) rc = zp_interrupt_wait(deadline < now + LOOK ? deadline : now + LOOK);
    if (!ended && rc == ZP_ETIMEOUT) ended = has_any_ended(L, count, true);
    if (!ended && rc != ZP_EINTR && rc != ZP_ETIMEOUT) {
      zp_lsignal_end_wait();
      return zp_lua_raise(L, rc);
    }
    if (!ended && deadline <= zp_clock_now()) break;
  }
  zp_lsignal_end_wait();
  if (!ended) return 0;
  lua_pushboolean(L, true);
  return 1;
}

void zp_lfirst_open(lua_State *L) {
  static const luaL_Reg functions[] = {{"await_first", core_await_first}, {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
