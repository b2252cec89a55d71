/*
 * lrqueue -- the queue of tasks of a server on another machine: the same methods as those of lqueue.c, each one request.
 *
 * Arming is part of the requests that look (net/request.h), so the methods for that have nothing to do. A worker that the server does not know any
 * more, since it was started again or could not reach it for long, enlists anew; what it has done meanwhile is done by others.
 */
#include <stdatomic.h>
#include <string.h>

#include <lauxlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "bind/core.h"
#include "bind/lbuf.h"
#include "bind/lclass.h"
#include "bind/lerror.h"
#include "bind/lnet.h"
#include "bind/lnotepad.h"
#include "bind/lqueue.h"

#define QUEUE "zproc.RemoteQueue"

typedef struct remote_queue {
  zp_remote *remote; /* of the Connection, which is the first user value */
  uint64_t identity; /* of the state that it is of; 0: not known */
  zp_notes *pad;     /* of the Notepad, which is the second; NULL: there is none */
  uint64_t pool;     /* that this worker has enlisted in */
} remote_queue;

static remote_queue *check_queue(lua_State *L) {
  remote_queue *self = luaL_checkudata(L, 1, QUEUE);
  if (!self->remote) zp_lua_usage(L, "the queue is closed");
  return self;
}

static uint64_t check_number(lua_State *L, int idx) { return (uint64_t)luaL_checkinteger(L, idx); }

static void push_number(lua_State *L, uint64_t number) { lua_pushinteger(L, (lua_Integer)number); }

static const zp_parcel *call(lua_State *L, remote_queue *self, int type, zp_parcel request) {
  return zp_lnet_call(L, self->remote, self->identity, type, &request, ZP_FOREVER);
}

/* core.remote_queue(connection, identity or nil, notepad or nil) -> RemoteQueue of the state of that identity */
static int core_remote_queue(lua_State *L) {
  zp_remote *remote = zp_lnet_check(L, 1);
  uint64_t identity = (uint64_t)luaL_optinteger(L, 2, 0);
  zp_notepad *given = zp_lnotepad_get(L, 3);
  zp_notes *pad = given ? zp_notepad_notes(given) : NULL;
  lua_settop(L, 3);
  remote_queue *self = lua_newuserdatauv(L, sizeof *self, 2);
  *self = (remote_queue){.remote = remote, .identity = identity, .pad = pad};
  luaL_setmetatable(L, QUEUE);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1);
  lua_pushvalue(L, 3);
  lua_setiuservalue(L, -2, 2);
  return 1;
}

static int queue_add(lua_State *L) {
  remote_queue *self = check_queue(L);
  uint64_t total = lua_isnil(L, 3) ? ZP_TASK_UNKNOWN : check_number(L, 3);
  uint64_t whose = !lua_toboolean(L, 8) ? ZP_TASK_SHARED : lua_toboolean(L, 9) ? ZP_TASK_INNER : ZP_TASK_PRIVATE;
  zp_parcel request = {ZP_NUMBERS(check_number(L, 2), total, check_number(L, 4), check_number(L, 5), whose, check_number(L, 6)),
                       ZP_STRINGS(zp_lnet_bytes(L, 7))};
  const zp_parcel *answer;
  int rc;
  zp_lnet_prepare(L);
  do rc = zp_lnet_try(L, self->remote, self->identity, ZP_REQUEST_TASK_ADD, &request, ZP_FOREVER, &answer);
  while (rc == ZP_ESTALE); /* if there is one already it stays empty, and goes as one whose producer is gone */
  if (rc) return zp_lua_raise(L, rc);
  push_number(L, answer->numbers[0]);
  return 1;
}

/* Whether a task has so many items; one that there is not has none. With zp_lnet_prepare done. */
static bool has_items(lua_State *L, remote_queue *self, uint64_t task, uint64_t items) {
  const uint64_t *numbers = call(L, self, ZP_REQUEST_TASK_DESCRIBE, (zp_parcel){ZP_NUMBERS(task)})->numbers;
  return numbers[0] && numbers[2] == items;
}

/* The items before tell whether a block is there already, when the server does not know any more whether it was put. (An empty one, which
   ends the sequence, may be put twice.) */
static int queue_put(lua_State *L) {
  remote_queue *self = check_queue(L);
  uint64_t task = check_number(L, 2);
  zp_bytes bytes = zp_lnet_bytes(L, 3);
  uint64_t count = check_number(L, 4), before = check_number(L, 6);
  zp_parcel request = {ZP_NUMBERS(task, count, lua_toboolean(L, 5)), ZP_STRINGS(bytes)};
  const zp_parcel *answer;
  int rc;
  zp_lnet_prepare(L);
  do rc = zp_lnet_try(L, self->remote, self->identity, ZP_REQUEST_TASK_PUT, &request, ZP_FOREVER, &answer);
  while (rc == ZP_ESTALE && !(count > 0 && has_items(L, self, task, before + count)));
  return rc && rc != ZP_ESTALE ? zp_lua_raise(L, rc) : 0;
}

static int queue_adopt(lua_State *L) {
  remote_queue *self = check_queue(L);
  zp_parcel request = {ZP_NUMBERS(check_number(L, 2), check_number(L, 3))};
  const zp_parcel *answer;
  int rc;
  zp_lnet_prepare(L);
  do rc = zp_lnet_try(L, self->remote, self->identity, ZP_REQUEST_TASK_ADOPT, &request, ZP_FOREVER, &answer);
  while (rc == ZP_ESTALE); /* it may be done twice */
  if (rc) return zp_lua_raise(L, rc);
  lua_pushboolean(L, answer->numbers[0] != 0);
  return 1;
}

static int queue_specification(lua_State *L) {
  remote_queue *self = check_queue(L);
  zp_parcel request = {ZP_NUMBERS(check_number(L, 2))};
  zp_lnet_prepare(L);
  const zp_parcel *answer = call(L, self, ZP_REQUEST_TASK_SPECIFICATION, request);
  if (!answer->numbers[0]) return 0;
  lua_pushlstring(L, answer->strings[0].data, answer->strings[0].size);
  return 1;
}

static int queue_block(lua_State *L) {
  remote_queue *self = check_queue(L);
  zp_parcel request = {ZP_NUMBERS(check_number(L, 2), check_number(L, 3))};
  zp_lnet_prepare(L);
  const zp_parcel *answer = call(L, self, ZP_REQUEST_TASK_BLOCK, request);
  if (!answer->numbers[0]) return 0;
  return zp_lqueue_push_block(L, answer->strings[0], answer->numbers[1], answer->numbers[2]);
}

static int queue_describe(lua_State *L) {
  remote_queue *self = check_queue(L);
  zp_parcel request = {ZP_NUMBERS(check_number(L, 2))};
  zp_lnet_prepare(L);
  const uint64_t *numbers = call(L, self, ZP_REQUEST_TASK_DESCRIBE, request)->numbers;
  if (!numbers[0]) return 0;
  zp_task_info info = {.total = numbers[1], .put = numbers[2], .next = numbers[3], .taken = numbers[4], .finished = numbers[5],
                       .pending_bytes = numbers[6], .block_bytes = numbers[7], .active = (uint32_t)numbers[8],
                       .is_produced = numbers[9] != 0};
  return zp_lqueue_push_info(L, &info);
}

static int queue_drop(lua_State *L) {
  remote_queue *self = check_queue(L);
  zp_parcel request = {ZP_NUMBERS(check_number(L, 2))};
  zp_lnet_prepare(L);
  call(L, self, ZP_REQUEST_TASK_DROP, request);
  lua_pushboolean(L, 1);
  return 1;
}

static int queue_disband(lua_State *L) {
  remote_queue *self = check_queue(L);
  zp_parcel request = {ZP_NUMBERS(check_number(L, 2))};
  zp_lnet_prepare(L);
  call(L, self, ZP_REQUEST_TASK_DISBAND, request);
  return 0;
}

static int queue_take(lua_State *L) {
  remote_queue *self = check_queue(L);
  uint64_t task = check_number(L, 2), from = check_number(L, 3);
  luaL_checktype(L, 4, LUA_TTABLE);
  lua_Integer offset = luaL_checkinteger(L, 5);
  zp_lnet_prepare(L);
  const zp_parcel *answer = call(L, self, ZP_REQUEST_TASK_TAKE, (zp_parcel){ZP_NUMBERS(task, from)});
  if (!answer->numbers[0]) return 0;
  zp_result result = {.from = from, .to = answer->numbers[1], .is_dead = answer->numbers[2] != 0, .attempts = (uint32_t)answer->numbers[3]};
  return zp_lqueue_push_result(L, &result, answer->strings[0], 4, offset);
}

/* It may be done again, as often as servers are lost over it: when one of them does not know whether it was done, and finds no task, then all was
   taken. */
static int queue_acknowledge(lua_State *L) {
  remote_queue *self = check_queue(L);
  zp_parcel request = {ZP_NUMBERS(check_number(L, 2), check_number(L, 3))};
  const zp_parcel *answer = NULL;
  zp_lnet_prepare(L);
  bool is_again = false;
  int rc;
  while ((rc = zp_lnet_try(L, self->remote, self->identity, ZP_REQUEST_TASK_ACKNOWLEDGE, &request, ZP_FOREVER, &answer)) == ZP_ESTALE)
    is_again = true;
  if (rc && !(is_again && rc == ZP_ENOTASK)) return zp_lua_raise(L, rc);
  lua_pushboolean(L, rc == ZP_ENOTASK || answer->numbers[0] != 0);
  return 1;
}

/* With zp_lnet_prepare done. The parent learns by the notepad who to mourn. */
static void enlist(lua_State *L, remote_queue *self) {
  zp_parcel request = {ZP_NUMBERS(self->pool)};
  const zp_parcel *answer;
  int rc;
  do rc = zp_lnet_try(L, self->remote, self->identity, ZP_REQUEST_WORKER_ENLIST, &request, ZP_FOREVER, &answer);
  while (rc == ZP_ESTALE); /* it may be done twice */
  if (rc) zp_lua_raise(L, rc);
  if (!self->pad) return;
  atomic_store(&self->pad->item, UINT64_MAX);
  memcpy(self->pad->client, zp_remote_client(self->remote), ZP_NOTEPAD_CLIENT);
  atomic_store(&self->pad->is_enlisted, true);
}

static int queue_enlist(lua_State *L) {
  remote_queue *self = check_queue(L);
  self->pool = check_number(L, 2);
  zp_lnet_prepare(L);
  enlist(L, self);
  return 0;
}

/* Claim, after the result of what was claimed before (data NULL: there is none). */
static int claim(lua_State *L, remote_queue *self, zp_bytes result, double seconds) {
  zp_lnet_prepare(L);
  zp_parcel request = {ZP_NUMBERS(result.data != NULL, zp_parcel_of_double(seconds)), ZP_STRINGS(result)};
  const zp_parcel *answer = NULL;
  int rc = zp_lnet_try(L, self->remote, self->identity, ZP_REQUEST_WORKER_CLAIM, &request, ZP_FOREVER, &answer);
  while (rc == ZP_ESTALE) { /* the server is another one, or has given this worker up for dead; and what it had claimed */
    enlist(L, self);
    request = (zp_parcel){ZP_NUMBERS(0, 0), ZP_STRINGS({NULL, 0})};
    rc = zp_lnet_try(L, self->remote, self->identity, ZP_REQUEST_WORKER_CLAIM, &request, ZP_FOREVER, &answer);
  }
  if (rc) return zp_lua_raise(L, rc);
  if (self->pad) atomic_store(&self->pad->item, UINT64_MAX);
  const uint64_t *numbers = answer->numbers;
  if (!numbers[0]) return 0;
  return zp_lqueue_push_claim(L, &(zp_claim){.task = numbers[1], .from = numbers[2], .to = numbers[3], .is_suspect = numbers[4] != 0});
}

static int queue_claim(lua_State *L) { return claim(L, check_queue(L), (zp_bytes){NULL, 0}, 0); }

static int queue_finish(lua_State *L) {
  remote_queue *self = check_queue(L);
  double seconds = luaL_checknumber(L, 4);
  zp_buf *bytes = zp_lqueue_pack_result(L);
  return claim(L, self, zp_buf_bytes(bytes), seconds);
}

static int queue_note(lua_State *L) {
  remote_queue *self = check_queue(L);
  uint64_t item = check_number(L, 2), span = check_number(L, 3);
  if (!self->pad) return 0;
  atomic_store_explicit(&self->pad->span, span, memory_order_relaxed);
  atomic_store_explicit(&self->pad->item, item, memory_order_release);
  return 0;
}

static int queue_recover(lua_State *L) {
  remote_queue *self = check_queue(L);
  zp_lnet_prepare(L);
  push_number(L, call(L, self, ZP_REQUEST_TASK_RECOVER, (zp_parcel){.number_count = 0})->numbers[0]);
  return 1;
}

static int queue_arm(lua_State *L) {
  (void)check_queue(L);
  return 0;
}

static int queue_wait(lua_State *L) {
  remote_queue *self = check_queue(L);
  zp_parcel request = {ZP_NUMBERS(zp_parcel_of_double(luaL_checknumber(L, 2)))};
  const zp_parcel *answer = NULL;
  zp_lnet_prepare(L);
  int rc = zp_lnet_try(L, self->remote, self->identity, ZP_REQUEST_TASK_WAIT, &request, ZP_FOREVER, &answer);
  if (rc && rc != ZP_ESTALE) return zp_lua_raise(L, rc);
  lua_pushboolean(L, rc == ZP_ESTALE || answer->numbers[0] != 0); /* a server that was started again has not been asked yet: look there */
  return 1;
}

static int queue_close(lua_State *L) {
  remote_queue *self = luaL_checkudata(L, 1, QUEUE);
  self->remote = NULL;
  return 0;
}

static const luaL_Reg methods[] = {
    {"add", queue_add},
    {"put", queue_put},
    {"adopt", queue_adopt},
    {"specification", queue_specification},
    {"block", queue_block},
    {"describe", queue_describe},
    {"drop", queue_drop},
    {"disband", queue_disband},
    {"take", queue_take},
    {"acknowledge", queue_acknowledge},
    {"enlist", queue_enlist},
    {"claim", queue_claim},
    {"finish", queue_finish},
    {"note", queue_note},
    {"recover", queue_recover},
    {"arm_work", queue_arm},
    {"arm_result", queue_arm},
    {"wait", queue_wait},
    {"close", queue_close},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"remote_queue", core_remote_queue},
    {NULL, NULL},
};

void zp_lrqueue_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  zp_lclass_new(L, QUEUE, methods, queue_close);
}
