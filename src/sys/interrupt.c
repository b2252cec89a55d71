#include "sys/interrupt.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"

static _Atomic uint32_t count;
static _Thread_local bool is_armed;
static _Thread_local uint32_t armed;

void zp_interrupt_arm(void) {
  armed = atomic_load(&count);
  is_armed = true;
}

void zp_interrupt_disarm(void) { is_armed = false; }

bool zp_interrupt_is_armed(void) { return is_armed; }

bool zp_interrupt_is_due(void) { return is_armed && atomic_load(&count) != armed; }

_Atomic uint32_t *zp_interrupt_word(uint32_t *value) {
  *value = armed;
  return is_armed ? &count : NULL;
}

int zp_interrupt_wait(double deadline) {
  for (;;) {
    if (zp_interrupt_is_due()) return ZP_EINTR;
    if (deadline != ZP_FOREVER && deadline <= zp_clock_now()) return ZP_ETIMEOUT;
    struct timespec until;
    uint32_t seen = is_armed ? armed : atomic_load(&count);
    if (syscall(SYS_futex, &count, FUTEX_WAIT_BITSET_PRIVATE, seen, zp_clock_instant(deadline, &until), NULL, FUTEX_BITSET_MATCH_ANY) < 0 &&
        errno != EAGAIN && errno != EINTR && errno != ETIMEDOUT)
      return zp_fail_errno("cannot wait: futex");
  }
}

void zp_interrupt_all(void) {
  int number = errno;
  atomic_fetch_add(&count, 1);
  syscall(SYS_futex, &count, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
  errno = number;
}

/* ---- signals ---- */

/* What tells a thread to stop. By default it does nothing, and hardly anybody uses it. */
enum { STOP_SIGNAL = SIGURG };

static zp_interrupt_signals process_pending; /* bit n - 1: signal n has come */
static _Atomic uint64_t caught_once;
static void (*_Atomic notify)(void);

static pthread_t first_thread; /* set before there is another one */
static _Thread_local bool is_thread;
static _Thread_local zp_interrupt_signals *thread_pending;

static uint64_t bit(int signal) { return (uint64_t)1 << (signal - 1); }

static zp_interrupt_signals *pending(void) { return is_thread ? thread_pending : &process_pending; }

static void tell(void) {
  void (*call)(void) = atomic_load(&notify);
  if (call) call();
  zp_interrupt_all();
}

/* The kernel prefers the first thread, but takes another one while that blocks the signal. */
static void on_signal(int signal) {
  int number = errno;
  atomic_fetch_or(&process_pending, bit(signal));
  if (is_thread) pthread_kill(first_thread, STOP_SIGNAL);
  else tell();
  errno = number;
}

static void on_stop(int signal) {
  (void)signal;
  int number = errno;
  tell();
  errno = number;
}

/* A child was not there when they came. Whichever thread has forked it, it is the first one there. */
static void after_fork_in_child(void) {
  is_thread = false;
  first_thread = pthread_self();
  atomic_store(&process_pending, 0);
}

static pthread_once_t forks_watched = PTHREAD_ONCE_INIT;

static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

int zp_interrupt_catch(int signal, bool once) {
  pthread_once(&forks_watched, watch_forks);
  if (signal < 1 || signal > 64) return zp_fail(ZP_ESYS, "there is no signal %d", signal);
  /* Without SA_RESTART: what blocks in somebody else's C comes back as well. */
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = once ? (int)SA_RESETHAND : 0};
  if (sigaction(signal, &action, NULL) < 0) return zp_fail_errno("signal %d cannot be caught", signal);
  if (once) atomic_fetch_or(&caught_once, bit(signal));
  else atomic_fetch_and(&caught_once, ~bit(signal));
  return 0;
}

void zp_interrupt_release(int signal_number) {
  signal(signal_number, SIG_DFL);
  atomic_fetch_and(&caught_once, ~bit(signal_number));
  atomic_fetch_and(&process_pending, ~bit(signal_number));
}

void zp_interrupt_release_once(void) {
  uint64_t signals = atomic_load(&caught_once);
  for (int number = 1; signals; number++, signals >>= 1)
    if (signals & 1) zp_interrupt_release(number);
}

int zp_interrupt_take(void) {
  zp_interrupt_signals *signals = pending();
  uint64_t now = atomic_load(signals);
  while (now) {
    int signal = __builtin_ctzll(now) + 1;
    if (atomic_fetch_and(signals, ~bit(signal)) & bit(signal)) return signal;
    now = atomic_load(signals);
  }
  return 0;
}

bool zp_interrupt_has_signal(void) { return atomic_load_explicit(pending(), memory_order_relaxed) != 0; }

void zp_interrupt_set_notify(void (*call)(void)) { atomic_store(&notify, call); }

/* ---- threads ---- */

static pthread_once_t threads_prepared = PTHREAD_ONCE_INIT;

static void prepare_threads(void) {
  first_thread = pthread_self();
  /* With SA_RESTART: most of those that come are for somebody else. */
  struct sigaction action = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
  sigaction(STOP_SIGNAL, &action, NULL);
}

void zp_interrupt_prepare_threads(void) {
  pthread_once(&forks_watched, watch_forks);
  pthread_once(&threads_prepared, prepare_threads);
}

void zp_interrupt_enter_thread(zp_interrupt_signals *signals) {
  thread_pending = signals;
  is_thread = true;
}

bool zp_interrupt_is_in_thread(void) { return is_thread; }

void zp_interrupt_thread(pthread_t thread, zp_interrupt_signals *signals) {
  atomic_fetch_or(signals, bit(SIGTERM));
  pthread_kill(thread, STOP_SIGNAL); /* so that it is interrupted while it computes, too */
  zp_interrupt_all();
}
