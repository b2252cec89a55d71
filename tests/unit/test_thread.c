/* thread: start, message, end; the wish that it stops; what signals and forks do beside it. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/child.h"
#include "sys/interrupt.h"
#include "sys/thread.h"

static const double GENEROUS = 60; /* seconds; a limit, not an expectation */

static double generous(void) { return zp_clock_now() + GENEROUS; }

static zp_thread *start(zp_thread_main *run, void *context) {
  zp_thread *thread = NULL;
  if (zp_thread_start(run, context, &thread)) fail_msg("%s", zp_error_detail());
  return thread;
}

/* Wait for its end, and let go of it: its exit code. */
static int end(zp_thread **thread) {
  int exitcode = -1;
  assert_int_equal(zp_thread_wait(*thread, generous()), 0);
  assert_true(zp_thread_ended(*thread, &exitcode));
  zp_thread_close(thread);
  zp_thread_close(thread);
  return exitcode;
}

static int leave_context(void *context, zp_buf *message) {
  const char *words = context;
  if (words && zp_buf_append(message, words, strlen(words))) return 1;
  return words ? 7 : 0;
}

static void it_leaves_an_exit_code_and_a_message(void **unused) {
  (void)unused;
  char words[] = "hello";
  zp_thread *thread = start(leave_context, words);
  assert_int_equal(zp_thread_process(thread), getpid());
  assert_int_equal(zp_thread_wait(thread, generous()), 0);
  zp_bytes message = zp_thread_message(thread);
  assert_int_equal(message.size, 5);
  assert_memory_equal(message.data, "hello", 5);
  assert_int_equal(zp_thread_wait(thread, 0), 0);
  assert_int_equal(end(&thread), 7);
  thread = start(leave_context, NULL);
  assert_int_equal(zp_thread_wait(thread, generous()), 0);
  assert_int_equal(zp_thread_message(thread).size, 0);
  assert_int_equal(end(&thread), 0);
}

/* Waits until it has to stop. */
static int wait_for_stop(void *context, zp_buf *message) {
  (void)message;
  _Atomic bool *is_waiting = context;
  for (;;) {
    zp_interrupt_arm();
    int signal = zp_interrupt_take();
    if (signal) return zp_thread_is_to_stop() && !zp_thread_must_stop() ? signal : 1;
    atomic_store(is_waiting, true);
    if (zp_interrupt_wait(generous()) != ZP_EINTR) return 2;
  }
}

static void await(const _Atomic bool *condition) {
  double limit = generous();
  while (!atomic_load(condition)) {
    if (zp_clock_now() > limit) fail_msg("it does not come");
    sched_yield();
  }
}

static void the_wish_that_it_stops_cuts_its_waits_short(void **unused) {
  (void)unused;
  _Atomic bool is_waiting = false;
  zp_thread *thread = start(wait_for_stop, &is_waiting);
  await(&is_waiting);
  assert_int_equal(zp_thread_wait(thread, zp_clock_now() + 0.01), ZP_ETIMEOUT);
  assert_false(zp_thread_ended(thread, NULL));
  zp_thread_stop(thread, false);
  assert_int_equal(end(&thread), SIGTERM);
  assert_false(zp_thread_is_to_stop()); /* this is none */
}

static void a_wish_at_the_very_beginning_is_not_missed(void **unused) {
  (void)unused;
  for (int i = 0; i < 200; i++) {
    _Atomic bool is_waiting = false;
    zp_thread *thread = start(wait_for_stop, &is_waiting);
    zp_thread_stop(thread, false);
    assert_int_equal(end(&thread), SIGTERM);
  }
}

static int spin_until_insisted(void *context, zp_buf *message) {
  (void)context;
  (void)message;
  while (!zp_thread_must_stop()) sched_yield();
  return 3;
}

static void it_is_told_when_somebody_insists(void **unused) {
  (void)unused;
  zp_thread *thread = start(spin_until_insisted, NULL);
  zp_thread_stop(thread, false);
  assert_int_equal(zp_thread_wait(thread, zp_clock_now() + 0.01), ZP_ETIMEOUT);
  zp_thread_stop(thread, true);
  assert_int_equal(end(&thread), 3);
}

/* Even if the first thread has it blocked when it comes. */
static void a_signal_of_the_process_is_for_the_first_thread(void **unused) {
  (void)unused;
  assert_int_equal(zp_interrupt_catch(SIGUSR1, false), 0);
  _Atomic bool is_waiting = false;
  zp_thread *thread = start(wait_for_stop, &is_waiting);
  await(&is_waiting);
  for (int blocked = 0; blocked < 2; blocked++) {
    sigset_t set, before;
    sigemptyset(&set);
    if (blocked) sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, &before);
    zp_interrupt_arm();
    kill(getpid(), SIGUSR1);
    assert_int_equal(zp_interrupt_wait(generous()), ZP_EINTR);
    assert_int_equal(zp_interrupt_take(), SIGUSR1);
    zp_interrupt_disarm();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
  }
  assert_false(zp_thread_ended(thread, NULL));
  zp_thread_stop(thread, false);
  assert_int_equal(end(&thread), SIGTERM);
  zp_interrupt_release(SIGUSR1);
}

static void in_a_child_the_handle_is_inert(void **unused) {
  (void)unused;
  _Atomic bool is_waiting = false;
  zp_thread *thread = start(wait_for_stop, &is_waiting);
  zp_child *child = NULL;
  pid_t pid;
  assert_int_equal(zp_child_fork(true, &child, &pid), 0);
  if (pid == 0) {
    alarm(60);
    zp_thread_stop(thread, false);
    int wrong = zp_thread_wait(thread, generous()) != ZP_ESYS;
    zp_thread_close(&thread);
    _exit(wrong);
  }
  int exitcode = -1;
  assert_int_equal(zp_child_wait(child, generous()), 0);
  assert_true(zp_child_ended(child, &exitcode));
  assert_int_equal(exitcode, 0);
  zp_child_close(&child);
  zp_thread_stop(thread, false);
  assert_int_equal(end(&thread), SIGTERM);
}

/* A process that a thread forks is an ordinary one: it is no thread, takes signals, and is reaped. */
static int fork_and_signal(void *context, zp_buf *message) {
  (void)context;
  (void)message;
  int ready[2];
  zp_child *child = NULL;
  pid_t pid;
  if (pipe(ready) || zp_child_fork(true, &child, &pid)) return 1;
  if (pid == 0) {
    alarm(60);
    if (zp_interrupt_is_in_thread() || zp_thread_is_to_stop() || zp_interrupt_catch(SIGUSR1, false)) _exit(1);
    zp_interrupt_arm();
    (void)!write(ready[1], "", 1);
    if (zp_interrupt_wait(generous()) != ZP_EINTR) _exit(2);
    _exit(zp_interrupt_take() == SIGUSR1 ? 5 : 3);
  }
  char byte;
  int exitcode = -1;
  if (read(ready[0], &byte, 1) != 1 || zp_child_signal(child, SIGUSR1) || zp_child_wait(child, generous())) return 1;
  zp_child_ended(child, &exitcode);
  zp_child_close(&child);
  close(ready[0]);
  close(ready[1]);
  return exitcode;
}

/* In a child that is forked beside other threads ThreadSanitizer's own locks may be taken by those that are not there. */
#if defined __SANITIZE_THREAD__
enum { CAN_FORK = false };
#else
enum { CAN_FORK = true };
#endif

static void threads_start_processes(void **unused) {
  (void)unused;
  if (!CAN_FORK) skip();
  enum { THREADS = 8, ROUNDS = 5 };
  for (int round = 0; round < ROUNDS; round++) {
    zp_thread *threads[THREADS];
    for (int i = 0; i < THREADS; i++) threads[i] = start(fork_and_signal, NULL);
    for (int i = 0; i < THREADS; i++) assert_int_equal(end(&threads[i]), 5);
  }
}

static void one_that_nobody_holds_goes_on(void **unused) {
  (void)unused;
  _Atomic bool is_waiting = false;
  zp_thread *thread = start(wait_for_stop, &is_waiting);
  await(&is_waiting);
  zp_thread_stop(thread, false);
  zp_thread_close(&thread);
  assert_null(thread);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(it_leaves_an_exit_code_and_a_message),
      cmocka_unit_test(the_wish_that_it_stops_cuts_its_waits_short),
      cmocka_unit_test(a_wish_at_the_very_beginning_is_not_missed),
      cmocka_unit_test(it_is_told_when_somebody_insists),
      cmocka_unit_test(a_signal_of_the_process_is_for_the_first_thread),
      cmocka_unit_test(in_a_child_the_handle_is_inert),
      cmocka_unit_test(threads_start_processes),
      cmocka_unit_test(one_that_nobody_holds_goes_on),
  };
  return cmocka_run_group_tests_name("thread", tests, NULL, NULL);
}
