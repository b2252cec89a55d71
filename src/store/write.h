/*
 * write -- a write transaction of LMDB, within a section. Internal to the store; under the writer lock.
 */
#ifndef ZP_STORE_WRITE_H
#define ZP_STORE_WRITE_H

#include "store/env.h"

/* Begin, remapping first if another process has grown the file. 0, a code of LMDB, or ours. */
int zp_write_begin(zp_env *env, zp_section *section, MDB_txn **txn);

/* Commit if rc is 0, else abort; leave the section. rc, or what the commit says. */
int zp_write_end(zp_section *section, MDB_txn *txn, int rc);

/* After the death of a writer: make all that he committed visible. To be done before the writer lock is made consistent, so that if
   this process dies as well, the next one is told again. 0, a code of LMDB, or ours. */
int zp_write_recover(zp_env *env);

#endif
