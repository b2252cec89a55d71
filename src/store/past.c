/*
 * past -- finding one's way along the revisions: what comes after one, for a key or for a namespace.
 */
#include <assert.h>

#include "base/err.h"
#include "store/handle.h"

int zp_store_read_move(zp_store *store, uint64_t revision) {
  uint64_t oldest, newest;
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

/* Versions of a key stand newest first: the one before the first that is not newer than `after` is the next change. When a
   revision becomes the oldest, versions older than it are dropped only for the keys that it changed; so a version from
   `after` or before proves that nothing in between was dropped. */
int zp_store_next_change(zp_store *store, zp_bytes key, uint64_t after, uint64_t *revision) {
  assert(store->reading);
  uint64_t oldest, newest;
  int rc = zp_store_range(store, &oldest, &newest);
  if (rc) return rc;
  if (!store->namespace_id) { /* known after any read that met the namespace */
    zp_namespace found;
    rc = zp_namespace_find(store, store->reader->txn, &found);
    if (rc == 0) return after < oldest ? fail_lost(after, oldest) : 0;
    if (rc != 1) return zp_env_fail(store->env, rc, "cannot read");
    store->namespace_id = found.id;
  }
  rc = zp_vkey_make(&store->key, store->namespace_id, key);
  if (rc) return rc;
  zp_vkey_at(&store->key, after);
  MDB_cursor *cursor = store->reader->point;
  MDB_val at = {zp_vkey_size(&store->key), store->key.bytes}, value;
  rc = mdb_cursor_get(cursor, &at, &value, MDB_SET_RANGE);
  bool proven = after >= oldest || (!rc && zp_vkey_same(&store->key, at.mv_data, at.mv_size));
  if (!proven) return rc && rc != MDB_NOTFOUND ? zp_env_fail(store->env, rc, "cannot read") : fail_lost(after, oldest);
  if (rc == MDB_NOTFOUND) rc = mdb_cursor_get(cursor, &at, &value, MDB_LAST);
  else if (!rc) rc = mdb_cursor_get(cursor, &at, &value, MDB_PREV);
  if (rc == MDB_NOTFOUND) return 0;
  if (rc) return zp_env_fail(store->env, rc, "cannot read");
  if (!zp_vkey_same(&store->key, at.mv_data, at.mv_size)) return 0;
  *revision = zp_vkey_revision(at.mv_data, at.mv_size);
  return 1;
}

int zp_store_next_update(zp_store *store, uint64_t after, zp_log_record *record) {
  assert(store->reading);
  uint64_t oldest, newest;
  int rc = zp_store_range(store, &oldest, &newest);
  if (rc) return rc;
  for (uint64_t revision = after + 1; revision <= newest; revision++) {
    if (after < oldest) return fail_lost(after, oldest);
    rc = zp_store_log(store, revision, record);
    if (rc != 1) return rc;
    if (record->same_namespace) return 1;
  }
  return 0;
}
