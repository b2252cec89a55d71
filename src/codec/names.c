/*
 * Four tables in the registry, each under the address of a static:
 *
 *   names       object -> its name; weak keys, so that a module that is given up can be collected
 *   registered  name -> value; what the libraries had at zp_codec_open, and what zp_names_register was given
 *   scanned     module name -> the value whose fields are in names; weak values
 *   baseline    global -> its value at zp_codec_open
 *
 * A name is a string in one of three shapes: "module", "module\0field" and "prefix:name". No module with a colon or a
 * zero byte in its name is given one, so the shapes cannot be confused.
 *
 * What was there at the opening keeps its name for good, and the name its value, even where the script puts something
 * else in its place: `local real_print = print; function print(...) ... real_print(...) end` works on arrival. What
 * came later has a name only as long as the module still has it under that name.
 */
#include "codec/names.h"

#include <stdint.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/err.h"
#include "codec/scratch.h"

static const char names_key, registered_key, scanned_key, baseline_key, fingerprint_key;

/* An object known under two names gets the better one: what was there at the opening before what came later, a module
   before a field, then the shorter, then the first in byte order. */
static bool is_better(const char *name, size_t size, const char *other, size_t other_size) {
  bool field = memchr(name, 0, size) != NULL, other_field = memchr(other, 0, other_size) != NULL;
  if (field != other_field) return other_field;
  if (size != other_size) return size < other_size;
  return memcmp(name, other, size) < 0;
}

/* Name the object at idx (absolute) with the string on top, unless it has a better one; pops the name. */
static void add_name(lua_State *L, int names, int registered, int idx, bool opening) {
  size_t size, old_size;
  const char *name = lua_tolstring(L, -1, &size);
  lua_pushvalue(L, idx);
  if (lua_rawget(L, names) == LUA_TSTRING) {
    const char *old = lua_tolstring(L, -1, &old_size);
    bool keep = is_better(old, old_size, name, size);
    if (!opening && !keep) {
      lua_pushvalue(L, -1);
      keep = lua_rawget(L, registered) != LUA_TNIL;
      lua_pop(L, 1);
    }
    if (keep) {
      lua_pop(L, 2);
      return;
    }
  }
  lua_pop(L, 1);
  lua_pushvalue(L, idx);
  lua_pushvalue(L, -2);
  lua_rawset(L, names);
  lua_pop(L, 1);
}

static bool can_be_named(int type) { return type == LUA_TTABLE || type == LUA_TFUNCTION; }

/* Name the module whose value is on top and whose name is the string below it, and its fields. Leaves both. */
static void scan_module(lua_State *L, int names, int registered, bool opening) {
  int module = lua_gettop(L), name = module - 1;
  size_t size;
  const char *text = lua_tolstring(L, name, &size);
  if (size == 0 || memchr(text, ':', size) || memchr(text, 0, size)) return;
  if (!can_be_named(lua_type(L, module))) return;
  if (opening) {
    lua_pushvalue(L, name);
    lua_pushvalue(L, module);
    lua_rawset(L, registered);
  }
  lua_pushvalue(L, name);
  add_name(L, names, registered, module, opening);
  if (lua_type(L, module) != LUA_TTABLE) return;
  lua_pushnil(L);
  while (lua_next(L, module)) {
    if (lua_type(L, -2) == LUA_TSTRING && can_be_named(lua_type(L, -1))) {
      lua_pushvalue(L, name);
      lua_pushlstring(L, "", 1);
      lua_pushvalue(L, -4);
      lua_concat(L, 3);
      if (opening) {
        lua_pushvalue(L, -1);
        lua_pushvalue(L, -3);
        lua_rawset(L, registered);
      }
      add_name(L, names, registered, lua_gettop(L) - 1, opening);
    }
    lua_pop(L, 1);
  }
}

/* A number that changes when a module comes, goes or is replaced. Short strings, as names are, are told by address. */
static lua_Integer take_fingerprint(lua_State *L, int loaded) {
  uint64_t sum = 0;
  lua_pushnil(L);
  while (lua_next(L, loaded)) {
    if (lua_type(L, -2) == LUA_TSTRING) {
      uint64_t mix = (uint64_t)(uintptr_t)lua_tostring(L, -2) * UINT64_C(0x9e3779b97f4a7c15);
      mix ^= (uint64_t)(uintptr_t)lua_topointer(L, -1);
      sum += mix * UINT64_C(0xff51afd7ed558ccd);
    }
    lua_pop(L, 1);
  }
  return (lua_Integer)sum;
}

static void scan_modules(lua_State *L, bool opening) {
  luaL_checkstack(L, 16, "names of modules");
  int base = lua_gettop(L);
  if (lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) == LUA_TTABLE) {
    int loaded = base + 1, names = base + 2, registered = base + 3, scanned = base + 4;
    lua_Integer fingerprint = take_fingerprint(L, loaded);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &fingerprint_key);
    bool same = lua_isinteger(L, -1) && lua_tointeger(L, -1) == fingerprint;
    lua_pop(L, 1);
    if (!same || opening) {
      lua_rawgetp(L, LUA_REGISTRYINDEX, &names_key);
      lua_rawgetp(L, LUA_REGISTRYINDEX, &registered_key);
      lua_rawgetp(L, LUA_REGISTRYINDEX, &scanned_key);
      lua_pushnil(L);
      while (lua_next(L, loaded)) {
        if (lua_type(L, -2) == LUA_TSTRING) {
          lua_pushvalue(L, -2);
          lua_rawget(L, scanned);
          bool known = lua_rawequal(L, -1, -2);
          lua_pop(L, 1);
          if (!known) {
            scan_module(L, names, registered, opening);
            lua_pushvalue(L, -2);
            lua_pushvalue(L, -2);
            lua_rawset(L, scanned);
          }
        }
        lua_pop(L, 1);
      }
      lua_pushinteger(L, fingerprint); /* last: a scan that ran out of memory is begun again */
      lua_rawsetp(L, LUA_REGISTRYINDEX, &fingerprint_key);
    }
  }
  lua_settop(L, base);
}

static void new_registry_table(lua_State *L, const void *key, const char *mode) {
  lua_newtable(L);
  if (mode) {
    lua_createtable(L, 0, 1);
    lua_pushstring(L, mode);
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
  }
  lua_rawsetp(L, LUA_REGISTRYINDEX, key);
}

static void new_registry_tables(lua_State *L) {
  new_registry_table(L, &names_key, "k");
  new_registry_table(L, &registered_key, NULL);
  new_registry_table(L, &scanned_key, "v");
}

void zp_names_open(lua_State *L) {
  luaL_checkstack(L, 8, "names of modules");
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &baseline_key) == LUA_TNIL) {
    new_registry_tables(L);
    scan_modules(L, true);
    lua_newtable(L);
    lua_pushglobaltable(L);
    lua_pushnil(L);
    while (lua_next(L, -2)) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, -5);
    }
    lua_pop(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &baseline_key);
  }
  lua_pop(L, 1);
}

/* ---- opening late ----
   What Lua has of its own a VM tells that has run nothing yet. Its functions are those of any other VM of the program, so they are found
   even if the script has put its own in their places. */

static int close_fresh(lua_State *L) {
  lua_State **fresh = lua_touserdata(L, 1);
  if (*fresh) lua_close(*fresh);
  *fresh = NULL;
  return 0;
}

static int open_libraries(lua_State *fresh) {
  luaL_openlibs(fresh);
  return lua_getfield(fresh, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) == LUA_TTABLE ? 1 : luaL_error(fresh, "no table of modules");
}

/* Push a VM with its table of modules on top. It is closed when what is pushed onto L, or an error, is collected. */
static lua_State *push_fresh(lua_State *L) {
  lua_State **fresh = lua_newuserdatauv(L, sizeof *fresh, 0);
  *fresh = NULL;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, close_fresh);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  *fresh = luaL_newstate();
  if (!*fresh || !lua_checkstack(*fresh, 8)) luaL_error(L, "not enough memory");
  lua_pushcfunction(*fresh, open_libraries);
  if (lua_pcall(*fresh, 0, 1, 0) != LUA_OK) luaL_error(L, "not enough memory");
  return *fresh;
}

/* The value on top of L, which the script may have put there, becomes that of the library, if the other VM has one on top. */
static void restore(lua_State *L, lua_State *fresh) {
  int type = lua_type(fresh, -1);
  if (lua_type(L, -1) == type && (type != LUA_TFUNCTION || lua_iscfunction(L, -1))) return;
  bool is_plain = lua_iscfunction(fresh, -1);
  if (is_plain && lua_getupvalue(fresh, -1, 1)) { /* it is one with what belongs to its VM */
    lua_pop(fresh, 1);
    is_plain = false;
  }
  lua_pop(L, 1);
  if (is_plain) lua_pushcfunction(L, lua_tocfunction(fresh, -1));
  else lua_pushnil(L);
}

/* Name the fields of a library. On fresh its name and itself; `here` is what the script calls so, with a table of what it has by now. */
static void open_library(lua_State *L, lua_State *fresh, int here, int names, int registered, int baseline) {
  const char *name = lua_tostring(fresh, -2);
  bool is_global = strcmp(name, LUA_GNAME) == 0;
  lua_pushnil(fresh);
  while (lua_next(fresh, -2)) {
    if (lua_type(fresh, -2) == LUA_TSTRING) {
      lua_pushstring(L, lua_tostring(fresh, -2));
      lua_rawget(L, here);
      restore(L, fresh);
      int value = lua_gettop(L);
      if (is_global && !lua_isnil(L, value)) {
        lua_pushvalue(L, value);
        lua_setfield(L, baseline, lua_tostring(fresh, -2));
      }
      if (can_be_named(lua_type(L, value))) {
        lua_pushstring(L, name);
        lua_pushlstring(L, "", 1);
        lua_pushstring(L, lua_tostring(fresh, -2));
        lua_concat(L, 3);
        lua_pushvalue(L, -1);
        lua_pushvalue(L, value);
        lua_rawset(L, registered);
        add_name(L, names, registered, value, true);
      }
      lua_settop(L, value - 1);
    }
    lua_pop(fresh, 1);
  }
}

void zp_names_open_late(lua_State *L) {
  luaL_checkstack(L, 20, "names of modules");
  int base = lua_gettop(L), loaded = base + 1, names = base + 2, registered = base + 3, scanned = base + 4, baseline = base + 5, here = base + 7;
  new_registry_tables(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &names_key);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &registered_key);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &scanned_key);
  lua_newtable(L);
  lua_State *fresh = push_fresh(L);
  lua_pushnil(fresh);
  while (lua_next(fresh, -2)) {
    lua_getfield(L, loaded, lua_tostring(fresh, -2)); /* the keys are strings all */
    if (lua_istable(L, here)) {
      lua_pushstring(L, lua_tostring(fresh, -2));
      lua_pushvalue(L, here);
      lua_rawset(L, scanned);
      lua_pushstring(L, lua_tostring(fresh, -2));
      lua_pushvalue(L, here);
      lua_rawset(L, registered);
      lua_pushstring(L, lua_tostring(fresh, -2));
      add_name(L, names, registered, here, true);
      open_library(L, fresh, here, names, registered, baseline);
    }
    lua_settop(L, here - 1);
    lua_pop(fresh, 1);
  }
  lua_pushvalue(L, baseline);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &baseline_key); /* last: it says that all is there */
  lua_settop(L, base);
}

void zp_names_register(lua_State *L, const char *name) {
  zp_names_open(L);
  luaL_checkstack(L, 4, "names of values");
  lua_rawgetp(L, LUA_REGISTRYINDEX, &registered_key);
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, name);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &names_key);
  lua_pushvalue(L, -3);
  lua_pushstring(L, name);
  lua_rawset(L, -3);
  if (lua_type(L, -3) == LUA_TTABLE) zp_scratch_mark(L, lua_topointer(L, -3));
  lua_pop(L, 3);
}

void zp_names_refresh(lua_State *L) {
  zp_names_open(L);
  scan_modules(L, false);
}

/* Push the value of a name if it is there without requiring anything; else push nothing and return false. */
static bool push_present(lua_State *L, const char *name, size_t size) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &registered_key);
  if (lua_type(L, -1) == LUA_TTABLE) {
    lua_pushlstring(L, name, size);
    if (lua_rawget(L, -2) != LUA_TNIL) {
      lua_remove(L, -2);
      return true;
    }
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  if (lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) != LUA_TTABLE) {
    lua_pop(L, 1);
    return false;
  }
  const char *field = memchr(name, 0, size);
  lua_pushlstring(L, name, field ? (size_t)(field - name) : size);
  lua_rawget(L, -2);
  lua_remove(L, -2);
  if (field && lua_type(L, -1) == LUA_TTABLE) {
    lua_pushlstring(L, field + 1, size - (size_t)(field + 1 - name));
    lua_rawget(L, -2);
    lua_remove(L, -2);
  } else if (field) {
    lua_pop(L, 1);
    return false;
  }
  if (lua_type(L, -1) != LUA_TNIL) return true;
  lua_pop(L, 1);
  return false;
}

bool zp_names_find(lua_State *L, int idx) {
  idx = lua_absindex(L, idx);
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &names_key) != LUA_TTABLE) {
    lua_pop(L, 1);
    return false;
  }
  lua_pushvalue(L, idx);
  lua_rawget(L, -2);
  lua_remove(L, -2);
  if (lua_type(L, -1) == LUA_TSTRING) {
    size_t size;
    const char *name = lua_tolstring(L, -1, &size);
    if (push_present(L, name, size)) {
      bool same = lua_rawequal(L, -1, idx);
      lua_pop(L, 1);
      if (same) return true;
    }
  }
  lua_pop(L, 1);
  return false;
}

/* With require and the name of a module on top: the module, or ZP_EDECODE with what was raised. An error object, by which a process is
   interrupted or ended, say, is raised again. */
static int require_module(lua_State *L, const char *name, int shown) {
  int status = lua_pcall(L, 1, 1, 0);
  if (status == LUA_OK) return 0;
  if (status == LUA_ERRMEM) return lua_error(L);
  if (lua_getmetatable(L, -1)) {
    bool is_registered = zp_names_find(L, -1);
    lua_pop(L, is_registered ? 2 : 1);
    if (is_registered) return lua_error(L);
  }
  const char *words = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "what it raises is no string";
  /* What Lua says of a module that it does not find goes on with all the places that it has looked at. */
  const char *end = strstr(words, "' not found:\n");
  int length = end ? (int)(end - words) + 11 : (int)strlen(words);
  int rc = zp_fail(ZP_EDECODE, "it uses the module '%.*s', which cannot be loaded here: %.*s", shown, name, length, words);
  lua_pop(L, 1);
  return rc;
}

/* What is not there yet: require the module, then look again. */
int zp_names_resolve(lua_State *L, const char *name, size_t size) {
  if (push_present(L, name, size)) return 0;
  const char *field = memchr(name, 0, size);
  int shown = (int)(size < 200 ? size : 200);
  if (memchr(name, ':', size))
    return zp_fail(ZP_EDECODE, "the value names '%.*s', which is not registered here", shown, name);
  if (size == 0 || name == field) return zp_fail(ZP_EDECODE, "the value has an empty name in it");
  size_t module_size = field ? (size_t)(field - name) : size;
  lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
  if (lua_type(L, -1) == LUA_TTABLE) {
    lua_pushlstring(L, name, module_size);
    lua_rawget(L, -2);
    lua_remove(L, -2);
  }
  bool loaded = lua_toboolean(L, -1);
  lua_pop(L, 1);
  if (!loaded) {
    if (!push_present(L, "_G\0require", sizeof "_G\0require" - 1))
      return zp_fail(ZP_EDECODE, "it uses '%.*s%s%.*s', which is not there", (int)(module_size < 200 ? module_size : 200), name,
                     field ? "." : "", field ? (int)(size - module_size - 1 < 100 ? size - module_size - 1 : 100) : 0, field ? field + 1 : "");
    lua_pushlstring(L, name, module_size);
    int rc = require_module(L, name, (int)(module_size < 200 ? module_size : 200));
    if (rc) return rc;
    if (!field && can_be_named(lua_type(L, -1))) return 0;
    lua_pop(L, 1);
    if (push_present(L, name, size)) return 0;
  }
  if (!field) return zp_fail(ZP_EDECODE, "module '%.*s' has no value here", shown, name);
  if (module_size == 2 && memcmp(name, "_G", 2) == 0)
    return zp_fail(ZP_EDECODE, "it uses '%.*s', which is not there", shown < 3 ? 0 : shown - 3, field + 1);
  return zp_fail(ZP_EDECODE, "module '%.*s' has no field '%.*s' here", shown, name,
                 (int)(size - module_size - 1 < 200 ? size - module_size - 1 : 200), field + 1);
}

bool zp_names_is_script_global(lua_State *L, int idx) {
  int base = lua_gettop(L);
  idx = lua_absindex(L, idx);
  lua_pushglobaltable(L);
  lua_pushvalue(L, idx);
  bool mine = lua_rawget(L, base + 1) != LUA_TNIL;
  if (mine && lua_rawgetp(L, LUA_REGISTRYINDEX, &baseline_key) == LUA_TTABLE) {
    lua_pushvalue(L, idx);
    lua_rawget(L, base + 3);
    mine = !lua_rawequal(L, base + 2, base + 4);
  }
  lua_settop(L, base);
  return mine;
}
