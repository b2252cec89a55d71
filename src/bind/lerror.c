#include "bind/lerror.h"

#include <string.h>

#include <lauxlib.h>

#include "base/err.h"
#include "codec/names.h"
#include "sys/interrupt.h"
#include "sys/limit.h"
#include "sys/notepad.h"

static const char metatable_key, signals_key; /* registry keys: their addresses */

const char *zp_lua_error_name(int code) {
  switch (code) {
    case ZP_ENOMEM: return "MemoryError";
    case ZP_EFULL: return "StateFull";
    case ZP_ENOSTORE:
    case ZP_ESTALE: return "ServerLost";
    case ZP_EKEY:
    case ZP_EATOMIC:
    case ZP_EUSAGE: return "UsageError";
    case ZP_EAUTH: return "AuthError";
    case ZP_EVALUE:
    case ZP_EENCODE: return "EncodeError";
    case ZP_EDECODE: return "DecodeError";
    case ZP_EBUDGET:
    case ZP_EPREDICATE: return "RemoteError";
    case ZP_EHISTORY: return "HistoryLost";
    case ZP_ENOTASK: return "TaskLost";
    case ZP_ETIMEOUT: return "TimeoutError";
    default: return "SystemError";
  }
}

bool zp_lua_is_own(const lua_Debug *ar) { return strncmp(ar->source, "=zproc", 6) == 0; }

/* Push "file:line:" of the innermost Lua function that is not one of zproc's own modules: the line that a user can mend. */
static void push_where(lua_State *L) {
  lua_Debug ar;
  for (int level = 1; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0) continue;
    if (zp_lua_is_own(&ar)) continue;
    lua_pushfstring(L, "%s:%d:", ar.short_src, ar.currentline);
    return;
  }
  lua_pushnil(L);
}

/* With the message on top of the stack, push {name, message, where, traceback}. */
static void push_named(lua_State *L, const char *name, const char *traceback) {
  lua_createtable(L, 0, 4);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "name");
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "message");
  push_where(L);
  lua_setfield(L, -2, "where");
  lua_pushstring(L, traceback && *traceback ? traceback : NULL); /* nil for NULL */
  lua_setfield(L, -2, "traceback");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
  lua_setmetatable(L, -2);
}

static int raise_named(lua_State *L, const char *name, const char *traceback) {
  push_named(L, name, traceback);
  return lua_error(L);
}

int zp_lua_raise_signal(lua_State *L, int signal) {
  luaL_checkstack(L, 8, NULL);
  const char *name = sigabbrev_np(signal);
  if (name) lua_pushfstring(L, "SIG%s", name);
  else lua_pushfstring(L, "signal %d", signal);
  push_named(L, "SignalError", NULL);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &signals_key);
  if (lua_istable(L, -1)) {
    lua_rawgeti(L, -1, signal);
    lua_setfield(L, -3, "signal");
  }
  lua_pop(L, 1);
  return lua_error(L);
}

void zp_lua_push_error(lua_State *L, int code) {
  luaL_checkstack(L, 8, NULL);
  lua_pushstring(L, zp_error_detail());
  push_named(L, zp_lua_error_name(code), NULL);
  lua_remove(L, -2);
}

bool zp_lua_is_passing(lua_State *L) {
  luaL_checkstack(L, 8, NULL);
  bool is_object = false;
  if (lua_getmetatable(L, -1)) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_key);
    is_object = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  if (is_object) {
    lua_pushliteral(L, "name");
    lua_rawget(L, -2);
    const char *name = lua_tostring(L, -1);
    bool passing = name && (strcmp(name, "SignalError") == 0 || strcmp(name, "ProcessExit") == 0);
    lua_pop(L, 1);
    return passing;
  }
  const char *words = lua_tostring(L, -1);
  zp_fail(ZP_EDECODE, "%s", words ? words : "what was raised is no string");
  lua_pop(L, 1);
  zp_lua_push_error(L, ZP_EDECODE);
  return false;
}

int zp_lua_raise_called_off(lua_State *L) {
  luaL_checkstack(L, 8, NULL);
  lua_pushliteral(L, "the map that this item is one of is closed");
  return raise_named(L, zp_lua_error_name(ZP_ENOTASK), NULL);
}

int zp_lua_set_signals(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &signals_key);
  return 0;
}

int zp_lua_raise_from(lua_State *L, int code, const char *traceback) {
  if (code == ZP_EINTR) {
    int signal = zp_interrupt_take();
    if (!signal && zp_limit_is_over()) return zp_lua_raise_limit(L);
    if (signal || !zp_notepad_take_call()) return zp_lua_raise_signal(L, signal);
    return zp_lua_raise_called_off(L);
  }
  luaL_checkstack(L, 8, NULL);
  lua_pushstring(L, zp_error_detail());
  return raise_named(L, zp_lua_error_name(code), traceback);
}

int zp_lua_raise(lua_State *L, int code) { return zp_lua_raise_from(L, code, NULL); }

int zp_lua_raise_limit(lua_State *L) {
  return zp_lua_raise(L, zp_fail(ZP_EBUDGET, ZP_LIMIT_WORDS, zp_limit_seconds(), "nothing has changed"));
}

int zp_lua_usage(lua_State *L, const char *format, ...) {
  va_list args;
  luaL_checkstack(L, 8, NULL);
  va_start(args, format);
  lua_pushvfstring(L, format, args);
  va_end(args);
  return raise_named(L, "UsageError", NULL);
}

void zp_lua_refuse_surplus(lua_State *L, int most, const char *call) {
  for (int i = most + 2; i <= lua_gettop(L); i++)
    if (!lua_isnil(L, i)) zp_lua_usage(L, "%s: there is an argument too many, a %s; it takes what the API reference says", call, luaL_typename(L, i));
}

void zp_lua_set_error_metatable(lua_State *L) {
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &metatable_key);
  zp_names_register(L, "zproc:Error");
}
