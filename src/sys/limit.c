#include "sys/limit.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/interrupt.h"

enum { AGAIN_NANOSECONDS = 10000000 }; /* between two urges, since what is done about one can be undone */

static _Thread_local struct {
  volatile double deadline, seconds;
  bool has_timer;
  int timer; /* the kernel's number */
} own;

/* Timers are not inherited, and what a function has forked is not that function. */
static void after_fork_in_child(void) { memset(&own, 0, sizeof own); }

static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

static void set(zp_limit limit) {
  own.deadline = limit.deadline;
  own.seconds = limit.seconds;
}

static int make_timer(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
  zp_interrupt_prepare_threads(); /* puts the handler */
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = ZP_INTERRUPT_URGE};
  event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
  if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &own.timer) < 0) return zp_fail_errno("cannot limit the time: timer_create");
  own.has_timer = true;
  return 0;
}

static int set_timer(double deadline) {
  struct itimerspec at = {.it_interval = {.tv_nsec = AGAIN_NANOSECONDS}};
  zp_clock_instant(deadline, &at.it_value);
  if (syscall(SYS_timer_settime, own.timer, TIMER_ABSTIME, &at, NULL) < 0) return zp_fail_errno("cannot limit the time: timer_settime");
  return 0;
}

static void delete_timer(void) {
  if (own.has_timer) syscall(SYS_timer_delete, own.timer);
  own.has_timer = false;
}

int zp_limit_begin(double seconds, zp_limit *before) {
  double deadline = zp_clock_now() + seconds;
  *before = (zp_limit){own.deadline, own.seconds};
  if (deadline == ZP_FOREVER || (before->deadline > 0 && before->deadline <= deadline)) return 0;
  int rc = own.has_timer ? 0 : make_timer();
  if (!rc) rc = set_timer(deadline);
  if (!rc) set((zp_limit){deadline, seconds});
  else if (before->deadline <= 0) delete_timer();
  return rc;
}

void zp_limit_end(const zp_limit *before) {
  if (own.deadline == before->deadline) return; /* another one has counted */
  set(*before);
  if (before->deadline > 0) (void)set_timer(before->deadline); /* the timer is there, and the instant is a right one */
  else delete_timer();
}

bool zp_limit_is_over(void) { return own.deadline > 0 && zp_clock_now() >= own.deadline; }

double zp_limit_seconds(void) { return own.seconds; }
