/*
 * janitor -- looks now and then at what the dead have left in the queue of tasks of a server: claims, and tasks that nobody else wants.
 *
 * Whoever waits for work or for results looks for claims itself, and sooner; but a consumer that was killed may have been the last one who
 * used the queue. So a thread of the server does it, from when there is a queue until the server ends.
 *
 * A janitor is used by one thread. Never fails: what cannot be done now is tried again. Never raises.
 */
#ifndef ZP_SERVER_JANITOR_H
#define ZP_SERVER_JANITOR_H

#include <stdbool.h>

#include "sys/thread.h"

typedef struct zp_janitor {
  const char *directory; /* of the server; borrowed for as long as the janitor is used */
  zp_thread *thread;     /* NULL at first */
} zp_janitor;

/* Begin, if there is a queue by now: true if the janitor is at work. */
bool zp_janitor_begin(zp_janitor *janitor);

/* End it, and wait for that. May be called twice, and if it was never begun. */
void zp_janitor_end(zp_janitor *janitor);

#endif
