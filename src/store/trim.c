#include "store/trim.h"

#include <string.h>

#include "base/err.h"
#include "store/room.h"
#include "store/write.h"

enum {
  SMALL_BUDGET = 32,  /* keys a transaction where pages are scarce */
  USUAL_BUDGET = 4096 /* keys a trimming commit; single-key commits trim 64 records of one key */
};

/* What is lost for good is noted before it is committed; if it is not committed in the end, no harm is done. */
static void note_trimmed(zp_env *env, uint32_t namespace_id, uint64_t revision) {
  atomic_store(&env->control->trimmed[namespace_id % ZP_STORE_PLACES], revision);
}

static void note_forgotten(zp_env *env, uint32_t namespace_id, uint64_t revision) {
  atomic_store(&env->control->forgotten[namespace_id % ZP_STORE_PLACES], revision);
}

/* Clean up behind one key of revision `revision`, which is about to become the oldest. */
static int clean_key(zp_env *env, MDB_cursor *versions, uint32_t namespace_id, zp_bytes key, uint64_t revision) {
  zp_vkey vkey;
  int rc = zp_vkey_make(&vkey, namespace_id, key);
  if (rc) return rc;
  zp_vkey_at(&vkey, revision);
  MDB_val at = {zp_vkey_size(&vkey), vkey.bytes}, value;
  rc = mdb_cursor_get(versions, &at, &value, MDB_SET_RANGE);
  if (rc) return rc == MDB_NOTFOUND ? 0 : rc;
  /* Met again after an interruption, the version at `revision` may be gone (it was a deletion) and so is the older one. */
  if (!zp_vkey_same(&vkey, at.mv_data, at.mv_size)) return 0;
  bool own = zp_vkey_revision(at.mv_data, at.mv_size) == revision;
  bool deletion = own && value.mv_size == 0;
  if (own) {
    rc = mdb_cursor_get(versions, &at, &value, MDB_NEXT);
    if (rc && rc != MDB_NOTFOUND) return rc;
  }
  if (!rc && zp_vkey_same(&vkey, at.mv_data, at.mv_size)) {
    rc = mdb_cursor_del(versions, 0);
    if (rc) return rc;
  }
  if (!deletion) return 0;
  note_forgotten(env, namespace_id, revision);
  at = (MDB_val){zp_vkey_size(&vkey), vkey.bytes};
  rc = mdb_cursor_get(versions, &at, &value, MDB_SET);
  if (!rc) rc = mdb_cursor_del(versions, 0);
  return rc;
}

static int set_cleaned(zp_env *env, MDB_txn *txn, uint64_t cleaned) {
  unsigned char bytes[8] = {0};
  MDB_val key = {sizeof bytes, bytes}, value = {sizeof cleaned, &cleaned};
  return mdb_put(txn, env->log, &key, &value, 0);
}

static int drop_record(zp_env *env, MDB_txn *txn, uint64_t revision) {
  unsigned char bytes[8];
  zp_put_be64(bytes, revision);
  MDB_val key = {sizeof bytes, bytes};
  return mdb_del(txn, env->log, &key, NULL);
}

/* Fetch a record into the scratch buffer: trees change under what LMDB hands out. */
static int fetch_record(zp_env *env, MDB_txn *txn, uint64_t revision, zp_log_head *head, zp_bytes *keys) {
  unsigned char bytes[8];
  zp_put_be64(bytes, revision);
  MDB_val key = {sizeof bytes, bytes}, value;
  int rc = mdb_get(txn, env->log, &key, &value);
  if (rc) return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
  if (value.mv_size < sizeof *head) return MDB_CORRUPTED;
  memcpy(head, value.mv_data, sizeof *head);
  zp_buf_clear(&env->scratch, 1 << 16);
  rc = zp_buf_append(&env->scratch, (const char *)value.mv_data + sizeof *head, value.mv_size - sizeof *head);
  *keys = (zp_bytes){env->scratch.data, env->scratch.size};
  return rc;
}

static bool is_over(const zp_log_span *span, const zp_trim_goal *goal) {
  return span->newest - span->first + 1 > goal->keep_revisions ||
         span->newest_total - span->first_total > goal->keep_bytes;
}

static int find_span(zp_env *env, MDB_txn *txn, zp_log_span *span) {
  MDB_cursor *log;
  int rc = mdb_cursor_open(txn, env->log, &log);
  if (rc) return rc;
  rc = zp_log_span_find(log, span);
  mdb_cursor_close(log);
  return rc;
}

static int trim_span(zp_env *env, MDB_txn *txn, zp_log_span *span, const zp_trim_goal *goal) {
  MDB_cursor *versions;
  int rc = mdb_cursor_open(txn, env->versions, &versions);
  if (rc) return rc;
  uint64_t budget = goal->budget;
  if (span->first == 1) { /* the others are noted when they become the first */
    zp_log_head head;
    zp_bytes keys;
    rc = fetch_record(env, txn, 1, &head, &keys);
    if (!rc) note_trimmed(env, head.namespace_id, 1);
  }
  while (!rc && budget > 0 && span->first < span->newest && (span->cleaning || is_over(span, goal))) {
    zp_log_head head;
    zp_bytes keys, key;
    rc = fetch_record(env, txn, span->first + 1, &head, &keys);
    if (rc) break;
    budget--;
    size_t offset = span->cleaning ? span->cleaned : 0;
    while (budget > 0 && zp_log_step(keys, &offset, &key)) {
      budget--;
      rc = clean_key(env, versions, head.namespace_id, key, span->first + 1);
      if (rc) goto out;
    }
    if (offset < keys.size) {
      rc = set_cleaned(env, txn, offset);
      span->cleaning = true;
      span->cleaned = offset;
      break;
    }
    note_trimmed(env, head.namespace_id, span->first + 1);
    if (span->cleaning) rc = drop_record(env, txn, 0);
    if (!rc) rc = drop_record(env, txn, span->first);
    if (rc) break;
    span->cleaning = false;
    span->first++;
    span->first_total = head.total;
  }
out:
  mdb_cursor_close(versions);
  return rc;
}

int zp_trim(zp_env *env, MDB_txn *txn, const zp_trim_goal *goal, bool *more) {
  zp_log_span span;
  int rc = find_span(env, txn, &span);
  if (!rc) rc = trim_span(env, txn, &span, goal);
  if (more) *more = span.first < span.newest && (span.cleaning || is_over(&span, goal));
  return rc;
}

int zp_trim_by_limits(zp_env *env, MDB_txn *txn, uint64_t changed) {
  const zp_store_limits *limits = &env->control->limits;
  zp_log_span span;
  int rc = find_span(env, txn, &span);
  if (rc) return rc;
  zp_trim_goal goal = {limits->keep_revisions, limits->keep_bytes, USUAL_BUDGET + 4 * changed};
  /* Where that does not keep up: no bound. */
  if ((span.newest - span.first) / 2 > goal.keep_revisions ||
      (span.newest_total - span.first_total) / 2 > goal.keep_bytes)
    goal.budget = UINT64_MAX;
  return trim_span(env, txn, &span, &goal);
}

/* Pages that a transaction frees can be used by the second one after it. This one changes nothing. */
static int pass_time(zp_env *env) {
  zp_section section;
  MDB_txn *txn;
  MDB_cursor *cursor;
  int rc = zp_write_begin(env, &section, &txn);
  if (rc) return rc;
  rc = mdb_cursor_open(txn, env->namespaces, &cursor);
  if (!rc) {
    MDB_val key, value;
    rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
    zp_namespace same;
    if (!rc && value.mv_size == sizeof same) {
      memcpy(&same, value.mv_data, sizeof same);
      value.mv_data = &same;
      rc = mdb_cursor_put(cursor, &key, &value, MDB_CURRENT);
    }
    mdb_cursor_close(cursor);
  }
  return zp_write_end(&section, txn, rc == MDB_NOTFOUND ? 0 : rc);
}

int zp_trim_pass_time(zp_env *env) {
  int rc = pass_time(env);
  if (!rc) rc = pass_time(env);
  return rc ? zp_env_fail(env, rc, "cannot write") : 0;
}

int zp_trim_all_but(zp_env *env, MDB_txn *txn, uint64_t revision) {
  for (uint32_t place = 0; place < ZP_STORE_PLACES; place++) {
    note_trimmed(env, place, revision);
    note_forgotten(env, place, revision);
  }
  return revision > 1 ? drop_record(env, txn, revision - 1) : 0;
}

int zp_trim_half(zp_env *env) {
  zp_section section;
  MDB_txn *txn;
  zp_log_span span;
  zp_trim_goal goal = {.keep_bytes = UINT64_MAX, .budget = SMALL_BUDGET};
  bool more = true;
  for (bool first = true; more; first = false) {
    int rc = zp_write_begin(env, &section, &txn);
    if (rc) return zp_env_fail(env, rc, "cannot give up history");
    if (first) {
      rc = find_span(env, txn, &span);
      goal.keep_revisions = (span.newest - span.first + 1) / 2;
      if (goal.keep_revisions == 0) goal.keep_revisions = 1;
      more = !rc && span.first < span.newest;
    }
    if (!rc && more) rc = zp_trim(env, txn, &goal, &more);
    else if (!rc) {
      zp_write_end(&section, txn, MDB_NOTFOUND); /* nothing to give up */
      return 0;
    }
    rc = zp_write_end(&section, txn, rc);
    if (rc) return zp_env_fail(env, rc, "cannot give up history");
  }
  int rc = zp_trim_pass_time(env);
  return rc ? rc : 1;
}
