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

#endif
