/*
 * store_full -- a store on a file system that has no space left.
 *
 * Each test has a small tmpfs of its own, mounted in a private mount namespace: as root, or in a user namespace where
 * that is allowed; else the tests are skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "store/store.h"
#include "store_check.h"

static char mount_point[64], directory[80];
static char why_not[128]; /* empty: tmpfs can be mounted */

static bool in_child; /* where a failed assertion would go on with the next test */

static void must(int rc) {
  if (rc >= 0) return;
  if (in_child) {
    fprintf(stderr, "# process %d: %d: %s\n", (int)getpid(), rc, zp_error_detail());
    _exit(2);
  }
  fail_msg("%d: %s", rc, zp_error_detail());
}

/* ---- the tmpfs ---- */

static int write_file(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t n = write(fd, text, strlen(text));
  close(fd);
  return n == (ssize_t)strlen(text) ? 0 : -1;
}

static void enter_namespace(void) {
  unsigned uid = getuid(), gid = getgid();
  char line[64];
  if (unshare(CLONE_NEWNS) < 0) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) {
      snprintf(why_not, sizeof why_not, "no private mount namespace: %s", strerror(errno));
      return;
    }
    write_file("/proc/self/setgroups", "deny");
    snprintf(line, sizeof line, "0 %u 1", uid);
    write_file("/proc/self/uid_map", line);
    snprintf(line, sizeof line, "0 %u 1", gid);
    write_file("/proc/self/gid_map", line);
  }
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
    snprintf(why_not, sizeof why_not, "mounts cannot be made private: %s", strerror(errno));
}

static bool mount_tmpfs(const char *options) {
  if (!why_not[0]) {
    strcpy(mount_point, "/tmp/zproc-test-XXXXXX");
    assert_non_null(mkdtemp(mount_point));
    if (mount("zproc-test", mount_point, "tmpfs", 0, options) < 0) {
      snprintf(why_not, sizeof why_not, "no tmpfs can be mounted: %s", strerror(errno));
      rmdir(mount_point);
    }
  }
  if (why_not[0]) {
    print_message("skipped: %s\n", why_not);
    return false;
  }
  snprintf(directory, sizeof directory, "%s/store", mount_point);
  assert_int_equal(mkdir(directory, 0700), 0);
  return true;
}

static void unmount_tmpfs(void) {
  const char *wrong = check_store(directory);
  assert_int_equal(umount2(mount_point, MNT_DETACH), 0);
  assert_int_equal(rmdir(mount_point), 0);
  if (wrong) fail_msg("%s", wrong);
}

static void make_store(void) { must(zp_store_create(directory, NULL)); }

static zp_store *open_store(void) {
  zp_store *store = NULL;
  must(zp_store_open(directory, "main", &store));
  return store;
}

/* A file of somebody else that takes all the space there is. */
static void fill_with_foreign_file(void) {
  char path[96];
  snprintf(path, sizeof path, "%s/foreign", mount_point);
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  static char block[4096] = "x";
  while (write(fd, block, sizeof block) > 0) continue;
  assert_int_equal(errno, ENOSPC);
  close(fd);
}

static void remove_foreign_file(void) {
  char path[96];
  snprintf(path, sizeof path, "%s/foreign", mount_point);
  assert_int_equal(unlink(path), 0);
}

/* ---- keys that carry their number in their value ---- */

static int put(zp_store *store, const char *prefix, int number, size_t size) {
  char key[32], *value = malloc(size);
  memset(value, number & 0xFF, size);
  memcpy(value, &number, sizeof number);
  zp_change change = {{key, (size_t)snprintf(key, sizeof key, "%s%d", prefix, number)}, {value, size}};
  int rc = zp_store_commit(store, &change, 1, NULL, NULL);
  free(value);
  return rc;
}

static int delete(zp_store *store, const char *prefix, int number) {
  char key[32];
  zp_change change = {{key, (size_t)snprintf(key, sizeof key, "%s%d", prefix, number)}, {NULL, 0}};
  return zp_store_commit(store, &change, 1, NULL, NULL);
}

static void expect(zp_store *store, const char *prefix, int number, size_t size) {
  char key[32];
  zp_bytes value;
  must(zp_store_read_begin(store));
  int rc = zp_store_get(store, (zp_bytes){key, (size_t)snprintf(key, sizeof key, "%s%d", prefix, number)}, &value);
  must(rc);
  assert_int_equal(rc, size > 0 ? 1 : 0);
  if (size > 0) {
    assert_int_equal(value.size, size);
    assert_memory_equal(value.data, &number, sizeof number);
    const unsigned char *bytes = value.data;
    for (size_t i = sizeof number; i < size; i += 61) assert_int_equal(bytes[i], number & 0xFF);
  }
  zp_store_read_end(store);
}

/* Put keys until the state is full; returns how many there are. */
static int fill(zp_store *store, const char *prefix, int from, size_t size) {
  int n = from, rc;
  while ((rc = put(store, prefix, n, size)) == 0) n++;
  if (rc != ZP_EFULL) fail_msg("%d: %s", rc, zp_error_detail());
  return n;
}

static void fill_and_recover(const char *options, size_t size) {
  if (!mount_tmpfs(options)) skip();
  make_store();
  zp_store *store = open_store();
  int n = fill(store, "k", 0, size);
  assert_non_null(strstr(zp_error_detail(), "the state is full: no space left in"));
  assert_true(n > 5);
  for (int i = 0; i < n; i++) expect(store, "k", i, size);
  expect(store, "k", n, 0);
  for (int round = 0; round < 5; round++) { /* deleting makes room, again and again */
    for (int i = 0; i < n; i += 2) must(delete(store, "k", i));
    for (int i = 0; i < n; i++) expect(store, "k", i, i % 2 ? size : 0);
    int written = 0;
    for (int i = 0; i < n; i += 2, written++)
      if (put(store, "k", i, size)) break;
    assert_true(written >= (n / 2) * 3 / 4);
    fill(store, "more", 0, size);
    for (int i = 1; i < n; i += 2) expect(store, "k", i, size);
    for (int i = 0; delete (store, "more", i) == 0 && i < n; i++) continue;
  }
  for (int i = 0; i < n; i++) must(delete(store, "k", i));
  uint64_t count;
  must(zp_store_read_begin(store));
  must(zp_store_count(store, &count));
  zp_store_read_end(store);
  assert_int_equal(count, 0);
  assert_true(fill(store, "k", 0, size) >= n * 3 / 4);
  zp_store_close(&store);
  unmount_tmpfs();
}

static void a_state_full_of_small_values_says_so_and_recovers(void **unused) {
  (void)unused;
  fill_and_recover("size=4m", 300);
}

static void a_state_full_of_page_sized_values_says_so_and_recovers(void **unused) {
  (void)unused;
  fill_and_recover("size=8m", 3000);
}

static void a_state_full_of_large_values_says_so_and_recovers(void **unused) {
  (void)unused;
  fill_and_recover("size=8m", 100000);
}

static void a_value_that_never_fits_leaves_all_as_it_was(void **unused) {
  (void)unused;
  if (!mount_tmpfs("size=4m")) skip();
  make_store();
  zp_store *store = open_store();
  must(put(store, "k", 1, 1000));
  for (int i = 0; i < 3; i++) assert_int_equal(put(store, "k", 2, 20 << 20), ZP_EFULL);
  expect(store, "k", 1, 1000);
  expect(store, "k", 2, 0);
  must(put(store, "k", 2, 1000));
  zp_store_close(&store);
  unmount_tmpfs();
}

static void a_full_state_is_cleared_at_once(void **unused) {
  (void)unused;
  if (!mount_tmpfs("size=4m")) skip();
  make_store();
  zp_store *store = open_store();
  int n = fill(store, "k", 0, 300);
  zp_change *changes = calloc((size_t)n, sizeof *changes);
  char(*keys)[16] = calloc((size_t)n, sizeof *keys);
  for (int i = 0; i < n; i++)
    changes[i].key = (zp_bytes){keys[i], (size_t)snprintf(keys[i], sizeof keys[i], "k%d", i)};
  must(zp_store_commit(store, changes, (size_t)n, NULL, NULL));
  uint64_t count;
  must(zp_store_read_begin(store));
  must(zp_store_count(store, &count));
  zp_store_read_end(store);
  assert_int_equal(count, 0);
  assert_true(fill(store, "k", 0, 300) >= n / 2);
  free(changes);
  free(keys);
  zp_store_close(&store);
  unmount_tmpfs();
}

static void values_can_be_replaced_while_a_foreign_file_takes_all_space(void **unused) {
  (void)unused;
  if (!mount_tmpfs("size=8m")) skip();
  make_store();
  zp_store *store = open_store();
  for (int i = 0; i < 100; i++) must(put(store, "k", i, 1000));
  fill_with_foreign_file();
  for (int round = 0; round < 100; round++)
    for (int i = 0; i < 100; i++) must(put(store, "k", i, 500 + (size_t)round));
  for (int i = 0; i < 100; i++) expect(store, "k", i, 599);
  int n = fill(store, "more", 0, 3000);
  remove_foreign_file();
  for (int i = n; i < n + 200; i++) must(put(store, "more", i, 3000)); /* space is there again, and is used */
  for (int i = 0; i < n + 200; i++) expect(store, "more", i, 3000);
  for (int i = 0; i < 100; i++) expect(store, "k", i, 599);
  zp_store_close(&store);
  unmount_tmpfs();
}

static void a_store_is_not_made_where_there_is_no_space(void **unused) {
  (void)unused;
  if (!mount_tmpfs("size=4m")) skip();
  fill_with_foreign_file();
  assert_int_equal(zp_store_create(directory, NULL), ZP_EFULL);
  remove_foreign_file();
  make_store();
  unmount_tmpfs();
}

/* Each fills, verifies, deletes and writes in keys of its own; whoever meets a full state must not meet SIGBUS. */
static void work_in_a_full_state(int worker) {
  enum { ROUNDS = 6, MOST = 4000 };
  static unsigned char there[MOST];
  char prefix[8];
  snprintf(prefix, sizeof prefix, "w%d-", worker);
  zp_store *store = open_store();
  for (int round = 0; round < ROUNDS; round++) {
    size_t size = 200 + (size_t)worker * 900;
    int full = 0;
    for (int i = 0; i < MOST && full < 3; i++) {
      int rc = put(store, prefix, i, size);
      if (rc == 0) there[i] = (unsigned char)(worker + 1);
      else if (rc == ZP_EFULL) full++;
      else must(rc);
    }
    for (int i = 0; i < MOST; i++) expect(store, prefix, i, there[i] ? size : 0);
    for (int i = 0; i < MOST; i++) {
      if (!there[i] || (i + round) % 3 == 0) continue;
      must(delete (store, prefix, i));
      there[i] = 0;
    }
  }
  zp_store_close(&store);
}

static void several_processes_meet_a_full_state(void **unused) {
  (void)unused;
  if (!mount_tmpfs("size=8m")) skip();
  make_store();
  pid_t workers[4];
  for (int i = 0; i < 4; i++) {
    workers[i] = fork();
    assert_true(workers[i] >= 0);
    if (workers[i] == 0) {
      in_child = true;
      work_in_a_full_state(i);
      _exit(0);
    }
  }
  for (int i = 0; i < 20; i++) { /* meanwhile somebody else takes what is left and gives it back */
    fill_with_foreign_file();
    remove_foreign_file();
  }
  for (int i = 0; i < 4; i++) {
    int status;
    assert_int_equal(waitpid(workers[i], &status, 0), workers[i]);
    assert_int_equal(status, 0);
  }
  unmount_tmpfs();
}

int main(void) {
  enter_namespace();
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_state_full_of_small_values_says_so_and_recovers),
      cmocka_unit_test(a_state_full_of_page_sized_values_says_so_and_recovers),
      cmocka_unit_test(a_state_full_of_large_values_says_so_and_recovers),
      cmocka_unit_test(a_value_that_never_fits_leaves_all_as_it_was),
      cmocka_unit_test(a_full_state_is_cleared_at_once),
      cmocka_unit_test(values_can_be_replaced_while_a_foreign_file_takes_all_space),
      cmocka_unit_test(a_store_is_not_made_where_there_is_no_space),
      cmocka_unit_test(several_processes_meet_a_full_state),
  };
  return cmocka_run_group_tests_name("store_full", tests, NULL, NULL);
}
