/* lmdb_mdb -- LMDB, from the source that scripts/lmdb has made. */
#include <mdb.c>

#ifndef MDB_ZPROC_ORDER
#error "this LMDB was not changed by scripts/lmdb: a writer that is killed could cost an update that was acknowledged"
#endif
