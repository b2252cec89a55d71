/*
 * past -- finding one's way along the revisions: what comes after one, for a key or for a namespace.
 */
#include <assert.h>

#include "base/err.h"
#include "store/handle.h"

int zp_store_read_move(zp_store *store, uint64_t revision) {
  uint64_t oldest = 0, newest = 0;
  int rc = zp_store_range(store, &oldest, &newest);
  if (rc) return rc;
  if (revision < oldest || revision > newest)
    return zp_fail(ZP_EHISTORY, "revision %llu is not kept; the oldest is %llu, the newest %llu",
                   (unsigned long long)revision, (unsigned long long)oldest, (unsigned long long)newest);
  store->revision = revision;
  store->revision_known = true;
  store->at = revision < newest ? revision : ZP_NEWEST;
  store->walking = false;
  return 0;
}

static int fail_lost(uint64_t after, uint64_t oldest) {
  return zp_fail(ZP_EHISTORY, "what happened after revision %llu is not kept any more; the oldest revision is %llu",
                 (unsigned long long)after, (unsigned long long)oldest);
}

/* What history has lost of the handle's namespace, which is known. */
static uint64_t place_of(const zp_store *store, _Atomic uint64_t *places) {
  return atomic_load(&places[store->namespace_id % ZP_STORE_PLACES]);
}

/* Whether the namespace is known by now: 1, 0 if there is none, or an error. */
static int know_namespace(zp_store *store) {
  if (store->namespace_id) return 1;
  zp_namespace found;
  int rc = zp_namespace_find(store, store->reader->txn, &found);
  if (rc == 1) store->namespace_id = found.id;
  return rc == 0 || rc == 1 ? rc : zp_env_fail(store->env, rc, "cannot read");
}

/* Versions of a key stand newest first: the one before the first that is not newer than `after` is the next change. When a
   revision becomes the oldest, versions older than it are dropped only for the keys that it changed; so a version from
   `after` or before proves that nothing in between was dropped. Without one the key was absent at `after`; if it was so at the oldest
   revision too, but not all the time, its last deletion in between was forgotten. */
int zp_store_next_change(zp_store *store, zp_bytes key, uint64_t after, uint64_t *revision) {
  assert(store->reading);
  uint64_t oldest = 0, newest = 0;
  int rc = zp_store_range(store, &oldest, &newest);
  if (rc) return rc;
  rc = know_namespace(store);
  if (rc != 1) return rc; /* a namespace stays for ever: what is not there never was */
  rc = zp_vkey_make(&store->key, store->namespace_id, key);
  if (rc) return rc;
  zp_vkey_at(&store->key, after);
  MDB_cursor *cursor = store->reader->point;
  MDB_val at = {zp_vkey_size(&store->key), store->key.bytes}, value;
  rc = mdb_cursor_get(cursor, &at, &value, MDB_SET_RANGE);
  if (rc && rc != MDB_NOTFOUND) return zp_env_fail(store->env, rc, "cannot read");
  bool proven = after >= oldest || (!rc && zp_vkey_same(&store->key, at.mv_data, at.mv_size));
  if (!proven && after < place_of(store, store->env->control->forgotten)) return fail_lost(after, oldest);
  if (rc == MDB_NOTFOUND) rc = mdb_cursor_get(cursor, &at, &value, MDB_LAST);
  else if (!rc) rc = mdb_cursor_get(cursor, &at, &value, MDB_PREV);
  if (rc == MDB_NOTFOUND) return 0;
  if (rc) return zp_env_fail(store->env, rc, "cannot read");
  if (!zp_vkey_same(&store->key, at.mv_data, at.mv_size)) return 0;
  *revision = zp_vkey_revision(at.mv_data, at.mv_size);
  return proven || *revision > oldest ? 1 : fail_lost(after, oldest); /* present at the oldest revision, whenever it came */
}

int zp_store_next_update(zp_store *store, uint64_t after, zp_log_record *record) {
  assert(store->reading);
  uint64_t oldest = 0, newest = 0;
  int rc = zp_store_range(store, &oldest, &newest);
  if (!rc) rc = know_namespace(store);
  if (rc != 1) return rc;
  if (after < oldest) {
    if (after < place_of(store, store->env->control->trimmed)) return fail_lost(after, oldest);
    after = oldest - 1; /* the record of the oldest revision is there */
  }
  for (uint64_t revision = after + 1; revision <= newest; revision++) {
    rc = zp_store_log(store, revision, record);
    if (rc != 1) return rc;
    if (record->same_namespace) return 1;
  }
  return 0;
}

int zp_store_read_begin_as_of(zp_store *store, uint64_t revision) {
  uint64_t oldest = 0, newest = 0;
  int rc = zp_store_read_begin(store);
  if (rc) return rc;
  rc = zp_store_range(store, &oldest, &newest);
  if (!rc && revision < oldest && (rc = know_namespace(store)) == 1) {
    rc = 0;
    /* What is noted there includes the oldest revision's own update. */
    if (revision < place_of(store, store->env->control->trimmed)) rc = fail_lost(revision, oldest);
    else revision = oldest;
  } else if (!rc && revision < oldest) {
    revision = oldest; /* there is no such namespace yet: nothing was ever in it */
  }
  if (!rc) rc = zp_store_read_move(store, revision);
  if (rc) zp_store_read_end(store);
  return rc;
}
