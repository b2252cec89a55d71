/*
 * What a queue is about, as a whole: for those who look at a server and have no task there.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "map/records.h"

/* Within a read: add up the tasks. */
static int add_tasks(zp_queue *queue, zp_queue_summary *summary) {
  uint64_t id;
  zp_bytes value;
  zp_task task;
  int rc = zp_queue_seek(queue, ZP_KEY_TASK, 1, 0, 0, &id, &value);
  for (; rc == 1; rc = zp_queue_step(queue, ZP_KEY_TASK, 1, 0, &id, &value)) {
    if (value.size != sizeof task) return zp_fail(ZP_ESTORE, "the queue of tasks in %s is damaged", zp_store_directory(queue->store));
    memcpy(&task, value.data, sizeof task);
    if (task.dropped) continue;
    summary->tasks++;
    summary->put += task.put;
    summary->finished += task.finished;
    summary->claims += task.active;
  }
  return rc;
}

int zp_queue_summarize(const char *server, zp_queue_summary *summary) {
  *summary = (zp_queue_summary){0};
  char directory[PATH_MAX];
  if (snprintf(directory, sizeof directory, "%s/%s", server, ZP_STORE_TASKS) >= PATH_MAX)
    return zp_fail(ZP_ESYS, "the path %.60s... is too long", server);
  zp_queue queue = {.slot = -1};
  int rc = zp_store_open(directory, ZP_QUEUE_NAMESPACE, &queue.store);
  if (rc) return rc;
  rc = zp_store_read_begin(queue.store);
  if (rc == ZP_ENOSTORE) {
    rc = 0; /* nobody has needed it yet */
  } else if (!rc) {
    rc = add_tasks(&queue, summary);
    zp_store_read_end(queue.store);
  }
  zp_store_close(&queue.store);
  return rc;
}
