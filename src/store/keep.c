#include "store/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "store/check.h"
#include "store/files.h"
#include "store/handle.h"
#include "store/keep_copy.h"
#include "store/pages.h"
#include "store/snapshot.h"
#include "store/status.h"
#include "sys/dirlock.h"
#include "sys/trust.h"

enum { WRITER_SECONDS = 10, ASIDE_MAX = 100 };

struct zp_keep {
  pid_t owner;
  zp_sync sync;
  int lock_fd;
  bool is_rolled_back;     /* the data are not those of the last use, and were not used since */
  bool has_gone_back;      /* and that is since this handle was opened */
  bool is_in_use;          /* the store was made */
  zp_status_data known;    /* of the data that are there; all 0: there are none */
  char runtime[PATH_MAX];
  char path[PATH_MAX];
  char data[PATH_MAX], snapshot[PATH_MAX]; /* the files */
};

const char *const zp_sync_names[] = {[ZP_SYNC_NEVER] = "never", [ZP_SYNC_INTERVAL] = "interval", [ZP_SYNC_ALWAYS] = "always", NULL};

const char *const zp_restore_names[] = {
    [ZP_RESTORE_NOTHING] = "nothing", [ZP_RESTORE_DATA] = "data", [ZP_RESTORE_SNAPSHOT] = "snapshot", NULL};

/* ---- files ---- */

static bool is_there(const char *path) {
  struct stat status;
  return lstat(path, &status) == 0;
}

/* While nobody takes a snapshot: what is left of one takes no room. */
static void remove_fresh(const zp_keep *keep) {
  char path[PATH_MAX];
  if (zp_files_path(keep->path, ZP_KEEP_FRESH, path) == 0) unlink(path);
}

static int write_status(const zp_keep *keep, zp_status_state state, zp_sync sync) {
  zp_status status = {.state = state, .data = keep->known};
  if (state != ZP_STATUS_CLOSED) status.data.sum = 0;
  snprintf(status.sync, sizeof status.sync, "%s", zp_sync_names[sync]);
  snprintf(status.runtime, sizeof status.runtime, "%s", keep->runtime);
  return zp_status_write(keep->path, &status);
}

/* Note which file the data are in, and how large it is. */
static int know_file(zp_keep *keep) {
  struct stat status;
  if (stat(keep->data, &status) < 0) return zp_fail_errno("cannot read %s", keep->data);
  keep->known.size = (uint64_t)status.st_size;
  keep->known.inode = status.st_ino;
  keep->known.born = zp_files_birth(AT_FDCWD, keep->data);
  return 0;
}

/* The same for data that nobody uses any more, with their sum. */
static int know_sum(zp_keep *keep) {
  int fd = -1;
  zp_pages_head head;
  int rc = know_file(keep);
  if (!rc) rc = zp_check_open(keep->data, ZP_TRUST_PRIVATE, &fd);
  if (rc) return rc;
  rc = zp_pages_read_head(fd, &head);
  if (!rc) rc = zp_check_sum(fd, keep->data, head.used_bytes, &keep->known.sum);
  if (!rc) keep->known.size = head.used_bytes;
  close(fd);
  return rc;
}

/* ---- opening ---- */

static int take_lock(zp_keep *keep) {
  char path[PATH_MAX];
  int rc = zp_files_path(keep->path, "lock", path);
  if (rc) return rc;
  keep->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  if (keep->lock_fd < 0) return zp_fail_errno("cannot use the data directory %s: cannot open %s", keep->path, path);
  if (flock(keep->lock_fd, LOCK_EX | LOCK_NB) == 0) return 0;
  if (errno != EWOULDBLOCK) return zp_fail_errno("cannot lock %s", path);
  return zp_fail(ZP_ESYS, "the data directory %s is in use by another server, or by processes that it has left running", keep->path);
}

/* At once, whichever children have it too: nobody uses the data, or nobody does any more. */
static void give_lock(zp_keep *keep) {
  if (keep->lock_fd >= 0) zp_dirlock_release(keep->lock_fd);
  keep->lock_fd = -1;
}

/* Whoever is still about from the last use must not touch the data any more: unless this is a copy of what he uses. */
static int end_last_use(const zp_keep *keep, const zp_status *last) {
  if (!last->runtime[0] || last->state == ZP_STATUS_CLOSED || !zp_store_uses(last->runtime, keep->data)) return 0;
  int lock = -1;
  int rc = zp_keep_lock_snapshots(keep->path, &lock);
  if (rc) return rc;
  zp_store_retire(last->runtime);
  zp_dirlock_release(lock);
  if (zp_store_await_writers(last->runtime, zp_clock_now() + WRITER_SECONDS)) return 0;
  return zp_fail(ZP_ESYS, "a process is in the middle of a write to the state in %s and does not end (is it stopped?)", keep->path);
}

/* Whether the data were closed in order, whatever the machine has done since. */
static bool is_at_rest(const zp_status *last) { return last->state == ZP_STATUS_CLOSED || last->state == ZP_STATUS_BACKUP; }

static bool is_power_failure(const zp_status *last) {
  char boot[ZP_BOOT_SIZE];
  zp_env_read_boot(boot);
  return !is_at_rest(last) && strcmp(last->boot, boot) != 0;
}

/* Who can change the names in it can have any file of this user's taken for data. */
static int check_directory(const char *path) {
  int fd = -1;
  int rc = zp_trust_open_directory(path, ZP_TRUST_UNWRITABLE, &fd);
  if (!rc) close(fd);
  return rc ? zp_fail(rc == ZP_ENOSTORE ? ZP_ESYS : rc, "cannot use the data directory: %s", zp_error_detail()) : 0;
}

/* ---- what is there, held against what the status says ---- */

/* Walk the data, and note what they are: 0 if they are whole. */
static int walk_data(zp_keep *keep, zp_check *found) {
  int rc = zp_check_data(keep->data, found);
  if (!rc) rc = know_file(keep);
  keep->known.identity = found->identity;
  keep->known.revision = found->newest;
  return rc;
}

static int fail_contradiction(const zp_keep *keep, const char *what) {
  return zp_fail(ZP_ESTORE, "%s is not what was there at the last use: %s", keep->data, what);
}

static bool is_other_file(const zp_keep *keep, const zp_status_data *last) {
  return last->inode != keep->known.inode || (last->born && keep->known.born && last->born != keep->known.born);
}

/* A file that is not the one that was in use, or whose content is not that of the last use. Copies of what was in use are told by their file. */
static int compare_data(zp_keep *keep, const zp_status *last, const zp_check *found) {
  const zp_status_data *then = &last->data;
  char words[160];
  if (then->identity && found->identity != then->identity) return fail_contradiction(keep, "it is of another state");
  if (found->newest < then->revision) {
    snprintf(words, sizeof words, "it has revision %llu, and revision %llu was there before", (unsigned long long)found->newest,
             (unsigned long long)then->revision);
    return fail_contradiction(keep, words);
  }
  if (then->sum == 0 && then->inode && is_other_file(keep, then))
    return fail_contradiction(keep, "it is a copy of a file that was in use, and may be of several instants (zproc state ADDRESS backup makes one that is whole)");
  return 0;
}

static int check_data(zp_keep *keep, const zp_status *last) {
  const zp_status_data *then = &last->data;
  struct stat status;
  zp_check found;
  uint64_t sum;
  int fd = -1;
  int rc = zp_check_open(keep->data, ZP_TRUST_PRIVATE, &fd);
  if (rc) return rc;
  if (fstat(fd, &status) == 0 && (uint64_t)status.st_size < then->size)
    rc = zp_fail(ZP_ESTORE, "%s was cut: it has %llu bytes, and had %llu", keep->data, (unsigned long long)status.st_size, (unsigned long long)then->size);
  if (!rc && then->sum) {
    rc = zp_check_sum(fd, keep->data, then->size, &sum);
    if (!rc && sum != then->sum) rc = fail_contradiction(keep, "its sum is another");
  }
  close(fd);
  if (!rc) rc = walk_data(keep, &found);
  return rc ? rc : compare_data(keep, last, &found);
}

/* The snapshot, and whether it can be of the state: `last` may be NULL. */
static int check_snapshot(const zp_keep *keep, const zp_status *last, zp_snapshot *snapshot) {
  int rc = zp_snapshot_check(keep->snapshot, last && last->format == ZP_STATUS_OLD_FORMAT, snapshot);
  if (!rc && last && last->data.identity && snapshot->identity != last->data.identity)
    rc = zp_fail(ZP_ESTORE, "%s is not what was there at the last use: it is of another state", keep->snapshot);
  return rc;
}

/* Add to the detail of a failure what is left, and how to go on with it. */
static int say_what_is_left(zp_keep *keep, const zp_status *last) {
  char wrong[ZP_DETAIL_MAX], left[ZP_DETAIL_MAX], words[80];
  zp_snapshot snapshot;
  zp_check found;
  snprintf(wrong, sizeof wrong, "%s", zp_error_detail());
  int rc = check_snapshot(keep, last, &snapshot);
  if (rc == 0)
    snprintf(left, sizeof left, "restore = \"snapshot\" goes on from snapshot.mdb, which is whole: %s", zp_snapshot_words(&snapshot, words));
  else if (rc == ZP_ENOSTORE)
    snprintf(left, sizeof left, "there is no snapshot.mdb to go on from");
  else
    snprintf(left, sizeof left, "%s", zp_error_detail());
  zp_status_data before = keep->known;
  bool is_whole = walk_data(keep, &found) == 0;
  keep->known = before;
  if (is_whole)
    return zp_fail(ZP_ESTORE, "%s. Nothing was changed. %s; restore = \"data\" goes on with data.mdb as it is: revision %llu", wrong, left,
                   (unsigned long long)found.newest);
  if (rc) return zp_fail(ZP_ESTORE, "%s. Nothing was changed. %s. Put a copy that is whole in its place, or remove the directory to begin anew", wrong, left);
  return zp_fail(ZP_ESTORE, "%s. Nothing was changed. %s", wrong, left);
}

/* ---- restoring ---- */

/* Give the data another name, if they are there: nobody knows yet what they may be good for. */
static int set_data_aside(const zp_keep *keep) {
  char aside[PATH_MAX];
  if (!is_there(keep->data)) return 0;
  for (int i = 0; i < ASIDE_MAX; i++) {
    int size = i == 0 ? snprintf(aside, sizeof aside, "%s/data.damaged", keep->path) : snprintf(aside, sizeof aside, "%s/data.damaged.%d", keep->path, i);
    if (size >= (int)sizeof aside) break;
    if (renameat2(AT_FDCWD, keep->data, AT_FDCWD, aside, RENAME_NOREPLACE) == 0) return zp_files_sync_directory(keep->path);
    if (errno == EEXIST || is_there(aside)) continue;
    if (errno != EINVAL && errno != ENOSYS) return zp_fail_errno("cannot rename %s", keep->data);
    if (rename(keep->data, aside) < 0) return zp_fail_errno("cannot rename %s", keep->data); /* a file system without such renames */
    return zp_files_sync_directory(keep->path);
  }
  return zp_fail(ZP_ESYS, "cannot rename %s: there are too many files data.damaged", keep->data);
}

/* Put the snapshot, which was found whole, in the place of the data. Should this be killed in the middle, the status says that it is to be
   done again. */
static int go_back(zp_keep *keep, const zp_snapshot *snapshot, bool is_aside_kept) {
  char fresh[PATH_MAX];
  uint64_t sum = 0;
  int in = -1;
  keep->known = (zp_status_data){0};
  int rc = zp_files_path(keep->path, "data.new", fresh);
  if (!rc) rc = zp_check_open(keep->snapshot, ZP_TRUST_PRIVATE, &in);
  if (rc) return rc;
  rc = write_status(keep, ZP_STATUS_RESTORING, ZP_SYNC_ALWAYS);
  if (!rc) rc = zp_files_copy(in, keep->snapshot, snapshot->size, fresh, &sum);
  close(in);
  if (!rc && sum != snapshot->sum) rc = zp_fail(ZP_ESTORE, "%s changes while it is read", keep->snapshot);
  if (!rc && is_aside_kept) rc = set_data_aside(keep);
  if (!rc) rc = zp_files_replace(keep->path, fresh, "data.mdb");
  if (!rc) rc = know_file(keep);
  keep->known.revision = snapshot->revision;
  keep->is_rolled_back = keep->has_gone_back = true;
  return rc;
}

/* The machine went down while the data were in use: they are what they were where each commit was synced, else not to be trusted. */
static int recover(zp_keep *keep, const zp_status *last, zp_restore wish) {
  zp_snapshot snapshot;
  zp_check found;
  if (strcmp(last->sync, zp_sync_names[ZP_SYNC_ALWAYS]) == 0) {
    int rc = check_data(keep, last);
    return rc == ZP_ESTORE || rc == ZP_ENOSTORE ? say_what_is_left(keep, last) : rc;
  }
  if (strcmp(last->sync, zp_sync_names[ZP_SYNC_INTERVAL]) != 0) {
    zp_fail(ZP_ESTORE, "the machine went down while the state in %s was in use and not synced (--sync %s): it may be damaged; remove the directory to begin anew",
            keep->path, last->sync);
    return say_what_is_left(keep, last);
  }
  if (wish == ZP_RESTORE_DATA) return zp_fail(ZP_ESTORE, "the machine went down while the state in %s was in use", keep->path);
  /* Data that are whole and of another state are not replaced: files were mixed up. */
  if (last->data.identity && zp_check_data(keep->data, &found) == 0 && found.identity != last->data.identity) {
    fail_contradiction(keep, "it is of another state");
    return say_what_is_left(keep, last);
  }
  int rc = check_snapshot(keep, last, &snapshot);
  if (!rc && snapshot.revision < last->data.revision)
    rc = zp_fail(ZP_ESTORE, "%s is not what was there at the last use: it has revision %llu, and revision %llu was there before", keep->snapshot,
                 (unsigned long long)snapshot.revision, (unsigned long long)last->data.revision);
  if (!rc) return go_back(keep, &snapshot, false);
  return rc == ZP_ESTORE || rc == ZP_ENOSTORE ? say_what_is_left(keep, last) : rc;
}

/* A store was being made for the first time: nothing was ever in it, and nothing may be in it. */
static int begin_anew(zp_keep *keep, const zp_status *last) {
  zp_check found;
  zp_snapshot snapshot;
  if ((zp_check_data(keep->data, &found) == 0 && found.newest > 0) ||
      (zp_snapshot_check(keep->snapshot, true, &snapshot) == 0 && snapshot.revision > 0)) {
    zp_fail(ZP_ESTORE, "%s/status says that nothing was ever in this state, and that is false", keep->path);
    return say_what_is_left(keep, last);
  }
  keep->known = (zp_status_data){0};
  return unlink(keep->data) < 0 && errno != ENOENT ? zp_fail_errno("cannot remove %s", keep->data) : 0;
}

/* By the wish of a user, where something is wrong. The detail says what. */
static int restore_as_wished(zp_keep *keep, const zp_status *last, zp_restore wish) {
  zp_snapshot snapshot;
  zp_check found;
  keep->is_rolled_back = true; /* whatever it is: clients may have seen more */
  if (wish == ZP_RESTORE_DATA) return walk_data(keep, &found);
  int rc = zp_snapshot_check(keep->snapshot, !last || last->format == ZP_STATUS_OLD_FORMAT, &snapshot);
  return rc ? rc : go_back(keep, &snapshot, true);
}

static int fail_without_status(const zp_keep *keep) {
  return zp_fail(ZP_ESTORE, "%s holds %s, but no status: it is no data directory, or its status was removed", keep->path,
                 is_there(keep->data) ? "data" : "a snapshot");
}

/* Bring what was found into order: 0, or what contradicts the status. Nothing is changed but what the status says is to be changed. */
static int settle(zp_keep *keep, const zp_status *last, zp_restore wish) {
  zp_snapshot snapshot;
  if (last->state == ZP_STATUS_MAKING) return begin_anew(keep, last);
  if (last->state == ZP_STATUS_RESTORING) {
    int rc = check_snapshot(keep, last, &snapshot);
    return rc ? rc : go_back(keep, &snapshot, false);
  }
  keep->is_rolled_back = last->state == ZP_STATUS_ROLLED || last->state == ZP_STATUS_BACKUP;
  if (is_power_failure(last)) return recover(keep, last, wish);
  int rc = check_data(keep, last);
  return rc == ZP_ESTORE || rc == ZP_ENOSTORE ? say_what_is_left(keep, last) : rc;
}

static int restore(zp_keep *keep, zp_restore wish) {
  zp_status last;
  int rc = zp_status_read(keep->path, &last);
  const zp_status *known = rc == 1 ? &last : NULL;
  if (rc < 0 && (rc != ZP_ESTORE || zp_status_is_of_other_program(&last))) return rc;
  if (rc == 0 && !is_there(keep->data) && !is_there(keep->snapshot))
    return wish ? zp_fail(ZP_ESYS, "there is nothing to restore in %s", keep->path) : 0;
  if (rc == 0) rc = fail_without_status(keep);
  if (known && (rc = end_last_use(keep, known))) return rc;
  remove_fresh(keep);
  if (known) rc = settle(keep, known, wish);
  else if (!wish) rc = say_what_is_left(keep, NULL);
  if (!wish || keep->has_gone_back || (rc != 0 && rc != ZP_ESTORE && rc != ZP_ENOSTORE)) return rc;
  if (rc == 0) return zp_fail(ZP_ESYS, "there is nothing to restore: the state in %s is in order", keep->path);
  return restore_as_wished(keep, known, wish);
}

int zp_keep_open(const char *directory, zp_sync sync, zp_restore wish, zp_keep **out) {
  *out = NULL;
  zp_keep *keep = calloc(1, sizeof *keep);
  if (!keep) return zp_fail(ZP_ENOMEM, "out of memory: cannot open a data directory");
  keep->owner = getpid();
  keep->sync = sync;
  keep->lock_fd = -1;
  int rc = 0;
  if (mkdir(directory, 0700) < 0 && errno != EEXIST) rc = zp_fail_errno("cannot make the data directory %s", directory);
  if (!rc && !realpath(directory, keep->path)) rc = zp_fail_errno("cannot use the data directory %s", directory);
  if (!rc) rc = check_directory(keep->path);
  if (!rc) rc = zp_files_path(keep->path, "data.mdb", keep->data);
  if (!rc) rc = zp_files_path(keep->path, "snapshot.mdb", keep->snapshot);
  if (!rc) rc = take_lock(keep);
  if (!rc) rc = restore(keep, wish);
  if (rc) {
    give_lock(keep);
    free(keep);
    return rc;
  }
  *out = keep;
  return 0;
}

/* ---- use ---- */

static uint64_t identity_of(const char *runtime) {
  zp_control *control = zp_env_map_control(runtime);
  if (!control) return 0;
  uint64_t identity = control->identity;
  munmap(control, sizeof *control);
  return identity;
}

int zp_keep_create_store(zp_keep *keep, const char *runtime, const zp_store_limits *limits) {
  bool has_data = is_there(keep->data);
  snprintf(keep->runtime, sizeof keep->runtime, "%s", runtime);
  /* Until there is a snapshot of what is there it is the data that count, which are on the disk and do not change: nobody uses them yet. A
     snapshot that lies there may be an old one. */
  int rc = has_data ? zp_files_sync(keep->data) : 0;
  if (keep->is_rolled_back) keep->known.identity = 0; /* it is about to get another one */
  if (!rc) rc = write_status(keep, keep->is_rolled_back ? ZP_STATUS_ROLLED : has_data ? ZP_STATUS_OPEN : ZP_STATUS_MAKING, ZP_SYNC_ALWAYS);
  zp_store_place place = {.data_file = keep->data, .is_synced = keep->sync == ZP_SYNC_ALWAYS, .is_rolled_back = keep->is_rolled_back};
  if (!rc) rc = zp_store_create_at(runtime, limits, &place);
  if (!rc) rc = zp_files_sync(keep->data);
  if (!rc) rc = know_file(keep);
  if (!rc && keep->sync == ZP_SYNC_INTERVAL) rc = zp_keep_begin_snapshots(keep->path, runtime);
  if (rc) return rc;
  keep->known.identity = identity_of(runtime);
  rc = write_status(keep, ZP_STATUS_OPEN, keep->sync);
  keep->is_in_use = rc == 0;
  return rc;
}

void zp_keep_close(zp_keep **handle) {
  zp_keep *keep = *handle;
  if (!keep) return;
  *handle = NULL;
  if (keep->owner == getpid()) {
    /* Not in order: then the next one finds it open, and knows what to do. Nor if there is another's directory by now. */
    bool is_ours = keep->is_in_use && zp_store_uses(keep->runtime, keep->data);
    if (is_ours) remove_fresh(keep);
    bool is_closed = is_ours && zp_store_await_writers(keep->runtime, zp_clock_now() + WRITER_SECONDS) && zp_files_sync(keep->data) == 0 &&
                     know_sum(keep) == 0 && write_status(keep, ZP_STATUS_CLOSED, keep->sync) == 0;
    if (is_closed || !keep->is_in_use) give_lock(keep);
  }
  if (keep->lock_fd >= 0) close(keep->lock_fd);
  free(keep);
}
