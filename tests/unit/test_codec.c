/*
 * The codec: values and keys to bytes and back. Most tests are Lua, run in a lua_State that has
 *
 *   encode(value [, root])        the bytes, or nil and the sentence of the failure
 *   decode(bytes [, "data"])      true and the value, or false and the sentence
 *   there(bytes, source, ...)     decode in another lua_State, run the source with the value; its result as a string
 *   key(value), unkey(bytes)      the same for keys
 *   travel(value)                 decode(encode(value)), after checking that encoding it again gives the same bytes
 *   equal(value, value)           whether their bytes are equal by content, either way round
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "base/err.h"
#include "codec/closure.h"
#include "codec/key.h"
#include "codec/names.h"
#include "codec/value.h"

/* ---- the stage ---- */

static int encode(lua_State *L) {
  zp_buf buf = ZP_BUF_INIT;
  const char *root = luaL_optstring(L, 2, "state");
  int top = lua_gettop(L);
  int rc = zp_value_encode(L, 1, root, &buf);
  assert_int_equal(lua_gettop(L), top);
  if (rc) {
    assert_int_equal(rc, ZP_EENCODE);
    assert_int_equal(buf.size, 0);
    zp_buf_free(&buf);
    lua_pushnil(L);
    lua_pushstring(L, zp_error_detail());
    return 2;
  }
  assert_true(buf.size >= 2);
  lua_pushlstring(L, (const char *)buf.data, buf.size);
  zp_buf_free(&buf);
  return 1;
}

/* From a copy of exactly the size, so that a byte read past the end is seen by the sanitizer. */
static int decode_copy(lua_State *L, const char *bytes, size_t size, int flags) {
  char *copy = lua_newuserdatauv(L, size, 0); /* Lua's, because the decoder may raise */
  memcpy(copy, bytes, size);
  int top = lua_gettop(L);
  int rc = zp_value_decode(L, (zp_bytes){copy, size}, flags);
  assert_int_equal(lua_gettop(L), top + (rc == 0));
  lua_remove(L, top);
  return rc;
}

static int decode(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  int rc = decode_copy(L, bytes, size, lua_isnoneornil(L, 2) ? ZP_DECODE_CODE : ZP_DECODE_DATA);
  lua_pushboolean(L, rc == 0);
  if (rc) {
    assert_int_equal(rc, ZP_EDECODE);
    lua_pushstring(L, zp_error_detail());
  } else {
    lua_pushvalue(L, -2);
  }
  return 2;
}

/* From copies of exactly the size. */
static int same_bytes_or_content(lua_State *L) {
  zp_bytes bytes[2];
  for (int i = 0; i < 2; i++) {
    const char *string = luaL_checklstring(L, i + 1, &bytes[i].size);
    bytes[i].data = lua_newuserdatauv(L, bytes[i].size, 0);
    memcpy((void *)bytes[i].data, string, bytes[i].size);
  }
  int same = zp_value_equal(bytes[0], bytes[1]);
  assert_true(same == 0 || same == 1);
  lua_pushboolean(L, same);
  return 1;
}

static int key(lua_State *L) {
  zp_buf buf = ZP_BUF_INIT;
  int rc = zp_key_encode(L, 1, &buf);
  if (rc) {
    assert_int_equal(rc, ZP_EKEY);
    lua_pushnil(L);
    lua_pushstring(L, zp_error_detail());
  } else {
    lua_pushlstring(L, (const char *)buf.data, buf.size);
  }
  zp_buf_free(&buf);
  return rc ? 2 : 1;
}

static int unkey(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  char *copy = malloc(size ? size : 1);
  memcpy(copy, bytes, size);
  int rc = zp_key_decode(L, (zp_bytes){copy, size});
  free(copy);
  if (rc == 0) return 1;
  assert_int_equal(rc, ZP_EDECODE);
  lua_pushnil(L);
  lua_pushstring(L, zp_error_detail());
  return 2;
}

static lua_State *open_vm(lua_Alloc alloc, void *context);

static int there(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size), *source = luaL_checkstring(L, 2);
  lua_State *other = open_vm(NULL, NULL);
  if (luaL_loadbuffer(other, source, strlen(source), "@there.lua") != LUA_OK) fail_msg("%s", lua_tostring(other, -1));
  if (decode_copy(other, bytes, size, ZP_DECODE_CODE) != 0) fail_msg("%s", zp_error_detail());
  int status = lua_pcall(other, 1, 1, 0);
  lua_pushstring(L, luaL_tolstring(other, -1, NULL));
  lua_close(other);
  return status == LUA_OK ? 1 : lua_error(L);
}

/* What every lua_State here has: the module `shapes`, which is not loaded before it is required, and the helpers. */
static const char prelude[] =
    "package.preload.shapes = function()\n"
    "  local M = {Circle = {}}\n"
    "  M.Circle.__index = M.Circle\n"
    "  function M.Circle.area(self) return 3 * self.r * self.r end\n"
    "  function M.circle(r) return setmetatable({r = r}, M.Circle) end\n"
    "  return M\n"
    "end\n"
    "package.preload.callable = function() return function() return 'called' end end\n"
    "package.preload.broken = function() error('this module is broken') end\n"
    "function travel(value, ...)\n"
    "  local bytes = assert(encode(value))\n"
    "  local ok, copy = decode(bytes, ...)\n"
    "  assert(ok, copy)\n"
    "  local again = assert(encode(copy))\n"
    "  assert(again == bytes, 'encoded again, the bytes differ')\n"
    "  return copy, bytes\n"
    "end\n"
    "function same(a, b)\n"
    "  if math.type(a) ~= math.type(b) then return false end\n"
    "  if type(a) ~= 'table' or type(b) ~= 'table' then return a == b end\n"
    "  for k, v in next, a do if not same(v, rawget(b, k)) then return false end end\n"
    "  for k in next, b do if rawget(a, k) == nil then return false end end\n"
    "  return true\n"
    "end\n"
    "function fails(expected, ...)\n"
    "  local bytes, message = encode(...)\n"
    "  assert(not bytes, 'it was encoded')\n"
    "  assert(message == expected, message)\n"
    "end\n"
    "function equal(a, b)\n"
    "  local one, other = assert(encode(a)), assert(encode(b))\n"
    "  local same = same_bytes_or_content(one, other)\n"
    "  assert(same_bytes_or_content(other, one) == same, 'it is equal in one direction')\n"
    "  return same\n"
    "end\n"
    "function refused(bytes, pattern, ...)\n"
    "  local ok, message = decode(bytes, ...)\n"
    "  assert(not ok, 'it was decoded')\n"
    "  assert(message:find(pattern), message)\n"
    "end\n";

static lua_State *open_vm(lua_Alloc alloc, void *context) {
  lua_State *L = alloc ? lua_newstate(alloc, context) : luaL_newstate();
  assert_non_null(L);
  luaL_openlibs(L);
  zp_codec_open(L);
  lua_register(L, "encode", encode);
  lua_register(L, "decode", decode);
  lua_register(L, "there", there);
  lua_register(L, "key", key);
  lua_register(L, "unkey", unkey);
  lua_register(L, "same_bytes_or_content", same_bytes_or_content);
  lua_pushlightuserdata(L, NULL);
  lua_setglobal(L, "null");
  lua_createtable(L, 0, 1);
  lua_pushvalue(L, -1);
  lua_setglobal(L, "registered");
  zp_names_register(L, "test:table");
  if (luaL_dostring(L, prelude) != LUA_OK) fail_msg("%s", lua_tostring(L, -1));
  return L;
}

static void run(const char *source) {
  lua_State *L = open_vm(NULL, NULL);
  luaL_traceback(L, L, NULL, 0);
  lua_settop(L, 0);
  if (luaL_loadbuffer(L, source, strlen(source), "@main.lua") != LUA_OK || lua_pcall(L, 0, 0, 0) != LUA_OK) {
    char message[1000];
    snprintf(message, sizeof message, "%s", luaL_tolstring(L, -1, NULL));
    lua_close(L);
    fail_msg("%s", message);
  }
  lua_close(L);
}

#define LUA_TEST(name, source) \
  static void name(void **state) { \
    (void)state; \
    run(source); \
  }

/* ---- scalars ---- */

LUA_TEST(scalars_come_back_as_they_were,
         "for _, v in ipairs {true, false, '', 'a', ('x'):rep(63), ('x'):rep(64), ('x'):rep(100000), "
         "'\\0\\255\\n'} do\n"
         "  assert(travel(v) == v)\n"
         "end\n"
         "assert(travel(nil) == nil)\n"
         "assert(travel(null) == null)\n")

LUA_TEST(integers_keep_all_64_bits,
         "for bits = 0, 63 do\n"
         "  for off = -130, 130 do\n"
         "    local v = (1 << bits) + off\n"
         "    local w = travel(v)\n"
         "    assert(w == v and math.type(w) == 'integer')\n"
         "    w = travel(-v)\n"
         "    assert(w == -v and math.type(w) == 'integer')\n"
         "  end\n"
         "end\n"
         "assert(travel(math.mininteger) == math.mininteger)\n")

LUA_TEST(small_integers_and_short_strings_are_one_byte_longer_than_their_content,
         "assert(#encode(0) == 2 and #encode(-16) == 2 and #encode(111) == 2)\n"
         "assert(#encode(112) == 3 and #encode(-17) == 3 and #encode(128) == 4 and #encode(40000) == 6)\n"
         "assert(#encode('abc') == 5)\n")

LUA_TEST(floats_keep_every_bit,
         "local patterns = {0, 1 << 63, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000, "
         "0xfff8000000000001,\n"
         "  0x7ff8dead0000beef, 1, 0x000fffffffffffff, 0x7fefffffffffffff, 0x3ff0000000000000}\n"
         "for _, bits in ipairs(patterns) do\n"
         "  local v = string.unpack('<d', string.pack('<i8', bits))\n"
         "  local w = travel(v)\n"
         "  assert(math.type(w) == 'float' and string.unpack('<i8', string.pack('<d', w)) == bits)\n"
         "end\n")

LUA_TEST(a_float_of_integral_value_stays_a_float_and_an_integer_an_integer,
         "assert(math.type(travel(1.0)) == 'float' and math.type(travel(1)) == 'integer')\n"
         "assert(encode(1.0) ~= encode(1))\n"
         "assert(1 / travel(-0.0) == -math.huge)\n")

/* ---- equality ---- */

LUA_TEST(scalars_are_equal_as_for_lua,
         "local nan = 0 / 0\n"
         "local values = { false, true, 0, 0.0, -0.0, 1, 1.0, -16, 111, 112, 112.0, 128, 40000, 1 << 40, 2.0 ^ 40, 2.0 ^ 53, 1 << 53,\n"
         "  (1 << 53) + 1, math.maxinteger, math.mininteger, 2.0 ^ 63, -2.0 ^ 63, 0.5, 1 / 0, -1 / 0, nan, -nan, '', '1', 'a', 'b',\n"
         "  ('x'):rep(63), ('x'):rep(64), ('x'):rep(64) .. 'y', null }\n"
         "for i, a in ipairs(values) do\n"
         "  for j, b in ipairs(values) do\n"
         "    local text = tostring(a) .. ' and ' .. tostring(b)\n"
         "    assert(equal(a, b) == (a == b), text)\n"
         "    assert(equal({ a }, { b }) == (a == b), text)\n"
         "    assert(equal({ k = { a, 2 } }, { k = { b, 2 } }) == (a == b), text)\n"
         "  end\n"
         "end\n")

LUA_TEST(tables_are_equal_by_keys_and_values,
         "assert(equal({}, {}) and equal({ 1, 2, x = { y = 3 } }, { x = { y = 3.0 }, 1, 2.0 }))\n"
         "for _, other in ipairs { {}, { 1 }, { 1, 2, 3 }, { 1, 2, x = {} }, { 1, 2, y = {} }, { 2, 1 }, { 1, 2, [4] = 2 }, 'text', 5 } do\n"
         "  assert(not equal({ 1, 2 }, other))\n"
         "end\n"
         "assert(not equal({ 1, nil, 3 }, { 1, 3 }) and equal({ 1, nil, 3 }, { 1, [3] = 3 }))\n"
         "assert(equal({ [2^53] = 1, [0.5] = 2, [false] = 3, [null] = 4 }, { [1 << 53] = 1.0, [0.5] = 2, [false] = 3, [null] = 4 }))\n"
         "assert(not equal({ [1] = 'a', b = 1 }, { [2] = 'a', b = 1 }) and not equal({ a = 1 }, { b = 1 }))\n"
         "local big, other = {}, {}\n"
         "for i = 1, 1000 do big[i], other[i] = { i, s = tostring(i) }, { i + 0.0, s = tostring(i) } end\n"
         "assert(equal(big, other))\n"
         "other[700].s = 'x'\n"
         "assert(not equal(big, other))\n")

LUA_TEST(tables_are_equal_whether_or_not_they_are_shared_or_within_themselves,
         "local function nest(n) local t = {} for _ = 2, n do t = {t} end return t end\n"
         "local row = { 1, 2 }\n"
         "assert(equal({ row, row }, { { 1, 2 }, { 1.0, 2 } }) and not equal({ row, row }, { { 1, 2 }, { 1, 3 } }))\n"
         "local function ring(n, last)\n"
         "  local first = { v = 1 }\n"
         "  local at = first\n"
         "  for i = 2, n do at.next = { v = 1 } at = at.next end\n"
         "  at.next, at.v = first, last or 1\n"
         "  return first\n"
         "end\n"
         "assert(equal(ring(1), ring(1)) and equal(ring(1), ring(7)) and equal(ring(6), ring(35)))\n"
         "assert(not equal(ring(6), ring(35, 2)) and not equal(ring(1), { v = 1 }))\n"
         "assert(not equal(ring(1), { v = 1, next = { v = 1, next = { v = 1 } } }))\n"
         "local a, b = {}, {}\n"
         "a.b, b.a = b, a\n"
         "assert(equal(a, { b = { a = a } }) and not equal(a, b))\n"
         "local shared = { 1 }\n"
         "for i = 1, 60 do shared = { shared, shared } end\n"
         "local again = { 1.0 }\n"
         "for i = 1, 60 do again = { again, again } end\n"
         "assert(equal(shared, again))\n"
         "assert(equal(nest(3999), nest(3999)))\n"
         "local one, other = ring(1999), ring(1997)\n"
         "assert(equal(one, other))\n")

LUA_TEST(metatables_do_not_count,
         "local meta = setmetatable({}, { __eq = function() return false end, __index = { x = 1 } })\n"
         "assert(equal(meta, {}) and equal({ meta, 1 }, { {}, 1 }) and not equal(meta, { x = 1 }))\n")

LUA_TEST(tables_as_keys_are_equal_by_content,
         "local function keys(...)\n"
         "  local t = { n = 0 }\n"
         "  for i, key in ipairs { ... } do t[key] = i end\n"
         "  return t\n"
         "end\n"
         "assert(equal(keys({ 1 }, { 2 }), keys({ 1.0 }, { 2 })))\n"
         "assert(equal({ [{ 1 }] = 1, [{ 2 }] = 2, [{ 3.0 }] = 1 }, { [{ 3 }] = 1, [{ 2.0 }] = 2, [{ 1.0 }] = 1 }))\n"
         "assert(not equal(keys({ 1 }, { 2 }), keys({ 2 }, { 1 })))\n"
         "assert(not equal({ [{ 1 }] = 1, [{ 1.0 }] = 1 }, { [{ 1 }] = 1, [{ 1.0 }] = 2 }))\n"
         "assert(equal({ [{ 1 }] = 2, [{ 1.0 }] = 1 }, { [{ 1 }] = 1, [{ 1.0 }] = 2 }))\n"
         "local function deep(n, last, width)\n"
         "  local t = { last }\n"
         "  for i = 1, n do t = { [t] = 1, [width == 2 and { i } or 'x'] = 1 } end\n"
         "  return t\n"
         "end\n"
         "for n = 1, 10 do assert(equal(deep(n, 1, 2), deep(n, 1.0, 2)) and not equal(deep(n, 1, 2), deep(n, 2, 2))) end\n"
         "assert(equal(deep(50, 1), deep(50, 1.0)) and not equal(deep(50, 1), deep(50, 2)))\n"
         "assert(equal(deep(200, 1), deep(200, 1)) and not equal(deep(200, 1), deep(200, 1.0)))\n" /* the limit */
         "local self, twin = {}, {}\n"
         "self[self], twin[twin] = true, true\n"
         "assert(equal(self, twin))\n")

LUA_TEST(functions_are_equal_by_code_upvalues_and_globals,
         "local function made(...)\n"
         "  local a, b = ...\n"
         "  return function() return a, b end\n"
         "end\n"
         "assert(equal(made(1, { 2 }), made(1.0, { 2.0 })) and not equal(made(1, 2), made(1, 3)))\n"
         "assert(equal(print, print) and not equal(print, type) and not equal(print, made(1)) and not equal(string, math))\n"
         "local function one() return 1 end local function other() return 2 end\n"
         "assert(not equal(one, other))\n"
         "local row = {}\n"
         "assert(equal(made(row, row), made({}, {})))\n"
         "answer = 42\n"
         "local function uses() return answer end\n"
         "local before = encode(uses)\n"
         "assert(equal(uses, uses))\n"
         "answer = 42.0\n"
         "assert(same_bytes_or_content(before, encode(uses)) and before ~= encode(uses))\n"
         "answer = 43\n"
         "assert(not same_bytes_or_content(before, encode(uses)))\n"
         "assert(equal(travel(uses), travel(uses)) and equal(travel(made(1, 2)), made(1, 2)))\n")

LUA_TEST(bytes_that_are_no_value_are_equal_to_themselves,
         "local row = { 1 }\n"
         "local values = { 5, 'text', { 1, 2, x = 'y' }, { row, row, [row] = 1.5 }, function() return row, assert end }\n"
         "for _, value in ipairs(values) do\n"
         "  local bytes = encode(value)\n"
         "  for i = 1, #bytes do\n"
         "    local damaged = bytes:sub(1, i - 1) .. string.char(bytes:byte(i) ~ 1 << i % 8) .. bytes:sub(i + 1)\n"
         "    for _, cut in ipairs { damaged, bytes:sub(1, i) } do\n"
         "      assert(same_bytes_or_content(cut, cut) or cut:find '[\\x7f\\xff]')\n"
         "      same_bytes_or_content(bytes, cut)\n"
         "      same_bytes_or_content(cut, bytes)\n"
         "    end\n"
         "  end\n"
         "end\n")

static void none_is_seen_without_decoding(void **state) {
  (void)state;
  lua_State *L = open_vm(NULL, NULL);
  const char *source[] = {"nil", "null", "false", "0", "{}", "''"};
  for (int i = 0; i < 6; i++) {
    zp_buf buf = ZP_BUF_INIT;
    lua_pushfstring(L, "return %s", source[i]);
    assert_int_equal(luaL_dostring(L, lua_tostring(L, -1)), LUA_OK);
    assert_int_equal(zp_value_encode(L, -1, NULL, &buf), 0);
    assert_int_equal(zp_value_is_none((zp_bytes){buf.data, buf.size}), i < 2);
    zp_buf_free(&buf);
  }
  assert_false(zp_value_is_none((zp_bytes){NULL, 0}));
  lua_close(L);
}

static void bytes_are_appended_to_what_the_buffer_holds(void **state) {
  (void)state;
  lua_State *L = open_vm(NULL, NULL);
  zp_buf buf = ZP_BUF_INIT;
  assert_int_equal(zp_buf_append(&buf, "abc", 3), 0);
  lua_pushinteger(L, 5);
  assert_int_equal(zp_value_encode(L, -1, NULL, &buf), 0);
  assert_int_equal(buf.size, 5);
  lua_getglobal(L, "encode");
  assert_int_equal(zp_value_encode(L, -1, NULL, &buf), ZP_EENCODE);
  assert_int_equal(buf.size, 5);
  assert_memory_equal(buf.data, "abc", 3);
  assert_string_equal(zp_error_detail(), "cannot send a C function");
  zp_buf_free(&buf);
  lua_close(L);
}

/* ---- tables ---- */

LUA_TEST(tables_come_back_with_keys_of_every_kind,
         "local t = {1, 2.5, 'x', {}, null, [10] = 'ten', [-1] = 1, [0] = 0, [1.5] = 'float', [-1e300] = 1, "
         "[math.huge] = 2,\n"
         "  [true] = 1, [false] = 0, name = 'n', [''] = 'empty', ['a\\0b'] = 1, [null] = 'null', "
         "[math.mininteger] = 1,\n"
         "  [('k'):rep(200)] = {deep = {deeper = {1}}}}\n"
         "local copy = travel(t)\n"
         "assert(same(t, copy) and copy[null] == 'null' and #copy == 5)\n"
         "assert(same(travel(t, 'data'), t))\n")

LUA_TEST(tables_may_be_empty,
         "assert(next((travel {})) == nil)\n"
         "assert(same((travel {{}, {}, a = {}}), {{}, {}, a = {}}))\n")

LUA_TEST(large_tables_come_back,
         "local list, map, records = {}, {}, {}\n"
         "for i = 1, 70000 do list[i] = i * 7 map['k' .. i] = i end\n"
         "for i = 1, 3000 do records[i] = {id = i, name = 'n' .. i, tags = {'a', i}} end\n"
         "assert(same(travel(list), list) and same(travel(map), map) and same(travel(records), records))\n")

LUA_TEST(more_objects_in_one_table_than_the_stack_takes_come_back,
         "local map = {}\n"
         "for i = 1, 60000 do map['k' .. i] = {i} end\n"
         "map.inner = {x = {1}, y = {2}}\n"
         "assert(same(travel(map), map))\n"
         "for i = 1, 60000 do map['k' .. i] = nil map[{}] = {} end\n"
         "assert(encode(map))\n")

LUA_TEST(a_table_met_twice_is_one_table_on_arrival,
         "local s = {1}\n"
         "local t = travel {s, s, x = {s}}\n"
         "assert(t[1] == t[2] and t.x[1] == t[1] and t[1][1] == 1)\n"
         "t = travel {{1}, {1}}\n"
         "assert(t[1] ~= t[2])\n")

LUA_TEST(cycles_come_back,
         "local t = {} t.self = t t[1] = {up = t}\n"
         "local c = travel(t)\n"
         "assert(c.self == c and c[1].up == c)\n"
         "local k = {} k[k] = k\n"
         "c = travel(k)\n"
         "assert(c[c] == c)\n")

LUA_TEST(metatables_come_with_their_tables,
         "local mt = {__name = 'Thing', __metatable = 'locked'}\n"
         "mt.__index = mt\n"
         "function mt.hello(self) return 'hello ' .. self.name end\n"
         "local t = travel {setmetatable({name = 'a'}, mt), setmetatable({name = 'b'}, mt)}\n"
         "assert(t[1]:hello() == 'hello a' and t[2]:hello() == 'hello b')\n"
         "assert(debug.getmetatable(t[1]) == debug.getmetatable(t[2]))\n"
         "local self = {} setmetatable(self, self)\n"
         "local c = travel(self)\n"
         "assert(getmetatable(c) == c)\n")

LUA_TEST(a_metatable_is_part_of_the_value, "assert(encode(setmetatable({}, {})) ~= encode({}))")

LUA_TEST(raw_contents_travel_and_no_metamethod_runs,
         "local function boom() error('a metamethod ran') end\n"
         "local mt = {__index = boom, __newindex = boom, __pairs = boom, __len = boom, __eq = boom}\n"
         "local t = setmetatable({1, 2, a = 3}, mt)\n"
         "local c = travel(t)\n"
         "assert(rawget(c, 1) == 1 and rawget(c, 2) == 2 and rawget(c, 'a') == 3)\n")

/* ---- canonical bytes ---- */

LUA_TEST(equal_tables_have_equal_bytes_whatever_way_they_were_built,
         "local state = 12345\n"
         "local function random(n) state = (state * 1103515245 + 12345) & 0x7fffffff return state % n + 1 end\n"
         "local keys = {true, false, null, 'é', '', 'a', 'ab', 'abcdefgh', 'abcdefghi', 'abcdefghj', "
         "'abcdefg\\0', -5, 0, 1 << 60, 2.5, -2.5, 1e300,\n"
         "  -math.huge, 7, 9}\n"
         "for i = 1, 5 do keys[#keys + 1] = i end\n"
         "for i = 1, 40 do keys[#keys + 1] = 'key' .. i end\n"
         "local function build()\n"
         "  local t = {}\n"
         "  for i = #keys, 2, -1 do local j = random(i) keys[i], keys[j] = keys[j], keys[i] end\n"
         "  for i = 1, random(100) do t['junk' .. i] = i t[i + 1000] = i end\n"
         "  for _, k in ipairs(keys) do t[k] = {tostring(k)} end\n"
         "  for i = 1, 100 do t['junk' .. i] = nil t[i + 1000] = nil end\n"
         "  return t\n"
         "end\n"
         "local first = encode(build())\n"
         "for _ = 1, 300 do assert(encode(build()) == first) end\n")

LUA_TEST(an_array_has_the_same_bytes_wherever_lua_keeps_its_elements,
         "local a = {1, 2, 3, 4, 5}\n"
         "local b = {} for i = 5, 1, -1 do b[i] = i end\n"
         "local c = {[1] = 1, [2] = 2, [3] = 3, [4] = 4, [5] = 5}\n"
         "local d = {1, 2, 3, 4, 5, 6, 7, 8} for i = 8, 6, -1 do d[i] = nil end\n"
         "assert(encode(a) == encode(b) and encode(a) == encode(c) and encode(a) == encode(d))\n")

LUA_TEST(an_array_with_holes_has_the_same_bytes_wherever_lua_sees_its_border,
         "local a = {1, 2, nil, 4}\n"
         "local b = {} b[4] = 4 b[2] = 2 b[1] = 1\n"
         "local c = {1, 2, 3, 4, 5, 6, 7, 8} c[3] = nil for i = 5, 8 do c[i] = nil end\n"
         "assert(encode(a) == encode(b) and encode(a) == encode(c))\n"
         "assert(same(travel(a), a))\n"
         "local big = {} for i = 1, 300 do big[i] = i end big[2] = nil for i = 1, 200 do big['k' .. i] = i end\n"
         "assert(same(travel(big), big))\n")

LUA_TEST(many_keys_are_sorted_whatever_their_order,
         "for _, n in ipairs {15, 16, 17, 18, 100, 1000, 5000} do\n"
         "  local up, down = {}, {}\n"
         "  for i = 1, n do up[i * 2] = 1 end\n"
         "  for i = n, 1, -1 do down[i * 2] = 1 end\n"
         "  assert(encode(up) == encode(down) and same(travel(up), up))\n"
         "  local s = {} for i = 1, n do s['prefix-that-is-longer-than-eight-' .. i] = i end\n"
         "  local r = {} for i = n, 1, -1 do r['prefix-that-is-longer-than-eight-' .. i] = i end\n"
         "  assert(encode(s) == encode(r) and same(travel(s), s))\n"
         "end\n")

LUA_TEST(tables_as_keys_are_sorted_by_what_they_hold,
         "local function build(order)\n"
         "  local t = {}\n"
         "  for _, i in ipairs(order) do t[{i}] = {v = i} end\n"
         "  t[{}] = 1 t[{}] = 2 t[print] = 3\n"
         "  return t\n"
         "end\n"
         "local first = encode(build {1, 2, 3, 4, 5, 6})\n"
         "for _ = 1, 20 do\n"
         "  assert(encode(build {6, 5, 4, 3, 2, 1}) == first and encode(build {3, 1, 5, 2, 6, 4}) == first)\n"
         "end\n"
         "local n = 0\n"
         "for k, v in pairs(travel(build {1, 2, 3})) do\n"
         "  n = n + 1\n"
         "  if type(k) == 'table' and k[1] then assert(v.v == k[1]) end\n"
         "end\n"
         "assert(n == 6)\n")

LUA_TEST(tables_as_keys_may_hold_tables_as_keys_to_any_depth,
         "local function nest(d) if d == 0 then return {} end return {[nest(d - 1)] = 1, [nest(d - 1)] = 2} end\n"
         "assert(encode(nest(7)))\n"
         "local a, b = {}, {}\n"
         "for i = 1, 40 do a, b = {[a] = 1, [b] = 2}, {[a] = 3, [b] = 4} end\n"
         "assert(encode {a, b})\n"
         "local t = {} for i = 1, 300 do t[function() return i end] = t end\n"
         "assert(encode(t))\n")

LUA_TEST(encoding_is_the_same_in_plain_and_graph_mode,
         "local t = {1, 2, {a = 1, [3] = {}}, x = 'y'}\n"
         "local plain, graph = encode(t), encode({t, print})\n"
         "assert(graph:sub(5, 5 + #plain - 2) == plain:sub(2))\n")

/* ---- functions ---- */

LUA_TEST(a_function_comes_with_its_upvalues,
         "local n, t, s = 5, {1, 2}, 'x'\n"
         "local f = travel(function(a) n = n + a return n, t[2], s end)\n"
         "local a, b, c = f(1)\n"
         "assert(a == 6 and b == 2 and c == 'x' and f(1) == 7 and n == 5)\n"
         "assert(there(encode(function(a) return n + a end), 'return (...)(10)') == '15')\n")

LUA_TEST(an_upvalue_shared_by_two_functions_stays_shared,
         "local n = 0\n"
         "local t = travel {inc = function() n = n + 1 end, get = function() return n end, other = function() "
         "return n end}\n"
         "t.inc() t.inc()\n"
         "assert(t.get() == 2 and t.other() == 2 and n == 0)\n")

LUA_TEST(an_upvalue_that_is_not_shared_stays_apart,
         "local function make() local n = 0 return function() n = n + 1 return n end end\n"
         "local t = travel {make(), make()}\n"
         "t[1]() t[1]()\n"
         "assert(t[2]() == 1)\n")

LUA_TEST(a_recursive_local_function_comes_back,
         "local function fact(n) return n <= 1 and 1 or n * fact(n - 1) end\n"
         "assert(travel(fact)(10) == 3628800)\n"
         "local even, odd\n"
         "function even(n) if n == 0 then return true end return odd(n - 1) end\n"
         "function odd(n) if n == 0 then return false end return even(n - 1) end\n"
         "local t = travel {even, odd}\n"
         "assert(t[1](10) and not t[2](10))\n")

LUA_TEST(functions_may_be_upvalues_and_keys_and_values,
         "local function double(x) return 2 * x end\n"
         "local t = {double = double}\n"
         "local f = travel(function(x) return double(x) + t.double(x), double == t.double end)\n"
         "local sum, equal = f(3)\n"
         "assert(sum == 12 and equal)\n"
         "local k = travel {[double] = double}\n"
         "local a, b = next(k)\n"
         "assert(a == b and a(4) == 8)\n")

LUA_TEST(an_upvalue_may_be_nil_and_may_hold_the_table_that_holds_the_function,
         "local x\n"
         "assert(travel(function() return x end)() == nil)\n"
         "local obj = {n = 3}\n"
         "function obj.get() return obj.n end\n"
         "local c = travel(obj)\n"
         "c.n = 9\n"
         "assert(c.get() == 9 and obj.get() == 3)\n")

LUA_TEST(line_numbers_travel_with_a_function,
         "local f = travel(function()\n"
         "  error('here')\n"
         "end)\n"
         "local ok, message = pcall(f)\n"
         "assert(message == 'main.lua:2: here', message)\n")

LUA_TEST(vararg_and_nested_functions_come_back,
         "local f = travel(function(...)\n"
         "  local n = select('#', ...)\n"
         "  return function(y) n = n + y return function() return n, string.rep('x', n) end end\n"
         "end)\n"
         "local a, b = f(1, 2, 3)(4)()\n"
         "assert(a == 7 and b == 'xxxxxxx')\n")

LUA_TEST(a_stripped_function_comes_back,
         "local k = 4\n"
         "local f = load(string.dump(function(x) return x + #tostring(x) end, true))\n"
         "debug.setupvalue(f, 1, _G)\n"
         "assert(travel(f)(100) == 103)\n")

LUA_TEST(main_chunks_travel_too, "assert(travel(load('local a = ... return a * 2, print'))(4) == 8)")

/* ---- library values ---- */

LUA_TEST(library_functions_and_modules_travel_by_name,
         "for _, v in ipairs {print, string.format, table.insert, math.sin, string, table, _G, coroutine, io, "
         "os.time, require,\n"
         "    package, package.loaded, utf8.char, io.write} do\n"
         "  local copy, bytes = travel(v)\n"
         "  assert(copy == v)\n"
         "  assert(#bytes < 30)\n"
         "end\n"
         "assert(encode(string.format):find('string\\0format', 1, true))\n"
         "assert(encode(print):find('_G\\0print', 1, true))\n"
         "local t = travel {string, string, f = string.rep, g = {print}}\n"
         "assert(t[1] == string and t[2] == string and t.f == string.rep and t.g[1] == print)\n"
         "local insert, str = table.insert, string\n"
         "local r = travel(function(t) insert(t, str.rep('a', 3)) return t end) {}\n"
         "assert(r[1] == 'aaa')\n")

LUA_TEST(registered_tables_travel_by_name,
         "local t = travel(setmetatable({}, registered))\n"
         "assert(getmetatable(t) == registered)\n"
         "assert(travel(registered) == registered and travel {1, {registered}}[2][1] == registered)\n"
         "t = travel(setmetatable({}, registered), 'data')\n"
         "assert(getmetatable(t) == registered)\n"
         "assert(there(encode(setmetatable({1}, registered)), 'return getmetatable(...) == registered') == 'true')\n")

LUA_TEST(a_required_module_travels_by_name_and_is_required_on_arrival,
         "local shapes = require 'shapes'\n"
         "local c = shapes.circle(2)\n"
         "local f = function() return shapes.circle(3):area() + c:area() end\n"
         "assert(travel(f)() == 39)\n"
         "assert(there(encode(f), 'return (...)()') == '39')\n"
         "assert(there(encode(c), 'return (...):area()') == '12')\n"
         "assert(there(encode(shapes), 'return ... == require \"shapes\"') == 'true')\n"
         "assert(there(encode(shapes.circle), 'return ... == require \"shapes\".circle') == 'true')\n"
         "assert(there(encode(c), 'return getmetatable(...) == require \"shapes\".Circle') == 'true')\n"
         "assert(there(encode(require 'callable'), 'return (...)()') == 'called')\n")

LUA_TEST(a_module_is_recognised_though_a_function_comes_only_later,
         "local shapes = require 'shapes'\n"
         "local t = travel {shapes, {shapes.Circle}, function() end}\n"
         "assert(t[1] == shapes and t[2][1] == shapes.Circle)\n")

LUA_TEST(a_function_under_two_names_has_one_of_them_always,
         "local bytes = encode(string.format)\n"
         "package.loaded.aaa = {f = string.format, g = string}\n"
         "package.loaded.s = string\n"
         "assert(encode(string.format) == bytes and encode(string):find('string', 1, true))\n"
         "local function mine() end\n"
         "package.loaded.zz = {mine = mine}\n"
         "package.loaded.long = {mine = mine}\n"
         "assert(encode(mine):find('zz\\0mine', 1, true))\n"
         "package.loaded.ab = mine\n"
         "assert(encode(mine):find('\\2ab', 1, true))\n")

LUA_TEST(a_module_that_is_not_loaded_any_more_travels_by_value,
         "local shapes = require 'shapes'\n"
         "assert(travel(shapes) == shapes)\n"
         "package.loaded.shapes = nil\n"
         "local copy = travel(shapes)\n"
         "assert(copy ~= shapes and copy.circle(1).r == 1)\n"
         "package.loaded.shapes = shapes\n"
         "shapes.circle = nil\n"
         "assert(travel(shapes) == shapes)\n")

LUA_TEST(a_library_function_that_the_script_replaced_still_means_the_library,
         "local real = string.upper\n"
         "local up = function(s) return real(s) .. '!' end\n"
         "string.upper = up\n"
         "assert(travel(up)('a') == 'A!')\n"
         "assert(there(encode(up), 'return (...)(\"a\")') == 'A!')\n"
         "local mine = print\n"
         "print = function(...) return mine, ... end\n"
         "assert(travel(print)() == mine)\n")

LUA_TEST(names_that_are_unknown_on_arrival_are_named,
         "refused('\\x10\\x0d\\x0btest:nobody', \"names 'test:nobody', which is not registered\")\n"
         "refused('\\x10\\x0d\\x0dstring\\0nobody', \"module 'string' has no field 'nobody'\")\n"
         "refused('\\x10\\x0d\\x06nobody', \"module 'nobody' not found\")\n"
         "refused('\\x10\\x0d\\x06broken', 'this module is broken')\n")

/* ---- globals ---- */

LUA_TEST(a_recursive_global_function_comes_back,
         "function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end\n"
         "local copy = travel(fib)\n"
         "assert(copy ~= fib and copy(15) == 610)\n"
         "assert(there(encode(fib), 'assert(fib == nil) return (...)(15)') == '610')\n")

LUA_TEST(globals_of_the_script_travel_with_the_functions_that_use_them,
         "config = {factor = 3}\n"
         "function scale(x) return x * config.factor end\n"
         "function unused() return 1 end\n"
         "local f = function(x) return scale(x) + 1, unknown_global, print end\n"
         "local bytes = encode(f)\n"
         "assert(not bytes:find('unused', 1, true))\n"
         "assert(there(bytes, 'local a, b, p = (...)(5) assert(b == nil and p == print and config == nil) return "
         "a') == '16')\n"
         "assert(travel(f)(5) == 16)\n")

LUA_TEST(globals_named_only_by_an_inner_function_travel,
         "deep = 7\n"
         "local f = function() return function() return function() return deep end end end\n"
         "assert(there(encode(f), 'return (...)()()()') == '7')\n")

LUA_TEST(a_global_that_is_only_assigned_travels_and_new_ones_go_to_the_real_globals,
         "counter = 10\n"
         "local f = function() counter = (counter or 0) + 1 fresh = counter return counter end\n"
         "assert(there(encode(f), 'local f = ... f() local n = f() assert(counter == nil and fresh == n) return "
         "n') == '12')\n")

LUA_TEST(without_globals_of_the_script_a_function_has_the_real_globals,
         "local f = function() x = 5 return _ENV end\n"
         "assert(travel(f)() == _G)\n"
         "assert(x == 5)\n"
         "assert(there(encode(function() return _ENV end), 'return (...)() == _G') == 'true')\n")

LUA_TEST(functions_that_came_by_the_codec_may_go_on,
         "count = 1\n"
         "function bump() count = count + 1 return count end\n"
         "local once = travel(bump)\n"
         "assert(once() == 2 and once() == 3 and count == 1)\n"
         "local twice = travel(once)\n"
         "assert(twice() == 4 and once() == 4)\n"
         "assert(there(encode(once), 'return (...)()') == '5')\n")

LUA_TEST(functions_of_several_environments_keep_their_own_globals,
         "who = 'first' local f = travel(function() return who end)\n"
         "who = 'second' local g = travel(function() return who end)\n"
         "who = 'third' local h = function() return who end\n"
         "local t = travel {f, g, h, f}\n"
         "assert(t[1]() == 'first' and t[2]() == 'second' and t[3]() == 'third' and t[1] == t[4])\n"
         "assert(there(encode {f, g, h}, 'local t = ... return t[1]() .. t[2]() .. t[3]()') == 'firstsecondthird')\n")

LUA_TEST(a_global_made_after_arrival_travels_on,
         "data = 1\n"
         "local f = travel(function() data = data + 1 later = (later or 0) + data return later end)\n"
         "assert(f() == 2 and later == 2)\n"
         "assert(there(encode(f), 'return (...)()') == '5')\n")

LUA_TEST(functions_of_one_value_share_their_globals_on_arrival,
         "shared_n = 0\n"
         "local t = travel {inc = function() shared_n = shared_n + 1 end, get = function() return shared_n end}\n"
         "t.inc()\n"
         "assert(t.get() == 1 and shared_n == 0)\n"
         "local a, b = load('shared_n = shared_n + 1'), load('return shared_n')\n"
         "t = travel {a, b}\n"
         "t[1]()\n"
         "assert(t[2]() == 1 and shared_n == 0)\n")

LUA_TEST(a_global_that_holds_a_module_travels_as_the_module,
         "shapes = require 'shapes'\n"
         "local f = function(r) return shapes.circle(r):area() end\n"
         "assert(there(encode(f), 'return (...)(1)') == '3')\n")

LUA_TEST(an_upvalue_named_env_that_is_another_table_is_only_a_table,
         "hidden = 1\n"
         "local function make() local _ENV = {hidden = 2} return function() return hidden end end\n"
         "assert(travel(make())() == 2)\n"
         "local function outer() local _ENV <const> = {hidden = 3} return hidden end\n"
         "local bytes = encode(outer)\n"
         "assert(travel(outer)() == 3)\n"
         "local plain = load('local _ENV = {hidden = 3} return hidden')\n"
         "assert(travel(plain)() == 3)\n")

LUA_TEST(the_globals_table_under_another_name_counts_as_the_globals,
         "setting = 'on'\n"
         "local G = _G\n"
         "assert(there(encode(function() return G.setting end), 'return (...)()') == 'on')\n"
         "assert(there(encode(function() return _ENV.setting end), 'return (...)()') == 'on')\n")

LUA_TEST(globals_are_found_in_a_function_with_many_constants,
         "late_global = 'late'\n"
         "a_global_whose_name_is_longer_than_forty_bytes_so_it_is_a_long_string = 'long'\n"
         "local lines = {'local t = {}'}\n"
         "for i = 1, 400 do lines[#lines + 1] = ('t[%d] = \"constant %d\"'):format(i, i) end\n"
         "lines[#lines + 1] = 'return late_global, "
         "a_global_whose_name_is_longer_than_forty_bytes_so_it_is_a_long_string, #t'\n"
         "local f = load(table.concat(lines, '\\n'))\n"
         "assert(there(encode(f), 'local a, b, n = (...)() return a .. b .. n') == 'latelong400')\n")

LUA_TEST(a_private_environment_may_be_a_value_of_its_own,
         "inside = 5\n"
         "local f = travel(function() return inside, _ENV end)\n"
         "local _, env = f()\n"
         "assert(env ~= _G and rawget(env, 'inside') == 5)\n"
         "local t = travel {env, f}\n"
         "local v, e = t[2]()\n"
         "assert(v == 5 and e == t[1] and rawget(e, 'inside') == 5)\n"
         "t = travel {f, env}\n"
         "v, e = t[1]()\n"
         "assert(v == 5 and e == t[2])\n")

LUA_TEST(the_same_function_has_the_same_bytes_each_time,
         "zz, yy, xx = 1, {2}, 'x'\n"
         "local function f() return xx, yy, zz, print end\n"
         "local first = encode(f)\n"
         "for _ = 1, 50 do\n"
         "  collectgarbage()\n"
         "  assert(encode(f) == first)\n"
         "  xx, yy, zz = nil, nil, nil\n"
         "  zz, xx, yy = 1, 'x', {2}\n"
         "end\n")

static int collect_names(void *context, const char *name, size_t size) {
  luaL_Buffer *names = context;
  luaL_addlstring(names, name, size);
  luaL_addchar(names, ' ');
  return 0;
}

static int stop_at_once(void *context, const char *name, size_t size) {
  (void)context, (void)name, (void)size;
  return ZP_ENOMEM;
}

static void bytecode_is_read_only_as_far_as_it_goes(void **state) {
  (void)state;
  lua_State *L = open_vm(NULL, NULL);
  zp_buf code = ZP_BUF_INIT;
  luaL_Buffer names;
  assert_int_equal(luaL_loadstring(L, "local a <const>, b = 1.5, 'str' "
                                      "function f(x) y = x return function() return z, b, 2^70, 1 << 40 end end "
                                      "return g, nil, true, false"),
                   LUA_OK);
  assert_int_equal(zp_closure_dump(L, -1, &code), 0);
  luaL_buffinit(L, &names);
  assert_int_equal(zp_closure_globals((zp_bytes){code.data, code.size}, 0, collect_names, &names), 0);
  luaL_pushresult(&names);
  assert_string_equal(lua_tostring(L, -1), "f g y z ");
  assert_int_equal(zp_closure_globals((zp_bytes){code.data, code.size}, 0, stop_at_once, NULL), ZP_ENOMEM);
  assert_int_equal(zp_closure_globals((zp_bytes){code.data, code.size}, 1, stop_at_once, NULL), 0);
  for (size_t size = 0; size < code.size; size++) {
    char *copy = malloc(size ? size : 1);
    memcpy(copy, code.data, size);
    luaL_buffinit(L, &names);
    assert_int_equal(zp_closure_globals((zp_bytes){copy, size}, 0, collect_names, &names), ZP_EENCODE);
    luaL_pushresult(&names);
    lua_pop(L, 1);
    free(copy);
  }
  for (size_t at = 0; at < code.size; at++) {
    for (int value = 0; value < 256; value++) {
      unsigned char kept = code.data[at];
      code.data[at] = (unsigned char)value;
      luaL_buffinit(L, &names);
      zp_closure_globals((zp_bytes){code.data, code.size}, 0, collect_names, &names);
      luaL_pushresult(&names);
      lua_pop(L, 1);
      code.data[at] = kept;
    }
  }
  zp_buf_free(&code);
  lua_close(L);
}

/* ---- what cannot travel ---- */

LUA_TEST(what_cannot_travel_is_named_with_its_path,
         "fails('state.jobs[3].file: cannot send a userdata (FILE*)', {jobs = {1, 2, {file = io.stdout}}})\n"
         "fails('state: cannot send a coroutine', coroutine.create(print))\n"
         "fails('argument 2: cannot send a C function', encode, 'argument 2')\n"
         "fails('state.x[\"a b\"][true][1.5][-3]: cannot send a C function', {x = {['a b'] = {[true] = {[1.5] = "
         "{[-3] = encode}}}}})\n"
         "fails('state[\"\\\\000\\\\n\\\\\"\\\\\\\\\"][null]: cannot send a C function', {['\\0\\n\"\\\\'] = "
         "{[null] = encode}})\n"
         "fails('state[\"' .. ('y z '):rep(8) .. '...\"]: cannot send a C function', {[('y z '):rep(50)] = encode})\n"
         "fails('state[\"1a\"].and_so_on: cannot send a C function', {['1a'] = {and_so_on = encode}})\n"
         "fails('state<metatable>.__index: cannot send a C function', setmetatable({}, {__index = encode}))\n"
         "fails('state.a<key>[1]: cannot send a coroutine', {a = {[{coroutine.create(print)}] = 1}})\n"
         "fails('state[a table]: cannot send a coroutine', {[{}] = coroutine.create(print)})\n"
         "fails('state[false]: cannot send a userdata (FILE*)', {[false] = io.stderr, [true] = io.stderr})\n")

LUA_TEST(an_upvalue_that_cannot_travel_is_named_with_its_function,
         "local log = io.stdout\n"
         "local box = {deep = {log}}\n"
         "fails('state.cb, upvalue log of function at main.lua:3: cannot send a userdata (FILE*)', {cb = "
         "function() return log end})\n"
         "fails('argument 2, upvalue box of function at main.lua:4, field .deep[1]: cannot send a userdata "
         "(FILE*)', function() return box end,\n"
         "  'argument 2')\n"
         "local function inner() return box end\n"
         "fails('state, upvalue inner of function at main.lua:8, upvalue box of function at main.lua:6, field "
         ".deep[1]: '\n"
         "  .. 'cannot send a userdata (FILE*)', function() return inner end)\n"
         "local stripped = load(string.dump(function() return log end, true))\n"
         "debug.setupvalue(stripped, 1, log)\n"
         "fails('state, upvalue 1 of function at ?:9: cannot send a userdata (FILE*)', stripped)\n")

LUA_TEST(a_global_that_cannot_travel_is_named_with_the_function_that_uses_it,
         "log = io.stdout\n"
         "function f() return log end\n"
         "fails('state, global log used by function at main.lua:2: cannot send a userdata (FILE*)', {f})\n"
         "logs = {log}\n"
         "fails('state, global logs used by function at main.lua:6, field [1]: cannot send a userdata (FILE*)',\n"
         "  function() return logs end)\n"
         "fails('state, global logs used by main function of [string \"return logs\"], field [1]: cannot send a "
         "userdata (FILE*)',\n"
         "  load 'return logs')\n")

static void a_value_without_a_root_is_called_value(void **state) {
  (void)state;
  lua_State *L = open_vm(NULL, NULL);
  zp_buf buf = ZP_BUF_INIT;
  assert_int_equal(luaL_dostring(L, "return {a = {encode}}"), LUA_OK);
  assert_int_equal(zp_value_encode(L, -1, NULL, &buf), ZP_EENCODE);
  assert_string_equal(zp_error_detail(), "value.a[1]: cannot send a C function");
  lua_pushlightuserdata(L, &buf);
  assert_int_equal(zp_value_encode(L, -1, "x", &buf), ZP_EENCODE);
  assert_string_equal(zp_error_detail(), "x: cannot send a light userdata");
  lua_newuserdatauv(L, 1, 0);
  assert_int_equal(zp_value_encode(L, -1, "x", &buf), ZP_EENCODE);
  assert_string_equal(zp_error_detail(), "x: cannot send a userdata");
  zp_buf_free(&buf);
  lua_close(L);
}

LUA_TEST(after_a_failure_the_next_encoding_is_as_good_as_new,
         "local t = {a = {b = {c = 1}}}\n"
         "local bytes = encode(t)\n"
         "for _ = 1, 10 do\n"
         "  assert(not encode {t, t, x = {y = {encode}}})\n"
         "  assert(encode(t) == bytes)\n"
         "end\n")

/* ---- depth ---- */

LUA_TEST(tables_may_be_nested_4000_levels_and_no_deeper,
         "local function nest(n) local t = {} for _ = 2, n do t = {t} end return t end\n"
         "local copy = travel(nest(4000))\n"
         "local n = 0 while copy do copy = copy[1] n = n + 1 end\n"
         "assert(n == 4000)\n"
         "local bytes, message = encode(nest(4001))\n"
         "assert(not bytes and message:find('^state%[1%]%[1%].* %.%.%. .*%[1%]: cannot send a value nested "
         "deeper than 4000 levels$'), message)\n"
         "assert(#message < 400)\n"
         "travel {nest(3999), print}\n"
         "assert(not encode {nest(4000), print})\n"
         "local m = nil for _ = 1, 4000 do m = setmetatable({}, m) end\n"
         "assert(encode(m) and decode(encode(m)))\n"
         "assert(not encode(setmetatable({}, m)))\n"
         "local k = {} for _ = 2, 4000 do k = {[k] = 1} end\n"
         "assert(decode(assert(encode(k))))\n"
         "assert(not encode {[k] = 1})\n")

LUA_TEST(functions_may_be_nested_as_deep,
         "local f = function() return 1 end\n"
         "for _ = 2, 4000 do local g = f f = function() return g end end\n"
         "local ok, copy = decode(assert(encode(f)))\n"
         "assert(ok, copy)\n"
         "for _ = 2, 4000 do copy = copy() end\n"
         "assert(copy() == 1)\n"
         "assert(not encode(function() return f end))\n")

LUA_TEST(deep_nesting_in_hostile_bytes_is_refused,
         "refused('\\x10' .. ('\\x0a\\x01\\x00'):rep(100000) .. '\\x0a\\x00\\x00', 'nesting too deep')\n"
         "refused('\\x10' .. ('\\x0a\\x00\\x01'):rep(100000), 'nesting too deep')\n"
         "refused('\\x10' .. ('\\x0b\\x00\\x00'):rep(100000), 'nesting too deep')\n")

LUA_TEST(encoding_works_in_a_coroutine_and_deep_in_the_stack,
         "local function down(n) if n == 0 then return travel {1, {2, f = function() return n end}} end return "
         "(down(n - 1)) end\n"
         "assert(coroutine.wrap(function() return down(5000) end)()[2][1] == 2)\n")

/* ---- hostile bytes ---- */

/* Values that use every form of the format; those of data only come first. */
static const char *const corpus[] = {
    "nil", "true", "null", "1", "-17", "300", "70000", "1 << 40", "1.5", "'abc'", "('x'):rep(70)", "{}", "{1, 2, 3}",
    "{a = 1, b = {2, c = 'x'}, [7] = true, [1.5] = false}", "(function() local s = {} return {s, s, x = s} end)()",
    "(function() local t = {} t[1] = t return t end)()", "setmetatable({1}, {a = 1})", "setmetatable({}, registered)",
    "{[{}] = 1, [null] = 2, [true] = 3, [('k'):rep(65)] = 4}",
    /* not only data */
    "print", "string", "function() end",
    "(function() local n = 0 return {function() return n end, function() n = 1 end} end)()",
    "(function() function gl() return gl end return gl end)()"};

enum { CORPUS = sizeof corpus / sizeof corpus[0], CORPUS_DATA = 19, CORPUS_NAMES = 21 };

static zp_buf encode_source(lua_State *L, const char *source) {
  zp_buf buf = ZP_BUF_INIT;
  lua_pushfstring(L, "return %s", source);
  if (luaL_dostring(L, lua_tostring(L, -1)) != LUA_OK) fail_msg("%s", lua_tostring(L, -1));
  assert_int_equal(zp_value_encode(L, -1, NULL, &buf), 0);
  lua_pop(L, 2);
  return buf;
}

/* Decode without a copy of the bytes, for the many. What is accepted must be the bytes that encoding it gives. */
static int try_data(lua_State *L, const unsigned char *bytes, size_t size) {
  int top = lua_gettop(L);
  int rc = zp_value_decode(L, (zp_bytes){bytes, size}, ZP_DECODE_DATA);
  if (rc) {
    assert_int_equal(rc, ZP_EDECODE);
    assert_int_equal(lua_gettop(L), top);
    return rc;
  }
  assert_int_equal(lua_gettop(L), top + 1);
  zp_buf again = ZP_BUF_INIT;
  assert_int_equal(zp_value_encode(L, -1, NULL, &again), 0);
  assert_int_equal(again.size, size);
  zp_buf_free(&again);
  lua_pop(L, 1);
  return 0;
}

static void every_truncation_is_refused(void **state) {
  (void)state;
  lua_State *L = open_vm(NULL, NULL);
  for (int i = 0; i < CORPUS; i++) {
    zp_buf buf = encode_source(L, corpus[i]);
    assert_int_equal(decode_copy(L, (char *)buf.data, buf.size, ZP_DECODE_CODE), 0);
    for (size_t size = 0; size < buf.size; size++) {
      lua_settop(L, 0);
      assert_int_equal(decode_copy(L, (char *)buf.data, size, ZP_DECODE_DATA), ZP_EDECODE);
      if (i < CORPUS_DATA) assert_int_equal(decode_copy(L, (char *)buf.data, size, ZP_DECODE_CODE), ZP_EDECODE);
    }
    zp_buf_free(&buf);
  }
  lua_close(L);
}

static void trailing_bytes_are_refused(void **state) {
  (void)state;
  lua_State *L = open_vm(NULL, NULL);
  for (int i = 0; i < CORPUS; i++) {
    zp_buf buf = encode_source(L, corpus[i]);
    assert_int_equal(zp_buf_append_byte(&buf, 0), 0);
    assert_int_equal(decode_copy(L, (char *)buf.data, buf.size, ZP_DECODE_CODE), ZP_EDECODE);
    zp_buf_free(&buf);
  }
  lua_close(L);
}

static void every_changed_byte_is_refused_or_means_a_value(void **state) {
  (void)state;
  lua_State *L = open_vm(NULL, NULL);
  for (int i = 0; i < CORPUS; i++) {
    zp_buf buf = encode_source(L, corpus[i]);
    unsigned char *bytes = malloc(buf.size);
    for (size_t at = 0; at < buf.size; at++) {
      for (int change = 1; change < 256; change++) {
        memcpy(bytes, buf.data, buf.size);
        bytes[at] ^= (unsigned char)change;
        try_data(L, bytes, buf.size);
        if (i < CORPUS_NAMES && zp_value_decode(L, (zp_bytes){bytes, buf.size}, ZP_DECODE_DATA) == 0) lua_pop(L, 1);
      }
    }
    free(bytes);
    zp_buf_free(&buf);
  }
  lua_close(L);
}

static uint64_t seed = 42;
static uint64_t random_number(void) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

static void random_bytes_are_refused_or_mean_a_value(void **state) {
  (void)state;
  lua_State *L = open_vm(NULL, NULL);
  static const unsigned char likely[] = {0x0a, 0x0a, 0x0b, 0x0e, 0x09, 0x00, 0x01, 0x02, 0x81, 0x21, 0x61, 0x04};
  int accepted = 0;
  for (int i = 0; i < 100000; i++) {
    unsigned char bytes[64];
    size_t size = 2 + random_number() % 62;
    for (size_t at = 0; at < size; at++) {
      uint64_t number = random_number();
      bytes[at] = number & 0x700 ? likely[number % sizeof likely] : (unsigned char)(number >> 16);
    }
    bytes[0] = (unsigned char)(0x10 | (random_number() & 1));
    for (size_t cut = 2; cut <= size; cut += 1 + random_number() % 8) accepted += try_data(L, bytes, cut) == 0;
  }
  assert_true(accepted > 100);
  lua_close(L);
}

LUA_TEST(counts_beyond_the_bytes_are_refused_before_memory_is_taken,
         "local before = collectgarbage 'count'\n"
         "refused('\\x10\\x0a\\xff\\xff\\xff\\xff\\x0f\\x00', 'a table larger than the value')\n"
         "refused('\\x10\\x0a\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x01', 'a table larger than the "
         "value')\n"
         "refused('\\x10\\x0a\\x80\\x80\\x80\\x80\\x80\\x80\\x80\\x80\\x80\\x01\\x00', 'a table larger than the "
         "value')\n"
         "refused('\\x10\\x09\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x01', 'a size beyond the end')\n"
         "refused('\\x10\\x0a\\x04\\x00\\x0a\\x04\\x00\\x0a\\x04\\x00\\x0a\\x04\\x00', 'a table larger than the "
         "value')\n"
         "assert(collectgarbage 'count' - before < 100)\n")

LUA_TEST(what_is_not_canonical_is_refused,
         "refused('', 'the end') refused('\\x10', 'the end') refused('\\x20\\x00', 'another version')\n"
         "refused('\\x14\\x00', 'unknown flag') refused('\\x10\\x1f', 'an unknown tag') refused('\\x10\\x0f', "
         "'an unknown tag')\n"
         "refused('\\x10\\x05\\x00', 'long form') refused('\\x10\\x06\\x70\\x00', 'long form')\n"
         "refused('\\x10\\x07\\x00\\x01\\x00\\x00', 'long form') "
         "refused('\\x10\\x08\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff', 'long form')\n"
         "refused('\\x10\\x09\\x01a', 'long form') refused('\\x10\\x09\\x81\\x00a', 'a bad number')\n"
         "refused('\\x10\\x0a\\x01\\x00\\x00', 'nil as an element') refused('\\x10\\x0a\\x00\\x01\\x00\\x01', "
         "'nil as a key')\n"
         "refused('\\x10\\x0a\\x00\\x01\\x21a\\x00', 'nil as a value')\n"
         "refused('\\x10\\x0a\\x00\\x02\\x21a\\x01\\x21a\\x01', 'keys out of order')\n"
         "refused('\\x10\\x0a\\x00\\x02\\x21b\\x01\\x21a\\x01', 'keys out of order')\n"
         "refused('\\x10\\x0a\\x00\\x02\\x01\\x01\\x01\\x01', 'keys out of order')\n"
         "refused('\\x10\\x0a\\x00\\x02\\x03\\x01\\x03\\x01', 'keys out of order')\n"
         "refused('\\x10\\x0a\\x00\\x01\\x91\\x01', 'belongs to the array')\n"
         "refused('\\x10\\x0a\\x00\\x01\\x04' .. string.pack('<d', 2.0) .. '\\x01', 'a float key that is an integer')\n"
         "refused('\\x10\\x0a\\x00\\x01\\x04' .. string.pack('<d', 0 / 0) .. '\\x01', 'NaN as a key')\n"
         "refused('\\x11\\x0a\\x00\\x00', 'no reference') refused('\\x10\\x0e\\x00', 'a reference to nothing')\n"
         "refused('\\x11\\x0e\\x00', 'a reference to nothing') refused('\\x11\\x0a\\x01\\x00\\x0e\\x01', 'a "
         "reference to nothing')\n"
         "refused('\\x10\\x0b\\x00\\x00\\x91', 'a metatable that is no table') refused('\\x12\\x00', 'no globals')\n"
         "refused('\\x12\\x00\\x00\\x21a\\x01', 'a reference to nothing')\n"
         "refused('\\x12\\x0a\\x00\\x00\\x00\\x21a\\x01', 'what is no environment')\n"
         "refused('\\x10\\x0d\\x00', 'a bad name') refused('\\x10\\x0c\\x03abc\\x00', 'cannot be loaded')\n"
         "local twice = '\\x11\\x0a\\x01\\x02\\x0a\\x00\\x00\\x0e\\x01\\x91\\x0e\\x01\\x92'\n"
         "refused(twice, 'a key that comes twice')\n")

LUA_TEST(functions_and_library_values_are_refused_where_only_data_is_taken,
         "refused(encode(function() end), 'a function is not accepted here, only data', 'data')\n"
         "refused(encode {function() end}, 'a function is not accepted', 'data')\n"
         "refused(encode(print), 'a library value is not accepted', 'data')\n"
         "refused(encode(string), 'a library value is not accepted', 'data')\n"
         "refused('\\x10\\x0d\\x11zproc:environment', 'an environment is not accepted', 'data')\n"
         "refused(encode(setmetatable({}, {__gc = 1})), 'a finaliser is not accepted', 'data')\n"
         "g1 = 1\n"
         "refused(encode(function() return g1 end), 'a function is not accepted', 'data')\n")

/* ---- memory ---- */

typedef struct meter {
  size_t in_use;
  long left;     /* allocations until one fails; negative: none does */
  bool only_one; /* fail one, not all from then on */
} meter;

static void *metered(void *context, void *memory, size_t old_size, size_t size) {
  meter *m = context;
  if (!memory) old_size = 0;
  if (size == 0) {
    m->in_use -= old_size;
    free(memory);
    return NULL;
  }
  if (size > old_size && m->left >= 0) {
    if (m->left == 0) {
      if (m->only_one) m->left = -1;
      return NULL;
    }
    m->left--;
  }
  void *fresh = realloc(memory, size);
  if (fresh) m->in_use += size - old_size;
  return fresh;
}

typedef struct attempt {
  zp_buf buf;
  zp_bytes bytes;
  int rc;
} attempt;

static int encode_protected(lua_State *L) {
  attempt *a = lua_touserdata(L, 1);
  int top = lua_gettop(L);
  a->rc = zp_value_encode(L, 2, "state", &a->buf);
  assert_int_equal(lua_gettop(L), top);
  return 0;
}

static int decode_protected(lua_State *L) {
  attempt *a = lua_touserdata(L, 1);
  int top = lua_gettop(L);
  a->rc = zp_value_decode(L, a->bytes, ZP_DECODE_CODE);
  assert_int_equal(lua_gettop(L), top + (a->rc == 0));
  return 0;
}

static void run_out_of_memory(const char *source, bool only_one) {
  meter m = {0, -1, only_one};
  bool done = false;
  zp_buf expected = ZP_BUF_INIT;
  for (long n = 0; !done; n++) {
    attempt a = {ZP_BUF_INIT, {NULL, 0}, 0};
    lua_State *L = open_vm(metered, &m);
    if (luaL_dostring(L, source) != LUA_OK) fail_msg("%s", lua_tostring(L, -1));
    lua_pushcfunction(L, encode_protected);
    lua_pushlightuserdata(L, &a);
    lua_pushvalue(L, 1);
    m.left = n;
    int status = lua_pcall(L, 2, 0, 0);
    bool encoded = status == LUA_OK && a.rc == 0;
    done = m.left > 0; /* none failed */
    m.left = -1;
    if (encoded) {
      if (expected.size == 0) assert_int_equal(zp_buf_append(&expected, a.buf.data, a.buf.size), 0);
      assert_int_equal(a.buf.size, expected.size);
      assert_memory_equal(a.buf.data, expected.data, expected.size);
    } else {
      assert_int_equal(status == LUA_OK ? a.rc : ZP_ENOMEM, ZP_ENOMEM);
      /* the same once more, now that there is memory */
      a.buf.size = 0;
      lua_settop(L, 1);
      lua_pushcfunction(L, encode_protected);
      lua_pushlightuserdata(L, &a);
      lua_pushvalue(L, 1);
      assert_int_equal(lua_pcall(L, 2, 0, 0), LUA_OK);
      assert_int_equal(a.rc, 0);
    }
    lua_settop(L, 1);
    a.bytes = (zp_bytes){a.buf.data, a.buf.size};
    lua_pushcfunction(L, decode_protected);
    lua_pushlightuserdata(L, &a);
    m.left = n;
    status = lua_pcall(L, 1, 0, 0);
    done = done && m.left > 0;
    if (status == LUA_OK && a.rc) assert_int_equal(a.rc, ZP_ENOMEM);
    m.left = -1;
    lua_close(L);
    zp_buf_free(&a.buf);
    assert_int_equal(m.in_use, 0);
  }
  zp_buf_free(&expected);
}

static void running_out_of_memory_anywhere_raises_or_fails_and_leaks_nothing(void **state) {
  (void)state;
  static const char *const sources[] = {
      "local t = {} for i = 1, 60 do t['k' .. i] = {i, {}} end t.self = t return t",
      "function gf(n) return gf, gt end gt = {1} local n = 0\n"
      "return {gf, function() n = n + 1 end, [{}] = 1, [{1}] = function() return n end, setmetatable({}, {})}",
  };
  for (int i = 0; i < 4; i++) run_out_of_memory(sources[i / 2], i % 2);
}

LUA_TEST(finalisers_that_encode_do_no_harm,
         "collectgarbage('setpause', 10) collectgarbage('setstepmul', 1000)\n"
         "finish = false\n"
         "local function garbage()\n"
         "  if finish then return end\n"
         "  setmetatable({}, {__gc = function() encode {1, {2}, x = print} encode {[{}] = 1, [{}] = 2, encode} "
         "garbage() end})\n"
         "end\n"
         "for _ = 1, 20 do garbage() end\n"
         "local s = {1}\n"
         "local t = {s, s, a = {b = {}}, f = function() return s end, [{}] = 1, [{2}] = 2}\n"
         "local plain = {s, s, {x = 1, y = {2}}}\n"
         "local first, second = encode(t), encode(plain)\n"
         "for i = 1, 2000 do\n"
         "  assert(encode(t) == first and encode(plain) == second)\n"
         "  local ok, copy = decode(first) assert(ok, copy)\n"
         "end\n"
         "finish = true\n")

LUA_TEST(the_collector_goes_on_and_stays_stopped_as_it_was,
         "local f = function() return 1 end\n"
         "collectgarbage 'stop'\n"
         "encode(f)\n"
         "assert(not collectgarbage 'isrunning')\n"
         "collectgarbage 'restart'\n"
         "encode(f)\n"
         "assert(collectgarbage 'isrunning')\n"
         "local collected = false\n"
         "setmetatable({}, {__gc = function() collected = true end})\n"
         "for _ = 1, 100000 do encode(f) if collected then break end end\n"
         "assert(collected)\n"
         "collectgarbage 'generational'\n"
         "for _ = 1, 1000 do encode(f) end\n"
         "collectgarbage()\n"
         "local before = collectgarbage 'count'\n"
         "for _ = 1, 20000 do encode(f) end\n"
         "assert(collectgarbage 'count' < before + 20000)\n")

/* ---- keys ---- */

LUA_TEST(keys_come_back_as_they_were,
         "for _, k in ipairs {true, false, '', 'a', 'a\\0b', 0, 1, -1, 1.5, -1.5, 1 << 53, (1 << 53) + 1, -(1 << "
         "53) - 1, math.maxinteger,\n"
         "    math.mininteger, math.maxinteger - 1, math.huge, -math.huge, 2.0 ^ 63, -2.0 ^ 64, 5e-324, "
         "('x'):rep(495)} do\n"
         "  local copy = unkey(key(k))\n"
         "  assert(copy == k and math.type(copy) == math.type(k), tostring(k))\n"
         "end\n")

LUA_TEST(an_integral_float_and_the_integer_are_one_key,
         "assert(key(1.0) == key(1) and key(-0.0) == key(0) and key(2.0 ^ 53) == key(1 << 53) and key(-2.0 ^ 63) "
         "== key(math.mininteger))\n"
         "assert(key(2.0 ^ 60) == key(1 << 60) and math.type(unkey(key(3.0))) == 'integer')\n")

LUA_TEST(keys_are_in_the_order_of_booleans_then_numbers_then_strings,
         "local order = {false, true, -math.huge, -1e300, -2.0 ^ 63 - 2048, math.mininteger, math.mininteger + "
         "1, -(1 << 60) - 1, -(1 << 60),\n"
         "  -(1 << 53) - 2, -(1 << 53) - 1, -(1 << 53), -2, -1.5, -1, -0.5, -5e-324, 0, 5e-324, 0.5, 1, 1.5, 2, "
         "255, 256, (1 << 53) - 1, 1 << 53,\n"
         "  (1 << 53) + 1, (1 << 53) + 2, (1 << 60) - 1, 1 << 60, (1 << 60) + 1, math.maxinteger - 1, "
         "math.maxinteger, 2.0 ^ 63, 1e300,\n"
         "  math.huge, '', '\\0', 'A', 'a', 'aa', 'b', '\\255'}\n"
         "for i = 2, #order do assert(key(order[i - 1]) < key(order[i]), tostring(order[i])) end\n")

LUA_TEST(what_cannot_be_a_key_is_named,
         "local function no(expected, k) local b, m = key(k) assert(not b and m == expected, m) end\n"
         "no('a table cannot be a key of the state; use a string, integer, float or boolean', {})\n"
         "no('a function cannot be a key of the state; use a string, integer, float or boolean', print)\n"
         "no('a thread cannot be a key of the state; use a string, integer, float or boolean', "
         "coroutine.create(print))\n"
         "no('a userdata cannot be a key of the state; use a string, integer, float or boolean', io.stdout)\n"
         "no('nil cannot be a key of the state; use a string, integer, float or boolean', nil)\n"
         "no('null cannot be a key of the state; use a string, integer, float or boolean', null)\n"
         "no('NaN cannot be a key of the state', 0 / 0)\n")

LUA_TEST(a_key_is_too_long_where_the_store_says_so,
         "assert(key(('x'):rep(495)) and key(('\\0'):rep(247)))\n"
         "local b, m = key(('x'):rep(496))\n"
         "assert(m == 'a key of 496 bytes is too long for the state, which takes 495 (a zero byte counts twice): "
         "\"' .. ('x'):rep(32) .. '...\"', m)\n"
         "assert(not key(('\\0'):rep(248)) and not key(('x'):rep(494) .. '\\0') and key(('x'):rep(493) .. '\\0'))\n"
         "b, m = key(('x'):rep(1000000))\n"
         "assert(m:find('a key of 1000000 bytes'))\n")

LUA_TEST(bytes_that_are_no_key_are_refused,
         "local good = {key(true), key(5), key(1.5), key(1 << 60), key(-7), key(2.0 ^ 70)}\n"
         "for _, k in ipairs(good) do\n"
         "  for size = 0, #k - 1 do\n"
         "    local v = unkey(k:sub(1, size))\n"
         "    assert(v == nil or key(v) == k:sub(1, size))\n"
         "  end\n"
         "  assert(unkey(k .. 'x') == nil)\n"
         "  for i = 1, #k do\n"
         "    for b = 0, 255 do\n"
         "      local changed = k:sub(1, i - 1) .. string.char(b) .. k:sub(i + 1)\n"
         "      local v = unkey(changed)\n"
         "      assert(v == nil or key(v) == changed)\n"
         "    end\n"
         "  end\n"
         "end\n"
         "local v, m = unkey('\\9abc')\n"
         "assert(v == nil and m == 'these 4 bytes are no key')\n")

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(scalars_come_back_as_they_were),
      cmocka_unit_test(integers_keep_all_64_bits),
      cmocka_unit_test(small_integers_and_short_strings_are_one_byte_longer_than_their_content),
      cmocka_unit_test(floats_keep_every_bit),
      cmocka_unit_test(a_float_of_integral_value_stays_a_float_and_an_integer_an_integer),
      cmocka_unit_test(scalars_are_equal_as_for_lua),
      cmocka_unit_test(tables_are_equal_by_keys_and_values),
      cmocka_unit_test(tables_are_equal_whether_or_not_they_are_shared_or_within_themselves),
      cmocka_unit_test(metatables_do_not_count),
      cmocka_unit_test(tables_as_keys_are_equal_by_content),
      cmocka_unit_test(functions_are_equal_by_code_upvalues_and_globals),
      cmocka_unit_test(bytes_that_are_no_value_are_equal_to_themselves),
      cmocka_unit_test(none_is_seen_without_decoding),
      cmocka_unit_test(bytes_are_appended_to_what_the_buffer_holds),
      cmocka_unit_test(tables_come_back_with_keys_of_every_kind),
      cmocka_unit_test(tables_may_be_empty),
      cmocka_unit_test(large_tables_come_back),
      cmocka_unit_test(more_objects_in_one_table_than_the_stack_takes_come_back),
      cmocka_unit_test(a_table_met_twice_is_one_table_on_arrival),
      cmocka_unit_test(cycles_come_back),
      cmocka_unit_test(metatables_come_with_their_tables),
      cmocka_unit_test(a_metatable_is_part_of_the_value),
      cmocka_unit_test(raw_contents_travel_and_no_metamethod_runs),
      cmocka_unit_test(equal_tables_have_equal_bytes_whatever_way_they_were_built),
      cmocka_unit_test(an_array_has_the_same_bytes_wherever_lua_keeps_its_elements),
      cmocka_unit_test(an_array_with_holes_has_the_same_bytes_wherever_lua_sees_its_border),
      cmocka_unit_test(many_keys_are_sorted_whatever_their_order),
      cmocka_unit_test(tables_as_keys_are_sorted_by_what_they_hold),
      cmocka_unit_test(tables_as_keys_may_hold_tables_as_keys_to_any_depth),
      cmocka_unit_test(encoding_is_the_same_in_plain_and_graph_mode),
      cmocka_unit_test(a_function_comes_with_its_upvalues),
      cmocka_unit_test(an_upvalue_shared_by_two_functions_stays_shared),
      cmocka_unit_test(an_upvalue_that_is_not_shared_stays_apart),
      cmocka_unit_test(a_recursive_local_function_comes_back),
      cmocka_unit_test(functions_may_be_upvalues_and_keys_and_values),
      cmocka_unit_test(an_upvalue_may_be_nil_and_may_hold_the_table_that_holds_the_function),
      cmocka_unit_test(line_numbers_travel_with_a_function),
      cmocka_unit_test(vararg_and_nested_functions_come_back),
      cmocka_unit_test(a_stripped_function_comes_back),
      cmocka_unit_test(main_chunks_travel_too),
      cmocka_unit_test(library_functions_and_modules_travel_by_name),
      cmocka_unit_test(registered_tables_travel_by_name),
      cmocka_unit_test(a_required_module_travels_by_name_and_is_required_on_arrival),
      cmocka_unit_test(a_module_is_recognised_though_a_function_comes_only_later),
      cmocka_unit_test(a_function_under_two_names_has_one_of_them_always),
      cmocka_unit_test(a_module_that_is_not_loaded_any_more_travels_by_value),
      cmocka_unit_test(a_library_function_that_the_script_replaced_still_means_the_library),
      cmocka_unit_test(names_that_are_unknown_on_arrival_are_named),
      cmocka_unit_test(a_recursive_global_function_comes_back),
      cmocka_unit_test(globals_of_the_script_travel_with_the_functions_that_use_them),
      cmocka_unit_test(globals_named_only_by_an_inner_function_travel),
      cmocka_unit_test(a_global_that_is_only_assigned_travels_and_new_ones_go_to_the_real_globals),
      cmocka_unit_test(without_globals_of_the_script_a_function_has_the_real_globals),
      cmocka_unit_test(functions_that_came_by_the_codec_may_go_on),
      cmocka_unit_test(functions_of_several_environments_keep_their_own_globals),
      cmocka_unit_test(a_global_made_after_arrival_travels_on),
      cmocka_unit_test(functions_of_one_value_share_their_globals_on_arrival),
      cmocka_unit_test(a_global_that_holds_a_module_travels_as_the_module),
      cmocka_unit_test(an_upvalue_named_env_that_is_another_table_is_only_a_table),
      cmocka_unit_test(the_globals_table_under_another_name_counts_as_the_globals),
      cmocka_unit_test(globals_are_found_in_a_function_with_many_constants),
      cmocka_unit_test(a_private_environment_may_be_a_value_of_its_own),
      cmocka_unit_test(the_same_function_has_the_same_bytes_each_time),
      cmocka_unit_test(bytecode_is_read_only_as_far_as_it_goes),
      cmocka_unit_test(what_cannot_travel_is_named_with_its_path),
      cmocka_unit_test(an_upvalue_that_cannot_travel_is_named_with_its_function),
      cmocka_unit_test(a_global_that_cannot_travel_is_named_with_the_function_that_uses_it),
      cmocka_unit_test(a_value_without_a_root_is_called_value),
      cmocka_unit_test(after_a_failure_the_next_encoding_is_as_good_as_new),
      cmocka_unit_test(tables_may_be_nested_4000_levels_and_no_deeper),
      cmocka_unit_test(functions_may_be_nested_as_deep),
      cmocka_unit_test(deep_nesting_in_hostile_bytes_is_refused),
      cmocka_unit_test(encoding_works_in_a_coroutine_and_deep_in_the_stack),
      cmocka_unit_test(every_truncation_is_refused),
      cmocka_unit_test(trailing_bytes_are_refused),
      cmocka_unit_test(every_changed_byte_is_refused_or_means_a_value),
      cmocka_unit_test(random_bytes_are_refused_or_mean_a_value),
      cmocka_unit_test(counts_beyond_the_bytes_are_refused_before_memory_is_taken),
      cmocka_unit_test(what_is_not_canonical_is_refused),
      cmocka_unit_test(functions_and_library_values_are_refused_where_only_data_is_taken),
      cmocka_unit_test(running_out_of_memory_anywhere_raises_or_fails_and_leaks_nothing),
      cmocka_unit_test(finalisers_that_encode_do_no_harm),
      cmocka_unit_test(the_collector_goes_on_and_stays_stopped_as_it_was),
      cmocka_unit_test(keys_come_back_as_they_were),
      cmocka_unit_test(an_integral_float_and_the_integer_are_one_key),
      cmocka_unit_test(keys_are_in_the_order_of_booleans_then_numbers_then_strings),
      cmocka_unit_test(what_cannot_be_a_key_is_named),
      cmocka_unit_test(a_key_is_too_long_where_the_store_says_so),
      cmocka_unit_test(bytes_that_are_no_key_are_refused),
  };
  return cmocka_run_group_tests_name("codec", tests, NULL, NULL);
}
