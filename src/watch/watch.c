#include "watch/watch.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "codec/value.h"
#include "sys/bell.h"
#include "sys/interrupt.h"

/* A set of keys, as bytes one after the other with their sizes. Small: what a predicate reads, what a caller lists. */
typedef struct key_set {
  zp_buf bytes;
  zp_buf sizes; /* size_t */
  bool all;     /* every key */
} key_set;

enum { KEYS_MAX = 1024 };

struct zp_watch {
  zp_store *store;
  zp_watch_options options;
  zp_watch_cursor cursor;
  key_set keys;      /* what the next revision of interest changes: the keys that are watched, or that the test read */
  uint64_t position; /* considered up to here */
  bool tested;       /* `holds` and `keys` are those of the state at `position` */
  bool holds;
  unsigned tests; /* how many evaluations there were: each may have changed `keys` */
  double deadline;   /* of the wait */
  uint64_t promised; /* what is considered even if the deadline has passed: up to what was newest when the wait began */
  zp_alarm alarm;
};

enum { NOTHING = 0, MATCH = 1 };

/* ---- key sets ---- */

static size_t key_count(const key_set *set) { return set->all ? 0 : set->sizes.size / sizeof(size_t); }

static void clear_keys(key_set *set) {
  set->bytes.size = set->sizes.size = 0;
  set->all = false;
}

/* Step through the keys: start with *i = *offset = 0. */
static bool next_key(const key_set *set, size_t *i, size_t *offset, zp_bytes *key) {
  if (*i >= set->sizes.size / sizeof(size_t)) return false;
  size_t size = ((const size_t *)set->sizes.data)[(*i)++];
  *key = (zp_bytes){set->bytes.data + *offset, size};
  *offset += size;
  return true;
}

static bool has_key(const key_set *set, zp_bytes key) {
  zp_bytes other;
  for (size_t i = 0, offset = 0; next_key(set, &i, &offset, &other);)
    if (other.size == key.size && memcmp(other.data, key.data, key.size) == 0) return true;
  return false;
}

static int add_key(key_set *set, zp_bytes key) {
  if (has_key(set, key)) return 0;
  int rc = zp_buf_append(&set->bytes, key.data, key.size);
  return rc ? rc : zp_buf_append(&set->sizes, &key.size, sizeof key.size);
}

/* ---- opening ---- */

int zp_watch_open(zp_store *store, const zp_watch_cursor *cursor, const zp_watch_options *options, zp_watch **out) {
  zp_watch *watch = calloc(1, sizeof *watch);
  if (!watch) return zp_fail(ZP_ENOMEM, "out of memory: cannot watch");
  watch->store = store;
  watch->options = *options;
  watch->cursor = *cursor;
  int rc = options->live ? zp_watch_go_live(store, &watch->cursor) : 0;
  if (rc) {
    free(watch);
    return rc;
  }
  watch->position = watch->cursor.revision;
  *out = watch;
  return 0;
}

int zp_watch_add_key(zp_watch *watch, zp_bytes key) {
  if (has_key(&watch->keys, key)) return 0;
  watch->options.id ^= zp_bell_tag("", key); /* in whatever order they come */
  return add_key(&watch->keys, key);
}

void zp_watch_close(zp_watch **handle) {
  zp_watch *watch = *handle;
  if (!watch) return;
  *handle = NULL;
  zp_buf_free(&watch->keys.bytes);
  zp_buf_free(&watch->keys.sizes);
  free(watch);
}

int zp_watch_read(zp_watch *watch, const zp_bytes *key) {
  if (watch->keys.all) return 0;
  /* To remember each of very many costs more than to look again at every update. */
  if (key && key_count(&watch->keys) < KEYS_MAX) return add_key(&watch->keys, *key);
  watch->keys.all = true;
  return 0;
}

bool zp_watch_reads_all(const zp_watch *watch) { return watch->keys.all; }

bool zp_watch_next_read(const zp_watch *watch, size_t *i, size_t *offset, zp_bytes *key) { return next_key(&watch->keys, i, offset, key); }

/* ---- what was given, and looked through ---- */

void zp_watch_cursor_move(zp_watch_cursor *cursor, uint64_t revision) {
  if (revision < cursor->revision)
    for (int i = 0; i < ZP_WATCH_SUBJECTS; i++) cursor->subjects[i].looked = 0;
  cursor->revision = revision;
}

/* The place of the watch's subject in its cursor, or -1. */
static int find_subject(const zp_watch *watch) {
  for (int i = 0; i < ZP_WATCH_SUBJECTS; i++)
    if (watch->cursor.subjects[i].id == watch->options.id) return i;
  return -1;
}

/* Make the watch's subject the first in its cursor; that which was used least goes for a new one. */
static void use_subject(zp_watch *watch) {
  zp_watch_cursor *cursor = &watch->cursor;
  int i = find_subject(watch);
  zp_watch_cursor first = {0};
  if (i >= 0) first.subjects[0] = cursor->subjects[i];
  first.subjects[0].id = watch->options.id;
  memmove(cursor->subjects + 1, cursor->subjects, (size_t)(i >= 0 ? i : ZP_WATCH_SUBJECTS - 1) * sizeof *cursor->subjects);
  cursor->subjects[0] = first.subjects[0];
}

/* The newest revision that was given for this condition, or 0. */
static uint64_t given(const zp_watch *watch) {
  int i = find_subject(watch);
  return i >= 0 ? watch->cursor.subjects[i].given : 0;
}

/* What counts as an update. */
static uint64_t flags_of(const zp_watch *watch) {
  return (uint64_t)watch->options.exclude | (uint64_t)watch->options.duplicates << 1;
}

/* Begin behind what was looked through already. */
static void skip_looked(zp_watch *watch) {
  int i = find_subject(watch);
  if (i < 0 || watch->cursor.subjects[i].flags != flags_of(watch)) return;
  if (watch->cursor.subjects[i].looked > watch->position) watch->position = watch->cursor.subjects[i].looked;
}

/* ---- looking ---- */

/* Evaluate the condition at a revision, with the read closed meanwhile: it may take its time, and writers wait for reads. Gives what is newest
   then. Records from before are not to be used after that. */
static int test_at(zp_watch *watch, uint64_t revision, uint64_t *newest) {
  zp_store_read_end(watch->store);
  if (zp_interrupt_is_due()) return ZP_EINTR;
  clear_keys(&watch->keys);
  watch->tested = false; /* if it fails, the keys are not all that it reads */
  int rc = watch->options.test(watch->options.context, watch->store, revision, watch);
  int again = zp_store_read_begin(watch->store);
  if (again || rc < 0) return again ? again : rc;
  *newest = zp_store_read_revision(watch->store);
  watch->holds = rc;
  watch->tested = true;
  watch->tests++;
  watch->position = revision;
  return 0;
}

/* Whether the wait is over, though there may be more to look at: where updates come faster than they can be considered, there always is. */
static bool is_late(const zp_watch *watch) {
  return watch->position >= watch->promised && watch->deadline != ZP_FOREVER && zp_clock_now() >= watch->deadline;
}

/* Whether an update has changed a key by content, and not just the bytes that stand for it: 1, 0, or an error. */
static int differs(zp_store *store, zp_bytes key, uint64_t revision) {
  uint64_t present = zp_store_read_revision(store);
  zp_bytes before, after;
  int rc = zp_store_read_move(store, revision - 1);
  if (rc) return rc == ZP_EHISTORY ? 1 : rc;
  int had = zp_store_get(store, key, &before), has = 0;
  rc = zp_store_read_move(store, revision);
  if (!rc) has = zp_store_get(store, key, &after);
  if (!rc) rc = zp_store_read_move(store, present);
  if (rc || had < 0 || has < 0) return rc ? rc : had < 0 ? had : has;
  if (!had || !has) return 1;
  rc = zp_value_equal(before, after);
  return rc < 0 ? rc : !rc;
}

typedef enum which { ALL_KEYS, WATCHED_KEYS, OTHER_KEYS } which;

/* Whether an update has changed any of these keys by content. */
static int changes(const zp_watch *watch, const zp_log_record *record, which of) {
  zp_bytes key;
  int rc = 0;
  for (size_t offset = 0; !rc && zp_log_key(record, &offset, &key);)
    if (of == ALL_KEYS || has_key(&watch->keys, key) == (of == WATCHED_KEYS)) rc = differs(watch->store, key, record->revision);
  return rc;
}

int zp_watch_changes(zp_store *store, const zp_log_record *record) {
  const zp_watch watch = {.store = store};
  return changes(&watch, record, ALL_KEYS);
}

/* Whether a record is an update at all for this watch, whoever made it: 1, 0, or an error. */
static int counts(const zp_watch *watch, const zp_log_record *record) {
  bool exclude = watch->options.exclude;
  if (!watch->options.duplicates) return changes(watch, record, exclude ? OTHER_KEYS : ALL_KEYS);
  zp_bytes key;
  for (size_t offset = 0; exclude && zp_log_key(record, &offset, &key);)
    if (!has_key(&watch->keys, key)) return 1;
  return !exclude || record->key_count == 0;
}

static bool is_own(const zp_watch *watch, const zp_log_record *record) {
  return record->author == zp_store_author(watch->store);
}

/* The first update after `position` of the watch's keys; 1 and its record, 0, or an error. */
static int next_of_keys(zp_watch *watch, zp_log_record *record) {
  uint64_t best = UINT64_MAX, revision = 0;
  zp_bytes key;
  for (size_t i = 0, offset = 0; next_key(&watch->keys, &i, &offset, &key);) {
    int rc = zp_store_next_change(watch->store, key, watch->position, &revision);
    if (rc < 0) return rc;
    if (rc == 1 && revision < best) best = revision;
  }
  return best == UINT64_MAX ? 0 : zp_store_log(watch->store, best, record);
}

/* The first update of any kind after a revision that counts. */
static int next_of_any(zp_watch *watch, uint64_t after, bool skip_own, zp_log_record *record) {
  for (;; after = record->revision) {
    int rc = zp_store_next_update(watch->store, after, record);
    if (rc == 1 && skip_own && is_own(watch, record)) continue;
    if (rc == 1) rc = counts(watch, record);
    else return rc;
    if (rc) return rc;
  }
}

/* The first update after `position` that has changed the bytes of any key. */
static int next_of_bytes(zp_watch *watch, zp_log_record *record) {
  int rc;
  for (uint64_t after = watch->position;; after = record->revision) {
    rc = zp_store_next_update(watch->store, after, record);
    if (rc != 1 || record->key_count > 0 || watch->options.duplicates) return rc;
  }
}

static int look_for_change(zp_watch *watch, uint64_t newest, uint64_t *revision) {
  bool by_key = key_count(&watch->keys) > 0 && !watch->options.exclude;
  for (;;) {
    zp_log_record record;
    int rc = by_key ? next_of_keys(watch, &record) : next_of_any(watch, watch->position, true, &record);
    if (rc < 0) return rc;
    if (rc == 0) {
      watch->position = newest;
      return NOTHING;
    }
    watch->position = record.revision;
    if (by_key) rc = is_own(watch, &record) ? 0 : changes(watch, &record, WATCHED_KEYS);
    if (rc < 0) return rc;
    if (rc == 0) continue;
    *revision = record.revision;
    return MATCH;
  }
}

/* A condition that holds now is a match too, if this handle has not been given the state as it is now for it. */
static int look_at_present(zp_watch *watch, uint64_t newest, uint64_t *revision) {
  if (!watch->holds) return NOTHING;
  *revision = newest;
  uint64_t known = given(watch);
  if (known == 0) return MATCH;
  zp_log_record record;
  int rc = next_of_any(watch, known, watch->options.own_known, &record);
  return rc == ZP_EHISTORY ? MATCH : rc; /* given so long ago that it is forgotten: certainly not this one */
}

/* Go from revision to revision. */
static int walk(zp_watch *watch, uint64_t *newest, uint64_t *revision) {
  int rc = watch->tested ? 0 : test_at(watch, watch->position, newest);
  while (!rc) {
    zp_log_record record;
    /* While it holds any update is a revision at which it holds, or ceases to; else only what it read can change that. A predicate may tell
       values apart that are equal by content, so it is asked about each. */
    bool any = watch->holds || watch->keys.all;
    if (is_late(watch)) *newest = watch->position;
    else rc = any ? next_of_bytes(watch, &record) : next_of_keys(watch, &record);
    if (rc < 0) return rc;
    if (rc == 0) {
      watch->position = *newest;
      return look_at_present(watch, *newest, revision);
    }
    bool is_news = !is_own(watch, &record);
    if (is_news && watch->holds) { /* that it holds still is news only if something has changed */
      rc = counts(watch, &record);
      if (rc < 0) return rc;
      is_news = rc;
    }
    rc = test_at(watch, record.revision, newest);
    if (!rc && watch->holds && is_news) {
      *revision = record.revision;
      return MATCH;
    }
  }
  return rc;
}

/* The first change after a revision of anything that the last test read: 1, 0, or ZP_EHISTORY. */
static int changed_since(zp_watch *watch, uint64_t revision) {
  zp_log_record record;
  if (watch->keys.all) return zp_store_next_update(watch->store, revision, &record);
  watch->position = revision;
  return next_of_keys(watch, &record);
}

/* Evaluate the condition at the newest revision. Where one is given up sooner than a predicate has looked through it, the next one may not. */
static int test_newest(zp_watch *watch, uint64_t *newest) {
  enum { TRIES = 10 };
  int rc = ZP_EHISTORY;
  for (int i = 0; rc == ZP_EHISTORY && i < TRIES; i++) rc = test_at(watch, zp_store_read_revision(watch->store), newest);
  return rc;
}

/* What follows `position`, or the state there, is not kept any more. */
static int look_past_loss(zp_watch *watch, uint64_t *newest, uint64_t *revision) {
  uint64_t since = watch->position;
  zp_log_record record;
  int rc = zp_store_next_update(watch->store, since, &record);
  if (rc < 0 && rc != ZP_EHISTORY) return rc;
  if (rc == 1) { /* nothing is lost but the state there, so each update is to be looked at */
    clear_keys(&watch->keys);
    watch->keys.all = watch->tested = true;
    watch->holds = false;
    rc = walk(watch, newest, revision);
    if (rc != ZP_EHISTORY) return rc;
  }
  bool is_same = rc == 0; /* other namespaces have changed, this one has not */
  rc = test_newest(watch, newest);
  if (rc) return rc;
  if (is_same || (watch->holds && !watch->options.gapless)) return look_at_present(watch, watch->position, revision);
  uint64_t tested = watch->position;
  /* If it does not hold, and nothing that it read has changed, then it has not held in between. */
  rc = watch->holds ? ZP_EHISTORY : changed_since(watch, since);
  watch->position = tested;
  if (rc == 0) return NOTHING;
  if (rc < 0 && rc != ZP_EHISTORY) return rc;
  return zp_fail(ZP_EHISTORY, "the condition may have held at revisions after %llu that are not kept any more", (unsigned long long)since);
}

static int look_for_condition(zp_watch *watch, uint64_t *newest, uint64_t *revision) {
  int rc = walk(watch, newest, revision);
  return rc == ZP_EHISTORY ? look_past_loss(watch, newest, revision) : rc;
}

static int look(zp_watch *watch, uint64_t *revision) {
  int rc = zp_store_read_begin(watch->store);
  if (rc) return rc;
  uint64_t newest = zp_store_read_revision(watch->store);
  if (watch->promised == 0) watch->promised = newest;
  rc = watch->options.test ? look_for_condition(watch, &newest, revision) : look_for_change(watch, newest, revision);
  zp_store_read_end(watch->store);
  return rc;
}

/* ---- waiting ---- */

static int set_alarm(zp_watch *watch) {
  zp_bytes keys[ZP_ALARM_KEYS], key;
  size_t count = 0;
  bool any = watch->keys.all || watch->options.exclude || (watch->options.test && watch->holds) ||
             key_count(&watch->keys) > ZP_ALARM_KEYS;
  if (!any)
    for (size_t i = 0, offset = 0; next_key(&watch->keys, &i, &offset, &key);) keys[count++] = key;
  return zp_alarm_set(watch->store, &watch->alarm, keys, count);
}

int zp_watch_next(zp_watch *watch, double deadline, zp_watch_cursor *cursor, uint64_t *revision) {
  watch->deadline = deadline;
  watch->promised = 0;
  skip_looked(watch);
  int rc = look(watch, revision);
  while (rc == NOTHING) {
    /* What to be woken for is known only from a look, and what happened between that look and the arming only from another
       one. If that one has changed what is of interest, then once more. */
    unsigned tests = watch->tests;
    rc = set_alarm(watch);
    if (!rc) rc = look(watch, revision);
    if (rc == NOTHING && is_late(watch)) rc = ZP_ETIMEOUT;
    else if (rc == NOTHING && tests == watch->tests) rc = zp_alarm_wait(watch->store, &watch->alarm, deadline);
  }
  if (rc == ZP_ETIMEOUT && !watch->options.live) { /* a live one has not looked at what comes right after the cursor */
    use_subject(watch);
    watch->cursor.subjects[0].looked = watch->position;
    watch->cursor.subjects[0].flags = flags_of(watch);
    *cursor = watch->cursor;
  }
  if (rc != MATCH) return rc;
  use_subject(watch);
  watch->cursor.subjects[0].given = *revision;
  watch->cursor.revision = watch->position = *revision;
  *cursor = watch->cursor;
  return 0;
}

int zp_watch_go_live(zp_store *store, zp_watch_cursor *cursor) {
  int rc = zp_store_read_begin(store);
  if (rc) return rc;
  cursor->revision = zp_store_read_revision(store);
  zp_store_read_end(store);
  return 0;
}

static int visit_keys(zp_store *store, const zp_log_record *record, int (*visit)(void *context, zp_bytes key, const zp_bytes *value), void *context) {
  zp_bytes key, value;
  int rc = zp_store_read_move(store, record->revision);
  for (size_t offset = 0; !rc && zp_log_key(record, &offset, &key);) {
    int found = zp_store_get(store, key, &value);
    rc = found < 0 ? found : visit(context, key, found ? &value : NULL);
  }
  return rc;
}

int zp_watch_visit_changes(zp_store *store, uint64_t revision, int (*visit)(void *context, zp_bytes key, const zp_bytes *value), void *context) {
  zp_log_record record;
  int rc = zp_store_read_begin(store);
  if (rc) return rc;
  rc = zp_store_log(store, revision, &record);
  if (rc == 1) rc = visit_keys(store, &record, visit, context);
  zp_store_read_end(store);
  return rc;
}
