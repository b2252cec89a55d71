/*
 * latomic -- functions that run as one indivisible step: zproc.atomic.
 *
 * The function runs as the only writer of the store, on a table that stands for the state: empty, its metamethods read
 * through to the store and keep what is written aside. Three tables meet in it:
 *   the store   what was committed, read on demand; the cost is that of the keys that are touched
 *   loaded      tables and functions that were read: they may be changed at any depth, so they are compared at the end
 *   written     what was assigned, or the mark `deleted`; it goes before the others
 * When the function returns, `written` and what changed of `loaded` become one commit. When it raises, they are dropped; when
 * the process dies, nothing was ever in the store.
 */
#include <string.h>

#include <lauxlib.h>

#include "bind/lerror.h"
#include "bind/lremote.h"
#include "bind/lstate.h"
#include "codec/key.h"
#include "codec/value.h"

_Static_assert(LUA_IDSIZE == ZP_HOLDER_SOURCE, "a source as Lua writes it");

static const char deleted; /* its address as a light userdata marks a deleted key in `written` */

static bool is_deleted(lua_State *L, int idx) { return lua_touserdata(L, idx) == &deleted; }

/* The handle (upvalue 1 of the snapshot's metamethods), if the table at index 1 is the snapshot of the function that runs. */
static zp_lstate *running(lua_State *L) {
  zp_lstate *state = lua_touserdata(L, lua_upvalueindex(1));
  if (!state->snapshot || lua_topointer(L, 1) != state->snapshot)
    zp_lua_usage(L, "the snapshot of an atomic function is used after that function has returned: return the values that are needed, "
                 "or a copy of it");
  return state;
}

/* Push user value n of the handle, a table, made at its first use in this call. */
static void push_side_table(lua_State *L, int n, bool *has) {
  if (!*has) {
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, lua_upvalueindex(1), n);
    *has = true;
  } else {
    lua_getiuservalue(L, lua_upvalueindex(1), n);
  }
}

/* Push what a key (at stack index `key`) holds now; returns whether it is there. */
static bool push_current(lua_State *L, zp_lstate *state, int key) {
  if (state->has_written) {
    lua_getiuservalue(L, lua_upvalueindex(1), ZP_UV_WRITTEN);
    lua_pushvalue(L, key);
    lua_rawget(L, -2);
    lua_remove(L, -2);
    if (is_deleted(L, -1)) {
      lua_pop(L, 1);
      lua_pushnil(L);
      return false;
    }
    if (!lua_isnil(L, -1)) return true;
    lua_pop(L, 1);
  }
  if (state->has_loaded) {
    lua_getiuservalue(L, lua_upvalueindex(1), ZP_UV_LOADED);
    lua_pushvalue(L, key);
    lua_rawget(L, -2);
    lua_remove(L, -2);
    if (!lua_isnil(L, -1)) return true;
    lua_pop(L, 1);
  }
  int rc = zp_key_encode(L, key, &state->key);
  if (rc) zp_lua_raise(L, rc);
  if (!zp_lstate_push(L, state, (zp_bytes){state->key.data, state->key.size})) return false;
  if (lua_type(L, -1) == LUA_TTABLE || lua_type(L, -1) == LUA_TFUNCTION) {
    push_side_table(L, ZP_UV_LOADED, &state->has_loaded);
    lua_pushvalue(L, key);
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 1);
  }
  return true;
}

static int snapshot_index(lua_State *L) {
  zp_lstate *state = running(L);
  lua_settop(L, 2);
  push_current(L, state, 2);
  return 1;
}

static int snapshot_newindex(lua_State *L) {
  zp_lstate *state = running(L);
  lua_settop(L, 3);
  /* A key that cannot be one is an error here and now, at the line that used it. */
  int rc = zp_key_encode(L, 2, &state->key);
  if (rc) return zp_lua_raise(L, rc);
  push_side_table(L, ZP_UV_WRITTEN, &state->has_written);
  lua_pushvalue(L, 2);
  if (lua_isnil(L, 3))
    lua_pushlightuserdata(L, (void *)&deleted);
  else
    lua_pushvalue(L, 3);
  lua_rawset(L, -3);
  return 0;
}

/* Whether the store has the key at stack index `key`. */
static bool in_store(lua_State *L, zp_lstate *state, int key) {
  zp_bytes value;
  int rc = zp_key_encode(L, key, &state->key);
  if (!rc) rc = zp_store_get(state->store, (zp_bytes){state->key.data, state->key.size}, &value);
  if (rc < 0) zp_lua_raise(L, rc);
  return rc;
}

static int snapshot_len(lua_State *L) {
  zp_lstate *state = running(L);
  uint64_t count;
  int rc = zp_store_count(state->store, &count);
  if (rc) return zp_lua_raise(L, rc);
  if (state->has_written) {
    lua_getiuservalue(L, lua_upvalueindex(1), ZP_UV_WRITTEN);
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
      bool before = in_store(L, state, lua_gettop(L) - 1), after = !is_deleted(L, -1);
      count += after - before;
    }
  }
  lua_pushinteger(L, (lua_Integer)count);
  return 1;
}

/* The iterator of pairs(snapshot); upvalues: the handle, the keys, how many were given. Its first argument is the snapshot. */
static int snapshot_next(lua_State *L) {
  zp_lstate *state = running(L);
  lua_settop(L, 1);
  for (lua_Integer i = lua_tointeger(L, lua_upvalueindex(3)) + 1;; i++) {
    if (lua_rawgeti(L, lua_upvalueindex(2), i) == LUA_TNIL) return 0;
    if (push_current(L, state, 2)) {
      lua_pushinteger(L, i);
      lua_replace(L, lua_upvalueindex(3));
      return 2;
    }
    lua_settop(L, 1); /* deleted since the walk began */
  }
}

static int snapshot_pairs(lua_State *L) {
  zp_lstate *state = running(L);
  lua_settop(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_newtable(L);
  lua_Integer count = 0;
  zp_bytes key, value;
  int rc;
  for (rc = zp_store_first(state->store, &key, &value); rc == 1; rc = zp_store_next(state->store, &key, &value)) {
    int bad = zp_key_decode(L, key);
    if (bad) return zp_lua_raise(L, bad);
    lua_rawseti(L, 3, ++count);
  }
  if (rc < 0) return zp_lua_raise(L, rc);
  if (state->has_written) {
    lua_getiuservalue(L, lua_upvalueindex(1), ZP_UV_WRITTEN);
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
      if (is_deleted(L, -1) || in_store(L, state, lua_gettop(L) - 1)) continue;
      lua_pushvalue(L, -2);
      lua_rawseti(L, 3, ++count);
    }
    lua_pop(L, 1);
  }
  lua_pushinteger(L, 0);
  lua_pushcclosure(L, snapshot_next, 3);
  lua_pushvalue(L, 1);
  return 2;
}

static const luaL_Reg snapshot_metamethods[] = {
    {"__index", snapshot_index},
    {"__newindex", snapshot_newindex},
    {"__len", snapshot_len},
    {"__pairs", snapshot_pairs},
    {NULL, NULL},
};

/* Push a fresh snapshot table for the handle at stack index `handle`. */
static void push_snapshot(lua_State *L, zp_lstate *state, int handle) {
  lua_newtable(L);
  if (lua_getiuservalue(L, handle, ZP_UV_SNAPSHOT_META) != LUA_TTABLE) {
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, handle);
    luaL_setfuncs(L, snapshot_metamethods, 1);
    lua_pushliteral(L, "snapshot");
    lua_setfield(L, -2, "__name");
    lua_pushliteral(L, "the snapshot of an atomic function, which ends with that: copy what is needed into a table");
    lua_setfield(L, -2, "__unsendable");
    lua_pushliteral(L, "snapshot");
    lua_setfield(L, -2, "__metatable"); /* another one would bypass this one */
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, handle, ZP_UV_SNAPSHOT_META);
  }
  lua_setmetatable(L, -2);
  state->snapshot = lua_topointer(L, -1);
  state->has_loaded = state->has_written = false;
}

/* Turn user value n of the handle into changes. Of what was loaded only that which differs from the store. */
static void add_side_table(lua_State *L, zp_lstate *state, zp_batch *batch, int handle, int n) {
  lua_getiuservalue(L, handle, n);
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    int top = lua_gettop(L);
    int rc = zp_batch_add(batch, L, top - 1, is_deleted(L, top) ? 0 : top);
    if (rc) zp_lpairs_filled(&state->fill, batch);
    if (rc) zp_lua_raise(L, rc);
    if (n == ZP_UV_LOADED) {
      zp_bytes before, after = zp_batch_last_value(batch);
      const zp_buf *key = &batch->key;
      rc = zp_store_get(state->store, (zp_bytes){key->data, key->size}, &before);
      if (rc < 0) zp_lua_raise(L, rc);
      if (rc == 1 && before.size == after.size && memcmp(before.data, after.data, after.size) == 0)
        zp_batch_drop_last(batch);
    }
  }
  lua_pop(L, 1);
}

/* What bypasses the snapshot's metamethods lands in the table itself, which is to stay empty: it would be lost. */
static void check_untouched(lua_State *L, int snapshot) {
  lua_pushnil(L);
  if (!lua_next(L, snapshot)) return;
  const char *key = luaL_tolstring(L, -2, NULL);
  zp_lua_usage(L, "the atomic function has written the key '%s' past the snapshot's metatable, as rawset does: assign it, as in "
                  "snapshot.key = value; nothing has changed", key);
}

/* The time counts from here: others that had the lock before are not the function's fault. */
static void begin_limit(lua_State *L, zp_lstate *state) {
  int rc = zp_limit_begin(state->limit, &state->before);
  if (rc) zp_lua_raise(L, rc);
  state->is_limited = true;
}

/* Arguments: the handle, the snapshot, the function, the snapshot again, further arguments. */
static int atomic_body(lua_State *L) {
  zp_lstate *state = lua_touserdata(L, 1);
  if (state->limit > 0) begin_limit(L, state);
  lua_call(L, lua_gettop(L) - 3, LUA_MULTRET);
  if (zp_limit_is_over()) return zp_lua_raise_limit(L); /* in C code, which nothing interrupts */
  zp_lstate_end_limit(state);
  int results = lua_gettop(L) - 2;
  check_untouched(L, 2);
  if (state->has_loaded || state->has_written) {
    zp_batch *batch = zp_lpairs_fill(L, &state->fill);
    if (state->has_loaded) add_side_table(L, state, batch, 1, ZP_UV_LOADED);
    if (state->has_written) add_side_table(L, state, batch, 1, ZP_UV_WRITTEN);
    zp_lpairs_filled(&state->fill, batch);
    /* An assignment is an update even if it leaves all as it was; reading is none. */
    if (state->has_written || zp_batch_count(batch) > 0) zp_lstate_commit(L, state, batch);
    lua_settop(L, results + 2);
  }
  return results;
}

int zp_lstate_atomic(lua_State *L) {
  if (zp_lremote_is(L, 1)) return zp_lremote_atomic(L);
  if (!zp_lstate_is(L, 1))
    return zp_lua_usage(L, "an atomic function is called with a State as its first argument, as in increment(state, ...), not with %s%s; "
                        "within another one, call the plain function that it was made of", lua_isnoneornil(L, 1) ? "" : "a ",
                        luaL_typename(L, 1));
  zp_lstate *state = zp_lstate_check(L, 1);
  state->limit = luaL_optnumber(L, 2, 0);
  lua_remove(L, 2);
  if (lua_type(L, 2) != LUA_TFUNCTION)
    return zp_lua_usage(L, "an atomic operation needs a function, not a %s", luaL_typename(L, 2));
  luaL_checkstack(L, 8, NULL);
  zp_lstate_push_handle(L, 1);
  lua_replace(L, 1);
  push_snapshot(L, state, 1);
  lua_pushvalue(L, -1);
  lua_insert(L, 3);
  lua_insert(L, 2);
  lua_Debug ar;
  lua_pushvalue(L, 3);
  lua_getinfo(L, ">S", &ar);
  zp_store_set_place(state->store, ar.short_src, ar.linedefined > 0 ? (unsigned)ar.linedefined : 0);
  return zp_lstate_locked(L, state, atomic_body);
}
