#include "bind/lpairs.h"

#include <lauxlib.h>

#include "base/err.h"
#include "bind/lerror.h"
#include "bind/lstate.h"
#include "codec/key.h"
#include "codec/value.h"

static const char meta_key; /* in the registry: the metatable of pairs */

static int pairs_gc(lua_State *L) {
  zp_batch_free(lua_touserdata(L, 1));
  return 0;
}

zp_batch *zp_lpairs_push(lua_State *L) {
  zp_batch *all = lua_newuserdatauv(L, sizeof *all, 0);
  *all = (zp_batch){0};
  lua_rawgetp(L, LUA_REGISTRYINDEX, &meta_key);
  lua_setmetatable(L, -2);
  return all;
}

void zp_lpairs_collect(lua_State *L, zp_lstate *state, zp_batch *all) {
  zp_bytes key, value;
  int rc = zp_store_first(state->store, &key, &value);
  while (rc == 1) {
    rc = zp_batch_add_bytes(all, key, &value);
    if (rc == 0) rc = zp_store_next(state->store, &key, &value);
  }
  if (!state->busy) zp_lstate_end(state);
  if (rc < 0) zp_lstate_raise(L, rc);
}

zp_batch *zp_lpairs_newest(lua_State *L, zp_lstate *state) {
  zp_batch *all = zp_lpairs_push(L);
  zp_lstate_read(L, state);
  zp_lpairs_collect(L, state, all);
  return all;
}

void zp_lpairs_push_key(lua_State *L, const zp_change *pair) {
  int rc = zp_key_decode(L, pair->key);
  if (rc) zp_lua_raise(L, rc);
}

void zp_lpairs_push_value(lua_State *L, const zp_change *pair) {
  int rc = zp_value_decode(L, pair->value, ZP_DECODE_CODE);
  if (rc) zp_lua_raise(L, rc);
}

const zp_change *zp_lpairs_all(lua_State *L, zp_batch *all) {
  const zp_change *pairs = zp_batch_changes(all);
  if (!pairs) zp_lua_raise(L, ZP_ENOMEM);
  return pairs;
}

void zp_lpairs_push_table(lua_State *L, zp_batch *all) {
  const zp_change *pairs = zp_lpairs_all(L, all);
  size_t count = zp_batch_count(all);
  lua_createtable(L, 0, count < 1 << 20 ? (int)count : 1 << 20);
  for (size_t i = 0; i < count; i++) {
    zp_lpairs_push_key(L, &pairs[i]);
    zp_lpairs_push_value(L, &pairs[i]);
    lua_rawset(L, -3);
  }
}

/* The iterator; upvalues: the pairs, how many were given. */
static int next_pair(lua_State *L) {
  zp_batch *all = lua_touserdata(L, lua_upvalueindex(1));
  size_t i = (size_t)lua_tointeger(L, lua_upvalueindex(2));
  if (i >= zp_batch_count(all)) return 0;
  const zp_change *pair = (const zp_change *)all->changes.data + i;
  lua_pushinteger(L, (lua_Integer)i + 1);
  lua_replace(L, lua_upvalueindex(2));
  zp_lpairs_push_key(L, pair);
  zp_lpairs_push_value(L, pair);
  return 2;
}

int zp_lpairs_iterate(lua_State *L, zp_batch *all) {
  zp_lpairs_all(L, all);
  lua_pushinteger(L, 0);
  lua_pushcclosure(L, next_pair, 2);
  return 1;
}

int zp_lpairs_push_changes(lua_State *L, zp_batch *changes) {
  const zp_change *all = zp_lpairs_all(L, changes);
  size_t count = zp_batch_count(changes);
  lua_newtable(L);
  lua_newtable(L);
  for (size_t i = 0; i < count; i++) {
    zp_lpairs_push_key(L, &all[i]);
    if (all[i].value.data) {
      lua_pushvalue(L, -1);
      zp_lpairs_push_value(L, &all[i]);
      lua_rawset(L, -4);
    }
    lua_rawseti(L, -3, (lua_Integer)i + 1);
  }
  return 2;
}

int zp_lpairs_push_list(lua_State *L, zp_batch *all, bool keys, bool values) {
  const zp_change *pairs = zp_lpairs_all(L, all);
  size_t count = zp_batch_count(all);
  lua_createtable(L, count < 1 << 20 ? (int)count : 1 << 20, 0);
  for (size_t i = 0; i < count; i++) {
    if (keys && values) lua_createtable(L, 2, 0);
    if (keys) zp_lpairs_push_key(L, &pairs[i]);
    if (keys && values) lua_rawseti(L, -2, 1);
    if (values) zp_lpairs_push_value(L, &pairs[i]);
    if (keys && values) lua_rawseti(L, -2, 2);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

zp_batch *zp_lpairs_fill(lua_State *L, zp_lfill *fill) {
  luaL_checkstack(L, 8, NULL);
  if (fill->is_filling) return zp_lpairs_push(L);
  lua_pushnil(L);
  fill->is_filling = true;
  zp_batch_clear(&fill->own);
  return &fill->own;
}

void zp_lpairs_filled(zp_lfill *fill, const zp_batch *batch) {
  if (batch == &fill->own) fill->is_filling = false;
}

void zp_lpairs_open(lua_State *L) {
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, pairs_gc);
  lua_setfield(L, -2, "__gc");
  lua_rawsetp(L, LUA_REGISTRYINDEX, &meta_key);
}
