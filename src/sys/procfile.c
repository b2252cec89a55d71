#include "sys/procfile.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

size_t zp_procfile_read(const char *path, char *text, size_t size) {
  ssize_t n = -1;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    do n = read(fd, text, size - 1);
    while (n < 0 && errno == EINTR);
    close(fd);
  }
  size_t count = n > 0 ? (size_t)n : 0;
  text[count] = '\0';
  return count;
}
