#include "map/queue.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "map/records.h"
#include "sys/alive.h"
#include "sys/shared.h"

static const char PROGRESS[] = "progress";
static const size_t SCRATCH_KEEP = 1 << 16;        /* bytes */
static const uint64_t PENDING_MAX = 32 << 20;      /* bytes of results that nobody has taken, of one task */
enum { PROGRESS_SIZE = ZP_QUEUE_SLOTS * sizeof(zp_progress) };

/* ---- keys and records ---- */

zp_bytes zp_queue_key(unsigned char *to, int kind, int count, uint64_t first, uint64_t second) {
  to[0] = (unsigned char)kind;
  if (count > 0) zp_put_be64(to + 1, first);
  if (count > 1) zp_put_be64(to + 9, second);
  return (zp_bytes){to, (size_t)(1 + 8 * count)};
}

int zp_queue_get(zp_queue *queue, int kind, int count, uint64_t first, uint64_t second, void *record, size_t size) {
  unsigned char key[ZP_QUEUE_KEY_MAX];
  zp_bytes value = {"", 0};
  int rc = zp_store_get(queue->store, zp_queue_key(key, kind, count, first, second), &value);
  if (rc != 1) return rc;
  if (value.size != size) return zp_fail(ZP_ESTORE, "the queue of tasks in %s is damaged", zp_store_directory(queue->store));
  memcpy(record, value.data, size);
  return 1;
}

/* Whether the key that was found is one of those that are walked, and its last number. */
static bool is_of(zp_bytes key, int kind, int count, uint64_t first, uint64_t *number) {
  const unsigned char *bytes = key.data;
  if (key.size != (size_t)(1 + 8 * count) || bytes[0] != kind) return false;
  if (count > 1 && zp_get_be64(bytes + 1) != first) return false;
  *number = zp_get_be64(bytes + 1 + 8 * (count - 1));
  return true;
}

int zp_queue_seek(zp_queue *queue, int kind, int count, uint64_t first, uint64_t from, uint64_t *number, zp_bytes *value) {
  unsigned char start[ZP_QUEUE_KEY_MAX];
  zp_bytes key = count > 1 ? zp_queue_key(start, kind, count, first, from) : zp_queue_key(start, kind, count, from, 0), found;
  int rc = zp_store_seek(queue->store, key, &found, value);
  return rc == 1 && !is_of(found, kind, count, first, number) ? 0 : rc;
}

int zp_queue_step(zp_queue *queue, int kind, int count, uint64_t first, uint64_t *number, zp_bytes *value) {
  zp_bytes found;
  int rc = zp_store_next(queue->store, &found, value);
  return rc == 1 && !is_of(found, kind, count, first, number) ? 0 : rc;
}

/* ---- commits ---- */

int zp_queue_begin(zp_queue *queue) {
  zp_buf_clear(&queue->entries, SCRATCH_KEEP);
  queue->is_incomplete = false;
  int rc = zp_store_lock(queue->store);
  if (rc) return rc;
  rc = zp_store_read_begin(queue->store);
  if (rc) zp_store_unlock(queue->store);
  return rc;
}

void zp_queue_set(zp_queue *queue, int kind, int count, uint64_t first, uint64_t second, zp_bytes value) {
  zp_entry entry = {.value = value};
  entry.key_size = (unsigned char)zp_queue_key(entry.key, kind, count, first, second).size;
  if (zp_buf_append(&queue->entries, &entry, sizeof entry)) queue->is_incomplete = true;
}

void zp_queue_delete(zp_queue *queue, int kind, int count, uint64_t first, uint64_t second) {
  zp_queue_set(queue, kind, count, first, second, (zp_bytes){NULL, 0});
}

static int count_up(zp_queue *queue, uint64_t pool, uint64_t *counter) {
  *counter = 0;
  int rc = zp_queue_get(queue, ZP_KEY_WAKE, 1, pool, 0, counter, sizeof *counter);
  if (rc < 0 || (rc == 0 && pool == ZP_POOL_ALL)) return rc; /* whoever is the first there writes its counter */
  ++*counter;
  zp_queue_set(queue, ZP_KEY_WAKE, 1, pool, 0, zp_bytes_of(counter, sizeof *counter));
  return 0;
}

int zp_queue_wake(zp_queue *queue, uint64_t pool, uint64_t counters[2]) {
  int rc = count_up(queue, pool, &counters[0]);
  return rc ? rc : count_up(queue, ZP_POOL_ALL, &counters[1]);
}

int zp_queue_wake_task(zp_queue *queue, const zp_task *task, uint64_t counters[ZP_TASK_WAKES]) {
  for (int i = 0; i < ZP_TASK_POOLS; i++) {
    int rc = task->pools[i] ? count_up(queue, task->pools[i], &counters[i]) : 0;
    if (rc) return rc;
  }
  return count_up(queue, ZP_POOL_ALL, &counters[ZP_TASK_POOLS]);
}

void zp_queue_forget_work(zp_queue *queue, uint64_t id, const zp_task *task) {
  for (int i = 0; i < ZP_TASK_POOLS; i++)
    if (task->pools[i]) zp_queue_delete(queue, ZP_KEY_WORK, 2, task->pools[i], id);
}

static int commit(zp_queue *queue) {
  zp_buf *entries = &queue->entries, *changes = &queue->changes;
  if (queue->is_incomplete) return zp_fail(ZP_ENOMEM, "out of memory: cannot change the queue of tasks");
  size_t count = entries->size / sizeof(zp_entry);
  if (count == 0) return 0;
  zp_buf_clear(changes, SCRATCH_KEEP);
  int rc = zp_buf_reserve(changes, count * sizeof(zp_change));
  if (rc) return rc;
  for (size_t i = 0; i < count; i++) {
    const zp_entry *entry = (const zp_entry *)entries->data + i;
    zp_change change = {{entry->key, entry->key_size}, entry->value};
    zp_buf_append(changes, &change, sizeof change);
  }
  return zp_store_commit(queue->store, (const zp_change *)changes->data, count, NULL, NULL);
}

int zp_queue_end(zp_queue *queue, int rc) {
  if (rc >= 0) {
    int committed = commit(queue);
    if (committed) rc = committed;
  }
  zp_store_read_end(queue->store);
  zp_store_unlock(queue->store);
  return rc;
}

bool zp_task_is_blocked(const zp_task *task) { return task->pending_bytes >= PENDING_MAX; }

bool zp_task_is_complete(const zp_task *task) {
  return task->next == task->total && task->active == 0 && task->returned == 0;
}

/* ---- opening ---- */

/* The file of progress is made before the store is, so where there is a store there is one. */
static int create_store(const char *server, const char *directory) {
  if (mkdir(directory, 0700) < 0 && errno != EEXIST)
    return errno == ENOENT ? zp_fail(ZP_ENOSTORE, "there is no state in %s", server)
                           : zp_fail_errno("cannot make the queue of tasks %s", directory);
  int rc = zp_shared_create(directory, PROGRESS, PROGRESS_SIZE);
  if (rc) return rc;
  zp_store_limits no_history = {.keep_revisions = 1, .keep_bytes = 1};
  rc = zp_store_create(directory, &no_history);
  return rc == ZP_ESTORE ? 0 : rc; /* somebody else was first; if it is another reason, opening tells */
}

static uint32_t new_number(void) {
  static _Atomic uint32_t last;
  uint32_t number;
  do number = atomic_fetch_add(&last, 1) + 1;
  while (number == 0);
  return number;
}

int zp_queue_open(const char *server, zp_queue **out) {
  *out = NULL;
  char directory[PATH_MAX];
  if (snprintf(directory, sizeof directory, "%s/%s", server, ZP_STORE_TASKS) >= PATH_MAX)
    return zp_fail(ZP_ESYS, "the path %.60s... is too long", server);
  zp_queue *queue = calloc(1, sizeof *queue);
  if (!queue) return zp_fail(ZP_ENOMEM, "out of memory: cannot open the queue of tasks");
  queue->slot = -1;
  queue->limit = SIZE_MAX;
  queue->number = new_number();
  int rc = zp_store_open(directory, ZP_QUEUE_NAMESPACE, &queue->store);
  if (!rc) rc = zp_store_check(queue->store);
  if (rc == ZP_ENOSTORE) {
    rc = create_store(server, directory);
    if (!rc) rc = zp_store_check(queue->store);
  }
  void *progress = NULL;
  if (!rc) rc = zp_shared_open(directory, PROGRESS, PROGRESS_SIZE, &progress);
  queue->progress = progress;
  if (rc) zp_queue_close(&queue);
  *out = queue;
  return rc;
}

void zp_queue_limit(zp_queue *queue, size_t bytes) { queue->limit = bytes; }

/* Within a read: append what is behind the head of a record. 1, as there is one. */
static int copy_out(const zp_queue *queue, zp_bytes value, size_t head, zp_buf *out) {
  if (value.size - head > queue->limit) return ZP_EBUSY;
  return zp_buf_append(out, (const char *)value.data + head, value.size - head) ? ZP_ENOMEM : 1;
}

/* ---- tasks ---- */

/* Asking the kernel takes some microseconds, so it is done once in each process. */
zp_process_id zp_queue_self(zp_queue *queue) {
  pid_t pid = getpid();
  if (queue->self.pid != pid || queue->self.start == 0) queue->self = (zp_process_id){.pid = pid, .start = zp_alive_start(pid)};
  return queue->self;
}

int zp_queue_add(zp_queue *queue, const zp_task_options *options, zp_bytes specification, uint64_t *id) {
  bool is_implied = options->total != ZP_TASK_UNKNOWN;
  zp_task task = {.total = options->total, .put = is_implied ? options->total : 0, .workers = options->workers,
                  .max_attempts = options->max_attempts, .chunk = options->chunk, .pools = {options->pool}};
  zp_process_id self = zp_queue_self(queue);
  if (!is_implied) task.producer = self;
  if (options->is_private && self.start != 0) task.owner = self; /* else it cannot be told from the dead */
  if (task.owner.pid && options->is_elsewhere) task.owner.handle = queue->number;
  int rc = zp_queue_begin(queue);
  if (rc) return rc;
  *id = 0;
  uint64_t counters[2];
  rc = zp_queue_get(queue, ZP_KEY_COUNTER, 0, 0, 0, id, sizeof *id);
  if (rc < 0) goto out;
  ++*id;
  rc = zp_queue_wake(queue, options->pool, counters);
  if (rc) goto out;
  zp_queue_set(queue, ZP_KEY_COUNTER, 0, 0, 0, ZP_BYTES_OF(*id));
  zp_queue_set(queue, ZP_KEY_TASK, 1, *id, 0, ZP_BYTES_OF(task));
  zp_queue_set(queue, ZP_KEY_SPEC, 1, *id, 0, specification);
  zp_queue_set(queue, ZP_KEY_WORK, 2, options->pool, *id, zp_bytes_of("", 1));
out:
  return zp_queue_end(queue, rc);
}

static int fail_gone(uint64_t task) { return zp_fail(ZP_ENOTASK, "there is no task %llu", (unsigned long long)task); }

/* The task, which must be there. 0 or an error. */
static int need_task(zp_queue *queue, uint64_t id, zp_task *task) {
  int rc = zp_queue_get(queue, ZP_KEY_TASK, 1, id, 0, task, sizeof *task);
  if (rc < 0) return rc;
  return rc == 1 && !task->dropped ? 0 : fail_gone(id);
}

int zp_queue_put(zp_queue *queue, uint64_t id, uint64_t items, zp_bytes bytes, bool last) {
  zp_buf_clear(&queue->value, SCRATCH_KEEP);
  int rc = zp_buf_append(&queue->value, &items, sizeof items);
  if (!rc) rc = zp_buf_append(&queue->value, bytes.data, bytes.size);
  if (!rc) rc = zp_queue_begin(queue);
  if (rc) return rc;
  zp_task task;
  uint64_t counters[ZP_TASK_WAKES];
  rc = need_task(queue, id, &task);
  if (!rc) rc = zp_queue_wake_task(queue, &task, counters);
  if (rc) goto out;
  if (items > 0) {
    zp_queue_set(queue, ZP_KEY_BLOCK, 2, id, task.put + items - 1, zp_bytes_of(queue->value.data, queue->value.size));
    task.put += items;
    task.block_bytes += queue->value.size;
  }
  if (last) {
    task.total = task.put;
    task.producer.pid = 0;
  } else {
    task.producer = zp_queue_self(queue); /* for a client elsewhere another server may have begun */
  }
  zp_queue_set(queue, ZP_KEY_TASK, 1, id, 0, ZP_BYTES_OF(task));
out:
  return zp_queue_end(queue, rc);
}

int zp_queue_give_up(zp_queue *queue, uint64_t id) {
  int rc = zp_queue_begin(queue);
  if (rc) return rc;
  zp_task task;
  uint64_t counters[ZP_TASK_WAKES];
  rc = zp_queue_get(queue, ZP_KEY_TASK, 1, id, 0, &task, sizeof task);
  if (rc == 1 && !task.dropped && task.producer.pid != 0) {
    task.producer = (zp_process_id){.pid = -1}; /* nobody's */
    zp_queue_set(queue, ZP_KEY_TASK, 1, id, 0, ZP_BYTES_OF(task));
    rc = zp_queue_wake_task(queue, &task, counters);
  }
  return zp_queue_end(queue, rc < 0 ? rc : 0);
}

int zp_queue_adopt(zp_queue *queue, uint64_t id, uint64_t pool) {
  int rc = zp_queue_begin(queue);
  if (rc) return rc;
  zp_task task;
  uint64_t counters[2];
  rc = zp_queue_get(queue, ZP_KEY_TASK, 1, id, 0, &task, sizeof task);
  if (rc == 1 && task.dropped) rc = 0;
  if (rc != 1) goto out;
  for (int i = 0; i < ZP_TASK_POOLS; i++)
    if (task.pools[i] == pool) goto out;
  /* Of too many pools the one that came first has had its time. */
  uint64_t *place = &task.pools[++task.adopted % ZP_TASK_POOLS];
  if (*place) zp_queue_delete(queue, ZP_KEY_WORK, 2, *place, id);
  *place = pool;
  zp_queue_set(queue, ZP_KEY_TASK, 1, id, 0, ZP_BYTES_OF(task));
  if (!zp_task_is_complete(&task)) zp_queue_set(queue, ZP_KEY_WORK, 2, pool, id, zp_bytes_of("", 1));
  int woken = zp_queue_wake(queue, pool, counters);
  if (woken) rc = woken;
out:
  return zp_queue_end(queue, rc);
}

int zp_queue_disband(zp_queue *queue, uint64_t pool) {
  int rc = zp_queue_begin(queue);
  if (rc) return rc;
  uint64_t counter;
  rc = zp_queue_get(queue, ZP_KEY_WAKE, 1, pool, 0, &counter, sizeof counter);
  if (rc == 1) zp_queue_delete(queue, ZP_KEY_WAKE, 1, pool, 0);
  return zp_queue_end(queue, rc < 0 ? rc : 0);
}

int zp_queue_specification(zp_queue *queue, uint64_t task, zp_buf *out) {
  unsigned char key[ZP_QUEUE_KEY_MAX];
  zp_bytes value;
  int rc = zp_store_read_begin(queue->store);
  if (rc) return rc;
  rc = zp_store_get(queue->store, zp_queue_key(key, ZP_KEY_SPEC, 1, task, 0), &value);
  if (rc == 1) rc = copy_out(queue, value, 0, out);
  zp_store_read_end(queue->store);
  return rc;
}

int zp_queue_block(zp_queue *queue, uint64_t task, uint64_t item, uint64_t *first, uint64_t *items, zp_buf *out) {
  uint64_t last;
  zp_bytes value;
  int rc = zp_store_read_begin(queue->store);
  if (rc) return rc;
  rc = zp_queue_seek(queue, ZP_KEY_BLOCK, 2, task, item, &last, &value);
  if (rc == 1) {
    memcpy(items, value.data, sizeof *items);
    *first = last - *items + 1;
    rc = copy_out(queue, value, sizeof *items, out);
  }
  zp_store_read_end(queue->store);
  return rc;
}

int zp_queue_describe(zp_queue *queue, uint64_t id, zp_task_info *info) {
  zp_task task;
  int rc = zp_store_read_begin(queue->store);
  if (rc) return rc;
  rc = zp_queue_get(queue, ZP_KEY_TASK, 1, id, 0, &task, sizeof task);
  zp_store_read_end(queue->store);
  if (rc != 1 || task.dropped) return rc < 0 ? rc : 0;
  *info = (zp_task_info){.total = task.total, .put = task.put, .next = task.next, .taken = task.taken, .finished = task.finished,
                         .pending_bytes = task.pending_bytes, .block_bytes = task.block_bytes, .active = task.active,
                         .is_produced = task.producer.pid == 0 || zp_alive_is(task.producer.pid, task.producer.start),
                         .is_elsewhere = task.owner.handle != 0};
  return 1;
}

/* ---- results ---- */

int zp_queue_take(zp_queue *queue, uint64_t id, uint64_t from, zp_result *result, zp_buf *out) {
  unsigned char key[ZP_QUEUE_KEY_MAX];
  zp_bytes value;
  int rc = zp_store_read_begin(queue->store);
  if (rc) return rc;
  rc = zp_store_get(queue->store, zp_queue_key(key, ZP_KEY_RESULT, 2, id, from), &value);
  if (rc == 1) {
    zp_result_head head;
    memcpy(&head, value.data, sizeof head);
    *result = (zp_result){.from = from, .to = head.to, .is_dead = head.is_dead != 0, .attempts = head.attempts};
    rc = copy_out(queue, value, sizeof head, out);
  }
  zp_store_read_end(queue->store);
  return rc;
}

int zp_queue_acknowledge(zp_queue *queue, uint64_t id, uint64_t position) {
  int rc = zp_queue_begin(queue);
  if (rc) return rc;
  zp_task task;
  uint64_t number, counters[ZP_TASK_WAKES];
  zp_bytes value;
  rc = need_task(queue, id, &task);
  if (rc) goto out;
  bool was_blocked = zp_task_is_blocked(&task);
  for (rc = zp_queue_seek(queue, ZP_KEY_RESULT, 2, id, 0, &number, &value); rc == 1 && number < position;
       rc = zp_queue_step(queue, ZP_KEY_RESULT, 2, id, &number, &value)) {
    zp_queue_delete(queue, ZP_KEY_RESULT, 2, id, number);
    task.pending_bytes -= value.size;
  }
  if (rc < 0) goto out;
  for (rc = zp_queue_seek(queue, ZP_KEY_BLOCK, 2, id, 0, &number, &value); rc == 1;
       rc = zp_queue_step(queue, ZP_KEY_BLOCK, 2, id, &number, &value)) {
    if (number >= position) break;
    zp_queue_delete(queue, ZP_KEY_BLOCK, 2, id, number);
    task.block_bytes -= value.size;
  }
  if (rc < 0) goto out;
  rc = 0;
  if (position > task.taken) task.taken = position;
  if (task.taken == task.total) {
    zp_queue_forget_work(queue, id, &task);
    zp_queue_delete(queue, ZP_KEY_SPEC, 1, id, 0);
    zp_queue_delete(queue, ZP_KEY_TASK, 1, id, 0);
    rc = 1;
  } else {
    zp_queue_set(queue, ZP_KEY_TASK, 1, id, 0, ZP_BYTES_OF(task));
    if (was_blocked && !zp_task_is_blocked(&task)) rc = zp_queue_wake_task(queue, &task, counters);
  }
out:
  return zp_queue_end(queue, rc);
}

/* ---- waiting ---- */

static int arm(zp_queue *queue, int kind, int count, uint64_t first, uint64_t second) {
  unsigned char bytes[ZP_QUEUE_KEY_MAX];
  zp_bytes key = zp_queue_key(bytes, kind, count, first, second);
  return zp_alarm_set(queue->store, &queue->alarm, &key, 1);
}

int zp_queue_arm_work(zp_queue *queue) { return arm(queue, ZP_KEY_WAKE, 1, queue->pool, 0); }

int zp_queue_arm_result(zp_queue *queue, uint64_t task, uint64_t from) { return arm(queue, ZP_KEY_RESULT, 2, task, from); }

int zp_queue_wait(zp_queue *queue, double deadline) { return zp_alarm_wait(queue->store, &queue->alarm, deadline); }
