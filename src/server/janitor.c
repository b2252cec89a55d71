#include "server/janitor.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "map/queue.h"
#include "store/store.h"
#include "sys/interrupt.h"

static const double PAUSE_SECONDS = 2;     /* between two looks */
static const double PATIENCE_SECONDS = 300; /* with a consumer elsewhere that is out of reach */

/* The ends of other threads are interrupts, too. */
static void rest(void) {
  double until = zp_clock_now() + PAUSE_SECONDS;
  int rc = ZP_EINTR;
  while (rc == ZP_EINTR && !zp_thread_is_to_stop()) {
    zp_interrupt_arm();
    if (!zp_thread_is_to_stop()) rc = zp_interrupt_wait(until);
  }
  zp_interrupt_disarm();
}

static int work(void *context, zp_buf *message) {
  (void)message;
  const zp_janitor *self = context;
  zp_queue *queue = NULL;
  while (!zp_thread_is_to_stop()) {
    int rc = queue ? 0 : zp_queue_open(self->directory, &queue);
    if (!rc) rc = zp_queue_recover(queue);
    if (rc >= 0) zp_queue_clear(queue, PATIENCE_SECONDS);
    rest();
  }
  zp_queue_close(&queue);
  return EXIT_SUCCESS;
}

bool zp_janitor_begin(zp_janitor *self) {
  char path[PATH_MAX];
  if (self->thread) return true;
  if (snprintf(path, sizeof path, "%s/%s", self->directory, ZP_STORE_TASKS) >= PATH_MAX || access(path, F_OK) < 0) return false;
  return zp_thread_start(work, self, &self->thread) == 0;
}

void zp_janitor_end(zp_janitor *self) {
  if (!self->thread) return;
  zp_thread_stop(self->thread, false);
  while (zp_thread_wait(self->thread, ZP_FOREVER) == ZP_EINTR) continue;
  zp_thread_close(&self->thread);
}
