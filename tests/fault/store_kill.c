/*
 * store_kill -- writers that are killed at any instant, while others go on and the map grows.
 *
 * ZP_ROUNDS (or the first argument) says how many rounds of killing there are; the default is short.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
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
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "store/store.h"
#include "store_check.h"

enum { WRITERS = 4, ACCOUNTS = 8, WEALTH = 8000 };

static int rounds = 40;
static char directory[64];

/* What the writers have been told is committed; shared with the parent, and written after the commit has returned. */
typedef struct acknowledged {
  atomic_uint_fast64_t increments[WRITERS];
  atomic_int failures;
} acknowledged;
static acknowledged *known;

static void must(int rc) {
  if (rc >= 0) return;
  fprintf(stderr, "%d: %s\n", rc, zp_error_detail());
  known->failures++;
  _exit(99);
}

static void make_store(void) {
  const char *root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
  snprintf(directory, sizeof directory, "%s/zproc-test-XXXXXX", root);
  assert_non_null(mkdtemp(directory));
  zp_store_limits limits = {.keep_revisions = 500, .keep_bytes = 1 << 20};
  assert_int_equal(zp_store_create(directory, &limits), 0);
  memset(known, 0, sizeof *known);
}

static void remove_store(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", directory);
  assert_int_equal(system(command), 0);
}

static zp_store *open_store(void) {
  zp_store *store = NULL;
  must(zp_store_open(directory, "main", &store));
  return store;
}

static uint32_t chance(uint32_t *seed, uint32_t below) {
  *seed = *seed * 1664525u + 1013904223u;
  return (uint32_t)(((uint64_t)*seed * below) >> 32);
}

/* Within a read: the number under a key, or `otherwise`. */
static int64_t number(zp_store *store, const char *key, int64_t otherwise) {
  zp_bytes value;
  int64_t is = otherwise;
  int rc = zp_store_get(store, (zp_bytes){key, strlen(key)}, &value);
  must(rc);
  if (rc == 1) memcpy(&is, value.data, sizeof is);
  return is;
}

static zp_change put_number(const char *key, const int64_t *to) {
  return (zp_change){{key, strlen(key)}, {to, sizeof *to}};
}

/* One transaction: move something from an account to another, and count it. With `grow`, also put a large value. */
static void transfer(zp_store *store, int writer, uint32_t *seed, char *large) {
  char from[20], to[20], counter[20], bulk[20];
  uint32_t a = chance(seed, ACCOUNTS), b = (a + 1 + chance(seed, ACCOUNTS - 1)) % ACCOUNTS;
  snprintf(from, sizeof from, "account%u", a);
  snprintf(to, sizeof to, "account%u", b);
  snprintf(counter, sizeof counter, "counter%d", writer);
  snprintf(bulk, sizeof bulk, "bulk%u", chance(seed, 40));
  must(zp_store_lock(store));
  must(zp_store_read_begin(store));
  int64_t amount = chance(seed, 10), had = number(store, from, WEALTH), has = number(store, to, WEALTH);
  int64_t count = number(store, counter, 0) + 1;
  zp_store_read_end(store);
  had -= amount;
  has += amount;
  zp_change changes[4] = {put_number(from, &had), put_number(to, &has), put_number(counter, &count)};
  size_t n = 3;
  if (chance(seed, 8) == 0) {
    size_t size = 1000 + chance(seed, 200000);
    memset(large, (int)chance(seed, 256), 64);
    changes[n++] = (zp_change){{bulk, strlen(bulk)}, {large, size}};
  }
  must(zp_store_commit(store, changes, n, NULL, NULL));
  zp_store_unlock(store);
  known->increments[writer] = (uint_fast64_t)count;
}

static pid_t start_writer(int writer, uint32_t seed, int64_t times) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid > 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* a writer without an end must not outlive the test */
  char *large = calloc(1, 256 << 10);
  zp_store *store = open_store();
  for (int64_t i = 0; times < 0 || i < times; i++) transfer(store, writer, &seed, large);
  zp_store_close(&store);
  _exit(0);
}

static uint64_t total_known(void) {
  uint64_t total = 0;
  for (int i = 0; i < WRITERS; i++) total += known->increments[i];
  return total;
}

/* In a child, so that this process never has the store open: the sum of the accounts is what it was, and each counter is
   what its writer knew, or one more if it died before it could note it. */
static void verify(uint64_t slack) {
  pid_t pid = fork();
  if (pid == 0) {
    zp_store *store = open_store();
    must(zp_store_lock(store)); /* whoever held it is dead */
    must(zp_store_read_begin(store));
    int64_t sum = 0;
    char key[16];
    for (int i = 0; i < ACCOUNTS; i++) {
      snprintf(key, sizeof key, "account%d", i);
      sum += number(store, key, WEALTH);
    }
    if (sum != ACCOUNTS * WEALTH) _exit(2);
    for (int i = 0; i < WRITERS; i++) {
      snprintf(key, sizeof key, "counter%d", i);
      uint64_t is = (uint64_t)number(store, key, 0), told = known->increments[i];
      if (is < told || is > told + slack) _exit(3);
      known->increments[i] = is;
    }
    zp_store_close(&store);
    _exit(0);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 0);
  const char *wrong = check_store(directory);
  if (wrong) fail_msg("%s", wrong);
  assert_int_equal(known->failures, 0);
}

static void wait_for(uint64_t total) {
  while (total_known() < total && known->failures == 0) sched_yield();
}

static void reap(pid_t pid, int signal_number) {
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  if (signal_number == 0) assert_int_equal(status, 0);
  else assert_true(WIFSIGNALED(status) && WTERMSIG(status) == signal_number);
}

static void killed_writers_lose_nothing_and_stop_nobody(void **unused) {
  (void)unused;
  uint32_t seed = 20240501;
  make_store();
  for (int round = 0; round < rounds; round++) {
    if (round % 5 == 4) { /* a small one again, which has to grow */
      remove_store();
      make_store();
    }
    pid_t writers[WRITERS];
    for (int i = 0; i < WRITERS; i++) writers[i] = start_writer(i, seed + (uint32_t)(round * WRITERS + i) * 7919, -1);
    uint64_t base = total_known();
    for (int i = 0; i < WRITERS; i++) {
      wait_for(base + chance(&seed, 300));
      for (uint32_t spin = chance(&seed, 20000); spin > 0; spin--) atomic_signal_fence(memory_order_seq_cst);
      kill(writers[i], SIGKILL);
      reap(writers[i], SIGKILL);
      if (i + 1 < WRITERS) wait_for(total_known() + 20); /* the survivors go on */
      base = total_known();
    }
    verify(1);
  }
  remove_store();
}

/* LMDB 0.9 publishes a commit in two steps, the meta page and then a number in lock.mdb. This makes the state between the two,
   which killing at random meets once in thousands of rounds: the number one back, and a dead owner of LMDB's lock. */
enum { TXNID = 48, WRITE_MUTEX = 64, DIFFERENT = 77 };

static void die_between_the_steps(void) {
  char path[96];
  snprintf(path, sizeof path, "%s/lock.mdb", directory);
  zp_store *store = open_store();
  int64_t value = 1;
  zp_change change = put_number("account0", &value);
  must(zp_store_lock(store));
  must(zp_store_commit(store, &change, 1, NULL, NULL));
  int fd = open(path, O_RDWR | O_CLOEXEC);
  char *map = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) _exit(1);
  uint64_t *announced = (uint64_t *)(void *)(map + TXNID), before = *announced;
  value = 2;
  must(zp_store_commit(store, &change, 1, NULL, NULL));
  if (*announced != before + 1) _exit(DIFFERENT); /* another LMDB, with another lock file */
  if (pthread_mutex_lock((pthread_mutex_t *)(void *)(map + WRITE_MUTEX))) _exit(1);
  *announced = before;
  _exit(0);
}

static void a_commit_that_was_not_announced_by_death_is_seen_under_the_lock(void **unused) {
  (void)unused;
  make_store();
  pid_t pid = fork();
  if (pid == 0) {
    /* The survivor has the store open all the while: the only one to open it would be given a fresh lock.mdb. */
    zp_store *survivor = open_store();
    must(zp_store_check(survivor));
    pid_t victim = fork();
    if (victim == 0) die_between_the_steps();
    int status;
    if (waitpid(victim, &status, 0) != victim || !WIFEXITED(status)) _exit(1);
    if (WEXITSTATUS(status)) _exit(WEXITSTATUS(status));
    must(zp_store_lock(survivor));
    must(zp_store_read_begin(survivor));
    int seen = (int)number(survivor, "account0", 0);
    zp_store_close(&survivor);
    _exit(seen == 2 ? 0 : 3);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  remove_store();
  assert_true(WIFEXITED(status));
  if (WEXITSTATUS(status) == DIFFERENT) skip();
  assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_process_killed_while_opening_or_making_leaves_no_harm(void **unused) {
  (void)unused;
  uint32_t seed = 7;
  make_store();
  char made[96];
  snprintf(made, sizeof made, "%s/made", directory);
  for (int round = 0; round < rounds; round++) {
    char command[256];
    snprintf(command, sizeof command, "rm -rf %s; mkdir -m 700 %s", made, made);
    assert_int_equal(system(command), 0);
    pid_t pid = fork();
    if (pid == 0) {
      zp_store *store = open_store();
      zp_store_check(store);
      zp_store_close(&store);
      zp_store_create(made, NULL);
      for (;;) pause();
    }
    for (uint32_t spin = chance(&seed, 1500000); spin > 0; spin--) atomic_signal_fence(memory_order_seq_cst);
    kill(pid, SIGKILL);
    reap(pid, SIGKILL);
    pid = fork();
    if (pid == 0) {
      zp_store *store = NULL;
      must(zp_store_open(made, "main", &store));
      int rc = zp_store_check(store);
      if (rc == ZP_ENOSTORE) rc = zp_store_create(made, NULL);
      must(rc);
      zp_change change = {{"a", 1}, {"1", 1}};
      must(zp_store_commit(store, &change, 1, NULL, NULL));
      zp_store_close(&store);
      _exit(0);
    }
    reap(pid, 0);
    const char *wrong = check_store(made);
    if (wrong) fail_msg("%s", wrong);
  }
  pid_t writer = start_writer(0, seed, 50);
  reap(writer, 0);
  verify(0);
  remove_store();
}

static void increment_together(int64_t times) {
  pid_t writers[WRITERS];
  make_store();
  for (int i = 0; i < WRITERS; i++) writers[i] = start_writer(i, (uint32_t)i * 104729 + 1, times);
  for (int i = 0; i < WRITERS; i++) reap(writers[i], 0);
  assert_int_equal(total_known(), (uint64_t)times * WRITERS);
  verify(0);
  remove_store();
}

static void increments_of_several_processes_all_count(void **unused) {
  (void)unused;
  increment_together(2000);
}

static void increments_all_count_on_a_single_processor(void **unused) {
  (void)unused;
  cpu_set_t all, one;
  assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
    if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
  assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
  increment_together(1000);
  assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

int main(int argc, char **argv) {
  const char *wanted = argc > 1 ? argv[1] : getenv("ZP_ROUNDS");
  if (wanted && atoi(wanted) > 0) rounds = atoi(wanted);
  known = mmap(NULL, sizeof *known, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (known == MAP_FAILED) return 1;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(killed_writers_lose_nothing_and_stop_nobody),
      cmocka_unit_test(a_commit_that_was_not_announced_by_death_is_seen_under_the_lock),
      cmocka_unit_test(a_process_killed_while_opening_or_making_leaves_no_harm),
      cmocka_unit_test(increments_of_several_processes_all_count),
      cmocka_unit_test(increments_all_count_on_a_single_processor),
  };
  return cmocka_run_group_tests_name("store_kill", tests, NULL, NULL);
}
