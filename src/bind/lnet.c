#include "bind/lnet.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "bind/core.h"
#include "bind/lbuf.h"
#include "bind/lclass.h"
#include "bind/lerror.h"
#include "bind/lqueue.h"
#include "bind/lsignal.h"
#include "net/keys.h"
#include "server/client.h"
#include "sys/inet.h"
#include "sys/interrupt.h"
#include "sys/secret.h"
#include "sys/table.h"

#define CONNECTION "zproc.Connection"
#define LISTENER "zproc.Listener"
#define ANSWER "zproc.Answer"

typedef struct lnet_answer {
  zp_buf message, pairs;
  zp_parcel parcel; /* within these */
} lnet_answer;

zp_remote *zp_lnet_check(lua_State *L, int idx) {
  zp_remote *remote = *(zp_remote **)luaL_checkudata(L, idx, CONNECTION);
  if (!remote) zp_lua_usage(L, "the connection is closed");
  return remote;
}

zp_bytes zp_lnet_bytes(lua_State *L, int idx) {
  zp_bytes bytes;
  bytes.data = luaL_checklstring(L, idx, &bytes.size);
  return bytes;
}

static int answer_gc(lua_State *L) {
  lnet_answer *self = lua_touserdata(L, 1);
  zp_buf_free(&self->message);
  zp_buf_free(&self->pairs);
  return 0;
}

void zp_lnet_prepare(lua_State *L) {
  luaL_checkstack(L, 8, NULL);
  lnet_answer *self = lua_newuserdatauv(L, sizeof *self, 0);
  *self = (lnet_answer){.message = ZP_BUF_INIT};
  luaL_setmetatable(L, ANSWER);
}

static int try(lua_State *L, zp_remote *remote, uint64_t state, int type, const zp_parcel *request, double deadline, double late,
               const zp_parcel **answer) {
  lnet_answer *self = lua_touserdata(L, -1);
  bool is_under_way = false;
  int rc;
  do {
    /* What comes next may raise: then nobody waits for the answer any more. */
    if (is_under_way && zp_interrupt_has_signal()) zp_remote_abandon(remote);
    zp_lsignal_begin_wait(L);
    rc = is_under_way ? 0 : zp_remote_begin(remote, state, type, request, deadline + late);
    if (rc) continue;
    is_under_way = true;
    rc = zp_remote_await(remote, deadline, &self->parcel);
    if (rc == ZP_ETIMEOUT && late > 0 && !zp_remote_is_silent(remote)) rc = zp_remote_await(remote, deadline + late, &self->parcel);
  } while (rc == ZP_EINTR);
  zp_lsignal_end_wait();
  if (rc == ZP_ETIMEOUT && is_under_way) zp_remote_abandon(remote);
  if (rc) return rc;
  zp_remote_give_answer(remote, &self->message, &self->pairs);
  *answer = &self->parcel;
  return 0;
}

int zp_lnet_try(lua_State *L, zp_remote *remote, uint64_t state, int type, const zp_parcel *request, double deadline,
                const zp_parcel **answer) {
  return try(L, remote, state, type, request, deadline, 0, answer);
}

const zp_parcel *zp_lnet_call(lua_State *L, zp_remote *remote, uint64_t state, int type, const zp_parcel *request, double deadline) {
  return zp_lnet_call_late(L, remote, state, type, request, deadline, 0);
}

const zp_parcel *zp_lnet_call_late(lua_State *L, zp_remote *remote, uint64_t state, int type, const zp_parcel *request, double deadline,
                                   double late) {
  const zp_parcel *answer = NULL;
  int rc = try(L, remote, state, type, request, deadline, late, &answer);
  if (rc && rc != ZP_ETIMEOUT) {
    const char *traceback = zp_remote_traceback(remote);
    zp_lua_raise_from(L, rc, traceback[0] ? traceback : NULL);
  }
  return answer;
}

/* ---- Connection ---- */

/* core.connect(endpoint, secret or nil) -> Connection. Nothing is sent yet. */
static int core_connect(lua_State *L) {
  const char *endpoint = luaL_checkstring(L, 1);
  zp_keys keys;
  bool has_keys = !lua_isnoneornil(L, 2);
  int rc = has_keys ? zp_keys_derive(zp_lnet_bytes(L, 2), &keys) : 0;
  if (rc) return zp_lua_raise(L, rc);
  zp_remote **remote = lua_newuserdatauv(L, sizeof *remote, 0);
  *remote = NULL;
  luaL_setmetatable(L, CONNECTION);
  rc = zp_remote_open(endpoint, has_keys ? &keys : NULL, remote);
  zp_secret_wipe(&keys, sizeof keys);
  return rc ? zp_lua_raise(L, rc) : 1;
}

/* connection:ping(payload, timeout or nil) -> pid, echo; nothing when the time is up. */
static int connection_ping(lua_State *L) {
  zp_remote *remote = zp_lnet_check(L, 1);
  zp_bytes payload = zp_lnet_bytes(L, 2);
  int rc = zp_client_check_payload(payload);
  if (rc) return zp_lua_raise(L, rc);
  double deadline = lua_isnoneornil(L, 3) ? ZP_FOREVER : zp_clock_now() + luaL_checknumber(L, 3);
  zp_lnet_prepare(L);
  const zp_parcel *answer = zp_lnet_call(L, remote, 0, ZP_REQUEST_PING, &(zp_parcel){ZP_STRINGS(payload)}, deadline);
  if (!answer) return 0;
  lua_pushinteger(L, (lua_Integer)answer->numbers[0]);
  lua_pushlstring(L, answer->strings[0].data, answer->strings[0].size);
  return 2;
}

/* connection:server() -> directory if the server is on this machine and lets this process use its state directly; else nil. Asks it
   first if that was not done yet. */
static int connection_server(lua_State *L) {
  zp_remote *remote = zp_lnet_check(L, 1);
  zp_lnet_prepare(L);
  zp_lnet_call(L, remote, 0, ZP_REQUEST_PING, &(zp_parcel){ZP_STRINGS({NULL, 0})}, ZP_FOREVER);
  const zp_remote_server *server = zp_remote_server_of(remote);
  if (!server->is_here) return 0;
  lua_pushstring(L, server->directory);
  return 1;
}

/* connection:directory() -> where the server's state is, on its machine. Asks it first if that was not done yet. */
static int connection_directory(lua_State *L) {
  zp_remote *remote = zp_lnet_check(L, 1);
  if (!zp_remote_server_of(remote)->directory[0]) {
    zp_lnet_prepare(L);
    zp_lnet_call(L, remote, 0, ZP_REQUEST_PING, &(zp_parcel){ZP_STRINGS({NULL, 0})}, ZP_FOREVER);
  }
  lua_pushstring(L, zp_remote_server_of(remote)->directory);
  return 1;
}

/* connection:identity() -> the number of the server's state, once it was asked for anything. */
static int connection_identity(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)zp_remote_server_of(zp_lnet_check(L, 1))->identity);
  return 1;
}

/* connection:processes() -> the rows of the server's table of processes, as table:list(). */
static int connection_processes(lua_State *L) {
  zp_remote *remote = zp_lnet_check(L, 1);
  zp_lnet_prepare(L);
  const zp_parcel *answer =
      zp_lnet_call(L, remote, 0, ZP_REQUEST_PROCESSES, &(zp_parcel){.number_count = 0}, ZP_FOREVER);
  zp_bytes rows = answer->strings[0];
  if (rows.size % sizeof(zp_process) != 0) return zp_lua_raise(L, zp_fail(ZP_EDECODE, "the server gave a list of processes that is none"));
  zp_ltable_push_rows(L, rows);
  return 1;
}

/* connection:summarize() -> as core.summarize(directory), of the server. */
static int connection_summarize(lua_State *L) {
  zp_remote *remote = zp_lnet_check(L, 1);
  zp_lnet_prepare(L);
  const zp_parcel *answer = zp_lnet_call(L, remote, 0, ZP_REQUEST_SUMMARY, &(zp_parcel){.number_count = 0}, ZP_FOREVER);
  const uint64_t *numbers = answer->numbers;
  zp_queue_summary summary = {.tasks = numbers[0], .put = numbers[1], .finished = numbers[2], .claims = numbers[3]};
  return zp_lqueue_push_summary(L, &summary, (int64_t)numbers[4]);
}

/* connection:client() -> the number that the server knows this process by. */
static int connection_client(lua_State *L) {
  lua_pushlstring(L, (const char *)zp_remote_client(zp_lnet_check(L, 1)), ZP_CLIENT_SIZE);
  return 1;
}

/* connection:bury(client, item, span): a worker, another client of the server, has died, of the items that it has noted last. */
static int connection_bury(lua_State *L) {
  zp_parcel request = {.number_count = 2, .numbers = {(uint64_t)luaL_checkinteger(L, 3), (uint64_t)luaL_checkinteger(L, 4)},
                       ZP_STRINGS(zp_lnet_bytes(L, 2))};
  zp_lnet_prepare(L);
  zp_lnet_call(L, zp_lnet_check(L, 1), 0, ZP_REQUEST_WORKER_DIED, &request, ZP_FOREVER);
  return 0;
}

static int connection_gc(lua_State *L) {
  zp_remote_close((zp_remote **)luaL_checkudata(L, 1, CONNECTION));
  return 0;
}

/* ---- listening, keys, and what an address leads to ---- */

zp_listener *zp_lnet_listener(lua_State *L, int idx) {
  zp_listener *listener = *(zp_listener **)luaL_checkudata(L, idx, LISTENER);
  if (!listener) zp_lua_usage(L, "the listener is closed");
  return listener;
}

static int listener_close(lua_State *L) {
  zp_listener_close((zp_listener **)luaL_checkudata(L, 1, LISTENER));
  return 0;
}

/* core.listen("host:port") -> Listener, which close() closes, the address with its port, whether only this machine can reach it. */
static int core_listen(lua_State *L) {
  const char *address = luaL_checkstring(L, 1);
  char bound[ZP_INET_NAME_SIZE];
  bool is_loopback = false;
  zp_listener **listener = lua_newuserdatauv(L, sizeof *listener, 0);
  *listener = NULL;
  luaL_setmetatable(L, LISTENER);
  int rc = zp_listener_open(address, listener, bound, &is_loopback);
  if (rc) return zp_lua_raise(L, rc);
  lua_pushstring(L, bound);
  lua_pushboolean(L, is_loopback);
  return 3;
}

/* core.check_inet("host:port"): raises a UsageError if it is none. */
static int core_check_inet(lua_State *L) {
  char host[ZP_INET_NAME_SIZE], port[8];
  int rc = zp_inet_parse(luaL_checkstring(L, 1), host, port);
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* core.write_keys(directory, secret): the server of that directory is for those who know the secret. */
static int core_write_keys(lua_State *L) {
  zp_keys keys;
  int rc = zp_keys_derive(zp_lnet_bytes(L, 2), &keys);
  if (!rc) rc = zp_keys_write(luaL_checkstring(L, 1), &keys);
  zp_secret_wipe(&keys, sizeof keys);
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* core.take_secret(name) -> the token of the secret in that variable of the environment, where nobody finds it any more; nil if there is none. The
   first call counts: others, of other VMs perhaps, get what it has found. */
static int core_take_secret(lua_State *L) {
  static char token[ZP_TOKEN_SIZE];
  static _Atomic int state; /* 1: there is one */
  char *value;
  size_t size;
  int rc = zp_secret_take_variable(luaL_checkstring(L, 1), &value, &size);
  if (!rc && value) {
    rc = zp_keys_hold((zp_bytes){value, size}, token);
    zp_secret_free(value, size);
    if (!rc) atomic_store(&state, 1);
  }
  if (rc) return zp_lua_raise(L, rc);
  if (!atomic_load(&state)) return 0;
  lua_pushlstring(L, token, sizeof token);
  return 1;
}

/* core.hold_secret(path) -> the token of the secret in the file, without what ends its last line; or nil and why not. It is never a string of Lua. */
static int core_hold_secret(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  enum { LARGE = 1 << 16 };
  char token[ZP_TOKEN_SIZE];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  char *value = fd >= 0 ? zp_secret_new(LARGE) : NULL;
  size_t size = 0;
  ssize_t n = value ? 1 : -1;
  while (n > 0 && size < LARGE) {
    n = read(fd, value + size, LARGE - size);
    if (n > 0) size += (size_t)n;
    else if (n < 0 && errno == EINTR) n = 1;
  }
  int number = errno, rc = 0;
  if (fd >= 0) close(fd);
  while (size > 0 && (value[size - 1] == '\n' || value[size - 1] == '\r')) size--;
  if (n >= 0 && size > 0) rc = zp_keys_hold((zp_bytes){value, size}, token);
  zp_secret_free(value, LARGE);
  if (rc) return zp_lua_raise(L, rc);
  if (n >= 0 && size > 0) {
    lua_pushlstring(L, token, sizeof token);
    return 1;
  }
  lua_pushnil(L);
  if (n < 0) lua_pushfstring(L, "cannot read the secret key: %s: %s", path, strerror(number));
  else lua_pushfstring(L, "the secret key in %s is empty", path);
  return 2;
}

/* core.is_held_secret(text): whether it is such a token. */
static int core_is_held_secret(lua_State *L) {
  lua_pushboolean(L, lua_type(L, 1) == LUA_TSTRING && zp_keys_is_token(zp_lnet_bytes(L, 1)));
  return 1;
}

/* core.check_keys(directory, secret or nil): raises an AuthError unless that is the secret of the server there. */
static int core_check_keys(lua_State *L) {
  const char *directory = luaL_checkstring(L, 1);
  int rc = zp_keys_check(directory, lua_isnoneornil(L, 2) ? (zp_bytes){NULL, 0} : zp_lnet_bytes(L, 2));
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* core.network_endpoint(path, timeout or nil) -> the endpoint at which the server that listens at the path serves the network protocol;
   nothing if it does not say within so many seconds. Without a timeout it raises ServerLost after ZP_REMOTE_PATIENCE. */
static int core_network_endpoint(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  bool has_timeout = !lua_isnoneornil(L, 2);
  double deadline = zp_clock_now() + (has_timeout ? luaL_checknumber(L, 2) : ZP_REMOTE_PATIENCE);
  zp_buf *endpoint = zp_lbuf_push(L);
  int rc;
  do {
    zp_lsignal_begin_wait(L);
    rc = zp_client_network(path, deadline, endpoint);
  } while (rc == ZP_EINTR);
  zp_lsignal_end_wait();
  if (rc == ZP_ETIMEOUT && has_timeout) return 0;
  if (rc == ZP_ETIMEOUT)
    rc = zp_fail(ZP_ENOSTORE, "nothing has been heard of the server at ipc://%s for %d seconds", path, ZP_REMOTE_PATIENCE);
  if (rc) return zp_lua_raise(L, rc);
  lua_pushlstring(L, (const char *)endpoint->data, endpoint->size);
  return 1;
}

static const luaL_Reg functions[] = {
    {"connect", core_connect},
    {"listen", core_listen},
    {"check_inet", core_check_inet},
    {"write_keys", core_write_keys},
    {"take_secret", core_take_secret},
    {"hold_secret", core_hold_secret},
    {"is_held_secret", core_is_held_secret},
    {"check_keys", core_check_keys},
    {"network_endpoint", core_network_endpoint},
    {NULL, NULL},
};

static const luaL_Reg listener_methods[] = {
    {"close", listener_close},
    {NULL, NULL},
};

static const luaL_Reg methods[] = {
    {"ping", connection_ping},
    {"server", connection_server},
    {"directory", connection_directory},
    {"identity", connection_identity},
    {"processes", connection_processes},
    {"summarize", connection_summarize},
    {"client", connection_client},
    {"bury", connection_bury},
    {NULL, NULL},
};

void zp_lnet_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  zp_lclass_new(L, CONNECTION, methods, connection_gc);
  zp_lclass_new(L, LISTENER, listener_methods, listener_close);
  zp_lclass_new(L, ANSWER, NULL, answer_gc);
}
