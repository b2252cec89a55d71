/*
 * retire -- giving up a store, so that nobody goes on using files that are about to be removed, or waits at them for ever.
 *
 * The mark is set before the bell is rung, and whoever waits arms the bell before he looks (store.h, waiting): so either he sees
 * the mark or he is woken.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "store/handle.h"

int zp_store_fail_retired(const zp_store *store) {
  return zp_fail(ZP_ENOSTORE, "the server of this state has ended; it was in %s", store->directory);
}

/* The control file of a store of this program's kind, mapped; else NULL. */
static zp_control *map_control(const char *directory) {
  char *path = zp_env_path(directory, "control");
  int fd = path ? open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW) : -1;
  free(path);
  struct stat status;
  void *map = MAP_FAILED;
  if (fd >= 0 && fstat(fd, &status) == 0 && status.st_size >= (off_t)sizeof(zp_control))
    map = mmap(NULL, sizeof(zp_control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0) close(fd);
  if (map == MAP_FAILED) return NULL;
  zp_control *control = map;
  if (memcmp(control->magic, ZP_STORE_MAGIC, sizeof control->magic) == 0 && control->format == ZP_STORE_FORMAT &&
      control->size == sizeof *control)
    return control;
  munmap(map, sizeof *control);
  return NULL;
}

static void retire(const char *directory) {
  zp_control *control = map_control(directory);
  if (!control) return;
  atomic_store(&control->retired, 1);
  munmap(control, sizeof *control);
  zp_bell *bell;
  if (zp_bell_open(directory, &bell)) return;
  zp_bell_ring_all(bell);
  zp_bell_close(&bell);
}

void zp_store_retire(const char *directory) {
  char *tasks = zp_env_path(directory, ZP_STORE_TASKS);
  if (tasks) retire(tasks);
  free(tasks);
  retire(directory);
}

bool zp_store_await_writers(const char *directory, double deadline) {
  static const struct timespec moment = {.tv_nsec = 1000000};
  zp_control *control = map_control(directory);
  if (!control) return true;
  int rc;
  while ((rc = pthread_mutex_trylock(&control->writer)) == EBUSY && zp_clock_now() < deadline) nanosleep(&moment, NULL);
  if (rc == EOWNERDEAD) rc = pthread_mutex_consistent(&control->writer);
  if (rc == 0) pthread_mutex_unlock(&control->writer);
  munmap(control, sizeof *control);
  return rc != EBUSY;
}
