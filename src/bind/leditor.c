/*
 * leditor -- lines from a terminal for Lua: what zproc repl reads by.
 */
#include <stdlib.h>

#include <lauxlib.h>

#include "base/err.h"
#include "bind/core.h"
#include "bind/lerror.h"
#include "bind/lsignal.h"
#include "sys/editor.h"

/* core.open_editor(history file or nil); may raise. */
static int core_open_editor(lua_State *L) {
  int rc = zp_editor_open(luaL_optstring(L, 1, NULL));
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* Under protection: the function and the text are on the stack. */
static int offer_words(lua_State *L) {
  lua_call(L, 1, 1);
  luaL_checktype(L, 1, LUA_TTABLE);
  for (lua_Integer i = 1; lua_rawgeti(L, 1, i) == LUA_TSTRING; i++) {
    zp_editor_offer(lua_tostring(L, -1));
    lua_pop(L, 1);
  }
  return 0;
}

/* A completion that fails offers nothing: there is nobody to tell in the middle of a line. */
static void complete(void *context, const char *text) {
  lua_State *L = context;
  int top = lua_gettop(L);
  lua_pushcfunction(L, offer_words);
  lua_pushvalue(L, 2);
  lua_pushstring(L, text);
  lua_pcall(L, 2, 0, 0);
  lua_settop(L, top);
}

/* Under protection, since the line is nobody's but ours: argument 1 is where it is. */
static int push_line(lua_State *L) {
  lua_pushstring(L, *(char **)lua_touserdata(L, 1));
  return 1;
}

/* core.read_line(prompt, complete) -> the line, or nil at the end of input. complete(word) gives a list of what the word may become. */
static int core_read_line(lua_State *L) {
  const char *prompt = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  luaL_checkstack(L, 8, NULL);
  char *line;
  int rc;
  do {
    zp_lsignal_begin_wait(L);
    rc = zp_editor_read(prompt, complete, L, &line);
  } while (rc == ZP_EINTR);
  zp_lsignal_end_wait();
  if (rc) return zp_lua_raise(L, rc);
  if (!line) return 0;
  lua_pushcfunction(L, push_line);
  lua_pushlightuserdata(L, &line);
  rc = lua_pcall(L, 1, 1, 0);
  free(line);
  return rc == LUA_OK ? 1 : lua_error(L);
}

/* core.note_line(line): add it to the history. */
static int core_note_line(lua_State *L) {
  zp_editor_note(luaL_checkstring(L, 1));
  return 0;
}

static const luaL_Reg functions[] = {
    {"open_editor", core_open_editor},
    {"read_line", core_read_line},
    {"note_line", core_note_line},
    {NULL, NULL},
};

void zp_leditor_open(lua_State *L) { luaL_setfuncs(L, functions, 0); }
