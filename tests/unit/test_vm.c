/* vm: predicates in their sandbox, within their budgets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "base/err.h"
#include "codec/key.h"
#include "codec/value.h"
#include "vm/vm.h"

static lua_State *script; /* where predicates and states are written */
static zp_vm *vm;
static zp_vm_limits limits;

/* ---- a state in a few arrays ---- */

enum { KEYS = 8 };

typedef struct fake_state {
  zp_buf keys[KEYS], values[KEYS];
  size_t count;
  size_t reads;    /* of single keys */
  int all;         /* reads of every key */
  char last[64];   /* the key that was read last, without its tag */
  int broken;      /* what get answers instead; 0: nothing */
} fake_state;

static int fake_get(void *context, zp_bytes key, zp_bytes *value) {
  fake_state *state = context;
  if (state->broken) return zp_fail(state->broken, "the disk is gone");
  for (size_t i = 0; i < state->count; i++) {
    if (state->keys[i].size != key.size || memcmp(state->keys[i].data, key.data, key.size) != 0) continue;
    *value = (zp_bytes){state->values[i].data, state->values[i].size};
    return 1;
  }
  return 0;
}

static int fake_walk(void *context, const zp_bytes *after, size_t most, zp_page *page) {
  fake_state *state = context;
  size_t i = 0;
  while (after && i < state->count &&
         (state->keys[i].size != after->size || memcmp(state->keys[i].data, after->data, after->size) != 0))
    i++;
  for (i += after != NULL; i < state->count && page->count < most; i++) {
    int rc = zp_page_add(page, zp_buf_bytes(&state->keys[i]), zp_buf_bytes(&state->values[i]));
    if (rc) return rc;
  }
  return 0;
}

static int fake_count(void *context, uint64_t *count) {
  *count = ((fake_state *)context)->count;
  return 0;
}

static void fake_read(void *context, const zp_bytes *key) {
  fake_state *state = context;
  if (!key) {
    state->all++;
    return;
  }
  state->reads++;
  snprintf(state->last, sizeof state->last, "%.*s", (int)key->size - 1, (const char *)key->data + 1);
}

static zp_view view_of(fake_state *state) { return (zp_view){state, fake_get, fake_walk, fake_count, fake_read}; }

/* A state from the source of a table. */
static fake_state make_state(const char *table) {
  fake_state state = {.count = 0};
  char source[1000];
  snprintf(source, sizeof source, "return %s", table);
  assert_int_equal(luaL_dostring(script, source), 0);
  for (lua_pushnil(script); lua_next(script, -2); lua_pop(script, 1)) {
    assert_int_equal(zp_key_encode(script, -2, &state.keys[state.count]), 0);
    assert_int_equal(zp_value_encode(script, -1, NULL, &state.values[state.count]), 0);
    state.count++;
  }
  lua_settop(script, 0);
  return state;
}

static void free_state(fake_state *state) {
  for (size_t i = 0; i < state->count; i++) {
    zp_buf_free(&state->keys[i]);
    zp_buf_free(&state->values[i]);
  }
}

/* ---- running ---- */

static int load(const char *source, zp_predicate **predicate) {
  zp_buf bytes = ZP_BUF_INIT;
  if (luaL_dostring(script, source)) fail_msg("%s", lua_tostring(script, -1));
  int rc = zp_value_encode(script, -1, "predicate", &bytes);
  if (rc) fail_msg("%s", zp_error_detail());
  lua_settop(script, 0);
  rc = zp_predicate_load(vm, (zp_bytes){bytes.data, bytes.size}, &limits, predicate);
  zp_buf_free(&bytes);
  return rc;
}

/* The result of the predicate that a chunk returns, on a state given by the source of a table. */
static int test(const char *source, const char *table) {
  zp_predicate *predicate = NULL;
  int rc = load(source, &predicate);
  if (rc) return rc;
  fake_state state = make_state(table);
  zp_view view = view_of(&state);
  rc = zp_predicate_test(predicate, &view);
  free_state(&state);
  zp_predicate_close(&predicate);
  zp_predicate_close(&predicate);
  return rc;
}

static void assert_detail(const char *words) {
  if (!strstr(zp_error_detail(), words)) fail_msg("'%s' is not in '%s'", words, zp_error_detail());
}

static int set_up(void **unused) {
  (void)unused;
  script = luaL_newstate();
  luaL_openlibs(script);
  zp_codec_open(script);
  limits = (zp_vm_limits){.seconds = 0.2, .bytes = 8 << 20};
  return zp_vm_open(&vm);
}

static int tear_down(void **unused) {
  (void)unused;
  zp_vm_close(&vm);
  zp_vm_close(&vm);
  lua_close(script);
  return 0;
}

/* ---- what a predicate sees ---- */

static void it_holds_if_its_result_is_neither_nil_nor_false(void **unused) {
  (void)unused;
  assert_int_equal(test("return function(s) return s.count == 5 end", "{count = 5}"), 1);
  assert_int_equal(test("return function(s) return s.count == 5 end", "{count = 6}"), 0);
  assert_int_equal(test("return function(s) return 0 end", "{}"), 1);
  assert_int_equal(test("return function(s) end", "{}"), 0);
}

static void the_view_reads_like_a_state(void **unused) {
  (void)unused;
  const char *table = "{a = 1, [2] = 'two', [true] = {1, {2}}}";
  assert_int_equal(test("return function(s) return s.a == 1 and s[2] == 'two' and s[true][2][1] == 2 end", table), 1);
  assert_int_equal(test("return function(s) return s:get 'a' == 1 and s:get('b', 7) == 7 end", table), 1);
  assert_int_equal(test("return function(s) return s:contains 'a' and not s:contains 'b' and #s == 3 end", table), 1);
  assert_int_equal(test("return function(s) local n = 0 for k, v in pairs(s) do n = n + 1 end return n == 3 end", table), 1);
  assert_int_equal(test("return function(s) local c = s:copy() return c.a == 1 and c[2] == 'two' end", table), 1);
  assert_int_equal(test("return function(s) return #s:keys() == 3 and #s:values() == 3 and #s:items() == 3 end", table), 1);
}

/* As in a State; but a State tells who assigns to such a key, and a predicate would hold at once, or never. */
static void a_method_that_is_read_like_a_key_is_an_error(void **unused) {
  (void)unused;
  const char *table = "{get = 5, items = {1, 2}, set = 7}";
  assert_int_equal(test("return function(s) return s.get == 5 end", table), ZP_EPREDICATE);
  assert_detail("'get' is a method of the state");
  assert_detail("state:get(\"get\") reads the key of that name");
  assert_int_equal(test("return function(s) return s.items end", "{}"), ZP_EPREDICATE);
  assert_detail("'items' is a method of the state");
  assert_int_equal(test("return function(s) return #s.items > 1 end", table), ZP_EPREDICATE);
  assert_int_equal(test("return function(s) return s:get 'get' == 5 and #s:get 'items' == 2 and s.set == 7 end", table), 1);
  assert_int_equal(test("return function(s) local get = s.get return get(s, 'get') == 5 end", table), 1);
  assert_int_equal(test("return function(s) return s:get(s.absent.key) end", table), 0);
  assert_int_equal(test("return function(s) return s:get(error 'why') end", table), ZP_EPREDICATE);
  assert_detail("why");
  assert_int_equal(test("return function(s) return s.get 'get' end", table), ZP_EPREDICATE);
  assert_detail("is it state:get(...), with a colon?");
}

static void every_read_is_reported(void **unused) {
  (void)unused;
  zp_predicate *predicate = NULL;
  assert_int_equal(load("return function(s) return s.first and s:contains 'second' or s.third end", &predicate), 0);
  fake_state state = make_state("{first = true}");
  zp_view view = view_of(&state);
  assert_int_equal(zp_predicate_test(predicate, &view), 0);
  assert_int_equal(state.reads, 3);
  assert_string_equal(state.last, "third");
  assert_int_equal(state.all, 0);
  free_state(&state);
  zp_predicate_close(&predicate);
  assert_int_equal(load("return function(s) return #s == 0 end", &predicate), 0);
  state = make_state("{}");
  view = view_of(&state);
  assert_int_equal(zp_predicate_test(predicate, &view), 1);
  assert_int_equal(state.all, 1);
  zp_predicate_close(&predicate);
}

static void what_it_reads_is_a_copy(void **unused) {
  (void)unused;
  assert_int_equal(test("return function(s) s.list[1] = 9 return s.list[1] == 1 end", "{list = {1}}"), 1);
}

static void upvalues_and_library_functions_travel_with_it(void **unused) {
  (void)unused;
  assert_int_equal(test("local limit, floor = 3, math.floor local function helper(x) return floor(x) > limit end "
                        "return function(s) return helper(s.x) and ('%d'):format(s.x // 1 | 0) == '4' end",
                        "{x = 4.5}"), 1);
  assert_int_equal(test("function global_helper(x) return x == 1 end return function(s) return global_helper(s.x) end",
                        "{x = 1}"), 1);
}

/* ---- errors ---- */

static void an_error_after_an_absent_key_was_read_does_not_hold(void **unused) {
  (void)unused;
  assert_int_equal(test("return function(s) return s.gold_price < 40 end", "{}"), 0);
  assert_int_equal(test("return function(s) return s:get 'gold_price' < 40 end", "{}"), 0);
  assert_int_equal(test("return function(s) return s.deep.er == 1 end", "{}"), 0);
}

static void any_other_error_is_told_with_its_traceback(void **unused) {
  (void)unused;
  zp_predicate *predicate = NULL;
  assert_int_equal(load("local function deep() error 'boom' end return function(s) deep() end", &predicate), 0);
  fake_state state = make_state("{}");
  zp_view view = view_of(&state);
  assert_int_equal(zp_predicate_test(predicate, &view), ZP_EPREDICATE);
  assert_detail("boom");
  assert_non_null(strstr(zp_predicate_traceback(predicate), "deep"));
  zp_predicate_close(&predicate);
  assert_int_equal(test("return function(s) error(setmetatable({}, {__tostring = function() return 'as words' end})) end",
                        "{}"), ZP_EPREDICATE);
  assert_detail("as words");
  assert_int_equal(test("return function(s) error() end", "{}"), ZP_EPREDICATE);
  assert_int_equal(test("return function(s) error(setmetatable({}, {__tostring = function() error 'no' end})) end", "{}"),
                   ZP_EPREDICATE);
  /* A stack that overflows, unless the memory is used up first. */
  assert_true(test("local function f() return 1 + f() end return f", "{}") < 0);
}

static void a_failure_to_read_is_not_the_predicates_to_swallow(void **unused) {
  (void)unused;
  zp_predicate *predicate = NULL;
  assert_int_equal(load("return function(s) return not pcall(function() return s.x end) end", &predicate), 0);
  fake_state state = make_state("{x = 1}");
  state.broken = ZP_ESTORE;
  zp_view view = view_of(&state);
  assert_int_equal(zp_predicate_test(predicate, &view), ZP_ESTORE);
  assert_detail("the disk is gone");
  state.broken = 0;
  assert_int_equal(zp_predicate_test(predicate, &view), 0);
  free_state(&state);
  zp_predicate_close(&predicate);
}

static void the_state_cannot_be_changed(void **unused) {
  (void)unused;
  assert_int_equal(test("return function(s) s.x = 5 return true end", "{}"), ZP_EPREDICATE);
  assert_detail("cannot change the state");
  assert_int_equal(test("return function(s) setmetatable(s, nil) return true end", "{}"), ZP_EPREDICATE);
  assert_int_equal(test("return function(s) return getmetatable(s) == false end", "{}"), 1);
}

static void the_view_is_of_no_use_to_a_coroutine_that_is_left_over(void **unused) {
  (void)unused;
  const char *source = "local kept return function(s) "
                       "kept = kept or coroutine.wrap(function() while true do coroutine.yield(s.x) end end) "
                       "return kept() == 1 end";
  assert_int_equal(test(source, "{x = 1}"), 1);
  assert_int_equal(test(source, "{x = 2}"), 0);
}

/* ---- the sandbox ---- */

static void nothing_that_reaches_outside_is_there(void **unused) {
  (void)unused;
  const char *absent[] = {"os", "io", "debug", "package", "require", "load", "loadfile", "dofile", "print", "collectgarbage",
                          "string.dump", "warn"};
  for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
    char source[200];
    snprintf(source, sizeof source, "return function(s) return %s.x or %s() end", absent[i], absent[i]);
    assert_int_equal(test(source, "{}"), ZP_EPREDICATE);
    if (i < 11 && !strchr(absent[i], '.')) assert_detail("evaluated apart from the script");
  }
}

static void what_it_captured_of_the_outside_is_refused(void **unused) {
  (void)unused;
  const char *captured[] = {"os.exit", "io.open", "os", "debug.getinfo", "require", "print"};
  for (size_t i = 0; i < sizeof captured / sizeof *captured; i++) {
    char source[200];
    snprintf(source, sizeof source, "local captured = %s return function(s) return captured(3) end", captured[i]);
    assert_int_equal(test(source, "{}"), ZP_EDECODE);
    assert_detail("evaluated apart from the script");
  }
}

static void only_functions_are_predicates(void **unused) {
  (void)unused;
  zp_predicate *predicate = NULL;
  zp_buf bytes = ZP_BUF_INIT;
  lua_pushinteger(script, 5);
  assert_int_equal(zp_value_encode(script, -1, NULL, &bytes), 0);
  assert_int_equal(zp_predicate_load(vm, (zp_bytes){bytes.data, bytes.size}, NULL, &predicate), ZP_EDECODE);
  assert_detail("a predicate is a function, not a number");
  assert_int_equal(zp_predicate_load(vm, (zp_bytes){"garbage", 7}, NULL, &predicate), ZP_EDECODE);
  assert_null(predicate);
  zp_buf_free(&bytes);
  lua_settop(script, 0);
}

static void predicates_share_nothing(void **unused) {
  (void)unused;
  assert_int_equal(test("return function(s) leaked = 1 string.format = nil getmetatable('').__index = nil return true end",
                        "{}"), 1);
  assert_int_equal(test("return function(s) return leaked == nil and string.format ~= nil and ('x'):rep(2) == 'xx' end",
                        "{}"), 1);
}

static void there_are_no_finalisers(void **unused) {
  (void)unused;
  assert_int_equal(test("return function(s) setmetatable({}, {__gc = function() while true do end end}) return true end",
                        "{}"), ZP_EPREDICATE);
  assert_int_equal(test("local t = setmetatable({}, {__gc = function() end}) return function(s) return t end", "{}"),
                   ZP_EDECODE);
  /* One that is added later is not called either. */
  assert_int_equal(test("return function(s) local m = {} setmetatable({}, m) m.__gc = function() while true do end end "
                        "return true end", "{}"), 1);
}

/* ---- budgets ---- */

static void one_that_runs_for_ever_is_stopped_whatever_it_tries(void **unused) {
  (void)unused;
  const char *endless[] = {
      "return function(s) while true do end end",
      "return function(s) while true do pcall(function() while true do end end) end end",
      "return function(s) while true do xpcall(function() while true do end end, function() while true do end end) end end",
      "return function(s) local c = coroutine.wrap(function() while true do end end) while true do pcall(c) end end",
      "return function(s) while true do local co = coroutine.create(function() while true do end end) "
      "coroutine.resume(co) end end",
      "return function(s) local x <close> = setmetatable({}, {__close = function() while true do end end}) "
      "while true do end end",
      "return function(s) return setmetatable({}, {__index = function(t, k) return t[k .. 1] end}).x end",
      "return function(s) error(setmetatable({}, {__tostring = function() while true do end end})) end",
      "return function(s) local x = s.absent while true do end end",
      "return function(s) pcall(function() while true do end end) return true end",
  };
  for (size_t i = 0; i < sizeof endless / sizeof *endless; i++) {
    int rc = test(endless[i], "{}");
    /* The sixth but one runs into the limits of the C stack first; that is an error, too. */
    if (rc != ZP_EBUDGET && !(i == 6 && rc == ZP_EPREDICATE)) fail_msg("%zu: %d %s", i, rc, zp_error_detail());
  }
  assert_int_equal(test("return function(s) return true end", "{}"), 1);
}

static void one_that_allocates_without_end_is_stopped_and_gives_the_memory_back(void **unused) {
  (void)unused;
  const char *greedy[] = {
      "return function(s) local t = {} for i = 1, math.huge do t[i] = ('x'):rep(1000) .. i end end",
      "return function(s) return ('x'):rep(1 << 30) end",
      "return function(s) pcall(string.rep, 'x', 1 << 30) return true end",
      "return function(s) local x = 'x' while true do x = x .. x end end",
      "return function(s) local t = {} for i = 1, 1 << 40 do t[i] = i end end",
      "return function(s) return table.concat(table.pack(('x'):rep(4 << 20), ('y'):rep(4 << 20), ('z'):rep(4 << 20))) end",
  };
  for (size_t i = 0; i < sizeof greedy / sizeof *greedy; i++) {
    int rc = test(greedy[i], "{}");
    if (rc != ZP_EBUDGET) fail_msg("%zu: %d %s", i, rc, zp_error_detail());
  }
  assert_int_equal(test("return function(s) return #('x'):rep(2 << 20) > 0 end", "{}"), 1);
}

static void what_is_collected_counts_no_more(void **unused) {
  (void)unused;
  double seconds = limits.seconds;
  limits.seconds = 60; /* it is about memory, and sanitizers are slow with that */
  assert_int_equal(test("return function(s) for i = 1, 100 do local x = ('x'):rep(1 << 20) .. i end return true end", "{}"), 1);
  limits.seconds = seconds;
}

static void the_same_bytes_load_again_and_again(void **unused) {
  (void)unused;
  for (int i = 0; i < 2000; i++) {
    char source[100];
    snprintf(source, sizeof source, "return function(s) return s.x == %d end", i % 7);
    assert_int_equal(test(source, "{x = 3}"), i % 7 == 3);
  }
}

static void many_can_be_loaded_at_once(void **unused) {
  (void)unused;
  enum { MANY = 200 };
  zp_predicate *predicates[MANY];
  fake_state state = make_state("{x = 3}");
  zp_view view = view_of(&state);
  for (int i = 0; i < MANY; i++) assert_int_equal(load("return function(s) return s.x == 3 end", &predicates[i]), 0);
  for (int i = 0; i < MANY; i++) assert_int_equal(zp_predicate_test(predicates[i], &view), 1);
  for (int i = 0; i < MANY; i++) zp_predicate_close(&predicates[i]);
  free_state(&state);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(it_holds_if_its_result_is_neither_nil_nor_false),
      cmocka_unit_test(the_view_reads_like_a_state),
      cmocka_unit_test(a_method_that_is_read_like_a_key_is_an_error),
      cmocka_unit_test(every_read_is_reported),
      cmocka_unit_test(what_it_reads_is_a_copy),
      cmocka_unit_test(upvalues_and_library_functions_travel_with_it),
      cmocka_unit_test(an_error_after_an_absent_key_was_read_does_not_hold),
      cmocka_unit_test(any_other_error_is_told_with_its_traceback),
      cmocka_unit_test(a_failure_to_read_is_not_the_predicates_to_swallow),
      cmocka_unit_test(the_state_cannot_be_changed),
      cmocka_unit_test(the_view_is_of_no_use_to_a_coroutine_that_is_left_over),
      cmocka_unit_test(nothing_that_reaches_outside_is_there),
      cmocka_unit_test(what_it_captured_of_the_outside_is_refused),
      cmocka_unit_test(only_functions_are_predicates),
      cmocka_unit_test(predicates_share_nothing),
      cmocka_unit_test(there_are_no_finalisers),
      cmocka_unit_test(one_that_runs_for_ever_is_stopped_whatever_it_tries),
      cmocka_unit_test(one_that_allocates_without_end_is_stopped_and_gives_the_memory_back),
      cmocka_unit_test(what_is_collected_counts_no_more),
      cmocka_unit_test(the_same_bytes_load_again_and_again),
      cmocka_unit_test(many_can_be_loaded_at_once),
  };
  return cmocka_run_group_tests_name("vm", tests, set_up, tear_down);
}
