/* bell: no ring is lost, none is needless for long. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/bell.h"
#include "sys/interrupt.h"

static const double GENEROUS = 60; /* seconds; a limit, not an expectation */

static char directory[] = "/tmp/zproc-bell-XXXXXX";
static zp_bell *bell;

static int set_up(void **unused) {
  (void)unused;
  return mkdtemp(directory) && zp_bell_create(directory) == 0 && zp_bell_open(directory, &bell) == 0 ? 0 : -1;
}

static int tear_down(void **unused) {
  (void)unused;
  char path[100];
  zp_bell_close(&bell);
  zp_bell_close(&bell);
  snprintf(path, sizeof path, "%s/bell", directory);
  return unlink(path) | rmdir(directory);
}

static uint64_t tag(const char *key) { return zp_bell_tag("default", (zp_bytes){key, strlen(key)}); }

static int wait_for(uint64_t one, uint32_t ticket, double deadline) {
  return zp_bell_wait(bell, &one, &ticket, 1, deadline);
}

static double generous(void) { return zp_clock_now() + GENEROUS; }

static void tags_tell_keys_and_namespaces_apart(void **unused) {
  (void)unused;
  assert_true(tag("a") != tag("b"));
  assert_true(zp_bell_tag("a", (zp_bytes){"bc", 2}) != zp_bell_tag("ab", (zp_bytes){"c", 1}));
  assert_true(zp_bell_tag_all("default") != tag("a"));
  assert_true(zp_bell_tag_all("default") != zp_bell_tag_all("other"));
  assert_true(tag("a") == tag("a"));
}

static void a_wait_without_a_ring_times_out(void **unused) {
  (void)unused;
  uint32_t ticket = zp_bell_arm(bell, tag("quiet"));
  assert_int_equal(wait_for(tag("quiet"), ticket, zp_clock_now() + 0.02), ZP_ETIMEOUT);
  assert_int_equal(wait_for(tag("quiet"), ticket, 0), ZP_ETIMEOUT);
}

static void a_ring_after_the_arming_voids_the_ticket(void **unused) {
  (void)unused;
  uint64_t door = tag("door");
  uint32_t ticket = zp_bell_arm(bell, door);
  zp_bell_ring(bell, door);
  assert_int_equal(wait_for(door, ticket, ZP_FOREVER), 0);
  assert_int_equal(wait_for(door, ticket, 0), 0);
}

static void a_ring_before_the_arming_does_not_count(void **unused) {
  (void)unused;
  uint64_t door = tag("door");
  zp_bell_ring(bell, door);
  uint32_t ticket = zp_bell_arm(bell, door);
  assert_int_equal(wait_for(door, ticket, 0), ZP_ETIMEOUT);
}

static void a_wait_for_several_tags_ends_with_a_ring_of_any(void **unused) {
  (void)unused;
  uint64_t tags[3] = {tag("first"), tag("second"), tag("third")};
  for (int rung = 0; rung < 3; rung++) {
    uint32_t tickets[3];
    for (int i = 0; i < 3; i++) tickets[i] = zp_bell_arm(bell, tags[i]);
    assert_int_equal(zp_bell_wait(bell, tags, tickets, 3, zp_clock_now() + 0.01), ZP_ETIMEOUT);
    pid_t pid = fork();
    if (pid == 0) {
      zp_bell_ring(bell, tags[rung]);
      _exit(0);
    }
    assert_int_equal(zp_bell_wait(bell, tags, tickets, 3, generous()), 0);
    waitpid(pid, NULL, 0);
  }
}

/* The tags of a bucket are told apart by their upper half. */
static const uint64_t ONE = (uint64_t)2 << 32 | 7, OTHER = (uint64_t)4 << 32 | 7;

static void a_ring_of_another_tag_of_the_bucket_wakes_nobody(void **unused) {
  (void)unused;
  uint32_t ticket = zp_bell_arm(bell, ONE);
  assert_int_equal(zp_bell_arm(bell, ONE), ticket); /* by a second waiter for the same */
  zp_bell_ring(bell, OTHER);
  assert_int_equal(wait_for(ONE, ticket, 0), ZP_ETIMEOUT);
  zp_bell_ring(bell, ONE);
  assert_int_equal(wait_for(ONE, ticket, 0), 0);
}

static void waiters_for_several_tags_of_a_bucket_are_woken_by_each(void **unused) {
  (void)unused;
  for (int rung = 0; rung < 2; rung++) {
    uint32_t one = zp_bell_arm(bell, ONE), other = zp_bell_arm(bell, OTHER), again = zp_bell_arm(bell, ONE);
    zp_bell_ring(bell, rung ? OTHER : ONE);
    assert_int_equal(wait_for(ONE, one, 0), 0);
    assert_int_equal(wait_for(OTHER, other, 0), 0);
    assert_int_equal(wait_for(ONE, again, 0), 0);
  }
  uint32_t ticket = zp_bell_arm(bell, OTHER); /* and what was for both is forgotten */
  zp_bell_ring(bell, ONE);
  assert_int_equal(wait_for(OTHER, ticket, 0), ZP_ETIMEOUT);
}

static void a_ring_of_all_voids_every_ticket(void **unused) {
  (void)unused;
  uint64_t far = tag("far");
  uint32_t one = zp_bell_arm(bell, ONE), ticket = zp_bell_arm(bell, far);
  zp_bell_ring_all(bell);
  assert_int_equal(wait_for(ONE, one, 0), 0);
  assert_int_equal(wait_for(far, ticket, 0), 0);
}

/* A caught signal between arming and waiting, or while waiting: neither is slept through. */
static void a_signal_cuts_a_wait_short(void **unused) {
  (void)unused;
  assert_int_equal(zp_interrupt_catch(SIGALRM, false), 0);
  uint32_t ticket = zp_bell_arm(bell, tag("quiet"));
  zp_interrupt_arm();
  raise(SIGALRM);
  assert_int_equal(wait_for(tag("quiet"), ticket, generous()), ZP_EINTR);
  assert_int_equal(zp_interrupt_take(), SIGALRM);
  zp_interrupt_arm();
  struct itimerval soon = {.it_value.tv_usec = 20000};
  assert_int_equal(setitimer(ITIMER_REAL, &soon, NULL), 0);
  assert_int_equal(wait_for(tag("quiet"), ticket, generous()), ZP_EINTR);
  assert_int_equal(zp_interrupt_take(), SIGALRM);
  assert_int_equal(zp_interrupt_take(), 0);
  zp_interrupt_disarm();
  assert_int_equal(wait_for(tag("quiet"), ticket, zp_clock_now() + 0.01), ZP_ETIMEOUT);
  zp_interrupt_release(SIGALRM);
}

/* Two processes pass a number to and fro, each waiting for the other: any lost ring would hang them. */
static void two_processes_hand_a_turn_to_each_other_without_losing_one(void **unused) {
  (void)unused;
  enum { TURNS = 20000 };
  _Atomic int *turn = mmap(NULL, sizeof *turn, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  uint64_t mine = tag("ping"), others = tag("pong");
  pid_t pid = fork();
  assert_true(pid >= 0);
  int parity = 0;
  if (pid == 0) {
    uint64_t swap = mine;
    mine = others;
    others = swap;
    parity = 1;
  }
  double limit = generous();
  int rc = 0;
  for (int i = parity; i < TURNS && !rc; i += 2) {
    for (;;) {
      uint32_t ticket = zp_bell_arm(bell, mine);
      if (atomic_load(turn) == i) break;
      rc = wait_for(mine, ticket, limit);
      if (rc) break;
    }
    if (!rc) {
      atomic_store(turn, i + 1);
      zp_bell_ring(bell, others);
    }
  }
  if (pid == 0) _exit(rc ? 1 : 0);
  int status;
  waitpid(pid, &status, 0);
  assert_int_equal(rc, 0);
  assert_int_equal(status, 0);
  assert_int_equal(atomic_load(turn), TURNS);
  munmap((void *)turn, sizeof *turn);
}

/* Many waiters on one bucket, one ringer that counts up: each waiter sees the last number. */
static void every_waiter_of_a_bucket_is_woken(void **unused) {
  (void)unused;
  enum { WAITERS = 20, ROUNDS = 500 };
  struct shared {
    _Atomic int number, arrived;
  } *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  uint64_t news = tag("news"), done = tag("done");
  pid_t pids[WAITERS];
  for (int w = 0; w < WAITERS; w++) {
    pids[w] = fork();
    if (pids[w]) continue;
    double limit = generous();
    for (int seen = 0; seen < ROUNDS; seen++) {
      for (;;) {
        uint32_t ticket = zp_bell_arm(bell, news);
        if (atomic_load(&shared->number) > seen) break;
        if (wait_for(news, ticket, limit)) _exit(1);
      }
      atomic_fetch_add(&shared->arrived, 1);
      zp_bell_ring(bell, done);
    }
    _exit(0);
  }
  double limit = generous();
  for (int round = 1; round <= ROUNDS; round++) {
    atomic_store(&shared->number, round);
    zp_bell_ring(bell, news);
    for (;;) {
      uint32_t ticket = zp_bell_arm(bell, done);
      if (atomic_load(&shared->arrived) == round * WAITERS) break;
      assert_int_equal(wait_for(done, ticket, limit), 0);
    }
  }
  for (int w = 0; w < WAITERS; w++) {
    int status;
    waitpid(pids[w], &status, 0);
    assert_int_equal(status, 0);
  }
  munmap(shared, sizeof *shared);
}

static void a_waiter_that_was_killed_is_forgotten(void **unused) {
  (void)unused;
  uint64_t door = tag("killed");
  int ready[2];
  assert_int_equal(pipe(ready), 0);
  pid_t pid = fork();
  if (pid == 0) {
    uint32_t ticket = zp_bell_arm(bell, door);
    if (write(ready[1], "x", 1) != 1) _exit(1);
    wait_for(door, ticket, ZP_FOREVER);
    _exit(0);
  }
  char byte;
  assert_int_equal(read(ready[0], &byte, 1), 1);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  zp_bell_ring(bell, door); /* clears what the dead one left */
  uint32_t ticket = zp_bell_arm(bell, door);
  assert_int_equal(wait_for(door, ticket, 0), ZP_ETIMEOUT);
  close(ready[0]);
  close(ready[1]);
}

static void waiters_can_be_counted(void **unused) {
  (void)unused;
  uint64_t tags[] = {tag("left"), tag("right")};
  bool told = false;
  unsigned count = 0;
  zp_bell_count_waiting(getppid(), &told); /* which waits for this one */
  if (!told) skip(); /* the kernel does not tell */
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    uint32_t tickets[] = {zp_bell_arm(bell, tags[0]), zp_bell_arm(bell, tags[1])};
    zp_bell_wait(bell, tags, tickets, 2, ZP_FOREVER);
    pause();
  }
  double deadline = generous();
  assert_int_equal(zp_bell_count_waiting(getpid(), &told), 0);
  while (count != 1 && zp_clock_now() < deadline) count = zp_bell_count_waiting(pid, &told);
  assert_int_equal(count, 1);
  zp_bell_ring(bell, tags[1]);
  while (count != 0 && zp_clock_now() < deadline) count = zp_bell_count_waiting(pid, &told);
  assert_int_equal(count, 0);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  assert_int_equal(zp_bell_count_waiting(pid, &told), 0);
}

static void a_directory_without_a_bell_is_an_error(void **unused) {
  (void)unused;
  zp_bell *none = NULL;
  assert_int_equal(zp_bell_open("/nowhere", &none), ZP_ENOSTORE);
  assert_int_equal(zp_bell_create("/nowhere"), ZP_ESYS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tags_tell_keys_and_namespaces_apart),
      cmocka_unit_test(a_wait_without_a_ring_times_out),
      cmocka_unit_test(a_ring_after_the_arming_voids_the_ticket),
      cmocka_unit_test(a_ring_before_the_arming_does_not_count),
      cmocka_unit_test(a_wait_for_several_tags_ends_with_a_ring_of_any),
      cmocka_unit_test(a_ring_of_another_tag_of_the_bucket_wakes_nobody),
      cmocka_unit_test(waiters_for_several_tags_of_a_bucket_are_woken_by_each),
      cmocka_unit_test(a_ring_of_all_voids_every_ticket),
      cmocka_unit_test(a_signal_cuts_a_wait_short),
      cmocka_unit_test(two_processes_hand_a_turn_to_each_other_without_losing_one),
      cmocka_unit_test(every_waiter_of_a_bucket_is_woken),
      cmocka_unit_test(a_waiter_that_was_killed_is_forgotten),
      cmocka_unit_test(waiters_can_be_counted),
      cmocka_unit_test(a_directory_without_a_bell_is_an_error),
  };
  return cmocka_run_group_tests_name("bell", tests, set_up, tear_down);
}
