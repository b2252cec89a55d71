#include "net/observe.h"

#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/interrupt.h"
#include "sys/thread.h"
#include "watch/condition.h"
#include "watch/watch.h"

/* The most that a client may ask for. */
static const double SECONDS_MAX = 10;
enum { BYTES_MAX = 512 << 20 };

/* What one watcher holds. */
typedef struct observer {
  zp_store *store;
  const zp_parcel *request;
  zp_watch_cursor cursor;
  zp_condition condition;
  zp_judges *judges;
  zp_judges_question question;
  zp_watch *watch;
} observer;

int zp_observe_pairs(zp_store *store, zp_buf *out, uint64_t *count) {
  zp_bytes key, value;
  *count = 0;
  int rc = zp_store_first(store, &key, &value);
  while (rc == 1) {
    ++*count;
    rc = zp_parcel_write_pair(key, &value, out);
    if (rc == 0) rc = zp_store_next(store, &key, &value);
  }
  return rc;
}

/* A zp_watch_test. */
static int test_elsewhere(void *context, zp_store *store, uint64_t revision, zp_watch *watch) {
  observer *self = context;
  return zp_judges_test(self->judges, &self->question, store, revision, watch);
}

static void set_condition(observer *self) {
  const zp_parcel *request = self->request;
  zp_condition *condition = &self->condition;
  condition->kind = (zp_condition_kind)request->numbers[1];
  if (condition->kind == ZP_WHEN_PREDICATE) {
    double seconds = zp_parcel_to_double(request->numbers[5]);
    uint64_t bytes = request->numbers[6];
    self->question.function = request->strings[2];
    self->question.limits.seconds = seconds == 0 ? ZP_VM_SECONDS : seconds < SECONDS_MAX ? seconds : SECONDS_MAX;
    self->question.limits.bytes = bytes == 0 ? ZP_VM_BYTES : bytes < BYTES_MAX ? (size_t)bytes : BYTES_MAX;
    return;
  }
  condition->key = request->strings[2];
  zp_parcel_walk walk;
  zp_change pair;
  zp_parcel_walk_begin(&walk, request);
  if (zp_parcel_walk_next(&walk, &pair)) condition->value = pair.key;
}

/* The pairs of a revision, appended to `out`. */
static int collect(observer *self, uint64_t revision, zp_buf *out, uint64_t *count) {
  int rc = zp_store_read_begin_at(self->store, revision);
  if (rc) return rc;
  rc = zp_observe_pairs(self->store, out, count);
  zp_store_read_end(self->store);
  return rc;
}

/* Changes, as the pairs of a parcel. */
typedef struct change_list {
  zp_buf *out;
  uint64_t count;
} change_list;

static int add_change(void *context, zp_bytes key, const zp_bytes *value) {
  change_list *list = context;
  list->count++;
  return zp_parcel_write_pair(key, value, list->out);
}

/* What the revision changed, appended to `out`. */
static int collect_changes(observer *self, uint64_t revision, zp_buf *out, uint64_t *count) {
  change_list list = {.out = out};
  int rc = zp_watch_visit_changes(self->store, revision, add_change, &list);
  *count = list.count;
  return rc;
}

static int is_identical(observer *self, uint64_t revision, bool *identical) {
  zp_log_record record;
  int rc = zp_store_read_begin(self->store);
  if (rc) return rc;
  rc = zp_store_log(self->store, revision, &record);
  if (rc == 1) rc = zp_watch_changes(self->store, &record);
  *identical = rc == 0;
  zp_store_read_end(self->store);
  return rc < 0 ? rc : 0;
}

/* The answer with what matched, or that nothing did in time. */
static int tell(observer *self, bool matched, uint64_t revision, zp_answer *answer) {
  uint64_t before = 0, after = 0;
  bool identical = false;
  zp_buf pairs = ZP_BUF_INIT;
  int rc = 0;
  if (matched && self->request->numbers[1] == ZP_WATCH_UPDATE) {
    rc = collect(self, revision - 1, &pairs, &before);
    if (!rc) rc = is_identical(self, revision, &identical);
  }
  bool is_brief = self->request->numbers[1] == ZP_WATCH_CHANGE && self->request->numbers[3] & ZP_WATCH_CHANGES;
  if (matched && !rc) rc = is_brief ? collect_changes(self, revision, &pairs, &after) : collect(self, revision, &pairs, &after);
  zp_parcel parcel = {ZP_NUMBERS(matched, revision, identical, before), .string_count = 1, .strings = {{&self->cursor, sizeof self->cursor}}};
  if (!rc) rc = zp_answer_begin(answer, &parcel, before + after);
  if (!rc) rc = zp_buf_append(&answer->body, pairs.data, pairs.size);
  zp_buf_free(&pairs);
  return rc;
}

static int observe(observer *self, double deadline, zp_answer *answer) {
  const zp_parcel *request = self->request;
  uint64_t kind = request->numbers[1], flags = request->numbers[3], revision = 0;
  bool is_condition = kind <= ZP_WHEN_PREDICATE;
  memcpy(&self->cursor, request->strings[1].data, sizeof self->cursor);
  if (is_condition) set_condition(self);
  bool is_predicate = kind == ZP_WHEN_PREDICATE;
  zp_watch_options options = {
      .test = is_predicate ? test_elsewhere : is_condition ? zp_condition_test : NULL,
      .context = is_predicate ? (void *)self : &self->condition,
      .id = request->numbers[2],
      .exclude = flags & ZP_WATCH_EXCLUDE,
      .duplicates = flags & ZP_WATCH_DUPLICATES,
      .own_known = flags & ZP_WATCH_OWN_KNOWN,
      .live = flags & ZP_WATCH_LIVE,
      .gapless = flags & ZP_WATCH_GAPLESS,
  };
  int rc = zp_watch_open(self->store, &self->cursor, &options, &self->watch);
  zp_parcel_walk walk;
  zp_change pair;
  zp_parcel_walk_begin(&walk, request);
  while (!rc && kind == ZP_WATCH_CHANGE && zp_parcel_walk_next(&walk, &pair)) rc = zp_watch_add_key(self->watch, pair.key);
  if (rc) return rc;
  do {
    zp_interrupt_arm();
    rc = zp_thread_is_to_stop() ? ZP_EINTR : zp_watch_next(self->watch, deadline, &self->cursor, &revision);
  } while (rc == ZP_EINTR && !zp_thread_is_to_stop());
  zp_interrupt_disarm();
  if (rc && rc != ZP_ETIMEOUT) return rc;
  return tell(self, rc == 0, revision, answer);
}

int zp_observe(zp_store *store, zp_judges *judges, const zp_parcel *request, zp_answer *answer) {
  double deadline = zp_clock_now() + zp_parcel_to_double(request->numbers[4]); /* infinity is ZP_FOREVER */
  observer self = {.store = store, .request = request, .judges = judges};
  int rc = observe(&self, deadline, answer);
  if (rc == ZP_EPREDICATE || rc == ZP_EBUDGET) {
    const zp_buf *traceback = &self.question.traceback;
    zp_answer_fail(answer, rc, traceback->size ? (const char *)traceback->data : NULL);
    rc = 0;
  }
  zp_watch_close(&self.watch);
  zp_buf_free(&self.question.traceback);
  return rc;
}
