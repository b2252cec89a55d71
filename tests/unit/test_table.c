/* table: every row whole at any instant, no slot lost, whoever is killed and wherever. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/table.h"

static const double GENEROUS = 60; /* seconds; a limit, not an expectation */

static char directory[32], path[48];
static zp_table *table;
static zp_buf rows;

static int set_up(void **unused) {
  (void)unused;
  strcpy(directory, "/tmp/zproc-table-XXXXXX");
  if (!mkdtemp(directory)) return -1;
  snprintf(path, sizeof path, "%s/processes", directory);
  return zp_table_create(directory) || zp_table_open(directory, &table) ? -1 : 0;
}

static int tear_down(void **unused) {
  (void)unused;
  zp_table_close(&table);
  zp_table_close(&table);
  zp_buf_free(&rows);
  return unlink(path) | rmdir(directory);
}

/* Read the table; how many rows there are. */
static size_t list(void) {
  rows.size = 0;
  assert_int_equal(zp_table_list(table, &rows), 0);
  return rows.size / sizeof(zp_process);
}

static const zp_process *row_at(size_t i) { return (const zp_process *)rows.data + i; }

/* The newest row of that name; the table was read before. */
static const zp_process *find(const char *name) {
  for (size_t i = rows.size / sizeof(zp_process); i > 0; i--)
    if (strcmp(row_at(i - 1)->name, name) == 0) return row_at(i - 1);
  return NULL;
}

static const zp_process *must_find(const char *name) {
  list();
  const zp_process *found = find(name);
  if (!found) fail_msg("%s is not in the table", name);
  return found;
}

/* A process that stays until it is killed; its row, if it is to have one. */
static pid_t start_sleeper(const char *name, zp_table_row *row) {
  if (row) *row = zp_table_claim(table, name);
  pid_t pid = fork();
  if (pid == 0)
    for (;;) pause();
  assert_true(pid > 0);
  if (row) zp_table_start(*row, pid);
  return pid;
}

static int kill_and_reap(pid_t pid) {
  int status = 0;
  kill(pid, SIGKILL);
  assert_int_equal(waitpid(pid, &status, 0), pid);
  return status;
}

static void a_row_tells_the_life_of_a_process(void **unused) {
  (void)unused;
  double before = zp_clock_wall();
  assert_int_equal(list(), 0);
  zp_table_row row = zp_table_claim(table, "job.lua:7");
  assert_int_equal(list(), 0); /* it does not run yet */
  pid_t pid = start_sleeper(NULL, NULL);
  zp_table_start(row, pid);
  const zp_process *is = must_find("job.lua:7");
  assert_int_equal(is->pid, pid);
  assert_int_equal(is->parent, getpid());
  assert_int_equal(is->state, ZP_PROCESS_RUNNING);
  assert_int_equal(is->tries, 1);
  assert_true(is->started >= before && is->started <= zp_clock_wall());

  zp_table_note_try(row, 2, true);
  assert_int_equal(must_find("job.lua:7")->state, ZP_PROCESS_RETRYING);
  assert_int_equal(must_find("job.lua:7")->tries, 2);
  zp_table_note_try(row, 2, false);
  assert_int_equal(must_find("job.lua:7")->state, ZP_PROCESS_RUNNING);

  kill_and_reap(pid);
  zp_table_end(row, pid, -SIGKILL);
  is = must_find("job.lua:7");
  assert_int_equal(is->state, ZP_PROCESS_EXITED);
  assert_int_equal(is->exitcode, -SIGKILL);
  assert_int_equal(is->tries, 2);
  assert_int_equal(is->pid, pid);
  zp_table_end(row, pid, 3); /* it has ended once */
  zp_table_note_try(row, 9, true);
  assert_int_equal(must_find("job.lua:7")->exitcode, -SIGKILL);
  assert_int_equal(list(), 1);
}

static void every_exit_code_arrives(void **unused) {
  (void)unused;
  for (int code = -64; code <= 255; code++) {
    zp_table_row row = zp_table_claim(table, "x");
    zp_table_start(row, getpid());
    zp_table_end(row, getpid(), code);
  }
  assert_int_equal(list(), 64 + 256);
  for (int i = 0; i < 64 + 256; i++) assert_int_equal(row_at((size_t)i)->exitcode, i - 64);
}

static void an_end_that_is_seen_before_the_start_counts(void **unused) {
  (void)unused;
  zp_table_row row = zp_table_claim(table, "quick");
  zp_table_end(row, 77, 5); /* what a signal handler does between the fork and the parent's next step */
  zp_table_start(row, 77);
  const zp_process *is = must_find("quick");
  assert_int_equal(is->state, ZP_PROCESS_EXITED);
  assert_int_equal(is->exitcode, 5);
  assert_int_equal(is->pid, 77);
}

static void a_start_that_failed_leaves_nothing(void **unused) {
  (void)unused;
  zp_table_withdraw(zp_table_claim(table, "never"));
  assert_int_equal(list(), 0);
}

static void a_child_can_make_sure_that_it_is_listed(void **unused) {
  (void)unused;
  zp_table_row row = zp_table_claim(table, "child");
  pid_t pid = fork();
  if (pid == 0) {
    zp_table_start(row, getpid());
    zp_buf own = ZP_BUF_INIT;
    int rc = zp_table_list(table, &own);
    const zp_process *is = (const zp_process *)own.data;
    _exit(rc == 0 && own.size == sizeof *is && is->pid == getpid() && is->parent == getppid() ? 0 : 1);
  }
  int status;
  waitpid(pid, &status, 0);
  assert_int_equal(status, 0);
  zp_table_start(row, pid);
  zp_table_end(row, pid, 0);
  assert_int_equal(must_find("child")->state, ZP_PROCESS_EXITED);
}

static void rows_come_in_the_order_of_their_starts(void **unused) {
  (void)unused;
  char name[16];
  for (int i = 0; i < 100; i++) {
    snprintf(name, sizeof name, "%d", i);
    zp_table_row row = zp_table_claim(table, name);
    zp_table_start(row, getpid());
  }
  assert_int_equal(list(), 100);
  for (int i = 0; i < 100; i++) assert_int_equal(atoi(row_at((size_t)i)->name), i);
}

static void a_long_name_keeps_its_end(void **unused) {
  (void)unused;
  char name[400];
  for (int i = 0; i < 100; i++) memcpy(name + 3 * i, "\u20ac", 4);
  strcat(name, ".lua:1");
  for (size_t i = 0; i < 3; i++) { /* wherever the cut falls, characters stay whole */
    zp_table_row row = zp_table_claim(table, name);
    zp_table_start(row, getpid());
    list();
    const char *is = row_at(i)->name;
    size_t size = strlen(is);
    assert_true(size < ZP_TABLE_NAME_SIZE && size > ZP_TABLE_NAME_SIZE - 4);
    assert_int_equal(strncmp(is, "...\u20ac", 6), 0);
    assert_string_equal(is + 3, name + strlen(name) - (size - 3));
    strcat(name, "1");
  }
}

static void a_process_without_a_parent_here_enlists_itself_once(void **unused) {
  (void)unused;
  double now = zp_clock_wall();
  zp_table_row row = zp_table_enlist(table, "script.lua");
  assert_non_null(row.file);
  assert_null(zp_table_enlist(table, "script.lua").file);
  const zp_process *is = must_find("script.lua");
  assert_int_equal(list(), 1);
  assert_int_equal(is->pid, getpid());
  assert_int_equal(is->parent, getppid());
  assert_int_equal(is->state, ZP_PROCESS_RUNNING);
  /* That is when the process was started, not when it was enlisted. */
  assert_true(is->started <= now + 0.001 && is->started > now - 600);
  zp_table_row child;
  pid_t pid = start_sleeper("child", &child);
  list();
  assert_string_equal(row_at(0)->name, "script.lua");
  kill_and_reap(pid);
}

static void a_process_that_nobody_saw_end_is_gone(void **unused) {
  (void)unused;
  int ready[2];
  assert_int_equal(pipe(ready), 0);
  pid_t parent = fork();
  if (parent == 0) { /* it starts one, and dies without a word about it */
    zp_table_row row;
    pid_t pid = start_sleeper("orphan", &row);
    if (write(ready[1], &pid, sizeof pid) != (ssize_t)sizeof pid) _exit(1);
    for (;;) pause();
  }
  pid_t orphan;
  assert_int_equal(read(ready[0], &orphan, sizeof orphan), sizeof orphan);
  assert_int_equal(must_find("orphan")->state, ZP_PROCESS_RUNNING);
  kill_and_reap(parent);
  assert_int_equal(must_find("orphan")->state, ZP_PROCESS_RUNNING);
  kill(orphan, SIGKILL);
  double limit = zp_clock_now() + GENEROUS;
  while (must_find("orphan")->state == ZP_PROCESS_RUNNING && zp_clock_now() < limit) usleep(1000);
  const zp_process *is = must_find("orphan");
  /* Until whoever adopts orphans has reaped it, what it died of is known. */
  if (is->state != ZP_PROCESS_GONE) assert_int_equal(is->exitcode, -SIGKILL);
  close(ready[0]);
  close(ready[1]);
}

static void a_process_that_was_reaped_by_others_is_gone(void **unused) {
  (void)unused;
  zp_table_row row;
  kill_and_reap(start_sleeper("lost", &row));
  assert_int_equal(must_find("lost")->state, ZP_PROCESS_GONE);
}

static void of_a_dead_process_that_nobody_has_waited_for_yet_the_exit_code_is_known(void **unused) {
  (void)unused;
  const struct {
    const char *name;
    int exitcode;
  } cases[] = {{"exits", 7}, {"is killed", -SIGKILL}};
  for (int i = 0; i < 2; i++) {
    zp_table_row row = zp_table_claim(table, cases[i].name);
    pid_t pid = fork();
    if (pid == 0) {
      if (i == 0) _exit(7);
      raise(SIGKILL);
    }
    zp_table_start(row, pid);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    const zp_process *is = must_find(cases[i].name);
    assert_int_equal(is->state, ZP_PROCESS_EXITED);
    assert_int_equal(is->exitcode, cases[i].exitcode);
    waitpid(pid, NULL, 0);
    zp_table_end(row, pid, cases[i].exitcode);
  }
}

/* As if the row had been there long before the process with its pid was started: for half of the time since the machine was. */
static void make_older(const char *name) {
  uint64_t order = must_find(name)->order, earlier = order / 2;
  struct stat info;
  int fd = open(path, O_RDWR);
  assert_true(fd >= 0 && fstat(fd, &info) == 0);
  unsigned char *map = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  assert_true(map != MAP_FAILED);
  unsigned char *at = memmem(map, (size_t)info.st_size, &order, sizeof order);
  assert_non_null(at);
  memcpy(at, &earlier, sizeof earlier);
  munmap(map, (size_t)info.st_size);
  close(fd);
}

static void a_pid_that_was_given_to_another_process_is_recognised(void **unused) {
  (void)unused;
  zp_table_row row;
  pid_t pid = start_sleeper("first owner", &row);
  assert_int_equal(must_find("first owner")->state, ZP_PROCESS_RUNNING);
  make_older("first owner");
  assert_int_equal(must_find("first owner")->state, ZP_PROCESS_GONE);
  assert_int_equal(must_find("first owner")->pid, pid);
  kill_and_reap(pid);

  zp_table_enlist(table, "me, long ago");
  make_older("me, long ago");
  assert_non_null(zp_table_enlist(table, "me, now").file);
  assert_int_equal(must_find("me, now")->state, ZP_PROCESS_RUNNING);
}

/* Claim until the table is full; how many rows that took. */
static int fill(const char *name) {
  int count = 0;
  for (zp_table_row row; (row = zp_table_claim(table, name)).file; count++) zp_table_start(row, getpid());
  return count;
}

static void a_full_table_lists_no_more_and_takes_again_what_has_ended(void **unused) {
  (void)unused;
  zp_table_row first = zp_table_claim(table, "first"), second = zp_table_claim(table, "second");
  zp_table_start(first, getpid());
  zp_table_start(second, getpid());
  assert_int_equal(fill("running"), ZP_TABLE_SLOTS - 2);
  assert_int_equal(list(), ZP_TABLE_SLOTS);

  zp_table_row none = zp_table_claim(table, "one too many");
  assert_null(none.file);
  zp_table_start(none, getpid()); /* all of these do nothing */
  zp_table_note_try(none, 2, true);
  zp_table_end(none, getpid(), 0);
  zp_table_withdraw(none);
  assert_int_equal(list(), ZP_TABLE_SLOTS);

  zp_table_end(second, getpid(), 0);
  zp_table_row next = zp_table_claim(table, "next");
  assert_non_null(next.file);
  zp_table_start(next, getpid());
  assert_int_equal(list(), ZP_TABLE_SLOTS);
  assert_null(find("second"));
  assert_non_null(find("first"));

  zp_table_end(second, getpid(), 9); /* a handle of a row that is no more */
  zp_table_note_try(second, 9, true);
  assert_int_equal(must_find("next")->state, ZP_PROCESS_RUNNING);
  assert_int_equal(must_find("next")->tries, 1);
}

static void the_end_that_is_longest_ago_is_forgotten_first(void **unused) {
  (void)unused;
  enum { ENDED = 25 };
  zp_table_row ended[ENDED];
  char name[16];
  for (int i = 0; i < ENDED; i++) {
    snprintf(name, sizeof name, "%d", i);
    ended[i] = zp_table_claim(table, name);
    zp_table_start(ended[i], getpid());
  }
  fill("running");
  for (int i = 0; i < ENDED; i++) zp_table_end(ended[i * 7 % ENDED], getpid(), 0);
  for (int i = 0; i < ENDED; i++) {
    zp_table_row row = zp_table_claim(table, "new");
    assert_non_null(row.file);
    zp_table_start(row, getpid());
    list();
    for (int k = 0; k < ENDED; k++) {
      snprintf(name, sizeof name, "%d", k * 7 % ENDED);
      assert_true((find(name) == NULL) == (k <= i));
    }
  }
}

/* The full table is looked through at most once a second. */
static zp_table_row claim_in_time(const char *name) {
  double limit = zp_clock_now() + GENEROUS;
  for (;;) {
    zp_table_row row = zp_table_claim(table, name);
    if (row.file || zp_clock_now() > limit) return row;
    usleep(1000);
  }
}

static void what_is_gone_is_taken_when_nothing_else_is_left(void **unused) {
  (void)unused;
  zp_table_row row;
  pid_t pid = start_sleeper("gone", &row);
  fill("running");
  assert_null(zp_table_claim(table, "too early").file);
  kill_and_reap(pid);
  row = claim_in_time("instead");
  assert_non_null(row.file);
  zp_table_start(row, getpid());
  list();
  assert_null(find("gone"));
  assert_non_null(find("instead"));
}

static void a_claim_whose_maker_was_killed_is_void(void **unused) {
  (void)unused;
  pid_t pid = fork();
  if (pid == 0) {
    zp_table_claim(table, "half");
    raise(SIGKILL);
  }
  waitpid(pid, NULL, 0);
  assert_int_equal(list(), 0);
  for (int i = 0; i < ZP_TABLE_SLOTS; i++) {
    zp_table_row row = claim_in_time("whole");
    assert_non_null(row.file);
    zp_table_start(row, getpid());
  }
  assert_int_equal(list(), ZP_TABLE_SLOTS);
}

static void a_detached_table_takes_everything_and_keeps_nothing(void **unused) {
  (void)unused;
  zp_table_row row = zp_table_claim(table, "x");
  zp_table_start(row, getpid());
  zp_table *other = NULL;
  assert_int_equal(zp_table_open(directory, &other), 0);
  zp_table_detach(table);
  zp_table_end(row, getpid(), 0);
  zp_table_note_try(row, 5, true);
  assert_int_equal(list(), 0);
  zp_table_close(&table);
  table = other;
  assert_int_equal(must_find("x")->state, ZP_PROCESS_RUNNING);
  assert_int_equal(must_find("x")->tries, 1);
}

static void a_table_is_there_until_its_last_holder_has_closed_it(void **unused) {
  (void)unused;
  zp_table_row row = zp_table_claim(table, "x");
  zp_table_start(row, getpid());
  zp_table *kept = zp_table_keep(table);
  zp_table_close(&table);
  assert_null(table);
  zp_table_end(row, getpid(), 7);
  table = kept;
  assert_int_equal(must_find("x")->exitcode, 7);
}

/* ---- many at once, some of them killed ---- */

/* A name that says the same thing over and over: the pid and a number. */
static void compose(char name[ZP_TABLE_NAME_SIZE], pid_t pid, unsigned number) {
  size_t size = 0;
  while (size < ZP_TABLE_NAME_SIZE - 24)
    size += (size_t)snprintf(name + size, ZP_TABLE_NAME_SIZE - size, "%d.%u ", (int)pid, number);
}

static bool is_whole(const zp_process *row) {
  int pid;
  unsigned number;
  char expected[ZP_TABLE_NAME_SIZE];
  if (sscanf(row->name, "%d.%u ", &pid, &number) != 2) return false;
  compose(expected, pid, number);
  if (strcmp(row->name, expected) != 0 || row->parent != pid || row->pid != pid) return false;
  if (row->state == ZP_PROCESS_EXITED && row->exitcode != (int)(number % 200)) return false;
  return row->tries == 1 || row->tries == number;
}

/* A writer: starts and ends rows about itself, as fast as it can. */
static _Noreturn void write_rows(void) {
  char name[ZP_TABLE_NAME_SIZE];
  for (unsigned number = 2;; number++) {
    compose(name, getpid(), number);
    zp_table_row row = zp_table_claim(table, name);
    if (number % 7 == 0) {
      zp_table_withdraw(row);
      continue;
    }
    zp_table_start(row, getpid());
    zp_table_note_try(row, number, number % 3 == 0);
    if (number % 1000) zp_table_end(row, getpid(), (int)(number % 200)); /* else it stays until somebody finds it gone */
  }
}

static pid_t start_writer(void) {
  pid_t pid = fork();
  if (pid == 0) write_rows();
  assert_true(pid > 0);
  return pid;
}

static void rows_are_whole_and_no_slot_is_lost_while_writers_are_killed(void **unused) {
  (void)unused;
  enum { WRITERS = 4, CONTESTED = 16, HELD = ZP_TABLE_SLOTS - CONTESTED, LISTS = 100 };
  int kills = getenv("ZP_ROUNDS") ? atoi(getenv("ZP_ROUNDS")) : 300;
  pid_t writers[WRITERS];
  size_t seen = 0, torn = 0;
  static zp_table_row held[HELD];
  for (int i = 0; i < HELD; i++) held[i] = zp_table_claim(table, "held"); /* the few others are used again and again */
  for (int i = 0; i < WRITERS; i++) writers[i] = start_writer();
  for (int i = 0; i < kills; i++) {
    for (int look = 0; look < LISTS; look++) {
      size_t count = list();
      seen += count;
      for (size_t k = 0; k < count; k++) torn += !is_whole(row_at(k));
    }
    kill_and_reap(writers[i % WRITERS]);
    writers[i % WRITERS] = start_writer();
  }
  for (int i = 0; i < WRITERS; i++) kill_and_reap(writers[i]);
  assert_int_equal(torn, 0);
  assert_true(seen > (size_t)kills);
  for (int i = 0; i < HELD; i++) zp_table_withdraw(held[i]);

  /* Nobody runs any more, so all slots can be had. */
  for (int i = 0; i < ZP_TABLE_SLOTS; i++) {
    zp_table_row row = claim_in_time("after");
    assert_non_null(row.file);
    zp_table_start(row, getpid());
  }
  assert_int_equal(list(), ZP_TABLE_SLOTS);
  for (size_t i = 0; i < ZP_TABLE_SLOTS; i++) assert_string_equal(row_at(i)->name, "after");
}

/* Each claims a share; together they fill the table, and no two have the same slot. */
static void claims_at_the_same_time_get_different_slots(void **unused) {
  (void)unused;
  enum { WRITERS = 8, SHARE = ZP_TABLE_SLOTS / WRITERS };
  pid_t pids[WRITERS];
  int go[2];
  char name[ZP_TABLE_NAME_SIZE], byte;
  assert_int_equal(pipe(go), 0);
  for (int w = 0; w < WRITERS; w++) {
    pids[w] = fork();
    if (pids[w]) continue;
    close(go[1]);
    if (read(go[0], &byte, 1) != 0) _exit(1); /* all start when the other end is closed */
    for (unsigned i = 0; i < SHARE; i++) {
      compose(name, getpid(), i);
      zp_table_row row = zp_table_claim(table, name);
      if (!row.file) _exit(2);
      zp_table_start(row, getpid());
      zp_table_end(row, getpid(), (int)(i % 200));
    }
    _exit(0);
  }
  close(go[0]);
  close(go[1]);
  for (int w = 0; w < WRITERS; w++) {
    int status;
    waitpid(pids[w], &status, 0);
    assert_int_equal(status, 0);
  }
  assert_int_equal(list(), ZP_TABLE_SLOTS);
  for (int w = 0; w < WRITERS; w++) {
    unsigned next = 0;
    for (size_t i = 0; i < ZP_TABLE_SLOTS; i++) {
      if (row_at(i)->pid != pids[w]) continue;
      assert_true(is_whole(row_at(i)));
      compose(name, pids[w], next++);
      assert_string_equal(row_at(i)->name, name);
    }
    assert_int_equal(next, SHARE);
  }
}

static void a_directory_without_a_table_or_with_another_file_is_an_error(void **unused) {
  (void)unused;
  zp_table *none = NULL;
  assert_int_equal(zp_table_open("/nowhere", &none), ZP_ENOSTORE);
  assert_int_equal(zp_table_create("/nowhere"), ZP_ESYS);
  int fd = open(path, O_RDWR);
  assert_int_equal(pwrite(fd, "something", 9, 0), 9);
  assert_int_equal(zp_table_open(directory, &none), ZP_ESTORE);
  assert_int_equal(ftruncate(fd, 4096), 0);
  assert_int_equal(zp_table_open(directory, &none), ZP_ESTORE);
  assert_null(none);
  close(fd);
  zp_table_detach(table); /* the file was cut below its mapping */
}

#define test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      test(a_row_tells_the_life_of_a_process),
      test(every_exit_code_arrives),
      test(an_end_that_is_seen_before_the_start_counts),
      test(a_start_that_failed_leaves_nothing),
      test(a_child_can_make_sure_that_it_is_listed),
      test(rows_come_in_the_order_of_their_starts),
      test(a_long_name_keeps_its_end),
      test(a_process_without_a_parent_here_enlists_itself_once),
      test(a_process_that_nobody_saw_end_is_gone),
      test(a_process_that_was_reaped_by_others_is_gone),
      test(of_a_dead_process_that_nobody_has_waited_for_yet_the_exit_code_is_known),
      test(a_pid_that_was_given_to_another_process_is_recognised),
      test(a_full_table_lists_no_more_and_takes_again_what_has_ended),
      test(the_end_that_is_longest_ago_is_forgotten_first),
      test(what_is_gone_is_taken_when_nothing_else_is_left),
      test(a_claim_whose_maker_was_killed_is_void),
      test(a_detached_table_takes_everything_and_keeps_nothing),
      test(a_table_is_there_until_its_last_holder_has_closed_it),
      test(rows_are_whole_and_no_slot_is_lost_while_writers_are_killed),
      test(claims_at_the_same_time_get_different_slots),
      test(a_directory_without_a_table_or_with_another_file_is_an_error),
  };
  return cmocka_run_group_tests_name("table", tests, NULL, NULL);
}
