#include "codec/value.h"

#include <lauxlib.h>
#include <string.h>

#include "base/err.h"
#include "codec/closure.h"
#include "codec/encoder.h"
#include "codec/names.h"
#include "codec/path.h"

#define SLOTS 8            /* stack slots that one level needs */
#define KEPT_MAX 50000     /* values of pairs that are kept on the stack; more go into a table */
#define NESTING_MAX 3      /* tables as keys of tables as keys ...: deeper ones are not put in order */
#define ORDER_BUDGET (16u << 20) /* bytes that may be encoded only to put objects as keys in order */
#define GC_CREDIT (1 << 20) /* KiB that may be allocated in graph mode before the collector runs */

static const char environment_key;

/* ---- scalars ---- */

static int put_integer(zp_encoder *e, lua_Integer integer) {
  int rc = zp_encoder_reserve(e, 9), size;
  if (rc) return rc;
  unsigned char *to = e->buf->data + e->buf->size;
  if (integer >= SMALL_INTEGER_MIN && integer <= SMALL_INTEGER_MAX) {
    *to = (unsigned char)(TAG_SMALL_INTEGER + (integer - SMALL_INTEGER_MIN));
    e->buf->size++;
    return 0;
  }
  if (integer == (int8_t)integer) {
    *to = TAG_INT8;
    size = 1;
  } else if (integer == (int16_t)integer) {
    *to = TAG_INT16;
    size = 2;
  } else if (integer == (int32_t)integer) {
    *to = TAG_INT32;
    size = 4;
  } else {
    *to = TAG_INT64;
    size = 8;
  }
  memcpy(to + 1, &integer, 8); /* little-endian; bytes behind `size` are overwritten by what follows */
  e->buf->size += 1 + (size_t)size;
  return 0;
}

static int put_float(zp_encoder *e, lua_Number number) {
  int rc = zp_encoder_reserve(e, 9);
  if (rc) return rc;
  zp_encoder_byte(e, TAG_FLOAT);
  memcpy(e->buf->data + e->buf->size, &number, 8);
  e->buf->size += 8;
  return 0;
}

static int put_string(zp_encoder *e, const char *string, size_t size) {
  int rc = size < SIZE_MAX - 16 ? zp_encoder_reserve(e, size + 11) : zp_fail(ZP_ENOMEM, "out of memory");
  if (rc) return rc;
  if (size <= SHORT_STRING_MAX) {
    zp_encoder_byte(e, (unsigned char)(TAG_SHORT_STRING + size));
  } else {
    zp_encoder_byte(e, TAG_STRING);
    zp_buf_append_varint(e->buf, size);
  }
  memcpy(e->buf->data + e->buf->size, string, size);
  e->buf->size += size;
  return 0;
}

static __attribute__((noinline)) int put_top_string(zp_encoder *e) {
  size_t size;
  const char *string = lua_tolstring(e->L, -1, &size);
  return put_string(e, string, size);
}

static int put_tag(zp_encoder *e, unsigned char tag) { return zp_buf_append_byte(e->buf, tag); }

/* What is at idx as an item; for an object only the kind. Strings stay with whoever holds the value. */
static void read_item(lua_State *L, int idx, zp_item *item) {
  switch (lua_type(L, idx)) {
  case LUA_TSTRING:
    item->kind = KIND_STRING;
    item->as.string = lua_tolstring(L, idx, &item->size);
    return;
  case LUA_TNUMBER:
    if (lua_isinteger(L, idx)) {
      item->kind = KIND_INTEGER;
      item->as.integer = lua_tointeger(L, idx);
    } else {
      item->kind = KIND_FLOAT;
      item->as.number = lua_tonumber(L, idx);
    }
    return;
  case LUA_TBOOLEAN:
    item->kind = lua_toboolean(L, idx) ? KIND_TRUE : KIND_FALSE;
    return;
  case LUA_TLIGHTUSERDATA:
    item->kind = lua_touserdata(L, idx) ? KIND_OBJECT : KIND_NULL;
    return;
  default:
    item->kind = KIND_OBJECT;
  }
}

static void push_kept(zp_encoder *e, int slot) {
  if (slot > 0) {
    lua_pushvalue(e->L, slot);
    return;
  }
  lua_getiuservalue(e->L, e->home, 1);
  lua_rawgeti(e->L, -1, -slot);
  lua_remove(e->L, -2);
}

static int put_item(zp_encoder *e, const zp_item *item) {
  switch (item->kind) {
  case KIND_STRING:
    return put_string(e, item->as.string, item->size);
  case KIND_INTEGER:
    return put_integer(e, item->as.integer);
  case KIND_FLOAT:
    return put_float(e, item->as.number);
  case KIND_FALSE:
    return put_tag(e, TAG_FALSE);
  case KIND_TRUE:
    return put_tag(e, TAG_TRUE);
  case KIND_NULL:
    return put_tag(e, TAG_NULL);
  default:
    push_kept(e, item->slot);
    int rc = zp_encode_value(e);
    lua_pop(e->L, 1);
    return rc;
  }
}

/* ---- tables ---- */

int zp_encode_down(zp_encoder *e) {
  if (e->depth >= ZP_DEPTH_MAX)
    return zp_fail(ZP_EENCODE, "cannot send a value nested deeper than %d levels", ZP_DEPTH_MAX);
  if (!lua_checkstack(e->L, SLOTS)) return zp_fail(ZP_ENOMEM, "out of memory: the stack of Lua is full");
  e->depth++;
  return 0;
}

/* The value on top, which is an object of the pair that is being collected, stays reachable in place: on the stack,
   below the key that lua_next wants on top, or in the table of kept values. Pops it. */
static int keep_object(zp_encoder *e, int *slot) {
  lua_State *L = e->L;
  if (lua_gettop(L) < KEPT_MAX && lua_checkstack(L, SLOTS)) {
    lua_insert(L, -2);
    *slot = lua_gettop(L) - 1;
    return 0;
  }
  if (e->scratch->kept >= INT32_MAX) return zp_fail(ZP_ENOMEM, "out of memory: %d objects in one value", INT32_MAX);
  lua_getiuservalue(L, e->home, 1);
  lua_insert(L, -2);
  lua_rawseti(L, -2, ++e->scratch->kept);
  lua_pop(L, 1);
  *slot = (int)-e->scratch->kept;
  return 0;
}

/* Take the key and value on top into the pairs; pops the value. */
static int collect_pair(zp_encoder *e) {
  zp_scratch *s = e->scratch;
  lua_State *L = e->L;
  int rc = 0;
  if (s->pair_count == s->pair_capacity && (rc = zp_scratch_grow_pairs(s)) != 0) return rc;
  zp_pair *pair = &s->pairs[s->pair_count];
  zp_order *order = &s->order[s->pair_count];
  read_item(L, -2, &pair->key);
  read_item(L, -1, &pair->value);
  *order = (zp_order){0, pair->key.kind, (uint32_t)s->pair_count};
  s->pair_count++;
  if (pair->value.kind == KIND_OBJECT) {
    rc = keep_object(e, &pair->value.slot);
  } else {
    lua_pop(L, 1);
  }
  switch (pair->key.kind) {
  case KIND_STRING:
    order->prefix = ordered_prefix(pair->key.as.string, pair->key.size);
    return rc;
  case KIND_INTEGER:
    order->prefix = (uint64_t)pair->key.as.integer ^ UINT64_C(1) << 63;
    return rc;
  case KIND_FLOAT:
    order->prefix = ordered_bits(pair->key.as.number);
    return rc;
  case KIND_OBJECT:
    if (!e->graph) return ENCODE_GRAPH;
    pair->key.as.string = NULL;
    pair->key.size = 0;
    if (rc) return rc;
    lua_pushvalue(L, -1);
    return keep_object(e, &pair->key.slot);
  default:
    return rc;
  }
}

/* Write the elements 1, 2, ... up to the first nil, e->elements of them, and collect the other pairs. Usually the
   elements are what lua_next gives first, in order; elements that live elsewhere in the table are fetched one by one.
   */
static int put_array(zp_encoder *e, int table) {
  lua_State *L = e->L;
  lua_Integer n = 0;
  bool in_order = true;
  int rc = 0;
  lua_pushnil(L);
  while (lua_next(L, table)) {
    bool integer = lua_isinteger(L, -2);
    if (in_order) {
      if (integer && lua_tointeger(L, -2) == n + 1) {
        n++;
        rc = zp_encode_value(e);
        if (rc) goto fail;
        lua_pop(L, 1);
        continue;
      }
      in_order = false;
      while (lua_rawgeti(L, table, n + 1) != LUA_TNIL) {
        n++;
        rc = zp_encode_value(e);
        if (rc) goto fail;
        lua_pop(L, 1);
      }
      lua_pop(L, 1);
    }
    if (integer) {
      lua_Integer key = lua_tointeger(L, -2);
      if (key >= 1 && key <= n) {
        lua_pop(L, 1);
        continue;
      }
    }
    rc = collect_pair(e);
    if (rc) return rc;
  }
  e->elements = n;
  return 0;
fail:
  if (rc == ZP_EENCODE) zp_path_add_index(&e->scratch->path, n);
  return rc;
}

/* The counts before the elements were written as `guess` and 0; put in what they really are. */
static __attribute__((noinline)) int correct_counts(zp_encoder *e, size_t head, size_t body, uint64_t elements,
                                                    uint64_t pairs) {
  zp_buf *buf = e->buf;
  size_t size = buf->size - body;
  int rc = zp_buf_reserve(buf, 20);
  if (rc) return rc;
  zp_buf counts = {buf->data + buf->size, 0, 20}; /* written behind the end, where there is room for them */
  zp_buf_append_varint(&counts, elements);
  zp_buf_append_varint(&counts, pairs);
  unsigned char bytes[20];
  memcpy(bytes, counts.data, counts.size);
  memmove(buf->data + head + counts.size, buf->data + body, size);
  memcpy(buf->data + head, bytes, counts.size);
  buf->size = head + counts.size + size;
  return 0;
}

static int encode_with_globals(zp_encoder *e, const zp_pair *pair);

/* Write a pair whose objects are kept by the encoder around this one. */
static int put_pair_alone(zp_encoder *e, const zp_pair *pair) {
  zp_item key = pair->key, value = pair->value;
  int home = e->home, rc;
  e->home = e->outer->home;
  push_kept(e, key.slot);
  if (value.kind == KIND_OBJECT) {
    push_kept(e, value.slot);
    lua_insert(e->L, -2);
  }
  e->home = home;
  rc = zp_encode_value(e);
  lua_pop(e->L, 1);
  if (rc) return rc;
  if (value.kind != KIND_OBJECT) return put_item(e, &value);
  rc = zp_encode_value(e);
  lua_pop(e->L, 1);
  return rc;
}

/* Graph mode: two or more pairs from `first` on have objects as keys. Give each the bytes that it has on its own, key
   and value, to sort by; they are anchored in a table that is left on the stack. Objects met before, the table itself
   among them, are references there too. A pair that cannot be encoded is left for the encoding proper to complain
   about; one that the budget does not cover comes in any order. */
static __attribute__((noinline)) int prepare_object_keys(zp_encoder *e, size_t first) {
  lua_State *L = e->L;
  if (e->nesting >= NESTING_MAX || e->budget == 0) return 0;
  luaL_checkstack(L, 2 * SLOTS, "codec");
  lua_newtable(L);
  int anchors = lua_gettop(L), rc = 0;
  zp_encoder sub = *e;
  sub.nesting++;
  sub.scratch = zp_scratch_new(L);
  sub.outer = e;
  sub.home = anchors + 1;
  sub.buf = &sub.scratch->bytes;
  for (size_t i = first; i < e->scratch->pair_count && rc == 0; i++) {
    zp_pair *pair = &e->scratch->pairs[i];
    if (pair->key.kind != KIND_OBJECT) continue;
    zp_scratch_begin(sub.scratch);
    sub.buf->size = 0;
    sub.count = 0;
    sub.depth = e->depth;
    sub.budget = e->budget;
    rc = encode_with_globals(&sub, pair);
    e->budget = sub.budget > sub.buf->size ? sub.budget - sub.buf->size : 0;
    lua_settop(L, anchors + 1);
    if (rc == ZP_EENCODE) {
      rc = 0;
      continue;
    }
    pair->key.as.string = lua_pushlstring(L, (const char *)sub.buf->data, sub.buf->size);
    pair->key.size = sub.buf->size;
    lua_rawseti(L, anchors, (lua_Integer)(i - first) + 1);
  }
  zp_buf_free(sub.buf);
  lua_settop(L, anchors);
  return rc;
}

static int sort_pairs(zp_encoder *e, size_t first) {
  zp_scratch *s = e->scratch;
  size_t objects = 0;
  if (e->graph) {
    for (size_t i = first; i < s->pair_count; i++) objects += s->order[i].kind == KIND_OBJECT;
    if (objects > 1) {
      int rc = prepare_object_keys(e, first);
      if (rc) return rc;
    }
  }
  zp_scratch_sort(s, first);
  return 0;
}

static int put_pairs(zp_encoder *e, size_t first) {
  zp_scratch *s = e->scratch;
  for (size_t i = first; i < s->pair_count; i++) { /* the arrays may move while a value is written */
    int rc = put_item(e, &s->pairs[s->order[i].pair].key);
    if (rc) {
      if (rc == ZP_EENCODE) zp_path_add_text(&s->path, "<key>");
      return rc;
    }
    rc = put_item(e, &s->pairs[s->order[i].pair].value);
    if (rc) {
      if (rc == ZP_EENCODE) zp_path_add_key(&s->path, e->L, &s->pairs[s->order[i].pair].key);
      return rc;
    }
  }
  return 0;
}

/* A type may say in its metatable that its objects do not travel, and what to do instead: __unsendable = "words". With the metatable on
   top of the stack. */
static int check_sendable(lua_State *L) {
  lua_pushliteral(L, "__unsendable");
  int rc = lua_rawget(L, -2) == LUA_TSTRING ? zp_fail(ZP_EENCODE, "cannot send %s", lua_tostring(L, -1)) : 0;
  lua_pop(L, 1);
  return rc;
}

/* Write the table on top of the stack, which has its number. */
static int put_table(zp_encoder *e) {
  lua_State *L = e->L;
  int rc = zp_encode_down(e), table = lua_gettop(L);
  if (rc) return rc;
  bool has_metatable = lua_getmetatable(L, table);
  if (has_metatable && !e->graph) return ENCODE_GRAPH;
  if (has_metatable && (rc = check_sendable(L)) != 0) return rc;
  lua_settop(L, table);

  lua_Integer guess = (lua_Integer)lua_rawlen(L, table);
  rc = zp_encoder_number(e, has_metatable ? TAG_META_TABLE : TAG_TABLE, (uint64_t)guess);
  if (rc) return rc;
  size_t guess_size = 1;
  for (uint64_t rest = (uint64_t)guess; rest >= 0x80; rest >>= 7) guess_size++;
  zp_encoder_byte(e, 0); /* zp_encoder_number made room for it */
  size_t body = e->buf->size, first = e->scratch->pair_count;

  rc = put_array(e, table);
  if (rc) return rc;
  lua_Integer elements = e->elements;
  size_t pairs = e->scratch->pair_count - first;
  if (elements == guess && pairs < 0x80) {
    e->buf->data[body - 1] = (unsigned char)pairs;
  } else if ((rc = correct_counts(e, body - 1 - guess_size, body, (uint64_t)elements, pairs)) != 0) {
    return rc;
  }
  if (pairs > 0) {
    if (pairs > 1 && (rc = sort_pairs(e, first)) != 0) return rc;
    rc = put_pairs(e, first);
    if (rc) return rc;
    e->scratch->pair_count = first;
    lua_settop(L, table);
  }

  if (has_metatable) {
    lua_getmetatable(L, table);
    rc = zp_encode_value(e);
    if (rc) {
      if (rc == ZP_EENCODE) zp_path_add_text(&e->scratch->path, "<metatable>");
      return rc;
    }
    lua_pop(L, 1);
  }
  e->depth--;
  return 0;
}

/* ---- objects ---- */

static bool meet_before(const zp_encoder *e, const void *object, uint32_t *number, int *level) {
  for (*level = 0; e; e = e->outer, ++*level) {
    if (zp_scratch_find(e->scratch, object, number)) return true;
  }
  return false;
}

static int put_reference(zp_encoder *e, uint32_t number, int level) {
  if (level == 0) e->references = true;
  return zp_encoder_number(e, (unsigned char)(level == 0 ? TAG_REFERENCE : TAG_OUTER_REFERENCE + level), number);
}

/* Write a reference and answer 1 if the object was met before; else 0, or ZP_ENOMEM. */
static __attribute__((noinline)) int put_if_met(zp_encoder *e, const void *object) {
  uint32_t number;
  int level;
  if (!meet_before(e, object, &number, &level)) return 0;
  int rc = put_reference(e, number, level);
  return rc ? rc : 1;
}

int zp_encode_reference(zp_encoder *e, const void *object) {
  int rc = put_if_met(e, object);
  if (rc) return rc;
  rc = zp_scratch_add(e->scratch, object, e->count);
  e->count++;
  return rc;
}

static __attribute__((noinline)) int fail_type(lua_State *L) {
  int type = lua_type(L, -1);
  switch (type) {
  case LUA_TFUNCTION:
    return zp_fail(ZP_EENCODE, "cannot send a C function");
  case LUA_TTHREAD:
    return zp_fail(ZP_EENCODE, "cannot send a coroutine");
  case LUA_TLIGHTUSERDATA:
    return zp_fail(ZP_EENCODE, "cannot send a light userdata");
  default:
    if (luaL_getmetafield(L, -1, "__unsendable") == LUA_TSTRING)
      return zp_fail(ZP_EENCODE, "cannot send %s", lua_tostring(L, -1));
    if (luaL_getmetafield(L, -1, "__name") == LUA_TSTRING)
      return zp_fail(ZP_EENCODE, "cannot send a userdata (%s)", lua_tostring(L, -1));
    return zp_fail(ZP_EENCODE, "cannot send a %s", lua_typename(L, type));
  }
}

static __attribute__((noinline)) int put_name(zp_encoder *e) {
  size_t size;
  const char *name = lua_tolstring(e->L, -1, &size);
  int rc = zp_encoder_number(e, TAG_NAME, size);
  return rc ? rc : zp_buf_append(e->buf, name, size);
}

/* Graph mode: an object travels as a reference, by name, or as what it is. */
static int put_graph_object(zp_encoder *e, const void *object, int type) {
  lua_State *L = e->L;
  bool light = type == LUA_TLIGHTUSERDATA; /* any number at all: not an address to tell objects by */
  int rc = light ? 0 : put_if_met(e, object);
  if (rc) return rc < 0 ? rc : 0;
  if (e->outer && e->buf->size > e->budget) return zp_fail(ZP_EENCODE, "too much for a key");
  if (!lua_checkstack(L, 2 * SLOTS)) return zp_fail(ZP_ENOMEM, "out of memory: the stack of Lua is full");
  bool named = zp_names_find(L, -1);
  if (!named && (type != LUA_TTABLE && (type != LUA_TFUNCTION || lua_iscfunction(L, -1)))) return fail_type(L);
  if (!light) rc = zp_scratch_add(e->scratch, object, e->count);
  if (rc) return rc;
  e->count++;
  if (named) {
    rc = put_name(e);
    lua_pop(L, 1);
    return rc;
  }
  return type == LUA_TTABLE ? put_table(e) : zp_encode_function(e);
}

static int put_object(zp_encoder *e, int type) {
  const void *object = lua_topointer(e->L, -1);
  if (e->graph) return put_graph_object(e, object, type);
  if (type != LUA_TTABLE || zp_scratch_is_marked(e->scratch, object)) return ENCODE_GRAPH;
  int rc = zp_encode_reference(e, object);
  if (rc) return rc < 0 ? rc : 0;
  return put_table(e);
}

int zp_encode_value(zp_encoder *e) {
  lua_State *L = e->L;
  int type = lua_type(L, -1);
  switch (type) {
  case LUA_TNIL:
    return put_tag(e, TAG_NIL);
  case LUA_TBOOLEAN:
    return put_tag(e, lua_toboolean(L, -1) ? TAG_TRUE : TAG_FALSE);
  case LUA_TNUMBER:
    return lua_isinteger(L, -1) ? put_integer(e, lua_tointeger(L, -1)) : put_float(e, lua_tonumber(L, -1));
  case LUA_TSTRING:
    return put_top_string(e);
  case LUA_TLIGHTUSERDATA:
    if (!lua_touserdata(L, -1)) return put_tag(e, TAG_NULL);
    /* fall through */
  default:
    return put_object(e, type);
  }
}

/* ---- the whole ---- */

int zp_environment_metatable(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &environment_key) != LUA_TNIL) return 1;
  lua_pop(L, 1);
  lua_createtable(L, 0, 2);
  lua_pushglobaltable(L);
  lua_setfield(L, -2, "__index");
  lua_pushglobaltable(L);
  lua_setfield(L, -2, "__newindex");
  lua_pushvalue(L, -1);
  zp_names_register(L, ENVIRONMENT_NAME);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &environment_key);
  return 1;
}

static void open_with(lua_State *L, void (*open_names)(lua_State *)) {
  luaL_checkstack(L, SLOTS, "codec");
  zp_closure_open(L);
  open_names(L);
  zp_environment_metatable(L);
  zp_scratch_push(L);
  lua_pop(L, 2);
}

void zp_codec_open(lua_State *L) { open_with(L, zp_names_open); }

void zp_codec_open_late(lua_State *L) { open_with(L, zp_names_open_late); }

/* Graph mode: write the value on top of the stack, or the key and value of a pair, and the globals that go with it. */
static int encode_with_globals(zp_encoder *e, const zp_pair *pair) {
  lua_State *L = e->L;
  int rc;
  e->queued = 0;
  lua_pushnil(L);
  e->queue = lua_gettop(L);
  lua_pushnil(L);
  e->queued_set = lua_gettop(L);
  if (pair) {
    rc = put_pair_alone(e, pair);
  } else {
    lua_pushvalue(L, -3);
    rc = zp_encode_value(e);
    lua_pop(L, 1);
  }
  return rc ? rc : zp_encode_globals(e);
}

/* Called under lua_pcall with the encoder, the scratch and the value; leaves its answer in the encoder. */
static int encode_graph(lua_State *L) {
  zp_encoder *e = lua_touserdata(L, 1);
  luaL_checkstack(L, 2 * SLOTS, "codec");
  zp_names_refresh(L);
  lua_pushglobaltable(L);
  e->globals = lua_topointer(L, -1);
  zp_environment_metatable(L);
  e->metatable = lua_topointer(L, -1);
  lua_settop(L, 3);
  zp_scratch_begin(e->scratch);
  e->home = 2;
  e->graph = true;
  e->references = false;
  e->count = 0;
  e->depth = 0;
  e->budget = ORDER_BUDGET;
  e->answer = encode_with_globals(e, NULL);
  if (e->answer == ZP_EENCODE) e->answer = zp_path_fail(&e->scratch->path, e->root);
  return 0;
}

/* Let the collector, put off until now, have its turn; finalisers must not change the sentence of a failure. */
static __attribute__((noinline)) void collect_after_failure(lua_State *L) {
  char detail[ZP_DETAIL_MAX];
  memcpy(detail, zp_error_detail(), sizeof detail);
  lua_gc(L, LUA_GCSTEP, GC_CREDIT);
  zp_fail(ZP_EENCODE, "%s", detail);
}

/* Begin again in graph mode, with the scratch at e->home and the value at `value`. What is taken from the collector's
   debt before is added again after: unlike stopping and restarting it, this keeps its pace. */
static int restart_as_graph(zp_encoder *e, int value) {
  lua_State *L = e->L;
  size_t start = e->buf->size;
  int home = e->home;
  bool running = lua_gc(L, LUA_GCISRUNNING) == 1;
  if (running) lua_gc(L, LUA_GCSTEP, -GC_CREDIT);
  lua_pushcfunction(L, encode_graph);
  lua_pushlightuserdata(L, e);
  lua_pushvalue(L, home);
  lua_pushvalue(L, value);
  int status = lua_pcall(L, 3, 0, 0);
  e->home = home;
  if (running && status == LUA_OK && e->answer == ZP_EENCODE) {
    collect_after_failure(L);
  } else if (running) {
    lua_gc(L, LUA_GCSTEP, GC_CREDIT);
  }
  if (status != LUA_OK) {
    e->buf->size = start;
    return lua_error(L);
  }
  return e->answer;
}

static int encode_object(zp_encoder *e, int idx, size_t start) {
  lua_State *L = e->L;
  int top = lua_gettop(L);
  idx = lua_absindex(L, idx);
  if (!lua_checkstack(L, 2 * SLOTS)) return zp_fail(ZP_ENOMEM, "out of memory: the stack of Lua is full");
  e->scratch = zp_scratch_push(L);
  e->home = top + 1;
  zp_scratch_begin(e->scratch);
  lua_pushvalue(L, idx);
  int rc = zp_encode_value(e);
  if (rc == ZP_EENCODE) rc = zp_path_fail(&e->scratch->path, e->root);
  if (rc == ENCODE_GRAPH) {
    e->buf->size = start + 1;
    lua_settop(L, top + 1);
    rc = restart_as_graph(e, idx);
  }
  lua_settop(L, top + 1);
  zp_scratch_end(L, top + 1, e->scratch);
  lua_settop(L, top);
  return rc;
}

int zp_value_encode(lua_State *L, int idx, const char *root, zp_buf *buf) {
  zp_encoder e = {.L = L, .buf = buf, .root = root};
  zp_item item;
  size_t start = buf->size;
  int rc = zp_buf_append_byte(buf, FORMAT_VERSION);
  if (rc) return rc;
  if (lua_type(L, idx) <= LUA_TNIL) {
    rc = put_tag(&e, TAG_NIL);
  } else {
    read_item(L, idx, &item);
    rc = item.kind == KIND_OBJECT ? encode_object(&e, idx, start) : put_item(&e, &item);
  }
  if (rc) {
    buf->size = start;
    return rc;
  }
  buf->data[start] =
      (unsigned char)(FORMAT_VERSION | (e.references ? FORMAT_REFERENCES : 0) | (e.queued > 0 ? FORMAT_GLOBALS : 0));
  return 0;
}
