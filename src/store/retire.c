/*
 * retire -- giving up a store, so that nobody goes on using files that are about to be removed, or waits at them for ever.
 *
 * The mark is set before the bell is rung, and whoever waits arms the bell before he looks (store.h, waiting): so either he sees
 * the mark or he is woken.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
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

static void retire(const char *directory) {
  zp_control *control = zp_env_map_control(directory);
  if (!control) return;
  atomic_store(&control->retired, 1);
  munmap(control, sizeof *control);
  zp_bell *bell = NULL;
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

bool zp_store_uses(const char *directory, const char *data_file) {
  struct stat data;
  int fd = open(data_file, O_PATH | O_CLOEXEC);
  zp_control *control = fd >= 0 && fstat(fd, &data) == 0 ? zp_env_map_control(directory) : NULL;
  bool is_it = control && zp_env_has_data(control, &data, fd);
  if (control) munmap(control, sizeof *control);
  if (fd >= 0) close(fd);
  return is_it;
}

bool zp_store_is_elsewhere(const char *directory) {
  zp_control *control = zp_env_map_control(directory);
  if (!control) return false;
  bool is_elsewhere = zp_alive_check_space(&control->space, directory) != 0;
  munmap(control, sizeof *control);
  return is_elsewhere;
}

bool zp_store_await_writers(const char *directory, double deadline) {
  static const struct timespec moment = {.tv_nsec = 1000000};
  zp_control *control = zp_env_map_control(directory);
  if (!control) return true;
  int rc;
  while ((rc = pthread_mutex_trylock(&control->writer)) == EBUSY && zp_clock_now() < deadline) nanosleep(&moment, NULL);
  if (rc == EOWNERDEAD) rc = pthread_mutex_consistent(&control->writer);
  if (rc == 0) pthread_mutex_unlock(&control->writer);
  munmap(control, sizeof *control);
  return rc != EBUSY;
}
