/*
 * lwatch -- watchers for Lua: core.watch waits, and gives the snapshot of the revision that matched.
 *
 * Conditions on a key are tested on bytes; a predicate runs in a VM of its own (vm.h), made at the first use and kept. What a wait
 * holds is owned by a userdata, since a signal may raise an error in the middle of it.
 */
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "bind/core.h"
#include "bind/lclass.h"
#include "bind/lerror.h"
#include "bind/lnet.h"
#include "bind/lremote.h"
#include "bind/lsignal.h"
#include "bind/lstate.h"
#include "codec/key.h"
#include "codec/value.h"
#include "sys/bell.h"
#include "vm/vm.h"
#include "watch/condition.h"
#include "watch/watch.h"

static const char vm_key; /* in the registry: the VM of predicates */

#define WATCHER "zproc.Watcher"
#define BOOKMARK "zproc.Bookmark"

/* What one wait holds. */
typedef struct watcher {
  zp_watch *watch;
  zp_predicate *predicate;
  zp_buf bytes; /* of keys, values and functions */
  zp_condition condition;
} watcher;

static int watcher_gc(lua_State *L) {
  watcher *self = lua_touserdata(L, 1);
  zp_watch_close(&self->watch);
  zp_predicate_close(&self->predicate);
  zp_buf_free(&self->bytes);
  return 0;
}

static int vm_gc(lua_State *L) {
  zp_vm_close(lua_touserdata(L, 1));
  return 0;
}

static zp_vm *get_vm(lua_State *L) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &vm_key) == LUA_TUSERDATA) {
    zp_vm *vm = *(zp_vm **)lua_touserdata(L, -1);
    lua_pop(L, 1);
    return vm;
  }
  lua_pop(L, 1);
  zp_vm **vm = lua_newuserdatauv(L, sizeof *vm, 0);
  *vm = NULL;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, vm_gc);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  int rc = zp_vm_open(vm);
  if (rc) zp_lua_raise(L, rc);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &vm_key);
  return *vm;
}

/* Push a watcher that the stack owns. Closing a predicate takes the VM that it is of. At the end of the program, objects are finalised in
   the reverse order in which they got their finalisers; so the VM has its own before the watcher. */
static watcher *push_watcher(lua_State *L, bool needs_vm) {
  if (needs_vm) get_vm(L);
  watcher *self = lua_newuserdatauv(L, sizeof *self, 0);
  *self = (watcher){0};
  luaL_setmetatable(L, WATCHER);
  return self;
}

static void encode_predicate(lua_State *L, watcher *self, int function) {
  self->bytes.size = 0;
  int rc = zp_value_encode(L, function, "the predicate", &self->bytes);
  if (rc) zp_lua_raise(L, rc);
}

/* The option budget of the table at `options`; what it leaves out is 0. */
static zp_vm_limits budget_of(lua_State *L, int options) {
  zp_vm_limits limits = {0};
  if (lua_getfield(L, options, "budget") == LUA_TTABLE) {
    lua_getfield(L, -1, "seconds");
    lua_getfield(L, -2, "bytes");
    limits.seconds = lua_tonumber(L, -2);
    limits.bytes = (size_t)lua_tointeger(L, -1);
    lua_pop(L, 2);
  }
  lua_pop(L, 1);
  return limits;
}

static void load_predicate(lua_State *L, watcher *self, int function, int options) {
  encode_predicate(L, self, function);
  zp_vm_limits limits = budget_of(L, options);
  int rc = zp_predicate_load(get_vm(L), zp_buf_bytes(&self->bytes), &limits, &self->predicate);
  if (rc) zp_lua_raise(L, rc == ZP_EDECODE ? ZP_EENCODE : rc);
  self->condition.predicate = self->predicate;
}

static zp_bytes append(lua_State *L, watcher *self, const zp_buf *bytes) {
  size_t offset = self->bytes.size;
  int rc = zp_buf_append(&self->bytes, bytes->data, bytes->size);
  if (rc) zp_lua_raise(L, rc);
  return (zp_bytes){(void *)offset, bytes->size}; /* an offset while the buffer may still move */
}

static zp_bytes append_value(lua_State *L, watcher *self, int value) {
  size_t offset = self->bytes.size;
  int rc = zp_value_encode(L, value, "the value", &self->bytes);
  if (rc) zp_lua_raise(L, rc);
  return (zp_bytes){(void *)offset, self->bytes.size - offset};
}

static bool has_value(const zp_condition *condition) {
  return condition->kind == ZP_WHEN_EQUAL || condition->kind == ZP_WHEN_NOT_EQUAL;
}

static void settle(const watcher *self, zp_bytes *bytes) { bytes->data = self->bytes.data + (size_t)bytes->data; }

static void load_condition(lua_State *L, zp_buf *scratch, watcher *self, int key, int value) {
  zp_condition *condition = &self->condition;
  int rc = zp_key_encode(L, key, scratch);
  if (rc) zp_lua_raise(L, rc);
  condition->key = append(L, self, scratch);
  if (has_value(condition)) condition->value = append_value(L, self, value);
  settle(self, &condition->key);
  if (has_value(condition)) settle(self, &condition->value);
}

/* The keys of the list at `keys`, as those whose changes count. */
static void add_keys(lua_State *L, zp_lstate *state, watcher *self, int keys) {
  for (lua_Integer i = 1; lua_rawgeti(L, keys, i) != LUA_TNIL; i++) {
    int rc = zp_key_encode(L, -1, &state->key);
    if (!rc) rc = zp_watch_add_key(self->watch, (zp_bytes){state->key.data, state->key.size});
    if (rc) zp_lua_raise(L, rc);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

enum { KIND_CHANGE = ZP_WHEN_PREDICATE + 1, KIND_UPDATE };

static const char *const kind_names[] = {"equal",     "not_equal", "none",   "not_none",
                                         "available", "predicate", "change", "update", NULL};

static bool option(lua_State *L, int options, const char *name) {
  lua_getfield(L, options, name);
  bool on = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return on;
}

/* Wait for the next match; false if the time was up first. May raise. */
static bool wait_for_match(lua_State *L, watcher *self, double deadline, zp_watch_cursor *cursor, uint64_t *revision) {
  int rc;
  do {
    zp_lsignal_begin_wait(L);
    rc = zp_watch_next(self->watch, deadline, cursor, revision);
  } while (rc == ZP_EINTR);
  zp_lsignal_end_wait();
  if (rc && rc != ZP_ETIMEOUT) zp_lua_raise_from(L, rc, self->predicate ? zp_predicate_traceback(self->predicate) : NULL);
  return rc == 0;
}

/* For get_raw_update: the state before and after the revision, and whether nothing changed. */
static int push_update(lua_State *L, zp_lstate *state, uint64_t revision) {
  zp_lstate_push_at(L, state, revision - 1);
  zp_lstate_push_at(L, state, revision);
  zp_log_record record;
  zp_lstate_read(L, state);
  int rc = zp_store_log(state->store, revision, &record);
  if (rc == 1) rc = zp_watch_changes(state->store, &record);
  zp_lstate_end(state);
  if (rc < 0) zp_lua_raise(L, rc);
  lua_pushboolean(L, rc == 0);
  return 3;
}

static int add_change(void *batch, zp_bytes key, const zp_bytes *value) { return zp_batch_add_bytes(batch, key, value); }

/* For the option changes: what the revision changed. */
static int push_changes(lua_State *L, zp_lstate *state, uint64_t revision) {
  zp_batch *batch = zp_lpairs_push(L);
  int rc = zp_watch_visit_changes(state->store, revision, add_change, batch);
  if (rc) zp_lua_raise(L, rc);
  return zp_lpairs_push_changes(L, batch);
}

/* A further buffer of keys, for a server elsewhere: the list at `keys`. */
static void list_keys(lua_State *L, zp_lremote *state, zp_batch *batch, int keys) {
  for (lua_Integer i = 1; lua_rawgeti(L, keys, i) != LUA_TNIL; i++) {
    int rc = zp_key_encode(L, -1, &state->key);
    if (!rc) rc = zp_batch_add_bytes(batch, zp_buf_bytes(&state->key), NULL);
    if (rc) zp_lua_raise(L, rc);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* The same by a server elsewhere: the arguments of core.watch are on the stack. */
static int watch_remotely(lua_State *L, double began, int kind) {
  zp_lremote *state = zp_lremote_check(L, 1);
  bool is_condition = kind <= ZP_WHEN_PREDICATE;
  watcher *self = push_watcher(L, false);
  lua_getfield(L, 5, "timeout");
  double deadline = lua_isnil(L, -1) ? ZP_FOREVER : began + lua_tonumber(L, -1);
  zp_batch *listed = zp_lpairs_push(L);
  zp_lnet_prepare(L);
  self->condition.kind = is_condition ? (zp_condition_kind)kind : ZP_WHEN_AVAILABLE;
  zp_change value;
  zp_lremote_watch watch = {.kind = kind == KIND_CHANGE ? ZP_WATCH_CHANGE : kind == KIND_UPDATE ? ZP_WATCH_UPDATE : (uint64_t)kind,
                            .pairs = &value, .deadline = deadline, .limits = budget_of(L, 5)};
  if (kind == ZP_WHEN_PREDICATE) {
    encode_predicate(L, self, 3);
    watch.subject = zp_buf_bytes(&self->bytes);
  } else if (is_condition) {
    load_condition(L, &state->key, self, 3, 4);
    watch.subject = self->condition.key;
    value = (zp_change){.key = self->condition.value};
    watch.pair_count = has_value(&self->condition);
  } else if (kind == KIND_CHANGE) {
    list_keys(L, state, listed, 3);
    watch.pairs = zp_batch_changes(listed);
    watch.pair_count = zp_batch_count(listed);
    if (!watch.pairs) return zp_lua_raise(L, ZP_ENOMEM);
  }
  watch.id = zp_bell_tag(kind_names[kind], zp_buf_bytes(&self->bytes));
  if (option(L, 5, "live")) watch.flags |= ZP_WATCH_LIVE;
  if (option(L, 5, "exclude")) watch.flags |= ZP_WATCH_EXCLUDE;
  if (option(L, 5, "duplicate_okay")) watch.flags |= ZP_WATCH_DUPLICATES;
  if (option(L, 5, "own_known")) watch.flags |= ZP_WATCH_OWN_KNOWN;
  if (option(L, 5, "gapless")) watch.flags |= ZP_WATCH_GAPLESS;
  if (kind == KIND_CHANGE && option(L, 5, "changes")) watch.flags |= ZP_WATCH_CHANGES;
  return zp_lremote_await(L, state, &watch);
}

/* core.watch(state, kind, subject, value, options): wait for a revision that matches.
   kind "change": subject is a list of keys (empty: all); "update": nothing; "predicate": subject is a function; else it
   is a key, and value what it is compared with. options: live, exclude, duplicate_okay, own_known, gapless, timeout (seconds), budget (of a
   predicate: seconds, bytes), changes (of "change").
   Returns the snapshot (for "update": before, after, identical; with changes: a list of the keys that the revision changed, in their order, and
   a table of what they are set to); nothing when the time is up. */
static int core_watch(lua_State *L) {
  double began = zp_clock_now();
  bool is_remote = zp_lremote_is(L, 1);
  zp_lstate *state = is_remote ? NULL : zp_lstate_check(L, 1);
  int kind = luaL_checkoption(L, 2, NULL, kind_names);
  luaL_checktype(L, 5, LUA_TTABLE);
  lua_settop(L, 5);
  if (is_remote) return watch_remotely(L, began, kind);
  bool condition = kind <= ZP_WHEN_PREDICATE;
  watcher *self = push_watcher(L, kind == ZP_WHEN_PREDICATE);
  self->condition.kind = condition ? (zp_condition_kind)kind : ZP_WHEN_AVAILABLE;
  if (kind == ZP_WHEN_PREDICATE)
    load_predicate(L, self, 3, 5);
  else if (condition)
    load_condition(L, &state->key, self, 3, 4);
  uint64_t identity = zp_bell_tag(kind_names[kind], (zp_bytes){self->bytes.data, self->bytes.size});

  lua_getfield(L, 5, "timeout");
  double deadline = lua_isnil(L, -1) ? ZP_FOREVER : began + lua_tonumber(L, -1);
  zp_watch_options options = {
      .test = condition ? zp_condition_test : NULL,
      .context = &self->condition,
      .id = identity,
      .exclude = option(L, 5, "exclude"),
      .duplicates = option(L, 5, "duplicate_okay"),
      .own_known = option(L, 5, "own_known"),
      .live = option(L, 5, "live"),
      .gapless = option(L, 5, "gapless"),
  };
  int rc = zp_watch_open(state->store, &state->cursor, &options, &self->watch);
  if (rc) return zp_lua_raise(L, rc);
  if (kind == KIND_CHANGE) add_keys(L, state, self, 3);

  uint64_t revision;
  zp_watch_cursor cursor = state->cursor;
  bool matched = wait_for_match(L, self, deadline, &cursor, &revision);
  zp_watch_close(&self->watch);
  zp_predicate_close(&self->predicate);
  int results = 0;
  if (matched && kind == KIND_UPDATE) {
    results = push_update(L, state, revision);
  } else if (matched && kind == KIND_CHANGE && option(L, 5, "changes")) {
    results = push_changes(L, state, revision);
  } else if (matched) {
    zp_lstate_push_at(L, state, revision);
    results = 1;
  }
  state->cursor = cursor; /* only now: what cannot be given, for want of memory or as it cannot be decoded here, was not consumed */
  return results;
}

/* core.go_live(state): move the cursor to the newest revision. */
static int core_go_live(lua_State *L) {
  if (zp_lremote_is(L, 1)) return zp_lremote_go_live(L, false);
  zp_lstate *state = zp_lstate_check(L, 1);
  int rc = zp_watch_go_live(state->store, &state->cursor);
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* core.renew(state): as if the State were made now; what it was given so far is forgotten. */
static int core_renew(lua_State *L) {
  if (zp_lremote_is(L, 1)) return zp_lremote_go_live(L, true);
  zp_lstate *state = zp_lstate_check(L, 1);
  zp_watch_cursor fresh = {.revision = 0};
  int rc = zp_watch_go_live(state->store, &fresh);
  if (rc) return zp_lua_raise(L, rc);
  state->cursor = fresh;
  return 0;
}

/* core.set_cursor(state, revision, [call]): watchers of this State consider what comes after the revision; 0: as far back as is kept. */
static int core_set_cursor(lua_State *L) {
  lua_Integer revision = luaL_checkinteger(L, 2);
  uint64_t oldest = 0, newest = 0;
  bool is_remote = zp_lremote_is(L, 1);
  zp_lstate *state = is_remote ? NULL : zp_lstate_check(L, 1);
  if (is_remote) {
    zp_lremote_range(L, &oldest, &newest);
  } else {
    zp_lstate_read(L, state);
    int rc = zp_store_range(state->store, &oldest, &newest);
    zp_lstate_end(state);
    if (rc) return zp_lua_raise(L, rc);
  }
  if (revision < 0 || (uint64_t)revision > newest)
    return zp_lua_usage(L, "%s%sthe option 'since' is a revision number from 0 to %I (the newest), not %I", luaL_optstring(L, 3, ""),
                        lua_isnoneornil(L, 3) ? "" : ": ", (LUAI_UACINT)newest, (LUAI_UACINT)revision);
  zp_watch_cursor_move(is_remote ? &zp_lremote_check(L, 1)->cursor : &state->cursor, revision == 0 ? oldest : (uint64_t)revision);
  return 0;
}

/* ---- bookmarks ---- */

/* A place of a State's cursor, to go back to if what was given there comes to nothing. */
typedef struct bookmark {
  zp_watch_cursor *cursor; /* of the State that the user value keeps */
  zp_watch_cursor place;
} bookmark;

/* core.bookmark(state) -> Bookmark, for where the State's cursor is. */
static int core_bookmark(lua_State *L) {
  zp_watch_cursor *cursor = zp_lremote_is(L, 1) ? &zp_lremote_check(L, 1)->cursor : &zp_lstate_check(L, 1)->cursor;
  bookmark *self = lua_newuserdatauv(L, sizeof *self, 1);
  *self = (bookmark){cursor, *cursor};
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  luaL_setmetatable(L, BOOKMARK);
  return 1;
}

/* bookmark:move(): to where the cursor is now. */
static int bookmark_move(lua_State *L) {
  bookmark *self = luaL_checkudata(L, 1, BOOKMARK);
  self->place = *self->cursor;
  return 0;
}

/* As a variable that is closed: an error takes the cursor back. */
static int bookmark_close(lua_State *L) {
  bookmark *self = luaL_checkudata(L, 1, BOOKMARK);
  if (!lua_isnoneornil(L, 2)) *self->cursor = self->place;
  return 0;
}

static const luaL_Reg bookmark_methods[] = {{"move", bookmark_move}, {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"watch", core_watch},
    {"bookmark", core_bookmark},
    {"go_live", core_go_live},
    {"renew", core_renew},
    {"set_cursor", core_set_cursor},
    {NULL, NULL},
};

void zp_lwatch_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  zp_lclass_new(L, WATCHER, NULL, watcher_gc);
  zp_lclass_new(L, BOOKMARK, bookmark_methods, NULL);
  luaL_getmetatable(L, BOOKMARK);
  lua_pushcfunction(L, bookmark_close);
  lua_setfield(L, -2, "__close");
  lua_pop(L, 1);
}
