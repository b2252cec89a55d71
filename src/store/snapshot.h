/*
 * snapshot -- a copy of the data of a store as they were at some revision, in a file that says whether it is whole.
 *
 * It is the pages of LMDB, as mdb_env_copyfd gives them, and behind them a trailer: how many bytes they are, of which state and revision, when
 * it was taken, and their sum. So a snapshot that was cut, changed or mixed up is known as such. LMDB takes no notice of the trailer.
 *
 * Internal to the store. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_STORE_SNAPSHOT_H
#define ZP_STORE_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

typedef struct zp_snapshot {
  uint64_t size; /* of the data */
  uint64_t identity, revision;
  double time; /* seconds since the epoch; 0: it does not say */
  uint64_t sum;
} zp_snapshot;

/* Look at all of a snapshot: 0 if it is whole. ZP_ENOSTORE: there is none; ZP_ESTORE: it is damaged. `is_old`: it may be of a program that wrote no
   trailer. */
int zp_snapshot_check(const char *path, bool is_old, zp_snapshot *snapshot);

/* Copy the data of an open store, as they are now, to an empty file that is open for reading and writing, let that reach the disk, and look at it. This takes
   as long as copying the data, during all of which this process cannot follow when the state grows. The path is for messages. */
int zp_snapshot_copy(zp_store *store, int fd, const char *path, zp_snapshot *snapshot);

/* Put the trailer behind such a copy, and let it reach the disk. */
int zp_snapshot_seal(int fd, const char *path, const zp_snapshot *snapshot);

/* Words for a person: "revision 7 of 2026-11-28 22:00:11". */
const char *zp_snapshot_words(const zp_snapshot *snapshot, char words[80]);

#endif
