#include "bind/lremote.h"

#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/random.h"
#include "bind/core.h"
#include "bind/lclass.h"
#include "bind/lerror.h"
#include "bind/lnet.h"
#include "bind/lpairs.h"
#include "bind/lstate.h"
#include "codec/key.h"
#include "codec/value.h"

static const char handle_key;  /* in a State's metatable: its handle */
static const char methods_key; /* in the registry: those of these States; the others are those of all States */
static const char atomic_key;  /* in the registry: the function that does an atomic step */

#define HANDLE "zproc.RemoteState"

enum { UV_LINK = 1, UV_CONNECTION, UV_COUNT = UV_CONNECTION };

/* ---- the handle ---- */

static zp_lremote *to_state(lua_State *L, int idx) {
  if (!lua_istable(L, idx) || !lua_getmetatable(L, idx)) return NULL;
  lua_rawgetp(L, -1, &handle_key);
  zp_lremote *state = lua_touserdata(L, -1);
  lua_pop(L, 2);
  return state;
}

bool zp_lremote_is(lua_State *L, int idx) { return to_state(L, idx) != NULL; }

static void check_open(lua_State *L, const zp_lremote *state) {
  if (!state->remote) zp_lua_usage(L, "this State is closed");
}

zp_lremote *zp_lremote_check(lua_State *L, int idx) {
  zp_lremote *state = to_state(L, idx);
  if (!state)
    zp_lua_usage(L, "a State is expected as the first argument, not a %s (is it state:method(...), with a colon?)",
                 luaL_typename(L, idx));
  check_open(L, state);
  return state;
}

static int handle_gc(lua_State *L) {
  zp_lremote *state = lua_touserdata(L, 1);
  state->remote = NULL; /* it may go next, and finalisers of older objects come after that */
  zp_buf_free(&state->name);
  zp_buf_free(&state->key);
  zp_batch_free(&state->fill.own);
  return 0;
}

/* The number that marks this State's changes: the client's, which a child has anew, with what was drawn for the State. */
static uint64_t author_of(zp_lremote *state) {
  uint64_t client;
  memcpy(&client, zp_remote_client(state->remote), sizeof client);
  if (state->number == 0) state->number = zp_random_number();
  uint64_t author = client ^ state->number;
  return author ? author : 1;
}

void zp_lremote_push_link(lua_State *L, int idx) {
  lua_getmetatable(L, idx);
  lua_rawgetp(L, -1, &handle_key);
  lua_getiuservalue(L, -1, UV_LINK);
  lua_replace(L, -3);
  lua_pop(L, 1);
}

/* ---- requests ---- */

static zp_bytes name_of(const zp_lremote *state) { return zp_buf_bytes(&state->name); }

/* An atomic function of this thread may hold the very state: then its server would wait for that, and that for the server. */
static void check_free(lua_State *L, const zp_lremote *state) {
  if (zp_lstate_in_atomic_of(state->identity)) zp_lstate_raise(L, ZP_EATOMIC);
}

static const zp_parcel *call(lua_State *L, zp_lremote *state, int type, const zp_parcel *request) {
  check_free(L, state);
  return zp_lnet_call(L, state->remote, state->identity, type, request, ZP_FOREVER);
}

static zp_bytes encode_key(lua_State *L, zp_lremote *state, int idx) {
  int rc = zp_key_encode(L, idx, &state->key);
  if (rc) zp_lua_raise(L, rc);
  return zp_buf_bytes(&state->key);
}

static void add_change(lua_State *L, zp_lremote *state, zp_batch *batch, int key, int value) {
  int rc = zp_batch_add(batch, L, key, value);
  if (!rc) return;
  zp_lpairs_filled(&state->fill, batch);
  zp_lua_raise(L, rc);
}

static void push_value(lua_State *L, zp_bytes bytes) {
  int rc = zp_value_decode(L, bytes, ZP_DECODE_CODE);
  if (rc) zp_lua_raise(L, rc);
}

/* Nothing lies between the cursor and this change, which is none to this handle. */
static void note_own(zp_lremote *state, uint64_t revision) {
  if (revision == state->cursor.revision + 1) state->cursor.revision = revision;
}

/* With what zp_lnet_prepare has pushed on top of the stack: send the batch, which was filled since: as a commit, or in place of all that
   there is. */
static void send_batch(lua_State *L, zp_lremote *state, zp_batch *batch, int type) {
  zp_change *changes = zp_batch_changes(batch);
  size_t count = zp_batch_count(batch);
  zp_lpairs_filled(&state->fill, batch);
  int rc = changes ? zp_changes_sort(changes, &count) : ZP_ENOMEM;
  if (rc) zp_lua_raise(L, rc);
  zp_parcel request = {.number_count = 1, .numbers = {author_of(state)}, ZP_STRINGS(name_of(state)), .pairs = changes, .pair_count = count};
  const zp_parcel *answer = call(L, state, type, &request);
  note_own(state, answer->numbers[0]);
  lua_pop(L, 1);
}

/* Push the value of a key, or nil, and return whether it is there. */
static bool push_key(lua_State *L, zp_lremote *state, int idx) {
  zp_lnet_prepare(L);
  zp_bytes key = encode_key(L, state, idx);
  const zp_parcel *answer = call(L, state, ZP_REQUEST_GET, &(zp_parcel){ZP_STRINGS(name_of(state), key)});
  bool found = answer->numbers[0];
  if (found) push_value(L, answer->strings[0]);
  else lua_pushnil(L);
  lua_remove(L, -2);
  return found;
}

/* Push the pairs `first` to `end` of an answer, as lpairs has them. */
static zp_batch *push_pairs(lua_State *L, const zp_parcel *answer, size_t first, size_t end) {
  zp_batch *all = zp_lpairs_push(L);
  for (size_t i = first; i < end && i < answer->pair_count; i++) {
    const zp_change *pair = &answer->pairs[i];
    int rc = zp_batch_add_bytes(all, pair->key, pair->value.data ? &pair->value : NULL);
    if (rc) zp_lua_raise(L, rc);
  }
  return all;
}

/* Push all pairs of the newest revision, or of one of the past. */
static zp_batch *push_all(lua_State *L, zp_lremote *state, bool is_past, uint64_t revision) {
  zp_lnet_prepare(L);
  zp_parcel request = {.number_count = 2, .numbers = {is_past, revision}, ZP_STRINGS(name_of(state))};
  const zp_parcel *answer = call(L, state, ZP_REQUEST_ALL, &request);
  zp_batch *all = push_pairs(L, answer, 0, answer->pair_count);
  lua_remove(L, -2);
  return all;
}

zp_batch *zp_lremote_push_newest(lua_State *L, zp_lremote *state) { return push_all(L, state, false, 0); }

static zp_batch *push_newest(lua_State *L) { return zp_lremote_push_newest(L, zp_lremote_check(L, 1)); }

/* ---- metamethods ---- */

static int remote_index(lua_State *L) {
  zp_lremote *state = lua_touserdata(L, lua_upvalueindex(1));
  if (lua_type(L, 2) == LUA_TSTRING) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &methods_key);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, -2) != LUA_TNIL) return 1;
    lua_pushvalue(L, 2);
    switch (lua_rawget(L, lua_upvalueindex(2))) {
      case LUA_TNIL: break;
      case LUA_TNUMBER:
        if (lua_tointeger(L, -1) == ZP_FIELD_ADDRESS) {
          lua_getiuservalue(L, lua_upvalueindex(1), UV_LINK);
          lua_getfield(L, -1, "server_address");
        } else {
          check_open(L, state);
          lua_pushlstring(L, (const char *)state->name.data, state->name.size);
        }
        return 1;
      default: return 1;
    }
  }
  check_open(L, state);
  push_key(L, state, 2);
  return 1;
}

static int remote_newindex(lua_State *L) {
  zp_lremote *state = lua_touserdata(L, lua_upvalueindex(1));
  check_open(L, state);
  if (lua_type(L, 2) == LUA_TSTRING) {
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL) return zp_lstate_refuse_method(L, lua_tostring(L, 2));
    lua_settop(L, 3);
  }
  zp_batch *batch = zp_lpairs_fill(L, &state->fill);
  zp_lnet_prepare(L);
  add_change(L, state, batch, 2, lua_isnil(L, 3) ? 0 : 3);
  send_batch(L, state, batch, ZP_REQUEST_COMMIT);
  return 0;
}

static int remote_len(lua_State *L) {
  zp_lremote *state = zp_lremote_check(L, 1);
  zp_lnet_prepare(L);
  const zp_parcel *answer = call(L, state, ZP_REQUEST_COUNT, &(zp_parcel){ZP_STRINGS(name_of(state))});
  lua_pushinteger(L, (lua_Integer)answer->numbers[0]);
  return 1;
}

static int remote_pairs(lua_State *L) { return zp_lpairs_iterate(L, push_newest(L)); }

static int remote_close(lua_State *L) {
  zp_lremote *state = to_state(L, 1);
  if (!state) return zp_lua_usage(L, "a State is expected, not a %s", luaL_typename(L, 1));
  state->remote = NULL;
  return 0;
}

/* ---- methods ---- */

static int remote_get(lua_State *L) {
  zp_lua_refuse_surplus(L, 2, "state:get");
  zp_lremote *state = zp_lremote_check(L, 1);
  lua_settop(L, 3);
  if (!push_key(L, state, 2)) lua_pushvalue(L, 3);
  return 1;
}

static int remote_contains(lua_State *L) {
  zp_lua_refuse_surplus(L, 1, "state:contains");
  zp_lremote *state = zp_lremote_check(L, 1);
  luaL_checkany(L, 2);
  zp_lnet_prepare(L);
  zp_bytes key = encode_key(L, state, 2);
  const zp_parcel *answer = call(L, state, ZP_REQUEST_GET, &(zp_parcel){ZP_STRINGS(name_of(state), key)});
  lua_pushboolean(L, answer->numbers[0] != 0);
  return 1;
}

/* Fill a batch with the table at index 2, after zp_lnet_prepare. */
static zp_batch *load_table(lua_State *L, zp_lremote *state, const char *name, const char *call) {
  zp_lstate_accept(L, 2, name);
  zp_lua_refuse_surplus(L, 1, call);
  zp_batch *batch = zp_lpairs_fill(L, &state->fill);
  zp_lnet_prepare(L);
  for (lua_pushnil(L); lua_next(L, 2); lua_pop(L, 1)) {
    int top = lua_gettop(L);
    add_change(L, state, batch, top - 1, top);
  }
  return batch;
}

static int remote_update(lua_State *L) {
  zp_lremote *state = zp_lremote_check(L, 1);
  send_batch(L, state, load_table(L, state, "update", "state:update"), ZP_REQUEST_COMMIT);
  return 0;
}

static int remote_set(lua_State *L) {
  zp_lremote *state = zp_lremote_check(L, 1);
  send_batch(L, state, load_table(L, state, "set", "state:set"), ZP_REQUEST_REPLACE);
  return 0;
}

static int remote_clear(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:clear");
  zp_lremote *state = zp_lremote_check(L, 1);
  zp_batch *batch = zp_lpairs_fill(L, &state->fill);
  zp_lnet_prepare(L);
  send_batch(L, state, batch, ZP_REQUEST_REPLACE);
  return 0;
}

static int remote_setdefault(lua_State *L) {
  zp_lua_refuse_surplus(L, 2, "state:setdefault");
  zp_lremote *state = zp_lremote_check(L, 1);
  lua_settop(L, 3);
  if (lua_isnil(L, 3)) return zp_lua_usage(L, "state:setdefault(key, value) needs a value");
  zp_batch *batch = zp_lpairs_fill(L, &state->fill);
  zp_lnet_prepare(L);
  add_change(L, state, batch, 2, 3);
  const zp_change *change = zp_batch_changes(batch);
  zp_lpairs_filled(&state->fill, batch);
  if (!change) return zp_lua_raise(L, ZP_ENOMEM);
  zp_parcel request = {.number_count = 1, .numbers = {author_of(state)}, ZP_STRINGS(name_of(state), change->key, change->value)};
  const zp_parcel *answer = call(L, state, ZP_REQUEST_SETDEFAULT, &request);
  if (answer->numbers[0]) {
    push_value(L, answer->strings[0]);
  } else {
    note_own(state, answer->numbers[1]);
    lua_pushvalue(L, 3);
  }
  return 1;
}

/* Remove the pair of the key at index 2, or the last one, and push its value, or key and value. Returns how many; 0 if there is none. The server
   removes what cannot be decoded here only once it was: until then the answers are that it is there still. */
static int pop(lua_State *L, zp_lremote *state, bool is_last) {
  int base = lua_gettop(L), count = is_last ? 2 : 1;
  zp_bytes key = {NULL, 0}, read = {NULL, 0};
  for (;;) {
    zp_lnet_prepare(L);
    check_open(L, state); /* decoding may have run any code, which may also have used the key's memory */
    if (!is_last) key = encode_key(L, state, 2);
    zp_parcel request = {.number_count = 1, .numbers = {author_of(state)}, ZP_STRINGS(name_of(state), key, read)};
    const zp_parcel *answer = call(L, state, is_last ? ZP_REQUEST_POPITEM : ZP_REQUEST_POP, &request);
    if (!answer->numbers[0]) return 0;
    bool is_gone = answer->numbers[1] != 0;
    zp_bytes value = answer->strings[count - 1];
    if (is_gone) note_own(state, answer->numbers[1]);
    if (is_gone && !zp_value_is_scalar(value)) { /* it is what was read, below this answer */
      lua_pop(L, 1);
      return count;
    }
    int rc = is_last ? zp_key_decode(L, answer->strings[0]) : 0;
    if (rc) return zp_lua_raise(L, rc);
    push_value(L, value);
    if (is_gone) return count;
    lua_rotate(L, base + 1, count + 1); /* the answer and what was read, in place of those before */
    lua_settop(L, base + 1 + count);
    key = is_last ? answer->strings[0] : key;
    read = value;
  }
}

static int remote_pop(lua_State *L) {
  zp_lua_refuse_surplus(L, 2, "state:pop");
  zp_lremote *state = zp_lremote_check(L, 1);
  lua_settop(L, 3);
  if (pop(L, state, false) == 0) lua_pushvalue(L, 3);
  return 1;
}

static int remote_popitem(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:popitem");
  return pop(L, zp_lremote_check(L, 1), true);
}

static int remote_copy(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:copy");
  zp_lpairs_push_table(L, push_newest(L));
  return 1;
}

static int remote_keys(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:keys");
  return zp_lpairs_push_list(L, push_newest(L), true, false);
}

static int remote_values(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:values");
  return zp_lpairs_push_list(L, push_newest(L), false, true);
}

static int remote_items(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:items");
  return zp_lpairs_push_list(L, push_newest(L), true, true);
}


static int remote_at(lua_State *L) {
  zp_lua_refuse_surplus(L, 1, "state:at");
  zp_lremote *state = zp_lremote_check(L, 1);
  if (!lua_isinteger(L, 2) || lua_tointeger(L, 2) < 0)
    return zp_lua_usage(L, "state:at(revision) takes a revision number, an integer of at least 0");
  zp_lpairs_push_table(L, push_all(L, state, true, (uint64_t)lua_tointeger(L, 2)));
  return 1;
}

static int remote_revision(lua_State *L) {
  zp_lua_refuse_surplus(L, 0, "state:revision");
  uint64_t oldest = 0, newest = 0;
  zp_lremote_range(L, &oldest, &newest);
  lua_pushinteger(L, (lua_Integer)newest);
  return 1;
}

/* ---- watching, atomic functions ---- */

void zp_lremote_range(lua_State *L, uint64_t *oldest, uint64_t *newest) {
  zp_lremote *state = zp_lremote_check(L, 1);
  zp_lnet_prepare(L);
  const zp_parcel *answer = call(L, state, ZP_REQUEST_RANGE, &(zp_parcel){ZP_STRINGS(name_of(state))});
  *oldest = answer->numbers[0];
  *newest = answer->numbers[1];
  lua_pop(L, 1);
}

int zp_lremote_go_live(lua_State *L, bool anew) {
  zp_lremote *state = zp_lremote_check(L, 1);
  uint64_t oldest = 0, newest = 0;
  zp_lremote_range(L, &oldest, &newest);
  if (anew) state->cursor = (zp_watch_cursor){.revision = 0};
  state->cursor.revision = newest;
  return 0;
}

/* What core.watch gives for an answer. */
static int push_match(lua_State *L, const zp_parcel *answer, uint64_t kind, uint64_t flags) {
  if (flags & ZP_WATCH_CHANGES) return zp_lpairs_push_changes(L, push_pairs(L, answer, 0, answer->pair_count));
  if (kind != ZP_WATCH_UPDATE) {
    zp_lpairs_push_table(L, push_pairs(L, answer, 0, answer->pair_count));
    return 1;
  }
  size_t before = (size_t)answer->numbers[3];
  zp_batch *pairs = push_pairs(L, answer, 0, before);
  zp_lpairs_push_table(L, pairs);
  pairs = push_pairs(L, answer, before, answer->pair_count);
  zp_lpairs_push_table(L, pairs);
  lua_remove(L, -2);
  lua_pushboolean(L, answer->numbers[2] != 0);
  return 3;
}

int zp_lremote_await(lua_State *L, zp_lremote *state, const zp_lremote_watch *watch) {
  static const double LATE = 1; /* seconds that the answer may come after its time */
  check_free(L, state);
  double seconds = watch->deadline - zp_clock_now();
  zp_parcel request = {
      .number_count = 7,
      .numbers = {author_of(state), watch->kind, watch->id, watch->flags, zp_parcel_of_double(seconds),
                  zp_parcel_of_double(watch->limits.seconds), watch->limits.bytes},
      ZP_STRINGS(name_of(state), {&state->cursor, sizeof state->cursor}, watch->subject),
      .pairs = watch->pairs,
      .pair_count = watch->pair_count,
  };
  const zp_parcel *answer =
      zp_lnet_call_late(L, state->remote, state->identity, ZP_REQUEST_WATCH, &request, watch->deadline, LATE);
  if (!answer) return 0; /* out of reach; the cursor stays where it is */
  zp_watch_cursor cursor = state->cursor;
  if (answer->strings[0].size == sizeof cursor) memcpy(&cursor, answer->strings[0].data, sizeof cursor);
  int results = answer->numbers[0] ? push_match(L, answer, watch->kind, watch->flags) : 0;
  state->cursor = cursor; /* only now: what cannot be decoded here was not consumed */
  return results;
}

int zp_lremote_atomic(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &atomic_key);
  lua_insert(L, 1);
  lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
  return lua_gettop(L);
}

/* core.set_remote_atomic(function): what core.atomic calls for these States. */
static int core_set_remote_atomic(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &atomic_key);
  return 0;
}

/* core.send_atomic(state, call) -> outcome: have the server run an atomic function, both as zproc.remote has them. */
static int core_send_atomic(lua_State *L) {
  zp_lremote *state = zp_lremote_check(L, 1);
  zp_lnet_prepare(L);
  zp_parcel request = {.number_count = 2, .numbers = {author_of(state), state->cursor.revision},
                       ZP_STRINGS(name_of(state), zp_lnet_bytes(L, 2))};
  const zp_parcel *answer = call(L, state, ZP_REQUEST_ATOMIC, &request);
  state->cursor.revision = answer->numbers[0];
  lua_pushlstring(L, answer->strings[0].data, answer->strings[0].size);
  return 1;
}

/* ---- making States ---- */

static const luaL_Reg metamethods[] = {
    {"__len", remote_len}, {"__pairs", remote_pairs}, {"__close", remote_close}, {NULL, NULL},
};

/* core.remote_state(connection, namespace, link) -> State, with its cursor at the newest revision. */
static int core_remote_state(lua_State *L) {
  zp_remote *remote = zp_lnet_check(L, 1);
  zp_bytes name = zp_lnet_bytes(L, 2);
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_settop(L, 3);
  lua_newtable(L);
  lua_newtable(L);
  zp_lremote *state = lua_newuserdatauv(L, sizeof *state, UV_COUNT);
  *state = (zp_lremote){.remote = remote};
  if (lua_getfield(L, 3, "identity") == LUA_TNUMBER) state->identity = (uint64_t)lua_tointeger(L, -1);
  lua_pop(L, 1);
  luaL_setmetatable(L, HANDLE);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, -2, UV_LINK);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, UV_CONNECTION);
  int rc = zp_buf_append(&state->name, name.data, name.size);
  if (rc) return zp_lua_raise(L, rc);
  zp_lnet_prepare(L);
  const zp_parcel *answer = call(L, state, ZP_REQUEST_RANGE, &(zp_parcel){ZP_STRINGS(name_of(state))});
  state->cursor.revision = answer->numbers[1];
  lua_pop(L, 1);
  zp_lstate_finish_table(L, &handle_key, remote_index, remote_newindex, metamethods);
  return 1;
}

static const luaL_Reg methods[] = {
    {"get", remote_get},       {"set", remote_set},           {"update", remote_update}, {"setdefault", remote_setdefault},
    {"pop", remote_pop},       {"popitem", remote_popitem},   {"clear", remote_clear},   {"copy", remote_copy},
    {"keys", remote_keys},     {"values", remote_values},     {"items", remote_items},   {"contains", remote_contains},
    {"close", remote_close},   {"revision", remote_revision}, {"at", remote_at},         {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"remote_state", core_remote_state},
    {"set_remote_atomic", core_set_remote_atomic},
    {"send_atomic", core_send_atomic},
    {NULL, NULL},
};

void zp_lremote_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  luaL_newlib(L, methods);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &methods_key);
  zp_lclass_new(L, HANDLE, NULL, handle_gc);
}
