/*
 * room -- where the bytes of the store are had from: remapping, growing the file, counting what is free.
 *
 * Internal to the store.
 */
#ifndef ZP_STORE_ROOM_H
#define ZP_STORE_ROOM_H

#include "store/env.h"

/* Map the file at the size that it has now, after another process has grown it. Not within a section: ZP_EATOMIC. */
int zp_room_remap(zp_env *env);

/* Make the map larger by `pages` or more if possible, else by what can be had. Under the writer lock, outside of any
   section. 0 if it has grown, ZP_EFULL if it has not. */
int zp_room_grow(zp_env *env, size_t pages);

/* Within a section: pages behind the last one that was ever used. */
size_t zp_room_tail(zp_env *env);

/* Pages on the free list, including those that a reader or the very last commits still hold back. LMDB shows the list
   to read transactions only. 0 or a code of LMDB. */
int zp_room_free(MDB_txn *txn, size_t *pages);

#endif
