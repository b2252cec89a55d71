/*
 * trim -- giving up the oldest history: log records, and the versions that only they needed.
 *
 * Let f be the first record of the log. Revision f can be read as long as every version that was current at f is kept. To
 * give f up is to make f + 1 the oldest: for each key of record f + 1, the version before f + 1 goes, and the version at
 * f + 1 as well if it is a deletion (I1); then record f goes (I2: always the first one, never the last).
 *
 * A record may list any number of keys, and a transaction is to stay small. If the budget ends within a record, the log
 * holds under revision 0, which no record has, how far into its keys it is done; from then on f cannot be read.
 *
 * Internal to the store.
 */
#ifndef ZP_STORE_TRIM_H
#define ZP_STORE_TRIM_H

#include "store/handle.h"

typedef struct zp_trim_goal {
  uint64_t keep_revisions;
  uint64_t keep_bytes;
  uint64_t budget; /* keys to look at, at most (a record counts as one more) */
} zp_trim_goal;

/* Within a write transaction under the writer lock: trim towards the goal. *more (may be NULL): it is not reached yet.
   0 or a code of LMDB or ours. */
int zp_trim(zp_env *env, MDB_txn *txn, const zp_trim_goal *goal, bool *more);

/* After the commit of `changed` keys: trim as the limits of the store want it, a bounded piece of work. */
int zp_trim_by_limits(zp_env *env, MDB_txn *txn, uint64_t changed);

/* Under the writer lock, outside of any section: give up half of the history in small transactions, for want of space.
   1 if something was given up, 0 if there was nothing, or an error. */
int zp_trim_half(zp_env *env);

/* Within a write transaction that has deleted keys of `revision` together with their only versions, the log being that
   record and the one before: drop the latter. 0 or a code of LMDB. */
int zp_trim_all_but(zp_env *env, MDB_txn *txn, uint64_t revision);

/* Under the writer lock, outside of any section: let two transactions pass, so that pages that were freed can be used.
   0 or an error. */
int zp_trim_pass_time(zp_env *env);

#endif
