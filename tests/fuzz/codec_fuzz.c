/*
 * Bytes from anyone to the decoder of values (data only) and to that of keys. What is accepted must encode again, and
 * to the same bytes; unless objects are keys, whose order the decoder does not check. Then objects may get other numbers, and
 * references other sizes with them, and what was encoded must be accepted again.
 *
 *   scripts/fuzz codec [SECONDS]
 *
 * The first byte picks: even for a value, odd for a key. The seeds are made by codec_seeds.lua.
 */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdlib.h>
#include <string.h>

#include "codec/key.h"
#include "codec/names.h"
#include "codec/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static lua_State *L;
static int walker; /* in the registry: has_object_keys(value) */

/* Is a table a key anywhere in the value? As data there are no functions. */
static const char walker_source[] =
    "local function walk(value, seen)\n"
    "  if type(value) ~= 'table' or seen[value] then return false end\n"
    "  seen[value] = true\n"
    "  for key, content in next, value do\n"
    "    if type(key) == 'table' or walk(content, seen) then return true end\n"
    "  end\n"
    "  return walk(debug.getmetatable(value), seen)\n"
    "end\n"
    "return function(value) return walk(value, {}) end\n";

static lua_State *open_vm(void) {
  lua_State *fresh = luaL_newstate();
  luaL_openlibs(fresh);
  zp_codec_open(fresh);
  lua_newtable(fresh);
  zp_names_register(fresh, "test:table");
  if (luaL_dostring(fresh, walker_source)) abort();
  walker = luaL_ref(fresh, LUA_REGISTRYINDEX);
  return fresh;
}

/* Of the value on top. */
static int has_object_keys(void) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, walker);
  lua_pushvalue(L, -2);
  if (lua_pcall(L, 1, 1, 0)) abort();
  int has = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return has;
}

static void check_value(const uint8_t *data, size_t size) {
  zp_buf again = ZP_BUF_INIT;
  zp_value_equal((zp_bytes){data, size / 2}, (zp_bytes){data + size / 2, size - size / 2});
  if (zp_value_decode(L, (zp_bytes){data, size}, ZP_DECODE_DATA) != 0) {
    if (lua_gettop(L) != 0) abort();
    return;
  }
  if (lua_gettop(L) != 1) abort();
  if (zp_value_encode(L, 1, "fuzz", &again) != 0) abort();
  if (!has_object_keys()) {
    if (again.size != size || memcmp(again.data, data, size) != 0) abort();
  } else if (zp_value_decode(L, (zp_bytes){again.data, again.size}, ZP_DECODE_DATA) != 0) {
    abort();
  }
  /* Equality is the same in both directions, and only a NaN, or a limit of what is compared, keeps a value from being equal to itself. */
  if (zp_value_equal((zp_bytes){data, size}, zp_buf_bytes(&again)) != zp_value_equal(zp_buf_bytes(&again), (zp_bytes){data, size})) abort();
  zp_buf_free(&again);
}

static void check_key(const uint8_t *data, size_t size) {
  zp_buf again = ZP_BUF_INIT;
  if (zp_key_decode(L, (zp_bytes){data, size}) == 0) {
    if (zp_key_encode(L, 1, &again) == 0 && (again.size != size || memcmp(again.data, data, size) != 0)) abort();
  } else if (lua_gettop(L) != 0) {
    abort();
  }
  zp_buf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  if (!L) L = open_vm();
  if (data[0] & 1) {
    check_key(data + 1, size - 1);
  } else {
    check_value(data + 1, size - 1);
  }
  lua_settop(L, 0);
  return 0;
}
