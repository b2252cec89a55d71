/*
 * store -- the shared state: a transactional, revisioned key-value store in a directory, over LMDB.
 *
 * Every local process opens the same directory and reads and writes the state itself; there is no server in between.
 * Keys and values are bytes: what they mean is the codec's business.
 *
 * Layout. Three LMDB trees:
 *   namespaces  name                          -> id, number of live keys
 *   versions    namespace id, key, ~revision  -> value (empty: deleted at that revision); newest version of a key first
 *   log         revision                      -> author, namespace, changed keys, running total of history bytes
 * Every commit adds one revision: its versions and its log record in one LMDB transaction. Revisions count 1, 2, 3, ...
 * over all namespaces of a store. The state as it was at any kept revision can be read; the oldest revisions are given
 * up (log records, and the versions that only they needed) past keep_revisions or keep_bytes, a few at a time.
 *
 * Invariants (each is kept where it is written, and tested):
 *   I1  For each key the first version is the current one; a key whose only version is a deletion has no version at all
 *       once that revision is the oldest kept.
 *   I2  log holds every revision from oldest to newest without a gap.
 *   I3  Every byte of data.mdb, lock.mdb and control that a process may touch through its mapping is allocated on the
 *       file system first. A full file system is ZP_EFULL from a call, never SIGBUS.
 *
 * Handles. A zp_store is one (directory, namespace) as seen by one Lua VM: it has an author number, which marks its own
 * commits in the log, and at most one read transaction. All handles of a process on one directory share one LMDB
 * environment. Opening touches no file: that happens at the first use, so a handle costs a child that never uses the
 * state nothing.
 *
 * Fork. A handle that was inherited by fork may be used at once: the first call in the child leaves the parent's
 * environment alone, opens its own, and takes a new author number. Reads and the lock of the parent are not inherited.
 *
 * Threads. A handle belongs to one thread. Different handles may be used by different threads. The map of the file is replaced
 * when it grows, which waits for the reads of the process's other threads to end. Reads of several handles of one thread
 * may nest, but while one is open, a call on another handle that has to replace the map answers ZP_EATOMIC.
 *
 * Errors: 0 or a ZP_E* code with zp_error_detail() set. Nothing here knows Lua; nothing raises.
 */
#ifndef ZP_STORE_STORE_H
#define ZP_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "store/holder.h"

typedef struct zp_store zp_store;

/* The directory of a further store may be this one within that of a store: the two are retired together. */
#define ZP_STORE_TASKS "tasks"

/* A key fits if its size, each zero byte counted twice, is at most this; else every call answers ZP_EKEY. An empty key is a key.
   (LMDB's limit is 511 with what is put around a key.) */
#define ZP_KEY_MAX 496

typedef struct zp_store_limits {
  uint64_t keep_revisions; /* how many revisions stay readable; 0: the default, 200,000 */
  uint64_t keep_bytes;     /* bytes of log and superseded values to keep; 0: the default, 64 MiB */
} zp_store_limits;

/* Make a new, empty store in the directory, which exists; what a creator left there that was killed is replaced. The limits are
   kept in the store and hold for every process. ZP_EFULL, ZP_ESYS, or ZP_ESTORE if there is a store already (with
   several creators at once, one succeeds). */
int zp_store_create(const char *directory, const zp_store_limits *limits);

/* Where the data of a store are, if not in its directory. */
typedef struct zp_store_place {
  const char *data_file; /* absolute; one that is there goes on to be used, at the revision that it has */
  bool is_synced;        /* each commit is on the disk before it counts as done */
  bool is_rolled_back;   /* they are not what they were: from here on it is another state */
} zp_store_place;

/* The same with data elsewhere. Everything else, locks and bells, is in the directory as ever, and does not outlive it. */
int zp_store_create_at(const char *directory, const zp_store_limits *limits, const zp_store_place *place);

/* The store of the directory is given up: from now on every call of every process on it answers ZP_ENOSTORE, and whoever waits
   is woken. For the one who is about to remove the directory. Where there is no store nothing happens. */
void zp_store_retire(const char *directory);

/* Whether the data of the store in the directory are this very file. */
bool zp_store_uses(const char *directory, const char *data_file);

/* Whether the store in the directory is one that this process must not use, since its processes are in another PID namespace. Where there
   is no store it is not. */
bool zp_store_is_elsewhere(const char *directory);

/* After zp_store_retire: wait until nobody writes to it any more; false if somebody still does at the deadline (zp_clock_now seconds). */
bool zp_store_await_writers(const char *directory, double deadline);

/* A new handle on (directory, name of a namespace). Touches no file. ZP_ENOMEM, or ZP_EKEY for an empty name or one
   longer than 255 bytes. */
int zp_store_open(const char *directory, const char *name, zp_store **store);

/* Open the files now, to learn whether there is a store, and it can be used: 0, ZP_ENOSTORE, ZP_EELSEWHERE, ... */
int zp_store_check(zp_store *store);

/* Close the handle, ending its read and its lock; the last handle of the process closes the environment. Nulls *store;
   may be called twice. In a forked child, what belongs to the parent is left alone. */
void zp_store_close(zp_store **store);

/* Whether each commit waits for the disk (zp_store_place). Within a read or the lock. */
bool zp_store_is_synced(const zp_store *store);

/* The number by which the state of all namespaces is known: drawn at random when it began, and the same with every server that it has. */
int zp_store_identity(zp_store *store, uint64_t *identity);

const char *zp_store_directory(const zp_store *store);
const char *zp_store_namespace(const zp_store *store);

/* The number that marks commits through this handle; unlike that of any other handle, never 0. */
uint64_t zp_store_author(zp_store *store);

/* Act for somebody who has such a number himself. */
void zp_store_set_author(zp_store *store, uint64_t author);

/* ---- reading ----
   Reads happen between begin and end, and see one revision. Keep them short: what they see cannot be reused meanwhile.
   Bytes handed out are borrowed until zp_store_read_end. A second begin without an end is a bug (asserted). */

/* Begin to read the newest revision. While another handle of this process holds the lock, see zp_store_lock. */
int zp_store_read_begin(zp_store *store);

/* Begin to read a revision of the past (0: before the first). ZP_EHISTORY if it is not kept any more, or is yet to come. */
int zp_store_read_begin_at(zp_store *store, uint64_t revision);

/* The same for a revision that may be given up meanwhile: for those who read piece by piece, with nothing held in between. ZP_EHISTORY only
   if the namespace, or one that shares its place in the tables of control, has changed since. */
int zp_store_read_begin_as_of(zp_store *store, uint64_t revision);

void zp_store_read_end(zp_store *store);

/* Within a read: the revision that it sees. */
uint64_t zp_store_read_revision(const zp_store *store);

/* Within a read: 1 and the value, 0 if the key is absent, or an error. */
int zp_store_get(zp_store *store, zp_bytes key, zp_bytes *value);

/* Within a read: the number of keys of the namespace. Constant cost at the newest revision, one walk for the past. */
int zp_store_count(zp_store *store, uint64_t *count);

/* Within a read: walk the live keys in byte order. zp_store_first goes to the first key, zp_store_next to the following
   one, zp_store_last to the last, zp_store_seek to the first one that is not before `from`: 1 and the pair, 0 at the end, or
   an error. `key` is unescaped into memory of the handle, borrowed until the next step. Superseded versions cost O(log n)
   per key, not O(versions). */
int zp_store_first(zp_store *store, zp_bytes *key, zp_bytes *value);
int zp_store_next(zp_store *store, zp_bytes *key, zp_bytes *value);
int zp_store_seek(zp_store *store, zp_bytes from, zp_bytes *key, zp_bytes *value);
int zp_store_last(zp_store *store, zp_bytes *key, zp_bytes *value);

/* ---- writing ---- */

typedef struct zp_change {
  zp_bytes key;
  zp_bytes value; /* data NULL: delete the key; a value has at least one byte */
} zp_change;

/* Commit the changes as one revision, all or nothing; of two changes of one key the later one counts. A revision is added
   even if nothing differs from before; its log record then lists no key. *revision (may be NULL) receives its number,
   *changed (may be NULL) how many keys differ. Takes the lock unless this handle holds it already. If the process dies
   at any instant, either all of it has happened or nothing. Not within a read of this handle, unless it holds the lock:
   then the read is ended first.
   ZP_EFULL after history was given up in vain: nothing has changed. Changes that only delete may use a reserve, and leave no
   history where there is no room for it, so that a full state can be emptied again. ZP_EKEY and ZP_EVALUE name no key: the caller knows. */
int zp_store_commit(zp_store *store, const zp_change *changes, size_t count, uint64_t *revision, size_t *changed);

/* Changes that are gone through several times, one after the other, and need not be in memory as such. Their keys ascend, byte by byte. */
typedef struct zp_changes {
  void (*begin)(struct zp_changes *self);
  bool (*next)(struct zp_changes *self, zp_change *change); /* borrowed until the next step; false at the end */
} zp_changes;

/* The same of such: it takes no memory for them. ZP_EVALUE if the keys do not ascend. */
int zp_store_commit_sorted(zp_store *store, zp_changes *changes, uint64_t *revision, size_t *changed);

/* Sort changes by their keys, in place; of several of one key the last one stays. *count is how many there are then. ZP_ENOMEM. */
int zp_changes_sort(zp_change *changes, size_t *count);

/* Become the only writer of the store, in all namespaces, until zp_store_unlock: what is read in between is still so at
   the commit. Ends a read of this handle. Waits for the present writer, if there is one and until a signal has come that this thread
   should take (ZP_EINTR, interrupt.h); one that died is no obstacle. ZP_EATOMIC if a handle of this thread holds the lock already (it
   would wait for itself). While a handle holds it, every other call on another handle of the same store by the same thread answers
   ZP_EATOMIC as well. */
int zp_store_lock(zp_store *store);
void zp_store_unlock(zp_store *store);

/* Until when zp_store_lock, and commits that take the lock, wait for it: zp_clock_now seconds, or ZP_FOREVER, as it is at first. After that they answer
   ZP_ETIMEOUT, and nothing has changed. */
void zp_store_set_lock_deadline(zp_store *store, double deadline);

/* What the lock is taken for the next time: an atomic function that begins there (holder.h). The source is copied. */
void zp_store_set_place(zp_store *store, const char source[ZP_HOLDER_SOURCE], unsigned line);

/* The same for those who must not wait: ZP_EBUSY if there is a writer at present. */
int zp_store_try_lock(zp_store *store);
bool zp_store_is_locked(const zp_store *store); /* by this handle */

/* ---- the past ---- */

typedef struct zp_log_record {
  uint64_t revision;
  uint64_t author;
  uint32_t namespace_id;
  bool same_namespace; /* it is a change of this handle's namespace */
  uint32_t key_count;  /* 0: the update left everything as it was */
  zp_bytes keys;       /* opaque; walk with zp_log_key */
} zp_log_record;

/* Within a read (at the newest revision): the record of a revision; 1, or 0 if there is none yet, or ZP_EHISTORY. */
int zp_store_log(zp_store *store, uint64_t revision, zp_log_record *record);

/* Step through the keys of a record: start with *offset = 0; 1 and the key, 0 at the end. */
int zp_log_key(const zp_log_record *record, size_t *offset, zp_bytes *key);

/* Within a read: the oldest and the newest revision that zp_store_read_begin_at accepts. */
int zp_store_range(zp_store *store, uint64_t *oldest, uint64_t *newest);

/* Within a read: see another revision from now on, up to the newest one of this read. ZP_EHISTORY if it is not kept. Bytes that
   were handed out stay valid. */
int zp_store_read_move(zp_store *store, uint64_t revision);

/* Within a read: the first revision after `after`, up to the newest one of this read, at which the key changed. 1 and the
   revision, 0 if there is none, ZP_EHISTORY if what is kept does not tell: it has changed since, and that is not kept any more; or it is
   absent now, and so long ago that other keys of the namespace that were deleted since are forgotten. Costs one search, however much
   else has happened. */
int zp_store_next_change(zp_store *store, zp_bytes key, uint64_t after, uint64_t *revision);

/* Within a read: the record of the first update of the namespace after `after`, even one that changed no key. 1, 0, or ZP_EHISTORY if
   there was one that is not kept any more. Walks over the updates of other namespaces in between. */
int zp_store_next_update(zp_store *store, uint64_t after, zp_log_record *record);

/* ---- waiting ----
   To wait for something without missing it: arm, look, and if it is not there, wait; then again from the beginning. An alarm
   may go off without a reason. However long one sleeps, looking from where one last looked tells what has happened since, if one
   comes in time after being woken. */

enum { ZP_ALARM_KEYS = 64 };

typedef struct zp_alarm {
  uint64_t tags[ZP_ALARM_KEYS + 1];
  uint32_t tickets[ZP_ALARM_KEYS + 1];
  size_t count;
  bool doubtful; /* a commit had begun and not been seen to end; set and cleared by the functions below */
  double patience; /* seconds until the next look while it is doubtful */
} zp_alarm;

#define ZP_ALARM_INIT {.count = 0}

/* Arm for changes of any of the keys, or, with count 0 or more than ZP_ALARM_KEYS, for any update of the namespace. Not within a
   read. 0 or an error. */
int zp_alarm_set(zp_store *store, zp_alarm *alarm, const zp_bytes *keys, size_t count);

/* Wait until it goes off (0), the deadline (ZP_ETIMEOUT), or a signal handler ran (ZP_EINTR). Gives up the slot of this process
   among the readers, of which there are few, while it sleeps. */
int zp_alarm_wait(zp_store *store, zp_alarm *alarm, double deadline);

/* ---- keeping house ---- */

typedef struct zp_store_info {
  uint64_t allocated_bytes; /* of the data file */
  uint64_t used_bytes;      /* of these, in use for data, history and LMDB's own pages */
  uint64_t history_bytes;   /* what counts against keep_bytes */
  uint64_t oldest, newest;  /* revisions */
  uint32_t readers;         /* reader slots in use */
  zp_store_limits limits;
} zp_store_info;

int zp_store_describe(zp_store *store, zp_store_info *info);

#endif
