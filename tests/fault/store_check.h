/*
 * store_check -- walk the trees of a store that nobody has open at the moment, and verify what store.h promises.
 *
 * It reads the trees by LMDB alone, with the layout written down here once more, so that a mistake of the store is not
 * repeated by its checker. Returns NULL, or a sentence about the first thing that is wrong.
 */
#ifndef ZP_TESTS_STORE_CHECK_H
#define ZP_TESTS_STORE_CHECK_H

#include <lmdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

typedef struct checked_record {
  uint32_t namespace_id, key_count, versions;
} checked_record;

typedef struct checked_log {
  uint64_t first, newest;
  int cleaning;
  checked_record *records; /* [revision - first] */
} checked_log;

static const char *check_says(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *check_says(const char *format, ...) {
  static char sentence[512];
  va_list args;
  va_start(args, format);
  vsnprintf(sentence, sizeof sentence, format, args);
  va_end(args);
  return sentence;
}

/* I2, and running totals that rise. */
static const char *check_log(MDB_txn *txn, MDB_dbi tree, checked_log *log) {
  MDB_cursor *cursor;
  MDB_val key, value;
  MDB_stat stat;
  if (mdb_stat(txn, tree, &stat) || mdb_cursor_open(txn, tree, &cursor)) return "cannot read the log";
  log->records = calloc(stat.ms_entries + 1, sizeof *log->records);
  uint64_t total = 0;
  const char *wrong = NULL;
  int rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
  for (; !rc && !wrong; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
    if (key.mv_size != 8) {
      wrong = "a log key is not 8 bytes long";
      break;
    }
    uint64_t revision = zp_get_be64(key.mv_data);
    if (revision == 0) {
      log->cleaning = 1;
      continue;
    }
    struct {
      uint64_t author, total;
      uint32_t namespace_id, key_count;
    } head;
    if (value.mv_size < sizeof head) {
      wrong = check_says("record %llu is cut short", (unsigned long long)revision);
      break;
    }
    memcpy(&head, value.mv_data, sizeof head);
    if (log->first == 0) log->first = revision;
    else if (revision != log->newest + 1)
      wrong = check_says("record %llu follows %llu", (unsigned long long)revision, (unsigned long long)log->newest);
    else if (head.total <= total) wrong = check_says("the total falls at %llu", (unsigned long long)revision);
    if (head.author == 0) wrong = "an author is 0";
    total = head.total;
    log->newest = revision;
    if (!wrong) log->records[revision - log->first] = (checked_record){head.namespace_id, head.key_count, 0};
  }
  mdb_cursor_close(cursor);
  return wrong;
}

/* I1, and each version has its place in the log. `live` counts the live keys of each namespace. */
static const char *check_versions(MDB_txn *txn, MDB_dbi tree, checked_log *log, uint64_t *live, size_t namespaces) {
  MDB_cursor *cursor;
  MDB_val key, value;
  unsigned char last[512];
  size_t last_prefix = 0;
  uint64_t last_revision = 0;
  unsigned below = 0; /* versions of the present key that are not younger than the first record */
  int deleted = 0;
  const char *wrong = NULL;
  if (mdb_cursor_open(txn, tree, &cursor)) return "cannot read the versions";
  int rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
  for (; !rc; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
    if (key.mv_size < 14) {
      wrong = "a version's key is too short";
      break;
    }
    const unsigned char *bytes = key.mv_data;
    size_t prefix = key.mv_size - 8;
    uint64_t revision = ~zp_get_be64(bytes + prefix);
    uint32_t id = zp_get_be32(bytes);
    int same = prefix == last_prefix && memcmp(bytes, last, prefix) == 0;
    if (!same && deleted) {
      wrong = "a key's oldest version is a deletion";
      break;
    }
    if (id == 0 || id > namespaces) {
      wrong = check_says("there is no namespace %u", id);
      break;
    }
    if (!same) {
      below = 0;
      if (value.mv_size > 0) live[id]++;
    } else if (revision >= last_revision) {
      wrong = "versions are not newest first";
      break;
    } else if (deleted && value.mv_size == 0) {
      wrong = "a deletion follows a deletion";
      break;
    }
    if (revision > log->newest) {
      wrong = check_says("a version of revision %llu, but the log ends at %llu", (unsigned long long)revision,
                         (unsigned long long)log->newest);
      break;
    }
    if (revision <= log->first) below++;
    if (below > 1) {
      wrong = "a version that no kept revision needs";
      break;
    }
    if (revision >= log->first) {
      checked_record *record = &log->records[revision - log->first];
      record->versions++;
      if (record->namespace_id != id) {
        wrong = check_says("revision %llu changes two namespaces", (unsigned long long)revision);
        break;
      }
    }
    deleted = value.mv_size == 0;
    memcpy(last, bytes, prefix);
    last_prefix = prefix;
    last_revision = revision;
  }
  if (!wrong && deleted) wrong = "the last key's oldest version is a deletion";
  mdb_cursor_close(cursor);
  for (uint64_t r = log->first + 1 + (uint64_t)log->cleaning; !wrong && log->first && r <= log->newest; r++) {
    checked_record *record = &log->records[r - log->first];
    if (record->versions != record->key_count)
      wrong = check_says("revision %llu lists %u keys and has %u versions", (unsigned long long)r, record->key_count,
                         record->versions);
  }
  return wrong;
}

static const char *check_namespaces(MDB_txn *txn, MDB_dbi tree, const uint64_t *live) {
  MDB_cursor *cursor;
  MDB_val key, value;
  const char *wrong = NULL;
  if (mdb_cursor_open(txn, tree, &cursor)) return "cannot read the namespaces";
  int rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
  for (; !rc && !wrong; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
    uint32_t id;
    uint64_t count;
    memcpy(&id, value.mv_data, sizeof id);
    memcpy(&count, (const char *)value.mv_data + 8, sizeof count);
    if (live[id] != count)
      wrong = check_says("namespace %.*s counts %llu keys and has %llu", (int)key.mv_size, (const char *)key.mv_data,
                         (unsigned long long)count, (unsigned long long)live[id]);
  }
  mdb_cursor_close(cursor);
  return wrong;
}

/* A process of its own is not needed, but this one must not have the store open. */
static const char *check_store(const char *directory) {
  MDB_env *env;
  MDB_txn *txn = NULL;
  MDB_dbi namespaces, versions, log_tree;
  MDB_stat stat;
  checked_log log = {0};
  const char *wrong = NULL;
  uint64_t *live = NULL;
  int rc = mdb_env_create(&env);
  if (!rc) rc = mdb_env_set_maxdbs(env, 3);
  if (!rc) rc = mdb_env_open(env, directory, MDB_RDONLY | MDB_NOLOCK, 0600);
  if (!rc) rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
  if (!rc) rc = mdb_dbi_open(txn, "namespaces", 0, &namespaces);
  if (!rc) rc = mdb_dbi_open(txn, "versions", 0, &versions);
  if (!rc) rc = mdb_dbi_open(txn, "log", 0, &log_tree);
  if (!rc) rc = mdb_stat(txn, namespaces, &stat);
  if (rc) {
    wrong = check_says("cannot open %s: %s", directory, mdb_strerror(rc));
  } else {
    live = calloc(stat.ms_entries + 2, sizeof *live);
    wrong = check_log(txn, log_tree, &log);
    if (!wrong) wrong = check_versions(txn, versions, &log, live, stat.ms_entries);
    if (!wrong) wrong = check_namespaces(txn, namespaces, live);
  }
  if (txn) mdb_txn_abort(txn);
  mdb_env_close(env);
  free(live);
  free(log.records);
  return wrong;
}

#endif
