#include "net/execute.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "codec/value.h"
#include "net/observe.h"
#include "sys/alive.h"
#include "sys/procfile.h"
#include "sys/table.h"

enum { STORES = 16, NAME_SIZE = 256 };

struct zp_executor {
  char *directory;
  zp_runner *runner;
  zp_store *stores[STORES]; /* the one that was used last is first */
};

int zp_executor_open(const char *directory, zp_runner *runner, zp_executor **out) {
  zp_executor *self = calloc(1, sizeof *self);
  if (self) self->directory = strdup(directory);
  *out = self;
  if (!self || !self->directory) {
    zp_executor_close(out);
    return zp_fail(ZP_ENOMEM, "out of memory: cannot serve");
  }
  self->runner = runner;
  return 0;
}

void zp_executor_close(zp_executor **handle) {
  zp_executor *self = *handle;
  if (!self) return;
  *handle = NULL;
  for (int i = 0; i < STORES; i++) zp_store_close(&self->stores[i]);
  free(self->directory);
  free(self);
}

/* The handle for a namespace. */
static int find_store(zp_executor *self, zp_bytes space, zp_store **store) {
  char name[NAME_SIZE];
  memcpy(name, space.data, space.size); /* which the request's shape bounds */
  name[space.size] = '\0';
  int i = 0;
  while (i < STORES - 1 && self->stores[i] && strcmp(zp_store_namespace(self->stores[i]), name) != 0) i++;
  zp_store *found = self->stores[i];
  if (found && strcmp(zp_store_namespace(found), name) != 0) zp_store_close(&found);
  if (!found) {
    self->stores[i] = NULL;
    int rc = zp_store_open(self->directory, name, &found);
    if (rc) return rc;
  }
  memmove(self->stores + 1, self->stores, (size_t)i * sizeof *self->stores);
  self->stores[0] = *store = found;
  return 0;
}

static int done(zp_answer *answer, zp_parcel parcel) { return zp_answer_done(answer, &parcel); }

/* ---- about the server ---- */

static int hello(zp_executor *self, zp_answer *answer) {
  char boot[64];
  struct stat directory;
  zp_alive_space pids;
  size_t n = zp_procfile_read(ZP_PROCFILE_BOOT, boot, sizeof boot);
  if (stat(self->directory, &directory) < 0) return zp_fail(ZP_ENOSTORE, "the state of the server is gone");
  zp_store *store;
  uint64_t identity;
  int rc = zp_alive_read_space(&pids);
  if (!rc) rc = find_store(self, (zp_bytes){"default", strlen("default")}, &store);
  if (!rc) rc = zp_store_identity(store, &identity);
  if (rc) return rc;
  zp_parcel parcel = {ZP_NUMBERS((uint64_t)getpid(), geteuid(), directory.st_dev, directory.st_ino, pids.device, pids.inode, identity),
                      .string_count = 2};
  parcel.strings[0] = (zp_bytes){self->directory, strlen(self->directory)};
  parcel.strings[1] = (zp_bytes){boot, n};
  return zp_answer_done(answer, &parcel);
}

static int processes(zp_executor *self, zp_answer *answer) {
  zp_table *table;
  zp_buf rows = ZP_BUF_INIT;
  int rc = zp_table_open(self->directory, &table);
  if (rc) return rc;
  rc = zp_table_list(table, &rows);
  if (!rc) rc = done(answer, (zp_parcel){.string_count = 1, .strings = {zp_buf_bytes(&rows)}});
  zp_table_close(&table);
  zp_buf_free(&rows);
  return rc;
}

static int summary(zp_executor *self, zp_answer *answer) {
  zp_queue_summary queue;
  zp_table *table;
  int rc = zp_queue_summarize(self->directory, &queue);
  if (!rc) rc = zp_table_open(self->directory, &table);
  if (rc) return rc;
  int64_t waiting = zp_table_count_waiting(table);
  zp_table_close(&table);
  return done(answer, (zp_parcel){ZP_NUMBERS(queue.tasks, queue.put, queue.finished, queue.claims, (uint64_t)waiting)});
}

/* ---- reading ---- */

/* Whether somebody else is to do that. */
static bool is_left(zp_bytes value, bool may_wait) { return value.size > ZP_EXECUTE_LARGE && !may_wait; }

static int get(zp_store *store, const zp_parcel *request, bool may_wait, zp_answer *answer) {
  zp_bytes value = {NULL, 0};
  int rc = zp_store_get(store, request->strings[1], &value);
  if (is_left(value, may_wait)) return ZP_EBUSY;
  return rc < 0 ? rc : done(answer, (zp_parcel){ZP_NUMBERS((uint64_t)rc), .string_count = 1, .strings = {value}});
}

static int count(zp_store *store, zp_answer *answer) {
  uint64_t number;
  int rc = zp_store_count(store, &number);
  return rc ? rc : done(answer, (zp_parcel){ZP_NUMBERS(number)});
}

static int range(zp_store *store, zp_answer *answer) {
  uint64_t oldest = 0, newest = 0;
  int rc = zp_store_range(store, &oldest, &newest);
  return rc ? rc : done(answer, (zp_parcel){ZP_NUMBERS(oldest, newest, zp_store_read_revision(store))});
}

static int all(zp_store *store, zp_answer *answer) {
  zp_buf pairs = ZP_BUF_INIT;
  uint64_t number;
  int rc = zp_observe_pairs(store, &pairs, &number);
  if (!rc) rc = zp_answer_begin(answer, &(zp_parcel){ZP_NUMBERS(zp_store_read_revision(store))}, number);
  if (!rc) rc = zp_buf_append(&answer->body, pairs.data, pairs.size);
  zp_buf_free(&pairs);
  return rc;
}

static int read_request(zp_store *store, int type, const zp_parcel *request, bool may_wait, zp_answer *answer) {
  bool is_past = type == ZP_REQUEST_ALL && request->numbers[0];
  int rc = is_past ? zp_store_read_begin_at(store, request->numbers[1]) : zp_store_read_begin(store);
  if (rc) return rc;
  switch (type) {
    case ZP_REQUEST_GET: rc = get(store, request, may_wait, answer); break;
    case ZP_REQUEST_COUNT: rc = count(store, answer); break;
    case ZP_REQUEST_RANGE: rc = range(store, answer); break;
    default: rc = all(store, answer);
  }
  zp_store_read_end(store);
  return rc;
}

/* ---- writing: under the lock ---- */

static int commit(zp_store *store, const zp_change *changes, size_t number, uint64_t *revision) {
  return zp_store_commit(store, changes, number, revision, NULL);
}

/* The pairs of a request, and the keys that are to go, both in the order of their keys; of two changes of one key that of the request counts. */
typedef struct merge {
  zp_changes base;
  const zp_parcel *gone, *request;
  zp_parcel_walk of_gone, of_request;
  zp_change next_gone, next_request;
  bool has_gone, has_request;
} merge;

static void step_gone(merge *self) { self->has_gone = zp_parcel_walk_next(&self->of_gone, &self->next_gone); }
static void step_request(merge *self) { self->has_request = zp_parcel_walk_next(&self->of_request, &self->next_request); }

static void begin_merge(zp_changes *changes) {
  merge *self = (merge *)changes;
  zp_parcel_walk_begin(&self->of_gone, self->gone);
  zp_parcel_walk_begin(&self->of_request, self->request);
  step_gone(self);
  step_request(self);
}

static int compare_keys(zp_bytes a, zp_bytes b) {
  size_t size = a.size < b.size ? a.size : b.size;
  int order = size ? memcmp(a.data, b.data, size) : 0;
  return order ? order : (a.size > b.size) - (a.size < b.size);
}

static bool next_of_merge(zp_changes *changes, zp_change *change) {
  merge *self = (merge *)changes;
  int order = !self->has_gone ? 1 : !self->has_request ? -1 : compare_keys(self->next_gone.key, self->next_request.key);
  if (!self->has_gone && !self->has_request) return false;
  *change = order < 0 ? self->next_gone : self->next_request;
  if (order <= 0) step_gone(self);
  if (order >= 0) step_request(self);
  return true;
}

/* Commit the pairs of a request, and deletions of the keys of `gone`. */
static int commit_merged(zp_store *store, const zp_parcel *gone, const zp_parcel *request, uint64_t *revision) {
  merge both = {.base = {begin_merge, next_of_merge}, .gone = gone, .request = request};
  return zp_store_commit_sorted(store, &both.base, revision, NULL);
}

/* Every key goes, then the pairs come. */
static int replace(zp_store *store, const zp_parcel *request, uint64_t *revision) {
  zp_buf keys = ZP_BUF_INIT;
  zp_bytes key, value;
  int rc = zp_store_read_begin(store), failed = 0;
  if (rc) return rc;
  for (rc = zp_store_first(store, &key, &value); rc == 1 && !failed; rc = zp_store_next(store, &key, &value))
    failed = zp_parcel_write_pair(key, NULL, &keys);
  if (failed) rc = failed;
  if (!rc) rc = commit_merged(store, &(zp_parcel){.pair_bytes = zp_buf_bytes(&keys)}, request, revision);
  zp_store_read_end(store);
  zp_buf_free(&keys);
  return rc;
}

/* What these find is copied into the answer before the commit, which ends the read. It does not fail once it has happened: the answer
   has its place already. */
static int setdefault(zp_store *store, const zp_parcel *request, bool may_wait, zp_answer *answer) {
  zp_bytes value = {NULL, 0};
  uint64_t revision = 0;
  int rc = zp_store_read_begin(store);
  if (rc) return rc;
  rc = zp_store_get(store, request->strings[1], &value);
  if (is_left(value, may_wait)) {
    rc = ZP_EBUSY;
  } else if (rc == 1) {
    rc = done(answer, (zp_parcel){ZP_NUMBERS(1, 0), .string_count = 1, .strings = {value}});
  } else if (rc == 0) {
    zp_change change = {request->strings[1], request->strings[2]};
    rc = commit(store, &change, 1, &revision);
    if (!rc) rc = done(answer, (zp_parcel){ZP_NUMBERS(0, revision), .string_count = 1});
  }
  zp_store_read_end(store);
  return rc;
}

static bool is_same(zp_bytes a, zp_bytes b) { return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0); }

/* Whether the client that asks for this pair can decode the value, or has done so. */
static bool can_be_read(const zp_parcel *request, zp_bytes key, zp_bytes value) {
  return zp_value_is_scalar(value) || (is_same(key, request->strings[1]) && is_same(value, request->strings[2]));
}

static int pop(zp_store *store, const zp_parcel *request, bool is_last, bool may_wait, zp_answer *answer) {
  unsigned char copy[ZP_KEY_MAX];
  zp_bytes key = is_last ? (zp_bytes){NULL, 0} : request->strings[1], value = {NULL, 0};
  int rc = zp_store_read_begin(store);
  if (rc) return rc;
  rc = is_last ? zp_store_last(store, &key, &value) : zp_store_get(store, key, &value);
  bool found = rc == 1;
  if (is_left(value, may_wait)) rc = ZP_EBUSY;
  bool is_taken = rc == 1 && can_be_read(request, key, value);
  zp_parcel parcel = {ZP_NUMBERS(found, is_taken ? zp_store_read_revision(store) + 1 : 0), .string_count = is_last ? 2 : 1};
  parcel.strings[0] = is_last ? key : value;
  parcel.strings[1] = value;
  if (rc >= 0) rc = zp_answer_done(answer, &parcel);
  if (is_last && found) {
    memcpy(copy, key.data, key.size);
    key.data = copy;
  }
  if (!rc && is_taken) rc = commit(store, &(zp_change){key, {NULL, 0}}, 1, NULL);
  zp_store_read_end(store);
  return rc;
}

static int write_request(zp_store *store, int type, const zp_parcel *request, bool may_wait, zp_answer *answer) {
  uint64_t revision = 0;
  int rc = done(answer, (zp_parcel){ZP_NUMBERS(revision)}); /* so that there is room for it when there is something to tell */
  if (rc) return rc;
  switch (type) {
    case ZP_REQUEST_SETDEFAULT: return setdefault(store, request, may_wait, answer);
    case ZP_REQUEST_POP: return pop(store, request, false, may_wait, answer);
    case ZP_REQUEST_POPITEM: return pop(store, request, true, may_wait, answer);
    case ZP_REQUEST_REPLACE: rc = replace(store, request, &revision); break;
    default: rc = commit_merged(store, &(zp_parcel){.pair_count = 0}, request, &revision);
  }
  return rc ? rc : done(answer, (zp_parcel){ZP_NUMBERS(revision)});
}

static int write_locked(zp_store *store, int type, const zp_parcel *request, bool may_wait, zp_answer *answer) {
  int rc = may_wait ? zp_store_lock(store) : zp_store_try_lock(store);
  if (rc) return rc;
  if (!may_wait && zp_store_is_synced(store)) rc = ZP_EBUSY; /* for the disk */
  if (!rc) {
    zp_store_set_author(store, request->numbers[0]);
    rc = write_request(store, type, request, may_wait, answer);
  }
  zp_store_unlock(store);
  return rc;
}

/* ---- all of them ---- */

static bool takes_time(int type) {
  switch (type) {
    case ZP_REQUEST_ALL:
    case ZP_REQUEST_REPLACE:
    case ZP_REQUEST_ATOMIC:
    case ZP_REQUEST_WATCH:
    case ZP_REQUEST_PROCESSES: return true;
    default: return type >= ZP_REQUEST_TASK_ADD && !zp_seat_only_reads(type);
  }
}

static int execute(zp_executor *self, zp_seat *seat, int type, const zp_parcel *request, bool may_wait, zp_answer *answer) {
  zp_store *store = NULL;
  if (type == ZP_REQUEST_HELLO) return hello(self, answer);
  if (type == ZP_REQUEST_PING)
    return done(answer, (zp_parcel){ZP_NUMBERS((uint64_t)getpid()), .string_count = 1, .strings = {request->strings[0]}});
  if (type == ZP_REQUEST_PROCESSES) return processes(self, answer);
  if (type == ZP_REQUEST_SUMMARY) return summary(self, answer);
  if (type >= ZP_REQUEST_TASK_ADD)
    return zp_seat_execute(seat, self->directory, type, request, may_wait, ZP_EXECUTE_LARGE, answer);
  int rc = find_store(self, request->strings[0], &store);
  if (rc) return rc;
  switch (type) {
    case ZP_REQUEST_GET:
    case ZP_REQUEST_COUNT:
    case ZP_REQUEST_RANGE:
    case ZP_REQUEST_ALL: return read_request(store, type, request, may_wait, answer);
    case ZP_REQUEST_ATOMIC: return zp_runner_run(self->runner, store, request, answer);
    case ZP_REQUEST_WATCH:
      zp_store_set_author(store, request->numbers[0]);
      return zp_observe(store, zp_runner_judges(self->runner), request, answer);
    default: return write_locked(store, type, request, may_wait, answer);
  }
}

int zp_execute(zp_executor *self, zp_seat *seat, int type, const zp_parcel *request, bool may_wait, zp_answer *answer) {
  if (!may_wait && takes_time(type)) return ZP_EBUSY;
  int rc = execute(self, seat, type, request, may_wait, answer);
  if (rc == ZP_EINTR || rc == ZP_EBUSY) return rc;
  if (rc) zp_answer_fail(answer, rc, NULL);
  return 0;
}
