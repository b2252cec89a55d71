/*
 * commit -- applying changes as one revision.
 *
 * One LMDB transaction holds the new versions, the log record, the count of the namespace and the trimming that is due;
 * so I1 and I2 hold at every instant at which a process can die. The changes are compared and applied in key order, each
 * key once.
 *
 * Room (I3, and no dead end). A commit begins only if the map has room for it and for RESERVE besides; else the file
 * grows, or, if the file system is full, history is given up. Deletions may use the reserve, so that a full state can be
 * cured by deleting. What is needed is an estimate: if LMDB finds the map full after all, the transaction is aborted and
 * the same changes are applied again with more room; the writer lock is held all the while.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "store/handle.h"
#include "store/room.h"
#include "store/trim.h"
#include "store/write.h"

enum {
  RESERVE = 64,           /* pages */
  SMALL_NEED = 64,        /* pages; for more it pays to look at the free list before growing */
  PATH_PAGES = 16,        /* that any commit copies: paths in four trees */
  NODE_BYTES = 24,        /* around a key and a value on a page */
  INLINE_MAX = 1900,      /* about: a larger value has pages of its own */
  TRIM_EVERY = 64,        /* revisions */
  RECORD_KEEP = 1 << 16,  /* bytes of buffer to keep for the next record */
  NO_ROOM = INT_MAX,      /* no error number, nor a code of LMDB or ours */
  WAITS_MAX = 100,
  WAIT_NANOSECONDS = 1000000
};

#define VALUE_MAX ((size_t)INT32_MAX)

/* ---- write transactions ---- */

int zp_write_begin(zp_env *env, zp_section *section, MDB_txn **txn) {
  for (;;) {
    zp_env_enter(env, section);
    int rc = env->unmapped ? MDB_MAP_RESIZED : mdb_txn_begin(env->mdb, NULL, 0, txn);
    if (!rc) return 0;
    zp_env_leave(section);
    if (rc == MDB_MAP_RESIZED) rc = zp_room_remap(env);
    if (rc) return rc;
  }
}

int zp_write_end(zp_section *section, MDB_txn *txn, int rc) {
  if (rc) mdb_txn_abort(txn);
  else rc = mdb_txn_commit(txn);
  zp_env_leave(section);
  return rc;
}

/* LMDB has all of a commit or nothing; but if its writer died when the meta page was written and its number not yet announced, readers
   go on to see the revision before, until LMDB's own write lock is taken and finds its owner dead. What is read under the lock must be
   what the commit will build upon, and who waits for the commit must see it. */
static int recover(zp_env *env) {
  for (;;) {
    zp_section section;
    MDB_txn *txn;
    zp_env_enter(env, &section);
    bool is_there = !env->unmapped;
    int rc = is_there ? mdb_txn_begin(env->mdb, NULL, 0, &txn) : 0;
    if (is_there && !rc) mdb_txn_abort(txn);
    zp_env_leave(&section);
    if (is_there) return rc == MDB_MAP_RESIZED ? 0 : zp_env_fail(env, rc, "cannot recover"); /* that is found out with LMDB's lock held */
    rc = zp_room_remap(env);
    if (rc) return rc;
  }
}

/* It is noted before the mutex says that all is well: if this process dies in between, or has no memory for it, the next one does it. */
int zp_env_settle(zp_env *env, int rc) {
  zp_control *control = env->control;
  if (rc == EOWNERDEAD) {
    atomic_store(&control->unsettled, 1);
    rc = pthread_mutex_consistent(&control->writer);
  }
  if (rc || !atomic_load_explicit(&control->unsettled, memory_order_relaxed)) return rc;
  rc = recover(env);
  if (!rc) atomic_store(&control->unsettled, 0);
  return rc;
}

/* ---- the plan: which changes in which order ---- */

/* Changes in memory, in the order in which they are applied. */
typedef struct array {
  zp_changes base;
  const zp_change *changes;
  uint32_t *order; /* NULL: as they are */
  size_t count;    /* of changes that count */
  size_t at;
} array;

static void begin_array(zp_changes *changes) { ((array *)changes)->at = 0; }

static bool next_in_array(zp_changes *changes, zp_change *change) {
  array *self = (array *)changes;
  if (self->at == self->count) return false;
  *change = self->changes[self->order ? self->order[self->at] : self->at];
  self->at++;
  return true;
}

typedef struct commit_plan {
  zp_changes *changes;
  size_t count;    /* of changes */
  size_t pages;    /* that they will need, about */
  size_t worst;    /* the same if each key is on a page of its own */
  bool deletion;   /* they only delete */
  bool forget;     /* delete without leaving versions: see make_room */
  unsigned waits;  /* for readers to end, so far */
} commit_plan;

static int compare_bytes(zp_bytes a, zp_bytes b) {
  size_t size = a.size < b.size ? a.size : b.size;
  int order = size ? memcmp(a.data, b.data, size) : 0;
  return order ? order : (a.size > b.size) - (a.size < b.size);
}

static int compare_changes(const void *a, const void *b, void *context) {
  const zp_change *changes = context;
  uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
  int order = compare_bytes(changes[i].key, changes[j].key);
  return order ? order : (i > j) - (i < j);
}

static int check_change(const zp_change *change) {
  int rc = zp_vkey_check(change->key);
  if (rc) return rc;
  if (change->value.data && change->value.size == 0) return zp_fail(ZP_EVALUE, "a value cannot be empty");
  if (change->value.data && change->value.size > VALUE_MAX) return zp_fail(ZP_EVALUE, "the value is too large: %zu bytes", change->value.size);
  return 0;
}

static int check_count(size_t count) {
  return count > UINT32_MAX / 2 ? zp_fail(ZP_EVALUE, "too many changes for one commit: %zu", count) : 0;
}

static int check_changes(const zp_change *changes, size_t count) {
  int rc = check_count(count);
  for (size_t i = 0; i < count && !rc; i++) rc = check_change(&changes[i]);
  return rc;
}

/* Count them as well. */
static int check_sorted(zp_changes *changes, size_t *count) {
  zp_change change;
  unsigned char last[ZP_KEY_MAX];
  size_t last_size = 0;
  int rc = 0;
  *count = 0;
  for (changes->begin(changes); !rc && changes->next(changes, &change); ++*count) {
    rc = check_change(&change);
    if (!rc && *count > 0 && compare_bytes((zp_bytes){last, last_size}, change.key) >= 0) rc = zp_fail(ZP_EVALUE, "the keys of a commit do not ascend");
    if (rc) break;
    memcpy(last, change.key.data, last_size = change.key.size);
  }
  return rc ? rc : check_count(*count);
}

/* Of several changes of one key the last one counts. Keys that ascend already, as a walk or a sorted table gives them,
   cost one pass. */
static int order_changes(array *plan, const zp_change *changes, size_t count) {
  size_t i = 1;
  while (i < count && compare_bytes(changes[i - 1].key, changes[i].key) < 0) i++;
  if (i >= count) return 0;
  plan->order = malloc(count * sizeof *plan->order);
  if (!plan->order) return zp_fail(ZP_ENOMEM, "out of memory: a commit of %zu changes", count);
  for (i = 0; i < count; i++) plan->order[i] = (uint32_t)i;
  qsort_r(plan->order, count, sizeof *plan->order, compare_changes, (void *)changes);
  size_t kept = 0;
  for (i = 0; i < count; i++) {
    uint32_t index = plan->order[i];
    if (i + 1 < count && compare_bytes(changes[index].key, changes[plan->order[i + 1]].key) == 0) continue;
    plan->order[kept++] = index;
  }
  plan->count = kept;
  return 0;
}

int zp_changes_sort(zp_change *changes, size_t *count) {
  array sorted = {.changes = changes, .count = *count};
  int rc = check_count(*count);
  if (!rc) rc = order_changes(&sorted, changes, *count);
  if (rc || !sorted.order) return rc;
  zp_change *copy = malloc(*count * sizeof *copy);
  if (copy) {
    memcpy(copy, changes, *count * sizeof *copy);
    for (size_t i = 0; i < sorted.count; i++) changes[i] = copy[sorted.order[i]];
    *count = sorted.count;
    free(copy);
  } else {
    rc = zp_fail(ZP_ENOMEM, "out of memory: a commit of %zu changes", *count);
  }
  free(sorted.order);
  return rc;
}

static size_t own_pages(const zp_env *env, size_t size) { return (size + 16 + env->page_size - 1) / env->page_size; }

static void estimate(const zp_env *env, commit_plan *plan) {
  size_t small = 0, record = sizeof(zp_log_head), large = 0;
  plan->deletion = plan->count > 0;
  zp_change one, *change = &one;
  for (plan->changes->begin(plan->changes); plan->changes->next(plan->changes, change);) {
    size_t value = change->value.data ? change->value.size : 0;
    small += change->key.size + NODE_BYTES;
    record += change->key.size + 2;
    if (value <= INLINE_MAX) small += value;
    else large += own_pages(env, value);
    if (change->value.data) plan->deletion = false;
  }
  if (record > INLINE_MAX) large += own_pages(env, record);
  plan->pages = PATH_PAGES + large + 2 * small / env->page_size;
  plan->worst = plan->pages + 3 * plan->count;
}

/* ---- room ---- */

static bool is_enough(const zp_env *env, const commit_plan *plan, size_t tail) {
  return tail >= (env->tight ? plan->worst : plan->pages) + RESERVE || tail >= plan->worst + RESERVE;
}

/* Pages behind the last one, and free ones if those have to be counted. 0 or an error. */
static int count_pages(zp_store *store, size_t *tail, size_t *free_pages) {
  int rc = zp_store_read_begin(store);
  if (rc) return rc;
  *tail = zp_room_tail(store->env);
  rc = free_pages ? zp_room_free(store->reader->txn, free_pages) : 0;
  zp_store_read_end(store);
  return zp_env_fail(store->env, rc, "cannot write");
}

/* 1: there is room, 0: there is not, or an error. */
static int has_room(zp_store *store, const commit_plan *plan) {
  zp_env *env = store->env;
  bool is_counted = env->tight || plan->pages > SMALL_NEED; /* else growing is cheaper than counting, and it ends */
  size_t tail, free_pages = 0;
  int rc = count_pages(store, &tail, is_counted ? &free_pages : NULL);
  if (rc || is_enough(env, plan, tail)) return rc ? rc : 1;
  return is_counted && is_enough(env, plan, tail + free_pages);
}

/* The last resorts, when the file cannot grow, no history is left (or none can be given up, which takes pages too), and
   LMDB has found the map full. 0: try once more. */
static int last_resort(zp_store *store, commit_plan *plan, bool no_history) {
  zp_env *env = store->env;
  /* A deletion adds a version that says so, and there is no room for it. But no revision before this one can be read
     any more: if this one becomes the oldest, the versions may just go. That takes hardly any pages. */
  if (no_history && plan->deletion && !plan->forget) {
    plan->forget = true;
    return 0;
  }
  /* If the free list is long enough, the pages of the last two commits, or of a reader that is just at it, are on it. */
  size_t tail, free_pages;
  int rc = count_pages(store, &tail, &free_pages);
  if (rc) return rc;
  if (plan->waits++ == WAITS_MAX || tail + free_pages < plan->pages) return zp_env_fail_full(env);
  struct timespec while_readers_end = {.tv_nsec = WAIT_NANOSECONDS};
  nanosleep(&while_readers_end, NULL);
  rc = zp_trim_pass_time(env);
  return rc == ZP_EFULL ? 0 : rc;
}

/* Make room for the plan; `full`: LMDB has found the map full. 0 or an error. Each round grows the file, or gives up
   history, or learns that space is tight, so there is an end. */
static int make_room(zp_store *store, commit_plan *plan, bool full) {
  zp_env *env = store->env;
  for (;;) {
    int rc = full ? 0 : has_room(store, plan);
    if (rc) return rc > 0 ? 0 : rc;
    rc = zp_room_grow(env, plan->pages + RESERVE);
    if (!rc) {
      env->tight = false;
      if (full) return 0;
      continue;
    }
    /* This thread reads through another handle, so the map cannot move. Perhaps there is room on the free list. */
    if (rc == ZP_EATOMIC && !full) return 0;
    if (rc != ZP_EFULL) return rc;
    if (!env->tight) {
      env->tight = true;
      if (!full) continue;
    }
    rc = zp_trim_half(env);
    if (rc < 0 && rc != ZP_EFULL) return rc;
    if (rc > 0 && full) return 0;
    if (rc > 0) continue;
    if (full) return last_resort(store, plan, rc == 0);
    return plan->deletion ? 0 : zp_env_fail_full(env);
  }
}

/* ---- applying ---- */

typedef struct application {
  zp_store *store;
  MDB_txn *txn;
  MDB_cursor *versions;
  zp_namespace space;
  uint64_t revision;
  uint64_t cost;     /* history bytes: versions superseded, and the record */
  uint32_t changed;  /* keys */
  bool forget;
} application;

static uint64_t version_cost(const zp_env *env, size_t key, size_t value) {
  return value > INLINE_MAX ? key + NODE_BYTES + own_pages(env, value) * env->page_size : key + NODE_BYTES + value;
}

static int apply_change(application *app, const zp_change *change) {
  zp_store *store = app->store;
  zp_vkey *vkey = &store->key;
  zp_bytes value = change->value;
  if (!value.data) value.size = 0;
  int rc = zp_vkey_make(vkey, app->space.id, change->key);
  if (rc) return rc;
  zp_vkey_at(vkey, ZP_NEWEST);
  MDB_val at = {zp_vkey_size(vkey), vkey->bytes}, found;
  rc = mdb_cursor_get(app->versions, &at, &found, MDB_SET_RANGE);
  if (rc && rc != MDB_NOTFOUND) return rc;
  bool known = !rc && zp_vkey_same(vkey, at.mv_data, at.mv_size);
  size_t old_size = known ? found.mv_size : 0;
  if (old_size == value.size && (value.size == 0 || memcmp(found.mv_data, value.data, value.size) == 0)) return 0;
  if (app->forget) {
    rc = mdb_cursor_del(app->versions, 0); /* its only one, for there is no history */
  } else {
    if (known) app->cost += version_cost(store->env, at.mv_size, old_size);
    zp_vkey_at(vkey, app->revision);
    at = (MDB_val){zp_vkey_size(vkey), vkey->bytes};
    found = (MDB_val){value.size, (void *)value.data};
    rc = mdb_cursor_put(app->versions, &at, &found, 0);
  }
  if (rc) return rc;
  app->space.count += (value.size > 0) - (old_size > 0);
  app->changed++;
  if (value.size == 0) atomic_store_explicit(&store->env->control->deleting, 1, memory_order_relaxed);
  rc = zp_buf_append_varint(&store->record, change->key.size);
  return rc ? rc : zp_buf_append(&store->record, change->key.data, change->key.size);
}

/* The namespace, made if this is its first commit: ids are never used again, so their number is the last one. */
static int find_namespace(application *app, bool *fresh) {
  int rc = zp_namespace_find(app->store, app->txn, &app->space);
  *fresh = rc == 0;
  if (rc) return rc == 1 ? 0 : rc;
  MDB_stat stat = {.ms_entries = 0};
  rc = mdb_stat(app->txn, app->store->env->namespaces, &stat);
  app->space = (zp_namespace){.id = (uint32_t)stat.ms_entries + 1};
  return rc;
}

static int append_record(application *app, MDB_cursor *log, uint64_t total, zp_log_head *out) {
  zp_store *store = app->store;
  app->cost += store->record.size + NODE_BYTES;
  zp_log_head head = {.author = zp_store_author(store),
                      .total = total + app->cost,
                      .namespace_id = app->space.id,
                      .key_count = app->changed};
  memcpy(store->record.data, &head, sizeof head);
  *out = head;
  unsigned char bytes[8];
  zp_put_be64(bytes, app->revision);
  MDB_val key = {sizeof bytes, bytes}, value = {store->record.size, store->record.data};
  return mdb_cursor_put(log, &key, &value, MDB_APPEND);
}

static int newest_record(MDB_cursor *log, uint64_t *revision, uint64_t *total) {
  MDB_val key, value;
  zp_log_head head;
  *revision = *total = 0;
  int rc = mdb_cursor_get(log, &key, &value, MDB_LAST);
  if (rc) return rc == MDB_NOTFOUND ? 0 : rc;
  if (value.mv_size < sizeof head) return MDB_CORRUPTED;
  memcpy(&head, value.mv_data, sizeof head);
  *revision = zp_get_be64(key.mv_data);
  *total = head.total;
  return 0;
}

/* Wake who waits for one of the changed keys, or for anything in the namespace. */
static void ring(const application *app, const zp_log_head *head, bool committed) {
  zp_store *store = app->store;
  zp_bell *bell = store->env->bell;
  zp_bytes keys = {store->record.data + sizeof *head, store->record.size - sizeof *head}, key;
  for (size_t offset = 0; zp_log_step(keys, &offset, &key);) zp_bell_ring(bell, zp_bell_tag(store->name, key));
  zp_bell_ring(bell, zp_bell_tag_all(store->name));
  /* Deletions are forgotten in the end. Whoever waits for an absent key has to look before that, or he cannot tell any more whether it
     has been absent all the time. */
  zp_control *control = store->env->control;
  if (!atomic_load_explicit(&control->deleting, memory_order_relaxed)) return;
  const zp_store_limits *limits = &control->limits;
  uint64_t bytes = limits->keep_bytes / ZP_STORE_PROGRESS + 1, revisions = limits->keep_revisions / ZP_STORE_PROGRESS + 1;
  if (app->revision % revisions != 0 && head->total / bytes == (head->total - app->cost) / bytes) return;
  zp_bell_ring(bell, zp_store_progress_tag());
  if (committed) atomic_store(&control->deleting, 0);
}

/* Apply the plan in one transaction; 0, NO_ROOM if it was not made for sure and there may be none, a code of LMDB (MDB_MAP_FULL: nothing has
   happened), or ours. */
static int apply(zp_store *store, const commit_plan *plan, bool is_sure, application *app) {
  zp_env *env = store->env;
  zp_section section;
  MDB_cursor *log;
  zp_log_head head;
  bool fresh = false;
  uint64_t total;
  *app = (application){.store = store, .forget = plan->forget};
  int rc = zp_write_begin(env, &section, &app->txn);
  if (rc) return rc;
  if (!is_sure && !is_enough(env, plan, zp_room_tail(env))) rc = NO_ROOM;
  if (!rc) rc = mdb_cursor_open(app->txn, env->versions, &app->versions);
  if (!rc) rc = mdb_cursor_open(app->txn, env->log, &log);
  if (!rc) rc = newest_record(log, &app->revision, &total);
  if (!rc) rc = find_namespace(app, &fresh);
  if (rc) goto out;
  app->revision++;
  uint64_t count = app->space.count;
  static const zp_log_head blank;
  zp_buf_clear(&store->record, RECORD_KEEP);
  rc = zp_buf_append(&store->record, &blank, sizeof blank);
  zp_change change;
  plan->changes->begin(plan->changes);
  while (!rc && plan->changes->next(plan->changes, &change)) rc = apply_change(app, &change);
  if (!rc) rc = append_record(app, log, total, &head);
  if (!rc && app->forget) rc = zp_trim_all_but(env, app->txn, app->revision);
  if (!rc && (fresh || app->space.count != count)) {
    MDB_val key = {strlen(store->name), store->name}, value = {sizeof app->space, &app->space};
    rc = mdb_put(app->txn, env->namespaces, &key, &value, 0);
  }
  const zp_store_limits *limits = &env->control->limits;
  if (!rc && (app->revision % TRIM_EVERY == 0 || app->cost > limits->keep_bytes / TRIM_EVERY))
    rc = zp_trim_by_limits(env, app->txn, app->changed);
out:
  /* Rung before the commit as well as after it: if this process dies between commit and second ring, the first has told the
     waiters that there is something to make sure of (alarm.c). */
  if (!rc) ring(app, &head, false);
  bool committing = !rc;
  rc = zp_write_end(&section, app->txn, rc); /* which frees the cursors */
  if (committing) ring(app, &head, true);
  return rc;
}

static int carry_out(zp_store *store, zp_changes *changes, size_t count, uint64_t *revision, size_t *changed) {
  int rc = 0;
  commit_plan plan = {.changes = changes, .count = count};
  estimate(store->env, &plan);

  application app;
  bool mine = store->locked;
  zp_store_read_end(store);
  if (!mine) rc = zp_store_lock(store);
  if (rc) return rc;
  rc = apply(store, &plan, false, &app);
  while (rc == NO_ROOM || rc == MDB_MAP_FULL) {
    rc = make_room(store, &plan, rc == MDB_MAP_FULL);
    if (!rc) rc = apply(store, &plan, true, &app);
  }
  if (!rc) {
    store->namespace_id = app.space.id;
    if (revision) *revision = app.revision;
    if (changed) *changed = app.changed;
  } else {
    rc = zp_env_fail(store->env, rc, "cannot write");
  }
  if (!mine) zp_store_unlock(store);
  return rc;
}

int zp_store_commit(zp_store *store, const zp_change *changes, size_t count, uint64_t *revision, size_t *changed) {
  array all = {.base = {begin_array, next_in_array}, .changes = changes, .count = count};
  int rc = zp_store_wake(store);
  if (!rc) rc = check_changes(changes, count);
  if (!rc) rc = order_changes(&all, changes, count);
  if (!rc) rc = carry_out(store, &all.base, all.count, revision, changed);
  free(all.order);
  return rc;
}

int zp_store_commit_sorted(zp_store *store, zp_changes *changes, uint64_t *revision, size_t *changed) {
  size_t count;
  int rc = zp_store_wake(store);
  if (!rc) rc = check_sorted(changes, &count);
  return rc ? rc : carry_out(store, changes, count, revision, changed);
}
