#include "store/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/sum.h"

int zp_files_path(const char *directory, const char *name, char out[PATH_MAX]) {
  return snprintf(out, PATH_MAX, "%s/%s", directory, name) < PATH_MAX ? 0 : zp_fail(ZP_ESYS, "the path %.60s... is too long", directory);
}

uint64_t zp_files_birth(int at, const char *path) {
  struct statx status;
  if (statx(at, path, AT_EMPTY_PATH, STATX_BTIME, &status) < 0 || !(status.stx_mask & STATX_BTIME)) return 0;
  return (uint64_t)status.stx_btime.tv_sec * 1000000000 + status.stx_btime.tv_nsec;
}

static int sync_as(const char *path, int flags) {
  int fd = open(path, flags | O_CLOEXEC);
  int rc = fd < 0 || fsync(fd) < 0 ? zp_fail_errno("cannot sync %s", path) : 0;
  if (fd >= 0) close(fd);
  return rc;
}

int zp_files_sync(const char *path) { return sync_as(path, O_RDONLY); }

int zp_files_sync_directory(const char *directory) { return sync_as(directory, O_RDONLY | O_DIRECTORY); }

int zp_files_replace(const char *directory, const char *from, const char *name) {
  char to[PATH_MAX];
  int rc = zp_files_path(directory, name, to);
  if (!rc) rc = zp_files_sync(from);
  if (!rc && rename(from, to) < 0) rc = zp_fail_errno("cannot replace %s", to);
  return rc ? rc : zp_files_sync_directory(directory);
}

static int fail_copy(const char *from, const char *to) {
  int number = errno;
  int rc = zp_fail_errno("cannot copy %s to %s", from, to);
  return zp_is_full(number) ? ZP_EFULL : rc;
}

static int write_all(int fd, const unsigned char *data, size_t size) {
  while (size > 0) {
    ssize_t n = write(fd, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    data += n;
    size -= (size_t)n;
  }
  return 0;
}

int zp_files_copy(int in, const char *from, uint64_t size, const char *to, uint64_t *sum) {
  enum { PIECE = 1 << 18 };
  unsigned char *piece = malloc(PIECE);
  if (!piece) return zp_fail(ZP_ENOMEM, "out of memory: cannot copy %s", from);
  zp_sum adding;
  zp_sum_begin(&adding);
  unlink(to); /* what lies there may be open to others */
  int rc = 0, out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (out < 0) rc = zp_fail_errno("cannot write %s", to);
  for (uint64_t done = 0; !rc && done < size;) {
    ssize_t n = pread(in, piece, size - done < PIECE ? (size_t)(size - done) : PIECE, (off_t)done);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) rc = zp_fail(ZP_ESTORE, "%s is damaged: it was cut at byte %llu of %llu", from, (unsigned long long)done, (unsigned long long)size);
    else if (n < 0 || write_all(out, piece, (size_t)n) < 0) rc = fail_copy(from, to);
    if (rc) break;
    zp_sum_add(&adding, piece, (size_t)n);
    done += (uint64_t)n;
  }
  if (!rc && fsync(out) < 0) rc = fail_copy(from, to);
  if (out >= 0) close(out);
  if (rc && out >= 0) unlink(to); /* what there was no room for takes none */
  free(piece);
  *sum = zp_sum_end(&adding);
  return rc;
}
