/* store: keys, revisions, history, locks, forks and threads. */
#include <errno.h>
#include <fcntl.h>
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
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "range.h"
#include "../fault/store_check.h"
#include "base/err.h"
#include "store/check.h"
#include "store/env.h"
#include "sys/interrupt.h"

/* ---- one directory a test ---- */

static char directory[64];
static zp_store_limits limits; /* of the store that the next fixture makes */

static void must(int rc) {
  if (rc < 0) fail_msg("%d: %s", rc, zp_error_detail());
}

static int set_up(void **unused) {
  (void)unused;
  const char *root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
  snprintf(directory, sizeof directory, "%s/zproc-test-XXXXXX", root);
  assert_non_null(mkdtemp(directory));
  must(zp_store_create(directory, &limits));
  return 0;
}

/* Every test ends with a sound store. */
static int tear_down(void **unused) {
  (void)unused;
  const char *wrong = check_store(directory);
  char data[96];
  zp_check found;
  snprintf(data, sizeof data, "%s/data.mdb", directory);
  if (!wrong && access(data, F_OK) == 0 && zp_check_data(data, &found)) wrong = zp_error_detail();
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", directory);
  int rc = system(command);
  if (wrong) fail_msg("%s", wrong);
  return rc;
}

/* ---- shorthand ---- */

static zp_bytes bytes(const char *text) { return (zp_bytes){text, strlen(text)}; }

static zp_store *open_store(const char *name) {
  zp_store *store = NULL;
  must(zp_store_open(directory, name, &store));
  return store;
}

static zp_change put(const char *key, const char *value) {
  return (zp_change){bytes(key), value ? bytes(value) : (zp_bytes){NULL, 0}};
}

static uint64_t set(zp_store *store, const char *key, const char *value) {
  zp_change change = put(key, value);
  uint64_t revision = 0;
  must(zp_store_commit(store, &change, 1, &revision, NULL));
  return revision;
}

static int bytes_are(zp_bytes is, const char *text) {
  return is.size == strlen(text) && memcmp(is.data, text, is.size) == 0;
}

/* Within a read: NULL stands for an absent key. */
static void expect(zp_store *store, const char *key, const char *value) {
  zp_bytes found = {NULL, 0};
  int rc = zp_store_get(store, bytes(key), &found);
  must(rc);
  assert_int_equal(rc, value ? 1 : 0);
  if (value && !bytes_are(found, value))
    fail_msg("%s is %.*s, not %s", key, (int)found.size, (const char *)found.data, value);
}

static void expect_now(zp_store *store, const char *key, const char *value) {
  must(zp_store_read_begin(store));
  expect(store, key, value);
  zp_store_read_end(store);
}

static uint64_t count_now(zp_store *store) {
  uint64_t count;
  must(zp_store_read_begin(store));
  must(zp_store_count(store, &count));
  zp_store_read_end(store);
  return count;
}

static zp_store_info describe(zp_store *store) {
  zp_store_info info;
  must(zp_store_describe(store, &info));
  return info;
}

static void expect_child_to_succeed(pid_t pid) {
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- making and opening ---- */

static void a_directory_without_a_store_is_told_apart(void **unused) {
  (void)unused;
  char empty[] = "/tmp/zproc-test-XXXXXX";
  assert_non_null(mkdtemp(empty));
  zp_store *store;
  must(zp_store_open(empty, "main", &store));
  assert_int_equal(zp_store_check(store), ZP_ENOSTORE);
  assert_non_null(strstr(zp_error_detail(), empty));
  assert_int_equal(zp_store_read_begin(store), ZP_ENOSTORE);
  zp_change change = put("a", "1");
  assert_int_equal(zp_store_commit(store, &change, 1, NULL, NULL), ZP_ENOSTORE);
  assert_int_equal(zp_store_lock(store), ZP_ENOSTORE);
  zp_store_info info;
  assert_int_equal(zp_store_describe(store, &info), ZP_ENOSTORE);
  must(zp_store_create(empty, NULL)); /* the handle needs no opening anew */
  must(zp_store_check(store));
  zp_store_close(&store);
  must(zp_store_open("/nowhere/at/all", "main", &store));
  assert_int_equal(zp_store_check(store), ZP_ENOSTORE);
  zp_store_close(&store);
  assert_int_equal(zp_store_create("/nowhere/at/all", NULL), ZP_ESYS);
  char command[64];
  snprintf(command, sizeof command, "rm -rf %s", empty);
  assert_int_equal(system(command), 0);
}

static void a_second_store_is_not_made_over_the_first(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  set(store, "a", "1");
  assert_int_equal(zp_store_create(directory, NULL), ZP_ESTORE);
  expect_now(store, "a", "1");
  zp_store_close(&store);
}

static void what_a_killed_creator_left_is_no_store(void **unused) {
  (void)unused;
  char control[96];
  snprintf(control, sizeof control, "%s/control", directory);
  assert_int_equal(unlink(control), 0);
  zp_store *store = open_store("main");
  assert_int_equal(zp_store_check(store), ZP_ENOSTORE);
  must(zp_store_create(directory, NULL));
  must(zp_store_check(store));
  zp_store_close(&store);
}

static void a_store_of_another_format_is_refused(void **unused) {
  (void)unused;
  char control[96];
  snprintf(control, sizeof control, "%s/control", directory);
  FILE *file = fopen(control, "r+");
  assert_non_null(file);
  assert_int_equal(fseek(file, 8, SEEK_SET), 0);
  assert_int_equal(fputc(99, file), 99);
  fclose(file);
  zp_store *store = open_store("main");
  assert_int_equal(zp_store_check(store), ZP_ESTORE);
  assert_non_null(strstr(zp_error_detail(), "has format 99"));
  zp_store_close(&store);
  assert_int_equal(truncate(control, 20), 0);
  store = open_store("main");
  assert_int_equal(zp_store_check(store), ZP_ESTORE);
  zp_store_close(&store);
}

static void the_files_are_private_and_allocated(void **unused) {
  (void)unused;
  const char *files[] = {"data.mdb", "lock.mdb", "control"};
  for (size_t i = 0; i < 3; i++) {
    char path[96];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", directory, files[i]);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_true(status.st_blocks * 512 >= status.st_size);
  }
}

static void names_of_namespaces_have_1_to_255_bytes(void **unused) {
  (void)unused;
  char name[300];
  zp_store *store = NULL;
  assert_int_equal(zp_store_open(directory, "", &store), ZP_EKEY);
  assert_null(store);
  memset(name, 'n', sizeof name);
  name[256] = 0;
  assert_int_equal(zp_store_open(directory, name, &store), ZP_EKEY);
  name[255] = 0;
  store = open_store(name);
  set(store, "a", "1");
  expect_now(store, "a", "1");
  assert_string_equal(zp_store_namespace(store), name);
  assert_string_equal(zp_store_directory(store), directory);
  zp_store_close(&store);
  assert_null(store);
  zp_store_close(&store);
}

/* Data that are elsewhere outlive the directory, with all of their history. */
static void data_elsewhere_go_on_where_they_were(void **unused) {
  (void)unused;
  char data[80], command[300], first[80], second[80];
  snprintf(data, sizeof data, "%s/kept.mdb", directory);
  snprintf(first, sizeof first, "%s/first", directory);
  snprintf(second, sizeof second, "%s/second", directory);
  zp_store_place place = {.data_file = data, .is_synced = true};
  for (int round = 0; round < 2; round++) {
    const char *where = round ? second : first;
    snprintf(command, sizeof command, "mkdir -m 700 %s", where);
    assert_int_equal(system(command), 0);
    must(zp_store_create_at(where, &limits, &place));
    zp_store *store = NULL;
    must(zp_store_open(where, "main", &store));
    if (round) {
      expect_now(store, "a", "3");
      expect_now(store, "gone", NULL);
      must(zp_store_read_begin_at(store, 1));
      expect(store, "a", "1");
      zp_store_read_end(store);
      uint64_t revision;
      must(zp_store_read_begin(store));
      assert_int_equal(zp_store_next_change(store, bytes("a"), 1, &revision), 1);
      assert_int_equal(revision, 4);
      zp_store_read_end(store);
      assert_int_equal(set(store, "b", "new"), 5);
    } else {
      assert_int_equal(set(store, "a", "1"), 1);
      set(store, "gone", "x");
      set(store, "gone", NULL);
      assert_int_equal(set(store, "a", "3"), 4);
    }
    zp_store_retire(where);
    assert_true(zp_store_await_writers(where, 0));
    zp_change change = put("late", "x");
    assert_int_equal(zp_store_commit(store, &change, 1, NULL, NULL), ZP_ENOSTORE);
    zp_store_close(&store);
    snprintf(command, sizeof command, "rm -r %s", where);
    assert_int_equal(system(command), 0);
  }
  place.data_file = "/nowhere/data.mdb";
  snprintf(command, sizeof command, "mkdir -m 700 %s", first);
  assert_int_equal(system(command), 0);
  assert_int_equal(zp_store_create_at(first, &limits, &place), ZP_ESYS);
}

static void a_relative_directory_survives_chdir(void **unused) {
  (void)unused;
  char cwd[4096];
  assert_non_null(getcwd(cwd, sizeof cwd));
  assert_int_equal(chdir(directory), 0);
  zp_store *store, *other = open_store("main");
  must(zp_store_open(".", "main", &store));
  assert_int_equal(chdir("/"), 0);
  set(other, "a", "1");
  expect_now(store, "a", "1"); /* and it is the same environment, or LMDB would be open twice */
  zp_store_close(&store);
  set(other, "a", "2");
  zp_store_close(&other);
  assert_int_equal(chdir(cwd), 0);
}

/* ---- reading and writing ---- */

static void a_namespace_that_nobody_wrote_reads_as_empty(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  zp_bytes key, value;
  uint64_t count = 9, oldest, newest;
  must(zp_store_read_begin(store));
  expect(store, "a", NULL);
  must(zp_store_count(store, &count));
  assert_int_equal(count, 0);
  assert_int_equal(zp_store_first(store, &key, &value), 0);
  assert_int_equal(zp_store_next(store, &key, &value), 0);
  assert_int_equal(zp_store_last(store, &key, &value), 0);
  assert_int_equal(zp_store_read_revision(store), 0);
  must(zp_store_range(store, &oldest, &newest));
  assert_int_equal(oldest, 0);
  assert_int_equal(newest, 0);
  zp_store_read_end(store);
  must(zp_store_read_begin_at(store, 0));
  zp_store_read_end(store);
  assert_int_equal(zp_store_read_begin_at(store, 1), ZP_EHISTORY);
  zp_store_close(&store);
}

static void what_was_committed_is_read(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  zp_change changes[] = {put("b", "2"), put("a", "1"), put("", "empty key")};
  uint64_t revision;
  size_t changed;
  must(zp_store_commit(store, changes, 3, &revision, &changed));
  assert_int_equal(revision, 1);
  assert_int_equal(changed, 3);
  must(zp_store_read_begin(store));
  expect(store, "a", "1");
  expect(store, "b", "2");
  expect(store, "", "empty key");
  expect(store, "c", NULL);
  assert_int_equal(zp_store_read_revision(store), 1);
  zp_store_read_end(store);
  assert_int_equal(count_now(store), 3);
  set(store, "a", NULL);
  expect_now(store, "a", NULL);
  assert_int_equal(count_now(store), 2);
  zp_store_close(&store);
}

static void a_read_sees_one_revision(void **unused) {
  (void)unused;
  zp_store *reader = open_store("main"), *writer = open_store("main");
  set(writer, "a", "1");
  must(zp_store_read_begin(reader));
  set(writer, "a", "2");
  expect(reader, "a", "1");
  assert_int_equal(zp_store_read_revision(reader), 1);
  zp_store_read_end(reader);
  expect_now(reader, "a", "2");
  zp_store_close(&reader);
  zp_store_close(&writer);
}

static void equal_values_change_nothing_but_add_a_revision(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  zp_change changes[] = {put("a", "1"), put("b", "2")};
  must(zp_store_commit(store, changes, 2, NULL, NULL));
  size_t changed = 9;
  uint64_t revision;
  must(zp_store_commit(store, changes, 2, &revision, &changed));
  assert_int_equal(revision, 2);
  assert_int_equal(changed, 0);
  changes[1] = put("b", "3");
  must(zp_store_commit(store, changes, 2, &revision, &changed));
  assert_int_equal(changed, 1);
  zp_change absent = put("nobody", NULL);
  must(zp_store_commit(store, &absent, 1, &revision, &changed));
  assert_int_equal(changed, 0);
  must(zp_store_commit(store, NULL, 0, &revision, &changed));
  assert_int_equal(changed, 0);
  assert_int_equal(revision, 5);

  zp_log_record record;
  must(zp_store_read_begin(store));
  assert_int_equal(zp_store_log(store, 2, &record), 1);
  assert_int_equal(record.key_count, 0);
  zp_bytes key;
  size_t offset = 0;
  assert_int_equal(zp_log_key(&record, &offset, &key), 0);
  assert_int_equal(zp_store_log(store, 3, &record), 1);
  assert_int_equal(record.key_count, 1);
  assert_int_equal(zp_log_key(&record, &offset, &key), 1);
  assert_true(bytes_are(key, "b"));
  assert_int_equal(zp_log_key(&record, &offset, &key), 0);
  zp_store_read_end(store);
  zp_store_close(&store);
}

typedef struct counted {
  zp_changes base;
  const zp_change *changes;
  size_t count, at, rounds;
} counted;

static void begin_counted(zp_changes *changes) {
  counted *self = (counted *)changes;
  self->at = 0;
  self->rounds++;
}

static bool next_counted(zp_changes *changes, zp_change *change) {
  counted *self = (counted *)changes;
  if (self->at == self->count) return false;
  *change = self->changes[self->at++];
  return true;
}

static void changes_can_be_walked_if_their_keys_ascend(void **unused) {
  (void)unused;
  static const zp_change sorted[] = {{{"a", 1}, {"1", 1}}, {{"ab", 2}, {"2", 1}}, {{"b", 1}, {"3", 1}}};
  static const zp_change descending[] = {{{"b", 1}, {"1", 1}}, {{"a", 1}, {"2", 1}}}, twice[] = {{{"a", 1}, {"1", 1}}, {{"a", 1}, {"2", 1}}};
  static const zp_change empty[] = {{{"a", 1}, {"", 0}}};
  zp_change mixed[] = {{{"c", 1}, {"1", 1}}, {{"a", 1}, {"2", 1}}, {{"c", 1}, {NULL, 0}}, {{"b", 1}, {"3", 1}}};
  counted walk = {.base = {begin_counted, next_counted}, .changes = sorted, .count = 3};
  zp_store *store = open_store("main");
  uint64_t revision;
  size_t changed, count = 4;
  must(zp_store_commit_sorted(store, &walk.base, &revision, &changed));
  assert_int_equal(changed, 3);
  assert_true(walk.rounds > 1);
  must(zp_store_commit_sorted(store, &walk.base, &revision, &changed));
  assert_int_equal(changed, 0);
  walk.count = 0;
  must(zp_store_commit_sorted(store, &walk.base, &revision, &changed));
  walk.changes = descending, walk.count = 2;
  assert_int_equal(zp_store_commit_sorted(store, &walk.base, &revision, &changed), ZP_EVALUE);
  walk.changes = twice;
  assert_int_equal(zp_store_commit_sorted(store, &walk.base, &revision, &changed), ZP_EVALUE);
  walk.changes = empty, walk.count = 1;
  assert_int_equal(zp_store_commit_sorted(store, &walk.base, &revision, &changed), ZP_EVALUE);
  must(zp_changes_sort(mixed, &count));
  assert_int_equal(count, 3);
  assert_memory_equal(mixed[0].key.data, "a", 1);
  assert_memory_equal(mixed[1].key.data, "b", 1);
  assert_memory_equal(mixed[2].key.data, "c", 1);
  assert_null(mixed[2].value.data); /* the later one counts */
  zp_store_close(&store);
}

static void the_last_of_several_changes_of_a_key_counts(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  set(store, "a", "0");
  zp_change changes[] = {put("a", "1"), put("b", "1"), put("a", NULL), put("b", "2"), put("c", "1"),
                         put("a", "3"), put("c", NULL)};
  size_t changed;
  must(zp_store_commit(store, changes, 7, NULL, &changed));
  assert_int_equal(changed, 2);
  must(zp_store_read_begin(store));
  expect(store, "a", "3");
  expect(store, "b", "2");
  expect(store, "c", NULL);
  zp_store_read_end(store);
  zp_change back[] = {put("a", "9"), put("a", "3")};
  must(zp_store_commit(store, back, 2, NULL, &changed));
  assert_int_equal(changed, 0);
  zp_store_close(&store);
}

static void values_that_cannot_be_are_refused(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  zp_change change = {bytes("a"), {"", 0}};
  assert_int_equal(zp_store_commit(store, &change, 1, NULL, NULL), ZP_EVALUE);
  change.value.size = (size_t)1 << 40;
  assert_int_equal(zp_store_commit(store, &change, 1, NULL, NULL), ZP_EVALUE);
  assert_int_equal(describe(store).newest, 0);
  zp_store_close(&store);
}

static void namespaces_do_not_see_each_other(void **unused) {
  (void)unused;
  zp_store *a = open_store("a"), *b = open_store("b"), *again = open_store("a");
  set(a, "k", "of a");
  set(b, "k", "of b");
  set(b, "l", "of b");
  expect_now(a, "k", "of a");
  expect_now(b, "k", "of b");
  expect_now(again, "k", "of a");
  expect_now(a, "l", NULL);
  assert_int_equal(count_now(a), 1);
  assert_int_equal(count_now(b), 2);
  zp_bytes key, value;
  must(zp_store_read_begin(a));
  assert_int_equal(zp_store_last(a, &key, &value), 1);
  assert_true(bytes_are(value, "of a"));
  assert_int_equal(zp_store_next(a, &key, &value), 0);
  zp_store_read_end(a);
  zp_store_close(&a);
  zp_store_close(&b);
  zp_store_close(&again);
}

/* ---- keys ---- */

static void keys_are_walked_in_byte_order_whatever_they_hold(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  const zp_bytes keys[] = {{"", 0},        {"\0", 1},     {"\0\0", 2},     {"\0\1", 2},  {"\0\xFF", 2}, {"\1", 1},
                           {"a", 1},       {"a\0", 2},    {"a\0\0b", 4},   {"a\0\1", 3}, {"a\0\xFF", 3}, {"a\1", 2},
                           {"aa", 2},      {"b", 1},      {"\xFF", 1},     {"\xFF\0", 2}, {"\xFF\xFF", 2}};
  enum { COUNT = sizeof keys / sizeof *keys };
  for (size_t i = 0; i < COUNT; i++) {
    size_t j = (i * 7) % COUNT; /* not in order, several versions each */
    for (char version = '1'; version <= '3'; version++) {
      char text[2] = {(char)('A' + j), version};
      zp_change change = {keys[j], {text, 2}};
      must(zp_store_commit(store, &change, 1, NULL, NULL));
    }
  }
  must(zp_store_read_begin(store));
  zp_bytes key, value;
  size_t at = 0;
  for (int rc = zp_store_first(store, &key, &value); rc == 1; rc = zp_store_next(store, &key, &value), at++) {
    assert_true(at < COUNT);
    assert_int_equal(key.size, keys[at].size);
    assert_memory_equal(key.data, keys[at].data, key.size);
    assert_int_equal(((const char *)value.data)[0], 'A' + (char)at);
    assert_int_equal(((const char *)value.data)[1], '3');
    zp_bytes got;
    assert_int_equal(zp_store_get(store, keys[(at + 5) % COUNT], &got), 1); /* does not disturb the walk */
  }
  assert_int_equal(at, COUNT);
  assert_int_equal(zp_store_last(store, &key, &value), 1);
  assert_int_equal(key.size, 2);
  assert_memory_equal(key.data, "\xFF\xFF", 2);
  zp_store_read_end(store);
  zp_store_close(&store);
}

static void a_walk_can_begin_anywhere(void **unused) {
  (void)unused;
  zp_store *store = open_store("main"), *other = open_store("other");
  zp_change changes[] = {put("b", "1"), put("bb", "2"), put("d", "3"), put("x", "4")};
  must(zp_store_commit(store, changes, 4, NULL, NULL));
  set(other, "c", "not here");
  set(store, "x", NULL);
  set(store, "d", "5"); /* several versions */
  static const char *const from[] = {"", "b", "ba", "bb", "bc", "d", "da", "x"};
  static const char *const found[] = {"b", "b", "bb", "bb", "d", "d", NULL, NULL};
  zp_bytes key, value;
  must(zp_store_read_begin(store));
  for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
    int rc = zp_store_seek(store, bytes(from[i]), &key, &value);
    must(rc);
    assert_int_equal(rc, found[i] != NULL);
    if (found[i]) assert_true(bytes_are(key, found[i]));
  }
  assert_int_equal(zp_store_seek(store, bytes("ba"), &key, &value), 1);
  assert_int_equal(zp_store_next(store, &key, &value), 1);
  assert_true(bytes_are(key, "d"));
  assert_true(bytes_are(value, "5"));
  assert_int_equal(zp_store_next(store, &key, &value), 0);
  zp_store_read_end(store);
  zp_store_close(&other);
  zp_store_close(&store);
}

static void the_longest_keys_fit_and_longer_ones_do_not(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  char long_key[ZP_KEY_MAX + 1];
  struct {
    size_t size, zeros;
    int rc;
  } cases[] = {{ZP_KEY_MAX, 0, 0},           {ZP_KEY_MAX + 1, 0, ZP_EKEY},      {ZP_KEY_MAX - 1, 1, 0},
               {ZP_KEY_MAX, 1, ZP_EKEY},     {ZP_KEY_MAX / 2, ZP_KEY_MAX / 2, 0},
               {ZP_KEY_MAX / 2 + 1, ZP_KEY_MAX / 2 + 1, ZP_EKEY}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    memset(long_key, 'k', sizeof long_key);
    memset(long_key, 0, cases[i].zeros);
    zp_change change = {{long_key, cases[i].size}, {"v", 1}};
    zp_bytes value;
    assert_int_equal(zp_store_commit(store, &change, 1, NULL, NULL), cases[i].rc);
    must(zp_store_read_begin(store));
    assert_int_equal(zp_store_get(store, change.key, &value), cases[i].rc ? cases[i].rc : 1);
    zp_store_read_end(store);
  }
  zp_store *nobody = open_store("nobody");
  zp_bytes value;
  must(zp_store_read_begin(nobody));
  assert_int_equal(zp_store_get(nobody, (zp_bytes){long_key, sizeof long_key}, &value), ZP_EKEY);
  zp_store_read_end(nobody);
  zp_store_close(&nobody);
  zp_store_close(&store);
}

static void a_hundred_thousand_keys_are_cleared_at_once(void **unused) {
  (void)unused;
  enum { COUNT = 100000 };
  zp_store *store = open_store("main");
  zp_change *changes = calloc(2 * COUNT, sizeof *changes);
  char(*names)[12] = calloc(COUNT, sizeof *names);
  for (size_t i = 0; i < COUNT; i++) snprintf(names[i], sizeof names[i], "key%zu", (i * 7919) % COUNT);
  for (size_t i = 0; i < COUNT; i++) {
    changes[i] = put(names[i], "something");
    changes[COUNT + i] = put(names[COUNT - 1 - i], names[i]); /* each key twice, in another order */
  }
  size_t changed;
  must(zp_store_commit(store, changes, 2 * COUNT, NULL, &changed));
  assert_int_equal(changed, COUNT);
  assert_int_equal(count_now(store), COUNT);
  expect_now(store, names[COUNT - 1], names[0]);
  for (size_t i = 0; i < COUNT; i++) changes[i] = put(names[i], NULL);
  must(zp_store_commit(store, changes, COUNT, NULL, &changed));
  assert_int_equal(changed, COUNT);
  assert_int_equal(count_now(store), 0);
  zp_bytes key, value;
  must(zp_store_read_begin(store));
  assert_int_equal(zp_store_first(store, &key, &value), 0);
  assert_int_equal(zp_store_last(store, &key, &value), 0);
  zp_store_read_end(store);
  must(zp_store_read_begin_at(store, 1));
  expect(store, names[3], names[COUNT - 4]);
  assert_int_equal(zp_store_last(store, &key, &value), 1);
  zp_store_read_end(store);
  set(store, "a", "1");
  free(changes);
  free(names);
  zp_store_close(&store);
}

/* ---- the past ---- */

enum { MODEL_SPACES = 3, MODEL_KEYS = 14, MODEL_REVISIONS = 900 };

typedef struct model {
  int value[MODEL_SPACES][MODEL_KEYS]; /* 0: absent */
  int space;                           /* that the revision changed */
  unsigned changed;                    /* bit per key */
  uint64_t author;
} model;

static model past[MODEL_REVISIONS + 1];

static uint32_t chance(uint32_t *seed, uint32_t below) {
  *seed = *seed * 1664525u + 1013904223u;
  return (uint32_t)(((uint64_t)*seed * below) >> 32);
}

static void model_key(int key, char *name) { snprintf(name, 16, key % 3 ? "k%d" : "kk%d", key); }

static void compare_with_model(zp_store *store, int space, const model *at) {
  uint64_t live = 0, count;
  for (int k = 0; k < MODEL_KEYS; k++) {
    char name[16], value[16];
    model_key(k, name);
    snprintf(value, sizeof value, "%d", at->value[space][k]);
    expect(store, name, at->value[space][k] ? value : NULL);
    live += at->value[space][k] != 0;
  }
  must(zp_store_count(store, &count));
  assert_int_equal(count, live);
  zp_bytes key, value;
  char before[16] = "", last[16] = "";
  int rc = zp_store_first(store, &key, &value);
  for (; rc == 1; rc = zp_store_next(store, &key, &value)) {
    live--;
    snprintf(last, sizeof last, "%.*s", (int)key.size, (const char *)key.data);
    assert_true(strcmp(before, last) < 0);
    memcpy(before, last, sizeof last);
  }
  must(rc);
  assert_int_equal(live, 0);
  rc = zp_store_last(store, &key, &value);
  assert_int_equal(rc, last[0] ? 1 : 0);
  if (rc) assert_true(bytes_are(key, last));
}

/* A random history, kept in the model as well; every kept revision of the store is then compared with it. */
static void compare_a_random_history(uint32_t seed) {
  zp_store *stores[MODEL_SPACES];
  const char *names[MODEL_SPACES] = {"one", "two", "three"};
  for (int s = 0; s < MODEL_SPACES; s++) stores[s] = open_store(names[s]);
  memset(past, 0, sizeof past);
  for (uint64_t r = 1; r <= MODEL_REVISIONS; r++) {
    model *now = &past[r];
    memcpy(now->value, past[r - 1].value, sizeof now->value);
    int space = now->space = (int)chance(&seed, MODEL_SPACES);
    zp_change changes[MODEL_KEYS];
    char keys[MODEL_KEYS][16], values[MODEL_KEYS][16];
    size_t n = chance(&seed, 4);
    for (size_t i = 0; i < n; i++) {
      int k = (int)chance(&seed, MODEL_KEYS), v = (int)chance(&seed, 6);
      model_key(k, keys[i]);
      snprintf(values[i], sizeof values[i], "%d", v);
      changes[i] = put(keys[i], v ? values[i] : NULL);
      now->value[space][k] = v;
    }
    uint64_t revision;
    size_t changed, differ = 0;
    must(zp_store_commit(stores[space], changes, n, &revision, &changed));
    assert_int_equal(revision, r);
    for (int k = 0; k < MODEL_KEYS; k++)
      if (now->value[space][k] != past[r - 1].value[space][k]) {
        differ++;
        now->changed |= 1u << k;
      }
    assert_int_equal(changed, differ);
    now->author = zp_store_author(stores[space]);
  }
  for (int s = 0; s < MODEL_SPACES; s++) {
    uint64_t oldest, newest;
    must(zp_store_read_begin(stores[s]));
    must(zp_store_range(stores[s], &oldest, &newest));
    assert_int_equal(newest, MODEL_REVISIONS);
    compare_with_model(stores[s], s, &past[MODEL_REVISIONS]);
    for (uint64_t r = oldest ? oldest : 1; r <= newest; r++) {
      zp_log_record record;
      zp_bytes key;
      assert_int_equal(zp_store_log(stores[s], r, &record), 1);
      assert_int_equal(record.revision, r);
      assert_int_equal(record.author, past[r].author);
      assert_int_equal(record.same_namespace, past[r].space == s);
      assert_int_equal(record.key_count, __builtin_popcount(past[r].changed));
      unsigned listed = 0;
      for (size_t offset = 0; zp_log_key(&record, &offset, &key);)
        for (int k = 0; k < MODEL_KEYS; k++) {
          char name[16];
          model_key(k, name);
          if (bytes_are(key, name)) listed |= 1u << k;
        }
      assert_int_equal(listed, past[r].changed);
    }
    zp_log_record record;
    assert_int_equal(zp_store_log(stores[s], newest + 1, &record), 0);
    zp_store_read_end(stores[s]);
    for (uint64_t r = oldest; r <= newest; r++) {
      must(zp_store_read_begin_at(stores[s], r));
      assert_int_equal(zp_store_read_revision(stores[s]), r);
      compare_with_model(stores[s], s, &past[r]);
      zp_store_read_end(stores[s]);
    }
    if (oldest > 0) assert_int_equal(zp_store_read_begin_at(stores[s], oldest - 1), ZP_EHISTORY);
    assert_int_equal(zp_store_read_begin_at(stores[s], newest + 1), ZP_EHISTORY);
  }
  for (int s = 0; s < MODEL_SPACES; s++) zp_store_close(&stores[s]);
}

static void every_revision_can_be_read_as_it_was(void **unused) {
  (void)unused;
  compare_a_random_history(1);
}

static int set_up_few_revisions(void **state) {
  limits = (zp_store_limits){.keep_revisions = 100};
  int rc = set_up(state);
  limits = (zp_store_limits){0};
  return rc;
}

static int set_up_few_bytes(void **state) {
  limits = (zp_store_limits){.keep_bytes = 8000};
  int rc = set_up(state);
  limits = (zp_store_limits){0};
  return rc;
}

static int set_up_no_history(void **state) {
  limits = (zp_store_limits){.keep_revisions = 1, .keep_bytes = 1};
  int rc = set_up(state);
  limits = (zp_store_limits){0};
  return rc;
}

static void every_kept_revision_can_be_read_after_trimming(void **unused) {
  (void)unused;
  compare_a_random_history(2);
}

static void revisions_beyond_the_limit_are_given_up(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  char text[16];
  for (int i = 1; i <= 1000; i++) {
    snprintf(text, sizeof text, "%d", i);
    set(store, "a", text);
  }
  zp_store_info info = describe(store);
  assert_int_equal(info.limits.keep_revisions, 100);
  assert_int_equal(info.newest, 1000);
  assert_uint_in_range(info.oldest, 1000 - 100 - 64, 1000 - 100 + 1);
  assert_int_equal(zp_store_read_begin_at(store, info.oldest - 1), ZP_EHISTORY);
  assert_non_null(strstr(zp_error_detail(), "not kept"));
  zp_log_record record;
  must(zp_store_read_begin(store));
  assert_int_equal(zp_store_log(store, info.oldest - 1, &record), ZP_EHISTORY);
  assert_int_equal(zp_store_log(store, 0, &record), ZP_EHISTORY);
  assert_int_equal(zp_store_log(store, info.oldest, &record), 1);
  zp_store_read_end(store);
  must(zp_store_read_begin_at(store, info.oldest));
  snprintf(text, sizeof text, "%d", (int)info.oldest);
  expect(store, "a", text);
  zp_store_read_end(store);
  zp_store_close(&store);
}

/* ---- what is known of a time that is not kept: of 100 revisions ---- */

/* As zp_store_next_change: 1, 0, ZP_EHISTORY. */
static int next_change(zp_store *store, const char *key, uint64_t after) {
  must(zp_store_read_begin(store));
  uint64_t revision;
  int rc = zp_store_next_change(store, bytes(key), after, &revision);
  zp_store_read_end(store);
  return rc;
}

static int next_update(zp_store *store, uint64_t after) {
  must(zp_store_read_begin(store));
  zp_log_record record;
  int rc = zp_store_next_update(store, after, &record);
  zp_store_read_end(store);
  return rc;
}

/* Make a thousand revisions that change one key. */
static void pass_time(zp_store *store, const char *key) {
  char text[16];
  for (int i = 0; i < 1000; i++) {
    snprintf(text, sizeof text, "%d", i);
    set(store, key, text);
  }
}

static void a_key_that_nobody_changed_is_known_to_be_unchanged_however_long_ago(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  uint64_t then = set(store, "present", "x");
  pass_time(store, "busy");
  assert_int_equal(next_change(store, "present", then), 0);
  assert_int_equal(next_change(store, "absent", then), 0);
  assert_int_equal(next_change(store, "busy", then), ZP_EHISTORY);
  set(store, "absent", "y");
  assert_int_equal(next_change(store, "absent", then), 1);
  set(store, "present", "y");
  assert_int_equal(next_change(store, "present", then), 1);
  zp_store_close(&store);
}

static void a_deletion_that_is_forgotten_leaves_absent_keys_unknown(void **unused) {
  (void)unused;
  zp_store *store = open_store("main"), *other = open_store("other");
  uint64_t then = set(other, "x", "1");
  set(store, "gone", "1");
  uint64_t deleted = set(store, "gone", NULL);
  pass_time(store, "busy");
  assert_int_equal(next_change(store, "gone", then), ZP_EHISTORY);
  assert_int_equal(next_change(store, "never", then), ZP_EHISTORY); /* for all that is known it was another of those */
  assert_int_equal(next_change(store, "gone", deleted), 0);
  assert_int_equal(next_change(other, "never", then), 0);
  assert_int_equal(next_change(other, "x", then), 0);
  zp_store_close(&other);
  zp_store_close(&store);
}

static void a_namespace_without_updates_is_known_to_be_unchanged(void **unused) {
  (void)unused;
  zp_store *store = open_store("main"), *idle = open_store("idle"), *none = open_store("none");
  uint64_t then = set(idle, "x", "1");
  assert_int_equal(then, 1);
  pass_time(store, "busy");
  assert_int_equal(next_update(idle, then), 0);
  assert_int_equal(next_update(idle, 0), ZP_EHISTORY); /* the first record of all is gone, and it was one of these */
  assert_int_equal(next_update(none, 0), 0);
  assert_int_equal(next_update(store, then), ZP_EHISTORY);
  set(idle, "x", "2");
  assert_int_equal(next_update(idle, then), 1);
  zp_store_close(&none);
  zp_store_close(&idle);
  zp_store_close(&store);
}

/* Only deletions are forgotten without a trace, so nothing else needs to wake who waits for another key. */
static void a_waiter_is_woken_to_move_on_only_while_keys_are_deleted(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  zp_bytes key = bytes("absent");
  zp_alarm alarm = {0};
  set(store, "gone", "1");
  must(zp_alarm_set(store, &alarm, &key, 1));
  pass_time(store, "busy");
  assert_int_equal(zp_alarm_wait(store, &alarm, 0), ZP_ETIMEOUT);
  set(store, "gone", NULL);
  pass_time(store, "busy");
  must(zp_alarm_set(store, &alarm, &key, 1));
  pass_time(store, "busy");
  assert_int_equal(zp_alarm_wait(store, &alarm, 0), ZP_ETIMEOUT);
  set(store, "busy", NULL);
  pass_time(store, "busy");
  assert_int_equal(zp_alarm_wait(store, &alarm, 0), 0);
  zp_store_close(&store);
}

static void history_bytes_beyond_the_limit_are_given_up(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  char text[512];
  for (int i = 0; i < 500; i++) {
    memset(text, 'a' + i % 26, 300);
    text[300] = 0;
    set(store, i % 2 ? "a" : "b", text);
    assert_true(describe(store).history_bytes < 8000 + 400);
  }
  assert_uint_in_range(describe(store).oldest, 470, 490);
  zp_store_close(&store);
}

static void a_big_revision_is_given_up_in_portions(void **unused) {
  (void)unused;
  enum { COUNT = 60000 };
  zp_store *store = open_store("main");
  zp_change *changes = calloc(COUNT, sizeof *changes);
  char(*names)[12] = calloc(COUNT, sizeof *names);
  for (size_t i = 0; i < COUNT; i++) {
    snprintf(names[i], sizeof names[i], "key%05zu", i);
    changes[i] = put(names[i], "1");
  }
  must(zp_store_commit(store, changes, COUNT, NULL, NULL));
  for (size_t i = 0; i < COUNT; i++) changes[i] = put(names[i], i % 2 ? "2" : NULL);
  must(zp_store_commit(store, changes, COUNT, NULL, NULL));
  char text[16];
  for (int i = 0; i < 3000; i++) {
    snprintf(text, sizeof text, "%d", i);
    set(store, "a", text);
    if (i % 500 == 0) {
      zp_store_info info = describe(store);
      assert_int_equal(count_now(store), COUNT / 2 + 1);
      must(zp_store_read_begin_at(store, info.oldest ? info.oldest : 1));
      expect(store, names[1], info.oldest >= 2 ? "2" : "1");
      expect(store, names[COUNT - 2], info.oldest >= 2 ? NULL : "1");
      zp_store_read_end(store);
    }
  }
  assert_uint_in_range(describe(store).oldest, 3002 - 100 - 64, 3002);
  free(changes);
  free(names);
  zp_store_close(&store);
}

static void without_history_a_deleted_key_leaves_nothing(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  for (int i = 0; i < 200; i++) {
    char name[16];
    snprintf(name, sizeof name, "k%d", i);
    set(store, name, "1");
    set(store, name, NULL);
  }
  zp_store_info info = describe(store);
  assert_uint_in_range(info.oldest, info.newest - 64, info.newest);
  assert_int_equal(count_now(store), 0);
  zp_store_close(&store);
}

static void large_values_replaced_many_times_stay_bounded(void **unused) {
  (void)unused;
  enum { SIZE = 10 << 20 };
  zp_store *store = open_store("main");
  char *large = malloc(SIZE);
  uint64_t early = 0;
  for (int i = 0; i < 60; i++) {
    memset(large, i + 1, SIZE);
    zp_change change = {bytes("a"), {large, SIZE}};
    must(zp_store_commit(store, &change, 1, NULL, NULL));
    if (i == 19) early = describe(store).allocated_bytes;
  }
  zp_store_info info = describe(store);
  assert_true(info.allocated_bytes <= early + (16 << 20));
  assert_true(info.history_bytes <= 64 << 20);
  zp_bytes value;
  must(zp_store_read_begin_at(store, info.oldest));
  assert_int_equal(zp_store_get(store, bytes("a"), &value), 1);
  assert_int_equal(value.size, SIZE);
  assert_int_equal(((const unsigned char *)value.data)[SIZE - 1], info.oldest);
  zp_store_read_end(store);
  free(large);
  zp_store_close(&store);
}

static void authors_mark_the_commits_of_a_handle(void **unused) {
  (void)unused;
  zp_store *a = open_store("main"), *b = open_store("main");
  assert_true(zp_store_author(a) != 0);
  assert_true(zp_store_author(a) != zp_store_author(b));
  assert_true(zp_store_author(a) == zp_store_author(a));
  set(a, "k", "1");
  set(b, "k", "2");
  zp_log_record record;
  must(zp_store_read_begin(a));
  assert_int_equal(zp_store_log(a, 1, &record), 1);
  assert_true(record.author == zp_store_author(a));
  assert_int_equal(zp_store_log(a, 2, &record), 1);
  assert_true(record.author == zp_store_author(b));
  zp_store_read_end(a);
  zp_store_close(&a);
  zp_store_close(&b);
}

/* ---- the lock ---- */

static void what_is_read_under_the_lock_holds_until_the_commit(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  set(store, "a", "1");
  must(zp_store_lock(store));
  assert_true(zp_store_is_locked(store));
  must(zp_store_read_begin(store));
  expect(store, "a", "1");
  set(store, "a", "2"); /* ends the read, keeps the lock */
  assert_true(zp_store_is_locked(store));
  expect_now(store, "a", "2");
  assert_int_equal(zp_store_lock(store), ZP_EATOMIC);
  zp_store_unlock(store);
  assert_false(zp_store_is_locked(store));
  zp_store_unlock(store);
  expect_now(store, "a", "2");
  zp_store_close(&store);
}

/* In a child: try to lock, and give what that gives. */
static int try_elsewhere(zp_store *store) {
  int status = 0;
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) _exit(-zp_store_try_lock(store)); /* and dies holding it, if it has got it */
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFEXITED(status));
  return -WEXITSTATUS(status);
}

static void a_lock_can_be_tried(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  set(store, "a", "1");
  must(zp_store_lock(store));
  assert_int_equal(try_elsewhere(store), ZP_EBUSY);
  zp_store_unlock(store);
  assert_int_equal(try_elsewhere(store), 0);
  must(zp_store_try_lock(store)); /* from the dead */
  assert_true(zp_store_is_locked(store));
  set(store, "a", "2");
  zp_store_unlock(store);
  expect_now(store, "a", "2");
  zp_store_close(&store);
}

static void a_handle_can_act_for_another_author(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  zp_store_set_author(store, 77);
  assert_true(zp_store_author(store) == 77);
  set(store, "a", "1");
  zp_log_record record;
  must(zp_store_read_begin(store));
  assert_int_equal(zp_store_log(store, zp_store_read_revision(store), &record), 1);
  assert_true(record.author == 77);
  zp_store_read_end(store);
  zp_store_close(&store);
}

static void another_handle_of_the_thread_is_refused_while_one_is_locked(void **unused) {
  (void)unused;
  zp_store *a = open_store("main"), *b = open_store("other");
  set(b, "k", "1");
  must(zp_store_lock(a));
  zp_change change = put("k", "2");
  zp_store_info info;
  assert_int_equal(zp_store_read_begin(b), ZP_EATOMIC);
  assert_int_equal(zp_store_read_begin_at(b, 1), ZP_EATOMIC);
  assert_int_equal(zp_store_commit(b, &change, 1, NULL, NULL), ZP_EATOMIC);
  assert_int_equal(zp_store_lock(b), ZP_EATOMIC);
  assert_int_equal(zp_store_check(b), ZP_EATOMIC);
  assert_int_equal(zp_store_describe(b, &info), ZP_EATOMIC);
  zp_store_unlock(b); /* not its own */
  assert_true(zp_store_is_locked(a));
  must(zp_store_describe(a, &info));
  zp_store_unlock(a);
  expect_now(b, "k", "1");
  must(zp_store_lock(a));
  zp_store_close(&a); /* gives the lock back */
  set(b, "k", "3");
  zp_store_close(&b);
}

static void a_dead_holder_of_the_lock_is_no_obstacle(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  set(store, "a", "1");
  pid_t pid = fork();
  if (pid == 0) _exit(zp_store_lock(store)); /* and dies holding it */
  expect_child_to_succeed(pid);
  must(zp_store_lock(store));
  set(store, "a", "2");
  zp_store_unlock(store);
  zp_store_close(&store);
}

static void *lock_and_read(void *argument) {
  zp_store *store = open_store("main");
  intptr_t rc = zp_store_lock(store);
  if (!rc) rc = zp_store_read_begin(store);
  if (!rc) expect(store, "a", argument);
  zp_store_close(&store);
  return (void *)rc;
}

static void *only_read(void *argument) {
  zp_store *store = open_store("main");
  intptr_t rc = zp_store_read_begin(store);
  if (!rc) expect(store, "a", argument);
  zp_store_close(&store);
  return (void *)rc;
}

static void handles_of_other_threads_read_on_and_wait_for_the_lock(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  set(store, "a", "1");
  must(zp_store_lock(store));
  pthread_t reader, writer;
  void *result;
  assert_int_equal(pthread_create(&writer, NULL, lock_and_read, "2"), 0); /* comes in only after the commit */
  assert_int_equal(pthread_create(&reader, NULL, only_read, "1"), 0);
  assert_int_equal(pthread_join(reader, &result), 0);
  assert_null(result);
  set(store, "a", "2");
  zp_store_unlock(store);
  assert_int_equal(pthread_join(writer, &result), 0);
  assert_null(result);
  zp_store_close(&store);
}

/* ---- threads and growth ---- */

enum { THREAD_ROUNDS = 4000 };

static void *read_all_the_time(void *argument) {
  atomic_int *stop = argument;
  zp_store *store = open_store("main");
  uint64_t last = 0;
  while (!*stop) {
    zp_bytes key, value;
    must(zp_store_read_begin(store));
    uint64_t revision = zp_store_read_revision(store);
    assert_true(revision >= last);
    last = revision;
    int rc = zp_store_first(store, &key, &value);
    for (int i = 0; rc == 1 && i < 20; i++) rc = zp_store_next(store, &key, &value);
    must(rc);
    zp_store_read_end(store);
  }
  zp_store_close(&store);
  return NULL;
}

static void *write_growing(void *argument) {
  char value[2000];
  memset(value, 'x', sizeof value - 1);
  value[sizeof value - 1] = 0;
  zp_store *store = open_store("main");
  for (int i = 0; i < THREAD_ROUNDS; i++) {
    char key[32];
    snprintf(key, sizeof key, "%s%d", (const char *)argument, i);
    set(store, key, value);
  }
  zp_store_close(&store);
  return NULL;
}

static void threads_write_and_read_while_the_map_grows(void **unused) {
  (void)unused;
  pthread_t readers[2], writers[2];
  atomic_int stop = 0;
  for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&readers[i], NULL, read_all_the_time, &stop), 0);
  assert_int_equal(pthread_create(&writers[0], NULL, write_growing, "a"), 0);
  assert_int_equal(pthread_create(&writers[1], NULL, write_growing, "b"), 0);
  for (int i = 0; i < 2; i++) pthread_join(writers[i], NULL);
  stop = 1;
  for (int i = 0; i < 2; i++) pthread_join(readers[i], NULL);
  zp_store *store = open_store("main");
  assert_int_equal(count_now(store), 2 * THREAD_ROUNDS);
  zp_store_close(&store);
}

enum { GENEROUS = 120 /* seconds; a limit, not an expectation */ };

static void *read_until_told(void *argument) {
  atomic_int *stop = argument;
  zp_store *store = open_store("main");
  must(zp_store_read_begin(store));
  *stop = 1;
  while (*stop != 2) usleep(1000);
  zp_store_read_end(store);
  zp_store_close(&store);
  return NULL;
}

/* A change for which the file has to grow. */
static zp_change large_change(char **memory) {
  size_t size = 8 << 20;
  *memory = calloc(1, size);
  return (zp_change){bytes("large"), {*memory, size}};
}

static void a_thread_that_reads_without_end_keeps_the_lock_of_writers_from_nobody(void **unused) {
  (void)unused;
  pthread_t reader;
  atomic_int stop = 0;
  char *memory;
  zp_change change = large_change(&memory);
  zp_store *store = open_store("main");
  assert_int_equal(pthread_create(&reader, NULL, read_until_told, &stop), 0);
  while (stop != 1) usleep(1000);
  zp_env_patience = 0.05;
  assert_int_equal(zp_store_commit(store, &change, 1, NULL, NULL), ZP_ESYS);
  assert_non_null(strstr(zp_error_detail(), "another thread of this process has read it"));
  set(store, "small", "1"); /* for which there is room; the lock is free */
  stop = 2;
  pthread_join(reader, NULL);
  zp_env_patience = GENEROUS;
  must(zp_store_commit(store, &change, 1, NULL, NULL));
  free(memory);
  zp_store_close(&store);
}

static void a_process_that_was_stopped_with_the_size_lock_keeps_the_lock_of_writers_from_nobody(void **unused) {
  (void)unused;
  char path[128], words[64], *memory;
  int told[2];
  snprintf(path, sizeof path, "%s/control", directory);
  assert_int_equal(pipe(told), 0);
  zp_change change = large_change(&memory);
  zp_store *store = open_store("main");
  set(store, "small", "0");
  pid_t pid = fork();
  if (pid == 0) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    int fd = open(path, O_RDWR);
    if (fd < 0 || fcntl(fd, F_SETLK, &lock) < 0 || write(told[1], "x", 1) != 1) _exit(1);
    for (;;) pause();
  }
  assert_int_equal(read(told[0], words, 1), 1);
  zp_env_patience = 0.05;
  assert_int_equal(zp_store_commit(store, &change, 1, NULL, NULL), ZP_ESYS);
  snprintf(words, sizeof words, "process %d has held the lock", (int)pid);
  assert_non_null(strstr(zp_error_detail(), words));
  set(store, "small", "1");
  zp_env_patience = GENEROUS;
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  must(zp_store_commit(store, &change, 1, NULL, NULL));
  close(told[0]);
  close(told[1]);
  free(memory);
  zp_store_close(&store);
}

static void a_thread_that_reads_through_another_handle_cannot_remap(void **unused) {
  (void)unused;
  zp_store *reader = open_store("main"), *writer = open_store("main");
  size_t size = 8 << 20;
  char *large = calloc(1, size);
  zp_change change = {bytes("a"), {large, size}};
  set(reader, "b", "1");
  must(zp_store_read_begin(reader));
  assert_int_equal(zp_store_commit(writer, &change, 1, NULL, NULL), ZP_EATOMIC);
  expect(reader, "b", "1");
  zp_store_read_end(reader);
  must(zp_store_commit(writer, &change, 1, NULL, NULL));
  free(large);
  zp_store_close(&reader);
  zp_store_close(&writer);
}

static void nested_reads_of_one_thread_end_in_any_order(void **unused) {
  (void)unused;
  zp_store *a = open_store("main"), *b = open_store("main"), *c = open_store("main");
  set(a, "k", "1");
  must(zp_store_read_begin(a));
  must(zp_store_read_begin(b));
  must(zp_store_read_begin(c));
  zp_store_read_end(a);
  expect(b, "k", "1");
  zp_store_read_end(c);
  zp_store_read_end(b);
  /* Nothing holds the map any longer: it can be replaced. */
  size_t size = 8 << 20;
  char *large = calloc(1, size);
  zp_change change = {bytes("a"), {large, size}};
  must(zp_store_commit(a, &change, 1, NULL, NULL));
  free(large);
  zp_store_close(&a);
  zp_store_close(&b);
  zp_store_close(&c);
}

/* ---- fork ---- */

static void an_inherited_handle_may_be_used_at_once(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  set(store, "a", "1");
  uint64_t author = zp_store_author(store);
  must(zp_store_read_begin(store)); /* the child inherits an open read... */
  pid_t pid = fork();
  if (pid == 0) {
    expect_now(store, "a", "1");
    assert_true(zp_store_author(store) != author);
    set(store, "a", "2");
    pid_t grandchild = fork();
    if (grandchild == 0) {
      expect_now(store, "a", "2");
      set(store, "b", "3");
      zp_store_close(&store);
      _exit(0);
    }
    expect_child_to_succeed(grandchild);
    expect_now(store, "b", "3");
    zp_store_close(&store);
    _exit(0);
  }
  expect_child_to_succeed(pid);
  expect(store, "a", "1"); /* ... which stays the parent's */
  zp_store_read_end(store);
  expect_now(store, "a", "2");
  expect_now(store, "b", "3");
  set(store, "a", "4");
  assert_true(zp_store_author(store) == author);
  zp_store_close(&store);
}

static void a_child_does_not_inherit_the_lock(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  set(store, "a", "1");
  must(zp_store_lock(store));
  pid_t pid = fork();
  if (pid == 0) {
    assert_false(zp_store_is_locked(store));
    zp_store_unlock(store); /* not the parent's */
    expect_now(store, "a", "1");
    zp_store_close(&store);
    _exit(0);
  }
  expect_child_to_succeed(pid);
  assert_true(zp_store_is_locked(store));
  set(store, "a", "2");
  zp_store_unlock(store);
  zp_store_close(&store);
}

static void a_child_that_closes_what_it_inherited_leaves_the_parent_alone(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  set(store, "a", "1");
  must(zp_store_read_begin(store));
  for (int i = 0; i < 3; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      zp_store_close(&store);
      _exit(0);
    }
    expect_child_to_succeed(pid);
  }
  expect(store, "a", "1");
  zp_store_read_end(store);
  set(store, "a", "2");
  zp_store_close(&store);
}

static void forking_while_other_threads_open_and_close_is_safe(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  set(store, "a", "1");
  pthread_t readers[2];
  atomic_int stop = 0;
  for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&readers[i], NULL, read_all_the_time, &stop), 0);
  for (int i = 0; i < 50; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      alarm(60);
      set(store, "a", i % 2 ? "x" : "y");
      _exit(0);
    }
    zp_store *brief = open_store("brief");
    must(zp_store_check(brief));
    zp_store_close(&brief);
    expect_child_to_succeed(pid);
  }
  stop = 1;
  for (int i = 0; i < 2; i++) pthread_join(readers[i], NULL);
  zp_store_close(&store);
}

/* ---- keeping house ---- */

static void describing_tells_sizes_revisions_and_readers(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  zp_store_info empty = describe(store);
  assert_int_equal(empty.newest, 0);
  assert_int_equal(empty.history_bytes, 0);
  assert_int_equal(empty.limits.keep_revisions, 200000);
  assert_int_equal(empty.limits.keep_bytes, 64 << 20);
  assert_int_equal(empty.allocated_bytes, 1 << 20);
  char *value = calloc(1, 300001);
  memset(value, 'v', 300000);
  set(store, "a", value);
  set(store, "a", "short");
  free(value);
  must(zp_store_read_begin(store));
  zp_store_info info = describe(store); /* within a read as well */
  expect(store, "a", "short");
  zp_store_read_end(store);
  assert_int_equal(info.newest, 2);
  assert_int_equal(info.oldest, 0);
  assert_uint_in_range(info.history_bytes, 300000, 310000);
  assert_true(info.used_bytes > 300000 && info.used_bytes < info.allocated_bytes);
  assert_int_equal(info.readers, 1);
  zp_store_close(&store);
}

/* Within a child: so many reads at the same time, none of which ends. */
static void read_at_once(int count) {
  zp_store *handle;
  for (int i = 0; i < count; i++) {
    must(zp_store_open(directory, "main", &handle));
    must(zp_store_read_begin(handle));
  }
}

static void readers_of_dead_processes_are_cleared_when_the_slots_run_out(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  set(store, "a", "1");
  pid_t pid = fork();
  if (pid == 0) { /* dies with all slots in its name */
    zp_store *handle;
    read_at_once(4000);
    for (int i = 0; i < 500; i++) {
      must(zp_store_open(directory, "main", &handle));
      int rc = zp_store_read_begin(handle);
      if (rc) _exit(rc == ZP_ESTORE && strstr(zp_error_detail(), "readers") ? 0 : 1);
    }
    _exit(2);
  }
  expect_child_to_succeed(pid);
  zp_store *one = open_store("main"), *two = open_store("main");
  expect_now(one, "a", "1");
  expect_now(two, "a", "1");
  zp_store_close(&one);
  zp_store_close(&two);
  zp_store_close(&store);
}

static void any_number_of_handles_takes_the_slots_of_a_thread(void **unused) {
  (void)unused;
  enum { HANDLES = 5000 };
  static zp_store *handles[HANDLES];
  for (int i = 0; i < HANDLES; i++) {
    char name[20];
    snprintf(name, sizeof name, "namespace%d", i);
    handles[i] = open_store(name);
    expect_now(handles[i], "a", NULL);
  }
  assert_int_equal(describe(handles[0]).readers, 1);
  /* Nested ones take as many as there are at once, of which a few are kept. */
  for (int i = 0; i < 100; i++) must(zp_store_read_begin(handles[i]));
  assert_int_equal(describe(handles[0]).readers, 100);
  for (int i = 0; i < 100; i++) zp_store_read_end(handles[i]);
  assert_in_range(describe(handles[0]).readers, 1, 8);
  for (int i = 0; i < HANDLES; i++) zp_store_close(&handles[i]);
}

static void *read_in_a_thread(void *argument) {
  zp_store *store = open_store("main");
  expect_now(store, "a", "1");
  *(uint32_t *)argument = describe(store).readers;
  zp_store_close(&store);
  return NULL;
}

static void a_thread_that_has_ended_keeps_no_slot(void **unused) {
  (void)unused;
  zp_store *store = open_store("main");
  set(store, "a", "1");
  expect_now(store, "a", "1");
  for (int i = 0; i < 50; i++) {
    pthread_t thread;
    uint32_t readers = 0;
    assert_int_equal(pthread_create(&thread, NULL, read_in_a_thread, &readers), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_in_range(readers, 1, 8);
  }
  zp_store_close(&store);
}

/* Environments come and go, also where others were. */
static void what_a_thread_keeps_of_a_closed_store_is_not_used_again(void **unused) {
  (void)unused;
  char others[6][80];
  zp_store *store = open_store("main");
  set(store, "a", "1");
  for (int i = 0; i < 6; i++) {
    snprintf(others[i], sizeof others[i], "%s/other%d", directory, i);
    assert_int_equal(mkdir(others[i], 0700), 0);
    must(zp_store_create(others[i], NULL));
  }
  for (int round = 0; round < 60; round++) {
    zp_store *other = NULL;
    must(zp_store_open(others[round % 6], "main", &other));
    if (round < 6) set(other, "a", "2");
    for (int i = 0; i < 3; i++) {
      expect_now(other, "a", "2");
      expect_now(store, "a", "1");
    }
    zp_store_close(&other);
  }
  assert_in_range(describe(store).readers, 1, 2);
  zp_store_close(&store);
}

static void where_most_slots_are_taken_nobody_keeps_one(void **unused) {
  (void)unused;
  int ready[2], end[2];
  char byte;
  assert_int_equal(pipe(ready), 0);
  assert_int_equal(pipe(end), 0);
  zp_store *store = open_store("main");
  set(store, "a", "1");
  pid_t pid = fork();
  if (pid == 0) {
    read_at_once(3500);
    if (write(ready[1], "", 1) != 1 || read(end[0], &byte, 1) != 1) _exit(1);
    _exit(0);
  }
  assert_int_equal(read(ready[0], &byte, 1), 1);
  for (int i = 0; i < 700; i++) { /* together they would be too many */
    pid_t child = fork();
    if (child > 0) {
      expect_child_to_succeed(child);
      continue;
    }
    zp_store *own = open_store("main");
    for (int n = 0; n < 3; n++) expect_now(own, "a", "1");
    _exit(describe(own).readers <= 3502 ? 0 : 1);
  }
  assert_int_equal(write(end[1], "", 1), 1);
  expect_child_to_succeed(pid);
  for (int i = 0; i < 2; i++) {
    close(ready[i]);
    close(end[i]);
  }
  zp_store_close(&store);
}

/* As a writer leaves it that is stopped when its meta page is written and its number not yet announced (store_kill.c). */
static void a_read_beside_a_commit_that_is_not_announced_sees_the_one_before(void **unused) {
  (void)unused;
  enum { TXNID = 48 };
  char path[96];
  snprintf(path, sizeof path, "%s/lock.mdb", directory);
  pid_t pid = fork(); /* closing a descriptor of lock.mdb would end the locks that LMDB has on it */
  if (pid == 0) {
    zp_store *store = open_store("main"), *other = open_store("main");
    set(store, "a", "1");
    set(store, "a", "2");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    char *map = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) _exit(1);
    _Atomic uint64_t *announced = (_Atomic uint64_t *)(void *)(map + TXNID);
    --*announced;
    for (int i = 0; i < 3; i++) expect_now(store, "a", "1");
    must(zp_store_read_begin(store));
    expect_now(other, "a", "1");
    zp_store_read_end(store);
    ++*announced;
    expect_now(store, "a", "2");
    _exit(0);
  }
  expect_child_to_succeed(pid);
}

/* ---- no memory for the map ---- */

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { LIMITS_ADDRESSES = 0 }; /* sanitizers take terabytes of them */
#else
enum { LIMITS_ADDRESSES = 1 };
#endif

/* Let there be so many bytes of addresses more than now; 0: as many as one likes. */
static void limit_addresses(size_t more) {
  struct rlimit limit;
  long pages = 0;
  FILE *file = fopen("/proc/self/statm", "re");
  if (!file || fscanf(file, "%ld", &pages) != 1 || getrlimit(RLIMIT_AS, &limit)) _exit(90);
  fclose(file);
  limit.rlim_cur = more ? (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + more : limit.rlim_max;
  if (setrlimit(RLIMIT_AS, &limit)) _exit(91);
}

static int commit_large(zp_store *store, const char *key, size_t size) {
  static char *large;
  if (!large) large = calloc(1, 64 << 20);
  zp_change change = {bytes(key), {large, size}};
  return zp_store_commit(store, &change, 1, NULL, NULL);
}

static void growing_without_memory_is_an_error_and_nothing_else(void **unused) {
  (void)unused;
  if (!LIMITS_ADDRESSES) skip();
  pid_t pid = fork();
  if (pid == 0) {
    zp_store *store = open_store("main");
    must(commit_large(store, "first", 100));
    set(store, "a", "1");
    limit_addresses(16 << 20);
    if (commit_large(store, "large", 32 << 20) != ZP_ENOMEM) _exit(1);
    expect_now(store, "a", "1");
    expect_now(store, "large", NULL);
    set(store, "a", "2");
    must(commit_large(store, "middling", 3 << 20)); /* for which there is */
    if (commit_large(store, "large", 32 << 20) != ZP_ENOMEM) _exit(2);
    expect_now(store, "a", "2");
    limit_addresses(0);
    must(commit_large(store, "large", 32 << 20));
    _exit(0);
  }
  expect_child_to_succeed(pid);
  zp_store *store = open_store("main");
  assert_int_equal(count_now(store), 4);
  zp_store_close(&store);
}

static void following_without_memory_is_an_error_until_there_is_some(void **unused) {
  (void)unused;
  if (!LIMITS_ADDRESSES) skip();
  pid_t pid = fork();
  if (pid == 0) {
    zp_store *store = open_store("main"), *other = open_store("main");
    must(commit_large(store, "first", 100));
    expect_now(store, "large", NULL);
    limit_addresses(8 << 20);
    pid_t grower = fork();
    if (grower == 0) {
      limit_addresses(0);
      zp_store *own = open_store("main");
      must(commit_large(own, "large", 32 << 20));
      set(own, "large", "small");
      _exit(0);
    }
    expect_child_to_succeed(grower);
    zp_alarm alarm = ZP_ALARM_INIT;
    for (int i = 0; i < 3; i++) {
      if (zp_store_read_begin(store) != ZP_ENOMEM || zp_store_read_begin(other) != ZP_ENOMEM) _exit(1);
      zp_change change = put("a", "1");
      if (zp_store_commit(store, &change, 1, NULL, NULL) != ZP_ENOMEM) _exit(2);
      zp_bytes key = bytes("a");
      must(zp_alarm_set(store, &alarm, &key, 1));
      if (zp_alarm_wait(store, &alarm, 0) != ZP_ETIMEOUT) _exit(3);
    }
    limit_addresses(0);
    expect_now(store, "large", "small");
    expect_now(other, "large", "small");
    set(store, "a", "1");
    _exit(0);
  }
  expect_child_to_succeed(pid);
}

static void opening_without_memory_is_an_error_until_there_is_some(void **unused) {
  (void)unused;
  if (!LIMITS_ADDRESSES) skip();
  zp_store *store = open_store("main");
  must(commit_large(store, "large", 32 << 20));
  pid_t pid = fork();
  if (pid == 0) {
    zp_store *own = open_store("main");
    limit_addresses(20 << 20);
    for (int i = 0; i < 3; i++)
      if (zp_store_check(own) != ZP_ENOMEM) _exit(1);
    limit_addresses(0);
    expect_now(own, "absent", NULL);
    _exit(0);
  }
  expect_child_to_succeed(pid);
  zp_store_close(&store);
}

/* Whether some other process has the size lock. */
static bool is_size_locked(void) {
  char path[96];
  snprintf(path, sizeof path, "%s/control", directory);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
  assert_int_equal(fcntl(fd, F_GETLK, &lock), 0);
  close(fd);
  return lock.l_type != F_UNLCK;
}

static void *look_at_control(void *context) {
  assert_false(zp_store_uses(directory, directory));
  atomic_store((_Atomic bool *)context, true);
  return NULL;
}

static void looking_at_a_store_drops_no_lock_of_another_thread(void **unused) {
  (void)unused;
  enum { TURNS = 1000 };
  zp_env *env;
  pthread_t thread;
  _Atomic bool has_looked = false;
  must(zp_env_acquire(directory, &env));
  must(zp_env_lock_size(env));
  assert_int_equal(pthread_create(&thread, NULL, look_at_control, &has_looked), 0);
  for (int i = 0; i < TURNS && !atomic_load(&has_looked); i++) nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
  pid_t child = fork();
  if (child == 0) _exit(is_size_locked() ? 0 : 1);
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  zp_env_unlock_size(env);
  pthread_join(thread, NULL);
  zp_env_release(env);
}

/* Have the size lock until the other end of a pipe is closed, and end. */
static void hold_size_lock(int ready, int until_closed) {
  zp_env *env;
  char byte = 0;
  if (zp_env_acquire(directory, &env) || zp_env_lock_size(env) || write(ready, &byte, 1) != 1) _exit(1);
  _exit(read(until_closed, &byte, 1) == 0 ? 0 : 1);
}

static void who_waits_for_a_stopped_process_to_open_a_store_can_be_interrupted(void **unused) {
  (void)unused;
  int ready[2], hold[2], status;
  char byte;
  assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
  assert_int_equal(pipe2(hold, O_CLOEXEC), 0);
  pid_t child = fork();
  if (child == 0) {
    close(hold[1]);
    hold_size_lock(ready[1], hold[0]);
  }
  assert_int_equal(read(ready[0], &byte, 1), 1);
  zp_store *store;
  must(zp_store_open(directory, "main", &store));
  must(zp_interrupt_catch(SIGUSR1, false));
  raise(SIGUSR1);
  assert_int_equal(zp_store_check(store), ZP_EINTR);
  assert_int_equal(zp_interrupt_take(), SIGUSR1);
  zp_interrupt_release(SIGUSR1);
  close(hold[1]);
  must(zp_store_check(store)); /* which waits for its end */
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  zp_store_close(&store);
  close(hold[0]);
  close(ready[0]);
  close(ready[1]);
}

#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      IN_STORE(a_directory_without_a_store_is_told_apart),
      IN_STORE(a_second_store_is_not_made_over_the_first),
      IN_STORE(what_a_killed_creator_left_is_no_store),
      IN_STORE(a_store_of_another_format_is_refused),
      IN_STORE(the_files_are_private_and_allocated),
      IN_STORE(names_of_namespaces_have_1_to_255_bytes),
      IN_STORE(data_elsewhere_go_on_where_they_were),
      IN_STORE(a_relative_directory_survives_chdir),
      IN_STORE(a_namespace_that_nobody_wrote_reads_as_empty),
      IN_STORE(what_was_committed_is_read),
      IN_STORE(a_read_sees_one_revision),
      IN_STORE(equal_values_change_nothing_but_add_a_revision),
      IN_STORE(changes_can_be_walked_if_their_keys_ascend),
      IN_STORE(the_last_of_several_changes_of_a_key_counts),
      IN_STORE(values_that_cannot_be_are_refused),
      IN_STORE(namespaces_do_not_see_each_other),
      IN_STORE(keys_are_walked_in_byte_order_whatever_they_hold),
      IN_STORE(a_walk_can_begin_anywhere),
      IN_STORE(the_longest_keys_fit_and_longer_ones_do_not),
      IN_STORE(a_hundred_thousand_keys_are_cleared_at_once),
      IN_STORE(every_revision_can_be_read_as_it_was),
      cmocka_unit_test_setup_teardown(every_kept_revision_can_be_read_after_trimming, set_up_few_revisions, tear_down),
      cmocka_unit_test_setup_teardown(revisions_beyond_the_limit_are_given_up, set_up_few_revisions, tear_down),
      cmocka_unit_test_setup_teardown(a_key_that_nobody_changed_is_known_to_be_unchanged_however_long_ago,
                                      set_up_few_revisions, tear_down),
      cmocka_unit_test_setup_teardown(a_deletion_that_is_forgotten_leaves_absent_keys_unknown, set_up_few_revisions,
                                      tear_down),
      cmocka_unit_test_setup_teardown(a_namespace_without_updates_is_known_to_be_unchanged, set_up_few_revisions,
                                      tear_down),
      cmocka_unit_test_setup_teardown(a_waiter_is_woken_to_move_on_only_while_keys_are_deleted, set_up_few_revisions,
                                      tear_down),
      cmocka_unit_test_setup_teardown(a_big_revision_is_given_up_in_portions, set_up_few_revisions, tear_down),
      cmocka_unit_test_setup_teardown(history_bytes_beyond_the_limit_are_given_up, set_up_few_bytes, tear_down),
      cmocka_unit_test_setup_teardown(without_history_a_deleted_key_leaves_nothing, set_up_no_history, tear_down),
      IN_STORE(large_values_replaced_many_times_stay_bounded),
      IN_STORE(authors_mark_the_commits_of_a_handle),
      IN_STORE(what_is_read_under_the_lock_holds_until_the_commit),
      IN_STORE(a_lock_can_be_tried),
      IN_STORE(a_handle_can_act_for_another_author),
      IN_STORE(another_handle_of_the_thread_is_refused_while_one_is_locked),
      IN_STORE(a_dead_holder_of_the_lock_is_no_obstacle),
      IN_STORE(handles_of_other_threads_read_on_and_wait_for_the_lock),
      IN_STORE(threads_write_and_read_while_the_map_grows),
      IN_STORE(looking_at_a_store_drops_no_lock_of_another_thread),
      IN_STORE(who_waits_for_a_stopped_process_to_open_a_store_can_be_interrupted),
      IN_STORE(a_thread_that_reads_without_end_keeps_the_lock_of_writers_from_nobody),
      IN_STORE(a_process_that_was_stopped_with_the_size_lock_keeps_the_lock_of_writers_from_nobody),
      IN_STORE(a_thread_that_reads_through_another_handle_cannot_remap),
      IN_STORE(nested_reads_of_one_thread_end_in_any_order),
      IN_STORE(an_inherited_handle_may_be_used_at_once),
      IN_STORE(a_child_does_not_inherit_the_lock),
      IN_STORE(a_child_that_closes_what_it_inherited_leaves_the_parent_alone),
      IN_STORE(forking_while_other_threads_open_and_close_is_safe),
      IN_STORE(describing_tells_sizes_revisions_and_readers),
      IN_STORE(readers_of_dead_processes_are_cleared_when_the_slots_run_out),
      IN_STORE(any_number_of_handles_takes_the_slots_of_a_thread),
      IN_STORE(a_thread_that_has_ended_keeps_no_slot),
      IN_STORE(what_a_thread_keeps_of_a_closed_store_is_not_used_again),
      IN_STORE(where_most_slots_are_taken_nobody_keeps_one),
      IN_STORE(a_read_beside_a_commit_that_is_not_announced_sees_the_one_before),
      IN_STORE(growing_without_memory_is_an_error_and_nothing_else),
      IN_STORE(following_without_memory_is_an_error_until_there_is_some),
      IN_STORE(opening_without_memory_is_an_error_until_there_is_some),
  };
  return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
