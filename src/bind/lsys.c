/*
 * lsys -- the small things of the system: time, sleep, directories for stores, signal names.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/sum.h"
#include "bind/core.h"
#include "bind/lclass.h"
#include "bind/lerror.h"
#include "bind/lsignal.h"
#include "store/keep.h"
#include "store/store.h"
#include "sys/dir.h"
#include "sys/interrupt.h"
#include "sys/memory.h"
#include "sys/output.h"
#include "sys/table.h"
#include "sys/thread.h"

#define DIR_TYPE "zproc.Directory"

/* core.sleep(seconds): the argument is checked by the caller. */
static int core_sleep(lua_State *L) {
  double until = zp_clock_now() + luaL_checknumber(L, 1);
  int rc;
  do {
    zp_lsignal_begin_wait(L);
    rc = zp_interrupt_wait(until);
  } while (rc == ZP_EINTR);
  zp_lsignal_end_wait();
  return rc == ZP_ETIMEOUT ? 0 : zp_lua_raise(L, rc);
}

/* core.time() -> seconds since the epoch, a float */
static int core_time(lua_State *L) {
  lua_pushnumber(L, zp_clock_wall());
  return 1;
}

/* core.clock() -> seconds of the monotonic clock */
static int core_clock(lua_State *L) {
  lua_pushnumber(L, zp_clock_now());
  return 1;
}

/* The kernel is asked once in each process: objects check at each call that they are used by the process that they belong to. */
static _Atomic pid_t own_pid;

static void forget_pid(void) { atomic_store(&own_pid, 0); }

static void watch_forks(void) { pthread_atfork(NULL, NULL, forget_pid); }

static pid_t get_pid(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pid_t pid = atomic_load_explicit(&own_pid, memory_order_relaxed);
  if (pid) return pid;
  pthread_once(&once, watch_forks);
  atomic_store(&own_pid, getpid());
  return getpid();
}

/* core.getpid() */
static int core_getpid(lua_State *L) {
  lua_pushinteger(L, get_pid());
  return 1;
}

/* core.is_terminal(fd) */
static int core_is_terminal(lua_State *L) {
  lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
  return 1;
}

/* core.terminal_size(fd) -> lines, columns; nothing if it is no terminal, or one without a size. */
static int core_terminal_size(lua_State *L) {
  struct winsize size;
  if (ioctl((int)luaL_checkinteger(L, 1), TIOCGWINSZ, &size) < 0 || size.ws_row == 0 || size.ws_col == 0) return 0;
  lua_pushinteger(L, size.ws_row);
  lua_pushinteger(L, size.ws_col);
  return 2;
}

/* core.label_output(name): from here on each line of output of this process, and those that it starts, begins with who has written it. */
static int core_label_output(lua_State *L) {
  zp_output_enable_labels();
  zp_output_set_name(luaL_checkstring(L, 1));
  return 0;
}

/* core.name_thread(name): what this thread is called in these labels, and by ps. */
static int core_name_thread(lua_State *L) {
  zp_output_set_name(luaL_checkstring(L, 1));
  zp_thread_set_name(luaL_checkstring(L, 1));
  return 0;
}

/* core.output_failure([all]) -> words, or nil: why standard output of this thread, which is flushed, has not taken all; all: or that of any
   process that shares it. */
static int core_output_failure(lua_State *L) {
  zp_output_flush();
  int number = lua_toboolean(L, 1) ? zp_output_common_failure() : zp_output_failure();
  if (!number) return 0;
  lua_pushfstring(L, "standard output: %s", strerror(number));
  return 1;
}

/* core.cpu_count(): processors that this process may use. */
static int core_cpu_count(lua_State *L) {
  cpu_set_t set;
  long count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
  lua_pushinteger(L, count > 0 ? count : 1);
  return 1;
}

/* core.signal_name(number) -> "SIGTERM", or nil */
static int core_signal_name(lua_State *L) {
  const char *name = sigabbrev_np((int)luaL_checkinteger(L, 1));
  if (!name) return 0;
  lua_pushfstring(L, "SIG%s", name);
  return 1;
}

/* core.plan_directory() -> Directory: where one will be that is private, on a tmpfs, and removed by its remove() in the process that
   made it. */
static int core_plan_directory(lua_State *L) {
  zp_dir **dir = lua_newuserdatauv(L, sizeof *dir, 0);
  *dir = NULL;
  luaL_setmetatable(L, DIR_TYPE);
  int rc = zp_dir_plan(dir);
  return rc ? zp_lua_raise(L, rc) : 1;
}

/* core.sweep_directories(): remove those that nobody owns any more. */
static int core_sweep_directories(lua_State *L) {
  lua_pushinteger(L, zp_dir_sweep(zp_store_retire));
  return 1;
}

static int directory_path(lua_State *L) {
  zp_dir *dir = *(zp_dir **)luaL_checkudata(L, 1, DIR_TYPE);
  if (!dir) return zp_lua_usage(L, "the directory was removed");
  lua_pushstring(L, zp_dir_path(dir));
  return 1;
}

/* directory:make() */
static int directory_make(lua_State *L) {
  zp_dir *dir = *(zp_dir **)luaL_checkudata(L, 1, DIR_TYPE);
  if (!dir) return zp_lua_usage(L, "the directory was removed");
  int rc = zp_dir_make(dir);
  return rc ? zp_lua_raise(L, rc) : 0;
}

static int directory_remove(lua_State *L) {
  zp_dir_remove((zp_dir **)luaL_checkudata(L, 1, DIR_TYPE));
  return 0;
}

static int directory_gc(lua_State *L) {
  zp_dir_release((zp_dir **)luaL_checkudata(L, 1, DIR_TYPE));
  return 0;
}

#define KEEP "zproc.Keep"

/* core.open_keep(directory, "never" | "interval" | "always", "nothing" | "data" | "snapshot") -> Keep: a directory in which the state of a
   server is kept, and what to go on with if it is not as it was left. */
static int core_open_keep(lua_State *L) {
  const char *directory = luaL_checkstring(L, 1);
  zp_sync sync = (zp_sync)luaL_checkoption(L, 2, NULL, zp_sync_names);
  zp_restore restore = (zp_restore)luaL_checkoption(L, 3, zp_restore_names[ZP_RESTORE_NOTHING], zp_restore_names);
  zp_keep **keep = lua_newuserdatauv(L, sizeof *keep, 0);
  *keep = NULL;
  luaL_setmetatable(L, KEEP);
  int rc = zp_keep_open(directory, sync, restore, keep);
  return rc ? zp_lua_raise(L, rc) : 1;
}

/* keep:close(): let it go, after its store was retired. */
static int keep_close(lua_State *L) {
  zp_keep_close((zp_keep **)luaL_checkudata(L, 1, KEEP));
  return 0;
}

/* core.create_store(directory, keep or nil): the store of a server, and its table of processes */
static int core_create_store(lua_State *L) {
  const char *directory = luaL_checkstring(L, 1);
  zp_keep *keep = lua_isnoneornil(L, 2) ? NULL : *(zp_keep **)luaL_checkudata(L, 2, KEEP);
  zp_store_limits limits = {0, 0};
  int rc = zp_table_create(directory);
  if (!rc) rc = keep ? zp_keep_create_store(keep, directory, &limits) : zp_store_create(directory, &limits);
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* core.trim_memory(): give back to the system what was freed. */
static int core_trim_memory(lua_State *L) {
  (void)L;
  zp_memory_trim();
  return 0;
}

/* core.add_sum(sum, text) -> a sum over both: of a sequence of texts, with 0 at first */
static int core_add_sum(lua_State *L) {
  size_t size;
  const char *text = luaL_checklstring(L, 2, &size);
  lua_pushinteger(L, (lua_Integer)zp_sum_mix((uint64_t)luaL_checkinteger(L, 1), zp_sum_of(text, size)));
  return 1;
}

static const luaL_Reg functions[] = {
    {"add_sum", core_add_sum},
    {"trim_memory", core_trim_memory},
    {"sleep", core_sleep},
    {"time", core_time},
    {"clock", core_clock},
    {"getpid", core_getpid},
    {"label_output", core_label_output},
    {"name_thread", core_name_thread},
    {"output_failure", core_output_failure},
    {"cpu_count", core_cpu_count},
    {"is_terminal", core_is_terminal},
    {"terminal_size", core_terminal_size},
    {"signal_name", core_signal_name},
    {"plan_directory", core_plan_directory},
    {"sweep_directories", core_sweep_directories},
    {"open_keep", core_open_keep},
    {"create_store", core_create_store},
    {NULL, NULL},
};

static const luaL_Reg directory_methods[] = {
    {"make", directory_make},
    {"path", directory_path},
    {"remove", directory_remove},
    {NULL, NULL},
};

static const luaL_Reg keep_methods[] = {
    {"close", keep_close},
    {NULL, NULL},
};

void zp_lsys_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  zp_lclass_new(L, DIR_TYPE, directory_methods, directory_gc);
  zp_lclass_new(L, KEEP, keep_methods, keep_close);
}
