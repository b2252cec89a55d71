/*
 * ltable -- the table of processes for Lua: core.open_table and the Table that it gives.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/err.h"
#include "bind/core.h"
#include "bind/lbuf.h"
#include "bind/lclass.h"
#include "bind/lerror.h"
#include "sys/interrupt.h"
#include "sys/table.h"

#define TABLE "zproc.Table"

/* A table in which this process has enlisted itself. It stays open until the process ends, when its exit code is noted. */
typedef struct membership {
  zp_table *table;
  zp_table_row row;
  pid_t pid;
  struct membership *next;
} membership;

/* Each thread has its own, as it has a VM of its own; exit() is called by the first one. */
static _Thread_local membership *memberships;

typedef struct handle {
  zp_table *table;
  membership *member; /* NULL: this process is in the table by other means, or not at all */
  bool detached;
} handle;

static handle *check_handle(lua_State *L, int index) {
  handle *self = luaL_checkudata(L, index, TABLE);
  if (!self->table) zp_lua_usage(L, "this table of processes was closed");
  return self;
}

zp_table *zp_ltable_get(lua_State *L, int index) {
  return lua_isnoneornil(L, index) ? NULL : check_handle(L, index)->table;
}

void zp_ltable_note_exit(int status) {
  for (membership *member = memberships; member; member = member->next)
    if (member->pid == getpid()) zp_table_end(member->row, member->pid, status & 0xFF);
}

/* Called by exit(); forked children end without it. */
static void on_exit_of_process(int status, void *unused) {
  (void)unused;
  zp_ltable_note_exit(status);
}

/* core.open_table(directory) -> Table */
static int core_open_table(lua_State *L) {
  const char *directory = luaL_checkstring(L, 1);
  handle *self = lua_newuserdatauv(L, sizeof *self, 0);
  *self = (handle){NULL, NULL, false};
  luaL_setmetatable(L, TABLE);
  int rc = zp_table_open(directory, &self->table);
  return rc ? zp_lua_raise(L, rc) : 1;
}

/* table:enlist(name): list this process, unless it is listed already. */
static int table_enlist(lua_State *L) {
  static _Thread_local bool watches_exit; /* children inherit that */
  handle *self = check_handle(L, 1);
  const char *name = luaL_checkstring(L, 2);
  zp_lchild_announce();
  if (self->member) return 0;
  membership *member = malloc(sizeof *member);
  if (!member) return zp_lua_raise(L, zp_fail(ZP_ENOMEM, "out of memory"));
  *member = (membership){self->table, zp_table_enlist(self->table, name), getpid(), memberships};
  if (!member->row.file) {
    free(member);
    return 0;
  }
  memberships = self->member = member;
  if (!watches_exit && !zp_interrupt_is_in_thread()) watches_exit = on_exit(on_exit_of_process, NULL) == 0;
  return 0;
}

static const char *const states[] = {
    [ZP_PROCESS_RUNNING] = "running",
    [ZP_PROCESS_RETRYING] = "retrying",
    [ZP_PROCESS_EXITED] = "exited",
    [ZP_PROCESS_GONE] = "gone",
};

void zp_ltable_push_rows(lua_State *L, zp_bytes rows) {
  int count = (int)(rows.size / sizeof(zp_process));
  lua_createtable(L, count, 0);
  for (int i = 0; i < count; i++) {
    zp_process row; /* the bytes may lie anywhere */
    memcpy(&row, (const char *)rows.data + (size_t)i * sizeof row, sizeof row);
    row.name[sizeof row.name - 1] = '\0';
    lua_createtable(L, 0, 7);
    lua_pushstring(L, row.name);
    lua_setfield(L, -2, "name");
    lua_pushinteger(L, row.pid);
    lua_setfield(L, -2, "pid");
    lua_pushinteger(L, row.parent);
    lua_setfield(L, -2, "parent");
    lua_pushstring(L, states[row.state <= ZP_PROCESS_GONE ? row.state : ZP_PROCESS_GONE]);
    lua_setfield(L, -2, "state");
    lua_pushnumber(L, row.started);
    lua_setfield(L, -2, "started");
    lua_pushinteger(L, row.tries);
    lua_setfield(L, -2, "tries");
    if (row.state == ZP_PROCESS_EXITED) {
      lua_pushinteger(L, row.exitcode);
      lua_setfield(L, -2, "exitcode");
    }
    lua_rawseti(L, -2, i + 1);
  }
}

/* table:list() -> { { name =, pid =, parent =, state =, started =, tries =, exitcode = }, ... } in the order of starts. */
static int table_list(lua_State *L) {
  handle *self = check_handle(L, 1);
  zp_buf *rows = zp_lbuf_push(L);
  zp_lchild_announce();
  int rc = zp_table_list(self->table, rows);
  if (rc) return zp_lua_raise(L, rc);
  zp_ltable_push_rows(L, zp_buf_bytes(rows));
  return 1;
}

/* table:detach(): the server is no more; give its memory back. */
static int table_detach(lua_State *L) {
  handle *self = check_handle(L, 1);
  zp_table_detach(self->table);
  self->detached = true;
  return 0;
}

static int table_gc(lua_State *L) {
  handle *self = luaL_checkudata(L, 1, TABLE);
  if (self->member) {
    if (!self->detached) return 0; /* its end will be noted there */
    membership **link = &memberships;
    while (*link != self->member) link = &(*link)->next;
    *link = self->member->next;
    free(self->member);
    self->member = NULL;
  }
  zp_table_close(&self->table);
  return 0;
}

static const luaL_Reg functions[] = {
    {"open_table", core_open_table},
    {NULL, NULL},
};

static const luaL_Reg methods[] = {
    {"enlist", table_enlist},
    {"list", table_list},
    {"detach", table_detach},
    {NULL, NULL},
};

void zp_ltable_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  zp_lclass_new(L, TABLE, methods, table_gc);
}
