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

enum { WRITER_SECONDS = 10 };

struct zp_keep {
  pid_t owner;
  zp_sync sync;
  int lock_fd;
  char runtime[PATH_MAX];
  char path[PATH_MAX];
};

/* The link in a runtime directory that leads to where snapshots go. */
static const char SNAPSHOTS[] = "snapshots";

/* What is known of the last use. */
typedef struct status {
  int format;
  char state[8]; /* "making" the first store, "open", "closed" */
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

static int copy_file(const char *from, const char *to) {
  int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), rc = 0;
  if (in < 0 || out < 0) rc = zp_fail_errno("cannot copy %s to %s", from, to);
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

/* ---- the status: one word a line, a path on the last ---- */

/* 1, 0 if there is none, or an error. */
static int read_status(const char *directory, status *out) {
  char path[PATH_MAX];
  int rc = path_in(directory, "status", path);
  if (rc) return rc;
  FILE *file = fopen(path, "re");
  if (!file && errno == ENOENT) return 0;
  if (!file) return zp_fail_errno("cannot read %s", path);
  *out = (status){.format = 0};
  int found = fscanf(file, "zproc %d %7s %39s %15s ", &out->format, out->state, out->boot, out->sync);
  bool whole = found == 4 && fgets(out->runtime, sizeof out->runtime, file);
  fclose(file);
  if (!whole) return zp_fail(ZP_ESTORE, "%s is no status of a state", path);
  out->runtime[strcspn(out->runtime, "\n")] = 0;
  return 1;
}

static int write_status(const zp_keep *keep, const char *state) {
  char path[PATH_MAX], boot[ZP_BOOT_SIZE];
  int rc = path_in(keep->path, "status.new", path);
  if (rc) return rc;
  zp_env_read_boot(boot);
  FILE *file = fopen(path, "we");
  if (!file) return zp_fail_errno("cannot write %s", path);
  fprintf(file, "zproc %d %s %s %s\n%s\n", ZP_STORE_FORMAT, state, boot[0] ? boot : "-", zp_sync_names[keep->sync], keep->runtime);
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

/* Whoever is still about from the last use must not touch the data any more. */
static int end_last_use(const zp_keep *keep, const status *last) {
  if (!last->runtime[0] || strcmp(last->state, "closed") == 0) return 0;
  zp_store_retire(last->runtime);
  if (zp_store_await_writers(last->runtime, zp_clock_now() + WRITER_SECONDS)) return 0;
  return zp_fail(ZP_ESYS, "a process is in the middle of a write to the state in %s and does not end (is it stopped?)", keep->path);
}

/* The machine went down while the data were in use. */
static int recover(const zp_keep *keep, const status *last) {
  char data[PATH_MAX], snapshot[PATH_MAX], fresh[PATH_MAX];
  int rc = path_in(keep->path, "data.mdb", data);
  if (!rc) rc = path_in(keep->path, "snapshot.mdb", snapshot);
  if (!rc) rc = path_in(keep->path, "data.new", fresh);
  if (rc || strcmp(last->sync, zp_sync_names[ZP_SYNC_ALWAYS]) == 0) return rc;
  if (strcmp(last->sync, zp_sync_names[ZP_SYNC_INTERVAL]) == 0 && access(snapshot, F_OK) == 0) {
    rc = copy_file(snapshot, fresh);
    return rc ? rc : replace(keep->path, fresh, "data.mdb");
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
  rc = end_last_use(keep, &last);
  if (rc) return rc;
  if (strcmp(last.state, "making") == 0) { /* nothing was ever in it */
    unlink(data);
    return 0;
  }
  zp_env_read_boot(boot);
  return strcmp(last.state, "open") == 0 && strcmp(last.boot, boot) != 0 ? recover(keep, &last) : 0;
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
  if (!rc) rc = take_lock(keep);
  if (!rc) rc = restore(keep);
  if (rc) {
    if (keep->lock_fd >= 0) close(keep->lock_fd);
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
  uint64_t none = UINT64_MAX;
  return rc ? rc : zp_keep_snapshot(runtime, &none);
}

int zp_keep_create_store(zp_keep *keep, const char *runtime, const zp_store_limits *limits) {
  char data[PATH_MAX];
  int rc = path_in(keep->path, "data.mdb", data);
  if (rc) return rc;
  snprintf(keep->runtime, sizeof keep->runtime, "%s", runtime);
  rc = write_status(keep, access(data, F_OK) == 0 ? "open" : "making");
  zp_store_place place = {.data_file = data, .is_synced = keep->sync == ZP_SYNC_ALWAYS};
  if (!rc) rc = zp_store_create_at(runtime, limits, &place);
  if (!rc) rc = sync_file(data);
  if (!rc && keep->sync == ZP_SYNC_INTERVAL) rc = prepare_snapshots(keep, runtime);
  return rc ? rc : write_status(keep, "open");
}

void zp_keep_close(zp_keep **handle) {
  zp_keep *keep = *handle;
  if (!keep) return;
  *handle = NULL;
  if (keep->owner == getpid()) {
    char data[PATH_MAX];
    /* Not in order: then the next one finds it open, and knows what to do. */
    if (keep->runtime[0] && zp_store_await_writers(keep->runtime, zp_clock_now() + WRITER_SECONDS) &&
        path_in(keep->path, "data.mdb", data) == 0 && sync_file(data) == 0)
      write_status(keep, "closed");
  }
  close(keep->lock_fd);
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

static int copy_data(zp_store *store, const char *path) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return zp_fail_errno("cannot write %s", path);
  zp_section section;
  zp_env_enter(store->env, &section);
  int rc = mdb_env_copyfd(store->env->mdb, fd);
  zp_env_leave(&section);
  close(fd);
  return rc ? zp_env_fail(store->env, rc, "cannot copy") : 0;
}

int zp_keep_snapshot(const char *runtime, uint64_t *last) {
  char target[PATH_MAX], fresh[PATH_MAX];
  if (!find_snapshots(runtime, target)) return 0;
  char *slash = strrchr(target, '/');
  *slash = 0;
  int rc = path_in(target, "snapshot.new", fresh);
  zp_store *store = NULL;
  if (!rc) rc = zp_store_open(runtime, "snapshots", &store); /* any name will do: nothing is read of it */
  if (!rc) rc = zp_store_read_begin(store);
  if (rc) goto out;
  uint64_t revision = zp_store_read_revision(store);
  zp_store_read_end(store);
  if (revision != *last) {
    rc = copy_data(store, fresh);
    if (!rc) rc = replace(target, fresh, "snapshot.mdb");
    if (rc) unlink(fresh); /* what there was no room for takes none */
    else *last = revision;
  }
out:
  zp_store_close(&store);
  return rc;
}
