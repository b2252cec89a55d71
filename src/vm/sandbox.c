#include "vm/sandbox.h"

#include <stdio.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/err.h"
#include "codec/key.h"
#include "codec/names.h"
#include "codec/value.h"
#include "vm/library.h"

/* ---- the view ---- */

static zp_sandbox *sandbox_of(lua_State *L) { return *(zp_sandbox **)lua_getextraspace(L); }

/* A callback has failed, or bytes could not be decoded: the evaluation ends with that, whatever the predicate makes of it. */
static int fail(lua_State *L, int rc) {
  sandbox_of(L)->failure = rc;
  return luaL_error(L, "%s", zp_error_detail());
}

static const zp_view *view_of(lua_State *L) {
  const zp_view *view = sandbox_of(L)->view;
  if (!view) luaL_error(L, "the state is not to be read at this time");
  return view;
}

static void depend_on_all(const zp_view *view) { view->read(view->context, NULL); }

/* Read the key at stack index 2; 1 and the value's bytes, or 0. */
static int get(lua_State *L, zp_bytes *value) {
  const zp_view *view = view_of(L);
  luaL_checkany(L, 2);
  zp_buf *scratch = &sandbox_of(L)->key;
  int rc = zp_key_encode(L, 2, scratch);
  if (rc) return luaL_error(L, "%s", zp_error_detail());
  zp_bytes key = {scratch->data, scratch->size};
  view->read(view->context, &key);
  rc = view->get(view->context, key, value);
  return rc < 0 ? fail(L, rc) : rc;
}

static void push_value(lua_State *L, zp_bytes value) {
  int rc = zp_value_decode(L, value, ZP_DECODE_CODE | ZP_DECODE_NO_FINALISERS);
  if (rc) fail(L, rc);
}

static int view_get(lua_State *L) {
  zp_bytes value;
  lua_settop(L, 3);
  if (get(L, &value)) {
    push_value(L, value);
  } else {
    if (lua_isnil(L, 3)) sandbox_of(L)->read_absent = true;
    lua_pushvalue(L, 3);
  }
  return 1;
}

static int view_contains(lua_State *L) {
  zp_bytes value;
  lua_pushboolean(L, get(L, &value));
  return 1;
}

/* upvalue: the methods by name */
static int view_index(lua_State *L) {
  if (lua_type(L, 2) == LUA_TSTRING) {
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) {
      lua_getupvalue(L, -1, 1);
      sandbox_of(L)->fetched |= 1U << lua_tointeger(L, -1);
      lua_pop(L, 1);
      return 1;
    }
    lua_pop(L, 1);
  }
  zp_bytes value;
  if (get(L, &value)) {
    push_value(L, value);
  } else {
    sandbox_of(L)->read_absent = true;
    lua_pushnil(L);
  }
  return 1;
}

static int view_newindex(lua_State *L) {
  return luaL_error(L, "a predicate cannot change the state; it may only look at it");
}

/* Fetch the pairs after a key: the first `most` that there are. What was fetched before is overwritten. */
static const zp_page *fetch(lua_State *L, const zp_view *view, const zp_bytes *after, size_t most) {
  zp_page *page = &sandbox_of(L)->page;
  zp_buf_clear(&page->bytes, 2 * ZP_PAGE_BYTES);
  page->count = 0;
  int rc = view->walk(view->context, after, most, page);
  if (rc) fail(L, rc);
  return page;
}

/* Push a key, from bytes. */
static void push_key(lua_State *L, zp_bytes key) {
  int rc = zp_key_decode(L, key);
  if (rc) fail(L, rc);
}

/* What a table of all pairs is made of. */
typedef enum pairs_shape { BY_KEY, KEYS, VALUES, ITEMS } pairs_shape;

/* Add a pair to the table on top of the stack, which has `count` entries. */
static void add_pair(lua_State *L, pairs_shape shape, lua_Integer count, zp_bytes key, zp_bytes value) {
  if (shape == ITEMS) lua_createtable(L, 2, 0);
  if (shape != VALUES) push_key(L, key);
  if (shape == ITEMS) lua_rawseti(L, -2, 1);
  if (shape != KEYS) push_value(L, value);
  if (shape == ITEMS) lua_rawseti(L, -2, 2);
  if (shape == BY_KEY) lua_rawset(L, -3);
  else lua_rawseti(L, -2, count + 1);
}

enum { PAGE_FIRST = 16, PAGE_MOST = 512 /* pairs fetched at once; the first page is small, for walks that end soon */ };

/* Whether there may be pairs behind a page that was asked for `most`. */
static bool goes_on(const zp_page *page, size_t most) { return page->count >= most || page->bytes.size >= ZP_PAGE_BYTES; }

/* Push a table made of all pairs. */
static int push_pairs(lua_State *L, pairs_shape shape) {
  enum { LAST = 2 /* the last key of a page, which outlives the page as a string of Lua's */, TABLE };
  const zp_view *view = view_of(L);
  zp_bytes last, key = {"", 0}, value, *after = NULL;
  lua_Integer count = 0;
  const zp_page *page;
  depend_on_all(view);
  lua_settop(L, LAST);
  lua_newtable(L);
  do {
    page = fetch(L, view, after, PAGE_MOST);
    for (size_t offset = 0; zp_page_next(page, &offset, &key, &value);) add_pair(L, shape, count++, key, value);
    if (page->count == 0) break;
    lua_pushlstring(L, key.data, key.size);
    lua_replace(L, LAST);
    last.data = lua_tolstring(L, LAST, &last.size);
    after = &last;
  } while (goes_on(page, PAGE_MOST));
  lua_settop(L, TABLE);
  return 1;
}

static int view_copy(lua_State *L) { return push_pairs(L, BY_KEY); }
static int view_keys(lua_State *L) { return push_pairs(L, KEYS); }
static int view_values(lua_State *L) { return push_pairs(L, VALUES); }
static int view_items(lua_State *L) { return push_pairs(L, ITEMS); }

static int view_len(lua_State *L) {
  const zp_view *view = view_of(L);
  uint64_t count;
  depend_on_all(view);
  int rc = view->count(view->context, &count);
  if (rc) return fail(L, rc);
  lua_pushinteger(L, (lua_Integer)count);
  return 1;
}

/* The iterator of pairs(view), with what it has fetched: so a walk takes as little memory as a page, however large the state is. */
enum {
  UP_PAIRS = 1, /* a list: key, value, key, value, ... */
  UP_SIZE,      /* of that */
  UP_AT,        /* how far it is in that */
  UP_MOST,      /* pairs to fetch next; 0: there are no more */
  UP_LAST,      /* the last key, as bytes; nil at first */
  UP_COUNT = UP_LAST
};

static lua_Integer upvalue(lua_State *L, int which) { return lua_tointeger(L, lua_upvalueindex(which)); }

static void set_upvalue(lua_State *L, int which, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_replace(L, lua_upvalueindex(which));
}

/* Fetch the next page into the list. */
static void fetch_list(lua_State *L) {
  size_t most = (size_t)upvalue(L, UP_MOST);
  lua_Integer size = 0;
  zp_bytes last, key = {"", 0}, value, *after = NULL;
  if (lua_isstring(L, lua_upvalueindex(UP_LAST))) {
    last.data = lua_tolstring(L, lua_upvalueindex(UP_LAST), &last.size);
    after = &last;
  }
  const zp_page *page = fetch(L, view_of(L), after, most);
  for (size_t offset = 0; zp_page_next(page, &offset, &key, &value);) {
    push_key(L, key);
    lua_rawseti(L, lua_upvalueindex(UP_PAIRS), ++size);
    push_value(L, value);
    lua_rawseti(L, lua_upvalueindex(UP_PAIRS), ++size);
  }
  lua_pushlstring(L, key.data, key.size);
  lua_replace(L, lua_upvalueindex(UP_LAST));
  set_upvalue(L, UP_SIZE, size);
  set_upvalue(L, UP_AT, 0);
  set_upvalue(L, UP_MOST, !goes_on(page, most) ? 0 : most < PAGE_MOST ? 2 * (lua_Integer)most : PAGE_MOST);
}

static int next_pair(lua_State *L) {
  if (upvalue(L, UP_AT) >= upvalue(L, UP_SIZE) && upvalue(L, UP_MOST) > 0) fetch_list(L);
  lua_Integer at = upvalue(L, UP_AT);
  if (at >= upvalue(L, UP_SIZE)) return 0;
  set_upvalue(L, UP_AT, at + 2);
  lua_rawgeti(L, lua_upvalueindex(UP_PAIRS), at + 1);
  lua_rawgeti(L, lua_upvalueindex(UP_PAIRS), at + 2);
  return 2;
}

static int view_pairs(lua_State *L) {
  depend_on_all(view_of(L));
  lua_newtable(L);
  lua_pushinteger(L, 0);
  lua_pushinteger(L, 0);
  lua_pushinteger(L, PAGE_FIRST);
  lua_pushnil(L);
  lua_pushcclosure(L, next_pair, UP_COUNT);
  return 1;
}

static const luaL_Reg methods[] = {
    {"get", view_get},   {"contains", view_contains}, {"copy", view_copy},   {"keys", view_keys},
    {"values", view_values}, {"items", view_items},
};

/* A method as predicates have it; upvalue: which one. */
static int call_method(lua_State *L) {
  lua_Integer i = lua_tointeger(L, lua_upvalueindex(1));
  sandbox_of(L)->called |= 1U << i;
  if (!lua_istable(L, 1))
    return luaL_error(L, "the state is expected as the first argument, not a %s (is it state:%s(...), with a colon?)", luaL_typename(L, 1),
                      methods[i].name);
  return methods[i].func(L);
}

const char *zp_sandbox_uncalled(const zp_sandbox *sandbox) {
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
    if ((sandbox->fetched & ~sandbox->called) >> i & 1) return methods[i].name;
  return NULL;
}

static const luaL_Reg metamethods[] = {
    {"__newindex", view_newindex}, {"__len", view_len}, {"__pairs", view_pairs}, {NULL, NULL},
};

/* ---- what there is besides ---- */

/* What is not there, and what to do instead. */
static const struct {
  const char *names; /* with a space before and after each */
  const char *words;
} absent[] = {
    {" os os.time os.clock os.date os.difftime zproc zproc.time zproc.sleep ", "for a limit of time give the watcher the option timeout; "},
    {" print warn io io.write io.stdout io.stderr ", "print what the watcher returns, or what its handler gets; "},
    {" require package ", "use modules before and after the watcher, on what it returns; "},
    {" debug dofile loadfile load collectgarbage ", ""},
};

static const char *find_absent(const char *name) {
  char word[64];
  snprintf(word, sizeof word, " %.60s ", name);
  for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
    if (strstr(absent[i].names, word)) return absent[i].words;
  return NULL;
}

void zp_sandbox_advise(const char *name, char advice[ZP_SANDBOX_ADVICE_SIZE]) {
  char library[64];
  const char *words = find_absent(name);
  snprintf(library, sizeof library, "%.*s", (int)strcspn(name, "."), name);
  bool is_of_module = name[0] && !words && !find_absent(library) && strcmp(library, LUA_STRLIBNAME) != 0;
  if (is_of_module) words = "use it before and after the watcher, on what that returns; ";
  snprintf(advice, ZP_SANDBOX_ADVICE_SIZE,
           "%sput what else it needs into a local variable before, or into the state; of Lua's library it has the basic functions, string, table, "
           "math, utf8 and coroutine", words ? words : "");
}

/* What a script has and a predicate looks for in vain. */
static int absent_global(lua_State *L) {
  const char *name = lua_tostring(L, 2);
  char advice[ZP_SANDBOX_ADVICE_SIZE];
  if (!name || !find_absent(name)) return 0;
  zp_sandbox_advise(name, advice);
  return luaL_error(L, "'%s' is not there for a predicate: it is evaluated apart from the script, and may only look at the state that it "
                       "is given, and at what it captures; %s", name, advice);
}

void zp_sandbox_open(lua_State *L, zp_sandbox *sandbox) {
  *(zp_sandbox **)lua_getextraspace(L) = sandbox;
  zp_library_open(L);
  lua_pushglobaltable(L);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, absent_global);
  lua_setfield(L, -2, "__index");
  lua_setmetatable(L, -2);
  lua_pop(L, 1);

  zp_codec_open(L);
  /* Error objects may be values of the state; here they are tables with the same fields. */
  lua_newtable(L);
  zp_names_register(L, "zproc:Error");
  lua_newtable(L);
  zp_names_register(L, "zproc:ErrorClass");

  lua_newtable(L); /* the view */
  lua_newtable(L); /* its metatable */
  luaL_setfuncs(L, metamethods, 0);
  lua_newtable(L);
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
    lua_pushinteger(L, (lua_Integer)i);
    lua_pushcclosure(L, call_method, 1);
    lua_setfield(L, -2, methods[i].name);
  }
  lua_pushcclosure(L, view_index, 1);
  lua_setfield(L, -2, "__index");
  lua_pushliteral(L, "state");
  lua_setfield(L, -2, "__name");
  lua_pushboolean(L, 0);
  lua_setfield(L, -2, "__metatable");
  lua_setmetatable(L, -2);
}
