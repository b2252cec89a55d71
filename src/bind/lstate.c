#include "bind/lstate.h"

#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "bind/core.h"
#include "bind/lerror.h"
#include "bind/lpairs.h"
#include "bind/lremote.h"
#include "codec/key.h"
#include "codec/value.h"

static const char handle_key;      /* in a State's metatable: its handle */
static const char methods_key;     /* in the registry: name -> method, or the number of a field */
static const char metamethods_key; /* in the registry: what every State's metatable holds */
static const char handle_meta_key; /* in the registry: the metatable of handles */
static const char raised_key;      /* in the registry: where what the last function that ran under a lock has raised comes from */

/* The States of this thread that hold a lock, the last first: nothing may fork meanwhile, the child would wait for itself. */
typedef struct lock_held {
  zp_lstate *state;
  lua_CFunction body; /* what runs meanwhile */
  const struct lock_held *outer;
} lock_held;

static _Thread_local const lock_held *locks_held;

/* ---- the handle ---- */

static zp_lstate *to_state(lua_State *L, int idx) {
  if (!lua_istable(L, idx) || !lua_getmetatable(L, idx)) return NULL;
  lua_rawgetp(L, -1, &handle_key);
  zp_lstate *state = lua_touserdata(L, -1);
  lua_pop(L, 2);
  return state;
}

void zp_lstate_push_handle(lua_State *L, int idx) {
  lua_getmetatable(L, idx);
  lua_rawgetp(L, -1, &handle_key);
  lua_remove(L, -2);
}

static void check_open(lua_State *L, const zp_lstate *state) {
  if (!state->store) zp_lua_usage(L, "this State is closed");
}

void zp_lstate_ready(lua_State *L, zp_lstate *state) {
  check_open(L, state);
  if (state->busy)
    zp_lua_usage(L, "the State is in use by an atomic function: within it, use the table that it was given");
  if (state->reading) zp_lstate_end(state);
}

bool zp_lstate_is(lua_State *L, int idx) { return to_state(L, idx) != NULL; }

zp_lstate *zp_lstate_check(lua_State *L, int idx) {
  zp_lstate *state = to_state(L, idx);
  if (!state)
    zp_lua_usage(L, "a State is expected as the first argument, not a %s (is it state:method(...), with a colon?)",
                 luaL_typename(L, idx));
  zp_lstate_ready(L, state);
  return state;
}

/* A State of this thread holds the lock: whatever this one wanted, it would wait for ever. */
int zp_lstate_raise(lua_State *L, int rc) {
  if (rc == ZP_EATOMIC)
    return zp_lua_usage(L, "an atomic function is running: within it, use the table that it was given, and no State");
  return zp_lua_raise(L, rc);
}

void zp_lstate_read(lua_State *L, zp_lstate *state) {
  int rc = zp_store_read_begin(state->store);
  if (rc) zp_lstate_raise(L, rc);
  state->reading = true;
}

void zp_lstate_end(zp_lstate *state) {
  if (state->reading) zp_store_read_end(state->store);
  state->reading = false;
}

static int handle_gc(lua_State *L) {
  zp_lstate *state = lua_touserdata(L, 1);
  if (state->store) zp_store_close(&state->store);
  zp_batch_free(&state->fill.own);
  zp_buf_free(&state->key);
  return 0;
}

bool zp_lstate_in_atomic(void) { return locks_held != NULL; }

bool zp_lstate_in_atomic_of(uint64_t identity) {
  for (const lock_held *held = locks_held; held; held = held->outer) {
    uint64_t own;
    if (zp_store_identity(held->state->store, &own) == 0 && own == identity) return true;
  }
  return false;
}

/* ---- values in and out ---- */

bool zp_lstate_push(lua_State *L, zp_lstate *state, zp_bytes key) {
  zp_bytes value;
  int rc = zp_store_get(state->store, key, &value);
  if (rc <= 0) {
    if (!state->busy) zp_lstate_end(state);
    if (rc < 0) zp_lstate_raise(L, rc);
    lua_pushnil(L);
    return false;
  }
  if (state->busy || zp_value_is_scalar(value)) {
    rc = zp_value_decode(L, value, ZP_DECODE_CODE);
    if (!state->busy) zp_lstate_end(state);
  } else {
    lua_pushlstring(L, value.data, value.size);
    zp_lstate_end(state);
    size_t size;
    const char *copy = lua_tolstring(L, -1, &size);
    rc = zp_value_decode(L, (zp_bytes){copy, size}, ZP_DECODE_CODE);
    if (!rc) lua_remove(L, -2);
  }
  if (rc) zp_lstate_raise(L, rc);
  return true;
}

static zp_bytes encode_key(lua_State *L, zp_lstate *state, int idx) {
  int rc = zp_key_encode(L, idx, &state->key);
  if (rc) zp_lua_raise(L, rc);
  return (zp_bytes){state->key.data, state->key.size};
}

static void add_change(lua_State *L, zp_lstate *state, zp_batch *batch, int key, int value) {
  int rc = zp_batch_add(batch, L, key, value);
  if (!rc) return;
  zp_lpairs_filled(&state->fill, batch);
  zp_lua_raise(L, rc);
}

void zp_lstate_commit(lua_State *L, zp_lstate *state, zp_batch *batch) {
  const zp_change *changes = zp_batch_changes(batch);
  uint64_t revision = 0;
  int rc = changes ? zp_store_commit(state->store, changes, zp_batch_count(batch), &revision, NULL) : ZP_ENOMEM;
  zp_batch_clear(batch);
  zp_lpairs_filled(&state->fill, batch);
  if (rc) zp_lstate_raise(L, rc);
  /* Nothing lies between the cursor and this change, which is none to this handle: a handle that only writes never falls
     behind what is kept. */
  if (revision == state->cursor.revision + 1) state->cursor.revision = revision;
}

void zp_lstate_end_limit(zp_lstate *state) {
  if (state->is_limited) zp_limit_end(&state->before);
  state->is_limited = false;
}

static void release_last(void) {
  zp_lstate *state = locks_held->state;
  locks_held = locks_held->outer;
  zp_lstate_end_limit(state);
  zp_lstate_end(state);
  zp_store_unlock(state->store);
  state->busy = false;
  state->snapshot = NULL;
}

/* core.abandon_atomic(): whatever atomic functions run in this thread, they change nothing, and their States can be used and closed. For who
   ends the process from within one: it must not return to them. */
static int core_abandon_atomic(lua_State *L) {
  (void)L;
  while (locks_held) release_last();
  return 0;
}

/* The calls between where something was raised and the body of the lock, the innermost first. Most errors are caught, and refusing by raising
   is ordinary: so they are only noted, and become words when somebody wants these. The user value is a table with what was raised
   at 0, and the functions. */
typedef struct frame {
  char source[LUA_IDSIZE];
  int line, line_defined;
  const char *name, *name_kind, *what; /* constants of functions that the table has, or of Lua */
  bool is_tail_call;
} frame;

enum { FRAMES = 22 }; /* more than that are left out, from the outside */

typedef struct raised {
  int count;
  bool is_cut;
  frame frames[FRAMES];
} raised;

/* Push the note of this VM, and its table. */
static raised *push_note(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &raised_key) != LUA_TUSERDATA) {
    lua_pop(L, 1);
    raised *note = lua_newuserdatauv(L, sizeof *note, 1);
    note->count = 0;
    lua_createtable(L, FRAMES, 1);
    lua_setiuservalue(L, -2, 1);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &raised_key);
  }
  lua_getiuservalue(L, -1, 1);
  return lua_touserdata(L, -2);
}

/* A message handler: what was raised goes on as it is, from this side of the lock, so note the place as long as it can be seen. */
static int note_raised(lua_State *L) {
  lua_settop(L, 1);
  raised *note = push_note(L);
  lua_Debug ar;
  lua_pushvalue(L, 1);
  lua_rawseti(L, 3, 0);
  note->count = 0;
  note->is_cut = false;
  for (int level = 1; lua_getstack(L, level, &ar); level++) {
    if (note->count == FRAMES) {
      note->is_cut = true;
      break;
    }
    lua_getinfo(L, "Slntf", &ar);
    if (locks_held && lua_tocfunction(L, -1) == locks_held->body) break;
    frame *one = &note->frames[note->count++];
    *one = (frame){.line = ar.currentline, .line_defined = ar.linedefined, .name = ar.name, .name_kind = ar.namewhat, .what = ar.what,
                   .is_tail_call = ar.istailcall};
    memcpy(one->source, ar.short_src, sizeof one->source);
    lua_rawseti(L, 3, note->count);
  }
  lua_settop(L, 1);
  return 1;
}

/* core.take_raised() -> what a function that ran as one step has raised last, and a list of the calls from there to that function, with
   what lua_getinfo says of each; nothing if there was none since the last call. */
static int core_take_raised(lua_State *L) {
  lua_settop(L, 0);
  raised *note = push_note(L);
  if (lua_rawgeti(L, 2, 0) == LUA_TNIL) return 0;
  lua_createtable(L, note->count, 0);
  for (int i = 0; i < note->count; i++) {
    const frame *one = &note->frames[i];
    lua_createtable(L, 0, 8);
    lua_rawgeti(L, 2, i + 1);
    lua_setfield(L, -2, "func");
    lua_pushstring(L, one->source);
    lua_setfield(L, -2, "short_src");
    lua_pushinteger(L, one->line);
    lua_setfield(L, -2, "currentline");
    lua_pushinteger(L, one->line_defined);
    lua_setfield(L, -2, "linedefined");
    lua_pushstring(L, one->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, one->name_kind);
    lua_setfield(L, -2, "namewhat");
    lua_pushstring(L, one->what);
    lua_setfield(L, -2, "what");
    lua_pushboolean(L, one->is_tail_call);
    lua_setfield(L, -2, "istailcall");
    lua_rawseti(L, 4, i + 1);
  }
  lua_pushboolean(L, note->is_cut);
  lua_setfield(L, 4, "is_cut");
  for (int i = 0; i <= note->count; i++) { /* nothing is kept alive by it */
    lua_pushnil(L);
    lua_rawseti(L, 2, i);
  }
  note->count = 0;
  return 2;
}

static _Thread_local bool has_waited_in_vain; /* the last function that was to run as one step has not begun */

/* core.set_lock_timeout(state, seconds or nil): how long its changes wait for others from now on. False: it is on another machine, and they wait
   as long as it takes. */
static int core_set_lock_timeout(lua_State *L) {
  if (zp_lremote_is(L, 1)) {
    lua_pushboolean(L, 0);
    return 1;
  }
  zp_lstate *state = zp_lstate_check(L, 1);
  has_waited_in_vain = false;
  zp_store_set_lock_deadline(state->store, lua_isnoneornil(L, 2) ? ZP_FOREVER : zp_clock_now() + luaL_checknumber(L, 2));
  lua_pushboolean(L, 1);
  return 1;
}

/* core.has_waited_in_vain(): whether the lock was not had in time, since core.set_lock_timeout. */
static int core_has_waited_in_vain(lua_State *L) {
  lua_pushboolean(L, has_waited_in_vain);
  return 1;
}

int zp_lstate_locked(lua_State *L, zp_lstate *state, lua_CFunction body) {
  luaL_checkstack(L, 3, NULL);
  lua_pushcfunction(L, note_raised);
  lua_insert(L, 1);
  lua_pushcfunction(L, body);
  lua_insert(L, 2);
  int rc = zp_store_lock(state->store);
  if (rc == ZP_ETIMEOUT) has_waited_in_vain = true;
  if (rc) return zp_lstate_raise(L, rc);
  const lock_held held = {state, body, locks_held};
  locks_held = &held;
  rc = zp_store_read_begin(state->store);
  state->reading = !rc;
  state->busy = true;
  int status = rc ? LUA_OK : lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 1);
  release_last();
  if (rc) zp_lstate_raise(L, rc);
  if (status != LUA_OK) lua_error(L);
  return lua_gettop(L) - 1;
}

/* The handle, within a body that zp_lstate_locked called with the State as its first argument. */
static zp_lstate *locked_state(lua_State *L) { return to_state(L, 1); }

/* ---- metamethods ---- */

static int state_index(lua_State *L) {
  zp_lstate *state = lua_touserdata(L, lua_upvalueindex(1));
  if (lua_type(L, 2) == LUA_TSTRING) {
    lua_pushvalue(L, 2);
    switch (lua_rawget(L, lua_upvalueindex(2))) {
      case LUA_TNIL: break;
      case LUA_TNUMBER:
        if (lua_tointeger(L, -1) == ZP_FIELD_ADDRESS) {
          lua_getiuservalue(L, lua_upvalueindex(1), ZP_UV_LINK);
          lua_getfield(L, -1, "server_address");
          return 1;
        }
        zp_lstate_ready(L, state);
        lua_pushstring(L, zp_store_namespace(state->store));
        return 1;
      default: return 1;
    }
  }
  zp_lstate_ready(L, state);
  zp_bytes key = encode_key(L, state, 2);
  zp_lstate_read(L, state);
  zp_lstate_push(L, state, key);
  return 1;
}

static int state_newindex(lua_State *L) {
  zp_lstate *state = lua_touserdata(L, lua_upvalueindex(1));
  zp_lstate_ready(L, state);
  if (lua_type(L, 2) == LUA_TSTRING) {
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL)
      return zp_lstate_refuse_method(L, lua_tostring(L, 2));
    lua_settop(L, 3);
  }
  zp_batch *batch = zp_lpairs_fill(L, &state->fill);
  add_change(L, state, batch, 2, lua_isnil(L, 3) ? 0 : 3);
  zp_lstate_commit(L, state, batch);
  return 0;
}

static int state_len(lua_State *L) {
  zp_lstate *state = zp_lstate_check(L, 1);
  uint64_t count = 0;
  zp_lstate_read(L, state);
  int rc = zp_store_count(state->store, &count);
  zp_lstate_end(state);
  if (rc) zp_lstate_raise(L, rc);
  lua_pushinteger(L, (lua_Integer)count);
  return 1;
}

static int state_pairs(lua_State *L) {
  return zp_lpairs_iterate(L, zp_lpairs_newest(L, zp_lstate_check(L, 1)));
}

static int state_close(lua_State *L) {
  zp_lstate *state = to_state(L, 1);
  if (!state)
    return zp_lua_usage(L, "a State is expected as the first argument, not a %s (is it state:close(), with a colon?)", luaL_typename(L, 1));
  if (state->busy) zp_lstate_ready(L, state);
  if (state->store) zp_store_close(&state->store);
  state->reading = false;
  return 0;
}

/* ---- methods ---- */

static int state_get(lua_State *L) {
  zp_lua_refuse_surplus(L, 2, "state:get");
  zp_lstate *state = zp_lstate_check(L, 1);
  lua_settop(L, 3);
  zp_bytes key = encode_key(L, state, 2);
  zp_lstate_read(L, state);
  if (!zp_lstate_push(L, state, key)) lua_pushvalue(L, 3);
  return 1;
}

static int state_contains(lua_State *L) {
  zp_lua_refuse_surplus(L, 1, "state:contains");
  zp_lstate *state = zp_lstate_check(L, 1);
  luaL_checkany(L, 2);
  zp_bytes key = encode_key(L, state, 2), value;
  zp_lstate_read(L, state);
  int rc = zp_store_get(state->store, key, &value);
  zp_lstate_end(state);
  if (rc < 0) zp_lstate_raise(L, rc);
  lua_pushboolean(L, rc);
  return 1;
}

void zp_lstate_accept(lua_State *L, int idx, const char *call) {
  if (to_state(L, idx) || zp_lremote_is(L, idx)) {
    lua_getfield(L, idx, "copy");
    lua_pushvalue(L, idx);
    lua_call(L, 1, 1);
    lua_replace(L, idx);
  } else if (!lua_istable(L, idx)) {
    zp_lua_usage(L, "state:%s takes a table of keys and values, not a %s", call, luaL_typename(L, idx));
  }
}

static void add_table(lua_State *L, zp_lstate *state, zp_batch *batch, int idx) {
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    int top = lua_gettop(L);
    add_change(L, state, batch, top - 1, top);
  }
}

static int state_update(lua_State *L) {
  zp_lstate *state = zp_lstate_check(L, 1);
  zp_lstate_accept(L, 2, "update");
  zp_lua_refuse_surplus(L, 1, "state:update");
  zp_batch *batch = zp_lpairs_fill(L, &state->fill);
  add_table(L, state, batch, 2);
  zp_lstate_commit(L, state, batch);
  return 0;
}

/* Under the lock: delete every key, then what the batch `more` holds; of two changes of one key the later counts. */
static void replace_all(lua_State *L, zp_lstate *state, zp_batch *more) {
  zp_batch *all = zp_lpairs_push(L);
  zp_lpairs_collect(L, state, all);
  const zp_change *pairs = zp_lpairs_all(L, all);
  size_t count = zp_batch_count(all);
  zp_batch *batch = zp_lpairs_fill(L, &state->fill);
  int rc = 0;
  for (size_t i = 0; i < count && !rc; i++) rc = zp_batch_add_bytes(batch, pairs[i].key, NULL);
  if (more) {
    pairs = zp_lpairs_all(L, more);
    count = zp_batch_count(more);
    for (size_t i = 0; i < count && !rc; i++) rc = zp_batch_add_bytes(batch, pairs[i].key, &pairs[i].value);
  }
  if (rc) zp_lpairs_filled(&state->fill, batch);
  if (rc) zp_lua_raise(L, rc);
  zp_lstate_commit(L, state, batch);
}

static int clear_body(lua_State *L) {
  replace_all(L, locked_state(L), NULL);
  return 0;
}

static int state_clear(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:clear");
  zp_lstate *state = zp_lstate_check(L, 1);
  lua_settop(L, 1);
  return zp_lstate_locked(L, state, clear_body);
}

static int set_body(lua_State *L) {
  replace_all(L, locked_state(L), lua_touserdata(L, 2));
  return 0;
}

static int state_set(lua_State *L) {
  zp_lstate *state = zp_lstate_check(L, 1);
  zp_lstate_accept(L, 2, "set");
  zp_lua_refuse_surplus(L, 1, "state:set");
  /* Encode before the lock is taken, into pairs that the stack keeps. */
  zp_batch *fresh = zp_lpairs_push(L);
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
    int top = lua_gettop(L);
    int rc = zp_batch_add(fresh, L, top - 1, top);
    if (rc) zp_lua_raise(L, rc);
  }
  lua_remove(L, 2);
  lua_settop(L, 2);
  return zp_lstate_locked(L, state, set_body);
}

/* Call the body with what was filled, and with the key of the argument 2. From here on nobody else can use the handle. */
static int locked_with_key(lua_State *L, zp_lstate *state, lua_CFunction body) {
  encode_key(L, state, 2);
  zp_lpairs_filled(&state->fill, state->filled);
  return zp_lstate_locked(L, state, body);
}

static int setdefault_body(lua_State *L) {
  zp_lstate *state = locked_state(L);
  if (zp_lstate_push(L, state, (zp_bytes){state->key.data, state->key.size})) return 1;
  zp_lstate_commit(L, state, state->filled);
  lua_pushvalue(L, 3);
  return 1;
}

static int state_setdefault(lua_State *L) {
  zp_lua_refuse_surplus(L, 2, "state:setdefault");
  zp_lstate *state = zp_lstate_check(L, 1);
  lua_settop(L, 3);
  if (lua_isnil(L, 3)) return zp_lua_usage(L, "state:setdefault(key, value) needs a value");
  state->filled = zp_lpairs_fill(L, &state->fill);
  add_change(L, state, state->filled, 2, 3);
  return locked_with_key(L, state, setdefault_body);
}

static int pop_body(lua_State *L) {
  zp_lstate *state = locked_state(L);
  /* Decoded first: a value that cannot be decoded here must not be lost. */
  if (!zp_lstate_push(L, state, (zp_bytes){state->key.data, state->key.size})) {
    lua_pushvalue(L, 3);
    return 1;
  }
  zp_lstate_commit(L, state, state->filled);
  return 1;
}

static int state_pop(lua_State *L) {
  zp_lua_refuse_surplus(L, 2, "state:pop");
  zp_lstate *state = zp_lstate_check(L, 1);
  lua_settop(L, 3);
  state->filled = zp_lpairs_fill(L, &state->fill);
  add_change(L, state, state->filled, 2, 0);
  return locked_with_key(L, state, pop_body);
}

static int popitem_body(lua_State *L) {
  zp_lstate *state = locked_state(L);
  zp_batch *batch = zp_lpairs_push(L);
  zp_bytes key, value;
  int rc = zp_store_last(state->store, &key, &value);
  if (rc == 0) return 0;
  if (rc == 1) rc = zp_batch_add_bytes(batch, key, NULL);
  if (!rc) rc = zp_key_decode(L, key);
  if (!rc) rc = zp_value_decode(L, value, ZP_DECODE_CODE);
  if (rc) zp_lua_raise(L, rc);
  zp_lstate_commit(L, state, batch);
  return 2;
}

static int state_popitem(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:popitem");
  zp_lstate *state = zp_lstate_check(L, 1);
  lua_settop(L, 1);
  return zp_lstate_locked(L, state, popitem_body);
}

static int state_copy(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:copy");
  zp_lpairs_push_table(L, zp_lpairs_newest(L, zp_lstate_check(L, 1)));
  return 1;
}

void zp_lstate_push_at(lua_State *L, zp_lstate *state, uint64_t revision) {
  zp_batch *all = zp_lpairs_push(L);
  int rc = zp_store_read_begin_at(state->store, revision);
  if (rc) zp_lstate_raise(L, rc);
  state->reading = true;
  zp_lpairs_collect(L, state, all);
  zp_lpairs_push_table(L, all);
  lua_remove(L, -2); /* the pairs */
}

static int state_at(lua_State *L) {
  zp_lua_refuse_surplus(L, 1, "state:at");
  zp_lstate *state = zp_lstate_check(L, 1);
  if (!lua_isinteger(L, 2) || lua_tointeger(L, 2) < 0)
    return zp_lua_usage(L, "state:at(revision) takes a revision number, an integer of at least 0");
  zp_lstate_push_at(L, state, (uint64_t)lua_tointeger(L, 2));
  return 1;
}

static int state_revision(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:revision");
  zp_lstate *state = zp_lstate_check(L, 1);
  zp_lstate_read(L, state);
  uint64_t revision = zp_store_read_revision(state->store);
  zp_lstate_end(state);
  lua_pushinteger(L, (lua_Integer)revision);
  return 1;
}

static int state_keys(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:keys");
  return zp_lpairs_push_list(L, zp_lpairs_newest(L, zp_lstate_check(L, 1)), true, false);
}

static int state_values(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:values");
  return zp_lpairs_push_list(L, zp_lpairs_newest(L, zp_lstate_check(L, 1)), false, true);
}

static int state_items(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:items");
  return zp_lpairs_push_list(L, zp_lpairs_newest(L, zp_lstate_check(L, 1)), true, true);
}


/* ---- making States ---- */

void zp_lstate_finish_table(lua_State *L, const void *key, lua_CFunction index, lua_CFunction newindex, const luaL_Reg *more) {
  lua_pushvalue(L, -1);
  lua_rawsetp(L, -3, key);
  lua_pushvalue(L, -1);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &methods_key);
  lua_pushcclosure(L, index, 2);
  lua_setfield(L, -3, "__index");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &methods_key);
  lua_pushcclosure(L, newindex, 2);
  lua_setfield(L, -2, "__newindex");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &metamethods_key);
  for (lua_pushnil(L); lua_next(L, -2);) {
    lua_pushvalue(L, -2);
    lua_insert(L, -2);
    lua_rawset(L, -5);
  }
  lua_pop(L, 1);
  if (more) luaL_setfuncs(L, more, 0);
  lua_setmetatable(L, -2);
}

int zp_lstate_refuse_method(lua_State *L, const char *name) {
  return zp_lua_usage(L, "'%s' is a method or field of State: to set a key of that name, use "
                         "state:update({%s = ...}), and state:get(\"%s\") to read it",
                      name, name, name);
}

/* core.state(directory, namespace, link) -> State, with its cursor at the newest revision. Raises ServerLost if there is no store. */
static int core_state(lua_State *L) {
  const char *directory = luaL_checkstring(L, 1), *name = luaL_checkstring(L, 2);
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 3);
  lua_newtable(L);
  lua_newtable(L);
  zp_lstate *state = lua_newuserdatauv(L, sizeof *state, ZP_UV_COUNT);
  *state = (zp_lstate){0};
  lua_rawgetp(L, LUA_REGISTRYINDEX, &handle_meta_key);
  lua_setmetatable(L, -2);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, -2, ZP_UV_LINK);
  int rc = zp_store_open(directory, name, &state->store);
  if (!rc) rc = zp_watch_go_live(state->store, &state->cursor);
  if (rc) return zp_lstate_raise(L, rc);

  zp_lstate_finish_table(L, &handle_key, state_index, state_newindex, NULL);
  return 1;
}

/* core.state_check(state): open its files now; raises ServerLost if there are none. */
static int core_state_check(lua_State *L) {
  if (zp_lremote_is(L, 1)) return 0; /* its server has answered when it was made */
  zp_lstate *state = zp_lstate_check(L, 1);
  int rc = zp_store_check(state->store);
  if (rc) zp_lstate_raise(L, rc);
  return 0;
}

/* core.is_state(value) -> boolean */
static int core_is_state(lua_State *L) {
  lua_pushboolean(L, to_state(L, 1) != NULL || zp_lremote_is(L, 1));
  return 1;
}

/* core.act_as(state, author, revision): what is changed through it is somebody else's, whose cursor is there. */
static int core_act_as(lua_State *L) {
  zp_lstate *state = zp_lstate_check(L, 1);
  zp_store_set_author(state->store, (uint64_t)luaL_checkinteger(L, 2));
  state->cursor.revision = (uint64_t)luaL_checkinteger(L, 3);
  return 0;
}

/* core.link_of(state) -> the Link that it was made with. Raises if it is closed. */
static int core_link_of(lua_State *L) {
  if (zp_lremote_is(L, 1)) {
    zp_lremote_check(L, 1);
    zp_lremote_push_link(L, 1);
    return 1;
  }
  const zp_lstate *state = to_state(L, 1);
  if (!state) return zp_lua_usage(L, "a State is expected, not a %s", luaL_typename(L, 1));
  check_open(L, state);
  zp_lstate_push_handle(L, 1);
  lua_getiuservalue(L, -1, ZP_UV_LINK);
  return 1;
}

static const zp_watch_cursor *cursor_of(lua_State *L) {
  return zp_lremote_is(L, 1) ? &zp_lremote_check(L, 1)->cursor : &zp_lstate_check(L, 1)->cursor;
}

/* core.cursor(state) -> the revision after which watchers look. */
static int core_cursor(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)cursor_of(L)->revision);
  return 1;
}

/* core.looked(state) -> the revision up to which the last watcher has looked. */
static int core_looked(lua_State *L) {
  const zp_watch_cursor *cursor = cursor_of(L);
  uint64_t looked = cursor->subjects[0].looked;
  lua_pushinteger(L, (lua_Integer)(looked > cursor->revision ? looked : cursor->revision));
  return 1;
}

static const luaL_Reg methods[] = {
    {"get", state_get},         {"set", state_set},           {"update", state_update}, {"setdefault", state_setdefault},
    {"pop", state_pop},         {"popitem", state_popitem},   {"clear", state_clear},   {"copy", state_copy},
    {"keys", state_keys},       {"values", state_values},     {"items", state_items},   {"contains", state_contains},
    {"close", state_close},     {"revision", state_revision}, {"at", state_at},         {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__len", state_len}, {"__pairs", state_pairs}, {"__close", state_close}, {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"state", core_state},
    {"state_check", core_state_check},
    {"is_state", core_is_state},
    {"act_as", core_act_as},
    {"cursor", core_cursor},
    {"looked", core_looked},
    {"link_of", core_link_of},
    {"atomic", zp_lstate_atomic},
    {"abandon_atomic", core_abandon_atomic},
    {"set_lock_timeout", core_set_lock_timeout},
    {"has_waited_in_vain", core_has_waited_in_vain},
    {"take_raised", core_take_raised},
    {NULL, NULL},
};

static void register_gc(lua_State *L, const void *key, lua_CFunction gc) {
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, gc);
  lua_setfield(L, -2, "__gc");
  lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

void zp_lstate_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  register_gc(L, &handle_meta_key, handle_gc);
  zp_lpairs_open(L);

  luaL_newlib(L, methods);
  lua_pushinteger(L, ZP_FIELD_NAMESPACE);
  lua_setfield(L, -2, "namespace");
  lua_pushinteger(L, ZP_FIELD_ADDRESS);
  lua_setfield(L, -2, "server_address");
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &methods_key);
  lua_setfield(L, -2, "state_methods");

  luaL_newlib(L, metamethods);
  lua_pushliteral(L, "State");
  lua_setfield(L, -2, "__name");
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &metamethods_key);
  lua_setfield(L, -2, "state_metamethods");
}
