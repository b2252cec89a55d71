#include "config.h"

#include "bind/core.h"

#include <lauxlib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "bind/embedded.h"
#include "bind/lbuf.h"
#include "bind/lerror.h"
#include "bind/lio.h"
#include "bind/lrandom.h"
#include "bind/lsignal.h"
#include "codec/key.h"
#include "codec/names.h"
#include "codec/value.h"
#include "sys/interrupt.h"

/* core.encode(value [, root]) -> bytes */
static int core_encode(lua_State *L) {
  luaL_checkany(L, 1);
  const char *root = luaL_optstring(L, 2, NULL);
  lua_settop(L, 2);
  zp_buf *bytes = zp_lbuf_push(L);
  int rc = zp_value_encode(L, 1, root, bytes);
  if (rc) return zp_lua_raise(L, rc);
  lua_pushlstring(L, (const char *)bytes->data, bytes->size);
  return 1;
}

/* core.decode(bytes) -> value */
static int core_decode(lua_State *L) {
  size_t size;
  const char *data = luaL_checklstring(L, 1, &size);
  int rc = zp_value_decode(L, (zp_bytes){data, size}, ZP_DECODE_CODE);
  return rc ? zp_lua_raise(L, rc) : 1;
}

/* core.check_key(key): raises if it cannot be a key of a state. */
static int core_check_key(lua_State *L) {
  lua_settop(L, 1);
  zp_buf *bytes = zp_lbuf_push(L);
  int rc = zp_key_encode(L, 1, bytes);
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* core.register(name, value): let a library's value travel by name. */
static int core_register(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  lua_settop(L, 2);
  zp_names_register(L, name);
  return 0;
}

/* core.look_at_modules(): modules that came since, and their fields, have names from now on. */
static int core_look_at_modules(lua_State *L) {
  zp_names_refresh(L);
  return 0;
}

/* core.has_name(value) -> whether it travels by name. */
static int core_has_name(lua_State *L) {
  luaL_checkany(L, 1);
  lua_pushboolean(L, zp_names_find(L, 1));
  return 1;
}

/* core.set_error_metatable(table) */
static int core_set_error_metatable(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  zp_lua_set_error_metatable(L);
  return 0;
}

static const luaL_Reg functions[] = {
    {"encode", core_encode},
    {"decode", core_decode},
    {"check_key", core_check_key},
    {"register", core_register},
    {"look_at_modules", core_look_at_modules},
    {"has_name", core_has_name},
    {"set_error_metatable", core_set_error_metatable},
    {NULL, NULL},
};

static int open_core(lua_State *L) {
  luaL_newlib(L, functions);
  lua_pushlightuserdata(L, NULL);
  lua_setfield(L, -2, "null");
  lua_pushliteral(L, PACKAGE_VERSION);
  lua_setfield(L, -2, "version");
  zp_lstate_open(L);
  zp_lchild_open(L);
  zp_leditor_open(L);
  zp_lequal_open(L);
  zp_lfirst_open(L);
  zp_lnet_open(L);
  zp_lnotepad_open(L);
  zp_lqueue_open(L);
  zp_lrandom_open(L);
  zp_lremote_open(L);
  zp_lrqueue_open(L);
  zp_lrun_open(L);
  zp_lrunner_open(L);
  zp_lserver_open(L);
  zp_lsignal_open(L);
  zp_lsys_open(L);
  zp_ltable_open(L);
  zp_lthread_open(L);
  zp_lwatch_open(L);
  return 1;
}

/* Each thread has a VM, which loads the modules anew, and nearly all of that time goes into compiling them. So the first thread that has
   compiled one leaves it to the others. It is kept for as long as the process runs: by the very Lua that made it, so it is sure to be read. */
enum { MODULES_MAX = 128 };
static zp_buf *_Atomic compiled[MODULES_MAX];

static int write_compiled(lua_State *L, const void *data, size_t size, void *context) {
  (void)L;
  return zp_buf_append(context, data, size) ? 1 : 0;
}

/* Leave the function on top of the stack to others; if there is no memory for that, they compile it themselves. */
static void leave_compiled(lua_State *L, size_t index) {
  zp_buf *bytes = calloc(1, sizeof *bytes), *none = NULL;
  if (bytes && lua_dump(L, write_compiled, bytes, false) == 0 && atomic_compare_exchange_strong(&compiled[index], &none, bytes)) return;
  if (bytes) zp_buf_free(bytes);
  free(bytes);
}

/* The loader of an embedded module; upvalue: its row. The chunk name "=zproc.x" keeps tracebacks readable. */
static int load_embedded(lua_State *L) {
  const struct zp_embedded *module = lua_touserdata(L, lua_upvalueindex(1));
  size_t index = (size_t)(module - zp_embedded_modules);
  bool is_shared = zp_interrupt_is_in_thread() && index < MODULES_MAX;
  const zp_buf *bytes = is_shared ? atomic_load(&compiled[index]) : NULL;
  char chunk[64];
  snprintf(chunk, sizeof chunk, "=%s", module->name);
  int status = bytes ? luaL_loadbufferx(L, (const char *)bytes->data, bytes->size, chunk, "b")
                     : luaL_loadbufferx(L, (const char *)module->source, module->size, chunk, "t");
  if (status != LUA_OK) return lua_error(L);
  if (is_shared && !bytes) leave_compiled(L, index);
  lua_pushstring(L, module->name);
  lua_call(L, 1, 1);
  return 1;
}

/* Lua makes the metatable of its large buffers when the first one is needed. Should memory be short at that moment, it would have half a
   metatable for ever, and every large buffer would fail from then on; so it is made now. */
static void prepare_buffers(lua_State *L) {
  luaL_Buffer buffer;
  luaL_buffinitsize(L, &buffer, LUAL_BUFFERSIZE + 1);
  luaL_pushresultsize(&buffer, 0);
  lua_pop(L, 1);
}

static void install(lua_State *L, void (*open_codec)(lua_State *)) {
  prepare_buffers(L);
  zp_lsignal_install(L);
  zp_lio_install(L);
  zp_lrandom_install(L);
  open_codec(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_pushcfunction(L, open_core);
  lua_setfield(L, -2, "zproc.core");
  for (const struct zp_embedded *module = zp_embedded_modules; module->name; module++) {
    lua_pushlightuserdata(L, (void *)module);
    lua_pushcclosure(L, load_embedded, 1);
    lua_setfield(L, -2, module->name);
  }
  lua_pop(L, 1);
}

void zp_core_install(lua_State *L) {
  install(L, zp_codec_open);
  zp_lrandom_seed(L);
}

void zp_core_install_late(lua_State *L) { install(L, zp_codec_open_late); }
