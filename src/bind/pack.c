#include "bind/pack.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <lauxlib.h>

#include "base/err.h"
#include "bind/lerror.h"
#include "codec/value.h"

/* The first byte of a run. Strings and values have their size before them; a value of the size 0 is nil. */
enum { FORM_NONE = 0, FORM_INT8 = 1, FORM_INT16 = 2, FORM_INT32 = 4, FORM_INT64 = 8, FORM_FLOAT = 9, FORM_STRINGS = 10, FORM_VALUES = 11 };

enum { KEEP = 1 << 20 }; /* bytes that a buffer keeps for the next run */

/* ---- adding ---- */

static int begin(zp_run *run, int form) {
  run->bytes.size = 0;
  int rc = zp_buf_append_byte(&run->bytes, (unsigned char)form);
  if (rc) return rc;
  run->form = form;
  run->end = 1;
  return 0;
}

static void added(zp_run *run) {
  run->end = run->bytes.size;
  run->count++;
}

static int add_number(zp_run *run, const void *number) {
  int rc = zp_buf_append(&run->bytes, number, 8);
  if (!rc) added(run);
  return rc;
}

static int add_string(zp_run *run, const char *string, size_t size) {
  int rc = zp_buf_reserve(&run->bytes, size + 10);
  if (rc) return rc;
  zp_buf_append_varint(&run->bytes, size);
  rc = zp_buf_append(&run->bytes, string, size);
  if (!rc) added(run);
  return rc;
}

/* Write the value at idx with its size before it. */
static int write_value(lua_State *L, zp_buf *out, int idx) {
  size_t start = out->size;
  int rc = zp_buf_append_byte(out, 0);
  if (rc || lua_isnil(L, idx)) return rc;
  rc = zp_value_encode(L, idx, NULL, out);
  if (rc) return rc;
  size_t size = out->size - start - 1, head = 1;
  for (size_t rest = size; rest >= 0x80; rest >>= 7) head++;
  rc = zp_buf_reserve(out, head);
  if (rc) return rc;
  memmove(out->data + start + head, out->data + start + 1, size);
  out->size = start;
  zp_buf_append_varint(out, size);
  out->size += size;
  return 0;
}

static int read_size(zp_bytes *from, size_t *size) {
  const unsigned char *at = from->data, *end = at + from->size;
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && at < end; shift += 7) {
    unsigned char byte = *at++;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) {
      if (value > (uint64_t)(end - at)) break;
      *size = (size_t)value;
      *from = (zp_bytes){at, (size_t)(end - at)};
      return 0;
    }
  }
  return zp_fail(ZP_EDECODE, "a run of values that is cut short");
}

/* Push the next element of a run of numbers or strings. */
static int push_plain(lua_State *L, int form, zp_bytes *from) {
  const unsigned char *data = from->data;
  size_t size = 8;
  int rc = 0;
  if (form == FORM_STRINGS) {
    rc = read_size(from, &size);
    if (rc) return rc;
    data = from->data;
    lua_pushlstring(L, from->data, size);
  } else if (form == FORM_FLOAT) {
    double number;
    memcpy(&number, data, 8);
    lua_pushnumber(L, number);
  } else {
    int64_t number;
    memcpy(&number, data, 8);
    lua_pushinteger(L, number);
  }
  *from = (zp_bytes){data + size, from->size - size};
  return 0;
}

/* Something comes that is of another kind: what is there takes the form of values. */
static int become_values(lua_State *L, zp_run *run) {
  if (run->count == 0) return begin(run, FORM_VALUES);
  zp_bytes from = {run->bytes.data + 1, run->end - 1};
  run->other.size = 0;
  int rc = zp_buf_append_byte(&run->other, FORM_VALUES);
  for (size_t i = 0; !rc && i < run->count; i++) {
    rc = push_plain(L, run->form, &from);
    if (!rc) rc = write_value(L, &run->other, lua_gettop(L));
    if (!rc) lua_pop(L, 1);
  }
  if (rc) return rc;
  zp_buf before = run->bytes;
  run->bytes = run->other;
  run->other = before;
  zp_buf_clear(&run->other, KEEP);
  run->form = FORM_VALUES;
  run->end = run->bytes.size;
  return 0;
}

static int add_value(lua_State *L, zp_run *run, int idx) {
  luaL_checkstack(L, 8, NULL);
  int rc = run->form == FORM_VALUES ? 0 : become_values(L, run);
  if (rc) return rc;
  rc = write_value(L, &run->bytes, idx);
  if (rc) run->bytes.size = run->end;
  else added(run);
  return rc;
}

int zp_run_add(lua_State *L, zp_run *run, int idx) {
  int form = FORM_VALUES, rc;
  int type = lua_type(L, idx);
  if (type == LUA_TNUMBER) form = lua_isinteger(L, idx) ? FORM_INT64 : FORM_FLOAT;
  else if (type == LUA_TSTRING) form = FORM_STRINGS;
  run->bytes.size = run->end; /* without what was begun when memory ran out */
  if (run->count == 0 && (rc = begin(run, form)) != 0) return rc;
  if (run->form != form || form == FORM_VALUES) return add_value(L, run, lua_absindex(L, idx));
  if (form == FORM_STRINGS) {
    size_t size;
    const char *string = lua_tolstring(L, idx, &size);
    return add_string(run, string, size);
  }
  lua_Integer integer;
  lua_Number number;
  if (form == FORM_INT64) integer = lua_tointeger(L, idx);
  else number = lua_tonumber(L, idx);
  return add_number(run, form == FORM_INT64 ? (const void *)&integer : (const void *)&number);
}

/* Room for a portion is made at once. The elements stay on the stack until the portion is full: that is cheaper than popping each. */
size_t zp_run_add_numbers(lua_State *L, zp_run *run, int idx, lua_Integer first, size_t count) {
  enum { PORTION = 64 };
  luaL_checkstack(L, PORTION + 8, NULL);
  if (run->form != FORM_INT64 && run->form != FORM_FLOAT) return 0;
  idx = lua_absindex(L, idx);
  bool integers = run->form == FORM_INT64;
  int top = lua_gettop(L);
  size_t n = 0, portion = PORTION;
  run->bytes.size = run->end;
  while (n < count && portion == PORTION && zp_buf_reserve(&run->bytes, 8 * PORTION) == 0) {
    unsigned char *to = run->bytes.data + run->bytes.size;
    size_t wanted = count - n < PORTION ? count - n : PORTION;
    for (portion = 0; portion < wanted; portion++, to += 8) {
      int type = lua_rawgeti(L, idx, first + (lua_Integer)(n + portion));
      if (type != LUA_TNUMBER || lua_isinteger(L, -1) != integers) break;
      lua_Integer integer;
      lua_Number number;
      if (integers) memcpy(to, (integer = lua_tointeger(L, -1), &integer), 8);
      else memcpy(to, (number = lua_tonumber(L, -1), &number), 8);
    }
    lua_settop(L, top);
    n += portion;
    run->bytes.size += 8 * portion;
  }
  run->end = run->bytes.size;
  run->count += n;
  return n;
}

/* ---- the end of a run ---- */

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

zp_bytes zp_run_finish(zp_run *run) {
  if (run->form == FORM_INT64) {
    int width = width_of(run->bytes.data + 1, run->count);
    narrow(run->bytes.data + 1, run->count, width);
    run->bytes.data[0] = (unsigned char)width;
    run->end = 1 + (size_t)width * run->count;
    run->form = FORM_NONE;
  }
  return (zp_bytes){run->bytes.data, run->end};
}

void zp_run_clear(zp_run *run) {
  zp_buf_clear(&run->bytes, KEEP);
  zp_buf_clear(&run->other, KEEP);
  run->end = run->count = 0;
  run->form = FORM_NONE;
}

void zp_run_free(zp_run *run) {
  zp_run_clear(run);
  zp_buf_free(&run->bytes);
  zp_buf_free(&run->other);
}

/* ---- reading ---- */

static inline void unpack_integers(lua_State *L, int idx, lua_Integer first, size_t count, const unsigned char *from, int width) {
  int unused = 64 - 8 * width;
  for (size_t i = 0; i < count; i++) {
    int64_t value = 0;
    memcpy(&value, from + (size_t)width * i, (size_t)width);
    lua_pushinteger(L, (int64_t)((uint64_t)value << unused) >> unused);
    lua_rawseti(L, idx, first + (lua_Integer)i);
  }
}

static int unpack_strings(lua_State *L, int idx, lua_Integer first, size_t count, zp_bytes from) {
  for (size_t i = 0; i < count; i++) {
    int rc = push_plain(L, FORM_STRINGS, &from);
    if (rc) return rc;
    lua_rawseti(L, idx, first + (lua_Integer)i);
  }
  return 0;
}

/* How far the reading of values is. */
typedef struct reader {
  zp_bytes from;
  size_t place, count; /* the value that is read, from 1 on */
  lua_Integer first;
  bool has_errors;
  int failure; /* of the run */
} reader;

/* Under protection, since decoding may require a module. Arguments: the reader, the table, the table of errors. */
static int read_values(lua_State *L) {
  reader *r = lua_touserdata(L, 1);
  while (r->place < r->count) {
    r->place++;
    size_t size = 0;
    if ((r->failure = read_size(&r->from, &size)) != 0) return 0;
    zp_bytes value = {r->from.data, size};
    r->from = (zp_bytes){(const char *)r->from.data + size, r->from.size - size};
    if (size == 0) continue;
    int rc = zp_value_decode(L, value, ZP_DECODE_CODE);
    if (rc == ZP_ENOMEM) return zp_lua_raise(L, rc);
    if (rc) zp_lua_push_error(L, rc);
    lua_rawseti(L, rc ? 3 : 2, rc ? (lua_Integer)r->place : r->first + (lua_Integer)r->place - 1);
    if (rc) r->has_errors = true;
  }
  return 0;
}

static int unpack_values(lua_State *L, int idx, lua_Integer first, size_t count, zp_bytes from) {
  reader r = {.from = from, .count = count, .first = first};
  lua_newtable(L);
  int errors = lua_gettop(L);
  do {
    lua_pushcfunction(L, read_values);
    lua_pushlightuserdata(L, &r);
    lua_pushvalue(L, idx);
    lua_pushvalue(L, errors);
    int status = lua_pcall(L, 3, 0, 0);
    if (status == LUA_OK) continue;
    if (status == LUA_ERRMEM || zp_lua_is_passing(L)) return lua_error(L);
    lua_rawseti(L, errors, (lua_Integer)r.place);
    r.has_errors = true;
  } while (!r.failure && r.place < r.count);
  if (r.failure || !r.has_errors) lua_pop(L, 1);
  if (!r.failure && !r.has_errors) lua_pushnil(L);
  return r.failure;
}

static int cut_short(void) { return zp_fail(ZP_EDECODE, "a run of values that is cut short"); }

int zp_unpack(lua_State *L, int idx, lua_Integer first, size_t count, zp_bytes bytes) {
  luaL_checkstack(L, 12, NULL);
  idx = lua_absindex(L, idx);
  const unsigned char *from = bytes.data;
  if (bytes.size < 1) return zp_fail(ZP_EDECODE, "a run of values without a form");
  int form = *from++, rc = 0;
  size_t size = bytes.size - 1;
  switch (form) {
  case FORM_VALUES:
    return unpack_values(L, idx, first, count, (zp_bytes){from, size});
  case FORM_STRINGS:
    rc = unpack_strings(L, idx, first, count, (zp_bytes){from, size});
    break;
  case FORM_INT8:
  case FORM_INT16:
  case FORM_INT32:
  case FORM_INT64:
    if (size / (size_t)form < count) return cut_short();
    switch (form) { /* with a width that the compiler knows */
    case FORM_INT8: unpack_integers(L, idx, first, count, from, 1); break;
    case FORM_INT16: unpack_integers(L, idx, first, count, from, 2); break;
    case FORM_INT32: unpack_integers(L, idx, first, count, from, 4); break;
    default: unpack_integers(L, idx, first, count, from, 8); break;
    }
    break;
  case FORM_FLOAT:
    if (size / 8 < count) return cut_short();
    for (size_t i = 0; i < count; i++) {
      double value;
      memcpy(&value, from + 8 * i, 8);
      lua_pushnumber(L, value);
      lua_rawseti(L, idx, first + (lua_Integer)i);
    }
    break;
  default:
    return zp_fail(ZP_EDECODE, "a run of values of an unknown form");
  }
  if (!rc) lua_pushnil(L);
  return rc;
}
