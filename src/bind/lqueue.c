/*
 * lqueue -- the queue of tasks for Lua: core.queue and the Queue that it gives. What the calls mean is in map/queue.h.
 */

#include <lauxlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/random.h"
#include "bind/core.h"
#include "bind/lbuf.h"
#include "bind/lclass.h"
#include "bind/lerror.h"
#include "bind/lsignal.h"
#include "bind/lqueue.h"
#include "bind/lrun.h"
#include "codec/value.h"
#include "map/queue.h"
#include "sys/table.h"

#define QUEUE "zproc.Queue"

static zp_queue *check_queue(lua_State *L) {
  zp_queue *queue = *(zp_queue **)luaL_checkudata(L, 1, QUEUE);
  if (!queue) zp_lua_usage(L, "the queue is closed");
  return queue;
}

static zp_bytes check_bytes(lua_State *L, int idx) {
  zp_bytes bytes;
  bytes.data = luaL_checklstring(L, idx, &bytes.size);
  return bytes;
}

static uint64_t check_number(lua_State *L, int idx) { return (uint64_t)luaL_checkinteger(L, idx); }

static void push_number(lua_State *L, uint64_t number) { lua_pushinteger(L, (lua_Integer)number); }

/* core.queue(directory) -> Queue of the server whose state is there. */
static int core_queue(lua_State *L) {
  const char *directory = luaL_checkstring(L, 1);
  zp_queue **queue = lua_newuserdatauv(L, sizeof *queue, 0);
  *queue = NULL;
  luaL_setmetatable(L, QUEUE);
  int rc = zp_queue_open(directory, queue);
  return rc ? zp_lua_raise(L, rc) : 1;
}

/* core.new_pool() -> a number that no other pool has. */
static int core_new_pool(lua_State *L) {
  push_number(L, zp_random_number());
  return 1;
}

/* queue:add(pool, total or nil, workers, max_attempts, chunk, specification, is_private, is_inner) -> task. is_inner: it is a worker's, for the
   chunk that it works on; it is for queues elsewhere, as a process of this machine is either there or not. */
static int queue_add(lua_State *L) {
  zp_queue *queue = check_queue(L);
  zp_task_options options = {.pool = check_number(L, 2),
                             .total = lua_isnil(L, 3) ? ZP_TASK_UNKNOWN : check_number(L, 3),
                             .workers = (uint32_t)check_number(L, 4),
                             .max_attempts = (uint32_t)check_number(L, 5),
                             .is_private = lua_toboolean(L, 8),
                             .chunk = (uint32_t)check_number(L, 6)};
  uint64_t task;
  int rc = zp_queue_add(queue, &options, check_bytes(L, 7), &task);
  if (rc) return zp_lua_raise(L, rc);
  push_number(L, task);
  return 1;
}

/* queue:put(task, bytes, count, last, before): so many items, packed, are the next ones. `before`: how many were put before, as the caller
   knows; it is for queues elsewhere. */
static int queue_put(lua_State *L) {
  zp_queue *queue = check_queue(L);
  uint64_t task = check_number(L, 2);
  int rc = zp_queue_put(queue, task, check_number(L, 4), check_bytes(L, 3), lua_toboolean(L, 5));
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* queue:adopt(task, pool) -> whether there is such a task */
static int queue_adopt(lua_State *L) {
  int rc = zp_queue_adopt(check_queue(L), check_number(L, 2), check_number(L, 3));
  if (rc < 0) return zp_lua_raise(L, rc);
  lua_pushboolean(L, rc);
  return 1;
}

/* queue:specification(task) -> bytes or nil */
static int queue_specification(lua_State *L) {
  zp_queue *queue = check_queue(L);
  uint64_t task = check_number(L, 2);
  zp_buf *bytes = zp_lbuf_push(L);
  int rc = zp_queue_specification(queue, task, bytes);
  if (rc < 0) return zp_lua_raise(L, rc);
  if (rc == 0) return 0;
  lua_pushlstring(L, (const char *)bytes->data, bytes->size);
  return 1;
}

int zp_lqueue_push_block(lua_State *L, zp_bytes bytes, uint64_t first, uint64_t items) {
  lua_createtable(L, items < INT32_MAX ? (int)items : 0, 0);
  int rc = zp_unpack(L, lua_gettop(L), 1, items, bytes);
  if (rc) return zp_lua_raise(L, rc);
  lua_insert(L, -2); /* errors, items */
  push_number(L, first);
  push_number(L, items);
  lua_rotate(L, -4, -1);
  return 4;
}

/* queue:block(task, item) -> the array of the items of its block, the number of the first one, how many, and nil or the errors of those that
   cannot be read by their places; or nil */
static int queue_block(lua_State *L) {
  zp_queue *queue = check_queue(L);
  uint64_t task = check_number(L, 2), item = check_number(L, 3), first = 0, items = 0;
  zp_buf *bytes = zp_lbuf_push(L);
  int rc = zp_queue_block(queue, task, item, &first, &items, bytes);
  if (rc < 0) return zp_lua_raise(L, rc);
  if (rc == 0) return 0;
  int pushed = zp_lqueue_push_block(L, zp_buf_bytes(bytes), first, items);
  zp_buf_free(bytes);
  return pushed;
}

static void set_number(lua_State *L, const char *name, uint64_t number) {
  push_number(L, number);
  lua_setfield(L, -2, name);
}

int zp_lqueue_push_info(lua_State *L, const zp_task_info *info) {
  lua_createtable(L, 0, 9);
  if (info->total != ZP_TASK_UNKNOWN) set_number(L, "total", info->total);
  set_number(L, "put", info->put);
  set_number(L, "next", info->next);
  set_number(L, "taken", info->taken);
  set_number(L, "finished", info->finished);
  set_number(L, "pending_bytes", info->pending_bytes);
  set_number(L, "block_bytes", info->block_bytes);
  set_number(L, "active", info->active);
  lua_pushboolean(L, info->is_produced);
  lua_setfield(L, -2, "is_produced");
  return 1;
}

/* queue:describe(task) -> { total = (nil while it is not known), put, next, taken, finished, pending_bytes, block_bytes, active,
   is_produced }, or nil */
static int queue_describe(lua_State *L) {
  zp_task_info info;
  int rc = zp_queue_describe(check_queue(L), check_number(L, 2), &info);
  if (rc < 0) return zp_lua_raise(L, rc);
  return rc == 0 ? 0 : zp_lqueue_push_info(L, &info);
}

int zp_lqueue_push_summary(lua_State *L, const zp_queue_summary *summary, int64_t waiting) {
  lua_createtable(L, 0, 5);
  set_number(L, "tasks", summary->tasks);
  set_number(L, "put", summary->put);
  set_number(L, "finished", summary->finished);
  set_number(L, "claims", summary->claims);
  if (waiting >= 0) set_number(L, "waiting", (uint64_t)waiting);
  return 1;
}

/* core.summarize(directory) -> what there is in the queue of the server whose state is there, and how many wait for a change. */
static int core_summarize(lua_State *L) {
  const char *directory = luaL_checkstring(L, 1);
  zp_queue_summary summary;
  zp_table *table;
  int rc = zp_queue_summarize(directory, &summary);
  if (!rc) rc = zp_table_open(directory, &table);
  if (rc) return zp_lua_raise(L, rc);
  int waiting = zp_table_count_waiting(table);
  zp_table_close(&table);
  return zp_lqueue_push_summary(L, &summary, waiting);
}

/* queue:drop(task) -> true; or false if a signal has come in between, which is left to others: for finalisers, which cannot
   raise it */
static int queue_drop(lua_State *L) {
  int rc = zp_queue_drop(check_queue(L), check_number(L, 2));
  if (rc < 0 && rc != ZP_EINTR) return zp_lua_raise(L, rc);
  lua_pushboolean(L, rc != ZP_EINTR);
  return 1;
}

/* queue:disband(pool) */
static int queue_disband(lua_State *L) {
  int rc = zp_queue_disband(check_queue(L), check_number(L, 2));
  return rc < 0 ? zp_lua_raise(L, rc) : 0;
}

/* A result is the size of the packed results, these, and, if there are any, the failures as the codec has them. */
enum { RESULT_HEAD = 4 };

int zp_lqueue_push_result(lua_State *L, const zp_result *result, zp_bytes bytes, int array, lua_Integer offset) {
  push_number(L, result->to);
  if (result->is_dead) {
    lua_pushboolean(L, 0);
    push_number(L, result->attempts);
    lua_pushnil(L);
    return 4;
  }
  const unsigned char *data = bytes.data;
  size_t packed = bytes.size >= RESULT_HEAD ? zp_get_be32(data) : SIZE_MAX;
  if (packed > bytes.size - RESULT_HEAD) return zp_lua_raise(L, zp_fail(ZP_EDECODE, "a result that is cut short"));
  int rc = zp_unpack(L, array, offset + 1, result->to - result->from, (zp_bytes){data + RESULT_HEAD, packed});
  if (rc) return zp_lua_raise(L, rc);
  zp_bytes rest = {data + RESULT_HEAD + packed, bytes.size - RESULT_HEAD - packed};
  if (rest.size > 0) rc = zp_value_decode(L, rest, ZP_DECODE_CODE);
  else lua_pushnil(L);
  if (rc) return zp_lua_raise(L, rc);
  push_number(L, result->attempts);
  lua_rotate(L, -3, -1);
  return 4;
}

/* queue:take(task, from, array, offset) -> to, failures, attempts, errors: what is behind the last item of the result that begins at `from`, whose
   values are put into the array behind the offset; failures by their places, nil if there are none, false if nobody survived the one
   item; nil, or the errors of those that cannot be read by their places. nil if it is not there yet. */
static int queue_take(lua_State *L) {
  zp_queue *queue = check_queue(L);
  uint64_t task = check_number(L, 2), from = check_number(L, 3);
  luaL_checktype(L, 4, LUA_TTABLE);
  lua_Integer offset = luaL_checkinteger(L, 5);
  zp_result result = {.to = 0};
  zp_buf *bytes = zp_lbuf_push(L);
  int rc = zp_queue_take(queue, task, from, &result, bytes);
  if (rc < 0) return zp_lua_raise(L, rc);
  if (rc == 0) return 0;
  int pushed = zp_lqueue_push_result(L, &result, zp_buf_bytes(bytes), 4, offset);
  zp_buf_free(bytes); /* not by the garbage collector some time: results are large */
  return pushed;
}

/* queue:acknowledge(task, position) -> whether that was all of it */
static int queue_acknowledge(lua_State *L) {
  int rc = zp_queue_acknowledge(check_queue(L), check_number(L, 2), check_number(L, 3));
  if (rc < 0) return zp_lua_raise(L, rc);
  lua_pushboolean(L, rc);
  return 1;
}

/* queue:enlist(pool) */
static int queue_enlist(lua_State *L) {
  int rc = zp_queue_enlist(check_queue(L), check_number(L, 2));
  return rc ? zp_lua_raise(L, rc) : 0;
}

int zp_lqueue_push_claim(lua_State *L, const zp_claim *claim) {
  push_number(L, claim->task);
  push_number(L, claim->from);
  push_number(L, claim->to);
  lua_pushboolean(L, claim->is_suspect);
  return 4;
}

static int claim(lua_State *L, zp_queue *queue, const zp_done *done) {
  zp_claim claimed;
  int rc = zp_queue_claim(queue, done, &claimed);
  if (rc < 0) return zp_lua_raise(L, rc);
  return rc == 0 ? 0 : zp_lqueue_push_claim(L, &claimed);
}

/* queue:claim() -> task, from, to, is_suspect; or nil. */
static int queue_claim(lua_State *L) { return claim(L, check_queue(L), NULL); }

zp_buf *zp_lqueue_pack_result(lua_State *L) {
  static const unsigned char head[RESULT_HEAD];
  zp_bytes run = zp_run_finish(zp_lrun_check(L, 2));
  zp_buf *bytes = zp_lbuf_push(L);
  int rc = run.size > UINT32_MAX ? zp_fail(ZP_EENCODE, "cannot send results of more than 4 GB at once") : 0;
  if (!rc) rc = zp_buf_append(bytes, head, sizeof head);
  if (!rc) rc = zp_buf_append(bytes, run.data, run.size);
  if (!rc) zp_put_be32(bytes->data, (uint32_t)run.size);
  if (!rc && !lua_isnil(L, 3)) rc = zp_value_encode(L, 3, "error", bytes);
  if (rc) zp_lua_raise(L, rc);
  return bytes;
}

/* queue:finish(run, failures or nil, seconds) -> as queue:claim: leave the result of what was claimed before, and how long it took, and claim
   again. If it raises, nothing has happened. */
static int queue_finish(lua_State *L) {
  zp_queue *queue = check_queue(L);
  double seconds = luaL_checknumber(L, 4);
  zp_buf *bytes = zp_lqueue_pack_result(L);
  zp_done done = {zp_buf_bytes(bytes), seconds};
  int results = claim(L, queue, &done);
  zp_buf_free(bytes);
  return results;
}

/* queue:note(item, span), of a worker. */
static int queue_note(lua_State *L) {
  zp_queue_note(check_queue(L), check_number(L, 2), check_number(L, 3));
  return 0;
}

/* queue:recover() -> how many dead workers there were */
static int queue_recover(lua_State *L) {
  int rc = zp_queue_recover(check_queue(L));
  if (rc < 0) return zp_lua_raise(L, rc);
  lua_pushinteger(L, rc);
  return 1;
}

/* queue:arm_work(), queue:arm_result(task, from): from here on queue:wait is not to miss it. */
static int queue_arm_work(lua_State *L) {
  int rc = zp_queue_arm_work(check_queue(L));
  return rc ? zp_lua_raise(L, rc) : 0;
}

static int queue_arm_result(lua_State *L) {
  int rc = zp_queue_arm_result(check_queue(L), check_number(L, 2), check_number(L, 3));
  return rc ? zp_lua_raise(L, rc) : 0;
}

/* queue:wait(seconds) -> whether something has happened: what was armed for, or the end of a process. */
static int queue_wait(lua_State *L) {
  zp_queue *queue = check_queue(L);
  double deadline = zp_clock_now() + luaL_checknumber(L, 2);
  zp_lsignal_begin_wait(L);
  int rc = zp_queue_wait(queue, deadline);
  zp_lsignal_end_wait();
  if (rc == ZP_EINTR) { /* a signal, which is raised, or a child that has ended */
    zp_lsignal_begin_wait(L);
    zp_lsignal_end_wait();
    rc = 0;
  }
  if (rc && rc != ZP_ETIMEOUT) return zp_lua_raise(L, rc);
  lua_pushboolean(L, rc == 0);
  return 1;
}

static int queue_close(lua_State *L) {
  zp_queue_close((zp_queue **)luaL_checkudata(L, 1, QUEUE));
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
    {"arm_work", queue_arm_work},
    {"arm_result", queue_arm_result},
    {"wait", queue_wait},
    {"close", queue_close},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {
    {"queue", core_queue},
    {"new_pool", core_new_pool},
    {"summarize", core_summarize},
    {NULL, NULL},
};

void zp_lqueue_open(lua_State *L) {
  luaL_setfuncs(L, functions, 0);
  zp_lclass_new(L, QUEUE, methods, queue_close);
}
