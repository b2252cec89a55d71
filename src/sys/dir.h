/*
 * dir -- private directories for stores: made on a tmpfs, owned by a process, gone when nobody needs them.
 *
 * A runtime directory has mode 0700 and a name of its own, <root>/zproc-<uid>-<random>. <root> is $ZPROC_RUNTIME_DIR if that is
 * set, and then no other; else the first that is writable of /dev/shm, $XDG_RUNTIME_DIR, $TMPDIR and /tmp. Its maker holds an
 * exclusive flock on the file `owner` within; children inherit that lock with the open file, so the directory counts as in
 * use as long as any process of the tree lives. zp_dir_sweep removes those of this user whose lock nobody holds: what was
 * left by a process that was killed.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SYS_DIR_H
#define ZP_SYS_DIR_H

typedef struct zp_dir zp_dir;

/* Make a runtime directory and own it. */
int zp_dir_create(zp_dir **dir);

const char *zp_dir_path(const zp_dir *dir);

/* Remove the directory and everything in it, if this is the process that made it; in any case free the handle and null
   it. May be called twice. */
void zp_dir_remove(zp_dir **dir);

/* Free the handle and null it, leaving the directory to the processes that inherited it, or to a sweep. May be called
   twice. */
void zp_dir_release(zp_dir **dir);

/* Remove abandoned runtime directories of this user below the root; returns how many. A directory that is just being made,
   one that a live process owns, or one of another user is left alone. */
int zp_dir_sweep(void);

#endif
