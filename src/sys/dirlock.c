#include "sys/dirlock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"

static int fail(const char *directory) {
  int number = errno;
  int rc = zp_fail_errno("cannot lock %s", directory);
  errno = number;
  return rc;
}

/* 0, or -1 with errno. There is no flock with a limit. */
static int lock_until(int fd, double deadline) {
  static const struct timespec pause = {.tv_nsec = 2000000};
  bool is_patient = deadline == ZP_FOREVER;
  while (flock(fd, is_patient ? LOCK_EX : LOCK_EX | LOCK_NB) < 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK || zp_clock_now() > deadline) return -1;
    nanosleep(&pause, NULL);
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

void zp_dirlock_release(int lock) {
  flock(lock, LOCK_UN);
  close(lock);
}
