/*
 * The bytecode of Lua 5.4 as lua_dump writes it: a header, then the main function, each function being its source,
 * lines, code, constants, upvalues, the functions within it, and debug information, in this order. Read here with
 * every step checked against the end.
 *
 * A global `name` is the field `name` of the upvalue _ENV, and compiles to GETTABUP or SETTABUP with the number of a
 * constant. In a function with more than 255 constants, and for names of more than 40 bytes, the compiler fetches the
 * upvalue first (GETUPVAL) and indexes the register; then each such constant of the function may be a global, and is
 * taken for one.
 */
#include "codec/closure.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"

#define NESTING_MAX 250       /* functions within functions; the compiler stops at 200 levels of anything */
#define DIRECT_CONSTANTS 256  /* constants that fit an instruction */
#define DIRECT_NAME_MAX 40    /* longest string that does */
#define UPVALUES_MAX 255

/* Constants by type, as the dump writes them. */
enum { K_NIL = 0x00, K_FALSE = 0x01, K_TRUE = 0x11, K_INTEGER = 0x03, K_FLOAT = 0x13, K_SHORT = 0x04, K_LONG = 0x14 };

/* The same in every lua_State of this program, found out at the first opening. */
static _Atomic int op_gettabup = -1, op_settabup = -1, op_getupval = -1;

typedef struct reader {
  const unsigned char *at, *end;
  zp_closure_visit *visit;
  void *context;
} reader;

static int opcode_of(uint32_t instruction) { return (int)(instruction & 0x7f); }
static unsigned a_of(uint32_t instruction) { return instruction >> 7 & 0xff; }
static unsigned b_of(uint32_t instruction) { return instruction >> 16 & 0xff; }
static unsigned c_of(uint32_t instruction) { return instruction >> 24; }

static bool skip(reader *r, size_t size) {
  if (size > (size_t)(r->end - r->at)) return false;
  r->at += size;
  return true;
}

/* A number: seven bits a byte, most significant first, the last byte marked. */
static bool read_size(reader *r, size_t *number) {
  size_t value = 0;
  for (;;) {
    if (r->at == r->end || value > SIZE_MAX >> 8) return false;
    unsigned char byte = *r->at++;
    value = value << 7 | (byte & 0x7f);
    if (byte & 0x80) break;
  }
  *number = value;
  return true;
}

static bool skip_items(reader *r, size_t item_size) {
  size_t count;
  return read_size(r, &count) && count <= (size_t)(r->end - r->at) / item_size && skip(r, count * item_size);
}

/* A string: its size plus one, and its bytes; zero stands for none. */
static bool read_string(reader *r, const char **string, size_t *size) {
  size_t raw;
  if (!read_size(r, &raw)) return false;
  *size = raw ? raw - 1 : 0;
  *string = (const char *)r->at;
  return skip(r, *size);
}

static bool skip_string(reader *r) {
  const char *string;
  size_t size;
  return read_string(r, &string, &size);
}

/* One constant; *string is NULL unless it is one. */
static bool read_constant(reader *r, const char **string, size_t *size) {
  *string = NULL;
  if (r->at == r->end) return false;
  switch (*r->at++) {
  case K_NIL:
  case K_FALSE:
  case K_TRUE:
    return true;
  case K_INTEGER:
  case K_FLOAT:
    return skip(r, 8);
  case K_SHORT:
  case K_LONG:
    return read_string(r, string, size);
  default:
    return false;
  }
}

static bool skip_debug(reader *r) {
  size_t count;
  if (!skip_items(r, 1)) return false; /* line differences */
  if (!read_size(r, &count)) return false;
  for (; count > 0; count--) { /* absolute lines */
    size_t number;
    if (!read_size(r, &number) || !read_size(r, &number)) return false;
  }
  if (!read_size(r, &count)) return false;
  for (; count > 0; count--) { /* local variables */
    size_t number;
    if (!skip_string(r) || !read_size(r, &number) || !read_size(r, &number)) return false;
  }
  if (!read_size(r, &count)) return false;
  for (; count > 0; count--) { /* names of upvalues */
    if (!skip_string(r)) return false;
  }
  return true;
}

typedef struct body {
  const unsigned char *code;
  size_t code_size; /* in instructions */
  const unsigned char *constants;
  size_t constant_count;
} body;

/* Hand each constant that the code uses as a field of an upvalue in `environments` to the visitor. */
static int visit_body(reader *r, const body *b, const bool *environments) {
  bool wanted[DIRECT_CONSTANTS] = {false}, fetched = false;
  int get = op_gettabup, set = op_settabup, fetch = op_getupval;
  for (size_t i = 0; i < b->code_size; i++) {
    uint32_t instruction;
    memcpy(&instruction, b->code + 4 * i, 4);
    int opcode = opcode_of(instruction);
    if (opcode == get) {
      if (environments[b_of(instruction)]) wanted[c_of(instruction)] = true;
    } else if (opcode == set) {
      if (environments[a_of(instruction)]) wanted[b_of(instruction)] = true;
    } else if (opcode == fetch) {
      if (environments[b_of(instruction)]) fetched = true;
    }
  }
  reader constants = *r;
  constants.at = b->constants;
  for (size_t i = 0; i < b->constant_count; i++) {
    const char *string;
    size_t size = 0;
    if (!read_constant(&constants, &string, &size)) return 1;
    if (!string) continue;
    bool direct = i < DIRECT_CONSTANTS && size <= DIRECT_NAME_MAX;
    if (direct ? !wanted[i] : !fetched) continue;
    int rc = r->visit(r->context, string, size);
    if (rc) return rc;
  }
  return 0;
}

/* Read one function. `outer`: which upvalues of the enclosing function are the environment; NULL for the main function,
   whose upvalue `env_upvalue` is. Answers 1 for bytes that are no function, or what the visitor answers. */
static int visit_function(reader *r, const bool *outer, int env_upvalue, int nesting) {
  bool environments[UPVALUES_MAX + 1] = {false};
  body b;
  size_t number, count;
  if (nesting > NESTING_MAX) return 1;
  if (!skip_string(r) || !read_size(r, &number) || !read_size(r, &number) || !skip(r, 3)) return 1;

  if (!read_size(r, &b.code_size) || b.code_size > (size_t)(r->end - r->at) / 4) return 1;
  b.code = r->at;
  skip(r, 4 * b.code_size);

  if (!read_size(r, &b.constant_count)) return 1;
  b.constants = r->at;
  for (size_t i = 0; i < b.constant_count; i++) {
    const char *string;
    size_t size;
    if (!read_constant(r, &string, &size)) return 1;
  }

  if (!read_size(r, &count) || count > UPVALUES_MAX || count > (size_t)(r->end - r->at) / 3) return 1;
  bool any = false;
  for (size_t i = 0; i < count; i++, r->at += 3) { /* in the enclosing function's stack?, number, kind */
    environments[i] = outer ? r->at[0] == 0 && outer[r->at[1]] : (int)i == env_upvalue;
    any |= environments[i];
  }
  if (any) {
    int rc = visit_body(r, &b, environments);
    if (rc) return rc;
  }

  if (!read_size(r, &count)) return 1;
  for (; count > 0; count--) {
    int rc = visit_function(r, environments, -1, nesting + 1);
    if (rc) return rc;
  }
  return skip_debug(r) ? 0 : 1;
}

static bool skip_header(reader *r) {
  static const char start[] = LUA_SIGNATURE "\x54\x00\x19\x93\r\n\x1a\n";
  static const lua_Integer sample_integer = 0x5678;
  static const lua_Number sample_number = 370.5;
  const unsigned char sizes[] = {4, sizeof(lua_Integer), sizeof(lua_Number)};
  const unsigned char *at = r->at;
  if (!skip(r, sizeof start - 1 + sizeof sizes + 8 + 8 + 1)) return false; /* and the number of upvalues */
  if (memcmp(at, start, sizeof start - 1) != 0) return false;
  at += sizeof start - 1;
  if (memcmp(at, sizes, sizeof sizes) != 0) return false;
  at += sizeof sizes;
  return memcmp(at, &sample_integer, 8) == 0 && memcmp(at + 8, &sample_number, 8) == 0;
}

int zp_closure_globals(zp_bytes bytecode, int env_upvalue, zp_closure_visit *visit, void *context) {
  reader r = {bytecode.data, (const unsigned char *)bytecode.data + bytecode.size, visit, context};
  int rc = skip_header(&r) ? visit_function(&r, NULL, env_upvalue, 0) : 1;
  if (rc == 1 || (rc == 0 && r.at != r.end))
    return zp_fail(ZP_EENCODE, "the bytecode of a function is not in the format of Lua 5.4");
  return rc;
}

static int write_bytes(lua_State *L, const void *data, size_t size, void *context) {
  (void)L;
  return zp_buf_append(context, data, size);
}

int zp_closure_dump(lua_State *L, int idx, zp_buf *buf) {
  size_t before = buf->size;
  lua_pushvalue(L, idx);
  int rc = lua_dump(L, write_bytes, buf, 0);
  lua_pop(L, 1);
  if (rc) buf->size = before;
  if (rc == 1) return zp_fail(ZP_EENCODE, "cannot send a C function");
  return rc;
}

/* The number of the instruction at the position in the main chunk `source`. May raise. */
static int calibrate(lua_State *L, const char *source, size_t position) {
  zp_buf buf = ZP_BUF_INIT;
  int opcode = -1;
  if (luaL_loadbufferx(L, source, strlen(source), "=codec", "t") != LUA_OK) lua_error(L);
  if (zp_closure_dump(L, -1, &buf) == 0) {
    reader r = {buf.data, buf.data + buf.size, NULL, NULL};
    size_t number, code_size;
    if (skip_header(&r) && skip_string(&r) && read_size(&r, &number) && read_size(&r, &number) && skip(&r, 3) &&
        read_size(&r, &code_size) && code_size > position && skip(&r, 4 * position) && r.end - r.at >= 4) {
      uint32_t instruction;
      memcpy(&instruction, r.at, 4);
      opcode = opcode_of(instruction);
    }
  }
  zp_buf_free(&buf);
  lua_pop(L, 1);
  if (opcode < 0) luaL_error(L, "out of memory, or not the Lua that zproc was built for");
  return opcode;
}

/* Instruction 0 of a main chunk is VARARGPREP. */
void zp_closure_open(lua_State *L) {
  if (op_getupval >= 0) return;
  luaL_checkstack(L, 4, "codec");
  int get = calibrate(L, "return name", 1);
  int set = calibrate(L, "name = nil", 1);
  int fetch = calibrate(L, "return _ENV", 1);
  op_gettabup = get;
  op_settabup = set;
  op_getupval = fetch;
}
