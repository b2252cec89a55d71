/*
 * read -- gets, walks and the log within a read transaction, at the newest revision or at one of the past.
 */
#include <assert.h>
#include <stdatomic.h>
#include <string.h>

#include "base/err.h"
#include "store/handle.h"
#include "store/room.h"

/* ---- begin and end ---- */

/* A first read takes a slot in LMDB's table, whose mutex can lose a wake-up when a waiter is killed (see lock_writer in
   store.c), and is then waited for without end. Under the size lock nobody ever has to wait for it. */
static int begin_txn(zp_env *env, MDB_txn **txn) {
  int rc = zp_env_lock_size(env);
  if (rc) return rc;
  rc = mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, txn);
  if (rc == MDB_READERS_FULL) {
    mdb_reader_check(env->mdb, NULL); /* the dead leave their slots behind */
    rc = mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, txn);
  }
  zp_env_unlock_size(env);
  return rc;
}

static inline void full_fence(void) {
#ifndef __SANITIZE_THREAD__ /* which does not know of fences, and nothing of LMDB */
  atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Whether readers still go by the number that this one has read: another reader, which begins now, is told it. 1, 0, or an error. */
static int is_still_announced(zp_env *env, const MDB_txn *txn) {
  MDB_txn *other;
  int rc = begin_txn(env, &other);
  if (rc) return rc;
  int is_same = mdb_txn_id(other) == mdb_txn_id((MDB_txn *)txn);
  mdb_txn_abort(other);
  return is_same;
}

/* LMDB 0.9 takes a copy of the meta page without looking whether a writer, two commits later, has begun to overwrite it; the pages of such
   a torn copy may lie beyond its own end mark. If no commit has followed by now, none has. The fence: nor does LMDB see to
   it that writers see the number in this reader's slot before it goes on; if no commit has followed once they do, all that follow will
   leave this one's pages alone.
   A writer that died, or was stopped, between publishing its meta page and announcing its number makes it look for long as if a commit had followed.
   No other can begin before the number is announced; so if it is not, after the copy was taken, the copy is whole. To ask that takes a
   slot, so a while is spent on hoping. */
static int open_txn(zp_env *env, zp_reader *reader) {
  enum { HOPES = 64 };
  if (env->unmapped) return MDB_MAP_RESIZED;
  int rc = reader->txn ? mdb_txn_renew(reader->txn) : begin_txn(env, &reader->txn);
  for (int i = 0; !rc; i++) {
    MDB_envinfo info = {.me_mapsize = 0};
    full_fence();
    mdb_env_info(env->mdb, &info);
    reader->is_crowded = info.me_numreaders > ZP_STORE_READERS / 4 * 3;
    if (info.me_last_txnid == mdb_txn_id(reader->txn)) return 0;
    int is_whole = i < HOPES ? 0 : is_still_announced(env, reader->txn);
    if (is_whole == 1) return 0;
    mdb_txn_reset(reader->txn);
    rc = is_whole ? is_whole : mdb_txn_renew(reader->txn);
  }
  return rc;
}

static void end_txn(zp_reader *reader) {
  if (reader->is_crowded) zp_env_empty_reader(reader);
  else mdb_txn_reset(reader->txn);
}

/* The end of a read or of an attempt at one, which had got so far that the section was entered. */
static void drop_reader(zp_store *store) {
  zp_reader *reader = store->reader;
  zp_env_leave(&reader->section);
  zp_env_give_reader(store->env, reader);
}

int zp_store_read_begin(zp_store *store) {
  int rc = zp_store_wake(store);
  if (rc) return rc;
  assert(!store->reading);
  zp_env *env = store->env;
  zp_reader *reader;
  for (;;) {
    rc = zp_env_take_reader(env, &store->reader);
    if (rc) return rc;
    reader = store->reader;
    zp_env_enter(env, &reader->section);
    rc = open_txn(env, reader);
    if (!rc) break;
    drop_reader(store);
    if (rc != MDB_MAP_RESIZED) return zp_env_fail(env, rc, "cannot read");
    rc = zp_room_remap(env);
    if (rc) return rc;
  }
  rc = reader->point ? mdb_cursor_renew(reader->txn, reader->point)
                     : mdb_cursor_open(reader->txn, env->versions, &reader->point);
  /* Made here, where it can fail: zp_store_read_revision cannot say that there was no memory for it. */
  if (!rc && !reader->log) rc = mdb_cursor_open(reader->txn, env->log, &reader->log);
  if (rc) {
    end_txn(reader);
    drop_reader(store);
    return zp_env_fail(env, rc, "cannot read");
  }
  store->at = ZP_NEWEST;
  store->revision_known = false;
  store->walking = false;
  store->reading = true;
  return 0;
}

void zp_store_read_end(zp_store *store) {
  if (!store->reading || store->generation != zp_env_generation) return;
  store->reading = false;
  end_txn(store->reader);
  drop_reader(store);
}

/* A cursor of this read on the log; 0 or a code of LMDB. */
static int log_cursor(zp_store *store, MDB_cursor **cursor) {
  zp_reader *reader = store->reader;
  int rc = reader->log ? mdb_cursor_renew(reader->txn, reader->log)
                       : mdb_cursor_open(reader->txn, store->env->log, &reader->log);
  *cursor = reader->log;
  return rc;
}

int zp_store_read_begin_at(zp_store *store, uint64_t revision) {
  int rc = zp_store_read_begin(store);
  if (rc) return rc;
  uint64_t oldest = 0, newest = 0;
  rc = zp_store_range(store, &oldest, &newest);
  if (!rc && revision > newest)
    rc = zp_fail(ZP_EHISTORY, "revision %llu is yet to come; the newest is %llu", (unsigned long long)revision,
                 (unsigned long long)newest);
  if (!rc && revision < oldest)
    rc = zp_fail(ZP_EHISTORY, "revision %llu is not kept any more; the oldest is %llu", (unsigned long long)revision,
                 (unsigned long long)oldest);
  if (rc) {
    zp_store_read_end(store);
    return rc;
  }
  store->revision = revision;
  store->revision_known = true;
  if (revision < newest) store->at = revision;
  return 0;
}

uint64_t zp_store_read_revision(const zp_store *constant) {
  assert(constant->reading);
  zp_store *store = (zp_store *)constant; /* made by calloc; what is filled in is a cache */
  if (!store->revision_known) {
    MDB_cursor *log;
    MDB_val key, value;
    int rc = log_cursor(store, &log);
    if (!rc) rc = mdb_cursor_get(log, &key, &value, MDB_LAST);
    store->revision = rc ? 0 : zp_get_be64(key.mv_data);
    store->revision_known = true;
  }
  return store->revision;
}

/* ---- namespaces ---- */

int zp_namespace_find(zp_store *store, MDB_txn *txn, zp_namespace *found) {
  MDB_val key = {strlen(store->name), store->name}, value;
  int rc = mdb_get(txn, store->env->namespaces, &key, &value);
  if (rc == MDB_NOTFOUND) return 0;
  if (rc) return rc;
  if (value.mv_size != sizeof *found) return MDB_CORRUPTED;
  memcpy(found, value.mv_data, sizeof *found);
  return 1;
}

/* Within a read: 1 if the namespace is there (as of the newest revision; whether it had been made at an older one makes no
   difference, for then it has no versions), 0, or an error. */
static int find_id(zp_store *store) {
  assert(store->reading);
  if (store->namespace_id) return 1;
  zp_namespace found;
  int rc = zp_namespace_find(store, store->reader->txn, &found);
  if (rc == 1) store->namespace_id = found.id;
  return rc == 1 || rc == 0 ? rc : zp_env_fail(store->env, rc, "cannot read");
}

int zp_store_count(zp_store *store, uint64_t *count) {
  assert(store->reading);
  *count = 0;
  if (store->at == ZP_NEWEST) {
    zp_namespace found;
    int rc = zp_namespace_find(store, store->reader->txn, &found);
    if (rc == 1) *count = found.count;
    return rc == 1 ? 0 : zp_env_fail(store->env, rc, "cannot count");
  }
  zp_bytes key, value;
  int rc = zp_store_first(store, &key, &value);
  for (; rc == 1; rc = zp_store_next(store, &key, &value)) ++*count;
  return rc;
}

/* ---- gets ---- */

int zp_store_get(zp_store *store, zp_bytes key, zp_bytes *value) {
  int rc = find_id(store);
  if (rc != 1) {
    int bad = zp_vkey_check(key);
    return bad ? bad : rc;
  }
  rc = zp_vkey_make(&store->key, store->namespace_id, key);
  if (rc) return rc;
  zp_vkey_at(&store->key, store->at);
  MDB_val at = {zp_vkey_size(&store->key), store->key.bytes}, found;
  rc = mdb_cursor_get(store->reader->point, &at, &found, MDB_SET_RANGE);
  if (rc == MDB_NOTFOUND) return 0;
  if (rc) return zp_env_fail(store->env, rc, "cannot read");
  if (found.mv_size == 0 || !zp_vkey_same(&store->key, at.mv_data, at.mv_size)) return 0;
  *value = (zp_bytes){found.mv_data, found.mv_size};
  return 1;
}

/* ---- walks ----
   The walk cursor stands on some version; `walk` holds the key it belongs to. A key may have any number of versions: from
   one key to the next it is one step if the key has one version, else one search. */

static int open_walk(zp_store *store) {
  zp_reader *reader = store->reader;
  store->walking = false;
  int rc = find_id(store);
  if (rc != 1) return rc;
  rc = reader->walk ? mdb_cursor_renew(reader->txn, reader->walk)
                    : mdb_cursor_open(reader->txn, store->env->versions, &reader->walk);
  return rc ? zp_env_fail(store->env, rc, "cannot read") : 1;
}

static int hand_out(zp_store *store, const MDB_val *value, zp_bytes *key_out, zp_bytes *value_out) {
  const unsigned char *escaped = store->walk.bytes + ZP_VKEY_NAMESPACE;
  size_t size = store->walk.prefix - ZP_VKEY_NAMESPACE - ZP_VKEY_END;
  *value_out = (zp_bytes){value->mv_data, value->mv_size};
  *key_out = (zp_bytes){escaped, size};
  if (memchr(escaped, 0, size)) {
    zp_buf_clear(&store->walk_key, ZP_VKEY_MAX);
    int rc = zp_buf_reserve(&store->walk_key, ZP_VKEY_MAX);
    if (rc) return rc;
    *key_out = (zp_bytes){store->walk_key.data, zp_vkey_unescape(escaped, size, store->walk_key.data)};
  }
  store->walking = true;
  return 1;
}

/* Is this a version of a key of the handle's namespace? Then note the key. */
static bool note_key(zp_store *store, const MDB_val *at) {
  const unsigned char *bytes = at->mv_data;
  if (at->mv_size < ZP_VKEY_NAMESPACE + ZP_VKEY_END + ZP_VKEY_REVISION || at->mv_size > ZP_VKEY_MAX) return false;
  if (zp_get_be32(bytes) != store->namespace_id) return false;
  store->walk.prefix = at->mv_size - ZP_VKEY_REVISION;
  memcpy(store->walk.bytes, bytes, store->walk.prefix);
  return true;
}

/* From the cursor's place, the newest version of a key (or any version: with `rc`, the result of the step that led
   there), find the first key that is live at the revision of the read. */
static int settle(zp_store *store, int rc, MDB_val *at, MDB_val *value, zp_bytes *key_out, zp_bytes *value_out) {
  MDB_cursor *cursor = store->reader->walk;
  for (;;) {
    if (rc == MDB_NOTFOUND || (!rc && !note_key(store, at))) return 0;
    if (rc) return zp_env_fail(store->env, rc, "cannot read");
    if (zp_vkey_revision(at->mv_data, at->mv_size) > store->at) {
      zp_vkey_at(&store->walk, store->at);
      *at = (MDB_val){zp_vkey_size(&store->walk), store->walk.bytes};
      rc = mdb_cursor_get(cursor, at, value, MDB_SET_RANGE);
      if (rc || !zp_vkey_same(&store->walk, at->mv_data, at->mv_size)) continue; /* made later: on to the next key */
    }
    if (value->mv_size > 0) return hand_out(store, value, key_out, value_out);
    /* Deleted: past its older versions. */
    zp_vkey_at(&store->walk, 0);
    *at = (MDB_val){zp_vkey_size(&store->walk), store->walk.bytes};
    rc = mdb_cursor_get(cursor, at, value, MDB_SET_RANGE);
  }
}

int zp_store_first(zp_store *store, zp_bytes *key, zp_bytes *value) {
  int rc = open_walk(store);
  if (rc != 1) return rc;
  unsigned char start[ZP_VKEY_NAMESPACE];
  zp_put_be32(start, store->namespace_id);
  MDB_val at = {sizeof start, start}, found;
  rc = mdb_cursor_get(store->reader->walk, &at, &found, MDB_SET_RANGE);
  return settle(store, rc, &at, &found, key, value);
}

int zp_store_seek(zp_store *store, zp_bytes from, zp_bytes *key, zp_bytes *value) {
  int rc = open_walk(store);
  if (rc != 1) return rc;
  rc = zp_vkey_make(&store->walk, store->namespace_id, from);
  if (rc) return rc;
  zp_vkey_at(&store->walk, ZP_NEWEST);
  MDB_val at = {zp_vkey_size(&store->walk), store->walk.bytes}, found;
  rc = mdb_cursor_get(store->reader->walk, &at, &found, MDB_SET_RANGE);
  return settle(store, rc, &at, &found, key, value);
}

int zp_store_next(zp_store *store, zp_bytes *key, zp_bytes *value) {
  assert(store->reading);
  if (!store->walking) return 0;
  store->walking = false;
  MDB_val at, found;
  int rc = mdb_cursor_get(store->reader->walk, &at, &found, MDB_NEXT);
  if (!rc && zp_vkey_same(&store->walk, at.mv_data, at.mv_size)) {
    zp_vkey_at(&store->walk, 0);
    at = (MDB_val){zp_vkey_size(&store->walk), store->walk.bytes};
    rc = mdb_cursor_get(store->reader->walk, &at, &found, MDB_SET_RANGE);
  }
  return settle(store, rc, &at, &found, key, value);
}

int zp_store_last(zp_store *store, zp_bytes *key, zp_bytes *value) {
  int rc = open_walk(store);
  if (rc != 1) return rc;
  MDB_cursor *cursor = store->reader->walk;
  unsigned char end[ZP_VKEY_NAMESPACE];
  zp_put_be32(end, store->namespace_id + 1);
  MDB_val at = {sizeof end, end}, found;
  rc = mdb_cursor_get(cursor, &at, &found, MDB_SET_RANGE);
  for (;;) {
    /* The cursor stands behind the last key that is still in question. */
    rc = mdb_cursor_get(cursor, &at, &found, rc == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
    if (rc == MDB_NOTFOUND || (!rc && !note_key(store, &at))) return 0;
    if (!rc) {
      zp_vkey_at(&store->walk, store->at);
      at = (MDB_val){zp_vkey_size(&store->walk), store->walk.bytes};
      rc = mdb_cursor_get(cursor, &at, &found, MDB_SET_RANGE);
      if (!rc && found.mv_size > 0 && zp_vkey_same(&store->walk, at.mv_data, at.mv_size))
        return hand_out(store, &found, key, value);
    }
    if (!rc || rc == MDB_NOTFOUND) {
      /* Not live at this revision: go to its newest version, which the key before it precedes. */
      zp_vkey_at(&store->walk, ZP_NEWEST);
      at = (MDB_val){zp_vkey_size(&store->walk), store->walk.bytes};
      rc = mdb_cursor_get(cursor, &at, &found, MDB_SET_RANGE);
    }
    if (rc) return zp_env_fail(store->env, rc, "cannot read");
  }
}

/* ---- the log ---- */

static int head_of(const MDB_val *value, zp_log_head *head) {
  if (value->mv_size < sizeof *head) return MDB_CORRUPTED;
  memcpy(head, value->mv_data, sizeof *head);
  return 0;
}

int zp_log_span_find(MDB_cursor *log, zp_log_span *span) {
  *span = (zp_log_span){0};
  MDB_val key, value;
  zp_log_head head;
  int rc = mdb_cursor_get(log, &key, &value, MDB_FIRST);
  if (rc == MDB_NOTFOUND) return 0;
  if (!rc && zp_get_be64(key.mv_data) == 0) {
    if (value.mv_size != sizeof span->cleaned) return MDB_CORRUPTED;
    memcpy(&span->cleaned, value.mv_data, sizeof span->cleaned);
    span->cleaning = true;
    rc = mdb_cursor_get(log, &key, &value, MDB_NEXT);
  }
  if (!rc) rc = head_of(&value, &head);
  if (rc) return rc;
  span->first = zp_get_be64(key.mv_data);
  span->first_total = head.total;
  rc = mdb_cursor_get(log, &key, &value, MDB_LAST);
  if (!rc) rc = head_of(&value, &head);
  if (rc) return rc;
  span->newest = zp_get_be64(key.mv_data);
  span->newest_total = head.total;
  span->oldest = span->cleaning ? span->first + 1 : span->first == 1 ? 0 : span->first;
  return 0;
}

int zp_store_range(zp_store *store, uint64_t *oldest, uint64_t *newest) {
  assert(store->reading);
  MDB_cursor *log;
  zp_log_span span;
  int rc = log_cursor(store, &log);
  if (!rc) rc = zp_log_span_find(log, &span);
  if (rc) return zp_env_fail(store->env, rc, "cannot read");
  *oldest = span.oldest;
  *newest = span.newest;
  return 0;
}

int zp_store_log(zp_store *store, uint64_t revision, zp_log_record *record) {
  assert(store->reading);
  MDB_cursor *log;
  zp_log_head head;
  unsigned char bytes[8];
  zp_put_be64(bytes, revision);
  MDB_val key = {sizeof bytes, bytes}, value;
  int rc = log_cursor(store, &log);
  if (!rc) rc = revision == 0 ? MDB_NOTFOUND : mdb_cursor_get(log, &key, &value, MDB_SET);
  if (rc == MDB_NOTFOUND) {
    if (revision > zp_store_read_revision(store)) return 0;
    return zp_fail(ZP_EHISTORY, "the record of revision %llu is not kept any more", (unsigned long long)revision);
  }
  if (!rc) rc = head_of(&value, &head);
  if (rc) return zp_env_fail(store->env, rc, "cannot read the log");
  rc = find_id(store);
  if (rc < 0) return rc;
  *record = (zp_log_record){
      .revision = revision,
      .author = head.author,
      .namespace_id = head.namespace_id,
      .same_namespace = head.namespace_id == store->namespace_id,
      .key_count = head.key_count,
      .keys = {(const char *)value.mv_data + sizeof head, value.mv_size - sizeof head},
  };
  return 1;
}

int zp_log_step(zp_bytes keys, size_t *offset, zp_bytes *key) {
  const unsigned char *bytes = keys.data;
  size_t size = 0;
  unsigned shift = 0;
  while (*offset < keys.size && shift < 32) {
    unsigned char byte = bytes[(*offset)++];
    size |= (size_t)(byte & 0x7F) << shift;
    if (byte < 0x80) {
      if (size > keys.size - *offset) break;
      *key = (zp_bytes){bytes + *offset, size};
      *offset += size;
      return 1;
    }
    shift += 7;
  }
  *offset = keys.size;
  return 0;
}

int zp_log_key(const zp_log_record *record, size_t *offset, zp_bytes *key) {
  return zp_log_step(record->keys, offset, key);
}
