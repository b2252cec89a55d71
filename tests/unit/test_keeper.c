/* keeper: what a child has of the servers of its parent, whichever thread forks it, and whatever the others are doing. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
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
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "server/keeper.h"
#include "server/loop.h"
#include "store/store.h"
#include "sys/dir.h"
#include "sys/inet.h"
#include "sys/sock.h"

static const double GENEROUS = 60; /* seconds; a limit, not an expectation */

enum { CHILDREN = 24, KNOWN_MAX = 64 };

static char root[64];
static int life[2]; /* the children live until it is closed */
static int born[2]; /* gets a byte from each child when its fork is over: what it is to close is closed by then */
static pid_t children[CHILDREN];
static _Atomic int child_count;
static char known[KNOWN_MAX][64]; /* what this process has open when a test begins */
static int known_count;

static void must(int rc) {
  if (rc) fail_msg("%d: %s", rc, zp_error_detail());
}

static void pause_briefly(void) { usleep(1000); }

/* ---- descriptors, by what /proc says of them ---- */

static bool is_known(const char *what) {
  for (int i = 0; i < known_count; i++)
    if (strcmp(known[i], what) == 0) return true;
  return false;
}

/* Call visit with each descriptor of the process that is no file. */
static void visit_descriptors(pid_t pid, void (*visit)(pid_t pid, const char *what)) {
  char path[64], link[PATH_MAX + 64], what[64];
  snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
  DIR *stream = opendir(path);
  assert_non_null(stream);
  struct dirent *entry;
  while ((entry = readdir(stream))) {
    snprintf(link, sizeof link, "%s/%s", path, entry->d_name);
    ssize_t size = readlink(link, what, sizeof what - 1);
    if (size <= 0 || what[0] == '/') continue;
    what[size] = 0;
    visit(pid, what);
  }
  closedir(stream);
}

static void note_known(pid_t pid, const char *what) {
  (void)pid;
  assert_true(known_count < KNOWN_MAX);
  strcpy(known[known_count++], what);
}

static void refuse_unknown(pid_t pid, const char *what) {
  if (!is_known(what)) fail_msg("the child %d has %s", (int)pid, what);
}

/* ---- children ---- */

/* They allocate nothing, which an allocator that is not prepared for forks would not stand. */
static void *fork_children(void *unused) {
  for (int i = 0; i < CHILDREN; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      char byte = 0;
      close(life[1]);
      (void)!write(born[1], &byte, 1);
      close(born[1]);
      (void)!read(life[0], &byte, 1);
      _exit(0);
    }
    children[i] = pid;
    atomic_store(&child_count, i + 1);
  }
  return unused;
}

static pthread_t begin_forking(void) {
  pthread_t thread;
  atomic_store(&child_count, 0);
  assert_int_equal(pipe2(life, O_CLOEXEC), 0);
  assert_int_equal(pipe2(born, O_CLOEXEC), 0);
  known_count = 0;
  visit_descriptors(getpid(), note_known);
  assert_int_equal(pthread_create(&thread, NULL, fork_children, NULL), 0);
  while (atomic_load(&child_count) == 0) pause_briefly();
  return thread;
}

static void await_children(pthread_t forker) {
  char byte;
  pthread_join(forker, NULL);
  close(born[1]); /* a child that dies in its fork is an end, not a wait */
  for (int i = 0; i < CHILDREN; i++) assert_int_equal(read(born[0], &byte, 1), 1);
  close(born[0]);
}

/* That none of them has anything of a server. */
static void check_children(pthread_t forker) {
  await_children(forker);
  for (int i = 0; i < CHILDREN; i++) visit_descriptors(children[i], refuse_unknown);
}

static void end_children(void) {
  close(life[0]);
  close(life[1]);
  for (int i = 0; i < CHILDREN; i++) {
    int status;
    assert_true(children[i] > 0);
    assert_int_equal(waitpid(children[i], &status, 0), children[i]);
    assert_int_equal(status, 0);
  }
}

/* ---- servers ---- */

typedef struct kept {
  zp_dir *dir;
  zp_server *server;
  char tcp[ZP_INET_NAME_SIZE], path[PATH_MAX];
} kept;

static void start(kept *self, zp_server_kind kind) {
  bool is_loopback;
  zp_listener *listener;
  must(zp_listener_open("127.0.0.1:*", &listener, self->tcp, &is_loopback));
  must(zp_dir_plan(&self->dir));
  snprintf(self->path, sizeof self->path, "%s/server", zp_dir_path(self->dir));
  must(zp_server_start(zp_dir_path(self->dir), &(zp_server_options){.kind = kind, .listeners = &listener, .listener_count = 1}, &self->server));
  zp_listener_close(&listener);
  must(zp_dir_make(self->dir));
  must(zp_store_create(zp_dir_path(self->dir), NULL));
  must(zp_server_listen(self->server));
}

/* To be called when nobody forks: it opens sockets that are no server's. */
static void check_gone(kept *self) {
  int fd = -1;
  assert_int_equal(zp_inet_connect(self->tcp, zp_clock_now() + GENEROUS, &fd), ZP_ENOSTORE);
  assert_int_equal(zp_sock_connect(self->path, zp_clock_now() + GENEROUS, &fd), ZP_ENOSTORE);
  zp_dir_remove(&self->dir);
}

static void stop_server(kept *self) {
  zp_server_stop(&self->server);
  check_gone(self);
}

static int set_up(void **unused) {
  (void)unused;
  strcpy(root, "/tmp/zproc-test-XXXXXX");
  assert_non_null(mkdtemp(root));
  setenv("ZPROC_RUNTIME_DIR", root, 1);
  return 0;
}

static int tear_down(void **unused) {
  (void)unused;
  zp_dir_sweep(NULL);
  unsetenv("ZPROC_RUNTIME_DIR");
  return rmdir(root);
}

/* ---- */

static void children_forked_while_a_server_is_started_or_stopped_have_nothing_of_it(void **unused) {
  (void)unused;
  enum { ROUNDS = 60 };
  for (int round = 0; round < ROUNDS; round++) {
    kept one;
    pthread_t forker = begin_forking();
    start(&one, ZP_SERVER_PROCESS);
    zp_server_stop(&one.server);
    check_children(forker);
    check_gone(&one);
    end_children();
  }
}

static void a_server_that_dies_while_children_are_forked_is_started_again(void **unused) {
  (void)unused;
  enum { ROUNDS = 20 };
  for (int round = 0; round < ROUNDS; round++) {
    kept one;
    pthread_t forker = begin_forking();
    start(&one, ZP_SERVER_PROCESS);
    for (int deaths = 0; deaths < 3; deaths++) {
      pid_t pid = zp_server_pid(one.server), next;
      kill(pid, SIGKILL);
      double limit = zp_clock_now() + GENEROUS;
      while ((next = zp_server_pid(one.server)) == pid || next == 0) {
        if (zp_clock_now() > limit) fail_msg("nobody has noticed that the server is dead");
        pause_briefly();
      }
    }
    check_children(forker);
    stop_server(&one);
    end_children();
  }
}

/* Its loop and ZeroMQ open descriptors when they like, and children have copies of those. */
static void nobody_listens_at_the_addresses_of_a_thread_that_was_stopped_whatever_children_have(void **unused) {
  (void)unused;
  enum { ROUNDS = 20 };
  for (int round = 0; round < ROUNDS; round++) {
    kept one;
    start(&one, ZP_SERVER_THREAD);
    int fd;
    must(zp_inet_connect(one.tcp, zp_clock_now() + GENEROUS, &fd));
    close(fd);
    pthread_t forker = begin_forking();
    stop_server(&one);
    await_children(forker);
    end_children();
  }
}

static void a_child_leaves_its_parents_servers_and_listeners_alone(void **unused) {
  (void)unused;
  kept one;
  bool is_loopback;
  char bound[ZP_INET_NAME_SIZE];
  zp_listener *listener;
  start(&one, ZP_SERVER_PROCESS);
  must(zp_listener_open("127.0.0.1:*", &listener, bound, &is_loopback));
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    char own[ZP_INET_NAME_SIZE];
    zp_listener *fresh;
    if (zp_listener_open("127.0.0.1:*", &fresh, own, &is_loopback)) _exit(1); /* which gets a number that the parent's had */
    zp_listener_close(&listener);
    zp_server_stop(&one.server);
    int fd;
    if (zp_inet_connect(own, zp_clock_now() + GENEROUS, &fd) || zp_inet_connect(bound, zp_clock_now() + GENEROUS, &fd) ||
        zp_inet_connect(one.tcp, zp_clock_now() + GENEROUS, &fd))
      _exit(2);
    _exit(0);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 0);
  zp_listener_close(&listener);
  stop_server(&one);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv) {
  /* A server is this very program, executed anew. */
  if (argc > 4 && strcmp(argv[1], "--serve") == 0) return zp_serve(argv[2], NULL, (size_t)atoi(argv[4]), argc > 5);
  const struct CMUnitTest tests[] = {
      TEST(children_forked_while_a_server_is_started_or_stopped_have_nothing_of_it),
      TEST(a_server_that_dies_while_children_are_forked_is_started_again),
      TEST(nobody_listens_at_the_addresses_of_a_thread_that_was_stopped_whatever_children_have),
      TEST(a_child_leaves_its_parents_servers_and_listeners_alone),
  };
  return cmocka_run_group_tests_name("keeper", tests, NULL, NULL);
}
