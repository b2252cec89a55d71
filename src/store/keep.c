#include "store/keep.h"

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
#include "store/handle.h"
#include "sys/dirlock.h"
#include "sys/trust.h"

enum { WRITER_SECONDS = 10 };

struct zp_keep {
  pid_t owner;
  zp_sync sync;
  int lock_fd;
  bool is_rolled_back; /* the data are those of a snapshot, and were not used since */
  bool is_in_use;      /* the store was made */
  char runtime[PATH_MAX];
  char path[PATH_MAX];
};

/* The link in a runtime directory that leads to where snapshots go. */
static const char SNAPSHOTS[] = "snapshots";

/* A snapshot that is being taken, or what is left of one whose process was killed. */
static const char FRESH[] = "snapshot.new";

/* What is known of the last use. */
typedef struct status {
  int format;
  char state[8]; /* "making" the first store, "open", "closed", "rolled" back to a snapshot */
  char boot[ZP_BOOT_SIZE];
  char sync[16];
  char runtime[PATH_MAX];
} status;

const char *const zp_sync_names[] = {[ZP_SYNC_NEVER] = "never", [ZP_SYNC_INTERVAL] = "interval", [ZP_SYNC_ALWAYS] = "always", NULL};

/* ---- files ---- */

static int path_in(const char *directory, const char *name, char out[PATH_MAX]) {
  return snprintf(out, PATH_MAX, "%s/%s", directory, name) < PATH_MAX ? 0 : zp_fail(ZP_ESYS, "the path %.60s... is too long", directory);
}

/* Let the directory itself reach the disk: names that were given and taken in it. */
static int sync_directory(const char *directory) {
  int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int rc = fd < 0 || fsync(fd) < 0 ? zp_fail_errno("cannot sync %s", directory) : 0;
  if (fd >= 0) close(fd);
  return rc;
}

static int sync_file(const char *path) {
  int fd = open(path, O_RDWR | O_CLOEXEC);
  int rc = fd < 0 || fsync(fd) < 0 ? zp_fail_errno("cannot sync %s", path) : 0;
  if (fd >= 0) close(fd);
  return rc;
}

/* Put a file that is complete in the place of another. */
static int replace(const char *directory, const char *from, const char *name) {
  char to[PATH_MAX];
  int rc = path_in(directory, name, to);
  if (!rc) rc = sync_file(from);
  if (!rc && rename(from, to) < 0) rc = zp_fail_errno("cannot replace %s", to);
  return rc ? rc : sync_directory(directory);
}

/* What becomes of snapshot.new is not a matter of two servers at the same time. */
static int lock_snapshots(const char *directory, int *lock) {
  char path[PATH_MAX];
  int rc = path_in(directory, "snapshot.lock", path);
  return rc ? rc : zp_dirlock_take_file(path, ZP_FOREVER, lock);
}

static int copy_file(const char *from, const char *to) {
  struct stat opened;
  int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc = 0;
  if (in < 0 || out < 0 || fstat(in, &opened) < 0) rc = zp_fail_errno("cannot copy %s to %s", from, to);
  else rc = zp_trust_check(&opened, ZP_TRUST_PRIVATE, from);
  static char block[1 << 16];
  for (ssize_t n = 1; !rc && n > 0;) {
    n = read(in, block, sizeof block);
    for (ssize_t done = 0; n > 0 && done < n;) {
      ssize_t wrote = write(out, block + done, (size_t)(n - done));
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) {
        n = -1;
        break;
      }
      done += wrote;
    }
    if (n < 0 && errno == EINTR) n = 1;
    else if (n < 0) rc = zp_fail_errno("cannot copy %s to %s", from, to);
  }
  if (in >= 0) close(in);
  if (out >= 0) close(out);
  return rc;
}

/* While nobody takes a snapshot: what is left of one takes no room. */
static void remove_fresh(const zp_keep *keep) {
  char path[PATH_MAX];
  if (path_in(keep->path, FRESH, path) == 0) unlink(path);
}

/* ---- the status: one word a line, a path on the last ---- */

/* 1, 0 if there is none, or an error. */
static int read_status(const char *directory, status *out) {
  char path[PATH_MAX];
  int rc = path_in(directory, "status", path);
  if (rc) return rc;
  FILE *file = fopen(path, "re");
  if (!file && errno == ENOENT) return 0;
  if (!file) return zp_fail_errno("cannot read %s", path);
  struct stat opened;
  rc = fstat(fileno(file), &opened) < 0 ? zp_fail_errno("cannot read %s", path) : zp_trust_check(&opened, ZP_TRUST_UNWRITABLE, path);
  if (rc) {
    fclose(file);
    return rc;
  }
  *out = (status){.format = 0};
  int found = fscanf(file, "zproc %d %7s %39s %15s ", &out->format, out->state, out->boot, out->sync);
  bool whole = found == 4 && fgets(out->runtime, sizeof out->runtime, file);
  fclose(file);
  if (!whole) return zp_fail(ZP_ESTORE, "%s is no status of a state", path);
  out->runtime[strcspn(out->runtime, "\n")] = 0;
  return 1;
}

static int write_status(const zp_keep *keep, const char *state, zp_sync sync) {
  char path[PATH_MAX], boot[ZP_BOOT_SIZE];
  int rc = path_in(keep->path, "status.new", path);
  if (rc) return rc;
  zp_env_read_boot(boot);
  FILE *file = fopen(path, "we");
  if (!file) return zp_fail_errno("cannot write %s", path);
  fprintf(file, "zproc %d %s %s %s\n%s\n", ZP_STORE_FORMAT, state, boot[0] ? boot : "-", zp_sync_names[sync], keep->runtime);
  bool failed = ferror(file);
  if ((fclose(file) != 0) | failed) return zp_fail_errno("cannot write %s", path);
  return replace(keep->path, path, "status");
}

/* ---- opening ---- */

static int take_lock(zp_keep *keep) {
  char path[PATH_MAX];
  int rc = path_in(keep->path, "lock", path);
  if (rc) return rc;
  keep->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (keep->lock_fd < 0) return zp_fail_errno("cannot use the data directory %s", keep->path);
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
static int end_last_use(const zp_keep *keep, const status *last, const char *data) {
  if (!last->runtime[0] || strcmp(last->state, "closed") == 0 || !zp_store_uses(last->runtime, data)) return 0;
  int lock;
  int rc = lock_snapshots(keep->path, &lock);
  if (rc) return rc;
  zp_store_retire(last->runtime);
  zp_dirlock_release(lock);
  if (zp_store_await_writers(last->runtime, zp_clock_now() + WRITER_SECONDS)) return 0;
  return zp_fail(ZP_ESYS, "a process is in the middle of a write to the state in %s and does not end (is it stopped?)", keep->path);
}

/* The machine went down while the data were in use. */
static int recover(zp_keep *keep, const status *last) {
  char data[PATH_MAX], snapshot[PATH_MAX], fresh[PATH_MAX];
  int rc = path_in(keep->path, "data.mdb", data);
  if (!rc) rc = path_in(keep->path, "snapshot.mdb", snapshot);
  if (!rc) rc = path_in(keep->path, "data.new", fresh);
  if (rc || strcmp(last->sync, zp_sync_names[ZP_SYNC_ALWAYS]) == 0) return rc;
  if (strcmp(last->sync, zp_sync_names[ZP_SYNC_INTERVAL]) == 0 && access(snapshot, F_OK) == 0) {
    rc = copy_file(snapshot, fresh);
    if (!rc) rc = replace(keep->path, fresh, "data.mdb");
    keep->is_rolled_back = true;
    return rc;
  }
  return zp_fail(ZP_ESTORE,
                 "the machine went down while the state in %s was in use and not synced (--sync %s): it may be damaged; "
                 "remove the directory to begin anew",
                 keep->path, last->sync);
}

static int restore(zp_keep *keep) {
  status last, *known = &last;
  char boot[ZP_BOOT_SIZE], data[PATH_MAX];
  int rc = read_status(keep->path, &last);
  if (rc < 0) return rc;
  if (rc == 0) known = NULL;
  rc = path_in(keep->path, "data.mdb", data);
  if (rc) return rc;
  if (!known && access(data, F_OK) == 0) return zp_fail(ZP_ESTORE, "%s holds data, but no status: it is no data directory", keep->path);
  if (!known) return 0;
  if (last.format != ZP_STORE_FORMAT)
    return zp_fail(ZP_ESTORE, "the state in %s has format %d; this program knows format %d", keep->path, last.format, ZP_STORE_FORMAT);
  rc = end_last_use(keep, &last, data);
  if (rc) return rc;
  remove_fresh(keep);
  if (strcmp(last.state, "making") == 0) { /* nothing was ever in it */
    unlink(data);
    return 0;
  }
  zp_env_read_boot(boot);
  keep->is_rolled_back = strcmp(last.state, "rolled") == 0;
  return strcmp(last.state, "closed") != 0 && strcmp(last.boot, boot) != 0 ? recover(keep, &last) : 0;
}

/* Who can change the names in it can have any file of this user's taken for data. */
static int check_directory(const char *path) {
  int fd;
  int rc = zp_trust_open_directory(path, ZP_TRUST_UNWRITABLE, &fd);
  if (!rc) close(fd);
  return rc ? zp_fail(rc == ZP_ENOSTORE ? ZP_ESYS : rc, "cannot use the data directory: %s", zp_error_detail()) : 0;
}

int zp_keep_open(const char *directory, zp_sync sync, zp_keep **out) {
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
  if (!rc) rc = take_lock(keep);
  if (!rc) rc = restore(keep);
  if (rc) {
    give_lock(keep);
    free(keep);
    return rc;
  }
  *out = keep;
  return 0;
}

/* A state that is kept by snapshots has one from the beginning, of what it begins with. */
static int prepare_snapshots(const zp_keep *keep, const char *runtime) {
  char target[PATH_MAX], link[PATH_MAX];
  int rc = path_in(keep->path, "snapshot.mdb", target);
  if (!rc) rc = path_in(runtime, SNAPSHOTS, link);
  if (!rc && symlink(target, link) < 0) rc = zp_fail_errno("cannot make %s", link);
  return rc ? rc : zp_keep_snapshot(runtime);
}

int zp_keep_create_store(zp_keep *keep, const char *runtime, const zp_store_limits *limits) {
  char data[PATH_MAX];
  int rc = path_in(keep->path, "data.mdb", data);
  if (rc) return rc;
  snprintf(keep->runtime, sizeof keep->runtime, "%s", runtime);
  bool is_there = access(data, F_OK) == 0;
  /* Until there is a snapshot of what is there it is the data that count, which are on the disk and do not change: nobody uses them yet. A
     snapshot that lies there may be an old one. */
  if (is_there) rc = sync_file(data);
  if (!rc) rc = write_status(keep, keep->is_rolled_back ? "rolled" : is_there ? "open" : "making", ZP_SYNC_ALWAYS);
  zp_store_place place = {.data_file = data, .is_synced = keep->sync == ZP_SYNC_ALWAYS, .is_rolled_back = keep->is_rolled_back};
  if (!rc) rc = zp_store_create_at(runtime, limits, &place);
  if (!rc) rc = sync_file(data);
  if (!rc && keep->sync == ZP_SYNC_INTERVAL) rc = prepare_snapshots(keep, runtime);
  if (!rc) rc = write_status(keep, "open", keep->sync);
  keep->is_in_use = rc == 0;
  return rc;
}

void zp_keep_close(zp_keep **handle) {
  zp_keep *keep = *handle;
  if (!keep) return;
  *handle = NULL;
  if (keep->owner == getpid()) {
    char data[PATH_MAX];
    /* Not in order: then the next one finds it open, and knows what to do. Nor if there is another's directory by now. */
    bool is_ours = keep->is_in_use && path_in(keep->path, "data.mdb", data) == 0 && zp_store_uses(keep->runtime, data);
    if (is_ours) remove_fresh(keep);
    bool is_closed = is_ours && zp_store_await_writers(keep->runtime, zp_clock_now() + WRITER_SECONDS) && sync_file(data) == 0 &&
                     write_status(keep, "closed", keep->sync) == 0;
    if (is_closed || !keep->is_in_use) give_lock(keep);
  }
  if (keep->lock_fd >= 0) close(keep->lock_fd);
  free(keep);
}

/* ---- snapshots ---- */

static bool find_snapshots(const char *runtime, char target[PATH_MAX]) {
  char link[PATH_MAX];
  if (path_in(runtime, SNAPSHOTS, link)) return false;
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
  return path_in(directory, FRESH, fresh);
}

/* Into a file that is ours alone: whoever was here before us may still write to his, which has no name any more then. */
static int copy_data(zp_store *store, const char *directory, const char *path, int *fd) {
  int lock, rc = lock_snapshots(directory, &lock);
  if (rc) return rc;
  unlink(path);
  *fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  int number = errno;
  zp_dirlock_release(lock);
  errno = number;
  if (*fd < 0) return zp_fail_errno("cannot write %s", path);
  zp_section section;
  zp_env_enter(store->env, &section);
  rc = mdb_env_copyfd(store->env->mdb, *fd);
  zp_env_leave(&section);
  if (rc) return zp_env_fail(store->env, rc, "cannot copy");
  return fsync(*fd) < 0 ? zp_fail_errno("cannot sync %s", path) : 0;
}

static bool is_file_of(const char *path, int fd) {
  struct stat named, opened;
  return stat(path, &named) == 0 && fstat(fd, &opened) == 0 && named.st_dev == opened.st_dev && named.st_ino == opened.st_ino;
}

/* The copy gets its name, or goes if it is none. A store that was retired meanwhile has a successor, to whom the names belong; and so does
   one whose server was started again, and has begun another snapshot. */
static int end_copy(zp_store *store, const char *directory, const char *fresh, int fd, int rc) {
  char target[PATH_MAX];
  int lock, failed = lock_snapshots(directory, &lock);
  if (failed) return failed;
  bool is_ours = fd >= 0 && is_file_of(fresh, fd);
  if (atomic_load(&store->env->control->retired)) rc = zp_store_fail_retired(store);
  else if (!rc && !is_ours) rc = zp_fail(ZP_ENOSTORE, "another server takes snapshots of the state");
  else if (!rc) rc = path_in(directory, "snapshot.mdb", target);
  else if (is_ours) unlink(fresh); /* what there was no room for takes none */
  if (!rc && rename(fresh, target) < 0) rc = zp_fail_errno("cannot replace %s", target);
  if (!rc) rc = sync_directory(directory);
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
  if (!rc) rc = path_in(directory, "data.mdb", data);
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
