#include "bind/pack.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <lauxlib.h>

#include "base/err.h"
#include "codec/value.h"

/* The first byte of a run. */
enum { FORM_VALUE = 0, FORM_INT8 = 1, FORM_INT16 = 2, FORM_INT32 = 4, FORM_INT64 = 8, FORM_FLOAT = 9 };

enum { AT_ONCE = 64 }; /* elements on the stack */

/* The elements as 8 bytes each, in `out` behind its end, as long as all are integers (or all floats): how many. */
static size_t gather(lua_State *L, int idx, lua_Integer first, size_t count, bool integers, unsigned char *out) {
  int top = lua_gettop(L);
  size_t n = 0;
  while (n < count) {
    size_t batch = count - n < AT_ONCE ? count - n : AT_ONCE;
    for (size_t i = 0; i < batch; i++, n++) {
      lua_rawgeti(L, idx, first + (lua_Integer)n);
      if (integers) {
        if (!lua_isinteger(L, -1)) goto out;
        int64_t value = lua_tointeger(L, -1);
        memcpy(out + 8 * n, &value, 8);
      } else {
        if (lua_type(L, -1) != LUA_TNUMBER || lua_isinteger(L, -1)) goto out;
        double value = lua_tonumber(L, -1);
        memcpy(out + 8 * n, &value, 8);
      }
    }
    lua_settop(L, top);
  }
out:
  lua_settop(L, top);
  return n;
}

/* How many bytes each of the integers needs. */
static int width_of(const unsigned char *numbers, size_t count) {
  int64_t least = 0, most = 0;
  for (size_t i = 0; i < count; i++) {
    int64_t value;
    memcpy(&value, numbers + 8 * i, 8);
    if (value < least) least = value;
    if (value > most) most = value;
  }
  if (least >= INT8_MIN && most <= INT8_MAX) return FORM_INT8;
  if (least >= INT16_MIN && most <= INT16_MAX) return FORM_INT16;
  if (least >= INT32_MIN && most <= INT32_MAX) return FORM_INT32;
  return FORM_INT64;
}

/* The low bytes stand first, so narrowing is moving them together. */
static void narrow(unsigned char *numbers, size_t count, int width) {
  switch (width) {
  case FORM_INT8:
    for (size_t i = 0; i < count; i++) numbers[i] = numbers[8 * i];
    break;
  case FORM_INT16:
    for (size_t i = 0; i < count; i++) memmove(numbers + 2 * i, numbers + 8 * i, 2);
    break;
  case FORM_INT32:
    for (size_t i = 0; i < count; i++) memmove(numbers + 4 * i, numbers + 8 * i, 4);
    break;
  default:
    break;
  }
}

static int pack_values(lua_State *L, int idx, lua_Integer first, size_t count, bool nils, zp_buf *out) {
  if (count > INT32_MAX) return zp_fail(ZP_EENCODE, "cannot send so many values at once");
  lua_createtable(L, (int)count, 0);
  for (size_t i = 0; i < count; i++) {
    if (lua_rawgeti(L, idx, first + (lua_Integer)i) == LUA_TNIL && !nils) {
      lua_pop(L, 2);
      return zp_fail(ZP_EENCODE, "cannot send nil as an item");
    }
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  int rc = zp_value_encode(L, lua_gettop(L), NULL, out);
  lua_pop(L, 1);
  return rc;
}

int zp_pack(lua_State *L, int idx, lua_Integer first, size_t count, bool nils, zp_buf *out) {
  luaL_checkstack(L, AT_ONCE + 8, NULL);
  idx = lua_absindex(L, idx);
  size_t start = out->size;
  if (count > SIZE_MAX / 16) return zp_fail(ZP_EENCODE, "cannot send so many values at once");
  int rc = zp_buf_reserve(out, 1 + 8 * count);
  if (rc) return rc;
  unsigned char *numbers = out->data + start + 1;
  lua_rawgeti(L, idx, first);
  bool integers = lua_isinteger(L, -1), floats = !integers && lua_type(L, -1) == LUA_TNUMBER;
  lua_pop(L, 1);
  if ((integers || floats) && gather(L, idx, first, count, integers, numbers) == count) {
    int form = integers ? width_of(numbers, count) : FORM_FLOAT;
    int width = integers ? form : 8;
    narrow(numbers, count, width);
    out->data[start] = (unsigned char)form;
    out->size = start + 1 + (size_t)width * count;
    return 0;
  }
  out->data[start] = FORM_VALUE;
  out->size = start + 1;
  rc = pack_values(L, idx, first, count, nils, out);
  if (rc) out->size = start;
  return rc;
}

static inline void unpack_integers(lua_State *L, int idx, lua_Integer first, size_t count, const unsigned char *from, int width) {
  int unused = 64 - 8 * width;
  for (size_t i = 0; i < count; i++) {
    int64_t value = 0;
    memcpy(&value, from + (size_t)width * i, (size_t)width);
    lua_pushinteger(L, (int64_t)((uint64_t)value << unused) >> unused);
    lua_rawseti(L, idx, first + (lua_Integer)i);
  }
}

int zp_unpack(lua_State *L, int idx, lua_Integer first, size_t count, zp_bytes bytes) {
  luaL_checkstack(L, 8, NULL);
  idx = lua_absindex(L, idx);
  const unsigned char *from = bytes.data;
  if (bytes.size < 1) return zp_fail(ZP_EDECODE, "a run of values without a form");
  int form = *from++;
  size_t size = bytes.size - 1;
  switch (form) {
  case FORM_VALUE: {
    int rc = zp_value_decode(L, (zp_bytes){from, size}, ZP_DECODE_CODE);
    if (rc) return rc;
    if (!lua_istable(L, -1)) {
      lua_pop(L, 1);
      return zp_fail(ZP_EDECODE, "a run of values that is none");
    }
    for (size_t i = 0; i < count; i++) {
      lua_rawgeti(L, -1, (lua_Integer)i + 1);
      lua_rawseti(L, idx, first + (lua_Integer)i);
    }
    lua_pop(L, 1);
    return 0;
  }
  case FORM_INT8:
  case FORM_INT16:
  case FORM_INT32:
  case FORM_INT64:
    if (size / (size_t)form < count) return zp_fail(ZP_EDECODE, "a run of values that is cut short");
    switch (form) { /* with a width that the compiler knows */
    case FORM_INT8: unpack_integers(L, idx, first, count, from, 1); break;
    case FORM_INT16: unpack_integers(L, idx, first, count, from, 2); break;
    case FORM_INT32: unpack_integers(L, idx, first, count, from, 4); break;
    default: unpack_integers(L, idx, first, count, from, 8); break;
    }
    return 0;
  case FORM_FLOAT:
    if (size / 8 < count) return zp_fail(ZP_EDECODE, "a run of values that is cut short");
    for (size_t i = 0; i < count; i++) {
      double value;
      memcpy(&value, from + 8 * i, 8);
      lua_pushnumber(L, value);
      lua_rawseti(L, idx, first + (lua_Integer)i);
    }
    return 0;
  default:
    return zp_fail(ZP_EDECODE, "a run of values of an unknown form");
  }
}
