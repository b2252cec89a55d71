/*
 * lthread -- threads for Lua: core.start_thread and the Thread that it gives.
 *
 * A thread has a Lua VM of its own, in which the module zproc.thread runs what it is given as bytes. It is used like a Child: it has an
 * exit code, leaves a message, and can be asked to stop.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/clock.h"
#include "base/err.h"
#include "bind/core.h"
#include "bind/lclass.h"
#include "bind/lerror.h"
#include "bind/lnotepad.h"
#include "bind/lsignal.h"
#include "sys/interrupt.h"
#include "sys/output.h"
#include "sys/thread.h"

#define THREAD "zproc.Thread"

static zp_thread *check_thread(lua_State *L) { return *(zp_thread **)luaL_checkudata(L, 1, THREAD); }

zp_thread *zp_lthread_test(lua_State *L, int index) {
  zp_thread **thread = luaL_testudata(L, index, THREAD);
  return thread ? *thread : NULL;
}

/* ---- output: the streams of the thread in place of those of the process ---- */

static int keep_open(lua_State *L) {
  luaL_Stream *stream = luaL_checkudata(L, 1, LUA_FILEHANDLE);
  stream->closef = keep_open;
  luaL_pushfail(L);
  lua_pushliteral(L, "cannot close standard file");
  return 2;
}

static void push_stream(lua_State *L, FILE *file) {
  luaL_Stream *stream = lua_newuserdatauv(L, sizeof *stream, 0);
  stream->closef = NULL;
  luaL_setmetatable(L, LUA_FILEHANDLE);
  stream->f = file;
  stream->closef = keep_open;
}

/* print(...), which Lua's own library writes to the stream of the process. */
static int print(lua_State *L) {
  int count = lua_gettop(L);
  luaL_Buffer line;
  luaL_buffinit(L, &line);
  for (int i = 1; i <= count; i++) {
    if (i > 1) luaL_addchar(&line, '\t');
    luaL_tolstring(L, i, NULL);
    luaL_addvalue(&line);
  }
  luaL_addchar(&line, '\n');
  luaL_pushresult(&line);
  size_t size;
  const char *text = lua_tolstring(L, -1, &size);
  fwrite(text, 1, size, zp_output_stdout());
  fflush(zp_output_stdout());
  return 0;
}

static void redirect_output(lua_State *L) {
  lua_pushcfunction(L, print);
  lua_setglobal(L, "print");
  lua_getglobal(L, LUA_IOLIBNAME);
  push_stream(L, zp_output_stderr());
  lua_setfield(L, -2, "stderr");
  push_stream(L, zp_output_stdout());
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "stdout");
  lua_getfield(L, -2, "output");
  lua_insert(L, -2);
  lua_call(L, 1, 0); /* io.output(io.stdout) */
  lua_pop(L, 1);
}

/* ---- the thread ---- */

typedef struct job {
  zp_buf bytes;
  zp_notepad *pad; /* of a worker; else NULL */
} job;

static void free_job(job *one) {
  if (!one) return;
  zp_buf_free(&one->bytes);
  zp_notepad_close(&one->pad);
  free(one);
}

/* Under protection, in the thread. Argument 1: the job, as a light userdata. Returns the exit code, and the message or nil. */
static int run_job(lua_State *L) {
  const job *one = lua_touserdata(L, 1);
  luaL_openlibs(L);
  redirect_output(L);
  zp_core_install(L);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "zproc.thread");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "run");
  lua_pushlstring(L, (const char *)one->bytes.data, one->bytes.size);
  lua_call(L, 1, 2);
  return 2;
}

/* What the thread runs; the context is the job, which is freed. */
static int thread_main(void *context, zp_buf *message) {
  job *one = context;
  int exitcode = EXIT_FAILURE;
  zp_output_enter_thread();
  zp_lnotepad_set_own(one->pad);
  lua_State *L = luaL_newstate();
  if (!L) {
    fputs("zproc: out of memory: cannot run a thread\n", zp_output_stderr());
    goto out;
  }
  lua_pushcfunction(L, run_job);
  lua_pushlightuserdata(L, one);
  if (lua_pcall(L, 1, 2, 0) == LUA_OK) {
    exitcode = (int)lua_tointeger(L, -2);
    size_t size;
    const char *data = lua_tolstring(L, -1, &size);
    if (data && zp_buf_append(message, data, size)) exitcode = EXIT_FAILURE;
  } else {
    const char *words = lua_tostring(L, -1);
    fprintf(zp_output_stderr(), "zproc: a thread could not run: %s\n", words ? words : "an error without words");
  }
  zp_lsignal_leave();
  lua_close(L);
  malloc_trim(0);
out:
  zp_output_leave_thread();
  zp_notepad_finish();
  zp_lnotepad_set_own(NULL);
  free_job(one);
  return exitcode;
}

/* core.start_thread(bytes [, notepad]) -> Thread. */
static int core_start_thread(lua_State *L) {
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  zp_notepad *pad = zp_lnotepad_get(L, 2);
  zp_thread **thread = lua_newuserdatauv(L, sizeof *thread, 0);
  *thread = NULL;
  luaL_setmetatable(L, THREAD);
  job *one = calloc(1, sizeof *one);
  if (one && pad) one->pad = zp_notepad_keep(pad);
  int rc = one ? zp_buf_append(&one->bytes, bytes, size) : zp_fail(ZP_ENOMEM, "out of memory: cannot start a thread");
  if (!rc) rc = zp_thread_start(thread_main, one, thread);
  if (!rc) return 1;
  free_job(one);
  return zp_lua_raise(L, rc);
}

/* core.is_thread(): whether this VM is that of a thread. */
static int core_is_thread(lua_State *L) {
  lua_pushboolean(L, zp_interrupt_is_in_thread());
  return 1;
}

/* thread:wait([seconds]) -> exit code, or nil when the time is up. */
static int thread_wait(lua_State *L) {
  zp_thread *thread = check_thread(L);
  double deadline = lua_isnoneornil(L, 2) ? ZP_FOREVER : zp_clock_now() + luaL_checknumber(L, 2);
  int rc;
  do {
    zp_lsignal_begin_wait(L);
    rc = zp_thread_wait(thread, deadline);
  } while (rc == ZP_EINTR);
  zp_lsignal_end_wait();
  if (rc == ZP_ETIMEOUT) return 0;
  if (rc) return zp_lua_raise(L, rc);
  int exitcode = 0;
  zp_thread_ended(thread, &exitcode);
  lua_pushinteger(L, exitcode);
  return 1;
}

/* After the end: thread:message() -> bytes, or nil if it left none. */
static int thread_message(lua_State *L) {
  zp_bytes message = zp_thread_message(check_thread(L));
  if (message.size == 0) return 0;
  lua_pushlstring(L, message.data, message.size);
  return 1;
}

/* thread:stop(): ask it to end. */
static int thread_stop(lua_State *L) {
  zp_thread_stop(check_thread(L), false);
  return 0;
}

/* thread:urge(): let it look at its Notepad. */
static int thread_urge(lua_State *L) {
  zp_thread_urge(check_thread(L));
  return 0;
}

/* thread:kill(): ask it again and again, wherever it runs Lua code of the script. */
static int thread_kill(lua_State *L) {
  zp_thread_stop(check_thread(L), true);
  return 0;
}

/* thread:pid(): that of its process. */
static int thread_pid(lua_State *L) {
  lua_pushinteger(L, zp_thread_process(check_thread(L)));
  return 1;
}

static int thread_gc(lua_State *L) {
  zp_thread_close((zp_thread **)luaL_checkudata(L, 1, THREAD));
  return 0;
}

static const luaL_Reg methods[] = {
    {"wait", thread_wait}, {"message", thread_message}, {"stop", thread_stop},
    {"kill", thread_kill}, {"urge", thread_urge},       {"pid", thread_pid},   {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"start_thread", core_start_thread},
    {"is_thread", core_is_thread},
    {NULL, NULL},
};

void zp_lthread_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  zp_lclass_new(L, THREAD, methods, thread_gc);
}
