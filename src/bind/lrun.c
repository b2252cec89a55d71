#include "bind/lrun.h"

#include <stdio.h>

#include <lauxlib.h>

#include "base/err.h"
#include "bind/core.h"
#include "bind/lbuf.h"
#include "bind/lclass.h"
#include "bind/lerror.h"
#include "codec/value.h"

#define RUN "zproc.Run"

zp_run *zp_lrun_check(lua_State *L, int index) { return luaL_checkudata(L, index, RUN); }

static zp_run *push_run(lua_State *L) {
  zp_run *run = lua_newuserdatauv(L, sizeof *run, 0);
  *run = (zp_run){.form = 0};
  luaL_setmetatable(L, RUN);
  return run;
}

/* core.run() -> Run */
static int core_run(lua_State *L) {
  push_run(L);
  return 1;
}

/* Push the error of the value at idx, which could not be added. `number`: of an item; 0: it is a result. */
static void push_failure(lua_State *L, int rc, int idx, lua_Integer number) {
  char root[40];
  idx = lua_absindex(L, idx);
  if (rc != ZP_EENCODE) zp_lua_raise(L, rc);
  snprintf(root, sizeof root, "item %lld", (long long)number);
  zp_buf *bytes = zp_lbuf_push(L); /* only now is a name for it worth its making */
  rc = zp_value_encode(L, idx, number ? root : "result", bytes);
  zp_buf_free(bytes);
  zp_lua_push_error(L, rc ? rc : ZP_EENCODE);
}

/* add(value [, number]) -> nil, or why the value cannot travel (with the number: that of an item); then nothing is added. With the number it
   gives the size of the run as well, as run:size() does. */
static int add(lua_State *L) {
  zp_run *run = lua_touserdata(L, lua_upvalueindex(1));
  int rc = zp_run_add(L, run, 1);
  if (!rc && lua_gettop(L) == 1) return 0;
  if (rc) push_failure(L, rc, 1, luaL_optinteger(L, 2, 0));
  else lua_pushnil(L);
  lua_pushinteger(L, (lua_Integer)zp_run_size(run));
  return 2;
}

/* run:adder() -> the function that adds a value to it */
static int run_adder(lua_State *L) {
  zp_lrun_check(L, 1);
  lua_settop(L, 1);
  lua_pushcclosure(L, add, 1);
  return 1;
}

/* run:size() -> bytes, about */
static int run_size(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)zp_run_size(zp_lrun_check(L, 1)));
  return 1;
}

/* run:count() -> values */
static int run_count(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)zp_lrun_check(L, 1)->count);
  return 1;
}

/* run:finish() -> its bytes; nothing can be added then until run:clear() */
static int run_finish(lua_State *L) {
  zp_bytes bytes = zp_run_finish(zp_lrun_check(L, 1));
  lua_pushlstring(L, bytes.data, bytes.size);
  return 1;
}

static int run_clear(lua_State *L) {
  zp_run_clear(zp_lrun_check(L, 1));
  return 0;
}

static int run_gc(lua_State *L) {
  zp_run_free(zp_lrun_check(L, 1));
  return 0;
}

/* core.pack(array, first, count, limit) -> bytes, packed [, err]: the elements from index `first` on, `count` of them or as many as take
   `limit` bytes, about. err: why the one behind these cannot travel; false if it is nil. */
static int core_pack(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_Integer first = luaL_checkinteger(L, 2), count = luaL_checkinteger(L, 3);
  size_t limit = (size_t)luaL_checkinteger(L, 4);
  lua_settop(L, 4);
  zp_run *run = push_run(L);
  lua_Integer n = 0;
  int rc = 0, results = 2;
  for (; n < count && zp_run_size(run) < limit; n++) {
    if (lua_rawgeti(L, 1, first + n) == LUA_TNIL) {
      lua_pushboolean(L, 0);
      results = 3;
      break;
    }
    if ((rc = zp_run_add(L, run, -1)) != 0) {
      push_failure(L, rc, -1, first + n);
      results = 3;
      break;
    }
    lua_pop(L, 1);
    if (n == 0 && count > 1) n += (lua_Integer)zp_run_add_numbers(L, run, 1, first + 1, (size_t)(count - 1));
  }
  zp_bytes bytes = zp_run_finish(run);
  lua_pushlstring(L, bytes.data, bytes.size);
  lua_pushinteger(L, n);
  if (results == 3) lua_pushvalue(L, -3);
  zp_run_free(run);
  return results;
}

/* core.unpack(bytes, count) -> array, errors: nil, or by their places why values cannot be read */
static int core_unpack(lua_State *L) {
  zp_bytes bytes;
  bytes.data = luaL_checklstring(L, 1, &bytes.size);
  size_t count = (size_t)luaL_checkinteger(L, 2);
  lua_settop(L, 2);
  lua_newtable(L);
  int rc = zp_unpack(L, 3, 1, count, bytes);
  return rc ? zp_lua_raise(L, rc) : 2;
}

static const luaL_Reg methods[] = {
    {"adder", run_adder}, {"size", run_size}, {"count", run_count}, {"finish", run_finish}, {"clear", run_clear}, {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"run", core_run},
    {"pack", core_pack},
    {"unpack", core_unpack},
    {NULL, NULL},
};

void zp_lrun_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  zp_lclass_new(L, RUN, methods, run_gc);
}
