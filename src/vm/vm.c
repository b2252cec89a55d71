#include "vm/vm.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/err.h"
#include "codec/value.h"
#include "vm/budget.h"
#include "vm/sandbox.h"

enum {
  KEPT = 4,              /* predicates that were closed and may come again */
  KEPT_BYTES = 4 << 20   /* and that do not hold more memory than this */
};

struct zp_predicate {
  zp_vm *vm;
  lua_State *L; /* stack: message handler, view, function */
  zp_budget budget;
  zp_sandbox sandbox;
  zp_buf function; /* the bytes that it was loaded from */
  char *traceback; /* of the last error; NULL: none */
  zp_vm_limits limits;
  bool is_void;  /* it was left in the middle, and the VM is of no use any more */
  bool is_spent; /* since its time was up */
};

struct zp_vm {
  zp_predicate *kept[KEPT]; /* the one that was closed last is first */
};

enum { HANDLER = 1, VIEW, FUNCTION };

int zp_vm_open(zp_vm **out) {
  *out = calloc(1, sizeof **out);
  return *out ? 0 : zp_fail(ZP_ENOMEM, "out of memory: cannot evaluate predicates");
}

/* Drop the VM. */
static void drop(zp_predicate *predicate) {
  if (predicate->L && !predicate->is_void) lua_close(predicate->L);
  predicate->L = NULL;
  zp_budget_free(&predicate->budget);
}

static void destroy(zp_predicate *predicate) {
  if (!predicate) return;
  drop(predicate);
  zp_buf_free(&predicate->function);
  zp_buf_free(&predicate->sandbox.key);
  zp_buf_free(&predicate->sandbox.page.bytes);
  free(predicate->traceback);
  free(predicate);
}

void zp_vm_close(zp_vm **vm) {
  if (!*vm) return;
  for (size_t i = 0; i < KEPT; i++) destroy((*vm)->kept[i]);
  free(*vm);
  *vm = NULL;
}

/* ---- pages ---- */

int zp_page_add(zp_page *page, zp_bytes key, zp_bytes value) {
  size_t sizes[2] = {key.size, value.size};
  int rc = zp_buf_reserve(&page->bytes, sizeof sizes + key.size + value.size);
  if (rc) return rc;
  zp_buf_append(&page->bytes, sizes, sizeof sizes);
  zp_buf_append(&page->bytes, key.data, key.size);
  zp_buf_append(&page->bytes, value.data, value.size);
  page->count++;
  return 0;
}

bool zp_page_next(const zp_page *page, size_t *offset, zp_bytes *key, zp_bytes *value) {
  size_t sizes[2];
  if (*offset >= page->bytes.size) return false;
  const unsigned char *at = page->bytes.data + *offset;
  memcpy(sizes, at, sizeof sizes);
  *key = (zp_bytes){at + sizeof sizes, sizes[0]};
  *value = (zp_bytes){at + sizeof sizes + sizes[0], sizes[1]};
  *offset += sizeof sizes + sizes[0] + sizes[1];
  return true;
}

/* ---- loading ---- */

/* Keeps the traceback with the error: as a table of its own, { what was raised, traceback }. */
static int add_traceback(lua_State *L) {
  luaL_traceback(L, L, NULL, 1);
  lua_createtable(L, 2, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, 2);
  return 1;
}

/* Under protection: fill a fresh VM's stack. Argument: the predicate. */
static int open_sandbox(lua_State *L) {
  zp_predicate *predicate = lua_touserdata(L, 1);
  lua_settop(L, 0);
  lua_pushcfunction(L, add_traceback);
  zp_sandbox_open(L, &predicate->sandbox);
  return 2;
}

/* Under protection: decode the function. Returns it, or the ZP_E* code. */
static int load_function(lua_State *L) {
  zp_predicate *predicate = lua_touserdata(L, 1);
  zp_bytes bytes = {predicate->function.data, predicate->function.size};
  int rc = zp_value_decode(L, bytes, ZP_DECODE_CODE | ZP_DECODE_NO_FINALISERS);
  if (!rc && lua_type(L, -1) != LUA_TFUNCTION)
    rc = zp_fail(ZP_EDECODE, "a predicate is a function, not a %s", luaL_typename(L, -1));
  if (rc) lua_pushinteger(L, rc);
  return 1;
}

static int fail_memory(void) { return zp_fail(ZP_ENOMEM, "out of memory: cannot evaluate a predicate"); }

#define OPTION "(the option budget of its watcher sets that)"

static int fail_size(const zp_predicate *predicate, const char *words) {
  enum { MIB = 1 << 20 };
  size_t bytes = predicate->limits.bytes;
  bool is_round = bytes % MIB == 0;
  return zp_fail(ZP_EBUDGET, "the predicate %s the %zu %s that it may " OPTION, words, is_round ? bytes / MIB : bytes, is_round ? "MiB" : "bytes");
}

static int fail_time(const zp_predicate *predicate) {
  double seconds = predicate->limits.seconds;
  return zp_fail(ZP_EBUDGET, "the predicate was stopped: it took more time than the %g second%s that it may " OPTION, seconds,
                 seconds == 1 ? "" : "s");
}

/* The codec has said what it is; what a user needs to know is why, and what to do. */
static int fail_load(int rc) {
  static const char USES[] = "uses '";
  char name[64] = "", advice[ZP_SANDBOX_ADVICE_SIZE];
  const char *uses = strstr(zp_error_detail(), USES);
  if (uses) snprintf(name, sizeof name, "%.*s", (int)strcspn(uses + strlen(USES), "'"), uses + strlen(USES));
  zp_sandbox_advise(name, advice);
  return zp_fail(rc, "a predicate is evaluated apart from the script: %s; %s", zp_error_detail(), advice);
}

/* Make a VM with the function in it. */
static int fill(zp_predicate *predicate) {
  predicate->is_void = false;
  predicate->budget = (zp_budget){.limit = SIZE_MAX, .granted = SIZE_MAX};
  lua_State *L = predicate->L = lua_newstate(zp_budget_alloc, &predicate->budget);
  if (!L) return fail_memory();
  const zp_vm_limits *limits = &predicate->limits;
  lua_pushcfunction(L, open_sandbox);
  lua_pushlightuserdata(L, predicate);
  if (lua_pcall(L, 1, 2, 0) != LUA_OK) return fail_memory();

  lua_pushcfunction(L, load_function);
  lua_pushlightuserdata(L, predicate);
  zp_budget_start(&predicate->budget, L, 0, limits->bytes); /* decoding runs no Lua code here */
  int status = lua_pcall(L, 1, 1, 0);
  if (!zp_budget_end(&predicate->budget, L))
    return predicate->budget.penniless
               ? fail_memory()
               : fail_size(predicate, "cannot be loaded within");
  if (status != LUA_OK) return zp_fail(ZP_EDECODE, "the predicate cannot be loaded: %s", lua_tostring(L, -1));
  if (lua_type(L, -1) == LUA_TFUNCTION) return 0;
  return fail_load((int)lua_tointeger(L, -1));
}

static zp_predicate *take_kept(zp_vm *vm, zp_bytes function) {
  for (size_t i = 0; i < KEPT; i++) {
    zp_predicate *predicate = vm->kept[i];
    if (!predicate || predicate->function.size != function.size ||
        memcmp(predicate->function.data, function.data, function.size) != 0)
      continue;
    vm->kept[i] = NULL;
    return predicate;
  }
  return NULL;
}

int zp_predicate_load(zp_vm *vm, zp_bytes function, const zp_vm_limits *limits, zp_predicate **out) {
  zp_predicate *predicate = take_kept(vm, function);
  bool is_kept = predicate != NULL;
  *out = NULL;
  if (!is_kept && !(predicate = calloc(1, sizeof *predicate))) return fail_memory();
  if (limits) predicate->limits = *limits;
  if (!limits || limits->seconds <= 0) predicate->limits.seconds = ZP_VM_SECONDS;
  if (!limits || limits->bytes == 0) predicate->limits.bytes = ZP_VM_BYTES;
  predicate->vm = vm;
  int rc = is_kept ? 0 : zp_buf_append(&predicate->function, function.data, function.size);
  if (!rc && !is_kept) rc = fill(predicate);
  if (rc) destroy(predicate);
  else *out = predicate;
  return rc;
}

void zp_predicate_close(zp_predicate **handle) {
  zp_predicate *predicate = *handle;
  if (!predicate) return;
  *handle = NULL;
  if (predicate->is_void || predicate->budget.used > KEPT_BYTES) {
    destroy(predicate);
    return;
  }
  zp_predicate **kept = predicate->vm->kept;
  destroy(kept[KEPT - 1]);
  memmove(kept + 1, kept, (KEPT - 1) * sizeof *kept);
  kept[0] = predicate;
}

/* ---- evaluating ---- */

/* Under protection: the words of what was raised, and the traceback, from the handler's table. */
static int describe(lua_State *L) {
  if (!lua_istable(L, 1)) { /* raised in the handler, or for want of memory: there is no table */
    luaL_tolstring(L, 1, NULL);
    lua_pushliteral(L, "");
    return 2;
  }
  lua_rawgeti(L, 1, 1);
  lua_rawgeti(L, 1, 2);
  luaL_tolstring(L, 2, NULL);
  lua_pushvalue(L, 3);
  return 2;
}

static void set_traceback(zp_predicate *predicate, const char *text) {
  free(predicate->traceback);
  predicate->traceback = text && *text ? strdup(text) : NULL;
}

/* The error on top of the stack as ZP_EPREDICATE. Its __tostring is code of the user: within the same budget. */
static int fail_with_error(zp_predicate *predicate) {
  lua_State *L = predicate->L;
  lua_pushcfunction(L, describe);
  lua_insert(L, -2);
  if (lua_pcall(L, 1, 2, 0) != LUA_OK) return zp_fail(ZP_EPREDICATE, "the predicate raised an error that cannot be told");
  set_traceback(predicate, lua_tostring(L, -1));
  return zp_fail(ZP_EPREDICATE, "%s", lua_tostring(L, -2));
}

/* Within the budget, which began a moment ago. */
static int evaluate(zp_predicate *predicate) {
  lua_State *L = predicate->L;
  zp_sandbox *sandbox = &predicate->sandbox;
  lua_settop(L, FUNCTION);
  lua_pushvalue(L, FUNCTION);
  lua_pushvalue(L, VIEW);
  int status = lua_pcall(L, 1, 1, HANDLER);
  int rc = status == LUA_OK ? lua_toboolean(L, -1) : 0;
  if (status != LUA_OK && !sandbox->failure && !sandbox->read_absent) rc = fail_with_error(predicate);
  const char *method = status == LUA_OK ? zp_sandbox_uncalled(sandbox) : NULL; /* an error may have come before the call */
  if (method)
    rc = zp_fail(ZP_EPREDICATE, "'%s' is a method of the state that a predicate gets, as of a State, and was read but not called: "
                 "state:get(\"%s\") reads the key of that name", method, method);
  return rc;
}

int zp_predicate_test(zp_predicate *predicate, const zp_view *view) {
  zp_sandbox *sandbox = &predicate->sandbox;
  const zp_vm_limits *limits = &predicate->limits;
  if (predicate->is_spent) return fail_time(predicate);
  set_traceback(predicate, NULL);
  if (predicate->is_void) { /* a signal came last time */
    drop(predicate);
    int rc = fill(predicate);
    if (rc) {
      drop(predicate);
      predicate->is_void = true;
      return rc;
    }
  }
  sandbox->view = view;
  sandbox->read_absent = false;
  sandbox->failure = 0;
  sandbox->fetched = sandbox->called = 0;
  int reason = setjmp(predicate->budget.escape);
  if (reason) {
    predicate->budget.is_timed = false;
    predicate->is_void = true;
    predicate->is_spent = reason == ZP_BUDGET_TIME;
    sandbox->view = NULL;
    return predicate->is_spent ? fail_time(predicate) : ZP_EINTR;
  }
  zp_budget_start(&predicate->budget, predicate->L, limits->seconds, limits->bytes);
  int rc = evaluate(predicate);
  bool enough = zp_budget_end(&predicate->budget, predicate->L);
  sandbox->view = NULL;
  lua_settop(predicate->L, FUNCTION);
  if (!enough)
    rc = predicate->budget.penniless ? fail_memory() : fail_size(predicate, "was stopped: it took more memory than");
  else if (sandbox->failure)
    rc = sandbox->failure;
  if (rc < 0) lua_gc(predicate->L, LUA_GCCOLLECT);
  return rc;
}

const char *zp_predicate_traceback(const zp_predicate *predicate) {
  return predicate->traceback ? predicate->traceback : "";
}
