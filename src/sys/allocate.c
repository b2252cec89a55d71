#include "sys/allocate.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum {
  PIECE = 1 << 20, /* small ones, so that a program with a fast interval timer, whose signals cut a call short, gets on */
  WRITTEN = 4096
};

/* What is there is written once more, and zeros where there is nothing. */
static int write_piece(int fd, off_t from, size_t size) {
  char bytes[WRITTEN] = {0};
  ssize_t n;
  do n = pread(fd, bytes, size, from);
  while (n < 0 && errno == EINTR);
  if (n < 0) return errno;
  for (size_t done = 0; done < size;) {
    n = pwrite(fd, bytes + done, size - done, from + (off_t)done);
    if (n < 0 && errno != EINTR) return errno;
    if (n > 0) done += (size_t)n;
  }
  return 0;
}

static int write_all(int fd, off_t from, off_t to) {
  for (; from < to; from += WRITTEN) {
    int rc = write_piece(fd, from, to - from < WRITTEN ? (size_t)(to - from) : WRITTEN);
    if (rc) return rc;
  }
  return 0;
}

int zp_allocate(int fd, off_t from, off_t to) {
  while (from < to) {
    off_t size = to - from < PIECE ? to - from : PIECE;
    int rc = posix_fallocate(fd, from, size);
    if (rc == EINTR) continue;
    if (rc == ENOSYS || rc == EPERM || rc == EOPNOTSUPP) return write_all(fd, from, to);
    if (rc) return rc;
    from += size;
  }
  return 0;
}
