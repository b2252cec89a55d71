/*
 * files -- files of a data directory (keep.h) that reach the disk, and take the place of others, as a whole. Internal to the store.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_STORE_FILES_H
#define ZP_STORE_FILES_H

#include <limits.h>
#include <stdint.h>

/* <directory>/<name>. */
int zp_files_path(const char *directory, const char *name, char out[PATH_MAX]);

/* When a file was made, in nanoseconds; 0: the file system does not say. Numbers of files are used again, so a file that has taken the place of another is
   told by this. As for statx, `at` is a directory, or the file itself with an empty path. */
uint64_t zp_files_birth(int at, const char *path);

/* Let a file, and the names in a directory, reach the disk. */
int zp_files_sync(const char *path);
int zp_files_sync_directory(const char *directory);

/* Give a file that is complete another name in its directory, in the place of what has it, durably. */
int zp_files_replace(const char *directory, const char *from, const char *name);

/* Copy the first `size` bytes of an open file to a new one, replacing what is there, and let it reach the disk. `from` is for messages. *sum is that of
   the bytes. */
int zp_files_copy(int in, const char *from, uint64_t size, const char *to, uint64_t *sum);

#endif
