/*
 * A path is kept as steps, innermost first, each followed by its size in four bytes, so that it can be read from the
 * end.
 */
#include "codec/path.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>

#include "base/err.h"
#include "codec/format.h"

#define STEP_MAX 160
#define NAME_SHOWN 60  /* bytes of a key that is an identifier */
#define STRING_SHOWN 32 /* bytes of any other string key */
#define HALF_SHOWN 120  /* of a path that is too long, the bytes shown at either end */

static void add_step(zp_buf *path, const char *text) {
  uint32_t size = (uint32_t)strlen(text);
  if (zp_buf_reserve(path, size + sizeof size)) return;
  zp_buf_append(path, text, size);
  zp_buf_append(path, &size, sizeof size);
}

void zp_path_add_text(zp_buf *path, const char *text) { add_step(path, text); }

void zp_path_add_index(zp_buf *path, lua_Integer index) {
  char text[32];
  snprintf(text, sizeof text, "[%lld]", (long long)index);
  add_step(path, text);
}

static bool is_identifier(const char *string, size_t size) {
  if (size == 0 || size > NAME_SHOWN || isdigit((unsigned char)string[0])) return false;
  for (size_t i = 0; i < size; i++) {
    unsigned char byte = (unsigned char)string[i];
    if (byte >= 0x80 || (!isalnum(byte) && byte != '_')) return false;
  }
  return true;
}

/* ["..."], with escapes as Lua writes them, cut after STRING_SHOWN bytes. */
static void add_quoted(zp_buf *path, const char *string, size_t size) {
  char text[STEP_MAX], *to = text;
  to += sprintf(to, "[\"");
  for (size_t i = 0; i < size && i < STRING_SHOWN; i++) {
    unsigned char byte = (unsigned char)string[i];
    if (byte == '"' || byte == '\\') {
      to += sprintf(to, "\\%c", byte);
    } else if (byte == '\n') {
      to += sprintf(to, "\\n");
    } else if (byte < ' ' || byte == 0x7f) {
      to += sprintf(to, "\\%03d", byte);
    } else {
      *to++ = (char)byte;
    }
  }
  sprintf(to, size > STRING_SHOWN ? "...\"]" : "\"]");
  add_step(path, text);
}

void zp_path_add_key(zp_buf *path, lua_State *L, const zp_item *key) {
  char text[STEP_MAX];
  switch (key->kind) {
  case KIND_FALSE:
    add_step(path, "[false]");
    return;
  case KIND_TRUE:
    add_step(path, "[true]");
    return;
  case KIND_INTEGER:
    zp_path_add_index(path, key->as.integer);
    return;
  case KIND_FLOAT:
    snprintf(text, sizeof text, "[%.14g]", key->as.number);
    add_step(path, text);
    return;
  case KIND_STRING:
    if (is_identifier(key->as.string, key->size)) {
      snprintf(text, sizeof text, ".%.*s", (int)key->size, key->as.string);
      add_step(path, text);
    } else {
      add_quoted(path, key->as.string, key->size);
    }
    return;
  case KIND_NULL:
    add_step(path, "[null]");
    return;
  default:
    snprintf(text, sizeof text, "[a %s]", key->slot > 0 ? luaL_typename(L, key->slot) : "table");
    add_step(path, text);
  }
}

void zp_path_describe_function(lua_State *L, int idx, char *text, size_t size) {
  lua_Debug debug;
  lua_pushvalue(L, idx);
  lua_getinfo(L, ">S", &debug);
  if (debug.linedefined > 0) {
    snprintf(text, size, "function at %s:%d", debug.short_src, debug.linedefined);
  } else {
    snprintf(text, size, "main function of %s", debug.short_src);
  }
}

void zp_path_add_upvalue(zp_buf *path, lua_State *L, int idx, int upvalue) {
  char function[STEP_MAX], text[STEP_MAX + NAME_SHOWN + 32];
  zp_path_describe_function(L, idx, function, sizeof function);
  const char *name = lua_getupvalue(L, idx, upvalue);
  if (name) lua_pop(L, 1);
  if (name && *name && *name != '(') {
    snprintf(text, sizeof text, ", upvalue %.*s of %s", NAME_SHOWN, name, function);
  } else {
    snprintf(text, sizeof text, ", upvalue %d of %s", upvalue, function);
  }
  add_step(path, text);
}

int zp_path_fail(const zp_buf *path, const char *root) {
  char text[2 * HALF_SHOWN + 8], detail[ZP_DETAIL_MAX];
  size_t total = 0, at = 0, used = 0;
  uint32_t size;
  snprintf(detail, sizeof detail, "%s", zp_error_detail());
  bool field_of_upvalue = false;
  for (int pass = 0; pass < 2; pass++) { /* first measure, then write */
    for (size_t end = path->size; end > 0; end -= sizeof size + size) {
      memcpy(&size, path->data + end - sizeof size, sizeof size);
      const char *step = (const char *)path->data + end - sizeof size - size;
      const char *between = field_of_upvalue && *step != ',' ? ", field " : "";
      field_of_upvalue = *step == ',';
      size_t between_size = strlen(between);
      for (size_t i = 0; i < between_size + size; i++, at++) {
        char byte = i < between_size ? between[i] : step[i - between_size];
        if (pass == 0) {
          total++;
        } else if (total <= 2 * HALF_SHOWN || at < HALF_SHOWN || at >= total - HALF_SHOWN) {
          if (total > 2 * HALF_SHOWN && at == total - HALF_SHOWN) used += (size_t)sprintf(text + used, " ... ");
          text[used++] = byte;
        }
      }
    }
    at = 0;
    field_of_upvalue = false;
  }
  text[used] = '\0';
  if (!root && used == 0) return zp_fail(ZP_EENCODE, "%s", detail);
  return zp_fail(ZP_EENCODE, "%s%s: %s", root ? root : "value", text, detail);
}
