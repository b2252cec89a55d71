/*
 * dir -- private directories for stores: made on a tmpfs, owned by a process, gone when nobody needs them.
 *
 * A runtime directory has mode 0700 and a name of its own, <root>/zproc-<uid>-<random>. <root> is $ZPROC_RUNTIME_DIR if that is
 * set, and then no other; else the first that is writable of /dev/shm, $XDG_RUNTIME_DIR, $TMPDIR and /tmp. Its maker holds an
 * exclusive flock on the file `owner` within; children inherit that lock with the open file, so the directory counts as in
 * use as long as any process of the tree lives. zp_dir_sweep removes those of this user whose lock nobody holds: what was
 * left by a process that was killed. Others can put what they like into a root that is shared: only what is found to be this user's when
 * it is open is used or removed (trust.h), and a root of another user is none.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SYS_DIR_H
#define ZP_SYS_DIR_H

#include <stdbool.h>

typedef struct zp_dir zp_dir;

/* Choose where a runtime directory is to be, without making it: so somebody can be told who will clean it up should this process die
   right after. */
int zp_dir_plan(zp_dir **dir);

/* Make it, and own it. On an error nothing is left of it but the handle. */
int zp_dir_make(zp_dir *dir);

/* Both. */
int zp_dir_create(zp_dir **dir);

const char *zp_dir_path(const zp_dir *dir);

/* Remove the directory and everything in it, if this is the process that made it; in any case free the handle and null
   it. May be called twice. */
void zp_dir_remove(zp_dir **dir);

/* Free the handle and null it, leaving the directory to the processes that inherited it, or to a sweep. May be called
   twice. */
void zp_dir_release(zp_dir **dir);

/* Become the owner of a runtime directory that nobody owns any more, as if this process had made it: 1 and the handle; 0 if it is in
   use, is gone, or is no directory of this user. Its maker must have died: what he had just begun to make, or had nearly removed,
   counts as well. */
int zp_dir_adopt(const char *path, zp_dir **dir);

/* Whether nobody owns the runtime directory at path any more. */
bool zp_dir_is_abandoned(const char *path);

/* Remove abandoned runtime directories of this user below the root; returns how many. A directory that is just being made,
   one that a live process owns, or one of another user is left alone. `farewell` (may be NULL) is called with the path of each
   before. */
int zp_dir_sweep(void (*farewell)(const char *path));

#endif
