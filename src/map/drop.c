/*
 * drop -- the end of tasks that are not taken to their end: somebody gives them up, or their owner is gone.
 *
 * A task may have many records, so it is removed in several commits. The first one marks it, and from then on it is none for anybody; whoever
 * finds the mark can do the rest, at the same time as others, so it does not matter who dies.
 */
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "map/records.h"
#include "sys/alive.h"

enum { DROP_PORTION = 1000 /* records that are deleted in a commit */ };

static bool is_same(const zp_process_id *a, const zp_process_id *b) {
  return a->pid == b->pid && a->handle == b->handle && a->start == b->start;
}

/* ---- dropping ---- */

/* Delete up to a portion of the task's records of one kind: how many, or an error. */
static int drop_portion(zp_queue *queue, uint64_t id, int kind) {
  int rc = zp_queue_begin(queue);
  if (rc) return rc;
  int count = 0;
  uint64_t number;
  zp_bytes value;
  for (rc = zp_queue_seek(queue, kind, 2, id, 0, &number, &value); rc == 1 && count < DROP_PORTION;
       rc = zp_queue_step(queue, kind, 2, id, &number, &value)) {
    zp_queue_delete(queue, kind, 2, id, number);
    count++;
  }
  rc = zp_queue_end(queue, rc < 0 ? rc : 0);
  return rc ? rc : count;
}

/* Mark it, so that nobody begins with it any more; not if it has another owner than this one (NULL: whoever it is). 1, or 0 if there is
   nothing to remove. */
static int mark(zp_queue *queue, uint64_t id, const zp_process_id *owner) {
  int rc = zp_queue_begin(queue);
  if (rc) return rc;
  zp_task task;
  rc = zp_queue_get(queue, ZP_KEY_TASK, 1, id, 0, &task, sizeof task);
  if (rc == 1 && owner && !is_same(&task.owner, owner)) rc = 0;
  if (rc == 1) {
    task.dropped = 1;
    zp_queue_set(queue, ZP_KEY_TASK, 1, id, 0, ZP_BYTES_OF(task));
    zp_queue_forget_work(queue, id, &task);
  }
  return zp_queue_end(queue, rc);
}

/* Remove a task that is marked. */
static int remove_task(zp_queue *queue, uint64_t id) {
  static const int kinds[] = {ZP_KEY_BLOCK, ZP_KEY_RESULT, ZP_KEY_RETURNED};
  int rc;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    do rc = drop_portion(queue, id, kinds[i]);
    while (rc > 0);
    if (rc) return rc;
  }
  rc = zp_queue_begin(queue);
  if (rc) return rc;
  zp_queue_delete(queue, ZP_KEY_SPEC, 1, id, 0);
  zp_queue_delete(queue, ZP_KEY_TASK, 1, id, 0);
  return zp_queue_end(queue, 0);
}

int zp_queue_drop(zp_queue *queue, uint64_t id) {
  int rc = mark(queue, id, NULL);
  return rc == 1 ? remove_task(queue, id) : rc;
}

/* ---- owners elsewhere ---- */

static zp_process_id stand_in(zp_queue *queue) {
  zp_process_id self = zp_queue_self(queue);
  self.handle = queue->number;
  return self;
}

int zp_queue_own(zp_queue *queue, uint64_t id) {
  zp_process_id self = stand_in(queue);
  int rc = zp_queue_begin(queue);
  if (rc) return rc;
  zp_task task;
  rc = zp_queue_get(queue, ZP_KEY_TASK, 1, id, 0, &task, sizeof task);
  if (rc == 1 && (task.dropped || task.owner.handle == 0)) rc = 0;
  if (rc == 1) {
    task.owner = self;
    task.missed_since = 0;
    zp_queue_set(queue, ZP_KEY_TASK, 1, id, 0, ZP_BYTES_OF(task));
  }
  return zp_queue_end(queue, rc);
}

static int miss(zp_queue *queue, uint64_t id, const zp_process_id *owner) {
  int rc = zp_queue_begin(queue);
  if (rc) return rc;
  zp_task task;
  rc = zp_queue_get(queue, ZP_KEY_TASK, 1, id, 0, &task, sizeof task);
  if (rc == 1 && !task.dropped && is_same(&task.owner, owner) && task.missed_since == 0) {
    task.missed_since = zp_clock_now();
    zp_queue_set(queue, ZP_KEY_TASK, 1, id, 0, ZP_BYTES_OF(task));
  }
  return zp_queue_end(queue, rc < 0 ? rc : 0);
}

int zp_queue_miss(zp_queue *queue, uint64_t id) {
  zp_process_id self = stand_in(queue);
  return miss(queue, id, &self);
}

/* ---- clearing ---- */

typedef enum fate { KEPT, MISSED, ORPHANED } fate;

/* Several tasks in a row are mostly one process's, and asking the kernel about that takes longer than all the rest. */
typedef struct acquaintance {
  zp_process_id process;
  bool is_alive;
} acquaintance;

static bool is_alive(const zp_process_id *process, acquaintance *last) {
  if (last->process.pid != process->pid || last->process.start != process->start)
    *last = (acquaintance){*process, zp_alive_is(process->pid, process->start)};
  return last->is_alive;
}

static fate fate_of(const zp_task *task, double patience, acquaintance *last) {
  if (task->dropped) return ORPHANED;
  if (task->owner.pid == 0) return KEPT;
  if (task->missed_since > 0) return zp_clock_now() - task->missed_since >= patience ? ORPHANED : KEPT;
  if (is_alive(&task->owner, last)) return KEPT;
  return task->owner.handle ? MISSED : ORPHANED;
}

/* In a read of its own: the first task from a number on that is not to be left as it is: 1, 0 if there is none. */
static int next_to_settle(zp_queue *queue, double patience, acquaintance *last, uint64_t *id, zp_task *task, fate *what) {
  zp_bytes value;
  int rc = zp_store_read_begin(queue->store);
  if (rc) return rc;
  *what = KEPT;
  for (rc = zp_queue_seek(queue, ZP_KEY_TASK, 1, 0, *id, id, &value); rc == 1; rc = zp_queue_step(queue, ZP_KEY_TASK, 1, 0, id, &value)) {
    if (value.size != sizeof *task) {
      rc = zp_fail(ZP_ESTORE, "the queue of tasks in %s is damaged", zp_store_directory(queue->store));
      break;
    }
    memcpy(task, value.data, sizeof *task);
    *what = fate_of(task, patience, last);
    if (*what != KEPT) break;
  }
  zp_store_read_end(queue->store);
  return rc;
}

/* ---- pools that are left ---- */

static bool has_number(const zp_buf *numbers, uint64_t number) {
  uint64_t one;
  for (size_t at = 0; at < numbers->size; at += sizeof one) {
    memcpy(&one, numbers->data + at, sizeof one);
    if (one == number) return true;
  }
  return false;
}

/* Within a read: a portion of the pools that have a counter to wake workers by, and no workers. */
static int find_left_pools(zp_queue *queue, zp_buf *left) {
  zp_buf manned = ZP_BUF_INIT;
  zp_worker worker;
  uint64_t number;
  zp_bytes value;
  int rc = zp_queue_seek(queue, ZP_KEY_WORKER, 1, 0, 0, &number, &value);
  for (; rc == 1; rc = zp_queue_step(queue, ZP_KEY_WORKER, 1, 0, &number, &value)) {
    memcpy(&worker, value.data, value.size < sizeof worker ? value.size : sizeof worker);
    int failed = has_number(&manned, worker.pool) ? 0 : zp_buf_append(&manned, &worker.pool, sizeof worker.pool);
    if (failed) rc = failed;
    if (rc < 0) break;
  }
  if (rc == 0) rc = zp_queue_seek(queue, ZP_KEY_WAKE, 1, 0, 0, &number, &value);
  for (; rc == 1 && left->size < DROP_PORTION * sizeof number; rc = zp_queue_step(queue, ZP_KEY_WAKE, 1, 0, &number, &value)) {
    if (number == ZP_POOL_ALL || has_number(&manned, number)) continue;
    int failed = zp_buf_append(left, &number, sizeof number);
    if (failed) {
      rc = failed;
      break;
    }
  }
  zp_buf_free(&manned);
  return rc < 0 ? rc : 0;
}

/* A counter that is missed by a worker who comes meanwhile begins anew: that it changes is all that matters, and this is a change, too. */
static int forget_left_pools(zp_queue *queue) {
  zp_buf left = ZP_BUF_INIT;
  int rc = zp_store_read_begin(queue->store);
  if (rc) return rc;
  rc = find_left_pools(queue, &left);
  zp_store_read_end(queue->store);
  if (!rc && left.size > 0) rc = zp_queue_begin(queue);
  if (!rc && left.size > 0) {
    for (size_t at = 0; at < left.size; at += sizeof(uint64_t)) {
      uint64_t pool;
      memcpy(&pool, left.data + at, sizeof pool);
      zp_queue_delete(queue, ZP_KEY_WAKE, 1, pool, 0);
    }
    rc = zp_queue_end(queue, 0);
  }
  zp_buf_free(&left);
  return rc;
}

int zp_queue_clear(zp_queue *queue, double patience) {
  acquaintance last = {.is_alive = false};
  zp_task task;
  fate what = KEPT;
  int count = 0, rc;
  for (uint64_t id = 0; (rc = next_to_settle(queue, patience, &last, &id, &task, &what)) == 1; id++) {
    if (what == MISSED) {
      rc = miss(queue, id, &task.owner);
    } else {
      rc = mark(queue, id, &task.owner);
      if (rc == 1) rc = remove_task(queue, id);
      if (!rc) count++;
    }
    if (rc < 0) break;
  }
  if (rc >= 0) rc = forget_left_pools(queue);
  return rc < 0 ? rc : count;
}
