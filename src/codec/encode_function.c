/*
 * Functions, their upvalues, and the globals that they use.
 *
 * An upvalue is a cell of its own that several functions may share; cells are numbered among the objects, by the
 * address that lua_upvalueid gives. An upvalue that holds the globals table, or the environment of a function that
 * came by the codec, is written as an environment, without content. The globals that functions name through it are
 * put in a queue and follow at the end of the value, since writing one may reveal further functions and further
 * globals.
 */
#include <lauxlib.h>
#include <stdio.h>

#include "base/err.h"
#include "codec/closure.h"
#include "codec/encoder.h"
#include "codec/names.h"
#include "codec/path.h"

enum { QUEUE_NAME = 1, QUEUE_ENVIRONMENT, QUEUE_VALUE, QUEUE_FUNCTION, QUEUE_WIDTH = QUEUE_FUNCTION };

static bool is_environment(const zp_encoder *e, int idx) {
  lua_State *L = e->L;
  if (lua_type(L, idx) != LUA_TTABLE) return false;
  if (lua_topointer(L, idx) == e->globals) return true;
  if (!lua_getmetatable(L, idx)) return false;
  bool same = lua_topointer(L, -1) == e->metatable;
  lua_pop(L, 1);
  return same;
}

/* The globals table as an environment is not the globals table as a value, which travels by name: it has an address
   of its own, which is that of no object. */
static const void *environment_object(const zp_encoder *e, const void *table) {
  return table == e->globals ? (const char *)table + 1 : table;
}

typedef struct search {
  zp_encoder *e;
  int function, environment; /* stack indices */
  uint32_t number;           /* of the environment */
} search;

static void put_in_queue(zp_encoder *e, int field, lua_Integer item) {
  lua_rawseti(e->L, e->queue, item * QUEUE_WIDTH + field);
}

/* A function names a global: queue it, if the script made it and it is not queued yet. */
static int visit_global(void *context, const char *name, size_t size) {
  search *found = context;
  zp_encoder *e = found->e;
  lua_State *L = e->L;
  int top = lua_gettop(L);
  lua_pushlstring(L, name, size);
  if (lua_rawgeti(L, e->queued_set, (lua_Integer)found->number + 1) == LUA_TNIL) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawseti(L, e->queued_set, (lua_Integer)found->number + 1);
  }
  lua_pushvalue(L, top + 1);
  if (lua_rawget(L, top + 2) != LUA_TNIL) goto done;

  lua_pushvalue(L, top + 1);
  bool globals = lua_topointer(L, found->environment) == e->globals;
  if (globals || lua_rawget(L, found->environment) == LUA_TNIL) {
    lua_settop(L, top + 2);
    if (!zp_names_is_script_global(L, top + 1)) goto done;
    lua_pushglobaltable(L);
    lua_pushvalue(L, top + 1);
    lua_rawget(L, -2);
  }
  put_in_queue(e, QUEUE_VALUE, e->queued);
  lua_pushvalue(L, top + 1);
  put_in_queue(e, QUEUE_NAME, e->queued);
  lua_pushinteger(L, found->number);
  put_in_queue(e, QUEUE_ENVIRONMENT, e->queued);
  lua_pushvalue(L, found->function);
  put_in_queue(e, QUEUE_FUNCTION, e->queued);
  e->queued++;
  lua_pushvalue(L, top + 1);
  lua_pushboolean(L, 1);
  lua_rawset(L, top + 2);
done:
  lua_settop(L, top);
  return 0;
}

/* Write the environment on top of the stack. */
static int put_environment(zp_encoder *e) {
  int rc = zp_encode_reference(e, environment_object(e, lua_topointer(e->L, -1)));
  if (rc) return rc < 0 ? rc : 0;
  return zp_buf_append_byte(e->buf, TAG_ENVIRONMENT);
}

/* Queue the globals that the function names through its upvalue `index`, the environment on top of the stack. */
static int queue_globals(zp_encoder *e, int function, int index, size_t code_at, size_t code_size) {
  lua_State *L = e->L;
  search found = {e, function, lua_gettop(L), 0};
  /* An environment that only the encoding around this one has met says nothing about the order of its keys. */
  if (!zp_scratch_find(e->scratch, environment_object(e, lua_topointer(L, -1)), &found.number)) return 0;
  for (int table = e->queue; table <= e->queued_set; table++) {
    if (lua_type(L, table) == LUA_TTABLE) continue;
    lua_newtable(L);
    lua_replace(L, table);
  }
  zp_bytes code = {e->buf->data + code_at, code_size};
  return zp_closure_globals(code, index - 1, visit_global, &found);
}

static int put_upvalue(zp_encoder *e, int function, int index, size_t code_at, size_t code_size) {
  lua_State *L = e->L;
  lua_getupvalue(L, function, index);
  bool environment = is_environment(e, -1);
  int rc = zp_encode_reference(e, lua_upvalueid(L, function, index));
  if (rc == 0) {
    rc = zp_buf_append_byte(e->buf, TAG_CELL);
    if (!rc) rc = environment ? put_environment(e) : zp_encode_value(e);
  }
  if (rc >= 0 && environment) rc = queue_globals(e, function, index, code_at, code_size);
  if (rc == ZP_EENCODE) zp_path_add_upvalue(&e->scratch->path, L, function, index);
  if (rc < 0) return rc;
  lua_pop(L, 1);
  return 0;
}

int zp_encode_function(zp_encoder *e) {
  lua_State *L = e->L;
  int rc = zp_encode_down(e), function = lua_gettop(L), upvalues = 0;
  if (rc) return rc;
  if (!lua_checkstack(L, 20)) return zp_fail(ZP_ENOMEM, "out of memory: the stack of Lua is full");
  zp_buf *code = &e->scratch->code;
  code->size = 0;
  rc = zp_closure_dump(L, function, code);
  if (rc) return rc;
  size_t code_size = code->size;
  rc = zp_encoder_number(e, TAG_FUNCTION, code_size);
  if (!rc) rc = zp_buf_append(e->buf, code->data, code_size);
  size_t code_at = e->buf->size - code_size;
  while (!rc && lua_getupvalue(L, function, upvalues + 1)) {
    lua_pop(L, 1);
    upvalues++;
  }
  if (!rc) rc = zp_buf_append_varint(e->buf, (uint64_t)upvalues);
  for (int i = 1; !rc && i <= upvalues; i++) rc = put_upvalue(e, function, i, code_at, code_size);
  if (!rc) e->depth--;
  return rc;
}

static __attribute__((noinline)) void add_global_step(zp_encoder *e, const char *name, size_t size, lua_Integer item) {
  char function[160], text[240];
  lua_State *L = e->L;
  lua_rawgeti(L, e->queue, item * QUEUE_WIDTH + QUEUE_FUNCTION);
  zp_path_describe_function(L, -1, function, sizeof function);
  lua_pop(L, 1);
  snprintf(text, sizeof text, ", global %.*s used by %s", (int)(size < 60 ? size : 60), name, function);
  zp_path_add_text(&e->scratch->path, text);
}

int zp_encode_globals(zp_encoder *e) {
  lua_State *L = e->L;
  for (lua_Integer i = 0; i < e->queued; i++) {
    size_t size;
    lua_rawgeti(L, e->queue, i * QUEUE_WIDTH + QUEUE_ENVIRONMENT);
    int rc = zp_buf_append_varint(e->buf, (uint64_t)lua_tointeger(L, -1));
    if (rc) return rc;
    lua_rawgeti(L, e->queue, i * QUEUE_WIDTH + QUEUE_NAME);
    const char *name = lua_tolstring(L, -1, &size);
    rc = zp_encode_value(e);
    if (rc) return rc;
    lua_rawgeti(L, e->queue, i * QUEUE_WIDTH + QUEUE_VALUE);
    rc = zp_encode_value(e);
    if (rc == ZP_EENCODE) add_global_step(e, name, size, i);
    if (rc) return rc;
    lua_pop(L, 3);
  }
  return 0;
}
