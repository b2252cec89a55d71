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
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"

struct zp_dir {
  pid_t maker;
  int owner_fd; /* on the file `owner`, with an exclusive flock */
  char path[PATH_MAX];
};

enum {
  ATTEMPTS = 100,
  HALF_MADE_AGE = 60, /* seconds after which a directory without `owner` will not get one any more */
  DEPTH_MAX = 64      /* of what is removed; a store has one level */
};

/* ---- the root ---- */

static bool is_usable(const char *root) {
  struct stat status;
  return root && root[0] == '/' && strlen(root) < PATH_MAX - 64 && stat(root, &status) == 0 &&
         S_ISDIR(status.st_mode) && faccessat(AT_FDCWD, root, W_OK | X_OK, AT_EACCESS) == 0;
}

/* What the user has asked for is used or refused; another place without a word would surprise. */
static const char *find_root(void) {
  const char *wish = getenv("ZPROC_RUNTIME_DIR");
  if (wish && *wish) return is_usable(wish) ? wish : NULL;
  const char *candidates[] = {"/dev/shm", getenv("XDG_RUNTIME_DIR"), getenv("TMPDIR"), "/tmp"};
  for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++)
    if (is_usable(candidates[i])) return candidates[i];
  return NULL;
}

/* ---- removing ---- */

/* Everything below a directory, which is closed; symbolic links are removed, not followed. 0, or -1 with errno. */
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
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
    if (unlinkat(fd, name, 0) == 0 || errno == ENOENT) continue;
    int child = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (child < 0 || remove_contents(child, depth + 1) < 0 || unlinkat(fd, name, AT_REMOVEDIR) < 0) {
      rc = -1;
      break;
    }
  }
  int number = errno;
  if (!entry && number) rc = -1;
  closedir(stream);
  errno = number;
  return rc;
}

/* Somebody who is just opening what is within may make a file behind our back; he will find no store, and not do it again. */
static bool remove_tree(int root_fd, const char *name) {
  enum { TRIES = 16 };
  for (int i = 0; i < TRIES; i++) {
    int fd = openat(root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || remove_contents(fd, 0) < 0) return false;
    if (unlinkat(root_fd, name, AT_REMOVEDIR) == 0) return true;
    if (errno != ENOTEMPTY && errno != EEXIST) return false;
  }
  return false;
}

/* ---- making ---- */

enum { AGAIN = 1 };

/* Make the directory and hold its `owner`. 0; AGAIN with another name if this one is in use, or if a sweep took the new
   directory for an abandoned one; or an error. */
static int make(zp_dir *dir) {
  char owner[PATH_MAX + 8];
  struct stat status;
  if (mkdir(dir->path, 0700) < 0)
    return errno == EEXIST ? AGAIN : zp_fail_errno("cannot make the directory %s", dir->path);
  snprintf(owner, sizeof owner, "%s/owner", dir->path);
  dir->owner_fd = open(owner, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (dir->owner_fd < 0) {
    if (errno == ENOENT) return AGAIN;
    int rc = zp_fail_errno("cannot make %s", owner);
    rmdir(dir->path);
    return rc;
  }
  if (flock(dir->owner_fd, LOCK_EX | LOCK_NB) == 0 && fstat(dir->owner_fd, &status) == 0 && status.st_nlink > 0)
    return 0;
  close(dir->owner_fd);
  dir->owner_fd = -1;
  return AGAIN;
}

int zp_dir_create(zp_dir **out) {
  *out = NULL;
  const char *root = find_root();
  const char *wish = getenv("ZPROC_RUNTIME_DIR");
  if (!root && wish && *wish)
    return zp_fail(ZP_ESYS, "ZPROC_RUNTIME_DIR is %s: that is no writable directory with an absolute path", wish);
  if (!root) return zp_fail(ZP_ESYS, "there is no directory to keep the state in: set ZPROC_RUNTIME_DIR to a writable one");
  zp_dir *dir = calloc(1, sizeof *dir);
  if (!dir) return zp_fail(ZP_ENOMEM, "out of memory: cannot make a directory");
  dir->maker = getpid();
  dir->owner_fd = -1;
  for (int i = 0; i < ATTEMPTS; i++) {
    uint64_t random;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) continue;
    snprintf(dir->path, sizeof dir->path, "%s/zproc-%u-%016llx", root, (unsigned)geteuid(), (unsigned long long)random);
    int rc = make(dir);
    if (rc == 0) {
      *out = dir;
      return 0;
    }
    if (rc != AGAIN) {
      free(dir);
      return rc;
    }
  }
  free(dir);
  return zp_fail(ZP_ESYS, "cannot make a directory in %s: it is removed again and again", root);
}

const char *zp_dir_path(const zp_dir *dir) { return dir->path; }

void zp_dir_remove(zp_dir **handle) {
  if (*handle && (*handle)->maker == getpid()) remove_tree(AT_FDCWD, (*handle)->path);
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

/* A directory of this user that nobody owns. The descriptor of its `owner`, locked, is left in *owner_fd (-1: it has none),
   so that nobody comes to own it before it is gone. */
static bool is_abandoned(int root_fd, const char *name, int *owner_fd) {
  *owner_fd = -1;
  struct stat status;
  int fd = openat(root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return false;
  bool abandoned = false;
  if (fstat(fd, &status) == 0 && status.st_uid == geteuid()) {
    *owner_fd = openat(fd, "owner", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (*owner_fd >= 0) abandoned = flock(*owner_fd, LOCK_EX | LOCK_NB) == 0;
    else abandoned = errno == ENOENT && time(NULL) - status.st_ctime > HALF_MADE_AGE;
  }
  close(fd);
  return abandoned;
}

int zp_dir_adopt(const char *path, zp_dir **out) {
  int owner_fd;
  bool abandoned = is_abandoned(AT_FDCWD, path, &owner_fd);
  zp_dir *dir = abandoned && strlen(path) < sizeof dir->path ? calloc(1, sizeof *dir) : NULL;
  if (!dir) {
    if (owner_fd >= 0) close(owner_fd);
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
  bool abandoned = is_abandoned(AT_FDCWD, path, &owner_fd);
  if (owner_fd >= 0) close(owner_fd);
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
    if (is_abandoned(root_fd, entry->d_name, &owner_fd)) {
      int size = snprintf(path, sizeof path, "%s/%s", root, entry->d_name);
      if (farewell && size < (int)sizeof path) farewell(path);
      if (remove_tree(root_fd, entry->d_name)) removed++;
    }
    if (owner_fd >= 0) close(owner_fd);
  }
  closedir(stream);
  return removed;
}
