/* interrupt, child: waits that are cut short, and children that are reaped without being waited for. */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/child.h"
#include "sys/inet.h"
#include "sys/interrupt.h"

static const double GENEROUS = 60; /* seconds; a limit, not an expectation */

static double generous(void) { return zp_clock_now() + GENEROUS; }

static zp_child *start(int exitcode, pid_t *pid) {
  zp_child *child = NULL;
  pid_t forked;
  if (zp_child_fork(true, &child, &forked)) fail_msg("%s", zp_error_detail());
  if (forked == 0) _exit(exitcode);
  if (pid) *pid = forked;
  return child;
}

static bool is_there(pid_t pid) { return kill(pid, 0) == 0 || errno != ESRCH; }

static void without_an_interrupt_a_wait_ends_at_its_deadline(void **unused) {
  (void)unused;
  assert_int_equal(zp_interrupt_wait(zp_clock_now() - 1), ZP_ETIMEOUT);
  assert_int_equal(zp_interrupt_wait(zp_clock_now() + 0.01), ZP_ETIMEOUT);
  zp_interrupt_arm();
  assert_int_equal(zp_interrupt_wait(zp_clock_now() + 0.01), ZP_ETIMEOUT);
  zp_interrupt_disarm();
}

static void a_signal_before_the_wait_is_not_slept_through(void **unused) {
  (void)unused;
  assert_int_equal(zp_interrupt_catch(SIGUSR1, false), 0);
  zp_interrupt_arm();
  raise(SIGUSR1);
  assert_true(zp_interrupt_is_due());
  assert_int_equal(zp_interrupt_wait(generous()), ZP_EINTR);
  assert_true(zp_interrupt_has_signal());
  assert_int_equal(zp_interrupt_take(), SIGUSR1);
  assert_int_equal(zp_interrupt_take(), 0);
  zp_interrupt_arm(); /* acknowledged */
  assert_int_equal(zp_interrupt_wait(zp_clock_now() + 0.01), ZP_ETIMEOUT);
  zp_interrupt_disarm();
  zp_interrupt_release(SIGUSR1);
}

static void a_signal_is_given_as_often_as_it_has_come(void **unused) {
  (void)unused;
  assert_int_equal(zp_interrupt_catch(SIGUSR1, false), 0);
  assert_int_equal(zp_interrupt_catch(SIGUSR2, false), 0);
  for (int i = 0; i < 3; i++) raise(SIGUSR1);
  raise(SIGUSR2);
  int ones = 0, twos = 0;
  for (int signal = zp_interrupt_take(); signal; signal = zp_interrupt_take()) {
    ones += signal == SIGUSR1;
    twos += signal == SIGUSR2;
  }
  assert_int_equal(ones, 3);
  assert_int_equal(twos, 1);
  assert_false(zp_interrupt_has_signal());
  zp_interrupt_release(SIGUSR1);
  zp_interrupt_release(SIGUSR2);
}

static void caught_once_the_second_does_what_it_does_by_default(void **unused) {
  (void)unused;
  pid_t pid = fork();
  if (pid == 0) {
    if (zp_interrupt_catch(SIGTERM, true)) _exit(1);
    raise(SIGTERM);
    if (zp_interrupt_take() != SIGTERM) _exit(2);
    raise(SIGTERM);
    _exit(3);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static void what_was_caught_once_is_not_inherited_if_so_wished(void **unused) {
  (void)unused;
  assert_int_equal(zp_interrupt_catch(SIGTERM, true), 0);
  pid_t pid = fork();
  if (pid == 0) {
    zp_interrupt_release_once();
    raise(SIGTERM);
    _exit(3);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
  zp_interrupt_release(SIGTERM);
}

static void a_child_is_not_told_of_what_came_before_it(void **unused) {
  (void)unused;
  assert_int_equal(zp_interrupt_catch(SIGUSR1, false), 0);
  raise(SIGUSR1);
  pid_t pid = fork();
  if (pid == 0) _exit(zp_interrupt_take());
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(WEXITSTATUS(status), 0);
  assert_int_equal(zp_interrupt_take(), SIGUSR1);
  zp_interrupt_release(SIGUSR1);
}

static void what_cannot_be_caught_is_refused(void **unused) {
  (void)unused;
  assert_int_equal(zp_interrupt_catch(SIGKILL, false), ZP_ESYS);
  assert_int_equal(zp_interrupt_catch(SIGSTOP, false), ZP_ESYS);
  assert_int_equal(zp_interrupt_catch(0, false), ZP_ESYS);
  assert_int_equal(zp_interrupt_catch(65, false), ZP_ESYS);
}

static void a_wait_for_a_child_is_cut_short_if_armed_and_only_then(void **unused) {
  (void)unused;
  assert_int_equal(zp_interrupt_catch(SIGALRM, false), 0);
  zp_child *child = NULL;
  pid_t pid;
  int life[2];
  assert_int_equal(pipe(life), 0);
  assert_int_equal(zp_child_fork(true, &child, &pid), 0);
  if (pid == 0) {
    char byte;
    close(life[1]);
    _exit(read(life[0], &byte, 1) == 0 ? 5 : 1);
  }
  close(life[0]);
  struct itimerval soon = {.it_value.tv_usec = 20000};
  zp_interrupt_arm();
  setitimer(ITIMER_REAL, &soon, NULL);
  assert_int_equal(zp_child_wait(child, generous()), ZP_EINTR);
  zp_interrupt_disarm();
  setitimer(ITIMER_REAL, &soon, NULL);
  assert_int_equal(zp_child_wait(child, zp_clock_now() + 0.1), ZP_ETIMEOUT);
  close(life[1]);
  assert_int_equal(zp_child_wait(child, generous()), 0);
  int exitcode;
  assert_true(zp_child_ended(child, &exitcode));
  assert_int_equal(exitcode, 5);
  zp_child_close(&child);
  assert_int_equal(zp_interrupt_take(), SIGALRM);
  zp_interrupt_release(SIGALRM);
}

/* A host that swallows packets: here one whose queue of connections is full. */
static void connecting_is_cut_short(void **unused) {
  (void)unused;
  enum { CALLERS = 16 };
  int callers[CALLERS], fd;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int deaf = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(bind(deaf, (struct sockaddr *)&address, size), 0);
  assert_int_equal(listen(deaf, 0), 0);
  assert_int_equal(getsockname(deaf, (struct sockaddr *)&address, &size), 0);
  for (int i = 0; i < CALLERS; i++) {
    callers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_true(connect(callers[i], (struct sockaddr *)&address, size) == 0 || errno == EINPROGRESS);
  }
  char name[32];
  snprintf(name, sizeof name, "127.0.0.1:%d", ntohs(address.sin_port));
  assert_int_equal(zp_interrupt_catch(SIGALRM, false), 0);
  zp_interrupt_arm();
  struct itimerval soon = {.it_value.tv_usec = 20000};
  setitimer(ITIMER_REAL, &soon, NULL);
  assert_int_equal(zp_inet_connect(name, generous(), &fd), ZP_EINTR);
  assert_int_equal(zp_interrupt_take(), SIGALRM);
  zp_interrupt_disarm();
  assert_int_equal(zp_inet_connect(name, zp_clock_now() + 0.05, &fd), ZP_ETIMEOUT);
  zp_interrupt_release(SIGALRM);
  for (int i = 0; i < CALLERS; i++) close(callers[i]);
  close(deaf);
}

static void no_child_stays_a_zombie_although_nobody_waits(void **unused) {
  (void)unused;
  enum { COUNT = 100 };
  pid_t pids[COUNT];
  zp_child *children[COUNT];
  for (int i = 0; i < COUNT; i++) {
    children[i] = start(i, &pids[i]);
    if (i % 2) zp_child_close(&children[i]);
  }
  for (int i = 0; i < COUNT; i++)
    for (double limit = generous(); is_there(pids[i]); usleep(500))
      if (zp_clock_now() > limit) fail_msg("process %d is still there", (int)pids[i]);
  for (int i = 0; i < COUNT; i += 2) {
    int exitcode;
    assert_true(zp_child_ended(children[i], &exitcode));
    assert_int_equal(exitcode, i);
    zp_child_close(&children[i]);
  }
}

static void other_peoples_children_are_left_alone(void **unused) {
  (void)unused;
  pid_t foreign = fork();
  if (foreign == 0) _exit(9);
  siginfo_t info;
  assert_int_equal(waitid(P_PID, (id_t)foreign, &info, WEXITED | WNOWAIT), 0);
  /* It is a zombie now, which hides what comes after it. */
  pid_t pids[5];
  for (int i = 0; i < 5; i++) {
    zp_child *child = start(i, &pids[i]);
    assert_int_equal(zp_child_wait(child, generous()), 0);
    zp_child_close(&child);
  }
  int status;
  assert_int_equal(waitpid(foreign, &status, 0), foreign);
  assert_int_equal(WEXITSTATUS(status), 9);
}

static void a_child_is_found_although_somebody_has_replaced_the_handler(void **unused) {
  (void)unused;
  struct sigaction ours;
  zp_child *first = start(0, NULL);
  assert_int_equal(zp_child_wait(first, generous()), 0);
  zp_child_close(&first);
  assert_int_equal(sigaction(SIGCHLD, NULL, &ours), 0);
  signal(SIGCHLD, SIG_DFL);
  zp_child *child = start(6, NULL);
  int exitcode;
  assert_int_equal(zp_child_wait(child, generous()), 0);
  assert_true(zp_child_ended(child, &exitcode));
  assert_int_equal(exitcode, 6);
  zp_child_close(&child);
  sigaction(SIGCHLD, &ours, NULL);
}

static void a_stop_is_known_to_be_the_parents_wish(void **unused) {
  (void)unused;
  for (int asked = 0; asked < 2; asked++) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    zp_child *child = NULL;
    pid_t pid;
    assert_int_equal(zp_child_fork(true, &child, &pid), 0);
    if (pid == 0) {
      int number;
      sigwait(&set, &number);
      _exit(zp_child_is_to_stop(child));
    }
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    assert_int_equal(asked ? zp_child_stop(child) : zp_child_signal(child, SIGTERM), 0);
    assert_int_equal(zp_child_wait(child, generous()), 0);
    int exitcode;
    assert_true(zp_child_ended(child, &exitcode));
    assert_int_equal(exitcode, asked);
    zp_child_close(&child);
  }
}

/* Several threads start and reap at once, with the handler running in one of them. */
enum { STARTS = 50 };

static void *start_many(void *context) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, NULL);
  size_t wrong = 0;
  for (int i = 0; i < STARTS; i++) {
    zp_child *child = NULL;
    pid_t pid;
    int exitcode = -1;
    if (zp_child_fork(false, &child, &pid)) return (void *)1000;
    if (pid == 0) _exit(i);
    if (i % 3) wrong += zp_child_wait(child, generous()) != 0 || !zp_child_ended(child, &exitcode) || exitcode != i;
    zp_child_close(&child);
  }
  (void)context;
  return (void *)wrong;
}

static void threads_may_start_children_at_the_same_time(void **unused) {
  (void)unused;
  enum { THREADS = 4 };
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, start_many, NULL), 0);
  for (int i = 0; i < THREADS; i++) {
    void *wrong;
    pthread_join(threads[i], &wrong);
    assert_ptr_equal(wrong, NULL);
  }
  siginfo_t info = {0};
  for (double limit = generous(); waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0; usleep(500))
    if (zp_clock_now() > limit) fail_msg("process %d is still there", (int)info.si_pid);
  assert_int_equal(errno, ECHILD);
}

static void a_queue_has_signals_in_their_order_and_no_more_than_it_can(void **unused) {
  (void)unused;
  enum { ROOM = 4096 };
  static const int order[] = {SIGUSR2, SIGUSR1, SIGUSR1, SIGUSR2};
  assert_int_equal(zp_interrupt_catch(SIGUSR2, false), 0);
  assert_int_equal(zp_interrupt_queue(SIGUSR1), 0);
  assert_int_equal(zp_interrupt_queue(SIGUSR2), 0);
  for (int i = 0; i < 4; i++) raise(order[i]);
  assert_false(zp_interrupt_has_signal());
  zp_interrupt_arm();
  raise(SIGUSR1);
  assert_true(zp_interrupt_is_due());
  zp_interrupt_disarm();
  for (int i = 0; i < 4; i++) assert_int_equal(zp_interrupt_next(), order[i]);
  assert_int_equal(zp_interrupt_next(), SIGUSR1);
  assert_int_equal(zp_interrupt_next(), 0);
  for (int i = 0; i < ROOM + 10; i++) raise(SIGUSR1);
  pid_t pid = fork();
  if (pid == 0) { /* there it is neither queued nor caught */
    if (zp_interrupt_has_queued()) _exit(1);
    raise(SIGUSR1);
    _exit(2);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1);
  for (int i = 0; i < ROOM; i++) assert_int_equal(zp_interrupt_next(), SIGUSR1);
  assert_int_equal(zp_interrupt_next(), 0);
  raise(SIGUSR1);
  assert_int_equal(zp_interrupt_next(), SIGUSR1);
  zp_interrupt_unqueue(SIGUSR2);
  raise(SIGUSR2); /* caught, as before */
  assert_int_equal(zp_interrupt_next(), 0);
  assert_int_equal(zp_interrupt_take(), SIGUSR2);
  zp_interrupt_release(SIGUSR2);
  zp_interrupt_unqueue(SIGUSR1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(without_an_interrupt_a_wait_ends_at_its_deadline),
      cmocka_unit_test(a_signal_before_the_wait_is_not_slept_through),
      cmocka_unit_test(a_signal_is_given_as_often_as_it_has_come),
      cmocka_unit_test(caught_once_the_second_does_what_it_does_by_default),
      cmocka_unit_test(what_was_caught_once_is_not_inherited_if_so_wished),
      cmocka_unit_test(a_child_is_not_told_of_what_came_before_it),
      cmocka_unit_test(what_cannot_be_caught_is_refused),
      cmocka_unit_test(a_wait_for_a_child_is_cut_short_if_armed_and_only_then),
      cmocka_unit_test(connecting_is_cut_short),
      cmocka_unit_test(no_child_stays_a_zombie_although_nobody_waits),
      cmocka_unit_test(other_peoples_children_are_left_alone),
      cmocka_unit_test(a_child_is_found_although_somebody_has_replaced_the_handler),
      cmocka_unit_test(a_stop_is_known_to_be_the_parents_wish),
      cmocka_unit_test(threads_may_start_children_at_the_same_time),
      cmocka_unit_test(a_queue_has_signals_in_their_order_and_no_more_than_it_can),
  };
  return cmocka_run_group_tests_name("interrupt", tests, NULL, NULL);
}
