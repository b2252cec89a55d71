/*
 * worker -- the workers' side of the queue: slots, claims, and what becomes of the claims of the dead.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "map/records.h"
#include "sys/alive.h"
#include "sys/shared.h"

/* A chunk is to take about so long: claiming costs some microseconds, and a chunk that is lost is worked on again. */
static const double CHUNK_SECONDS = 0.004;
static const double UNITS_SECONDS = 0.001;
static const double RESULT_BYTES = 1 << 20; /* that a chunk's result should have at most */
static const double WEIGHT = 0.4;           /* of the newest measurement */
enum {
  GROWTH = 8,   /* chunks become so many times as large at most: the first measurement is of one item alone */
  PER_WORKER = 2 /* chunks that are left for each worker, at least */
};

/* ---- slots ---- */

static bool has_slot(const zp_queue *queue) { return queue->slot >= 0 && queue->slot_process == getpid(); }

int zp_queue_enlist(zp_queue *queue, uint64_t pool) {
  zp_worker worker = {.process = {.pid = getpid(), .start = zp_alive_start(getpid())}, .pool = pool};
  int rc = zp_queue_begin(queue);
  if (rc) return rc;
  uint64_t slot = 0, taken, counter = 0;
  zp_bytes value;
  for (rc = zp_queue_seek(queue, ZP_KEY_WORKER, 1, 0, 0, &taken, &value); rc == 1 && taken == slot;
       rc = zp_queue_step(queue, ZP_KEY_WORKER, 1, 0, &taken, &value))
    slot++;
  if (rc >= 0 && slot >= ZP_QUEUE_SLOTS) rc = zp_fail(ZP_ESYS, "there are %d workers already", (int)ZP_QUEUE_SLOTS);
  if (rc >= 0) {
    rc = 0;
    atomic_store(&queue->progress[slot].item, UINT64_MAX);
    zp_queue_set(queue, ZP_KEY_WORKER, 1, slot, 0, ZP_BYTES_OF(worker));
    if (pool == ZP_POOL_ALL && zp_queue_get(queue, ZP_KEY_WAKE, 1, pool, 0, &counter, sizeof counter) == 0)
      zp_queue_set(queue, ZP_KEY_WAKE, 1, pool, 0, ZP_BYTES_OF(counter));
  }
  rc = zp_queue_end(queue, rc);
  if (rc) return rc;
  queue->slot = (int64_t)slot;
  queue->slot_process = getpid();
  queue->pool = pool;
  return 0;
}

void zp_queue_note(zp_queue *queue, uint64_t item, uint64_t span) {
  if (queue->slot < 0) return;
  zp_progress *progress = &queue->progress[queue->slot];
  atomic_store_explicit(&progress->span, span, memory_order_relaxed);
  atomic_store_explicit(&progress->item, item, memory_order_release);
}

/* ---- claiming ---- */

/* How many items the next chunk has; there are `available`. If chunks of a size are wanted, several of these are claimed at once as long as
   that takes hardly any time. */
static uint64_t choose_size(const zp_task *task, uint64_t available) {
  double unit = task->chunk ? task->chunk : 1;
  double size = task->item_seconds > 0 ? (task->chunk ? UNITS_SECONDS : CHUNK_SECONDS) / task->item_seconds : 1;
  double most = task->last_chunk ? (double)task->last_chunk * GROWTH : 1;
  if (size > most) size = most;
  if (task->item_bytes > 0 && size > RESULT_BYTES / task->item_bytes) size = RESULT_BYTES / task->item_bytes;
  double share = (double)available / (PER_WORKER * task->workers);
  if (size > share) size = ceil(share);
  size = size < unit ? unit : floor(size / unit) * unit;
  return size < (double)available ? (uint64_t)size : available;
}

static double mix(double old, double fresh) { return old > 0 ? old * (1 - WEIGHT) + fresh * WEIGHT : fresh; }

static bool is_helper(const zp_worker *worker) { return worker->pool == ZP_POOL_ALL; }

static void end_claim(zp_task *task, const zp_worker *worker) {
  task->active--;
  if (is_helper(worker)) task->helpers--;
}

/* Take the claim from the worker, and leave its result. 1 with the task as it is now, which is not recorded yet; 0 if there is no task
   any more. */
static int finish(zp_queue *queue, zp_worker *worker, const zp_done *done, zp_task *task) {
  int rc = zp_queue_get(queue, ZP_KEY_TASK, 1, worker->task, 0, task, sizeof *task);
  if (rc < 0) return rc;
  if (rc == 1 && !task->dropped) {
    zp_result_head head = {.to = worker->to, .attempts = (uint32_t)worker->attempts};
    zp_buf_clear(&queue->value, 1 << 16);
    rc = zp_buf_append(&queue->value, &head, sizeof head);
    if (!rc) rc = zp_buf_append(&queue->value, done->bytes.data, done->bytes.size);
    if (rc) return rc;
    uint64_t items = worker->to - worker->from;
    zp_queue_set(queue, ZP_KEY_RESULT, 2, worker->task, worker->from, zp_bytes_of(queue->value.data, queue->value.size));
    task->finished += items;
    task->pending_bytes += queue->value.size;
    end_claim(task, worker);
    task->item_seconds = mix(task->item_seconds, done->seconds / (double)items);
    task->item_bytes = mix(task->item_bytes, (double)done->bytes.size / (double)items);
    rc = 1;
  } else {
    rc = 0;
  }
  return rc;
}

/* Claim something of the task, if there is anything. 1, 0, or an error; the task is not recorded yet. */
static int claim_of(zp_queue *queue, uint64_t id, zp_task *task, zp_worker *worker) {
  if (task->dropped || (!is_helper(worker) && task->active - task->helpers >= task->workers)) return 0;
  if (task->returned > 0) { /* even if the task is blocked: its consumer may be waiting for this very chunk */
    zp_returned returned;
    uint64_t from;
    zp_bytes value;
    int rc = zp_queue_seek(queue, ZP_KEY_RETURNED, 2, id, 0, &from, &value);
    if (rc < 0) return rc;
    if (rc == 0 || value.size != sizeof returned) return zp_fail(ZP_ESTORE, "the queue of tasks is damaged");
    memcpy(&returned, value.data, sizeof returned);
    zp_queue_delete(queue, ZP_KEY_RETURNED, 2, id, from);
    task->returned--;
    worker->from = from;
    worker->to = returned.to;
    worker->attempts = returned.attempts;
  } else {
    if (task->next == task->put || zp_task_is_blocked(task)) return 0;
    uint64_t size = choose_size(task, task->put - task->next);
    worker->from = task->next;
    worker->to = task->next += size;
    worker->attempts = 0;
    task->last_chunk = size < UINT32_MAX / GROWTH ? (uint32_t)size : UINT32_MAX / GROWTH;
  }
  worker->task = id;
  task->active++;
  if (is_helper(worker)) task->helpers++;
  return 1;
}

static bool has_work(const zp_task *task) { return task->returned > 0 || (task->next < task->put && !zp_task_is_blocked(task)); }

static void forget_if_complete(zp_queue *queue, uint64_t id, const zp_task *task) {
  if (zp_task_is_complete(task)) zp_queue_forget_work(queue, id, task);
}

/* Find the first task, from a number on, at which the worker has to look. */
static int next_task(zp_queue *queue, const zp_worker *worker, uint64_t from, uint64_t *id) {
  zp_bytes value;
  if (is_helper(worker)) return zp_queue_seek(queue, ZP_KEY_TASK, 1, 0, from, id, &value);
  return zp_queue_seek(queue, ZP_KEY_WORK, 2, worker->pool, from, id, &value);
}

int zp_queue_claim(zp_queue *queue, const zp_done *done, zp_claim *claim) {
  if (!has_slot(queue)) return zp_fail(ZP_ESYS, "this is no worker");
  uint64_t slot = (uint64_t)queue->slot, finished_id = 0, id;
  zp_worker worker;
  zp_task finished, fresh, *task = NULL;
  uint64_t counters[ZP_TASK_WAKES];
  int rc = zp_queue_begin(queue);
  if (rc) return rc;
  rc = zp_queue_get(queue, ZP_KEY_WORKER, 1, slot, 0, &worker, sizeof worker);
  if (rc == 0) rc = zp_fail(ZP_ESTORE, "the queue of tasks is damaged: a worker is not there");
  if (rc < 0) goto out;
  if (done) {
    rc = finish(queue, &worker, done, &finished);
    if (rc < 0) goto out;
    if (rc == 1) finished_id = worker.task;
    worker.task = 0;
    atomic_store_explicit(&queue->progress[slot].item, UINT64_MAX, memory_order_release);
  }

  bool found = false;
  for (rc = next_task(queue, &worker, 0, &id); rc == 1 && !found;) {
    uint64_t at = id;
    task = &fresh;
    if (at == finished_id) task = &finished; /* rc is 1 */
    else rc = zp_queue_get(queue, ZP_KEY_TASK, 1, at, 0, task, sizeof *task);
    if (rc == 0 && !is_helper(&worker)) zp_queue_delete(queue, ZP_KEY_WORK, 2, worker.pool, at); /* what one who died while he dropped it has left */
    if (rc == 1) rc = claim_of(queue, at, task, &worker);
    if (rc < 0) goto out;
    found = rc == 1;
    if (!found) rc = next_task(queue, &worker, at + 1, &id);
  }
  if (rc < 0) goto out;
  if (finished_id) {
    zp_queue_set(queue, ZP_KEY_TASK, 1, finished_id, 0, ZP_BYTES_OF(finished));
    forget_if_complete(queue, finished_id, &finished);
    /* This worker goes elsewhere; somebody else may be waiting for it to do so. */
    if (!(found && task == &finished) && has_work(&finished)) rc = zp_queue_wake_task(queue, &finished, counters);
    if (rc < 0) goto out;
  }
  if (found && task == &fresh) zp_queue_set(queue, ZP_KEY_TASK, 1, worker.task, 0, ZP_BYTES_OF(fresh));
  if (done || found) zp_queue_set(queue, ZP_KEY_WORKER, 1, slot, 0, ZP_BYTES_OF(worker));
  rc = found;
  if (found)
    *claim = (zp_claim){.task = worker.task, .from = worker.from, .to = worker.to,
                        .is_suspect = worker.attempts > 0 || task->max_attempts == 1};
out:
  return zp_queue_end(queue, rc);
}

/* ---- the dead ---- */

static bool has_died(const zp_worker *worker) { return !zp_alive_is(worker->process.pid, worker->process.start); }

/* What becomes of one worker's claim: some items are given back, and some may have had their last attempt. */
typedef struct legacy {
  zp_task task;
  zp_returned returned[3];
  zp_result_head verdict;
  uint64_t counters[ZP_TASK_WAKES];
} legacy;

static void give_back(zp_queue *queue, legacy *left, int n, uint64_t task, uint64_t from, uint64_t to, uint64_t attempts) {
  if (from == to) return;
  left->returned[n] = (zp_returned){.to = to, .attempts = attempts};
  zp_queue_set(queue, ZP_KEY_RETURNED, 2, task, from, ZP_BYTES_OF(left->returned[n]));
  left->task.returned++;
}

/* The items at which the worker died have had one attempt more, the others have not. */
static int settle(zp_queue *queue, const zp_worker *worker, uint64_t slot, legacy *left) {
  zp_task *task = &left->task;
  int rc = zp_queue_get(queue, ZP_KEY_TASK, 1, worker->task, 0, task, sizeof *task);
  if (rc != 1 || task->dropped) return rc < 0 ? rc : 0;
  end_claim(task, worker);
  uint64_t item = atomic_load_explicit(&queue->progress[slot].item, memory_order_acquire);
  uint64_t span = atomic_load_explicit(&queue->progress[slot].span, memory_order_relaxed);
  uint64_t from = worker->from, to = worker->to, attempts = worker->attempts + 1;
  if (item < from || item >= to) { /* it had not begun, or was about to finish */
    give_back(queue, left, 0, worker->task, from, to, worker->attempts);
  } else {
    uint64_t end = span < to - item ? item + span : to;
    give_back(queue, left, 0, worker->task, from, item, worker->attempts);
    if (end == item + 1 && attempts >= task->max_attempts) {
      left->verdict = (zp_result_head){.to = end, .is_dead = 1, .attempts = (uint32_t)attempts};
      zp_queue_set(queue, ZP_KEY_RESULT, 2, worker->task, item, ZP_BYTES_OF(left->verdict));
      task->finished++;
      task->pending_bytes += sizeof left->verdict;
    } else {
      give_back(queue, left, 1, worker->task, item, end, attempts);
    }
    give_back(queue, left, 2, worker->task, end, to, worker->attempts);
  }
  zp_queue_set(queue, ZP_KEY_TASK, 1, worker->task, 0, ZP_BYTES_OF(*task));
  forget_if_complete(queue, worker->task, task);
  return zp_queue_wake_task(queue, task, left->counters);
}

int zp_queue_resign(zp_queue *queue, bool is_dead) {
  if (!has_slot(queue)) return 0;
  uint64_t slot = (uint64_t)queue->slot;
  zp_worker worker;
  legacy left = {.task = {.total = 0}};
  if (!is_dead) atomic_store_explicit(&queue->progress[slot].item, UINT64_MAX, memory_order_release);
  int rc = zp_queue_begin(queue);
  if (rc) return rc;
  rc = zp_queue_get(queue, ZP_KEY_WORKER, 1, slot, 0, &worker, sizeof worker);
  if (rc == 1) {
    rc = worker.task ? settle(queue, &worker, slot, &left) : 0;
    zp_queue_delete(queue, ZP_KEY_WORKER, 1, slot, 0);
  }
  rc = zp_queue_end(queue, rc < 0 ? rc : 0);
  if (!rc) queue->slot = -1;
  return rc;
}

void zp_queue_close(zp_queue **handle) {
  zp_queue *queue = *handle;
  if (!queue) return;
  *handle = NULL;
  /* A thread may end while its process lives: nobody would miss it. */
  if (queue->store) zp_queue_resign(queue, false);
  zp_store_close(&queue->store);
  zp_shared_close(queue->progress, ZP_QUEUE_SLOTS * sizeof(zp_progress));
  zp_buf_free(&queue->entries);
  zp_buf_free(&queue->changes);
  zp_buf_free(&queue->value);
  free(queue);
}

/* Bury the worker of a slot, if it is dead: 1 or 0. */
static int bury(zp_queue *queue, uint64_t slot) {
  zp_worker worker;
  legacy left = {.task = {.total = 0}};
  int rc = zp_queue_begin(queue);
  if (rc) return rc;
  rc = zp_queue_get(queue, ZP_KEY_WORKER, 1, slot, 0, &worker, sizeof worker);
  bool found = rc == 1 && has_died(&worker);
  if (rc < 0 || !found) return zp_queue_end(queue, rc < 0 ? rc : 0);
  rc = worker.task ? settle(queue, &worker, slot, &left) : 0;
  zp_queue_delete(queue, ZP_KEY_WORKER, 1, slot, 0);
  rc = zp_queue_end(queue, rc);
  return rc ? rc : 1;
}

/* In a read of its own: the first record of a kind with at least the number `from`: 1, its number, and a copy; 0 if there is none. */
static int copy_next(zp_queue *queue, int kind, uint64_t from, uint64_t *number, void *record, size_t size) {
  zp_bytes value;
  int rc = zp_store_read_begin(queue->store);
  if (rc) return rc;
  rc = zp_queue_seek(queue, kind, 1, 0, from, number, &value);
  if (rc == 1) memcpy(record, value.data, value.size < size ? value.size : size);
  zp_store_read_end(queue->store);
  return rc;
}

int zp_queue_recover(zp_queue *queue) {
  int count = 0;
  for (uint64_t slot = 0;; slot++) {
    zp_worker worker = {.pool = 0};
    int rc = copy_next(queue, ZP_KEY_WORKER, slot, &slot, &worker, sizeof worker);
    if (rc != 1) return rc < 0 ? rc : count;
    if (!has_died(&worker)) continue;
    rc = bury(queue, slot);
    if (rc < 0) return rc;
    count += rc;
  }
}
