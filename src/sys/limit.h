/*
 * limit -- how long this thread may take for what it does. When that is over the thread is urged (interrupt.h), again and again until the
 * limit has ended: what it waits for is cut short, and what else is to be done about it is done by whoever is notified of interrupts.
 *
 * Limits nest: of those that have begun, the one that is over first counts.
 *
 * Fork: a child has no limit. Threads: a limit is a thread's own. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SYS_LIMIT_H
#define ZP_SYS_LIMIT_H

#include <stdbool.h>

/* What is said of a function that was ended: the seconds, and what has become of the state. */
#define ZP_LIMIT_WORDS "the atomic function was stopped, since it took more than %g seconds; %s"

typedef struct zp_limit {
  double deadline; /* on the clock of zp_clock_now; 0: there is none */
  double seconds;
} zp_limit;

/* From now on this thread may take so many seconds; infinity: as long as it likes. `before` is for the end. */
int zp_limit_begin(double seconds, zp_limit *before);
void zp_limit_end(const zp_limit *before);

/* Whether this thread has taken longer than it may. May be called in a signal handler. */
bool zp_limit_is_over(void);

/* The seconds of the limit that counts. */
double zp_limit_seconds(void);

#endif
