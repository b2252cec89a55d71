/*
 * lserver -- state servers for Lua: starting one, asking one, and what an address leads to.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "bind/core.h"
#include "bind/lbuf.h"
#include "bind/lclass.h"
#include "bind/lerror.h"
#include "bind/lnet.h"
#include "bind/lsignal.h"
#include "server/client.h"
#include "server/copier.h"
#include "server/keeper.h"
#include "store/holder.h"
#include "store/store.h"
#include "server/protocol.h"
#include "sys/dir.h"
#include "sys/interrupt.h"
#include "sys/trust.h"

#define SERVER "zproc.ServerHandle"

/* core.start_server(directory, alias or nil, is_thread, listeners) -> ServerHandle, for a directory that is planned. It runs until stop(),
   or the end of this process. */
static int core_start_server(lua_State *L) {
  const char *directory = luaL_checkstring(L, 1);
  zp_listener *listeners[ZP_SERVER_SOCKETS_MAX];
  zp_server_options options = {.alias = luaL_optstring(L, 2, NULL),
                               .kind = lua_toboolean(L, 3) ? ZP_SERVER_THREAD : ZP_SERVER_PROCESS,
                               .listeners = listeners};
  luaL_checktype(L, 4, LUA_TTABLE);
  for (; lua_rawgeti(L, 4, (lua_Integer)options.listener_count + 1) != LUA_TNIL; lua_pop(L, 1)) {
    if (options.listener_count == ZP_SERVER_SOCKETS_MAX)
      return zp_lua_usage(L, "a server listens at %d TCP addresses at most", (int)ZP_SERVER_SOCKETS_MAX);
    listeners[options.listener_count++] = zp_lnet_listener(L, -1);
  }
  lua_pop(L, 1);
  zp_server **server = lua_newuserdatauv(L, sizeof *server, 0);
  *server = NULL;
  luaL_setmetatable(L, SERVER);
  int rc = zp_server_start(directory, &options, server);
  return rc ? zp_lua_raise(L, rc) : 1;
}

/* server:listen(): the directory and the store are there. */
static int server_listen(lua_State *L) {
  zp_server *server = *(zp_server **)luaL_checkudata(L, 1, SERVER);
  if (!server) return zp_lua_usage(L, "the server was stopped");
  int rc = zp_server_listen(server);
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* server:pid() -> the pid at present; nil while it is being started again, and once it was stopped. */
static int server_pid(lua_State *L) {
  const zp_server *server = *(zp_server **)luaL_checkudata(L, 1, SERVER);
  pid_t pid = server ? zp_server_pid(server) : 0;
  if (pid == 0) return 0;
  lua_pushinteger(L, pid);
  return 1;
}

/* server:stop() -> exit status, -N after signal N. */
static int server_stop(lua_State *L) {
  lua_pushinteger(L, zp_server_stop((zp_server **)luaL_checkudata(L, 1, SERVER)));
  return 1;
}

/* core.ping(path, timeout or nil, payload) -> pid, echo; nothing when the time is up. Raises ServerLost if nobody listens there. */
static int core_ping(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  double deadline = lua_isnoneornil(L, 2) ? ZP_FOREVER : zp_clock_now() + luaL_checknumber(L, 2);
  zp_bytes payload;
  payload.data = luaL_checklstring(L, 3, &payload.size);
  zp_buf *echo = zp_lbuf_push(L);
  pid_t pid = 0;
  int rc;
  do {
    zp_lsignal_begin_wait(L);
    rc = zp_client_ping(path, payload, deadline, &pid, echo);
  } while (rc == ZP_EINTR);
  zp_lsignal_end_wait();
  if (rc == ZP_ETIMEOUT) return 0;
  if (rc) return zp_lua_raise(L, rc);
  lua_pushinteger(L, pid);
  lua_pushlstring(L, (const char *)echo->data, echo->size);
  return 2;
}

/* core.lock_holder(directory) -> who holds the writer lock of the state there: { pid, name, since, seconds, place or nil, stopped }; nil: nobody */
static int core_lock_holder(lua_State *L) {
  zp_holder holder;
  if (!zp_store_find_holder(luaL_checkstring(L, 1), &holder)) return 0;
  lua_createtable(L, 0, 6);
  lua_pushinteger(L, holder.pid);
  lua_setfield(L, -2, "pid");
  lua_pushstring(L, holder.name);
  lua_setfield(L, -2, "name");
  lua_pushnumber(L, holder.since);
  lua_setfield(L, -2, "since");
  lua_pushnumber(L, holder.seconds);
  lua_setfield(L, -2, "seconds");
  lua_pushboolean(L, holder.is_stopped);
  lua_setfield(L, -2, "stopped");
  if (holder.place[0]) {
    lua_pushstring(L, holder.place);
    lua_setfield(L, -2, "place");
  }
  return 1;
}

#define COPIER "zproc.Copier"

static int copier_gc(lua_State *L) {
  uint64_t revision;
  zp_copier **copier = luaL_checkudata(L, 1, COPIER);
  if (*copier) zp_copier_end_backup(copier, &revision);
  return 0;
}

/* core.backup(directory, target) -> the revision of the backup: by a process of its own, which a signal ends. */
static int core_backup(lua_State *L) {
  const char *directory = luaL_checkstring(L, 1), *target = luaL_checkstring(L, 2);
  zp_copier **copier = lua_newuserdatauv(L, sizeof *copier, 0);
  *copier = NULL;
  luaL_setmetatable(L, COPIER);
  lua_toclose(L, -1);
  int rc = zp_copier_start_backup(directory, target, copier);
  if (!rc) {
    do {
      zp_lsignal_begin_wait(L);
      rc = zp_copier_wait(*copier);
    } while (rc == ZP_EINTR);
    zp_lsignal_end_wait();
  }
  uint64_t revision = 0;
  if (!rc) rc = zp_copier_end_backup(copier, &revision);
  if (rc) return zp_lua_raise(L, rc);
  lua_pushinteger(L, (lua_Integer)revision);
  return 1;
}

/* core.real_path(path) -> the path without symbolic links, or nil if nothing is there. */
static int core_real_path(lua_State *L) {
  char path[PATH_MAX];
  if (!realpath(luaL_checkstring(L, 1), path)) return 0;
  lua_pushstring(L, path);
  return 1;
}

/* core.find_server(path) -> the directory of the server whose socket is at the path; false if what is there is something else, nil if nothing
   is. Raises an AuthError if it, or a link on the way, is of a user that is not trusted. */
static int core_find_server(lua_State *L) {
  char directory[PATH_MAX];
  int rc = zp_trust_follow(luaL_checkstring(L, 1), ZP_SERVER_SOCKET, directory);
  if (rc == ZP_ENOSTORE) return 0;
  if (rc == ZP_EUSAGE) lua_pushboolean(L, false);
  else if (rc) return zp_lua_raise(L, rc);
  else lua_pushstring(L, directory);
  return 1;
}

/* core.trust_user(name): what belongs to that user is used by this process from now on. */
static int core_trust_user(lua_State *L) {
  int rc = zp_trust_user(luaL_checkstring(L, 1));
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* core.is_abandoned(directory): whether it is one of a server whose processes are all dead. */
static int core_is_abandoned(lua_State *L) {
  lua_pushboolean(L, zp_dir_is_abandoned(luaL_checkstring(L, 1)));
  return 1;
}

/* core.is_elsewhere(directory): whether the state there is not for this process to use directly, since its processes are in another PID
   namespace. */
static int core_is_elsewhere(lua_State *L) {
  lua_pushboolean(L, zp_store_is_elsewhere(luaL_checkstring(L, 1)));
  return 1;
}

/* core.retire_store(directory): whoever uses the store learns that it has ended. */
static int core_retire_store(lua_State *L) {
  zp_store_retire(luaL_checkstring(L, 1));
  return 0;
}

/* The signals that ask this process to end. One that is ignored stays so (a signal that is blocked would come all the same). */
static void fill_termination(sigset_t *set) {
  static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
  sigemptyset(set);
  for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
    if (!zp_interrupt_is_ignored(signals[i])) sigaddset(set, signals[i]);
}

/* core.hold_termination(): from now on SIGTERM, SIGINT and SIGHUP no longer end this process by themselves: they wait for await_termination. */
static int core_hold_termination(lua_State *L) {
  (void)L;
  sigset_t set;
  fill_termination(&set);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  return 0;
}

/* core.await_termination() -> the number of a signal that asks this process to end. They have to be held: one that has come since then is
   not missed. */
static int core_await_termination(lua_State *L) {
  sigset_t set;
  fill_termination(&set);
  int number;
  do number = sigwaitinfo(&set, NULL);
  while (number < 0 && errno == EINTR);
  lua_pushinteger(L, number);
  return 1;
}

static const luaL_Reg functions[] = {
    {"start_server", core_start_server},
    {"ping", core_ping},
    {"real_path", core_real_path},
    {"find_server", core_find_server},
    {"trust_user", core_trust_user},
    {"is_abandoned", core_is_abandoned},
    {"is_elsewhere", core_is_elsewhere},
    {"retire_store", core_retire_store},
    {"backup", core_backup},
    {"lock_holder", core_lock_holder},
    {"hold_termination", core_hold_termination},
    {"await_termination", core_await_termination},
    {NULL, NULL},
};

static const luaL_Reg methods[] = {
    {"listen", server_listen},
    {"pid", server_pid},
    {"stop", server_stop},
    {NULL, NULL},
};

void zp_lserver_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  zp_lclass_new(L, SERVER, methods, NULL);
  zp_lclass_new(L, COPIER, NULL, copier_gc);
  luaL_getmetatable(L, COPIER);
  lua_pushcfunction(L, copier_gc);
  lua_setfield(L, -2, "__close");
  lua_pop(L, 1);
}
