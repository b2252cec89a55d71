#include "sys/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "sys/allocate.h"
#include "sys/trust.h"

static int path_of(const char *directory, const char *name, char path[PATH_MAX]) {
  int size = snprintf(path, PATH_MAX, "%s/%s", directory, name);
  return size < PATH_MAX ? 0 : zp_fail(ZP_ESYS, "the path %.60s... is too long", directory);
}

int zp_shared_create(const char *directory, const char *name, size_t size) {
  char path[PATH_MAX];
  int fd, rc = path_of(directory, name, path);
  if (!rc) rc = zp_trust_open(directory, name, O_RDWR | O_CREAT, &fd);
  if (rc == ZP_ENOSTORE) return zp_fail(ZP_ESYS, "cannot make %s: %s", path, zp_error_detail());
  if (rc) return rc;
  int error = zp_allocate(fd, 0, (off_t)size);
  close(fd);
  if (!error) return 0;
  unlink(path);
  errno = error;
  zp_fail_errno("cannot make %s", path);
  return zp_is_full(error) ? ZP_EFULL : ZP_ESYS;
}

int zp_shared_open(const char *directory, const char *name, size_t size, void **out) {
  char path[PATH_MAX];
  int fd, rc = path_of(directory, name, path);
  if (!rc) rc = zp_trust_open(directory, name, O_RDWR, &fd);
  if (rc == ZP_ENOSTORE) return zp_fail(ZP_ENOSTORE, "there is no state in %s", directory);
  if (rc) return rc;
  struct stat status;
  if (fstat(fd, &status) < 0 || (size_t)status.st_size != size) {
    close(fd);
    return zp_fail(ZP_ESTORE, "%s is damaged", path);
  }
  void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  int error = errno;
  close(fd);
  if (map == MAP_FAILED) {
    errno = error;
    return zp_fail_errno("cannot map %s", path);
  }
  *out = map;
  return 0;
}

void zp_shared_close(void *map, size_t size) {
  if (map) munmap(map, size);
}
