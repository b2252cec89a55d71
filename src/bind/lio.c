#include "bind/lio.h"

#include <errno.h>
#include <stdbool.h>

#include <lauxlib.h>
#include <lualib.h>

#include "bind/lsignal.h"

/* Lua's own function, which is the first upvalue: called as if it had been called itself. It finds the same arguments, has no upvalues, and
   its errors name the same function and the same place. */
static int call_own(lua_State *L) { return lua_tocfunction(L, lua_upvalueindex(1))(L); }

/* The results on top of the stack are those of a read: if a signal has cut it short, raise that. */
static void check_read(lua_State *L, int results) {
  if (results == 3 && !lua_toboolean(L, -3) && lua_tointeger(L, -1) == EINTR) zp_lsignal_raise(L);
}

/* io.read(...) and file:read(...) */
static int read_file(lua_State *L) {
  int results = call_own(L);
  check_read(L, results);
  return results;
}

/* The upvalues of the iterator of lines: Lua's own file:read, and those that Lua's own iterator has. */
enum { OWN_READ = 1, FILE_READ, FORMAT_COUNT, TO_CLOSE, FIRST_FORMAT };

/* What io.lines and file:lines return. */
static int next_line(lua_State *L) {
  const luaL_Stream *file = lua_touserdata(L, lua_upvalueindex(FILE_READ));
  int formats = (int)lua_tointeger(L, lua_upvalueindex(FORMAT_COUNT));
  if (!file->closef) return luaL_error(L, "file is already closed");
  lua_settop(L, 0);
  luaL_checkstack(L, formats + 1, "too many arguments");
  lua_pushvalue(L, lua_upvalueindex(FILE_READ));
  for (int i = 0; i < formats; i++) lua_pushvalue(L, lua_upvalueindex(FIRST_FORMAT + i));
  int results = call_own(L);
  if (lua_toboolean(L, -results)) return results;
  check_read(L, results);
  if (results > 1) return luaL_error(L, "%s", lua_tostring(L, -results + 1));
  if (!lua_toboolean(L, lua_upvalueindex(TO_CLOSE))) return 0;
  lua_pushvalue(L, lua_upvalueindex(FILE_READ));
  lua_getfield(L, -1, "close");
  lua_insert(L, -2);
  lua_call(L, 1, 0);
  return 0;
}

/* io.lines(...) and file:lines(...); the second upvalue is Lua's own file:read. */
static int open_lines(lua_State *L) {
  int results = call_own(L), iterator = lua_gettop(L) - results + 1;
  luaL_checkstack(L, 256, "too many arguments");
  lua_pushvalue(L, lua_upvalueindex(2));
  int upvalues = 1;
  while (lua_getupvalue(L, iterator, upvalues)) upvalues++;
  lua_pushcclosure(L, next_line, upvalues);
  lua_replace(L, iterator);
  return results;
}

/* Push a field of the table on top of the stack; whether it is a function of Lua's own. */
static bool get_own(lua_State *L, const char *name) {
  lua_getfield(L, -1, name);
  return lua_iscfunction(L, -1) && !lua_getupvalue(L, -1, 1);
}

/* Replace the functions of the table on top of the stack; own_read is the stack index of Lua's own file:read. */
static void replace(lua_State *L, int own_read) {
  int table = lua_gettop(L);
  if (get_own(L, "read")) {
    lua_pushcclosure(L, read_file, 1);
    lua_setfield(L, table, "read");
  }
  lua_settop(L, table);
  if (get_own(L, "lines")) {
    lua_pushvalue(L, own_read);
    lua_pushcclosure(L, open_lines, 2);
    lua_setfield(L, table, "lines");
  }
  lua_settop(L, table);
}

void zp_lio_install(lua_State *L) {
  int top = lua_gettop(L);
  if (luaL_getmetatable(L, LUA_FILEHANDLE) == LUA_TTABLE && lua_getfield(L, -1, "__index") == LUA_TTABLE && get_own(L, "read")) {
    int own_read = lua_gettop(L);
    lua_pushvalue(L, own_read - 1);
    replace(L, own_read);
    if (lua_getglobal(L, LUA_IOLIBNAME) == LUA_TTABLE) replace(L, own_read);
  }
  lua_settop(L, top);
}
