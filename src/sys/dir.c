#include "sys/dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/random.h"
#include "sys/trust.h"

struct zp_dir {
  pid_t maker;
  int owner_fd; /* on the file `owner`, with an exclusive flock */
  char path[PATH_MAX];
};

enum {
  HALF_MADE_AGE = 60, /* seconds after which a directory without `owner` will not get one any more */
  DEPTH_MAX = 64      /* of what is removed; a store has one level */
};

/* ---- the root ---- */

/* Whether the effective user may make something in a directory. Filters of containers that are older than the call that libc uses do not permit
   it; then it is asked for the real user, who is the same nearly always, and whoever it is not is told by the making itself. */
static bool may_write(const char *root) {
  if (faccessat(AT_FDCWD, root, W_OK | X_OK, AT_EACCESS) == 0) return true;
  return (errno == EPERM || errno == ENOSYS) && access(root, W_OK | X_OK) == 0;
}

static bool is_usable(const char *root, struct stat *status) {
  return root && root[0] == '/' && strlen(root) < PATH_MAX - 64 && stat(root, status) == 0 &&
         S_ISDIR(status->st_mode) && may_write(root);
}

/* Who owns the root can give the name of a directory in it to another one. That would be noticed (trust.h), but is of no use to anybody. */
static bool is_trusted(const char *root) {
  struct stat status;
  return is_usable(root, &status) && zp_trust_leads(status.st_uid);
}

/* What the user has asked for is used or refused; another place without a word would surprise. */
static const char *find_root(void) {
  const char *wish = getenv("ZPROC_RUNTIME_DIR");
  if (wish && *wish) return is_trusted(wish) ? wish : NULL;
  const char *candidates[] = {"/dev/shm", getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp"};
  for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++)
    if (is_trusted(candidates[i])) return candidates[i];
  return NULL;
}

static int fail_root(void) {
  struct stat status;
  const char *wish = getenv("ZPROC_RUNTIME_DIR");
  if (!wish || !*wish) return zp_fail(ZP_ESYS, "there is no directory to keep the state in: set ZPROC_RUNTIME_DIR to a writable one");
  if (is_usable(wish, &status)) {
    char what[300];
    snprintf(what, sizeof what, "ZPROC_RUNTIME_DIR is %.200s, which", wish);
    return zp_trust_fail(what, status.st_uid);
  }
  return zp_fail(ZP_ESYS, "ZPROC_RUNTIME_DIR is %s: that is no writable directory with an absolute path", wish);
}

/* ---- removing ---- */

/* Everything below a directory, which is closed; symbolic links are removed, not followed. `owner` goes last: if we are killed
   before, whoever comes after us finds an abandoned directory. 0, or -1 with errno. */
static int remove_contents(int fd, int depth) {
  DIR *stream = depth < DEPTH_MAX ? fdopendir(fd) : NULL;
  if (!stream) {
    if (depth >= DEPTH_MAX) errno = ELOOP;
    int number = errno;
    close(fd);
    errno = number;
    return -1;
  }
  int rc = 0;
  struct dirent *entry;
  while ((errno = 0, entry = readdir(stream))) {
    const char *name = entry->d_name;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || (depth == 0 && strcmp(name, "owner") == 0)) continue;
    if (unlinkat(fd, name, 0) == 0 || errno == ENOENT) continue;
    int child = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (child < 0 || remove_contents(child, depth + 1) < 0 || unlinkat(fd, name, AT_REMOVEDIR) < 0) {
      rc = -1;
      break;
    }
  }
  if (!entry && errno) rc = -1;
  if (!rc && depth == 0 && unlinkat(fd, "owner", 0) < 0 && errno != ENOENT) rc = -1;
  int number = errno;
  closedir(stream);
  errno = number;
  return rc;
}

/* A directory of this user; -1 with errno. */
static int open_own(int root_fd, const char *name) {
  struct stat status;
  int fd = openat(root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 || (fstat(fd, &status) == 0 && status.st_uid == geteuid())) return fd;
  close(fd);
  errno = EPERM;
  return -1;
}

/* Somebody who is just opening what is within may make a file behind our back; he will find no store, and not do it again. */
static bool remove_tree(int root_fd, const char *name) {
  enum { TRIES = 16 };
  for (int i = 0; i < TRIES; i++) {
    int fd = open_own(root_fd, name);
    if (fd < 0 || remove_contents(fd, 0) < 0) return false;
    if (unlinkat(root_fd, name, AT_REMOVEDIR) == 0) return true;
    if (errno != ENOTEMPTY && errno != EEXIST) return false;
  }
  return false;
}

/* ---- making ---- */

/* `owner` is locked before it has its name, so whoever finds it unlocked knows that nobody owns the directory. */
static int own(zp_dir *dir) {
  static const char making[] = "making", owner[] = "owner";
  int at = -1, fd = -1;
  int rc = zp_trust_open_directory(dir->path, ZP_TRUST_PRIVATE, &at);
  if (!rc) rc = zp_trust_open_at(at, dir->path, making, O_RDWR | O_CREAT | O_EXCL, &fd);
  else return rc;
  if (!rc && flock(fd, LOCK_EX | LOCK_NB) < 0) rc = zp_fail_errno("cannot lock %s/%s: flock", dir->path, making);
  else if (!rc && renameat(at, making, at, owner) < 0) rc = zp_fail_errno("cannot make %s/%s: renameat", dir->path, owner);
  if (rc && fd >= 0) {
    unlinkat(at, making, 0);
    close(fd);
  }
  close(at);
  if (!rc) dir->owner_fd = fd;
  return rc;
}

int zp_dir_plan(zp_dir **out) {
  *out = NULL;
  const char *root = find_root();
  if (!root) return fail_root();
  uint64_t random = zp_random_number(); /* of so many numbers none comes twice */
  zp_dir *dir = calloc(1, sizeof *dir);
  if (!dir) return zp_fail(ZP_ENOMEM, "out of memory: cannot make a directory");
  dir->maker = getpid();
  dir->owner_fd = -1;
  snprintf(dir->path, sizeof dir->path, "%s/zproc-%u-%016llx", root, (unsigned)geteuid(), (unsigned long long)random);
  *out = dir;
  return 0;
}

int zp_dir_make(zp_dir *dir) {
  if (mkdir(dir->path, 0700) < 0) return zp_fail_errno("cannot make the directory %s", dir->path);
  int rc = own(dir);
  if (rc) rmdir(dir->path);
  return rc ? rc : zp_trust_leave(dir->path);
}

int zp_dir_create(zp_dir **out) {
  int rc = zp_dir_plan(out);
  if (!rc) rc = zp_dir_make(*out);
  if (rc) zp_dir_release(out);
  return rc;
}

const char *zp_dir_path(const zp_dir *dir) { return dir->path; }

void zp_dir_remove(zp_dir **handle) {
  zp_dir *dir = *handle;
  if (dir && dir->maker == getpid() && !remove_tree(AT_FDCWD, dir->path) && (errno == EMFILE || errno == ENFILE)) {
    /* Removing takes a descriptor. We have one. */
    if (dir->owner_fd >= 0) close(dir->owner_fd);
    dir->owner_fd = -1;
    remove_tree(AT_FDCWD, dir->path);
  }
  zp_dir_release(handle);
}

void zp_dir_release(zp_dir **handle) {
  zp_dir *dir = *handle;
  if (!dir) return;
  *handle = NULL;
  if (dir->owner_fd >= 0) close(dir->owner_fd); /* a child's copy is not the lock's last one: the maker keeps it */
  free(dir);
}

/* ---- what was left behind ---- */

static bool is_own(uid_t user) { return user == geteuid(); }

/* A directory of a user that may be looked at, and that nobody owns; one without `owner` only if it has been so for `age` seconds. The descriptor of its
   `owner`, locked, is left in *owner_fd (-1: it has none), so that nobody comes to own it before it is gone. */
static bool is_abandoned(int root_fd, const char *name, bool (*may)(uid_t), int age, int *owner_fd) {
  *owner_fd = -1;
  struct stat status;
  int fd = openat(root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return false;
  bool abandoned = false;
  if (fstat(fd, &status) == 0 && may(status.st_uid)) {
    *owner_fd = openat(fd, "owner", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (*owner_fd >= 0) abandoned = flock(*owner_fd, LOCK_EX | LOCK_NB) == 0;
    else abandoned = errno == ENOENT && (age == 0 || time(NULL) - status.st_ctime > age);
  }
  close(fd);
  return abandoned;
}

/* Give the lock up, if it was had: a child that another thread has forked meanwhile must not be taken for an owner. */
static void let_go(int owner_fd) {
  if (owner_fd < 0) return;
  flock(owner_fd, LOCK_UN);
  close(owner_fd);
}

int zp_dir_adopt(const char *path, zp_dir **out) {
  int owner_fd;
  bool abandoned = is_abandoned(AT_FDCWD, path, is_own, 0, &owner_fd);
  zp_dir *dir = abandoned && strlen(path) < sizeof dir->path ? calloc(1, sizeof *dir) : NULL;
  if (!dir) {
    let_go(owner_fd);
    return 0;
  }
  dir->maker = getpid();
  dir->owner_fd = owner_fd;
  strcpy(dir->path, path);
  *out = dir;
  return 1;
}

bool zp_dir_is_abandoned(const char *path) {
  int owner_fd;
  bool abandoned = is_abandoned(AT_FDCWD, path, zp_trust_is, HALF_MADE_AGE, &owner_fd);
  let_go(owner_fd);
  return abandoned;
}

int zp_dir_sweep(void (*farewell)(const char *path)) {
  const char *root = find_root();
  int root_fd = root ? open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  DIR *stream = root_fd >= 0 ? fdopendir(root_fd) : NULL;
  if (!stream) {
    if (root_fd >= 0) close(root_fd);
    return 0;
  }
  char prefix[32], path[PATH_MAX];
  int prefix_size = snprintf(prefix, sizeof prefix, "zproc-%u-", (unsigned)geteuid());
  int removed = 0;
  struct dirent *entry;
  while ((entry = readdir(stream))) {
    if (strncmp(entry->d_name, prefix, (size_t)prefix_size) != 0) continue;
    int owner_fd;
    if (is_abandoned(root_fd, entry->d_name, is_own, HALF_MADE_AGE, &owner_fd)) {
      int size = snprintf(path, sizeof path, "%s/%s", root, entry->d_name);
      if (farewell && size < (int)sizeof path) farewell(path);
      if (remove_tree(root_fd, entry->d_name)) removed++;
    }
    let_go(owner_fd);
  }
  closedir(stream);
  return removed;
}
