/*
 * lchild -- forked processes for Lua: core.fork and the Child that it gives.
 */
#include <unistd.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "bind/core.h"
#include "bind/lbuf.h"
#include "bind/lerror.h"
#include "sys/child.h"

#define CHILD "zproc.Child"

static zp_child *check_child(lua_State *L) { return *(zp_child **)luaL_checkudata(L, 1, CHILD); }

/* core.check_fork(): raises within an atomic function, where a process cannot be started: it would inherit a lock that it does not
   hold. */
static int core_check_fork(lua_State *L) {
  if (zp_lstate_in_atomic()) return zp_lua_usage(L, "a process cannot be started within an atomic function");
  return 0;
}

/* core.fork(die_with_parent) -> Child, true in the child and false in the parent */
static int core_fork(lua_State *L) {
  core_check_fork(L);
  bool die_with_parent = lua_toboolean(L, 1);
  zp_child **child = lua_newuserdatauv(L, sizeof *child, 0);
  *child = NULL;
  luaL_setmetatable(L, CHILD);
  pid_t pid;
  int rc = zp_child_fork(die_with_parent, child, &pid);
  if (rc) return zp_lua_raise(L, rc);
  lua_pushboolean(L, pid == 0);
  return 2;
}

/* child:leave(bytes): in the child, the message for the parent. */
static int child_leave(lua_State *L) {
  zp_child *child = check_child(L);
  size_t size;
  const char *data = luaL_checklstring(L, 2, &size);
  int rc = zp_child_leave(child, (zp_bytes){data, size});
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* child:wait([seconds]) -> exit code, or nil when the time is up. */
static int child_wait(lua_State *L) {
  zp_child *child = check_child(L);
  double deadline = lua_isnoneornil(L, 2) ? ZP_FOREVER : zp_clock_now() + luaL_checknumber(L, 2);
  int rc;
  do rc = zp_child_wait(child, deadline);
  while (rc == ZP_EINTR);
  if (rc == ZP_ETIMEOUT) return 0;
  if (rc) return zp_lua_raise(L, rc);
  int exitcode = 0;
  zp_child_ended(child, &exitcode);
  lua_pushinteger(L, exitcode);
  return 1;
}

/* child:message() -> bytes, or nil if the process left none. */
static int child_message(lua_State *L) {
  zp_child *child = check_child(L);
  zp_buf *message = zp_lbuf_push(L);
  int rc = zp_child_message(child, message);
  if (rc < 0) return zp_lua_raise(L, rc);
  if (rc == 1) lua_pushlstring(L, (const char *)message->data, message->size);
  return rc;
}

/* child:signal(number) */
static int child_signal(lua_State *L) {
  zp_child *child = check_child(L);
  int rc = zp_child_signal(child, (int)luaL_checkinteger(L, 2));
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* child:pid() */
static int child_pid(lua_State *L) {
  lua_pushinteger(L, zp_child_pid(check_child(L)));
  return 1;
}

static int child_gc(lua_State *L) {
  zp_child_close((zp_child **)luaL_checkudata(L, 1, CHILD));
  return 0;
}

/* core.child_exit(status): end a forked child at once. */
static int core_child_exit(lua_State *L) { zp_child_exit((int)luaL_checkinteger(L, 1)); }

static const luaL_Reg child_methods[] = {
    {"leave", child_leave}, {"wait", child_wait}, {"message", child_message},
    {"signal", child_signal}, {"pid", child_pid}, {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"check_fork", core_check_fork},
    {"fork", core_fork},
    {"child_exit", core_child_exit},
    {NULL, NULL},
};

void zp_lchild_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  luaL_newmetatable(L, CHILD);
  luaL_newlib(L, child_methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, child_gc);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}
