/* dir: runtime directories and their sweeping. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "sys/dir.h"

static char root[64];

static int set_up(void **unused) {
  (void)unused;
  strcpy(root, "/tmp/zproc-test-XXXXXX");
  assert_non_null(mkdtemp(root));
  return setenv("ZPROC_RUNTIME_DIR", root, 1);
}

/* A test that leaves something behind fails here. */
static int tear_down(void **unused) {
  (void)unused;
  unsetenv("ZPROC_RUNTIME_DIR");
  return rmdir(root);
}

static zp_dir *create(void) {
  zp_dir *dir = NULL;
  if (zp_dir_create(&dir)) fail_msg("%s", zp_error_detail());
  return dir;
}

static void touch(const char *directory, const char *name) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  close(fd);
}

static void a_directory_is_private_and_below_the_root(void **unused) {
  (void)unused;
  struct stat status;
  zp_dir *dir = create();
  assert_int_equal(strncmp(zp_dir_path(dir), root, strlen(root)), 0);
  assert_int_equal(stat(zp_dir_path(dir), &status), 0);
  assert_int_equal(status.st_mode & 07777, 0700);
  zp_dir_remove(&dir);
  assert_null(dir);
  zp_dir_remove(&dir);
}

static void removing_takes_everything_within_and_nothing_else(void **unused) {
  (void)unused;
  char path[256], outside[128];
  snprintf(outside, sizeof outside, "%s/outside", root);
  assert_int_equal(mkdir(outside, 0700), 0);
  touch(outside, "kept");
  zp_dir *dir = create();
  touch(zp_dir_path(dir), "file");
  snprintf(path, sizeof path, "%s/sub", zp_dir_path(dir));
  assert_int_equal(mkdir(path, 0700), 0);
  touch(path, "file");
  snprintf(path, sizeof path, "%s/link", zp_dir_path(dir));
  assert_int_equal(symlink(outside, path), 0);
  snprintf(path, sizeof path, "%s", zp_dir_path(dir));
  zp_dir_remove(&dir);
  assert_int_equal(access(path, F_OK), -1);
  snprintf(path, sizeof path, "%s/kept", outside);
  assert_int_equal(unlink(path), 0);
  assert_int_equal(rmdir(outside), 0);
}

static void removing_needs_no_free_descriptor(void **unused) {
  (void)unused;
  enum { FEW = 40 };
  struct rlimit limit, low;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
  low = (struct rlimit){FEW, limit.rlim_max};
  int taken[FEW], count = 0;
  zp_dir *dir = create();
  touch(zp_dir_path(dir), "file");
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
  while (count < FEW && (taken[count] = dup(STDIN_FILENO)) >= 0) count++;
  zp_dir_remove(&dir);
  while (count > 0) close(taken[--count]);
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
} /* tear_down finds what is left */

static void a_planned_directory_is_not_there_until_it_is_made(void **unused) {
  (void)unused;
  zp_dir *dir = NULL;
  assert_int_equal(zp_dir_plan(&dir), 0);
  assert_int_equal(access(zp_dir_path(dir), F_OK), -1);
  assert_int_equal(zp_dir_make(dir), 0);
  assert_int_equal(access(zp_dir_path(dir), F_OK), 0);
  assert_int_equal(zp_dir_make(dir), ZP_ESYS); /* somebody was there before */
  zp_dir_remove(&dir);
  assert_int_equal(zp_dir_plan(&dir), 0);
  zp_dir_remove(&dir);
}

static void one_without_an_owner_file_is_left_to_its_maker_but_can_be_adopted_when_he_is_dead(void **unused) {
  (void)unused;
  char path[256];
  snprintf(path, sizeof path, "%s/zproc-%u-half", root, (unsigned)geteuid());
  assert_int_equal(mkdir(path, 0700), 0);
  touch(path, "making");
  assert_false(zp_dir_is_abandoned(path));
  assert_int_equal(zp_dir_sweep(NULL), 0);
  zp_dir *dir = NULL;
  assert_int_equal(zp_dir_adopt(path, &dir), 1);
  zp_dir_remove(&dir);
  assert_int_equal(access(path, F_OK), -1);
}

enum { CHILDREN = 50 };

/* Children that allocate nothing, and live until the pipe is closed. */
static void *fork_children(void *life) {
  for (int i = 0; i < CHILDREN; i++)
    if (fork() == 0) {
      char byte;
      close(((int *)life)[1]);
      (void)!read(((int *)life)[0], &byte, 1);
      _exit(0);
    }
  return NULL;
}

static void who_only_looks_whether_one_is_abandoned_leaves_no_child_as_its_owner(void **unused) {
  (void)unused;
  char path[256];
  int life[2];
  pthread_t thread;
  snprintf(path, sizeof path, "%s/zproc-%u-left", root, (unsigned)geteuid());
  assert_int_equal(mkdir(path, 0700), 0);
  touch(path, "owner");
  assert_int_equal(pipe(life), 0);
  assert_int_equal(pthread_create(&thread, NULL, fork_children, life), 0);
  bool abandoned = true;
  for (int i = 0; i < 20000 && abandoned; i++) abandoned = zp_dir_is_abandoned(path);
  pthread_join(thread, NULL);
  abandoned = abandoned && zp_dir_is_abandoned(path);
  close(life[0]);
  close(life[1]);
  for (int i = 0; i < CHILDREN; i++) assert_true(wait(NULL) > 0);
  assert_true(abandoned);
  assert_int_equal(zp_dir_sweep(NULL), 1);
}

static void a_root_that_was_asked_for_and_is_unusable_is_an_error_that_names_it(void **unused) {
  (void)unused;
  setenv("ZPROC_RUNTIME_DIR", "/nowhere/at/all", 1);
  zp_dir *dir = NULL;
  assert_int_equal(zp_dir_create(&dir), ZP_ESYS);
  assert_null(dir);
  assert_non_null(strstr(zp_error_detail(), "ZPROC_RUNTIME_DIR is /nowhere/at/all"));
}

static void without_a_wish_there_is_a_root(void **unused) {
  (void)unused;
  unsetenv("ZPROC_RUNTIME_DIR");
  zp_dir *dir = create();
  zp_dir_remove(&dir);
  zp_dir_remove(&dir);
}

static void a_sweep_leaves_what_is_owned_and_what_is_foreign(void **unused) {
  (void)unused;
  char path[256];
  zp_dir *dir = create();
  snprintf(path, sizeof path, "%s/zproc-%u-fresh", root, (unsigned)geteuid());
  assert_int_equal(mkdir(path, 0700), 0); /* as one that is just being made */
  char other[256];
  snprintf(other, sizeof other, "%s/unrelated", root);
  assert_int_equal(mkdir(other, 0700), 0);
  assert_int_equal(zp_dir_sweep(NULL), 0);
  assert_int_equal(access(zp_dir_path(dir), F_OK), 0);
  assert_int_equal(rmdir(path), 0);
  assert_int_equal(rmdir(other), 0);
  zp_dir_remove(&dir);
}

static void a_sweep_removes_what_a_killed_process_left(void **unused) {
  (void)unused;
  pid_t pid = fork();
  if (pid == 0) {
    zp_dir *dir = create();
    touch(zp_dir_path(dir), "data.mdb");
    kill(getpid(), SIGKILL);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(zp_dir_sweep(NULL), 1);
  assert_int_equal(zp_dir_sweep(NULL), 0);
}

static void a_directory_is_in_use_as_long_as_a_child_of_its_maker_lives(void **unused) {
  (void)unused;
  int ready[2], go[2];
  char byte = 0;
  assert_int_equal(pipe(ready), 0);
  assert_int_equal(pipe(go), 0);
  pid_t maker = fork();
  if (maker == 0) {
    create();
    pid_t child = fork();
    if (child == 0) {
      close(go[1]);
      close(ready[0]);
      if (write(ready[1], &child, sizeof child) != (ssize_t)sizeof child) _exit(1);
      (void)!read(go[0], &byte, 1); /* until the test closes its end */
      _exit(0);
    }
    kill(getpid(), SIGKILL);
  }
  close(ready[1]);
  close(go[0]);
  pid_t child;
  assert_int_equal(read(ready[0], &child, sizeof child), sizeof child);
  assert_int_equal(waitpid(maker, NULL, 0), maker);
  assert_int_equal(zp_dir_sweep(NULL), 0);
  close(go[1]);
  assert_int_equal(read(ready[0], &byte, 1), 0); /* end of file: the child is gone, and its locks with it */
  int removed = 0;
  for (int i = 0; removed == 0 && i < 1000000; i++) removed = zp_dir_sweep(NULL); /* descriptors close in some order */
  assert_int_equal(removed, 1);
  close(ready[0]);
}

static void a_child_does_not_remove_its_parents_directory(void **unused) {
  (void)unused;
  zp_dir *dir = create();
  pid_t pid = fork();
  if (pid == 0) {
    zp_dir_remove(&dir);
    _exit(dir ? 1 : 0);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 0);
  assert_int_equal(access(zp_dir_path(dir), F_OK), 0);
  assert_int_equal(zp_dir_sweep(NULL), 0); /* the parent's lock has not gone with the child's copy */
  zp_dir_remove(&dir);
}

static void makers_and_sweepers_do_not_disturb_each_other(void **unused) {
  (void)unused;
  pid_t sweeper = fork();
  if (sweeper == 0) {
    signal(SIGTERM, SIG_DFL);
    for (;;) zp_dir_sweep(NULL);
  }
  for (int i = 0; i < 300; i++) {
    zp_dir *dir = create();
    touch(zp_dir_path(dir), "data.mdb");
    zp_dir_remove(&dir);
  }
  kill(sweeper, SIGTERM);
  assert_int_equal(waitpid(sweeper, NULL, 0), sweeper);
  zp_dir_sweep(NULL);
}

#define IN_ROOT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      IN_ROOT(a_directory_is_private_and_below_the_root),
      IN_ROOT(removing_takes_everything_within_and_nothing_else),
      IN_ROOT(removing_needs_no_free_descriptor),
      IN_ROOT(a_planned_directory_is_not_there_until_it_is_made),
      IN_ROOT(one_without_an_owner_file_is_left_to_its_maker_but_can_be_adopted_when_he_is_dead),
      IN_ROOT(who_only_looks_whether_one_is_abandoned_leaves_no_child_as_its_owner),
      IN_ROOT(a_root_that_was_asked_for_and_is_unusable_is_an_error_that_names_it),
      IN_ROOT(without_a_wish_there_is_a_root),
      IN_ROOT(a_sweep_leaves_what_is_owned_and_what_is_foreign),
      IN_ROOT(a_sweep_removes_what_a_killed_process_left),
      IN_ROOT(a_directory_is_in_use_as_long_as_a_child_of_its_maker_lives),
      IN_ROOT(a_child_does_not_remove_its_parents_directory),
      IN_ROOT(makers_and_sweepers_do_not_disturb_each_other),
  };
  return cmocka_run_group_tests_name("dir", tests, NULL, NULL);
}
