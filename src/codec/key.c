#include "codec/key.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "codec/format.h"
#include "store/store.h"

/* No tag is zero: the store writes a zero byte twice. */
enum { KEY_FALSE = 1, KEY_TRUE = 2, KEY_NUMBER = 3, KEY_STRING = 4 };

#define EXACT_MAX (INT64_C(1) << 53) /* up to here each integer is a double of its own */
#define START_SHOWN 32               /* bytes of a key that is too long that its error shows */

static bool is_exact(lua_Integer number) { return number >= -EXACT_MAX && number <= EXACT_MAX; }

/* The greatest double that is not above the number, so that the doubles of integers are in the order of the integers,
   and none reaches the double beyond the last integer. */
static double floor_double(lua_Integer number) {
  double rank = (double)number;
  if (rank >= 0x1p63 || (lua_Integer)rank > number) rank = nextafter(rank, -INFINITY);
  return rank;
}

static double from_ordered_bits(uint64_t ordered) {
  uint64_t bits = ordered >> 63 ? ordered ^ UINT64_C(1) << 63 : ~ordered;
  double number;
  memcpy(&number, &bits, 8);
  return number;
}

static int encode_integer(lua_Integer number, zp_buf *buf) {
  unsigned char bytes[17] = {KEY_NUMBER};
  zp_put_be64(bytes + 1, ordered_bits(floor_double(number)));
  if (is_exact(number)) return zp_buf_append(buf, bytes, 9);
  zp_put_be64(bytes + 9, (uint64_t)number ^ UINT64_C(1) << 63);
  return zp_buf_append(buf, bytes, 17);
}

static int encode_float(lua_Number number, zp_buf *buf) {
  unsigned char bytes[9] = {KEY_NUMBER};
  lua_Integer integer;
  if (isnan(number)) return zp_fail(ZP_EKEY, "NaN cannot be a key of the state");
  if (floor(number) == number && lua_numbertointeger(number, &integer)) return encode_integer(integer, buf);
  zp_put_be64(bytes + 1, ordered_bits(number));
  return zp_buf_append(buf, bytes, 9);
}

static int fail_too_long(const char *string, size_t size) {
  char start[START_SHOWN + 1];
  size_t shown = size < START_SHOWN ? size : START_SHOWN;
  for (size_t i = 0; i < shown; i++) {
    unsigned char byte = (unsigned char)string[i];
    start[i] = (char)(byte >= ' ' && byte < 0x7f ? byte : '?');
  }
  start[shown] = '\0';
  return zp_fail(ZP_EKEY,
                 "a key of %zu bytes is too long for the state, which takes %d (a zero byte counts twice): \"%s...\"",
                 size, ZP_KEY_MAX - 1, start);
}

static int encode_string(const char *string, size_t size, zp_buf *buf) {
  if (2 * size + 1 > ZP_KEY_MAX) { /* only now the zero bytes matter */
    size_t stored = size + 1;
    if (stored > ZP_KEY_MAX) return fail_too_long(string, size);
    for (size_t i = 0; i < size; i++) stored += string[i] == '\0';
    if (stored > ZP_KEY_MAX) return fail_too_long(string, size);
  }
  int rc = zp_buf_reserve(buf, size + 1);
  if (rc) return rc;
  buf->data[0] = KEY_STRING;
  memcpy(buf->data + 1, string, size);
  buf->size = size + 1;
  return 0;
}

int zp_key_encode(lua_State *L, int idx, zp_buf *buf) {
  size_t size;
  buf->size = 0;
  switch (lua_type(L, idx)) {
  case LUA_TSTRING: {
    const char *string = lua_tolstring(L, idx, &size);
    return encode_string(string, size, buf);
  }
  case LUA_TNUMBER:
    if (lua_isinteger(L, idx)) return encode_integer(lua_tointeger(L, idx), buf);
    return encode_float(lua_tonumber(L, idx), buf);
  case LUA_TBOOLEAN:
    return zp_buf_append_byte(buf, lua_toboolean(L, idx) ? KEY_TRUE : KEY_FALSE);
  case LUA_TNIL:
  case LUA_TNONE:
    return zp_fail(ZP_EKEY, "nil cannot be a key of the state; use a string, integer, float or boolean");
  case LUA_TLIGHTUSERDATA:
    if (!lua_touserdata(L, idx))
      return zp_fail(ZP_EKEY, "null cannot be a key of the state; use a string, integer, float or boolean");
    /* fall through */
  default:
    return zp_fail(ZP_EKEY, "a %s cannot be a key of the state; use a string, integer, float or boolean",
                   lua_typename(L, lua_type(L, idx)));
  }
}

static int decode_number(lua_State *L, const unsigned char *data, size_t size) {
  lua_Integer integer;
  double number = from_ordered_bits(zp_get_be64(data + 1));
  if (size == 17) {
    integer = (lua_Integer)(zp_get_be64(data + 9) ^ UINT64_C(1) << 63);
    if (is_exact(integer) || floor_double(integer) != number) return -1;
    lua_pushinteger(L, integer);
  } else if (floor(number) == number && lua_numbertointeger(number, &integer)) {
    if (!is_exact(integer) || (integer == 0 && signbit(number))) return -1;
    lua_pushinteger(L, integer);
  } else {
    if (isnan(number)) return -1;
    lua_pushnumber(L, number);
  }
  return 0;
}

int zp_key_decode(lua_State *L, zp_bytes bytes) {
  const unsigned char *data = bytes.data;
  int tag = bytes.size > 0 ? data[0] : 0;
  if (tag == KEY_STRING) {
    lua_pushlstring(L, (const char *)data + 1, bytes.size - 1);
    return 0;
  }
  if ((tag == KEY_FALSE || tag == KEY_TRUE) && bytes.size == 1) {
    lua_pushboolean(L, tag == KEY_TRUE);
    return 0;
  }
  if (tag == KEY_NUMBER && (bytes.size == 9 || bytes.size == 17) && decode_number(L, data, bytes.size) == 0) return 0;
  return zp_fail(ZP_EDECODE, "these %zu bytes are no key", bytes.size);
}
