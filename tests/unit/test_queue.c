/* queue: tasks, chunks, results in order, and the claims of those who die. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "range.h"
#include "base/clock.h"
#include "base/err.h"
#include "map/queue.h"
#include "store/store.h"

static const double GENEROUS = 60; /* seconds; a limit, not an expectation */
enum { POOL = 7 };

static char directory[64];
static zp_queue *queue;

static void must(int rc) {
  if (rc < 0) fail_msg("%d: %s", rc, zp_error_detail());
}

static int set_up(void **unused) {
  (void)unused;
  snprintf(directory, sizeof directory, "%s/zproc-queue-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  assert_non_null(mkdtemp(directory));
  must(zp_queue_open(directory, &queue));
  return 0;
}

static int tear_down(void **unused) {
  (void)unused;
  char command[128];
  zp_queue_close(&queue);
  zp_queue_close(&queue);
  snprintf(command, sizeof command, "rm -rf %s", directory);
  return system(command);
}

static zp_bytes text(const char *words) { return (zp_bytes){words, strlen(words)}; }

static uint64_t add(uint64_t total, uint32_t workers, uint32_t chunk) {
  zp_task_options options = {.pool = POOL, .total = total, .workers = workers, .max_attempts = 3, .chunk = chunk};
  uint64_t task = 0;
  must(zp_queue_add(queue, &options, text("what to do"), &task));
  return task;
}

static zp_task_info describe(uint64_t task) {
  zp_task_info info;
  assert_int_equal(zp_queue_describe(queue, task, &info), 1);
  return info;
}

static bool is_there(uint64_t task) {
  zp_task_info info;
  int rc = zp_queue_describe(queue, task, &info);
  must(rc);
  return rc == 1;
}

static void expect_claim(const zp_claim *claim, uint64_t from, uint64_t to) {
  assert_int_equal(claim->from, from);
  assert_int_equal(claim->to, to);
}

/* Take the result that begins at the item, and look what it says. Returns where it ends. */
static uint64_t expect_result(uint64_t task, uint64_t from, const char *words) {
  zp_buf bytes = ZP_BUF_INIT;
  zp_result result;
  assert_int_equal(zp_queue_take(queue, task, from, &result, &bytes), 1);
  assert_int_equal(result.from, from);
  assert_false(result.is_dead);
  assert_int_equal(bytes.size, strlen(words));
  assert_memory_equal(bytes.data, words, bytes.size);
  zp_buf_free(&bytes);
  return result.to;
}

static void a_task_is_worked_on_in_chunks_and_taken_in_order(void **unused) {
  (void)unused;
  uint64_t task = add(5, 1, 2);
  zp_buf bytes = ZP_BUF_INIT;
  assert_int_equal(zp_queue_specification(queue, task, &bytes), 1);
  assert_int_equal(bytes.size, 10);
  zp_buf_free(&bytes);
  must(zp_queue_enlist(queue, POOL));
  zp_claim claim;
  zp_done done = {text("one"), 0.001};
  assert_int_equal(zp_queue_claim(queue, NULL, &claim), 1);
  assert_int_equal(claim.task, task);
  assert_false(claim.is_suspect);
  expect_claim(&claim, 0, 2);
  zp_result result;
  assert_int_equal(zp_queue_take(queue, task, 0, &result, &bytes), 0);
  assert_int_equal(zp_queue_claim(queue, &done, &claim), 1);
  expect_claim(&claim, 2, 4);
  assert_int_equal(expect_result(task, 0, "one"), 2);
  assert_int_equal(expect_result(task, 0, "one"), 2); /* until it is acknowledged */
  must(zp_queue_acknowledge(queue, task, 2));
  assert_int_equal(zp_queue_take(queue, task, 0, &result, &bytes), 0);
  done.bytes = text("two");
  assert_int_equal(zp_queue_claim(queue, &done, &claim), 1);
  expect_claim(&claim, 4, 5);
  done.bytes = text("three");
  assert_int_equal(zp_queue_claim(queue, &done, &claim), 0);
  zp_task_info info = describe(task);
  assert_int_equal(info.finished, 5);
  assert_int_equal(info.taken, 2);
  assert_int_equal(info.active, 0);
  assert_int_equal(expect_result(task, 2, "two"), 4);
  assert_int_equal(expect_result(task, 4, "three"), 5);
  assert_int_equal(zp_queue_acknowledge(queue, task, 5), 1);
  assert_false(is_there(task));
  assert_int_equal(zp_queue_acknowledge(queue, task, 5), ZP_ENOTASK);
}

static void what_is_larger_than_the_limit_is_left(void **unused) {
  (void)unused;
  zp_buf bytes = ZP_BUF_INIT;
  uint64_t task = add(ZP_TASK_UNKNOWN, 1, 1), first, items;
  zp_claim claim;
  zp_result result;
  must(zp_queue_put(queue, task, 1, text("ten bytes!"), true));
  must(zp_queue_enlist(queue, POOL));
  assert_int_equal(zp_queue_claim(queue, NULL, &claim), 1);
  assert_int_equal(zp_queue_claim(queue, &(zp_done){text("ten bytes!"), 0.001}, &claim), 0);
  zp_queue_limit(queue, 9);
  assert_int_equal(zp_queue_specification(queue, task, &bytes), ZP_EBUSY);
  assert_int_equal(zp_queue_block(queue, task, 0, &first, &items, &bytes), ZP_EBUSY);
  assert_int_equal(zp_queue_take(queue, task, 0, &result, &bytes), ZP_EBUSY);
  assert_int_equal(bytes.size, 0);
  zp_queue_limit(queue, 10);
  assert_int_equal(zp_queue_specification(queue, task, &bytes), 1);
  assert_int_equal(zp_queue_block(queue, task, 0, &first, &items, &bytes), 1);
  assert_int_equal(zp_queue_take(queue, task, 0, &result, &bytes), 1);
  assert_int_equal(bytes.size, 30);
  zp_buf_free(&bytes);
}

static void items_come_in_blocks_which_go_when_they_are_taken(void **unused) {
  (void)unused;
  uint64_t task = add(ZP_TASK_UNKNOWN, 2, 3);
  must(zp_queue_put(queue, task, 2, text("ab"), false));
  must(zp_queue_put(queue, task, 3, text("cde"), false));
  zp_buf bytes = ZP_BUF_INIT;
  uint64_t first, items;
  static const uint64_t firsts[] = {0, 0, 2, 2, 2};
  for (uint64_t item = 0; item < 5; item++) {
    zp_buf_clear(&bytes, 100);
    assert_int_equal(zp_queue_block(queue, task, item, &first, &items, &bytes), 1);
    assert_int_equal(first, firsts[item]);
    assert_int_equal(items, item < 2 ? 2 : 3);
    assert_memory_equal(bytes.data, item < 2 ? "ab" : "cde", items);
  }
  assert_int_equal(zp_queue_block(queue, task, 5, &first, &items, &bytes), 0);
  assert_true(describe(task).is_produced);
  must(zp_queue_enlist(queue, POOL));
  zp_claim claim;
  zp_done done = {text("x"), 0.001};
  assert_int_equal(zp_queue_claim(queue, NULL, &claim), 1);
  expect_claim(&claim, 0, 3);
  assert_int_equal(zp_queue_claim(queue, &done, &claim), 1);
  expect_claim(&claim, 3, 5);
  assert_int_equal(zp_queue_claim(queue, &done, &claim), 0); /* nothing is there, but more may come */
  must(zp_queue_acknowledge(queue, task, 3));
  assert_int_equal(zp_queue_block(queue, task, 1, &first, &items, &bytes), 1); /* the block of 0 and 1 is gone */
  assert_int_equal(first, 2);
  must(zp_queue_put(queue, task, 0, text(""), true));
  assert_int_equal(describe(task).total, 5);
  assert_int_equal(zp_queue_acknowledge(queue, task, 5), 1);
  assert_false(is_there(task));
  assert_int_equal(zp_queue_put(queue, task, 1, text("f"), false), ZP_ENOTASK);
  zp_buf_free(&bytes);
}

static void an_empty_sequence_ends_at_once(void **unused) {
  (void)unused;
  uint64_t task = add(ZP_TASK_UNKNOWN, 2, 0);
  must(zp_queue_put(queue, task, 0, text(""), true));
  assert_int_equal(describe(task).total, 0);
  must(zp_queue_acknowledge(queue, task, 0));
  assert_false(is_there(task));
}

static void chunks_follow_the_cost_of_items_and_shrink_at_the_end(void **unused) {
  (void)unused;
  uint64_t task = add(100000, 2, 0), largest = 0, last = 0, count = 0;
  must(zp_queue_enlist(queue, POOL));
  zp_claim claim;
  zp_done done = {text("x"), 0};
  int rc = zp_queue_claim(queue, NULL, &claim);
  for (; rc == 1; rc = zp_queue_claim(queue, &done, &claim)) {
    last = claim.to - claim.from;
    if (count == 0) assert_int_equal(last, 1);
    if (last > largest) largest = last;
    done.seconds = (double)last * 1e-6;
    count++;
  }
  must(rc);
  assert_uint_in_range(largest, 2000, 8000); /* 4 ms */
  assert_int_equal(last, 1);
  assert_uint_in_range(count, 10, 200);
  must(zp_queue_drop(queue, task));

  task = add(100, 2, 0);
  rc = zp_queue_claim(queue, NULL, &claim);
  for (; rc == 1; rc = zp_queue_claim(queue, &done, &claim)) {
    assert_int_equal(claim.to - claim.from, 1);
    done.seconds = 0.01;
  }
  must(rc);
}

static void no_more_workers_than_allowed_work_on_a_task(void **unused) {
  (void)unused;
  add(10, 2, 1);
  zp_queue *workers[3];
  zp_claim claim;
  for (int i = 0; i < 3; i++) {
    must(zp_queue_open(directory, &workers[i]));
    must(zp_queue_enlist(workers[i], POOL));
    assert_int_equal(zp_queue_claim(workers[i], NULL, &claim), i < 2);
  }
  zp_done done = {text("x"), 0.001};
  assert_int_equal(zp_queue_claim(workers[0], &done, &claim), 1);
  assert_int_equal(zp_queue_claim(workers[2], NULL, &claim), 0);
  for (int i = 0; i < 3; i++) zp_queue_close(&workers[i]);
}

static void a_task_is_for_its_pools(void **unused) {
  (void)unused;
  uint64_t task = add(10, 5, 1);
  must(zp_queue_enlist(queue, POOL + 1));
  zp_claim claim;
  assert_int_equal(zp_queue_claim(queue, NULL, &claim), 0);
  assert_int_equal(zp_queue_adopt(queue, task, POOL + 1), 1);
  assert_int_equal(zp_queue_adopt(queue, task, POOL + 1), 1);
  assert_int_equal(zp_queue_claim(queue, NULL, &claim), 1);
  assert_int_equal(zp_queue_adopt(queue, task + 1, POOL), 0);
}

static void results_that_nobody_takes_stop_the_work(void **unused) {
  (void)unused;
  uint64_t task = add(1000, 1, 1);
  must(zp_queue_enlist(queue, POOL));
  size_t size = 1 << 20;
  char *large = calloc(1, size);
  zp_claim claim;
  zp_done done = {{large, size}, 0.001};
  int rc = zp_queue_claim(queue, NULL, &claim), count = 0;
  for (; rc == 1; rc = zp_queue_claim(queue, &done, &claim)) count++;
  must(rc);
  assert_int_equal(count, 32);
  assert_int_equal(describe(task).next, 32);
  must(zp_queue_arm_work(queue));
  must(zp_queue_acknowledge(queue, task, 1));
  assert_int_equal(zp_queue_wait(queue, zp_clock_now() + GENEROUS), 0);
  assert_int_equal(zp_queue_claim(queue, NULL, &claim), 1);
  expect_claim(&claim, 32, 33);
  must(zp_queue_drop(queue, task));
  assert_false(is_there(task));
  assert_int_equal(zp_queue_claim(queue, &done, &claim), 0); /* nobody wants it any more */
  zp_result result;
  zp_buf bytes = ZP_BUF_INIT;
  assert_int_equal(zp_queue_take(queue, task, 5, &result, &bytes), 0);
  free(large);
}

/* The consumer waits for the first chunk: what is pending behind it must not keep it from being worked on. */
static void what_was_given_back_is_claimed_although_too_much_is_pending(void **unused) {
  (void)unused;
  uint64_t task = add(1000, 2, 1);
  zp_queue *other;
  zp_claim claim;
  must(zp_queue_open(directory, &other));
  must(zp_queue_enlist(other, POOL));
  assert_int_equal(zp_queue_claim(other, NULL, &claim), 1);
  expect_claim(&claim, 0, 1);
  must(zp_queue_enlist(queue, POOL));
  size_t size = 1 << 20;
  char *large = calloc(1, size);
  zp_done done = {{large, size}, 0.001};
  int rc = zp_queue_claim(queue, NULL, &claim);
  while (rc == 1) rc = zp_queue_claim(queue, &done, &claim);
  must(rc);
  must(zp_queue_arm_work(queue));
  zp_queue_close(&other);
  assert_int_equal(zp_queue_wait(queue, zp_clock_now() + GENEROUS), 0);
  assert_int_equal(zp_queue_claim(queue, NULL, &claim), 1);
  expect_claim(&claim, 0, 1);
  assert_false(claim.is_suspect);
  assert_int_equal(zp_queue_claim(queue, &done, &claim), 0);
  must(zp_queue_drop(queue, task));
  free(large);
}

/* A worker that claims, says how far it is, and is killed. */
static void claim_and_die(uint64_t item, uint64_t span) {
  pid_t pid = fork();
  if (pid == 0) {
    zp_queue *own;
    zp_claim claim;
    if (zp_queue_open(directory, &own) || zp_queue_enlist(own, POOL) || zp_queue_claim(own, NULL, &claim) != 1) _exit(1);
    if (span > 0) zp_queue_note(own, item, span);
    raise(SIGKILL);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFSIGNALED(status));
  assert_int_equal(zp_queue_recover(queue), 1);
  assert_int_equal(zp_queue_recover(queue), 0);
}

static void what_a_dead_worker_had_claimed_is_worked_on_again(void **unused) {
  (void)unused;
  uint64_t task = add(100, 1, 100);
  claim_and_die(0, 0); /* before it began: nobody is to blame */
  must(zp_queue_enlist(queue, POOL));
  zp_claim claim;
  assert_int_equal(zp_queue_claim(queue, NULL, &claim), 1);
  expect_claim(&claim, 0, 100);
  assert_false(claim.is_suspect);
  zp_done done = {text("x"), 0.001};
  assert_int_equal(zp_queue_claim(queue, &done, &claim), 0);
  assert_int_equal(expect_result(task, 0, "x"), 100);
}

static void the_items_at_which_it_died_are_told_apart(void **unused) {
  (void)unused;
  uint64_t task = add(100, 1, 100);
  claim_and_die(40, 20);
  must(zp_queue_enlist(queue, POOL));
  zp_claim claim;
  zp_done done = {text("x"), 0.001};
  assert_int_equal(zp_queue_claim(queue, NULL, &claim), 1);
  expect_claim(&claim, 0, 40);
  assert_false(claim.is_suspect);
  assert_int_equal(zp_queue_claim(queue, &done, &claim), 1);
  expect_claim(&claim, 40, 60);
  assert_true(claim.is_suspect);
  assert_int_equal(zp_queue_claim(queue, &done, &claim), 1);
  expect_claim(&claim, 60, 100);
  assert_false(claim.is_suspect);
  assert_int_equal(zp_queue_claim(queue, &done, &claim), 0);
  assert_int_equal(describe(task).finished, 100);
}

static uint64_t add_private(zp_queue *own, bool is_private) {
  zp_task_options options = {.pool = POOL + 1, .total = 5, .workers = 1, .max_attempts = 1, .is_private = is_private};
  uint64_t task = 0;
  return zp_queue_add(own, &options, text("what to do"), &task) ? 0 : task;
}

static void what_the_dead_wanted_for_themselves_is_dropped(void **unused) {
  (void)unused;
  uint64_t mine = add_private(queue, true);
  pid_t pid = fork();
  if (pid == 0) {
    zp_queue *own;
    if (zp_queue_open(directory, &own)) _exit(1);
    if (!add_private(own, true) || !add_private(own, false) || !add_private(queue, true)) _exit(2); /* the last by what it has inherited */
    raise(SIGKILL);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFSIGNALED(status));
  for (uint64_t task = mine; task <= mine + 3; task++) assert_true(is_there(task));
  assert_int_equal(zp_queue_clear(queue, GENEROUS), 2);
  assert_int_equal(zp_queue_clear(queue, GENEROUS), 0);
  assert_true(is_there(mine));
  assert_false(is_there(mine + 1));
  assert_true(is_there(mine + 2));
  assert_false(is_there(mine + 3));
}

static uint64_t add_elsewhere(zp_queue *stands_for) {
  zp_task_options options = {.pool = POOL, .total = 5, .workers = 1, .max_attempts = 1, .is_private = true, .is_elsewhere = true};
  uint64_t task = 0;
  must(zp_queue_add(stands_for, &options, text("what to do"), &task));
  return task;
}

static void an_owner_elsewhere_is_missed_for_a_while(void **unused) {
  (void)unused;
  zp_queue *later;
  must(zp_queue_open(directory, &later));
  uint64_t task = add_elsewhere(queue), other = add_private(queue, true);
  assert_int_equal(zp_queue_clear(queue, 0), 0);
  must(zp_queue_miss(queue, task));
  assert_int_equal(zp_queue_clear(queue, GENEROUS), 0);
  assert_int_equal(zp_queue_own(later, task), 1); /* he is back */
  must(zp_queue_miss(queue, task)); /* but nobody's business here any more */
  assert_int_equal(zp_queue_clear(queue, 0), 0);
  must(zp_queue_miss(later, task));
  assert_int_equal(zp_queue_clear(queue, 0), 1);
  assert_false(is_there(task));
  assert_int_equal(zp_queue_own(later, task), 0);
  assert_int_equal(zp_queue_own(later, other), 0);
  zp_queue_close(&later);
}

static void an_owner_elsewhere_is_missed_when_who_stood_for_him_is_dead(void **unused) {
  (void)unused;
  pid_t pid = fork();
  if (pid == 0) {
    zp_queue *own;
    if (zp_queue_open(directory, &own)) _exit(1);
    add_elsewhere(own);
    add_elsewhere(own);
    raise(SIGKILL);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFSIGNALED(status));
  assert_int_equal(zp_queue_clear(queue, 0), 0); /* from here on */
  assert_int_equal(zp_queue_own(queue, 1), 1);
  assert_int_equal(zp_queue_clear(queue, GENEROUS), 0);
  assert_int_equal(zp_queue_clear(queue, 0), 1);
  assert_true(is_there(1));
  assert_false(is_there(2));
}

/* How many records there are of certain kinds. */
static size_t count_kinds(const char *kinds) {
  char path[sizeof directory + 8];
  zp_store *store;
  zp_bytes key, value;
  size_t count = 0;
  snprintf(path, sizeof path, "%s/tasks", directory);
  must(zp_store_open(path, "tasks", &store));
  must(zp_store_read_begin(store));
  int rc = zp_store_first(store, &key, &value);
  for (; rc == 1; rc = zp_store_next(store, &key, &value))
    if (strchr(kinds, *(const char *)key.data)) count++;
  must(rc);
  zp_store_read_end(store);
  zp_store_close(&store);
  return count;
}

/* How many there are that belong to tasks. */
static size_t count_records(void) { return count_kinds("TSBRQI"); }

static void pools_without_workers_leave_nothing(void **unused) {
  (void)unused;
  enum { POOLS = 1500 };
  for (uint64_t pool = 1; pool <= POOLS; pool++) {
    zp_task_options options = {.pool = pool, .total = 1, .workers = 1, .max_attempts = 1};
    uint64_t task;
    must(zp_queue_add(queue, &options, text("what to do"), &task));
    must(zp_queue_drop(queue, task));
  }
  assert_int_equal(count_kinds("P"), POOLS);
  must(zp_queue_enlist(queue, 7));
  for (int i = 0; i < 2; i++) assert_int_equal(zp_queue_clear(queue, 0), 0); /* a portion at a time */
  assert_int_equal(count_kinds("P"), 1);
  must(zp_queue_resign(queue, false));
  assert_int_equal(zp_queue_clear(queue, 0), 0);
  assert_int_equal(count_kinds("P"), 0);
}

/* A task with many records is dropped in steps: whoever is killed between two of them leaves it to others. */
static void who_is_killed_while_he_drops_a_task_leaves_nothing(void **unused) {
  (void)unused;
  enum { ROUNDS = 30, BLOCKS = 4000, APART = 150 /* microseconds */ };
  for (int round = 0; round < ROUNDS; round++) {
    uint64_t task = add(ZP_TASK_UNKNOWN, 1, 1);
    for (int i = 0; i < BLOCKS; i++) must(zp_queue_put(queue, task, 1, text("item"), false));
    pid_t pid = fork();
    if (pid == 0) _exit(zp_queue_drop(queue, task) < 0);
    double limit = zp_clock_now() + GENEROUS;
    while (is_there(task) && zp_clock_now() < limit) continue;
    usleep((useconds_t)(round * APART));
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_uint_in_range(zp_queue_clear(queue, GENEROUS), 0, 1);
    assert_int_equal(count_records(), 0);
  }
}

static void after_too_many_deaths_its_result_is_that(void **unused) {
  (void)unused;
  zp_task_options options = {.pool = POOL, .total = 1, .workers = 1, .max_attempts = 3};
  uint64_t task;
  must(zp_queue_add(queue, &options, text("deadly"), &task));
  zp_result result;
  zp_buf bytes = ZP_BUF_INIT;
  for (int i = 0; i < 3; i++) {
    assert_int_equal(zp_queue_take(queue, task, 0, &result, &bytes), 0);
    claim_and_die(0, 1);
  }
  assert_int_equal(zp_queue_take(queue, task, 0, &result, &bytes), 1);
  assert_true(result.is_dead);
  assert_int_equal(result.attempts, 3);
  assert_int_equal(result.to, 1);
  assert_int_equal(bytes.size, 0);
  must(zp_queue_acknowledge(queue, task, 1));
  assert_false(is_there(task));
}

static void a_result_wakes_who_waits_for_it(void **unused) {
  (void)unused;
  uint64_t task = add(1, 1, 1);
  pid_t pid = fork();
  if (pid == 0) {
    zp_queue *own;
    zp_claim claim;
    zp_done done = {text("x"), 0.001};
    if (zp_queue_open(directory, &own) || zp_queue_enlist(own, POOL) || zp_queue_claim(own, NULL, &claim) != 1) _exit(1);
    int rc = zp_queue_claim(own, &done, &claim);
    zp_queue_close(&own);
    _exit(rc != 0);
  }
  zp_result result;
  zp_buf bytes = ZP_BUF_INIT;
  for (;;) {
    must(zp_queue_arm_result(queue, task, 0));
    if (zp_queue_take(queue, task, 0, &result, &bytes) == 1) break;
    assert_int_equal(zp_queue_wait(queue, zp_clock_now() + GENEROUS), 0);
  }
  zp_buf_free(&bytes);
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 0);
}

/* Workers are killed at any instant, while others go on: every item has one result, and they tile the sequence. */
static void whoever_is_killed_nothing_is_lost(void **unused) {
  (void)unused;
  enum { ITEMS = 3000, WORKERS = 4, KILLS = 60 };
  uint64_t task = add(ITEMS, WORKERS, 7);
  pid_t pids[WORKERS] = {0};
  unsigned seed = 1;
  int kills = 0;
  uint64_t position = 0;
  double limit = zp_clock_now() + GENEROUS;
  while (position < ITEMS) {
    assert_true(zp_clock_now() < limit);
    for (int w = 0; w < WORKERS; w++) {
      if (pids[w] && waitpid(pids[w], NULL, WNOHANG) == 0) continue;
      pids[w] = fork();
      if (pids[w]) continue;
      zp_queue *own;
      zp_claim claim;
      if (zp_queue_open(directory, &own) || zp_queue_enlist(own, POOL)) _exit(1);
      int rc = zp_queue_claim(own, NULL, &claim);
      while (rc == 1) {
        uint64_t content[2] = {claim.from, claim.to};
        zp_done done = {{content, sizeof content}, 1e-5};
        rc = zp_queue_claim(own, &done, &claim);
      }
      zp_queue_close(&own);
      _exit(0);
    }
    if (kills < KILLS) {
      usleep((useconds_t)(rand_r(&seed) % 300));
      kill(pids[rand_r(&seed) % WORKERS], SIGKILL);
      kills++;
    }
    must(zp_queue_recover(queue));
    zp_result result;
    zp_buf bytes = ZP_BUF_INIT;
    if (zp_queue_take(queue, task, position, &result, &bytes) == 1) {
      assert_int_equal(bytes.size, 16);
      assert_memory_equal(bytes.data, &result.from, 8);
      assert_memory_equal(bytes.data + 8, &result.to, 8);
      position = result.to;
      must(zp_queue_acknowledge(queue, task, position));
    }
    zp_buf_free(&bytes);
  }
  for (int w = 0; w < WORKERS; w++) {
    kill(pids[w], SIGKILL);
    waitpid(pids[w], NULL, 0);
  }
  assert_int_equal(position, ITEMS);
  assert_false(is_there(task));
}

static void helpers_work_on_every_task_and_count_in_no_limit(void **unused) {
  (void)unused;
  uint64_t task = add(6, 1, 1);
  must(zp_queue_enlist(queue, POOL));
  zp_queue *helper;
  must(zp_queue_open(directory, &helper));
  must(zp_queue_enlist(helper, ZP_POOL_ALL));
  zp_claim claim;
  assert_int_equal(zp_queue_claim(helper, NULL, &claim), 1);
  expect_claim(&claim, 0, 1);
  assert_int_equal(zp_queue_claim(queue, NULL, &claim), 1); /* the one that the task may have */
  expect_claim(&claim, 1, 2);
  zp_done done = {text("helped"), 0.1};
  assert_int_equal(zp_queue_claim(helper, &done, &claim), 1);
  expect_claim(&claim, 2, 3);
  assert_int_equal(expect_result(task, 0, "helped"), 1);
  must(zp_queue_resign(helper, false));
  assert_int_equal(describe(task).active, 1);
  must(zp_queue_enlist(helper, ZP_POOL_ALL));
  assert_int_equal(zp_queue_claim(helper, NULL, &claim), 1); /* what was given back comes first */
  expect_claim(&claim, 2, 3);
  assert_false(claim.is_suspect);
  zp_queue_close(&helper);
}

static void helpers_are_woken_by_new_work(void **unused) {
  (void)unused;
  zp_queue *helper;
  must(zp_queue_open(directory, &helper));
  must(zp_queue_enlist(helper, ZP_POOL_ALL));
  must(zp_queue_arm_work(helper));
  zp_claim claim;
  assert_int_equal(zp_queue_claim(helper, NULL, &claim), 0);
  add(1, 1, 1);
  assert_int_equal(zp_queue_wait(helper, zp_clock_now() + GENEROUS), 0);
  assert_int_equal(zp_queue_claim(helper, NULL, &claim), 1);
  zp_queue_close(&helper);
}

/* As the server does it for a worker elsewhere. */
static void one_who_is_said_to_have_died_has_died_of_what_it_has_noted(void **unused) {
  (void)unused;
  add(10, 1, 4);
  must(zp_queue_enlist(queue, POOL));
  zp_claim claim;
  assert_int_equal(zp_queue_claim(queue, NULL, &claim), 1);
  expect_claim(&claim, 0, 4);
  zp_queue_note(queue, 1, 1);
  must(zp_queue_resign(queue, true));
  must(zp_queue_resign(queue, true)); /* it has no slot any more */
  must(zp_queue_enlist(queue, POOL));
  assert_int_equal(zp_queue_claim(queue, NULL, &claim), 1);
  expect_claim(&claim, 0, 1);
  assert_false(claim.is_suspect);
  zp_done done = {text("x"), 0.1};
  assert_int_equal(zp_queue_claim(queue, &done, &claim), 1);
  expect_claim(&claim, 1, 2);
  assert_true(claim.is_suspect);
}

static void a_task_whose_items_are_given_up_says_so(void **unused) {
  (void)unused;
  uint64_t task = add(ZP_TASK_UNKNOWN, 1, 1);
  must(zp_queue_put(queue, task, 2, text("items"), false));
  assert_true(describe(task).is_produced);
  must(zp_queue_give_up(queue, task));
  assert_false(describe(task).is_produced);
  must(zp_queue_put(queue, task, 1, text("more"), false)); /* whoever gives some after all is the producer now */
  assert_true(describe(task).is_produced);
  must(zp_queue_put(queue, task, 0, text(""), true));
  must(zp_queue_give_up(queue, task)); /* there is nothing to give up */
  assert_true(describe(task).is_produced);
  must(zp_queue_give_up(queue, 999));
}

static void without_a_server_there_is_no_queue(void **unused) {
  (void)unused;
  zp_queue *none = NULL;
  assert_int_equal(zp_queue_open("/nowhere", &none), ZP_ENOSTORE);
  assert_null(none);
  assert_int_equal(zp_queue_claim(queue, NULL, &(zp_claim){.task = 0}), ZP_ESYS);
}

static void it_is_retired_with_the_server(void **unused) {
  (void)unused;
  add(10, 1, 1);
  zp_store_retire(directory);
  zp_task_info info;
  assert_int_equal(zp_queue_describe(queue, 1, &info), ZP_ENOSTORE);
}

static void a_summary_adds_up_the_tasks_that_are_there(void **unused) {
  (void)unused;
  zp_queue_summary summary;
  must(zp_queue_summarize(directory, &summary));
  assert_int_equal(summary.tasks, 0);
  uint64_t first = add(5, 1, 2), second = add(ZP_TASK_UNKNOWN, 1, 0);
  must(zp_queue_put(queue, second, 3, text("three items"), false));
  must(zp_queue_enlist(queue, POOL));
  zp_claim claim;
  zp_done done = {text("one"), 0.001};
  assert_int_equal(zp_queue_claim(queue, NULL, &claim), 1);
  assert_int_equal(zp_queue_claim(queue, &done, &claim), 1);
  must(zp_queue_summarize(directory, &summary));
  assert_int_equal(summary.tasks, 2);
  assert_int_equal(summary.put, 8);
  assert_int_equal(summary.finished, 2);
  assert_int_equal(summary.claims, 1);
  must(zp_queue_drop(queue, first));
  must(zp_queue_drop(queue, second));
  must(zp_queue_summarize(directory, &summary));
  assert_int_equal(summary.tasks + summary.put + summary.finished + summary.claims, 0);
}

static void a_summary_makes_no_queue(void **unused) {
  (void)unused;
  char other[sizeof directory + 8], tasks[sizeof other + 8];
  snprintf(other, sizeof other, "%s/other", directory);
  snprintf(tasks, sizeof tasks, "%s/tasks", other);
  assert_int_equal(mkdir(other, 0700), 0);
  zp_queue_summary summary = {.tasks = 1};
  must(zp_queue_summarize(other, &summary));
  assert_int_equal(summary.tasks, 0);
  assert_int_equal(access(tasks, F_OK), -1);
}

#define WITH_QUEUE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

static void who_is_no_worker_notes_nothing(void **unused) {
  (void)unused;
  must(zp_queue_resign(queue, false));
  zp_queue_note(queue, 1, 1);
  must(zp_queue_enlist(queue, 1));
  must(zp_queue_resign(queue, false));
  zp_queue_note(queue, 1, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_QUEUE(who_is_no_worker_notes_nothing),
      WITH_QUEUE(a_task_is_worked_on_in_chunks_and_taken_in_order),
      WITH_QUEUE(what_is_larger_than_the_limit_is_left),
      WITH_QUEUE(items_come_in_blocks_which_go_when_they_are_taken),
      WITH_QUEUE(an_empty_sequence_ends_at_once),
      WITH_QUEUE(chunks_follow_the_cost_of_items_and_shrink_at_the_end),
      WITH_QUEUE(no_more_workers_than_allowed_work_on_a_task),
      WITH_QUEUE(a_task_is_for_its_pools),
      WITH_QUEUE(results_that_nobody_takes_stop_the_work),
      WITH_QUEUE(what_was_given_back_is_claimed_although_too_much_is_pending),
      WITH_QUEUE(what_a_dead_worker_had_claimed_is_worked_on_again),
      WITH_QUEUE(the_items_at_which_it_died_are_told_apart),
      WITH_QUEUE(what_the_dead_wanted_for_themselves_is_dropped),
      WITH_QUEUE(an_owner_elsewhere_is_missed_for_a_while),
      WITH_QUEUE(an_owner_elsewhere_is_missed_when_who_stood_for_him_is_dead),
      WITH_QUEUE(pools_without_workers_leave_nothing),
      WITH_QUEUE(who_is_killed_while_he_drops_a_task_leaves_nothing),
      WITH_QUEUE(after_too_many_deaths_its_result_is_that),
      WITH_QUEUE(a_result_wakes_who_waits_for_it),
      WITH_QUEUE(whoever_is_killed_nothing_is_lost),
      WITH_QUEUE(helpers_work_on_every_task_and_count_in_no_limit),
      WITH_QUEUE(helpers_are_woken_by_new_work),
      WITH_QUEUE(one_who_is_said_to_have_died_has_died_of_what_it_has_noted),
      WITH_QUEUE(a_task_whose_items_are_given_up_says_so),
      WITH_QUEUE(a_summary_adds_up_the_tasks_that_are_there),
      WITH_QUEUE(a_summary_makes_no_queue),
      WITH_QUEUE(without_a_server_there_is_no_queue),
      WITH_QUEUE(it_is_retired_with_the_server),
  };
  return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
