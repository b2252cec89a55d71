/*
 * The decoder reads bytes that may be anyone's. Every read is checked against the end; a table is made with room for
 * the counts that it claims only as far as all claims together are covered by the bytes of the whole value, each
 * element and pair having bytes of its own; and a value that is not in its one canonical form is refused, as far as
 * that is cheap to see: so keys come in order, which also rules out that one comes twice.
 */
#include <lauxlib.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "codec/format.h"
#include "codec/names.h"
#include "codec/value.h"

#define SLOTS 12             /* stack slots that one level needs */
#define PREALLOCATE (1 << 16) /* elements or pairs to make room for at once */
#define NAME_MAX_SIZE 1024

typedef struct decoder {
  lua_State *L;
  const unsigned char *start, *at, *end;
  size_t claimed; /* bytes that the elements and pairs of all tables so far have at least */
  int depth;
  int flags;
  uint64_t elements, pairs; /* of the table that begins */
  bool globals;    /* the value has globals: environments are tables of their own */
  bool referenced; /* a reference was seen */
  lua_Integer count;

  /* Stack index of the table of objects, 0 if the value has no references: object n is at n + 1. At -(n + 1) there is,
     for a cell, the number of the upvalue of the function at n + 1; for an environment 0, or -1 if it has globals. */
  int objects;

  /* Stack index of the list of cells that hold environments: function, upvalue, number of the environment plus 1. */
  int fixes;
  lua_Integer fix_count;
} decoder;

static int get_value(decoder *d);

static __attribute__((noinline, cold)) void describe(const decoder *d, const char *what) {
  zp_fail(ZP_EDECODE, "not an encoded value: %s at byte %zu of %zu", what, (size_t)(d->at - d->start),
          (size_t)(d->end - d->start));
}

static inline int fail(const decoder *d, const char *what) {
  describe(d, what);
  return ZP_EDECODE; /* a constant, so that compilers see which paths go on */
}

/* The bytes may be good, but who they come from may send only data. */
static __attribute__((noinline)) int refuse(const char *what) {
  return zp_fail(ZP_EDECODE, "%s is not accepted here, only data", what);
}

static size_t left(const decoder *d) { return (size_t)(d->end - d->at); }

static inline int get_number(decoder *d, uint64_t *number) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && d->at < d->end; shift += 7) {
    unsigned char byte = *d->at++;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) {
      if ((byte == 0 && shift > 0) || (shift == 63 && byte > 1)) break;
      *number = value;
      return 0;
    }
  }
  return fail(d, "a bad number");
}

/* Take a size and that many bytes. */
static inline int get_bytes(decoder *d, const char **bytes, size_t *size) {
  uint64_t number;
  int rc = get_number(d, &number);
  if (rc) return rc;
  if (number > left(d)) return fail(d, "a size beyond the end");
  *bytes = (const char *)d->at;
  *size = (size_t)number;
  d->at += number;
  return 0;
}

/* Give the object on top of the stack its number. */
static void add_object(decoder *d) {
  d->count++;
  if (!d->objects) return;
  lua_pushvalue(d->L, -1);
  lua_rawseti(d->L, d->objects, d->count);
}

static __attribute__((noinline)) int get_reference(decoder *d) {
  uint64_t number;
  int rc = get_number(d, &number);
  if (rc) return rc;
  if (!d->objects || number >= (uint64_t)d->count) return fail(d, "a reference to nothing");
  d->referenced = true;
  if (lua_rawgeti(d->L, d->objects, -((lua_Integer)number + 1)) != LUA_TNIL && lua_tointeger(d->L, -1) > 0)
    return fail(d, "a reference to an upvalue");
  lua_pop(d->L, 1);
  lua_rawgeti(d->L, d->objects, (lua_Integer)number + 1);
  return 0;
}

static __attribute__((noinline)) int get_name(decoder *d) {
  const char *name;
  size_t size;
  int rc = get_bytes(d, &name, &size);
  if (rc) return rc;
  if (size == 0 || size > NAME_MAX_SIZE) return fail(d, "a bad name");
  if (!(d->flags & ZP_DECODE_CODE) && !memchr(name, ':', size)) return refuse("a library value");
  if (!(d->flags & ZP_DECODE_CODE) && size == sizeof ENVIRONMENT_NAME - 1 && memcmp(name, ENVIRONMENT_NAME, size) == 0)
    return refuse("an environment");
  rc = zp_names_resolve(d->L, name, size);
  if (rc) return rc;
  int type = lua_type(d->L, -1);
  if (type != LUA_TTABLE && type != LUA_TFUNCTION && type != LUA_TUSERDATA && type != LUA_TLIGHTUSERDATA)
    return fail(d, "a name of something that has none");
  add_object(d);
  return 0;
}

/* ---- tables ---- */

/* The key before, to check the order. */
typedef struct last_key {
  int kind;
  size_t size; /* of a string */
  union {
    const char *string;
    uint64_t ordered;
  } as;
} last_key;

static bool follows(const last_key *last, const last_key *key) {
  if (last->kind != key->kind) return last->kind < key->kind;
  if (key->kind == KIND_OBJECT) return true;
  if (key->kind == KIND_INTEGER || key->kind == KIND_FLOAT) return last->as.ordered < key->as.ordered;
  if (key->kind != KIND_STRING) return false; /* there is only one of the kind */
  size_t common = last->size < key->size ? last->size : key->size;
  int difference = memcmp(last->as.string, key->as.string, common);
  return difference ? difference < 0 : last->size < key->size;
}

/* Look at the key on top, which is no string. `elements` is the size of the array part: no pair has a key from 1 to one
   behind it. */
static __attribute__((noinline)) int read_other_key(decoder *d, int table, last_key *key, lua_Integer elements) {
  lua_State *L = d->L;
  lua_Integer integer;
  switch (lua_type(L, -1)) {
  case LUA_TBOOLEAN:
    key->kind = lua_toboolean(L, -1) ? KIND_TRUE : KIND_FALSE;
    return 0;
  case LUA_TNUMBER:
    if (lua_isinteger(L, -1)) {
      integer = lua_tointeger(L, -1);
      if (integer >= 1 && integer <= elements + 1) return fail(d, "a key that belongs to the array part");
      key->kind = KIND_INTEGER;
      key->as.ordered = (uint64_t)integer ^ UINT64_C(1) << 63;
    } else {
      lua_Number number = lua_tonumber(L, -1);
      if (isnan(number)) return fail(d, "NaN as a key");
      if (floor(number) == number && lua_numbertointeger(number, &integer))
        return fail(d, "a float key that is an integer");
      key->kind = KIND_FLOAT;
      key->as.ordered = ordered_bits(number);
    }
    return 0;
  case LUA_TNIL:
    return fail(d, "nil as a key");
  case LUA_TLIGHTUSERDATA:
    if (!lua_touserdata(L, -1)) {
      key->kind = KIND_NULL;
      return 0;
    }
    /* fall through */
  default: /* objects are in no order that can be seen here */
    key->kind = KIND_OBJECT;
    lua_pushvalue(L, -1);
    bool absent = lua_rawget(L, table) == LUA_TNIL;
    lua_pop(L, 1);
    return absent ? 0 : fail(d, "a key that comes twice");
  }
}

static inline int get_key(decoder *d, int table, last_key *last, lua_Integer elements) {
  last_key key;
  int rc;
  int tag = d->at < d->end ? *d->at : TAG_NIL;
  if (tag >= TAG_SHORT_STRING && tag <= TAG_SHORT_STRING_LAST) {
    key.kind = KIND_STRING;
    key.size = (size_t)(tag - TAG_SHORT_STRING);
    d->at++;
    if (key.size > left(d)) return fail(d, "a size beyond the end");
    key.as.string = (const char *)d->at;
    d->at += key.size;
    lua_pushlstring(d->L, key.as.string, key.size);
  } else if (tag == TAG_STRING) {
    key.kind = KIND_STRING;
    d->at++;
    rc = get_bytes(d, &key.as.string, &key.size);
    if (rc) return rc;
    if (key.size <= SHORT_STRING_MAX) return fail(d, "a short string in a long form");
    lua_pushlstring(d->L, key.as.string, key.size);
  } else {
    rc = get_value(d);
    if (!rc) rc = read_other_key(d, table, &key, elements);
    if (rc) return rc;
  }
  if (!follows(last, &key)) return fail(d, "keys out of order");
  *last = key;
  return 0;
}

static int get_metatable(decoder *d, int table) {
  lua_State *L = d->L;
  int rc = get_value(d);
  if (rc) return rc;
  if (lua_type(L, -1) != LUA_TTABLE) return fail(d, "a metatable that is no table");
  if (!(d->flags & ZP_DECODE_CODE) || d->flags & ZP_DECODE_NO_FINALISERS) {
    lua_pushliteral(L, "__gc");
    if (lua_rawget(L, -2) != LUA_TNIL) return refuse("a finaliser");
    lua_pop(L, 1);
  }
  lua_setmetatable(L, table);
  return 0;
}

/* The counts of a table go into the decoder. */
static __attribute__((noinline)) int get_counts(decoder *d) {
  int rc = get_number(d, &d->elements);
  if (!rc) rc = get_number(d, &d->pairs);
  if (rc) return rc;
  size_t unclaimed = (size_t)(d->end - d->start) - d->claimed;
  if (d->elements > unclaimed || d->pairs > (unclaimed - d->elements) / 2)
    return fail(d, "a table larger than the value");
  d->claimed += d->elements + 2 * d->pairs;
  return 0;
}

static int get_table(decoder *d, bool has_metatable) {
  lua_State *L = d->L;
  int rc = get_counts(d);
  if (rc) return rc;
  uint64_t elements = d->elements, pairs = d->pairs;
  if (d->depth >= ZP_DEPTH_MAX) return fail(d, "nesting too deep");
  if (!lua_checkstack(L, SLOTS)) return zp_fail(ZP_ENOMEM, "out of memory: the stack of Lua is full");
  d->depth++;
  lua_createtable(L, elements < PREALLOCATE ? (int)elements : PREALLOCATE,
                  pairs < PREALLOCATE ? (int)pairs : PREALLOCATE);
  add_object(d);
  int table = lua_gettop(L);

  for (uint64_t i = 1; i <= elements; i++) {
    rc = get_value(d);
    if (rc) return rc;
    if (lua_type(L, -1) == LUA_TNIL) return fail(d, "nil as an element");
    lua_rawseti(L, table, (lua_Integer)i);
  }
  last_key last = {.kind = -1};
  for (uint64_t i = 0; i < pairs; i++) {
    rc = get_key(d, table, &last, (lua_Integer)elements);
    if (!rc) rc = get_value(d);
    if (rc) return rc;
    if (lua_type(L, -1) == LUA_TNIL) return fail(d, "nil as a value of a table");
    lua_rawset(L, table);
  }
  if (has_metatable && (rc = get_metatable(d, table)) != 0) return rc;
  d->depth--;
  return 0;
}

/* ---- functions ---- */

static const char *read_code(lua_State *L, void *context, size_t *size) {
  zp_bytes *code = context;
  (void)L;
  *size = code->size;
  code->size = 0;
  return *size ? code->data : NULL;
}

/* Push the environment that comes here: the globals table, or a table of its own that falls back on it. */
static void push_environment(decoder *d) {
  lua_State *L = d->L;
  if (!d->globals) {
    lua_pushglobaltable(L);
    add_object(d);
    return;
  }
  lua_newtable(L);
  zp_environment_metatable(L);
  lua_setmetatable(L, -2);
  add_object(d);
  lua_pushinteger(L, 0);
  lua_rawseti(L, d->objects, -d->count);
}

/* The environment with this number went into a cell; without any global of its own it is to be the globals table. */
static void note_environment(decoder *d, int function, int upvalue, lua_Integer number) {
  lua_State *L = d->L;
  lua_pushvalue(L, function);
  lua_rawseti(L, d->fixes, ++d->fix_count);
  lua_pushinteger(L, upvalue);
  lua_rawseti(L, d->fixes, ++d->fix_count);
  lua_pushinteger(L, number);
  lua_rawseti(L, d->fixes, ++d->fix_count);
}

/* Push the object that a cell refers to; it may be an environment. */
static __attribute__((noinline)) int get_cell_reference(decoder *d, int function, int upvalue) {
  const unsigned char *at = ++d->at;
  uint64_t number;
  int rc = get_number(d, &number);
  d->at = at;
  if (!rc) rc = get_reference(d);
  if (rc) return rc;
  if (lua_rawgeti(d->L, d->objects, -((lua_Integer)number + 1)) != LUA_TNIL)
    note_environment(d, function, upvalue, (lua_Integer)number + 1);
  lua_pop(d->L, 1);
  return 0;
}

/* Read a cell that comes for the first time into an upvalue of the function. */
static int get_cell(decoder *d, int function, int upvalue) {
  lua_State *L = d->L;
  lua_pushvalue(L, function);
  add_object(d);
  lua_pop(L, 1);
  if (d->objects) {
    lua_pushinteger(L, upvalue);
    lua_rawseti(L, d->objects, -d->count);
  }
  int tag = d->at < d->end ? *d->at : TAG_NIL, rc = 0;
  if (tag == TAG_ENVIRONMENT) {
    d->at++;
    push_environment(d);
    if (d->globals) note_environment(d, function, upvalue, d->count);
  } else if (tag == TAG_REFERENCE && d->globals) {
    rc = get_cell_reference(d, function, upvalue);
  } else {
    rc = get_value(d);
  }
  if (!rc) lua_setupvalue(L, function, upvalue);
  return rc;
}

/* Make an upvalue of the function the same as one that came before. */
static __attribute__((noinline)) int share_cell(decoder *d, int function, int upvalue) {
  lua_State *L = d->L;
  uint64_t number;
  int rc = get_number(d, &number);
  if (rc) return rc;
  if (!d->objects || number >= (uint64_t)d->count) return fail(d, "a reference to nothing");
  lua_rawgeti(L, d->objects, -((lua_Integer)number + 1));
  int other = (int)lua_tointeger(L, -1);
  lua_pop(L, 1);
  if (other < 1) return fail(d, "a reference to what is no upvalue");
  d->referenced = true;
  lua_rawgeti(L, d->objects, (lua_Integer)number + 1);
  lua_upvaluejoin(L, function, upvalue, -1, other);
  lua_pop(L, 1);
  return 0;
}

static __attribute__((noinline)) int load_code(decoder *d) {
  lua_State *L = d->L;
  zp_bytes code;
  const char *bytes;
  int rc = get_bytes(d, &bytes, &code.size);
  if (rc) return rc;
  code.data = bytes;
  rc = lua_load(L, read_code, &code, "=function", "b");
  if (rc == LUA_ERRMEM) return lua_error(L);
  if (rc != LUA_OK) return zp_fail(ZP_EDECODE, "a function that cannot be loaded: %s", luaL_tolstring(L, -1, NULL));
  return 0;
}

/* The number of upvalues that follow must be that of the function on top. */
static __attribute__((noinline)) int get_upvalue_count(decoder *d, int *count) {
  uint64_t number;
  int rc = get_number(d, &number);
  if (rc) return rc;
  while (lua_getupvalue(d->L, -1, *count + 1)) {
    lua_pop(d->L, 1);
    ++*count;
  }
  return number == (uint64_t)*count ? 0 : fail(d, "a function with another number of upvalues");
}

static __attribute__((noinline)) int get_function(decoder *d) {
  lua_State *L = d->L;
  if (!(d->flags & ZP_DECODE_CODE)) return refuse("a function");
  if (d->depth >= ZP_DEPTH_MAX) return fail(d, "nesting too deep");
  if (!lua_checkstack(L, SLOTS)) return zp_fail(ZP_ENOMEM, "out of memory: the stack of Lua is full");
  int rc = load_code(d);
  if (rc) return rc;
  d->depth++;
  add_object(d);
  int function = lua_gettop(L);
  int upvalues = 0;
  rc = get_upvalue_count(d, &upvalues);
  for (int i = 1; !rc && i <= upvalues; i++) {
    int tag = d->at < d->end ? *d->at++ : TAG_NIL;
    if (tag == TAG_CELL) {
      rc = get_cell(d, function, i);
    } else if (tag == TAG_REFERENCE) {
      rc = share_cell(d, function, i);
    } else {
      rc = fail(d, "no upvalue");
    }
  }
  d->depth--;
  return rc;
}

/* ---- any value ---- */

/* What keeps a local variable in memory is out of line: get_value is on the stack once for each level of nesting. */

static __attribute__((noinline)) int get_integer(decoder *d, size_t size) {
  int64_t integer = 0;
  if (size > left(d)) return fail(d, "the end");
  memcpy(&integer, d->at, size);
  int unused = 64 - 8 * (int)size;
  integer = (int64_t)((uint64_t)integer << unused) >> unused;
  int smaller = unused + 4 * (int)size; /* bits above half the size: these must be needed */
  bool needed = size == 1 ? integer < SMALL_INTEGER_MIN || integer > SMALL_INTEGER_MAX
                          : (int64_t)((uint64_t)integer << smaller) >> smaller != integer;
  if (!needed) return fail(d, "a small integer in a long form");
  d->at += size;
  lua_pushinteger(d->L, integer);
  return 0;
}

static __attribute__((noinline)) int get_float(decoder *d) {
  lua_Number number;
  if (left(d) < 8) return fail(d, "the end");
  memcpy(&number, d->at, 8);
  d->at += 8;
  lua_pushnumber(d->L, number);
  return 0;
}

static __attribute__((noinline)) int get_long_string(decoder *d) {
  const char *bytes;
  size_t size;
  int rc = get_bytes(d, &bytes, &size);
  if (rc) return rc;
  if (size <= SHORT_STRING_MAX) return fail(d, "a short string in a long form");
  lua_pushlstring(d->L, bytes, size);
  return 0;
}

static inline int get_string(decoder *d, size_t size) {
  if (size > left(d)) return fail(d, "a size beyond the end");
  lua_pushlstring(d->L, (const char *)d->at, size);
  d->at += size;
  return 0;
}

/* Push one value. On failure the stack may have more on it. */
static int get_value(decoder *d) {
  if (d->at == d->end) return fail(d, "the end");
  int tag = *d->at++;
  if (tag >= TAG_SMALL_INTEGER) {
    lua_pushinteger(d->L, tag - TAG_SMALL_INTEGER + SMALL_INTEGER_MIN);
    return 0;
  }
  if (tag >= TAG_SHORT_STRING && tag <= TAG_SHORT_STRING_LAST) return get_string(d, (size_t)(tag - TAG_SHORT_STRING));
  switch (tag) {
  case TAG_NIL:
    lua_pushnil(d->L);
    return 0;
  case TAG_FALSE:
  case TAG_TRUE:
    lua_pushboolean(d->L, tag == TAG_TRUE);
    return 0;
  case TAG_NULL:
    lua_pushlightuserdata(d->L, NULL);
    return 0;
  case TAG_FLOAT:
    return get_float(d);
  case TAG_INT8:
    return get_integer(d, 1);
  case TAG_INT16:
    return get_integer(d, 2);
  case TAG_INT32:
    return get_integer(d, 4);
  case TAG_INT64:
    return get_integer(d, 8);
  case TAG_STRING:
    return get_long_string(d);
  case TAG_TABLE:
  case TAG_META_TABLE:
    return get_table(d, tag == TAG_META_TABLE);
  case TAG_FUNCTION:
    return get_function(d);
  case TAG_NAME:
    return get_name(d);
  case TAG_REFERENCE:
    return get_reference(d);
  default:
    d->at--;
    return fail(d, "an unknown tag");
  }
}

/* ---- the whole ---- */

/* Read the globals up to the end into their environments. */
static int get_globals(decoder *d) {
  lua_State *L = d->L;
  int top = lua_gettop(L);
  while (d->at < d->end) {
    uint64_t number;
    int rc = get_number(d, &number);
    if (rc) return rc;
    if (number >= (uint64_t)d->count) return fail(d, "a reference to nothing");
    lua_rawgeti(L, d->objects, -((lua_Integer)number + 1));
    bool environment = lua_isinteger(L, -1) && lua_tointeger(L, -1) <= 0;
    if (environment) { /* it keeps its globals: -1 */
      lua_pushinteger(L, -1);
      lua_rawseti(L, d->objects, -((lua_Integer)number + 1));
    }
    lua_rawgeti(L, d->objects, (lua_Integer)number + 1);
    if (!environment && lua_getmetatable(L, -1)) { /* one that was met as a plain table before */
      zp_environment_metatable(L);
      environment = lua_rawequal(L, -1, -2);
      lua_pop(L, 2);
    }
    if (!environment) return fail(d, "a global of what is no environment");
    rc = get_value(d);
    if (!rc && lua_type(L, -1) != LUA_TSTRING) rc = fail(d, "a global whose name is no string");
    if (!rc) rc = get_value(d);
    if (!rc && lua_type(L, -1) == LUA_TNIL) rc = fail(d, "a global that is nil");
    if (rc) return rc;
    lua_rawset(L, -3);
    lua_settop(L, top);
  }
  for (lua_Integer i = 1; i <= d->fix_count; i += 3) {
    lua_rawgeti(L, d->fixes, i + 2);
    lua_rawgeti(L, d->objects, -lua_tointeger(L, -1));
    if (lua_tointeger(L, -1) == 0) {
      lua_rawgeti(L, d->fixes, i + 1);
      int upvalue = (int)lua_tointeger(L, -1);
      lua_rawgeti(L, d->fixes, i);
      lua_pushglobaltable(L);
      lua_setupvalue(L, -2, upvalue);
    }
    lua_settop(L, top);
  }
  return 0;
}

static int decode_whole(decoder *d) {
  lua_State *L = d->L;
  int top = lua_gettop(L);
  if (d->end - d->start < 2) return fail(d, "the end");
  int first = *d->at;
  if ((first & FORMAT_VERSION_MASK) != FORMAT_VERSION)
    return zp_fail(ZP_EDECODE, "an encoded value of another version, or none");
  if (first & ~(FORMAT_VERSION_MASK | FORMAT_FLAGS)) return fail(d, "an unknown flag");
  d->at++;
  d->globals = first & FORMAT_GLOBALS;
  if (d->globals && !(d->flags & ZP_DECODE_CODE)) return refuse("a function");
  if (first & FORMAT_FLAGS) {
    lua_newtable(L);
    d->objects = top + 1;
  }
  if (d->globals) {
    lua_newtable(L);
    d->fixes = top + 2;
  }
  int rc = get_value(d);
  if (rc) return rc;
  if (d->globals && d->at == d->end) return fail(d, "no globals");
  if (d->globals && (rc = get_globals(d)) != 0) return rc;
  if (d->at != d->end) return fail(d, "more than one value");
  if ((first & FORMAT_REFERENCES) && !d->referenced) return fail(d, "no reference");
  if (!(first & FORMAT_REFERENCES) && d->referenced) return fail(d, "a reference that was not announced");
  if (lua_gettop(L) > top + 1) lua_replace(L, top + 1);
  lua_settop(L, top + 1);
  return 0;
}

int zp_value_decode(lua_State *L, zp_bytes bytes, int flags) {
  decoder d = {.L = L, .start = bytes.data, .flags = flags};
  d.at = d.start;
  d.end = d.start + bytes.size;
  int top = lua_gettop(L);
  if (!lua_checkstack(L, SLOTS)) return zp_fail(ZP_ENOMEM, "out of memory: the stack of Lua is full");
  int rc = decode_whole(&d);
  if (rc) lua_settop(L, top);
  return rc;
}

int zp_value_is_none(zp_bytes bytes) {
  const unsigned char *data = bytes.data;
  return bytes.size == 2 && data[0] == FORMAT_VERSION && (data[1] == TAG_NIL || data[1] == TAG_NULL);
}

int zp_value_is_scalar(zp_bytes bytes) {
  const unsigned char *data = bytes.data;
  return bytes.size >= 2 && data[0] == FORMAT_VERSION && (data[1] < TAG_TABLE || data[1] >= TAG_SHORT_STRING);
}
