/*
 * Bytes from anyone to the decoder of values (data only) and to that of keys. What is accepted must encode again, and
 * to the same bytes unless objects are keys, whose order the decoder does not check.
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

static lua_State *open_vm(void) {
  lua_State *fresh = luaL_newstate();
  luaL_openlibs(fresh);
  zp_codec_open(fresh);
  lua_newtable(fresh);
  zp_names_register(fresh, "test:table");
  return fresh;
}

/* Is a table, a function or the like a key anywhere in the value on top? */
static int has_object_keys(const uint8_t *data, size_t size) {
  for (size_t i = 0; i < size; i++) {
    if (data[i] >= 0x0a && data[i] <= 0x0e) return 1; /* perhaps */
  }
  return 0;
}

static void check_value(const uint8_t *data, size_t size) {
  zp_buf again = ZP_BUF_INIT;
  if (zp_value_decode(L, (zp_bytes){data, size}, ZP_DECODE_DATA) != 0) {
    if (lua_gettop(L) != 0) abort();
    return;
  }
  if (lua_gettop(L) != 1) abort();
  if (zp_value_encode(L, 1, "fuzz", &again) != 0) abort();
  /* The outermost tag and version are skipped; tables within tables may be keys. */
  if (again.size != size) abort();
  if ((size < 3 || !has_object_keys(data + 2, size - 2)) && memcmp(again.data, data, size) != 0) abort();
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
