/* lmdb_midl -- the lists of pages of LMDB; see lmdb_mdb.c. */
#include <midl.c>
