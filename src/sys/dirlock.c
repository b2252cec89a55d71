#include "sys/dirlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/trust.h"

static int fail(const char *directory) {
  int number = errno;
  int rc = zp_fail_errno("cannot lock %s", directory);
  errno = number;
  return rc;
}

static const struct timespec PAUSE = {.tv_nsec = 2000000};
static const double FOREIGN_SECONDS = 1; /* that another user may take for what has to be done under a lock */

/* 0, or -1 with errno. There is no flock with a limit. */
static int lock_until(int fd, double deadline) {
  bool is_patient = deadline == ZP_FOREVER;
  while (flock(fd, is_patient ? LOCK_EX : LOCK_EX | LOCK_NB) < 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK || zp_clock_now() > deadline) return -1;
    nanosleep(&PAUSE, NULL);
  }
  return 0;
}

int zp_dirlock_take(const char *directory, double deadline, int *lock) {
  int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fail(directory);
  if (lock_until(fd, deadline) < 0) {
    int rc = fail(directory);
    close(fd); /* of a descriptor that is open, so errno stays */
    return rc;
  }
  *lock = fd;
  return 0;
}

/* Whether the name is still that of the file. */
static bool is_named(const char *path, int fd) {
  struct stat named, opened;
  return fstat(fd, &opened) == 0 && lstat(path, &named) == 0 && named.st_dev == opened.st_dev && named.st_ino == opened.st_ino;
}

/* Whether there is a file of that name that is another user's. */
static bool is_foreign(const char *path, struct stat *named) { return lstat(path, named) == 0 && !zp_trust_is(named->st_uid); }

/* Open the file, whose name is free or this user's: 1, 0 if it is another user's, or an error. */
static int open_file(const char *path, int *out) {
  struct stat status;
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600), number = errno;
  if (fd < 0 && is_foreign(path, &status)) return 0;
  errno = number;
  if (fd < 0) return fail(path);
  int rc = fstat(fd, &status) < 0 ? fail(path) : 1;
  if (rc == 1 && !zp_trust_is(status.st_uid)) rc = 0;
  else if (rc == 1 && !S_ISREG(status.st_mode)) rc = zp_fail(ZP_ESYS, "cannot lock %.300s: it is no file", path);
  else if (rc == 1 && (status.st_mode & ZP_TRUST_PRIVATE)) rc = zp_trust_check(&status, ZP_TRUST_PRIVATE, path);
  if (rc == 1) *out = fd;
  else close(fd);
  return rc;
}

int zp_dirlock_take_file(const char *path, double deadline, int *lock) {
  double latest = zp_clock_now() + FOREIGN_SECONDS;
  for (;;) {
    struct stat status;
    int fd = -1, rc = open_file(path, &fd);
    if (rc < 0) return rc;
    if (rc == 1 && lock_until(fd, deadline) < 0) {
      rc = fail(path);
      close(fd);
      return rc;
    }
    if (rc == 1 && is_named(path, fd)) {
      *lock = fd;
      return 0;
    }
    if (rc == 1) zp_dirlock_release(fd); /* whoever had it has removed it */
    if (rc == 0 && zp_clock_now() > latest && is_foreign(path, &status)) return zp_trust_fail(path, status.st_uid);
    if (rc == 0) nanosleep(&PAUSE, NULL);
  }
}

void zp_dirlock_release(int lock) {
  flock(lock, LOCK_UN);
  close(lock);
}

void zp_dirlock_release_file(const char *path, int lock) {
  unlink(path);
  zp_dirlock_release(lock);
}
