#include "sys/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What getdents64 gives. */
struct entry {
  uint64_t inode;
  int64_t offset;
  unsigned short size;
  unsigned char type;
  char name[];
};

/* Close those that /proc lists. It may list more once these are closed, so it is read until there are none. 0, or -1 if it cannot be read. */
static int close_listed(unsigned first, unsigned last) {
  _Alignas(struct entry) char entries[2048];
  int directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC), closed;
  if (directory < 0) return -1;
  do {
    long size;
    closed = 0;
    if (lseek(directory, 0, SEEK_SET) < 0) break;
    while ((size = syscall(SYS_getdents64, directory, entries, sizeof entries)) > 0)
      for (long at = 0; at < size;) {
        const struct entry *entry = (const struct entry *)(entries + at);
        at += entry->size;
        unsigned fd = 0;
        const char *digit = entry->name;
        while (*digit >= '0' && *digit <= '9') fd = fd * 10 + (unsigned)(*digit++ - '0');
        if (*digit || digit == entry->name || fd < first || fd > last || fd == (unsigned)directory) continue;
        if (close((int)fd) == 0) closed++;
      }
    if (size < 0) closed = -1;
  } while (closed > 0);
  close(directory);
  return closed < 0 ? -1 : 0;
}

void zp_descriptor_close_range(unsigned first, unsigned last) {
  if (first > last || syscall(SYS_close_range, first, last, 0) == 0) return;
  /* Where no descriptor is free for the directory, the first one to go makes room. */
  if (close_listed(first, last) == 0) return;
  if (errno == EMFILE) {
    close((int)first);
    if (close_listed(first, last) == 0) return;
  }
  enum { MANY = 1 << 16 }; /* without /proc: more than that nobody has tried */
  struct rlimit limit;
  rlim_t end = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < MANY ? limit.rlim_cur : MANY;
  for (unsigned fd = first; fd <= last && fd < end; fd++) close((int)fd);
}

int zp_descriptor_memory(const char *name) {
  static const char *const places[] = {"/dev/shm", "/tmp", "/var/tmp"};
  int fd = memfd_create(name, MFD_CLOEXEC);
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM && errno != EACCES)) return fd;
  int number = errno;
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    fd = open(places[i], O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd >= 0) return fd;
    char path[64] = "";
    strcat(strcat(path, places[i]), "/zproc-XXXXXX"); /* a file system without files that have no name */
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) continue;
    unlink(path);
    return fd;
  }
  errno = number;
  return -1;
}
