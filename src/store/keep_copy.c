#include "store/keep_copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "store/files.h"
#include "store/handle.h"
#include "store/keep.h"
#include "store/snapshot.h"
#include "store/status.h"
#include "sys/dirlock.h"

/* The link in a runtime directory that leads to where snapshots go. */
static const char SNAPSHOTS[] = "snapshots";

int zp_keep_lock_snapshots(const char *directory, int *lock) {
  char path[PATH_MAX];
  int rc = zp_files_path(directory, "snapshot.lock", path);
  return rc ? rc : zp_dirlock_take_file(path, ZP_FOREVER, lock);
}

/* ---- snapshots ---- */

static bool find_snapshots(const char *runtime, char target[PATH_MAX]) {
  char link[PATH_MAX];
  if (zp_files_path(runtime, SNAPSHOTS, link)) return false;
  ssize_t size = readlink(link, target, PATH_MAX - 1);
  if (size <= 0) return false;
  target[size] = 0;
  return true;
}

bool zp_keep_wants_snapshots(const char *runtime) {
  char target[PATH_MAX];
  return find_snapshots(runtime, target);
}

/* The name of a snapshot that is being taken: the directory that it is in, and its path. */
static int name_fresh(const char *runtime, char directory[PATH_MAX], char fresh[PATH_MAX]) {
  if (!find_snapshots(runtime, directory)) return zp_fail(ZP_ENOSTORE, "no snapshots are taken of the state in %s", runtime);
  *strrchr(directory, '/') = 0;
  return zp_files_path(directory, ZP_KEEP_FRESH, fresh);
}

/* Into a file that is ours alone: whoever was here before us may still write to his, which has no name any more then. */
static int copy_data(zp_store *store, const char *directory, const char *path, int *fd) {
  int lock, rc = zp_keep_lock_snapshots(directory, &lock);
  if (rc) return rc;
  unlink(path);
  *fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  int number = errno;
  zp_dirlock_release(lock);
  errno = number;
  if (*fd < 0) return zp_fail_errno("cannot write %s", path);
  zp_snapshot snapshot;
  rc = zp_snapshot_copy(store, *fd, path, &snapshot);
  return rc ? rc : zp_snapshot_seal(*fd, path, &snapshot);
}

static bool is_file_of(const char *path, int fd) {
  struct stat named, opened;
  return stat(path, &named) == 0 && fstat(fd, &opened) == 0 && named.st_dev == opened.st_dev && named.st_ino == opened.st_ino;
}

/* The copy gets its name, or goes if it is none. A store that was retired meanwhile has a successor, to whom the names belong; and so does
   one whose server was started again, and has begun another snapshot. */
static int end_copy(zp_store *store, const char *directory, const char *fresh, int fd, int rc) {
  char target[PATH_MAX];
  int lock, failed = zp_keep_lock_snapshots(directory, &lock);
  if (failed) return failed;
  bool is_ours = fd >= 0 && is_file_of(fresh, fd);
  if (atomic_load(&store->env->control->retired)) rc = zp_store_fail_retired(store);
  else if (!rc && !is_ours) rc = zp_fail(ZP_ENOSTORE, "another server takes snapshots of the state");
  else if (!rc) rc = zp_files_path(directory, "snapshot.mdb", target);
  else if (is_ours) unlink(fresh); /* what there was no room for takes none */
  if (!rc && rename(fresh, target) < 0) rc = zp_fail_errno("cannot replace %s", target);
  if (!rc) rc = zp_files_sync_directory(directory);
  zp_dirlock_release(lock);
  return rc;
}

/* The store, under whatever name: nothing of a namespace is read. A store is really opened by the first read. */
static int open_store(const char *runtime, zp_store **store, uint64_t *revision) {
  int rc = zp_store_open(runtime, "snapshots", store);
  if (!rc) rc = zp_store_read_begin(*store);
  if (rc) return rc;
  *revision = zp_store_read_revision(*store);
  zp_store_read_end(*store);
  return 0;
}

int zp_keep_revision(const char *runtime, uint64_t *revision) {
  zp_store *store = NULL;
  int rc = open_store(runtime, &store, revision);
  zp_store_close(&store);
  return rc;
}

int zp_keep_snapshot(const char *runtime) {
  char directory[PATH_MAX], fresh[PATH_MAX], data[PATH_MAX];
  zp_store *store = NULL;
  uint64_t revision;
  int fd = -1;
  int rc = name_fresh(runtime, directory, fresh);
  if (!rc) rc = zp_files_path(directory, "data.mdb", data);
  if (!rc && !zp_store_uses(runtime, data)) rc = zp_fail(ZP_ENOSTORE, "the data of the state in %s were moved or replaced", runtime);
  if (!rc) rc = open_store(runtime, &store, &revision);
  if (!rc) {
    rc = copy_data(store, directory, fresh, &fd);
    rc = end_copy(store, directory, fresh, fd, rc);
  }
  if (fd >= 0) close(fd);
  zp_store_close(&store);
  return rc;
}

int zp_keep_begin_snapshots(const char *directory, const char *runtime) {
  char target[PATH_MAX], link[PATH_MAX];
  int rc = zp_files_path(directory, "snapshot.mdb", target);
  if (!rc) rc = zp_files_path(runtime, SNAPSHOTS, link);
  if (!rc && symlink(target, link) < 0) rc = zp_fail_errno("cannot make %s", link);
  return rc ? rc : zp_keep_snapshot(runtime);
}

/* ---- backups ---- */

static int check_empty(const char *directory) {
  DIR *listing = opendir(directory);
  if (!listing) return zp_fail_errno("cannot use %s", directory);
  struct dirent *entry;
  int rc = 0;
  while (!rc && (entry = readdir(listing)))
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
      rc = zp_fail(ZP_ESYS, "a backup needs a directory of its own, and %s is not empty", directory);
  closedir(listing);
  return rc;
}

/* The directory, made if it is not there, and kept from servers by the lock of a data directory. */
static int take_target(const char *directory, char path[PATH_MAX], bool *is_made, int *lock) {
  char name[PATH_MAX];
  *is_made = mkdir(directory, 0700) == 0;
  if (!*is_made && errno != EEXIST) return zp_fail_errno("cannot make the directory %s", directory);
  if (!realpath(directory, path)) return zp_fail_errno("cannot use %s", directory);
  int rc = check_empty(path);
  if (!rc) rc = zp_files_path(path, "lock", name);
  if (rc) return rc;
  *lock = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (*lock < 0 || flock(*lock, LOCK_EX | LOCK_NB) < 0) return zp_fail_errno("cannot use %s", directory);
  return 0;
}

static int copy_to(zp_store *store, const char *path, zp_snapshot *snapshot) {
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return zp_fail_errno("cannot write %s", path);
  int rc = zp_snapshot_copy(store, fd, path, snapshot);
  close(fd);
  return rc;
}

/* The status comes last: without one it is no data directory. */
static int note_backup(const char *directory, const zp_snapshot *snapshot) {
  zp_status status = {.state = ZP_STATUS_BACKUP, .data = {.size = snapshot->size, .identity = snapshot->identity, .revision = snapshot->revision, .sum = snapshot->sum}};
  snprintf(status.sync, sizeof status.sync, "%s", zp_sync_names[ZP_SYNC_ALWAYS]);
  return zp_status_write(directory, &status);
}

/* What there is of a backup that failed. */
static void remove_backup(const char *path, bool is_made) {
  static const char *const names[] = {"status.new", "status", "data.mdb", "data.new", "lock"};
  char name[PATH_MAX];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (zp_files_path(path, names[i], name) == 0) unlink(name);
  if (is_made) rmdir(path);
}

int zp_keep_backup(const char *runtime, const char *directory, uint64_t *revision) {
  char path[PATH_MAX], data[PATH_MAX], parent[PATH_MAX];
  zp_store *store = NULL;
  zp_snapshot snapshot = {0};
  bool is_made = false;
  int lock = -1;
  int rc = open_store(runtime, &store, revision);
  if (!rc) rc = take_target(directory, path, &is_made, &lock);
  bool is_taken = !rc;
  if (!rc) rc = zp_files_path(path, "data.new", data);
  if (!rc) rc = copy_to(store, data, &snapshot);
  if (!rc) rc = zp_files_replace(path, data, "data.mdb");
  if (!rc) rc = note_backup(path, &snapshot);
  if (!rc) rc = zp_files_path(path, "..", parent);
  if (!rc) rc = zp_files_sync_directory(parent);
  *revision = snapshot.revision;
  if (rc && is_taken) remove_backup(path, is_made);
  else if (rc && is_made) rmdir(directory);
  if (lock >= 0) zp_dirlock_release(lock);
  zp_store_close(&store);
  return rc;
}
