/*
 * keep_copy -- copies of the data of a store that is in use: snapshots, and backups (keep.h). Internal to the store.
 */
#ifndef ZP_STORE_KEEP_COPY_H
#define ZP_STORE_KEEP_COPY_H

/* A snapshot that is being taken, or what is left of one whose process was killed: a file in the data directory. */
#define ZP_KEEP_FRESH "snapshot.new"

/* Hold what becomes of snapshot.new: it is not a matter of two servers at the same time. Given up by zp_dirlock_release. */
int zp_keep_lock_snapshots(const char *directory, int *lock);

/* A state that is kept by snapshots has one from the beginning, of what it begins with: take it, and let the runtime directory say where
   the others go. */
int zp_keep_begin_snapshots(const char *directory, const char *runtime);

#endif
