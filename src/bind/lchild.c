/*
 * lchild -- forked processes for Lua: core.start and the Child that it gives.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "bind/core.h"
#include "bind/lbuf.h"
#include "bind/lclass.h"
#include "bind/lerror.h"
#include "bind/lrandom.h"
#include "bind/lsignal.h"
#include "sys/child.h"
#include "sys/interrupt.h"
#include "sys/output.h"
#include "sys/table.h"
#include "sys/thread.h"

#define CHILD "zproc.Child"

static zp_child *check_child_at(lua_State *L, int idx) { return *(zp_child **)luaL_checkudata(L, idx, CHILD); }

zp_child *zp_lchild_test(lua_State *L, int index) {
  zp_child **child = luaL_testudata(L, index, CHILD);
  return child ? *child : NULL;
}

static zp_child *check_child(lua_State *L) { return check_child_at(L, 1); }

/* core.check_fork(): raises within an atomic function, where a process cannot be started: it would inherit a lock that it does not
   hold. */
static int core_check_fork(lua_State *L) {
  if (zp_lstate_in_atomic()) return zp_lua_usage(L, "a process cannot be started within an atomic function: start it when that has returned");
  return 0;
}

/* Whether this process was started by core.start, and whether something was made in this thread of it that wants to be closed. */
static bool is_child;
static _Thread_local bool has_closables;

/* In a process that was started by core.start: its own handle. */
static zp_child *own_child;

/* Its row in the table of processes. */
static zp_table_row own_row;

void zp_lchild_announce(void) {
  if (is_child) zp_table_start(own_row, getpid());
}

/* core.note_try(tries, asleep): which try of its target this process, a child, is at, the first is 1; asleep: it waits before the
   next one. */
static int core_note_try(lua_State *L) {
  if (zp_interrupt_is_in_thread()) return 0;
  zp_lchild_announce();
  if (is_child) zp_table_note_try(own_row, (unsigned)luaL_checkinteger(L, 1), lua_toboolean(L, 2));
  return 0;
}

/* core.is_child(): whether this process, or thread, was started by another one of zproc. */
static int core_is_child(lua_State *L) {
  lua_pushboolean(L, is_child || zp_interrupt_is_in_thread());
  return 1;
}

/* core.note_closable(): there is something to do before this process ends. */
static int core_note_closable(lua_State *L) {
  (void)L;
  has_closables = true;
  return 0;
}

/* How a target has ended. */
typedef struct ending {
  lua_State *thread;
  int status, results;
} ending;

/* Under protection, since whatever is raised here would unwind into what the child has inherited of its parent. Arguments: Child,
   name, finish, an ending. Returns the exit status. */
static int finish_child(lua_State *L) {
  const ending *end = lua_touserdata(L, 4);
  const char *words = end->status == LUA_OK ? "returned" : end->status == LUA_YIELD ? "yielded" : "raised";
  luaL_checkstack(L, end->results + 8, "the target returned too many values");
  lua_settop(L, 3);
  lua_insert(L, 1); /* finish, Child, name */
  lua_pushstring(L, words);
  lua_pushthread(end->thread);
  lua_xmove(end->thread, L, 1);
  lua_xmove(end->thread, L, end->results);
  lua_call(L, 4 + end->results, 1);
  return 1;
}

/* What was printed and could not be written is a failure, of which there is a word. */
static _Noreturn void end_child(int status) {
  zp_output_flush();
  if (status == EXIT_SUCCESS && zp_output_failure()) {
    fprintf(stderr, "zproc: process %d: standard output: %s\n", (int)getpid(), strerror(zp_output_failure()));
    status = EXIT_FAILURE;
  }
  zp_ltable_note_exit(status);
  zp_child_exit(status);
}

/* Whether whoever has started this process has asked it to end. */
static bool is_to_stop(void) { return own_child && zp_child_is_to_stop(own_child); }

/* In the child: run the coroutine, whose arguments are on its stack, and end the process. Stack: ..., name, finish, Child.
   A target that returns nothing ends at once: each page that is not touched here is a page fault less. */
static _Noreturn void run_child(lua_State *L, lua_State *thread, int arguments, zp_table_row row, bool is_worker) {
  is_child = true;
  own_row = row;
  own_child = check_child_at(L, lua_gettop(L));
  has_closables = false;
  zp_output_set_name(lua_tostring(L, lua_gettop(L) - 2));
  zp_thread_set_name(lua_tostring(L, lua_gettop(L) - 2));
  zp_interrupt_resume();
  zp_interrupt_release_once();
  if (is_worker) zp_interrupt_defer(is_to_stop);
  zp_lrandom_seed(L);
  ending end = {.thread = thread};
  end.status = zp_lsignal_resume(L, thread, arguments, &end.results);
  bool is_plain = end.status == LUA_OK && end.results == 0 && !has_closables;
  if (is_plain) zp_output_flush();
  if (is_plain && !zp_interrupt_has_signal() && !zp_output_failure()) end_child(0);

  if (end.status != LUA_OK && end.status != LUA_YIELD) end.results = 1; /* the error */
  int child = lua_gettop(L), exit_status = EXIT_FAILURE;
  lua_pushcfunction(L, finish_child);
  lua_pushvalue(L, child);
  lua_pushvalue(L, child - 2);
  lua_pushvalue(L, child - 1);
  lua_pushlightuserdata(L, &end);
  if (lua_pcall(L, 4, 1, 0) == LUA_OK)
    exit_status = (int)lua_tointeger(L, -1);
  else
    fprintf(stderr, "zproc: process %d could not report how it ended: %s\n", (int)getpid(), lua_tostring(L, -1));
  end_child(exit_status);
}

/* core.start(table, die_with_parent, is_worker, thread, name, finish, argument...) -> Child. In a new process, which is listed in the table
   (nil: nowhere), run the coroutine with the arguments; finish(child, name, "returned" | "raised" | "yielded", thread, result...)
   then gives the exit status, unless there is nothing to finish. */
static int core_start(lua_State *L) {
  core_check_fork(L);
  zp_table *table = zp_ltable_get(L, 1);
  bool die_with_parent = lua_toboolean(L, 2);
  bool is_worker = lua_toboolean(L, 3);
  lua_State *thread = lua_tothread(L, 4);
  luaL_argexpected(L, thread, 4, "thread");
  const char *name = luaL_checkstring(L, 5);
  luaL_checktype(L, 6, LUA_TFUNCTION);
  int arguments = lua_gettop(L) - 6;
  if (!lua_checkstack(thread, arguments + 4)) return zp_lua_usage(L, "too many arguments for a process: %d", arguments);
  lua_xmove(L, thread, arguments);
  zp_child **child = lua_newuserdatauv(L, sizeof *child, 0);
  *child = NULL;
  luaL_setmetatable(L, CHILD);
  luaL_checkstack(L, 16, NULL);
  zp_lchild_announce();
  zp_table_row row = {0};
  if (table) row = zp_table_claim(table, name);
  pid_t pid;
  int rc = zp_child_fork(die_with_parent, child, &pid);
  if (rc) {
    zp_table_withdraw(row);
    return zp_lua_raise(L, rc);
  }
  if (pid == 0) run_child(L, thread, arguments, row, is_worker);
  if (row.file) zp_child_list(*child, table, row);
  return 1;
}

/* child:tell_death(name): if it is killed by a signal, by others than this process, that is told by its name. */
static int child_tell_death(lua_State *L) {
  zp_child_name(check_child(L), luaL_checkstring(L, 2));
  return 0;
}

/* core.tell_deaths(): tell those that have come to be known. */
static int core_tell_deaths(lua_State *L) {
  (void)L;
  zp_lchild_tell_deaths();
  return 0;
}

/* ^C and its like come to all processes of a terminal: what has come to this one, too, is its own business to tell. */
void zp_lchild_tell_deaths(void) {
  zp_child_death death;
  while (zp_child_take_death(&death)) {
    if (zp_interrupt_has_come(death.signal)) continue;
    const char *name = sigabbrev_np(death.signal);
    fprintf(zp_output_stderr(), "zproc: process %s (pid %d) was killed by signal %d (%s%s)\n", death.name, (int)death.pid, death.signal,
            name ? "SIG" : "", name ? name : "unknown");
  }
}

/* child:leave(bytes): in the child, the message for the parent. */
static int child_leave(lua_State *L) {
  zp_child *child = check_child(L);
  size_t size;
  const char *data = luaL_checklstring(L, 2, &size);
  int rc = zp_child_leave(child, (zp_bytes){data, size});
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* child:wait([seconds]) -> exit code, or nil when the time is up. */
static int child_wait(lua_State *L) {
  zp_child *child = check_child(L);
  double deadline = lua_isnoneornil(L, 2) ? ZP_FOREVER : zp_clock_now() + luaL_checknumber(L, 2);
  int rc;
  do {
    zp_lsignal_begin_wait(L);
    rc = zp_child_wait(child, deadline);
  } while (rc == ZP_EINTR);
  zp_lsignal_end_wait();
  if (rc == ZP_ETIMEOUT) return 0;
  if (rc) return zp_lua_raise(L, rc);
  int exitcode = 0;
  zp_child_ended(child, &exitcode);
  lua_pushinteger(L, exitcode);
  return 1;
}

/* child:message() -> bytes, or nil if the process left none, or they were given already. */
static int child_message(lua_State *L) {
  zp_child *child = check_child(L);
  zp_buf *message = zp_lbuf_push(L);
  int rc = zp_child_message(child, message);
  if (rc < 0) return zp_lua_raise(L, rc);
  if (rc == 1) lua_pushlstring(L, (const char *)message->data, message->size);
  zp_buf_free(message); /* while a VM is being closed nobody else does */
  return rc;
}

/* child:kill(): end it, whatever it does. */
static int child_kill(lua_State *L) {
  int rc = zp_child_signal(check_child(L), SIGKILL);
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* child:urge(): let it look at its Notepad. */
static int child_urge(lua_State *L) {
  int rc = zp_child_signal(check_child(L), ZP_INTERRUPT_URGE);
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* child:stop(): ask it to end. */
static int child_stop(lua_State *L) {
  int rc = zp_child_stop(check_child(L));
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* core.is_to_stop(): whether whoever has started this process, or thread, has asked it to end. */
static int core_is_to_stop(lua_State *L) {
  lua_pushboolean(L, zp_interrupt_is_in_thread() ? zp_thread_is_to_stop() : is_to_stop());
  return 1;
}

/* child:pid() */
static int child_pid(lua_State *L) {
  lua_pushinteger(L, zp_child_pid(check_child(L)));
  return 1;
}

static int child_gc(lua_State *L) {
  zp_child_close((zp_child **)luaL_checkudata(L, 1, CHILD));
  return 0;
}

/* core.child_exit(status): end a forked child at once. */
static int core_child_exit(lua_State *L) { end_child((int)luaL_checkinteger(L, 1)); }

static const luaL_Reg child_methods[] = {
    {"leave", child_leave}, {"wait", child_wait}, {"message", child_message},
    {"kill", child_kill}, {"urge", child_urge}, {"stop", child_stop}, {"pid", child_pid},
    {"tell_death", child_tell_death}, {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"check_fork", core_check_fork},
    {"is_child", core_is_child},
    {"note_closable", core_note_closable},
    {"note_try", core_note_try},
    {"start", core_start},
    {"child_exit", core_child_exit},
    {"is_to_stop", core_is_to_stop},
    {"tell_deaths", core_tell_deaths},
    {NULL, NULL},
};

void zp_lchild_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  zp_lclass_new(L, CHILD, child_methods, child_gc);
}
