/* check: files with the data of a store, looked at before LMDB does: what is whole passes, and what passes does no harm. */
#include <fcntl.h>
#include <lmdb.h>
#include <setjmp.h>
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

#include "base/err.h"
#include "base/sum.h"
#include "store/check.h"
#include "store/snapshot.h"
#include "store/store.h"

static char directory[64], data[96], copy[96];

static uint64_t seed = 7;

static uint32_t draw(uint32_t below) {
  seed = seed * 6364136223846793005 + 1442695040888963407;
  return (uint32_t)(seed >> 33) % below;
}

static void must(int rc) {
  if (rc < 0) fail_msg("%d: %s", rc, zp_error_detail());
}

static int set_up(void **unused) {
  (void)unused;
  const char *root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
  snprintf(directory, sizeof directory, "%s/zproc-check-XXXXXX", root);
  assert_non_null(mkdtemp(directory));
  snprintf(data, sizeof data, "%s/data.mdb", directory);
  snprintf(copy, sizeof copy, "%s/copy.mdb", directory);
  zp_store_limits limits = {.keep_revisions = 300};
  must(zp_store_create(directory, &limits));
  return 0;
}

static int tear_down(void **unused) {
  (void)unused;
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", directory);
  return system(command);
}

/* Commits of all kinds: several namespaces, keys with zero bytes and long ones, values of no and of many pages, deletions, trimming. */
static void work(unsigned commits) {
  static unsigned char bytes[40000];
  static const char *const names[] = {"default", "other", "third"};
  zp_store *stores[3];
  for (int i = 0; i < 3; i++) must(zp_store_open(directory, names[i], &stores[i]));
  for (unsigned n = 0; n < commits; n++) {
    unsigned char keys[8][400];
    zp_change changes[8];
    unsigned count = 1 + draw(8);
    for (unsigned i = 0; i < count; i++) {
      uint32_t number = draw(400);
      size_t size = draw(10) == 0 ? 100 + draw(140) : 4;
      memset(keys[i], 0, size);
      memcpy(keys[i], &number, sizeof number);
      size_t value = draw(12) == 0 ? 1 + draw(sizeof bytes) : 1 + draw(200);
      bytes[draw((uint32_t)value)]++;
      changes[i] = (zp_change){{keys[i], size}, {draw(4) ? bytes : NULL, value}};
      if (!changes[i].value.data) changes[i].value.size = 0;
    }
    must(zp_store_commit(stores[draw(3)], changes, count, NULL, NULL));
  }
  for (int i = 0; i < 3; i++) zp_store_close(&stores[i]);
}

/* Read and change a store whose data are that file, as LMDB does it: whatever comes of it, it is no crash. */
static int use(const char *file) {
  pid_t child = fork();
  if (child == 0) {
    char place[128];
    snprintf(place, sizeof place, "%s/use", directory);
    mkdir(place, 0700);
    zp_store_place where = {.data_file = file};
    zp_store *store = NULL;
    zp_bytes key, value;
    int rc = zp_store_create_at(place, NULL, &where);
    if (!rc) rc = zp_store_open(place, "default", &store);
    if (!rc) rc = zp_store_read_begin(store);
    volatile unsigned char sink = 0;
    if (!rc) {
      for (rc = zp_store_first(store, &key, &value); rc == 1; rc = zp_store_next(store, &key, &value))
        for (size_t i = 0; i < value.size; i++) sink = sink ^ ((const unsigned char *)value.data)[i];
      zp_store_read_end(store);
    }
    (void)sink;
    for (uint32_t i = 0; i < 60 && rc == 0; i++) {
      zp_change change = {{&i, sizeof i}, {i % 2 ? "v" : NULL, i % 2}};
      rc = zp_store_commit(store, &change, 1, NULL, NULL);
    }
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  char command[160];
  snprintf(command, sizeof command, "rm -rf %s/use", directory);
  if (system(command)) return -1;
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static int check_head(const char *path) {
  int fd = open(path, O_RDONLY);
  int rc = zp_check_head(fd, path);
  close(fd);
  return rc;
}

static void copy_data(void) {
  char command[256];
  snprintf(command, sizeof command, "cp %s %s", data, copy);
  assert_int_equal(system(command), 0);
}

static void test_whole_data_pass_after_any_work(void **unused) {
  (void)unused;
  zp_check found;
  must(zp_check_data(data, &found));
  assert_int_equal(found.newest, 0);
  assert_true(found.identity != 0);
  for (unsigned i = 1; i <= 40; i++) {
    work(50);
    must(zp_check_data(data, &found));
    assert_int_equal(found.newest, i * 50);
    must(check_head(data));
  }
}

static void test_a_file_that_was_cut_is_refused(void **unused) {
  (void)unused;
  zp_check found;
  work(500);
  must(zp_check_data(data, &found));
  copy_data();
  assert_int_equal(truncate(copy, (off_t)found.used_bytes), 0);
  must(zp_check_data(copy, &found));
  for (off_t size = (off_t)found.used_bytes - 1; size >= 0; size -= 1 + (off_t)draw(20000)) {
    assert_int_equal(truncate(copy, size), 0);
    assert_int_equal(zp_check_data(copy, &found), ZP_ESTORE);
    assert_int_equal(check_head(copy), ZP_ESTORE);
    assert_non_null(strstr(zp_error_detail(), copy));
  }
  assert_int_equal(truncate(copy, 0), 0);
  assert_int_equal(zp_check_data(copy, &found), ZP_ESTORE);
}

static void test_what_is_no_file_is_refused(void **unused) {
  (void)unused;
  zp_check found;
  assert_int_equal(zp_check_data(copy, &found), ZP_ENOSTORE);
  assert_int_equal(mkdir(copy, 0700), 0);
  assert_int_equal(zp_check_data(copy, &found), ZP_ESTORE);
  assert_non_null(strstr(zp_error_detail(), "a directory"));
  assert_int_equal(rmdir(copy), 0);
  assert_int_equal(mkfifo(copy, 0600), 0);
  assert_int_equal(zp_check_data(copy, &found), ZP_ESTORE);
  unlink(copy);
}

static void damage_once(int fd, off_t used) {
  unsigned char bytes[4096];
  size_t size;
  off_t at = (off_t)draw((uint32_t)used);
  switch (draw(5)) {
    case 0: /* a bit */
      assert_int_equal(pread(fd, bytes, 1, at), 1);
      bytes[0] ^= (unsigned char)(1 << draw(8));
      assert_int_equal(pwrite(fd, bytes, 1, at), 1);
      break;
    case 1: /* some bytes at the beginning of a page, where its order is */
      at = at / 4096 * 4096 + draw(64);
      size = 1 + draw(8);
      for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)draw(256);
      assert_int_equal(pwrite(fd, bytes, size, at), size);
      break;
    case 2: /* a page of nothing */
      memset(bytes, 0, sizeof bytes);
      assert_int_equal(pwrite(fd, bytes, sizeof bytes, at / 4096 * 4096), sizeof bytes);
      break;
    case 3: /* another page */
      assert_int_equal(pread(fd, bytes, sizeof bytes, (off_t)draw((uint32_t)used) / 4096 * 4096), sizeof bytes);
      assert_int_equal(pwrite(fd, bytes, sizeof bytes, at / 4096 * 4096), sizeof bytes);
      break;
    default: /* garbage */
      size = 1 + draw(sizeof bytes - 1);
      for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)draw(256);
      assert_int_equal(pwrite(fd, bytes, size, at), size);
  }
}

/* What is damaged where it is of no account, or within a value, passes; then LMDB has to get along with it. */
static void test_damage_that_passes_does_no_harm(void **unused) {
  (void)unused;
  const char *wish = getenv("ZP_ROUNDS");
  int rounds = wish ? atoi(wish) : 100, refused = 0;
  work(800);
  zp_check found;
  must(zp_check_data(data, &found));
  off_t used = (off_t)found.used_bytes;
  for (int round = 0; round < rounds; round++) {
    copy_data();
    int fd = open(copy, O_RDWR);
    for (uint32_t n = 1 + draw(3); n > 0; n--) damage_once(fd, used);
    close(fd);
    int rc = zp_check_data(copy, &found);
    if (rc) {
      assert_int_equal(rc, ZP_ESTORE);
      refused++;
    } else {
      int signal = use(copy);
      if (signal) fail_msg("round %d: what has passed ended a process by signal %d", round, signal);
    }
  }
  assert_in_range(refused, rounds < 40 ? 1 : rounds / 4, rounds); /* a few rounds may be lucky ones */
}

/* Pages of two commits, as a copy of a file in use has them. */
static void test_pages_of_several_commits_are_found_out(void **unused) {
  (void)unused;
  zp_check found, mixed;
  unsigned char page[4096];
  int passed = 0;
  work(300);
  for (int round = 0; round < 40; round++) {
    copy_data();
    work(1 + draw(30));
    must(zp_check_data(data, &found));
    int to = open(copy, O_RDWR), from = open(data, O_RDONLY);
    off_t pages = (off_t)found.used_bytes / 4096, border = 2 + (off_t)draw((uint32_t)pages - 2);
    for (off_t at = border; at < pages; at++) { /* what comes first was read first */
      assert_int_equal(pread(from, page, sizeof page, at * 4096), sizeof page);
      assert_int_equal(pwrite(to, page, sizeof page, at * 4096), sizeof page);
    }
    close(to);
    close(from);
    if (zp_check_data(copy, &mixed) == 0) {
      passed++;
      assert_int_equal(use(copy), 0);
    }
  }
  assert_true(passed < 40);
}

static void test_a_snapshot_tells_whether_it_is_whole(void **unused) {
  (void)unused;
  zp_snapshot taken, found;
  struct stat status;
  work(300);
  zp_store *store = NULL;
  must(zp_store_open(directory, "default", &store));
  must(zp_store_read_begin(store));
  zp_store_read_end(store);
  int fd = open(copy, O_RDWR | O_CREAT | O_EXCL, 0600);
  must(zp_snapshot_copy(store, fd, copy, &taken));
  must(zp_snapshot_seal(fd, copy, &taken));
  zp_store_close(&store);
  must(zp_snapshot_check(copy, false, &found));
  assert_int_equal(found.revision, 300);
  assert_int_equal(found.sum, taken.sum);
  assert_int_equal(fstat(fd, &status), 0);
  for (int round = 0; round < 300; round++) { /* any bit of it */
    off_t at = (off_t)draw((uint32_t)status.st_size);
    unsigned char byte, other;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    other = byte ^ (unsigned char)(1 << draw(8));
    assert_int_equal(pwrite(fd, &other, 1, at), 1);
    assert_int_equal(zp_snapshot_check(copy, false, &found), ZP_ESTORE);
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
  }
  must(zp_snapshot_check(copy, false, &found));
  assert_int_equal(ftruncate(fd, status.st_size - 1), 0);
  assert_int_equal(zp_snapshot_check(copy, false, &found), ZP_ESTORE);
  assert_int_equal(ftruncate(fd, (off_t)taken.size), 0);
  assert_int_equal(zp_snapshot_check(copy, false, &found), ZP_ESTORE);
  must(zp_snapshot_check(copy, true, &found)); /* as an older program has written it */
  close(fd);
}

static void test_the_sum_does_not_depend_on_pieces_and_sees_each_bit(void **unused) {
  (void)unused;
  unsigned char bytes[1000];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)draw(256);
  uint64_t whole = zp_sum_of(bytes, sizeof bytes);
  for (int round = 0; round < 200; round++) {
    zp_sum sum;
    zp_sum_begin(&sum);
    for (size_t done = 0; done < sizeof bytes;) {
      size_t piece = draw(150);
      if (piece > sizeof bytes - done) piece = sizeof bytes - done;
      zp_sum_add(&sum, bytes + done, piece);
      done += piece;
    }
    assert_true(zp_sum_end(&sum) == whole);
  }
  for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
    bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    assert_true(zp_sum_of(bytes, sizeof bytes) != whole);
    bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
  }
  static const unsigned char zeros[200];
  for (size_t size = 1; size < sizeof zeros; size++) assert_true(zp_sum_of(zeros, size) != zp_sum_of(zeros, size - 1));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_the_sum_does_not_depend_on_pieces_and_sees_each_bit),
      cmocka_unit_test_setup_teardown(test_whole_data_pass_after_any_work, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_a_file_that_was_cut_is_refused, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_what_is_no_file_is_refused, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_damage_that_passes_does_no_harm, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_pages_of_several_commits_are_found_out, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_a_snapshot_tells_whether_it_is_whole, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
