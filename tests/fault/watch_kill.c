/*
 * watch_kill -- watchers that miss nothing while writers are killed at any instant.
 *
 * A counter is counted up by a writer, which is killed with -9 after a while and replaced; another key is changed at full speed all
 * the time by a writer that is killed and replaced as well. Watchers wait for each change of the counter and must see every
 * number, in order. If a wake-up were lost, they would hang, and the alarm ends the test.
 *
 * ZP_ROUNDS (or the first argument) says how many writers are killed; the default is short.
 */
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
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "codec/format.h"
#include "store/store.h"
#include "watch/watch.h"

enum { WATCHERS = 3, GENEROUS = 120 /* seconds; a limit, not an expectation */ };

static int rounds = 60;
static char directory[64];
static _Atomic uint64_t *acknowledged; /* the counter as the writers know it to be committed */

static const zp_bytes counter = {"counter", 7}, noise = {"noise", 5};
static const uint64_t last_number = UINT64_MAX;

static void must(int rc) {
  if (rc >= 0) return;
  fprintf(stderr, "%d: %s\n", rc, zp_error_detail());
  _exit(99);
}

static zp_store *open_store(void) {
  zp_store *store = NULL;
  must(zp_store_open(directory, "main", &store));
  return store;
}

/* As the codec has it, since watchers compare values. */
typedef struct number_value {
  unsigned char head[2];
  unsigned char number[8];
} number_value;

static uint64_t read_counter(zp_store *store) {
  zp_bytes value;
  uint64_t number = 0;
  int rc = zp_store_get(store, counter, &value);
  must(rc);
  if (rc == 1) memcpy(&number, ((const number_value *)value.data)->number, sizeof number);
  return number;
}

static void write_counter(zp_store *store, uint64_t number) {
  number_value value = {.head = {FORMAT_VERSION, TAG_INT64}};
  memcpy(value.number, &number, sizeof number);
  must(zp_store_commit(store, &(zp_change){counter, {&value, sizeof value}}, 1, NULL, NULL));
}

static _Noreturn void count_up(void) {
  zp_store *store = open_store();
  for (;;) {
    must(zp_store_lock(store));
    must(zp_store_read_begin(store));
    uint64_t number = read_counter(store) + 1;
    write_counter(store, number);
    zp_store_unlock(store);
    atomic_store(acknowledged, number);
  }
}

static _Noreturn void make_noise(void) {
  zp_store *store = open_store();
  for (uint64_t i = 1;; i++) must(zp_store_commit(store, &(zp_change){noise, {&i, sizeof i}}, 1, NULL, NULL));
}

/* Wait for each change of the counter, as the same handle would call after call, until it is the last number. */
static _Noreturn void watch(zp_watch_cursor cursor) {
  zp_store *store = open_store();
  zp_watch_options options = {0};
  for (uint64_t expected = 1;; expected++) {
    zp_watch *watch = NULL;
    uint64_t revision;
    must(zp_watch_open(store, &cursor, &options, &watch));
    must(zp_watch_add_key(watch, counter));
    int rc = zp_watch_next(watch, zp_clock_now() + GENEROUS, &cursor, &revision);
    if (rc) {
      fprintf(stderr, "number %llu does not come: %d %s\n", (unsigned long long)expected, rc, zp_error_detail());
      _exit(1);
    }
    zp_watch_close(&watch);
    must(zp_store_read_begin_at(store, revision));
    uint64_t number = read_counter(store);
    zp_store_read_end(store);
    if (number == last_number) break;
    if (number != expected) {
      fprintf(stderr, "number %llu came where %llu was due\n", (unsigned long long)number, (unsigned long long)expected);
      _exit(2);
    }
  }
  zp_store_close(&store);
  _exit(0);
}

static pid_t start(void (*run)(void)) {
  pid_t pid = fork();
  if (pid == 0) run();
  return pid;
}

static void watchers_miss_nothing_while_writers_are_killed(void **unused) {
  (void)unused;
  alarm(2 * GENEROUS);
  snprintf(directory, sizeof directory, "%s/zproc-test-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  assert_non_null(mkdtemp(directory));
  assert_int_equal(zp_store_create(directory, &(zp_store_limits){.keep_revisions = 1u << 30, .keep_bytes = 2u << 30}), 0);
  acknowledged = mmap(NULL, sizeof *acknowledged, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

  zp_store *store = open_store();
  zp_watch_cursor begin = {0};
  assert_int_equal(zp_watch_go_live(store, &begin), 0);
  pid_t watchers[WATCHERS];
  for (int i = 0; i < WATCHERS; i++) {
    watchers[i] = fork();
    if (watchers[i] == 0) watch(begin);
  }
  uint32_t seed = 1;
  for (int round = 0; round < rounds; round++) {
    pid_t writer = start(count_up), noisy = start(make_noise);
    /* Not before it has written, and then at a random instant. */
    uint64_t before = atomic_load(acknowledged);
    while (atomic_load(acknowledged) == before) usleep(50);
    seed = seed * 1664525u + 1013904223u;
    usleep(seed >> 21);
    kill(writer, SIGKILL);
    kill(noisy, SIGKILL);
    waitpid(writer, NULL, 0);
    waitpid(noisy, NULL, 0);
  }
  assert_int_equal(zp_store_read_begin(store), 0);
  uint64_t counted = read_counter(store);
  zp_store_read_end(store);
  assert_true(counted >= atomic_load(acknowledged)); /* nothing that was acknowledged is lost */
  write_counter(store, last_number);
  for (int i = 0; i < WATCHERS; i++) {
    int status;
    assert_int_equal(waitpid(watchers[i], &status, 0), watchers[i]);
    assert_int_equal(status, 0);
  }
  printf("# %d writers killed, %llu numbers seen by each of %d watchers\n", rounds, (unsigned long long)counted, WATCHERS);
  zp_store_close(&store);
  munmap((void *)acknowledged, sizeof *acknowledged);
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", directory);
  assert_int_equal(system(command), 0);
  alarm(0);
}

int main(int argc, char **argv) {
  const char *wanted = argc > 1 ? argv[1] : getenv("ZP_ROUNDS");
  if (wanted) rounds = atoi(wanted);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(watchers_miss_nothing_while_writers_are_killed),
  };
  return cmocka_run_group_tests_name("watch_kill", tests, NULL, NULL);
}
