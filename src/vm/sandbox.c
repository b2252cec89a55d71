#include "vm/sandbox.h"

#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/err.h"
#include "codec/key.h"
#include "codec/names.h"
#include "codec/value.h"

/* ---- the view ---- */

static zp_sandbox *sandbox_of(lua_State *L) { return *(zp_sandbox **)lua_getextraspace(L); }

/* A callback has failed, or bytes could not be decoded: the evaluation ends with that, whatever the predicate makes of it. */
static int fail(lua_State *L, int rc) {
  sandbox_of(L)->failure = rc;
  return luaL_error(L, "%s", zp_error_detail());
}

static const zp_view *view_of(lua_State *L) {
  const zp_view *view = sandbox_of(L)->view;
  if (!view) luaL_error(L, "the state is not to be read at this time");
  return view;
}

static void depend_on_all(const zp_view *view) { view->read(view->context, NULL); }

/* Read the key at stack index 2; 1 and the value's bytes, or 0. */
static int get(lua_State *L, zp_bytes *value) {
  const zp_view *view = view_of(L);
  luaL_checkany(L, 2);
  zp_buf *scratch = &sandbox_of(L)->key;
  int rc = zp_key_encode(L, 2, scratch);
  if (rc) return luaL_error(L, "%s", zp_error_detail());
  zp_bytes key = {scratch->data, scratch->size};
  view->read(view->context, &key);
  rc = view->get(view->context, key, value);
  return rc < 0 ? fail(L, rc) : rc;
}

static void push_value(lua_State *L, zp_bytes value) {
  int rc = zp_value_decode(L, value, ZP_DECODE_CODE | ZP_DECODE_NO_FINALISERS);
  if (rc) fail(L, rc);
}

static int view_get(lua_State *L) {
  zp_bytes value;
  lua_settop(L, 3);
  if (get(L, &value)) {
    push_value(L, value);
  } else {
    if (lua_isnil(L, 3)) sandbox_of(L)->read_absent = true;
    lua_pushvalue(L, 3);
  }
  return 1;
}

static int view_contains(lua_State *L) {
  zp_bytes value;
  lua_pushboolean(L, get(L, &value));
  return 1;
}

/* upvalue: the methods by name */
static int view_index(lua_State *L) {
  if (lua_type(L, 2) == LUA_TSTRING) {
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) {
      lua_getupvalue(L, -1, 1);
      sandbox_of(L)->fetched |= 1U << lua_tointeger(L, -1);
      lua_pop(L, 1);
      return 1;
    }
    lua_pop(L, 1);
  }
  zp_bytes value;
  if (get(L, &value)) {
    push_value(L, value);
  } else {
    sandbox_of(L)->read_absent = true;
    lua_pushnil(L);
  }
  return 1;
}

static int view_newindex(lua_State *L) {
  return luaL_error(L, "a predicate cannot change the state; it may only look at it");
}

/* Push a table made of all pairs: what the three flags say of keys and values. */
static int push_pairs(lua_State *L, bool keys, bool values, bool by_key) {
  const zp_view *view = view_of(L);
  zp_bytes key, value;
  depend_on_all(view);
  lua_newtable(L);
  lua_Integer count = 0;
  int rc = view->first(view->context, &key, &value);
  for (; rc == 1; rc = view->next(view->context, &key, &value)) {
    int bad = 0;
    if (keys && values && !by_key) lua_createtable(L, 2, 0);
    if (keys && (bad = zp_key_decode(L, key))) return fail(L, bad);
    if (keys && values && !by_key) lua_rawseti(L, -2, 1);
    if (values) push_value(L, value);
    if (by_key) {
      lua_rawset(L, -3);
      continue;
    }
    if (keys && values) lua_rawseti(L, -2, 2);
    lua_rawseti(L, -2, ++count);
  }
  return rc < 0 ? fail(L, rc) : 1;
}

static int view_copy(lua_State *L) { return push_pairs(L, true, true, true); }
static int view_keys(lua_State *L) { return push_pairs(L, true, false, false); }
static int view_values(lua_State *L) { return push_pairs(L, false, true, false); }
static int view_items(lua_State *L) { return push_pairs(L, true, true, false); }

static int view_len(lua_State *L) {
  const zp_view *view = view_of(L);
  zp_bytes key, value;
  lua_Integer count = 0;
  depend_on_all(view);
  int rc = view->first(view->context, &key, &value);
  for (; rc == 1; rc = view->next(view->context, &key, &value)) count++;
  if (rc < 0) return fail(L, rc);
  lua_pushinteger(L, count);
  return 1;
}

/* The iterator of pairs(view); upvalues: the items, how many were given. */
static int next_item(lua_State *L) {
  lua_Integer i = lua_tointeger(L, lua_upvalueindex(2)) + 1;
  lua_pushinteger(L, i);
  lua_replace(L, lua_upvalueindex(2));
  if (lua_rawgeti(L, lua_upvalueindex(1), i) == LUA_TNIL) return 0;
  lua_rawgeti(L, -1, 1);
  lua_rawgeti(L, -2, 2);
  return 2;
}

static int view_pairs(lua_State *L) {
  view_items(L);
  lua_pushinteger(L, 0);
  lua_pushcclosure(L, next_item, 2);
  return 1;
}

static const luaL_Reg methods[] = {
    {"get", view_get},   {"contains", view_contains}, {"copy", view_copy},   {"keys", view_keys},
    {"values", view_values}, {"items", view_items},
};

/* A method as predicates have it; upvalue: which one. */
static int call_method(lua_State *L) {
  lua_Integer i = lua_tointeger(L, lua_upvalueindex(1));
  sandbox_of(L)->called |= 1U << i;
  if (!lua_istable(L, 1))
    return luaL_error(L, "the state is expected as the first argument, not a %s (is it state:%s(...), with a colon?)", luaL_typename(L, 1),
                      methods[i].name);
  return methods[i].func(L);
}

const char *zp_sandbox_uncalled(const zp_sandbox *sandbox) {
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
    if ((sandbox->fetched & ~sandbox->called) >> i & 1) return methods[i].name;
  return NULL;
}

static const luaL_Reg metamethods[] = {
    {"__newindex", view_newindex}, {"__len", view_len}, {"__pairs", view_pairs}, {NULL, NULL},
};

/* ---- the library ---- */

static const luaL_Reg libraries[] = {
    {LUA_GNAME, luaopen_base},       {LUA_STRLIBNAME, luaopen_string}, {LUA_TABLIBNAME, luaopen_table},
    {LUA_MATHLIBNAME, luaopen_math}, {LUA_UTF8LIBNAME, luaopen_utf8},  {LUA_COLIBNAME, luaopen_coroutine},
};

/* Of the basic functions: what reads files, makes code, writes, or turns the collector on. */
static const char *const removed[] = {"dofile", "loadfile", "load", "print", "warn", "collectgarbage"};

/* What a script has and a predicate looks for in vain. */
static int absent_global(lua_State *L) {
  static const char *const names[] = {"os", "io", "debug", "package", "require", "zproc", "dofile", "loadfile",
                                      "load", "print", "collectgarbage"};
  const char *name = lua_tostring(L, 2);
  for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
    if (strcmp(name, names[i]) == 0)
      return luaL_error(L, "'%s' is not there for a predicate: it is evaluated apart from the script, and may only look at "
                           "the state that it is given, and at what it captures; " ZP_SANDBOX_ADVICE, name);
  return 0;
}

/* A finaliser would run when nobody looks at the clock. (Decoded values have none either: ZP_DECODE_NO_FINALISERS.) */
static int sandbox_setmetatable(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  luaL_argexpected(L, lua_isnoneornil(L, 2) || lua_istable(L, 2), 2, "nil or table");
  lua_settop(L, 2);
  if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) return luaL_error(L, "cannot change a protected metatable");
  if (lua_istable(L, 2)) {
    lua_pushliteral(L, "__gc");
    if (lua_rawget(L, 2) != LUA_TNIL) return luaL_error(L, "a predicate cannot have finalisers (__gc)");
    lua_pop(L, 1);
  }
  lua_setmetatable(L, 1);
  return 1;
}

void zp_sandbox_open(lua_State *L, zp_sandbox *sandbox) {
  *(zp_sandbox **)lua_getextraspace(L) = sandbox;
  for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
    luaL_requiref(L, libraries[i].name, libraries[i].func, 1);
    lua_pop(L, 1);
  }
  lua_pushglobaltable(L);
  for (size_t i = 0; i < sizeof removed / sizeof *removed; i++) {
    lua_pushnil(L);
    lua_setfield(L, -2, removed[i]);
  }
  lua_pushcfunction(L, sandbox_setmetatable);
  lua_setfield(L, -2, "setmetatable");
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, absent_global);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  lua_getfield(L, -1, LUA_STRLIBNAME);
  lua_pushnil(L);
  lua_setfield(L, -2, "dump");
  lua_pop(L, 2);

  zp_codec_open(L);
  /* Error objects may be values of the state; here they are tables with the same fields. */
  lua_newtable(L);
  zp_names_register(L, "zproc:Error");
  lua_newtable(L);
  zp_names_register(L, "zproc:ErrorClass");

  lua_newtable(L); /* the view */
  lua_newtable(L); /* its metatable */
  luaL_setfuncs(L, metamethods, 0);
  lua_newtable(L);
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
    lua_pushinteger(L, (lua_Integer)i);
    lua_pushcclosure(L, call_method, 1);
    lua_setfield(L, -2, methods[i].name);
  }
  lua_pushcclosure(L, view_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "state");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_setmetatable(L, -2);
}
