/*
 * module -- zproc.so: what `require "zproc"` loads in a program with a Lua of its own, such as lua5.4.
 *
 * The Lua modules are compiled in, as they are in the executable; the Lua API comes from the host. What `zproc run` does around a script
 * is done by lua/zproc/host.lua, since here the host does what is around it.
 *
 * What it touches of the process it leaves as it was when the last VM that has it is closed: handlers of signals (handler.h). All the same the
 * library is never unloaded (-z nodelete), although Lua does that when it closes a VM: handlers of forks and exits cannot be taken back, and one of
 * a signal stays if the host has put its own over it.
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#include <lauxlib.h>
#include <lualib.h>

#include "base/err.h"
#include "bind/core.h"
#include "bind/lerror.h"
#include "bind/lsignal.h"
#include "sys/child.h"
#include "sys/filelimit.h"
#include "sys/interrupt.h"
#include "sys/output.h"
#include "sys/program.h"

static const char mark; /* its address is the key of a userdata, the last thing that goes when a VM is closed; it keeps the loader of "zproc" */

static _Atomic int machines; /* VMs of this process that have the module */

/* Contexts, servers and processes are closed by then. The last VM leaves the signals of the host as they were. */
static int on_close(lua_State *L) {
  (void)L;
  zp_lsignal_leave();
  if (atomic_fetch_sub(&machines, 1) > 1) return 0;
  zp_interrupt_release_all();
  zp_filelimit_leave();
  zp_child_release();
  return 0;
}

/* Let a standard file of the io library, which has its FILE since before, follow to the stream that is in its place now. */
static void follow(lua_State *L, const char *name, const FILE *before, FILE *now) {
  if (lua_getglobal(L, LUA_IOLIBNAME) == LUA_TTABLE) {
    lua_getfield(L, -1, name);
    luaL_Stream *stream = luaL_testudata(L, -1, LUA_FILEHANDLE);
    if (stream && stream->f == before) stream->f = now;
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/* host.attach's argument: open_output() makes the output of this process one of whole lines (output.h). */
static int open_output(lua_State *L) {
  static FILE *old_stdout, *old_stderr;
  if (!old_stdout) {
    fflush(stdout);
    old_stdout = stdout;
    old_stderr = stderr;
    zp_output_open();
  }
  follow(L, "stdout", old_stdout, stdout);
  follow(L, "stderr", old_stderr, stderr);
  return 0;
}

/* Where this library is, for the program that servers are executed as. */
static void find_home(lua_State *L) {
  Dl_info about;
  if (!dladdr(&mark, &about) || !about.dli_fname) luaL_error(L, "zproc: cannot find out where the module is");
  int rc = zp_program_is_elsewhere(about.dli_fname, ZP_BINDIR);
  if (rc) luaL_error(L, "zproc: %s", zp_error_detail());
}

static void require(lua_State *L, const char *name) {
  lua_getglobal(L, "require");
  lua_pushstring(L, name);
  lua_call(L, 1, 1);
}

static void install(lua_State *L) {
  luaL_checkversion(L);
  zp_filelimit_enter();
  find_home(L);
  zp_core_install_late(L);
  luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
  lua_newuserdatauv(L, 0, 1);
  lua_getfield(L, -2, "zproc");
  lua_setiuservalue(L, -2, 1);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, on_close);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &mark);
  atomic_fetch_add(&machines, 1);
  lua_pop(L, 1);
  require(L, "zproc.host");
  lua_getfield(L, -1, "attach");
  lua_pushcfunction(L, open_output);
  lua_call(L, 1, 0);
  lua_pop(L, 1);
}

__attribute__((visibility("default"))) int luaopen_zproc(lua_State *L);

/* Called by require, in a VM perhaps for the second time, if the script has made it forget the first. */
int luaopen_zproc(lua_State *L) {
  zp_output_reserve();
  bool is_installed = lua_rawgetp(L, LUA_REGISTRYINDEX, &mark) != LUA_TNIL;
  lua_pop(L, 1);
  if (!is_installed) install(L);
  lua_rawgetp(L, LUA_REGISTRYINDEX, &mark);
  lua_getiuservalue(L, -1, 1);
  lua_pushliteral(L, "zproc");
  lua_call(L, 1, 1);
  return 1;
}
