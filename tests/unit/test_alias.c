/* sock, alias, dirlock: sockets by path, their second names, and the lock on the directory that these are in. */
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
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/alias.h"
#include "sys/dirlock.h"
#include "sys/sock.h"

static char root[64], target[256], place[256];

static void must(int rc) {
  if (rc) fail_msg("%d: %s", rc, zp_error_detail());
}

static int set_up(void **unused) {
  (void)unused;
  strcpy(root, "/tmp/zproc-test-XXXXXX");
  assert_non_null(mkdtemp(root));
  snprintf(target, sizeof target, "%s/target", root);
  snprintf(place, sizeof place, "%s/place", root);
  return 0;
}

/* A test that leaves something else behind fails here. */
static int tear_down(void **unused) {
  (void)unused;
  unlink(target);
  unlink(place);
  return rmdir(root);
}

static int listen_at(const char *path) {
  int fd;
  must(zp_sock_listen(path, &fd));
  return fd;
}

static int try_connect(const char *path) {
  int fd = -1;
  int rc = zp_sock_connect(path, zp_clock_now() + 10, &fd);
  if (fd >= 0) close(fd);
  return rc;
}

static void who_connects_learns_who_listens(void **unused) {
  (void)unused;
  int listener = listen_at(target), fd;
  must(zp_sock_connect(target, ZP_FOREVER, &fd));
  assert_int_equal(zp_sock_listener(fd), getpid());
  close(fd);
  struct stat status;
  assert_int_equal(stat(target, &status), 0);
  assert_int_equal(status.st_mode & 0777, 0600);
  close(listener);
}

static void nobody_listens_is_an_error_of_its_own(void **unused) {
  (void)unused;
  assert_int_equal(try_connect(target), ZP_ENOSTORE);
  assert_int_equal(try_connect("/nowhere/at/all"), ZP_ENOSTORE);
  close(listen_at(target)); /* leaves the file */
  assert_int_equal(try_connect(target), ZP_ENOSTORE);
  assert_int_equal(open(place, O_CREAT | O_WRONLY | O_CLOEXEC, 0600) < 0, 0);
  assert_int_equal(try_connect(place), ZP_ENOSTORE);
}

static void a_full_queue_is_waited_for_until_the_deadline(void **unused) {
  (void)unused;
  enum { MORE_THAN_A_QUEUE = 5000 };
  static int fds[MORE_THAN_A_QUEUE];
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < MORE_THAN_A_QUEUE + 64) skip();
  int listener = listen_at(target), count = 0, rc = 0;
  while (count < MORE_THAN_A_QUEUE && !(rc = zp_sock_connect(target, zp_clock_now() + 0.05, &fds[count]))) count++;
  while (count > 0) close(fds[--count]);
  assert_int_equal(rc, ZP_ETIMEOUT);
  close(listener);
}

static void a_path_may_be_longer_than_an_address(void **unused) {
  (void)unused;
  char directory[200], path[256];
  snprintf(directory, sizeof directory, "%s/%0120d", root, 0);
  assert_int_equal(mkdir(directory, 0700), 0);
  snprintf(path, sizeof path, "%s/socket", directory);
  int listener = listen_at(path);
  must(try_connect(path));
  must(zp_alias_create(place, path));
  must(try_connect(place));
  close(listener);
  unlink(path);
  rmdir(directory);
}

static void an_alias_leads_to_its_target_and_is_removed_only_if_it_does(void **unused) {
  (void)unused;
  int listener = listen_at(target);
  must(zp_alias_create(place, target));
  must(try_connect(place));
  zp_alias_remove(place, "/somewhere/else");
  must(try_connect(place));
  zp_alias_remove(place, target);
  zp_alias_remove(place, target);
  assert_int_equal(access(place, F_OK), -1);
  close(listener);
}

static void a_place_where_somebody_listens_is_refused_with_his_pid(void **unused) {
  (void)unused;
  int listener = listen_at(target);
  must(zp_alias_create(place, target));
  assert_int_equal(zp_alias_create(place, "/another/target"), ZP_EUSAGE);
  char words[64];
  snprintf(words, sizeof words, "in use: process %d listens there", (int)getpid());
  assert_non_null(strstr(zp_error_detail(), words));
  must(try_connect(place));
  close(listener);
}

static void what_a_dead_server_has_left_is_replaced(void **unused) {
  (void)unused;
  assert_int_equal(symlink("/gone/with/its/server", place), 0);
  int listener = listen_at(target);
  must(zp_alias_create(place, target));
  must(try_connect(place));
  close(listener);
}

static void a_file_that_is_no_socket_is_not_touched(void **unused) {
  (void)unused;
  int fd = open(place, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  assert_int_equal(write(fd, "mine", 4), 4);
  close(fd);
  assert_int_equal(zp_alias_create(place, target), ZP_EUSAGE);
  assert_non_null(strstr(zp_error_detail(), "a file that is no socket"));
  struct stat status;
  assert_int_equal(stat(place, &status), 0);
  assert_int_equal(status.st_size, 4);
}

static void a_place_in_no_directory_is_refused(void **unused) {
  (void)unused;
  assert_int_equal(zp_alias_create("/nowhere/at/all", target), ZP_ESYS);
  assert_int_equal(zp_alias_create("relative", target), ZP_ESYS);
}

/* Many want the place at once: exactly one gets it. */
static void of_many_at_once_one_gets_the_place(void **unused) {
  (void)unused;
  enum { ROUNDS = 20, CONTENDERS = 8 };
  for (int round = 0; round < ROUNDS; round++) {
    int start[2], hold[2];
    assert_int_equal(pipe(start), 0);
    assert_int_equal(pipe(hold), 0);
    pid_t pids[CONTENDERS];
    int results[2];
    assert_int_equal(pipe(results), 0);
    for (int i = 0; i < CONTENDERS; i++) {
      pids[i] = fork();
      assert_true(pids[i] >= 0);
      if (pids[i] == 0) {
        char own[300], byte;
        close(start[1]);
        close(hold[1]);
        snprintf(own, sizeof own, "%s.%d.%d", target, round, i);
        int listener;
        if (zp_sock_listen(own, &listener)) _exit(2);
        (void)!read(start[0], &byte, 1);
        char won = zp_alias_create(place, own) == 0;
        (void)!write(results[1], &won, 1);
        (void)!read(hold[0], &byte, 1); /* the winner listens until all have tried */
        unlink(own);
        _exit(0);
      }
    }
    close(start[1]);
    int winners = 0;
    for (int i = 0; i < CONTENDERS; i++) {
      char won;
      assert_int_equal(read(results[0], &won, 1), 1);
      winners += won;
    }
    close(hold[1]);
    for (int i = 0; i < CONTENDERS; i++) {
      int status;
      assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
      assert_int_equal(status, 0);
    }
    close(start[0]);
    close(hold[0]);
    close(results[0]);
    close(results[1]);
    assert_int_equal(winners, 1);
  }
}

/* What is left without a name of its own would make tear_down fail. */
static void of_a_maker_that_is_killed_nothing_is_left(void **unused) {
  (void)unused;
  enum { ROUNDS = 200 };
  for (int i = 0; i < ROUNDS; i++) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
      for (;;)
        if (zp_alias_create(place, target)) _exit(1);
    }
    usleep((useconds_t)(i * 20 % 1500));
    kill(pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    zp_alias_remove(place, target);
    assert_int_equal(access(place, F_OK), -1);
  }
}

static void a_socket_listens_from_when_it_is_bound(void **unused) {
  (void)unused;
  int listener = -1;
  must(zp_sock_make(&listener));
  assert_false(zp_sock_listens(listener));
  must(zp_sock_bind(listener, target));
  assert_true(zp_sock_listens(listener));
  must(try_connect(target));
  assert_int_equal(zp_sock_bind(listener, target), ZP_ESYS);
  close(listener);
}

static void a_lock_keeps_others_out_until_their_time_is_up(void **unused) {
  (void)unused;
  int lock, other;
  must(zp_dirlock_take(root, ZP_FOREVER, &lock));
  assert_int_equal(zp_dirlock_take(root, zp_clock_now() + 0.01, &other), ZP_ESYS);
  assert_int_equal(errno, EWOULDBLOCK);
  zp_dirlock_release(lock);
  must(zp_dirlock_take(root, zp_clock_now(), &lock));
  zp_dirlock_release(lock);
  assert_int_equal(zp_dirlock_take(place, ZP_FOREVER, &lock), ZP_ESYS); /* which does not exist */
  assert_int_equal(errno, ENOENT);
  assert_non_null(strstr(zp_error_detail(), place));
}

static void a_lock_that_is_given_up_is_free_though_a_child_has_its_descriptor(void **unused) {
  (void)unused;
  int lock, life[2];
  assert_int_equal(pipe(life), 0);
  must(zp_dirlock_take(root, ZP_FOREVER, &lock));
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    char byte;
    close(life[1]);
    (void)!read(life[0], &byte, 1);
    _exit(0);
  }
  close(life[0]);
  zp_dirlock_release(lock);
  must(zp_dirlock_take(root, zp_clock_now(), &lock));
  zp_dirlock_release(lock);
  close(life[1]);
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(who_connects_learns_who_listens),
      TEST(nobody_listens_is_an_error_of_its_own),
      TEST(a_full_queue_is_waited_for_until_the_deadline),
      TEST(a_path_may_be_longer_than_an_address),
      TEST(an_alias_leads_to_its_target_and_is_removed_only_if_it_does),
      TEST(a_place_where_somebody_listens_is_refused_with_his_pid),
      TEST(what_a_dead_server_has_left_is_replaced),
      TEST(a_file_that_is_no_socket_is_not_touched),
      TEST(a_place_in_no_directory_is_refused),
      TEST(of_many_at_once_one_gets_the_place),
      TEST(of_a_maker_that_is_killed_nothing_is_left),
      TEST(a_socket_listens_from_when_it_is_bound),
      TEST(a_lock_keeps_others_out_until_their_time_is_up),
      TEST(a_lock_that_is_given_up_is_free_though_a_child_has_its_descriptor),
  };
  return cmocka_run_group_tests_name("alias", tests, NULL, NULL);
}
