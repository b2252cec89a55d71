#include "vm/library.h"

#include <limits.h>
#include <stdint.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "vm/budget.h"
#include "vm/pattern.h"

static void spend(lua_State *L, size_t steps) { zp_budget_spend(zp_budget_of(L), steps); }

/* ---- string ---- */

/* string.rep(s, n, [sep]): Lua's own copies nothing as often as it is told. */
static int string_rep(lua_State *L) {
  size_t size, between;
  const char *text = luaL_checklstring(L, 1, &size), *separator;
  lua_Integer count = luaL_checkinteger(L, 2);
  separator = luaL_optlstring(L, 3, "", &between);
  size_t unit = size + between;
  if (count <= 0 || unit == 0) {
    lua_pushliteral(L, "");
    return 1;
  }
  if (unit < size || unit > (size_t)PTRDIFF_MAX / (size_t)count) return luaL_error(L, "resulting string too large");
  luaL_Buffer out;
  size_t total = unit * (size_t)count - between, done = size;
  char *to = luaL_buffinitsize(L, &out, total);
  spend(L, 1 + total / 64);
  memcpy(to, text, size);
  if (count > 1) {
    memcpy(to + size, separator, between);
    done += between;
  }
  while (done < total) { /* of what is there already, as much as is wanted */
    size_t more = done < total - done ? done : total - done;
    memcpy(to + done, to, more);
    done += more;
  }
  luaL_pushresultsize(&out, total);
  return 1;
}

/* ---- table ---- */

enum { READ = 1, WRITE = 2, LENGTH = 4 };

/* The argument is a table, or can be used like one. */
static void check_table(lua_State *L, int index, int use) {
  static const struct {
    int use;
    const char *event;
  } needed[] = {{READ, "__index"}, {WRITE, "__newindex"}, {LENGTH, "__len"}};
  if (lua_istable(L, index)) return;
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
    if (!(use & needed[i].use)) continue;
    if (luaL_getmetafield(L, index, needed[i].event) == LUA_TNIL) luaL_checktype(L, index, LUA_TTABLE); /* raises */
    lua_pop(L, 1);
  }
}

/* table.concat(t, [sep, [i, [j]]]) */
static int table_concat(lua_State *L) {
  size_t between;
  check_table(L, 1, READ | LENGTH);
  const char *separator = luaL_optlstring(L, 2, "", &between);
  lua_Integer i = luaL_optinteger(L, 3, 1), last = lua_isnoneornil(L, 4) ? luaL_len(L, 1) : luaL_checkinteger(L, 4);
  luaL_Buffer out;
  luaL_buffinit(L, &out);
  for (; i <= last; i++) {
    size_t size;
    lua_geti(L, 1, i);
    if (!lua_tolstring(L, -1, &size))
      return luaL_error(L, "invalid value (%s) at index %I in table for 'concat'", luaL_typename(L, -1), (LUAI_UACINT)i);
    luaL_addvalue(&out);
    if (i == last) break;
    luaL_addlstring(&out, separator, between);
    spend(L, 1 + (size + between) / 64);
  }
  luaL_pushresult(&out);
  return 1;
}

/* table[to] = table[from] */
static void move_one(lua_State *L, int target, lua_Integer from, lua_Integer to) {
  lua_geti(L, 1, from);
  lua_seti(L, target, to);
  spend(L, 1);
}

/* table.insert(t, [position,] value) */
static int table_insert(lua_State *L) {
  check_table(L, 1, READ | WRITE | LENGTH);
  lua_Integer end = (lua_Integer)((lua_Unsigned)luaL_len(L, 1) + 1), position = end;
  switch (lua_gettop(L)) {
    case 2: break;
    case 3:
      position = luaL_checkinteger(L, 2);
      luaL_argcheck(L, (lua_Unsigned)position - 1 < (lua_Unsigned)end, 2, "position out of bounds");
      for (lua_Integer i = end; i > position; i--) move_one(L, 1, i - 1, i);
      break;
    default: return luaL_error(L, "wrong number of arguments to 'insert'");
  }
  lua_seti(L, 1, position);
  return 0;
}

/* table.remove(t, [position]) */
static int table_remove(lua_State *L) {
  check_table(L, 1, READ | WRITE | LENGTH);
  lua_Integer size = luaL_len(L, 1), position = luaL_optinteger(L, 2, size);
  if (position != size) luaL_argcheck(L, (lua_Unsigned)position - 1 <= (lua_Unsigned)size, 2, "position out of bounds");
  lua_geti(L, 1, position);
  for (; position < size; position++) move_one(L, 1, position + 1, position);
  lua_pushnil(L);
  lua_seti(L, 1, position);
  return 1;
}

/* table.move(a, from, last, to, [b]) */
static int table_move(lua_State *L) {
  lua_Integer from = luaL_checkinteger(L, 2), last = luaL_checkinteger(L, 3), to = luaL_checkinteger(L, 4);
  int target = lua_isnoneornil(L, 5) ? 1 : 5;
  check_table(L, 1, READ);
  check_table(L, target, WRITE);
  if (last >= from) {
    luaL_argcheck(L, from > 0 || last < LUA_MAXINTEGER + from, 3, "too many elements to move");
    lua_Integer count = last - from + 1;
    luaL_argcheck(L, to <= LUA_MAXINTEGER - count + 1, 4, "destination wrap around");
    bool is_forward = to > last || to <= from || (target != 1 && !lua_compare(L, 1, target, LUA_OPEQ));
    for (lua_Integer i = 0; is_forward && i < count; i++) move_one(L, target, from + i, to + i);
    for (lua_Integer i = count - 1; !is_forward && i >= 0; i--) move_one(L, target, from + i, to + i);
  }
  lua_pushvalue(L, target);
  return 1;
}

/* table.unpack(list, [i, [j]]) */
static int table_unpack(lua_State *L) {
  lua_Integer i = luaL_optinteger(L, 2, 1), last = lua_isnoneornil(L, 3) ? luaL_len(L, 1) : luaL_checkinteger(L, 3);
  if (i > last) return 0;
  lua_Unsigned more = (lua_Unsigned)last - (lua_Unsigned)i;
  if (more >= INT_MAX || !lua_checkstack(L, (int)more + 1)) return luaL_error(L, "too many results to unpack");
  for (lua_Unsigned k = 0; k <= more; k++) {
    lua_geti(L, 1, (lua_Integer)((lua_Unsigned)i + k));
    spend(L, 1);
  }
  return (int)more + 1;
}

/* ---- table.sort: by merging, which ends after so many comparisons, whatever these say ---- */

enum { TABLE = 1, LESS, FROM, TO };

/* Whether the value at index a of the stack comes before that at b. */
static bool is_less(lua_State *L, int a, int b) {
  spend(L, 1);
  if (lua_isnil(L, LESS)) return lua_compare(L, a, b, LUA_OPLT);
  lua_pushvalue(L, LESS);
  lua_pushvalue(L, a);
  lua_pushvalue(L, b);
  lua_call(L, 2, 1);
  bool less = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return less;
}

/* Merge FROM[first .. middle - 1] and FROM[middle .. end - 1], which are sorted, into TO. */
static void merge(lua_State *L, lua_Integer first, lua_Integer middle, lua_Integer end) {
  lua_Integer left = first, right = middle;
  for (lua_Integer to = first; to < end; to++) {
    bool is_left = left < middle;
    if (is_left && right < end) {
      lua_rawgeti(L, FROM, left);
      lua_rawgeti(L, FROM, right);
      is_left = !is_less(L, TO + 2, TO + 1);
      lua_settop(L, TO);
    }
    lua_rawgeti(L, FROM, is_left ? left++ : right++);
    lua_rawseti(L, TO, to);
    spend(L, 1);
  }
}

/* table.sort(t, [less]) */
static int table_sort(lua_State *L) {
  check_table(L, TABLE, READ | WRITE | LENGTH);
  lua_Integer count = luaL_len(L, TABLE);
  if (count < 2) return 0;
  luaL_argcheck(L, count < INT_MAX, 1, "array too big");
  if (!lua_isnoneornil(L, LESS)) luaL_checktype(L, LESS, LUA_TFUNCTION);
  lua_settop(L, LESS);
  lua_newtable(L);
  lua_newtable(L);
  for (lua_Integer i = 1; i <= count; i++) {
    lua_geti(L, TABLE, i);
    lua_rawseti(L, FROM, i);
    spend(L, 1);
  }
  for (lua_Integer width = 1; width < count; width *= 2) {
    for (lua_Integer first = 1; first <= count; first += 2 * width) {
      lua_Integer middle = first + width, end = middle + width;
      if (middle > count + 1) middle = count + 1;
      if (end > count + 1) end = count + 1;
      merge(L, first, middle, end);
    }
    lua_insert(L, FROM); /* what was merged is merged next */
  }
  for (lua_Integer i = 1; i <= count; i++) {
    lua_rawgeti(L, FROM, i);
    lua_seti(L, TABLE, i);
    spend(L, 1);
  }
  return 0;
}

/* ---- all of them ---- */

static const luaL_Reg libraries[] = {
    {LUA_GNAME, luaopen_base},       {LUA_STRLIBNAME, luaopen_string}, {LUA_TABLIBNAME, luaopen_table},
    {LUA_MATHLIBNAME, luaopen_math}, {LUA_UTF8LIBNAME, luaopen_utf8},  {LUA_COLIBNAME, luaopen_coroutine},
};

/* What reads files, makes code, writes, or turns the collector on. */
static const char *const absent[] = {"dofile", "loadfile", "load", "print", "warn", "collectgarbage"};

static const luaL_Reg string_functions[] = {{"rep", string_rep}, {"dump", NULL}, {NULL, NULL}};

static const luaL_Reg table_functions[] = {
    {"concat", table_concat}, {"insert", table_insert}, {"move", table_move}, {"remove", table_remove},
    {"sort", table_sort},     {"unpack", table_unpack}, {NULL, NULL},
};

/* A finaliser would run when nobody looks at the clock. (Decoded values have none either: ZP_DECODE_NO_FINALISERS.) */
static int basic_setmetatable(lua_State *L) {
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

/* Replace functions of a library; NULL: it is left out. */
static void replace(lua_State *L, const char *library, const luaL_Reg *functions) {
  lua_getglobal(L, library);
  for (; functions->name; functions++) {
    if (functions->func) lua_pushcfunction(L, functions->func);
    else lua_pushnil(L);
    lua_setfield(L, -2, functions->name);
  }
}

void zp_library_open(lua_State *L) {
  for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
    luaL_requiref(L, libraries[i].name, libraries[i].func, 1);
    lua_pop(L, 1);
  }
  for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
    lua_pushnil(L);
    lua_setglobal(L, absent[i]);
  }
  lua_pushcfunction(L, basic_setmetatable);
  lua_setglobal(L, "setmetatable");
  replace(L, LUA_TABLIBNAME, table_functions);
  replace(L, LUA_STRLIBNAME, string_functions);
  zp_pattern_open(L);
  lua_pop(L, 2);
}
