#include "base/random.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static bool ask_kernel(unsigned char *bytes, size_t size) {
  while (size > 0) {
    ssize_t n = getrandom(bytes, size, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes += n;
    size -= (size_t)n;
  }
  return true;
}

static bool read_device(unsigned char *bytes, size_t size) {
  int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  while (size > 0) {
    ssize_t n = read(fd, bytes, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    bytes += n;
    size -= (size_t)n;
  }
  close(fd);
  return size == 0;
}

/* The finaliser of SplitMix64: each bit of the outcome hangs on each bit of the number. */
static uint64_t mix(uint64_t number) {
  number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9;
  number = (number ^ number >> 27) * 0x94d049bb133111eb;
  return number ^ number >> 31;
}

static void mix_what_there_is(unsigned char *bytes, size_t size) {
  static _Atomic uint64_t count;
  uint64_t given[2] = {0, 0};
  const void *start = (const void *)getauxval(AT_RANDOM); /* 16 bytes, drawn when the program was executed */
  if (start) memcpy(given, start, sizeof given);
  while (size > 0) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t number = mix(given[0] ^ (uint64_t)now.tv_sec * 1000000000 ^ (uint64_t)now.tv_nsec);
    number = mix(number ^ given[1] ^ (uint64_t)getpid() << 32 ^ (uint64_t)gettid());
    number = mix(number + 0x9e3779b97f4a7c15 * (atomic_fetch_add(&count, 1) + 1));
    size_t part = size < sizeof number ? size : sizeof number;
    memcpy(bytes, &number, part);
    bytes += part;
    size -= part;
  }
}

void zp_random_fill(void *bytes, size_t size) {
  int number = errno;
  if (!ask_kernel(bytes, size) && !read_device(bytes, size)) mix_what_there_is(bytes, size);
  errno = number;
}

uint64_t zp_random_number(void) {
  uint64_t number = 0;
  while (number == 0) zp_random_fill(&number, sizeof number);
  return number;
}
