/* sys: forked children and their messages. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/alive.h"
#include "sys/child.h"
#include "sys/memory.h"

static const double GENEROUS = 60; /* seconds; a limit, not an expectation */

static zp_child *must_fork(bool die_with_parent, pid_t *pid) {
  zp_child *child = NULL;
  if (zp_child_fork(die_with_parent, &child, pid)) fail_msg("%s", zp_error_detail());
  return child;
}

static int must_wait(zp_child *child) {
  int rc = zp_child_wait(child, zp_clock_now() + GENEROUS), exitcode = 1000;
  if (rc) fail_msg("%s", rc == ZP_ETIMEOUT ? "the child does not end" : zp_error_detail());
  assert_true(zp_child_ended(child, &exitcode));
  return exitcode;
}

static void an_exit_code_arrives(void **unused) {
  (void)unused;
  pid_t pid;
  zp_child *child = must_fork(true, &pid);
  if (pid == 0) zp_child_exit(7);
  assert_int_equal(zp_child_pid(child), pid);
  assert_int_equal(must_wait(child), 7);
  assert_int_equal(must_wait(child), 7);
  zp_buf message = ZP_BUF_INIT;
  assert_int_equal(zp_child_message(child, &message), 0);
  zp_child_close(&child);
  zp_child_close(&child);
}

static void a_message_far_larger_than_a_pipe_arrives_although_nobody_reads_while_the_child_lives(void **unused) {
  (void)unused;
  const size_t size = 20 << 20;
  pid_t pid;
  zp_child *child = must_fork(true, &pid);
  if (pid == 0) {
    char *bytes = malloc(size);
    for (size_t i = 0; i < size; i++) bytes[i] = (char)(i * 7);
    zp_child_exit(zp_child_leave(child, (zp_bytes){bytes, size}) ? 1 : 0);
  }
  assert_int_equal(must_wait(child), 0);
  zp_buf message = ZP_BUF_INIT;
  assert_int_equal(zp_child_message(child, &message), 1);
  assert_int_equal(message.size, size);
  for (size_t i = 0; i < size; i++)
    if (message.data[i] != (unsigned char)(i * 7)) fail_msg("byte %zu differs", i);
  zp_buf_free(&message);
  zp_child_close(&child);
}

static void a_later_message_replaces_an_earlier_one(void **unused) {
  (void)unused;
  pid_t pid;
  zp_child *child = must_fork(true, &pid);
  if (pid == 0) {
    zp_child_leave(child, (zp_bytes){"the first, longer one", 21});
    zp_child_leave(child, (zp_bytes){"second", 6});
    zp_child_exit(0);
  }
  must_wait(child);
  zp_buf message = ZP_BUF_INIT;
  assert_int_equal(zp_child_message(child, &message), 1);
  assert_int_equal(message.size, 6);
  assert_memory_equal(message.data, "second", 6);
  zp_buf_free(&message);
  zp_child_close(&child);
}

static void a_wait_with_a_deadline_ends_in_time_and_may_be_repeated(void **unused) {
  (void)unused;
  int gate[2];
  assert_int_equal(pipe(gate), 0);
  pid_t pid;
  zp_child *child = must_fork(true, &pid);
  if (pid == 0) {
    char byte;
    close(gate[1]);
    zp_child_exit(read(gate[0], &byte, 1) == 0 ? 3 : 4); /* ends when the parent closes its side */
  }
  assert_int_equal(zp_child_wait(child, zp_clock_now() - 1), ZP_ETIMEOUT);
  assert_int_equal(zp_child_wait(child, zp_clock_now() + 0.02), ZP_ETIMEOUT);
  assert_false(zp_child_ended(child, NULL));
  close(gate[0]);
  close(gate[1]);
  assert_int_equal(must_wait(child), 3);
  zp_child_close(&child);
}

static void death_by_a_signal_is_a_negative_exit_code(void **unused) {
  (void)unused;
  pid_t pid;
  zp_child *child = must_fork(true, &pid);
  if (pid == 0)
    for (;;) pause();
  assert_int_equal(zp_child_signal(child, SIGKILL), 0);
  assert_int_equal(must_wait(child), -SIGKILL);
  assert_int_equal(zp_child_signal(child, SIGKILL), 0); /* nothing is sent to a pid that may be somebody else's now */
  zp_child_close(&child);
}

static void only_the_parent_may_wait_or_signal(void **unused) {
  (void)unused;
  int gate[2];
  assert_int_equal(pipe(gate), 0);
  pid_t pid;
  zp_child *first = must_fork(true, &pid);
  if (pid == 0) {
    char byte;
    close(gate[1]);
    zp_child_exit(read(gate[0], &byte, 1) == 0 ? 0 : 1);
  }
  zp_child *second = must_fork(true, &pid);
  if (pid == 0) {
    close(gate[1]);
    bool refused = zp_child_wait(first, ZP_FOREVER) == ZP_ESYS && zp_child_signal(first, SIGKILL) == ZP_ESYS;
    zp_child_exit(refused ? 0 : 1);
  }
  assert_int_equal(must_wait(second), 0);
  close(gate[0]);
  close(gate[1]);
  assert_int_equal(must_wait(first), 0);
  zp_child_close(&first);
  zp_child_close(&second);
}

static void a_child_dies_with_its_parent_even_by_sigkill(void **unused) {
  (void)unused;
  /* The grandchild holds the write end of a pipe: when it reads as ended, it is dead. */
  int life[2];
  assert_int_equal(pipe(life), 0);
  pid_t pid;
  zp_child *child = must_fork(true, &pid);
  if (pid == 0) {
    close(life[0]);
    zp_child *grandchild = NULL;
    if (zp_child_fork(true, &grandchild, &pid)) zp_child_exit(1);
    if (pid == 0) {
      if (write(life[1], "x", 1) != 1) _exit(1);
      for (;;) pause();
    }
    close(life[1]);
    for (;;) pause();
  }
  close(life[1]);
  char byte;
  assert_int_equal(read(life[0], &byte, 1), 1);
  assert_int_equal(zp_child_signal(child, SIGKILL), 0);
  assert_int_equal(must_wait(child), -SIGKILL);
  assert_int_equal(read(life[0], &byte, 1), 0);
  close(life[0]);
  zp_child_close(&child);
}

static void output_held_back_by_stdio_appears_once(void **unused) {
  (void)unused;
  char path[] = "/tmp/zproc-test-XXXXXX";
  int fd = mkstemp(path);
  FILE *out = fdopen(fd, "w");
  fprintf(out, "before ");
  pid_t pid;
  zp_child *child = must_fork(true, &pid);
  if (pid == 0) {
    fprintf(out, "child ");
    zp_child_exit(0);
  }
  must_wait(child);
  fprintf(out, "after");
  fclose(out);
  char text[100] = "";
  FILE *in = fopen(path, "r");
  size_t size = fread(text, 1, sizeof text - 1, in);
  fclose(in);
  unlink(path);
  text[size] = 0;
  assert_string_equal(text, "before child after");
  zp_child_close(&child);
}

static void a_start_that_the_system_refuses_is_an_error_that_says_why(void **unused) {
  (void)unused;
  if (getenv("ZP_VALGRIND")) skip(); /* which has a limit of its own making */
  pid_t pid;
  zp_child *tester = must_fork(true, &pid);
  if (pid == 0) { /* in a process of its own: the limits stay there */
    struct rlimit none = {0, 0};
    zp_child *child = NULL;
    setrlimit(RLIMIT_NOFILE, &none);
    int rc = zp_child_fork(true, &child, &pid);
    zp_child_exit(rc == ZP_ESYS && !child && strstr(zp_error_detail(), "cannot start a process") ? 0 : 1);
  }
  assert_int_equal(must_wait(tester), 0);
  zp_child_close(&tester);
}

static void memory_of_its_own_is_what_was_written(void **unused) {
  (void)unused;
  enum { SIZE = 64 << 20, SLACK = 8 << 20 };
  size_t before = zp_memory_private();
  assert_true(before > 0);
  char *volatile bytes = malloc(SIZE); /* or it might be left out */
  assert_non_null(bytes);
  memset(bytes, 'x', SIZE);
  size_t with = zp_memory_private();
  free(bytes);
  assert_true(with >= before + SIZE - SLACK && with < before + 2 * (size_t)SIZE);
}

static void memory_is_limited_by_the_machine_and_by_what_was_set(void **unused) {
  (void)unused;
  enum { LESS = 1 << 30 };
  struct rlimit before, limit;
  assert_true(zp_memory_limit() > 0 && zp_memory_limit() <= (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE));
  assert_int_equal(getrlimit(RLIMIT_DATA, &before), 0);
  limit = before;
  limit.rlim_cur = LESS;
  if (zp_memory_limit() < LESS) limit.rlim_cur = zp_memory_limit() - 4096;
  assert_int_equal(setrlimit(RLIMIT_DATA, &limit), 0);
  size_t now = zp_memory_limit();
  assert_int_equal(setrlimit(RLIMIT_DATA, &before), 0);
  assert_int_equal(now, limit.rlim_cur);
}

static void the_living_are_not_taken_for_dead_for_want_of_a_descriptor(void **unused) {
  (void)unused;
  uint64_t start = zp_alive_start(getpid());
  assert_int_not_equal(start, 0);
  assert_true(zp_alive_is(getpid(), start));
  assert_false(zp_alive_is(getpid(), start + 1));
  pid_t gone;
  zp_child *child = must_fork(true, &gone);
  if (gone == 0) zp_child_exit(0);
  must_wait(child);
  zp_child_close(&child);
  struct rlimit before, none;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  none = before;
  none.rlim_cur = 0;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
  bool is_alive = zp_alive_is(getpid(), start), is_gone = !zp_alive_is(gone, start);
  setrlimit(RLIMIT_NOFILE, &before);
  assert_true(is_alive);
  assert_true(is_gone);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_exit_code_arrives),
      cmocka_unit_test(a_message_far_larger_than_a_pipe_arrives_although_nobody_reads_while_the_child_lives),
      cmocka_unit_test(a_later_message_replaces_an_earlier_one),
      cmocka_unit_test(a_wait_with_a_deadline_ends_in_time_and_may_be_repeated),
      cmocka_unit_test(death_by_a_signal_is_a_negative_exit_code),
      cmocka_unit_test(only_the_parent_may_wait_or_signal),
      cmocka_unit_test(a_child_dies_with_its_parent_even_by_sigkill),
      cmocka_unit_test(output_held_back_by_stdio_appears_once),
      cmocka_unit_test(memory_of_its_own_is_what_was_written),
      cmocka_unit_test(memory_is_limited_by_the_machine_and_by_what_was_set),
      cmocka_unit_test(a_start_that_the_system_refuses_is_an_error_that_says_why),
      cmocka_unit_test(the_living_are_not_taken_for_dead_for_want_of_a_descriptor),
  };
  return cmocka_run_group_tests_name("sys", tests, NULL, NULL);
}
