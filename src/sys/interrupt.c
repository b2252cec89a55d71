#include "sys/interrupt.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/handler.h"
#include "sys/notepad.h"

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

enum { SIGNALS = 65 };

static zp_interrupt_signals process_pending; /* bit n - 1: signal n has come */
static _Atomic uint32_t process_counts[SIGNALS]; /* and so often */
static _Atomic uint64_t caught, caught_once;
static struct sigaction before[SIGNALS]; /* what the program did with those that are caught */
static _Atomic uint64_t ever_come;
static uint64_t deferred;             /* signals that are the matter of the script that has started this worker */
static bool (*is_term_wished)(void);  /* or NULL: SIGTERM is as other signals */
static void (*_Atomic notify)(void);

static atomic_flag is_putting = ATOMIC_FLAG_INIT; /* some thread puts or removes the handler of ZP_INTERRUPT_URGE */
static pthread_t first_thread; /* set before there is another one */
static _Thread_local bool is_thread;
static _Thread_local zp_interrupt_signals *thread_pending;

/* The queue: its places are taken in turn, and what is in one that was taken is written right after. */
enum { QUEUE_SIZE = 4096 };
static _Atomic unsigned char queue[QUEUE_SIZE]; /* 0: nothing yet */
static _Atomic uint32_t queue_put, queue_taken;
static _Atomic uint64_t queued; /* the signals that are put there */
static _Atomic uint64_t queued_caught, queued_once; /* of these: those that were caught before, and with `once` */

static uint64_t bit(int signal) { return (uint64_t)1 << (signal - 1); }

static zp_interrupt_signals *pending(void) { return is_thread ? thread_pending : &process_pending; }

void zp_interrupt_notify(void) {
  void (*call)(void) = atomic_load(&notify);
  if (call) call();
  zp_interrupt_all();
}

static void enqueue(int signal) {
  uint32_t place = atomic_load(&queue_put);
  do {
    if (place - atomic_load(&queue_taken) >= QUEUE_SIZE) return;
  } while (!atomic_compare_exchange_weak(&queue_put, &place, place + 1));
  atomic_store(&queue[place % QUEUE_SIZE], (unsigned char)signal);
}

bool zp_interrupt_has_queued(void) { return atomic_load(&queue[atomic_load(&queue_taken) % QUEUE_SIZE]) != 0; }

int zp_interrupt_next(void) {
  uint32_t place = atomic_load(&queue_taken);
  int signal = atomic_exchange(&queue[place % QUEUE_SIZE], 0);
  if (signal) atomic_store(&queue_taken, place + 1);
  return signal;
}

/* The kernel prefers the first thread, but takes another one while that blocks the signal. */
static void on_signal(int signal) {
  int number = errno;
  atomic_fetch_or(&ever_come, bit(signal));
  if (atomic_load(&queued) & bit(signal)) {
    enqueue(signal);
    zp_interrupt_all();
    errno = number;
    return;
  }
  atomic_fetch_add(&process_counts[signal], 1);
  atomic_fetch_or(&process_pending, bit(signal));
  if (is_thread) pthread_kill(first_thread, ZP_INTERRUPT_URGE);
  else zp_interrupt_notify();
  errno = number;
}

static void on_urge(int signal) {
  (void)signal;
  int number = errno;
  if (!is_thread && !pthread_equal(pthread_self(), first_thread)) { /* a thread of somebody else's */
    pthread_kill(first_thread, ZP_INTERRUPT_URGE);
  } else {
    zp_notepad_on_urge();
    zp_interrupt_notify();
  }
  errno = number;
}

static void forget_pending(int signal) {
  atomic_fetch_and(&process_pending, ~bit(signal));
  if (atomic_load(&process_counts[signal])) atomic_store(&process_counts[signal], 0);
}

/* A child was not there when they came. Whichever thread has forked it, it is the first one there. */
static void after_fork_in_child(void) {
  is_thread = false;
  first_thread = pthread_self();
  uint64_t signals = atomic_load(&process_pending);
  for (int number = 1; signals; number++, signals >>= 1)
    if (signals & 1) forget_pending(number);
  while (zp_interrupt_next()) {}
  signals = atomic_load(&queued);
  for (int number = 1; signals; number++, signals >>= 1)
    if (signals & 1) zp_interrupt_unqueue(number);
  atomic_flag_clear(&is_putting);
  atomic_store(&ever_come, 0);
}

static pthread_once_t forks_watched = PTHREAD_ONCE_INIT;

static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

int zp_interrupt_catch(int signal, bool once) {
  pthread_once(&forks_watched, watch_forks);
  if (signal < 1 || signal >= SIGNALS) return zp_fail(ZP_ESYS, "there is no signal %d", signal);
  /* Without SA_RESTART: what blocks in somebody else's C comes back as well. */
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = once ? (int)SA_RESETHAND : 0}, old;
  if (sigaction(signal, &action, &old) < 0) return zp_fail_errno("signal %d cannot be caught", signal);
  /* What a signal that was caught once has been reset to is not what the program had. */
  if (!(atomic_fetch_or(&caught, bit(signal)) & bit(signal))) before[signal] = old;
  deferred &= ~bit(signal);
  if (signal == SIGTERM) is_term_wished = NULL;
  if (once) atomic_fetch_or(&caught_once, bit(signal));
  else atomic_fetch_and(&caught_once, ~bit(signal));
  return 0;
}

static void on_deferred(int signal) { (void)signal; }

void zp_interrupt_defer(bool (*is_wished)(void)) {
  /* A handler, as programs that the worker starts would inherit that a signal is ignored. */
  struct sigaction action = {.sa_handler = on_deferred, .sa_flags = SA_RESTART}, old;
  is_term_wished = atomic_load(&caught) & bit(SIGTERM) ? is_wished : NULL;
  deferred = (atomic_load(&caught) | bit(SIGINT)) & ~bit(SIGTERM);
  for (int number = 1; number < SIGNALS; number++) {
    if (!(deferred & bit(number)) || zp_interrupt_is_ignored(number) || sigaction(number, &action, &old) < 0) continue;
    if (atomic_fetch_or(&caught, bit(number)) & bit(number)) continue;
    before[number] = old;
    atomic_fetch_or(&caught_once, bit(number)); /* it is this process's alone */
  }
  for (int number = 1; number < SIGNALS; number++) forget_pending(number);
}

void zp_interrupt_resume(void) {
  struct sigaction action = {.sa_handler = on_signal};
  uint64_t signals = deferred & atomic_load(&caught) & ~atomic_load(&caught_once);
  for (int number = 1; number < SIGNALS; number++)
    if (signals & bit(number)) sigaction(number, &action, NULL);
  deferred = 0;
  is_term_wished = NULL;
}

bool zp_interrupt_is_ignored(int signal) {
  struct sigaction now;
  return sigaction(signal, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_IGN;
}

void zp_interrupt_release(int signal) {
  if (atomic_fetch_and(&caught, ~bit(signal)) & bit(signal)) sigaction(signal, &before[signal], NULL);
  atomic_fetch_and(&caught_once, ~bit(signal));
  forget_pending(signal);
}

int zp_interrupt_queue(int signal) {
  uint64_t was_caught = atomic_load(&caught), was_once = atomic_load(&caught_once);
  int rc = zp_interrupt_catch(signal, false);
  if (rc) return rc;
  if (was_caught & bit(signal)) atomic_fetch_or(&queued_caught, bit(signal));
  if (was_once & bit(signal)) atomic_fetch_or(&queued_once, bit(signal));
  atomic_fetch_or(&queued, bit(signal));
  return 0;
}

void zp_interrupt_unqueue(int signal) {
  if (!(atomic_load(&queued) & bit(signal))) return;
  bool once = atomic_load(&queued_once) & bit(signal);
  if (atomic_load(&queued_caught) & bit(signal)) (void)zp_interrupt_catch(signal, once); /* which it was before, so it can be */
  else zp_interrupt_release(signal);
  atomic_fetch_and(&queued, ~bit(signal));
  atomic_fetch_and(&queued_caught, ~bit(signal));
  atomic_fetch_and(&queued_once, ~bit(signal));
}

void zp_interrupt_release_once(void) {
  uint64_t signals = atomic_load(&caught_once);
  for (int number = 1; signals; number++, signals >>= 1) {
    if (!(signals & 1)) continue;
    zp_interrupt_release(number);
    /* A handler of the program, such as that of the interpreter lua5.4 for ^C, is for what runs in the parent. */
    struct sigaction now;
    bool is_handled = sigaction(number, NULL, &now) == 0 && ((now.sa_flags & SA_SIGINFO) || (now.sa_handler != SIG_IGN && now.sa_handler != SIG_DFL));
    if (is_handled) signal(number, SIG_DFL);
  }
}

int zp_interrupt_take(void) {
  zp_interrupt_signals *signals = pending();
  uint64_t now = atomic_load(signals);
  while (now) {
    int signal = __builtin_ctzll(now) + 1;
    if (atomic_fetch_and(signals, ~bit(signal)) & bit(signal)) {
      if (is_thread) return signal;
      /* The handler counts first, and notes then: what it does in between is counted here, or noted again. */
      bool is_there = atomic_load(&process_counts[signal]) > 0;
      bool is_deferred = signal == SIGTERM && is_term_wished && !is_term_wished();
      if (is_there && atomic_fetch_sub(&process_counts[signal], 1) > 1) atomic_fetch_or(signals, bit(signal));
      if (is_there && !is_deferred) return signal;
    }
    now = atomic_load(signals);
  }
  return 0;
}

bool zp_interrupt_has_signal(void) { return atomic_load_explicit(pending(), memory_order_relaxed) != 0; }

bool zp_interrupt_has_come(int signal) { return (atomic_load(&ever_come) & bit(signal)) != 0; }

void zp_interrupt_set_notify(void (*call)(void)) { atomic_store(&notify, call); }

/* ---- threads ---- */

static pthread_once_t threads_prepared = PTHREAD_ONCE_INIT;

static void prepare_threads(void) { first_thread = pthread_self(); }

static void begin_putting(void) {
  while (atomic_flag_test_and_set(&is_putting)) sched_yield();
}

void zp_interrupt_prepare_threads(void) {
  pthread_once(&forks_watched, watch_forks);
  pthread_once(&threads_prepared, prepare_threads);
  begin_putting();
  (void)zp_handler_put(ZP_INTERRUPT_URGE, on_urge); /* it cannot fail for this signal */
  atomic_flag_clear(&is_putting);
}

void zp_interrupt_release_all(void) {
  uint64_t signals = atomic_load(&caught);
  for (int number = 1; signals; number++, signals >>= 1)
    if (signals & 1) zp_interrupt_release(number);
  begin_putting();
  zp_handler_remove(ZP_INTERRUPT_URGE);
  atomic_flag_clear(&is_putting);
}

void zp_interrupt_enter_thread(zp_interrupt_signals *signals) {
  thread_pending = signals;
  is_thread = true;
}

bool zp_interrupt_is_in_thread(void) { return is_thread; }

void zp_interrupt_thread(pthread_t thread, zp_interrupt_signals *signals) {
  atomic_fetch_or(signals, bit(SIGTERM));
  pthread_kill(thread, ZP_INTERRUPT_URGE); /* so that it is interrupted while it computes, too */
  zp_interrupt_all();
}
