#include "bind/lnotepad.h"

#include <lauxlib.h>

#include "bind/core.h"
#include "bind/lclass.h"
#include "bind/lerror.h"

#define NOTEPAD "zproc.Notepad"

static _Thread_local zp_notepad *own;

void zp_lnotepad_set_own(zp_notepad *pad) { own = pad; }

static zp_notepad **new_handle(lua_State *L) {
  zp_notepad **pad = lua_newuserdatauv(L, sizeof *pad, 0);
  *pad = NULL;
  luaL_setmetatable(L, NOTEPAD);
  return pad;
}

/* core.notepad() -> Notepad, for a worker that is about to be started. */
static int core_notepad(lua_State *L) {
  int rc = zp_notepad_new(new_handle(L));
  return rc ? zp_lua_raise(L, rc) : 1;
}

/* core.own_notepad() -> that of this thread, or nil */
static int core_own_notepad(lua_State *L) {
  if (!own) return 0;
  *new_handle(L) = zp_notepad_keep(own);
  return 1;
}

zp_notepad *zp_lnotepad_get(lua_State *L, int index) {
  return lua_isnoneornil(L, index) ? NULL : *(zp_notepad **)luaL_checkudata(L, index, NOTEPAD);
}

static zp_notepad *check(lua_State *L) {
  zp_notepad *pad = zp_lnotepad_get(L, 1);
  if (!pad) zp_lua_usage(L, "this is no Notepad");
  return pad;
}

/* notepad:read() -> client, item, span: who the worker was, and what it was working on; nothing if it had not enlisted. */
static int notepad_read(lua_State *L) {
  const zp_notes *notes = zp_notepad_notes(check(L));
  if (!atomic_load(&notes->is_enlisted)) return 0;
  lua_pushlstring(L, (const char *)notes->client, sizeof notes->client);
  lua_pushinteger(L, (lua_Integer)atomic_load_explicit(&notes->item, memory_order_acquire));
  lua_pushinteger(L, (lua_Integer)atomic_load_explicit(&notes->span, memory_order_relaxed));
  return 3;
}

/* notepad:task() -> the task that the worker works for, and a number that is another one each time that it has begun to; or nil. */
static int notepad_task(lua_State *L) {
  const zp_notes *notes = zp_notepad_notes(check(L));
  uint64_t begun = atomic_load(&notes->begun), task = atomic_load(&notes->task);
  if (!task) return 0;
  lua_pushinteger(L, (lua_Integer)task);
  lua_pushinteger(L, (lua_Integer)begun);
  return 2;
}

/* notepad:call_off(task) -> whether the worker works for the task, so that it is to be urged */
static int notepad_call_off(lua_State *L) {
  lua_pushboolean(L, zp_notepad_call_off(check(L), (uint64_t)luaL_checkinteger(L, 2)));
  return 1;
}

/* notepad:retire(): let the worker end when it has nothing to do. */
static int notepad_retire(lua_State *L) {
  atomic_store(&zp_notepad_notes(check(L))->is_retired, true);
  return 0;
}

static int notepad_is_retired(lua_State *L) {
  lua_pushboolean(L, atomic_load(&zp_notepad_notes(check(L))->is_retired));
  return 1;
}

/* notepad:begin(task), notepad:finish(): of the worker itself */
static int notepad_begin(lua_State *L) {
  zp_notepad_begin(check(L), (uint64_t)luaL_checkinteger(L, 2));
  return 0;
}

static int notepad_finish(lua_State *L) {
  (void)L;
  zp_notepad_finish();
  return 0;
}

/* notepad:is_called_off() -> whether what this worker works for is not wanted any more */
static int notepad_is_called_off(lua_State *L) {
  lua_pushboolean(L, zp_notepad_is_called_off());
  return 1;
}

static int notepad_gc(lua_State *L) {
  zp_notepad_close(luaL_checkudata(L, 1, NOTEPAD));
  return 0;
}

static const luaL_Reg methods[] = {
    {"read", notepad_read},     {"task", notepad_task},     {"call_off", notepad_call_off},           {"begin", notepad_begin},
    {"finish", notepad_finish}, {"is_called_off", notepad_is_called_off}, {"retire", notepad_retire}, {"is_retired", notepad_is_retired},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"notepad", core_notepad},
    {"own_notepad", core_own_notepad},
    {NULL, NULL},
};

void zp_lnotepad_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  zp_lclass_new(L, NOTEPAD, methods, notepad_gc);
}
