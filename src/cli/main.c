/*
 * main -- the executable: one Lua VM with zproc compiled in. What the commands do is in lua/zproc/cli.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "bind/core.h"
#include "net/judges.h"
#include "server/copier.h"
#include "server/loop.h"
#include "sys/init.h"
#include "sys/filelimit.h"
#include "sys/output.h"
#include "sys/thread.h"

/* Message handler of the outermost call: what gets here is a fault of zproc itself, or memory that ran out. */
static int add_traceback(lua_State *L) {
  luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
  return 1;
}

/* Under protection: argument 1 is argv as a light userdata. Returns the exit status. */
static int run(lua_State *L) {
  char **argv = lua_touserdata(L, 1);
  luaL_openlibs(L);
  zp_core_install(L);
  lua_getglobal(L, "require");
  bool is_runner = argv[1] && argv[2] && strcmp(argv[1], "--run-atomics") == 0; /* by the server itself: net/runner.h */
  if (is_runner) {
    zp_thread_set_name("zproc-runner");
    lua_pushliteral(L, "zproc.runner");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "run");
    lua_pushstring(L, argv[2]);
    lua_call(L, 1, 1);
    return 1;
  }
  lua_pushliteral(L, "zproc.cli");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "main");
  lua_newtable(L);
  for (int i = 1; argv[i]; i++) {
    lua_pushstring(L, argv[i]);
    lua_rawseti(L, -2, i);
  }
  lua_call(L, 1, 1);
  return 1;
}

/* What needs no Lua, and is for zproc itself:
     zproc --serve DIRECTORY ALIAS SOCKETS [again]   how a server is executed by its keeper
     zproc --snapshot DIRECTORY                      how the process that takes a snapshot is executed by a server
     zproc --judge DIRECTORY                         how a process that evaluates predicates is executed by a server
     zproc --backup DIRECTORY TARGET                 how the process that makes a backup is executed by a script */
static const char *const inner[] = {"--serve", "--snapshot", "--judge", "--backup"};

static bool is_inner(int argc, char **argv) {
  for (size_t i = 0; argc > 1 && i < sizeof inner / sizeof *inner; i++)
    if (strcmp(argv[1], inner[i]) == 0) return true;
  return false;
}

static int run_inner(int argc, char **argv) {
  bool is_server = strcmp(argv[1], "--serve") == 0;
  char name[16]; /* not that of /proc/self/exe, which they are executed as: zproc-server, zproc-snapshot, zproc-judge */
  snprintf(name, sizeof name, "zproc-%.9s", is_server ? "server" : argv[1] + 2);
  zp_thread_set_name(name);
  if (strcmp(argv[1], "--judge") == 0 && argc == 3) return zp_judge_main(argv[2]);
  if (strcmp(argv[1], "--snapshot") == 0 && argc == 3) return zp_copier_main(argv[2], NULL);
  if (strcmp(argv[1], "--backup") == 0 && argc == 4) return zp_copier_main(argv[2], argv[3]);
  if (is_server && (argc == 5 || argc == 6)) return zp_serve(argv[2], argv[3][0] ? argv[3] : NULL, strtoul(argv[4], NULL, 10), argc == 6);
  fprintf(stderr, "zproc: %s is for zproc itself; see zproc server\n", argv[1]);
  return EXIT_FAILURE;
}

int main(int argc, char **argv) {
  /* An ignored SIGCHLD is inherited over exec, and would have the kernel reap our children behind our back. */
  signal(SIGCHLD, SIG_DFL);
  zp_filelimit_enter();
  zp_output_reserve();
  zp_init_enter();
  if (is_inner(argc, argv)) return run_inner(argc, argv);
  zp_output_open();
  lua_State *L = luaL_newstate();
  if (!L) {
    fputs("zproc: out of memory\n", stderr);
    return EXIT_FAILURE;
  }
  lua_pushcfunction(L, add_traceback);
  lua_pushcfunction(L, run);
  lua_pushlightuserdata(L, argv);
  int status = EXIT_FAILURE;
  if (lua_pcall(L, 1, 1, 1) == LUA_OK)
    status = (int)lua_tointeger(L, -1);
  else
    fprintf(stderr, "zproc: %s\n", lua_tostring(L, -1));
  lua_close(L);
  bool is_lost = fflush(stdout) != 0 || ferror(stdout);
  int number = zp_output_common_failure();
  if (is_lost || number) { /* a full disk must not look like success */
    fprintf(stderr, "zproc: standard output: %s\n", strerror(number ? number : EIO));
    if (status == EXIT_SUCCESS) status = EXIT_FAILURE;
  }
  return status;
}
