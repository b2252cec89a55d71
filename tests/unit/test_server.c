/* server: the loop, in a process of its own, and what clients may do to it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "net/service.h"
#include "server/client.h"
#include "server/loop.h"
#include "server/protocol.h"
#include "store/store.h"
#include "sys/alias.h"
#include "sys/dir.h"
#include "sys/sock.h"

static const double GENEROUS = 60; /* seconds; a limit, not an expectation */

static char root[64], directory[128], path[160];
static pid_t server, owner;
static int owner_pipe; /* the owner lives until this is closed */

static void must(int rc) {
  if (rc) fail_msg("%d: %s", rc, zp_error_detail());
}

static pid_t ping(void) {
  zp_buf echo = ZP_BUF_INIT;
  pid_t pid = 0;
  must(zp_client_ping(path, (zp_bytes){"word", 4}, zp_clock_now() + GENEROUS, &pid, &echo));
  assert_int_equal(echo.size, 4);
  assert_memory_equal(echo.data, "word", 4);
  zp_buf_free(&echo);
  return pid;
}

static void pause_briefly(void) { usleep(1000); }

/* An owner: it makes the directory with a store in it, says where, and lives until its pipe is closed. */
static void start_owner(void) {
  int told[2], life[2];
  assert_int_equal(pipe(told), 0);
  assert_int_equal(pipe2(life, O_CLOEXEC), 0);
  owner = fork();
  assert_true(owner >= 0);
  if (owner == 0) {
    close(life[1]);
    zp_dir *dir;
    if (zp_dir_create(&dir) || zp_store_create(zp_dir_path(dir), NULL)) _exit(1);
    size_t size = strlen(zp_dir_path(dir)) + 1;
    if (write(told[1], zp_dir_path(dir), size) != (ssize_t)size) _exit(1);
    char byte;
    (void)!read(life[0], &byte, 1);
    _exit(0);
  }
  close(told[1]);
  close(life[0]);
  owner_pipe = life[1];
  assert_true(read(told[0], directory, sizeof directory) > 0);
  close(told[0]);
  snprintf(path, sizeof path, "%s/" ZP_SERVER_SOCKET, directory);
}

static const char *network_path(void) {
  static char there[160];
  snprintf(there, sizeof there, "%s/" ZP_SERVICE_SOCKET, directory);
  return there;
}

static void unlink_sockets(void) {
  assert_int_equal(unlink(path), 0);
  assert_int_equal(unlink(network_path()), 0);
}

/* As a keeper does it, but without another program. */
static void start_server(const char *alias, rlim_t descriptors) {
  int listener, network, lifeline[2];
  must(zp_sock_listen(network_path(), &network));
  must(zp_sock_listen(path, &listener));
  assert_int_equal(pipe(lifeline), 0);
  int pidfd = (int)syscall(SYS_pidfd_open, owner, 0);
  assert_true(pidfd >= 0);
  server = fork();
  assert_true(server >= 0);
  if (server == 0) {
    int fds[] = {fcntl(listener, F_DUPFD, 20), fcntl(network, F_DUPFD, 20), fcntl(pidfd, F_DUPFD, 20), fcntl(lifeline[1], F_DUPFD, 20)};
    for (int i = 0; i < 4; i++) dup2(fds[i], ZP_SERVE_LISTENER + i);
    close_range(ZP_SERVE_TCP, ~0u, 0);
    struct rlimit limit = {descriptors, descriptors};
    if (descriptors) setrlimit(RLIMIT_NOFILE, &limit);
    _exit(zp_serve(directory, alias, 0, false));
  }
  close(listener);
  close(network);
  close(lifeline[0]);
  close(lifeline[1]);
  close(pidfd);
  assert_int_equal(ping(), server); /* it runs */
}

static int end_of(pid_t pid) {
  int status = 0;
  double limit = zp_clock_now() + GENEROUS;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    if (zp_clock_now() > limit) fail_msg("process %d does not end", (int)pid);
    pause_briefly();
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void end_owner(void) {
  if (owner_pipe >= 0) close(owner_pipe);
  owner_pipe = -1;
  if (owner > 0) end_of(owner);
  owner = 0;
}

static int set_up(void **unused) {
  (void)unused;
  strcpy(root, "/tmp/zproc-test-XXXXXX");
  assert_non_null(mkdtemp(root));
  setenv("ZPROC_RUNTIME_DIR", root, 1);
  start_owner();
  start_server(NULL, 0);
  return 0;
}

/* The owner ends, so the server has to clean up: if anything is left, this fails. */
static int tear_down(void **unused) {
  (void)unused;
  bool orderly = server > 0;
  end_owner();
  if (orderly) assert_int_equal(end_of(server), 0);
  else zp_dir_sweep(NULL);
  server = 0;
  unsetenv("ZPROC_RUNTIME_DIR");
  return rmdir(root);
}

static int connect_to_server(void) {
  int fd;
  must(zp_sock_connect(path, zp_clock_now() + GENEROUS, &fd));
  fcntl(fd, F_SETFL, 0);
  return fd;
}

/* Everything until the server closes. */
static size_t read_to_end(int fd, void *to, size_t size) {
  size_t got = 0;
  ssize_t n;
  while (got < size && (n = read(fd, (char *)to + got, size - got)) > 0) got += (size_t)n;
  return got;
}

static void send_head(int fd, uint32_t magic, uint16_t version, uint16_t type, uint32_t size) {
  zp_message_head head = {magic, version, type, size, 0};
  assert_int_equal(send(fd, &head, sizeof head, MSG_NOSIGNAL), sizeof head);
}

static void read_exactly(int fd, void *to, size_t size) { assert_int_equal(read_to_end(fd, to, size), size); }

/* ---- */

static void a_ping_is_answered_by_the_server_itself(void **unused) {
  (void)unused;
  assert_int_equal(ping(), server);
}

static void payloads_of_all_sizes_come_back_and_too_large_ones_are_refused(void **unused) {
  (void)unused;
  static char bytes[ZP_PING_MAX + 1];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (char)(i * 31);
  const size_t sizes[] = {0, 1, 4096, ZP_PING_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    zp_buf echo = ZP_BUF_INIT;
    pid_t pid;
    must(zp_client_ping(path, (zp_bytes){bytes, sizes[i]}, zp_clock_now() + GENEROUS, &pid, &echo));
    assert_int_equal(echo.size, sizes[i]);
    if (sizes[i]) assert_memory_equal(echo.data, bytes, sizes[i]);
    zp_buf_free(&echo);
  }
  zp_buf echo = ZP_BUF_INIT;
  pid_t pid;
  assert_int_equal(zp_client_ping(path, (zp_bytes){bytes, sizeof bytes}, ZP_FOREVER, &pid, &echo), ZP_EVALUE);
}

static void garbage_is_answered_by_a_closed_door(void **unused) {
  (void)unused;
  static const char garbage[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
  char answer[16];
  int fd = connect_to_server();
  assert_int_equal(send(fd, garbage, sizeof garbage, MSG_NOSIGNAL), sizeof garbage);
  assert_int_equal(read_to_end(fd, answer, sizeof answer), 0);
  close(fd);
  assert_int_equal(ping(), server);
}

static void a_message_that_says_it_is_a_gigabyte_is_a_closed_door(void **unused) {
  (void)unused;
  char answer[16];
  int fd = connect_to_server();
  send_head(fd, ZP_PROTOCOL_MAGIC, ZP_PROTOCOL_VERSION, ZP_MESSAGE_PING, 1 << 30);
  assert_int_equal(read_to_end(fd, answer, sizeof answer), 0);
  close(fd);
  assert_int_equal(ping(), server);
}

static void refused(uint16_t version, uint16_t type, const char *words) {
  int fd = connect_to_server();
  send_head(fd, ZP_PROTOCOL_MAGIC, version, type, 0);
  zp_message_head head;
  char text[256] = "";
  read_exactly(fd, &head, sizeof head);
  assert_int_equal(head.type, ZP_MESSAGE_REFUSED);
  assert_int_equal(head.version, ZP_PROTOCOL_VERSION);
  assert_true(head.size < sizeof text);
  read_exactly(fd, text, head.size);
  assert_non_null(strstr(text, words));
  /* The connection is as good as before. */
  send_head(fd, ZP_PROTOCOL_MAGIC, ZP_PROTOCOL_VERSION, ZP_MESSAGE_PING, 0);
  read_exactly(fd, &head, sizeof head);
  assert_int_equal(head.type, ZP_MESSAGE_PONG);
  close(fd);
}

static void another_version_and_an_unknown_request_are_refused_with_words(void **unused) {
  (void)unused;
  refused(ZP_PROTOCOL_VERSION + 1, ZP_MESSAGE_PING, "another version");
  refused(ZP_PROTOCOL_VERSION, 999, "no request of type 999");
}

static void half_a_request_holds_up_nobody(void **unused) {
  (void)unused;
  int half_head = connect_to_server(), half_body = connect_to_server();
  assert_int_equal(send(half_head, "ZR", 2, MSG_NOSIGNAL), 2);
  send_head(half_body, ZP_PROTOCOL_MAGIC, ZP_PROTOCOL_VERSION, ZP_MESSAGE_PING, 100);
  assert_int_equal(ping(), server);
  char rest[100] = "", echo[sizeof(zp_message_head) + 8 + 100];
  assert_int_equal(send(half_body, rest, sizeof rest, MSG_NOSIGNAL), sizeof rest);
  read_exactly(half_body, echo, sizeof echo);
  close(half_head);
  close(half_body);
}

static void a_thousand_silent_connections_hold_up_nobody(void **unused) {
  (void)unused;
  enum { COUNT = 1000 };
  struct rlimit limit;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
  static int fds[COUNT];
  for (int i = 0; i < COUNT; i++) fds[i] = connect_to_server();
  assert_int_equal(ping(), server);
  for (int i = 0; i < COUNT; i++) close(fds[i]);
  assert_int_equal(ping(), server);
}

static void of_too_many_connections_the_one_silent_longest_is_closed(void **unused) {
  (void)unused;
  enum { COUNT = 100, DESCRIPTORS = 80 };
  kill(server, SIGTERM);
  assert_int_equal(end_of(server), 0);
  unlink_sockets();
  start_server(NULL, DESCRIPTORS);
  int fds[COUNT];
  for (int i = 0; i < COUNT; i++) fds[i] = connect_to_server();
  assert_int_equal(ping(), server);
  char byte;
  assert_int_equal(read(fds[0], &byte, 1), 0);
  struct pollfd last = {.fd = fds[COUNT - 1], .events = POLLIN};
  assert_int_equal(poll(&last, 1, 0), 0);
  for (int i = 0; i < COUNT; i++) close(fds[i]);
}

static void who_does_not_read_his_answers_holds_up_nobody_and_gets_them_all_when_he_does(void **unused) {
  (void)unused;
  enum { SIZE = 32 << 10, REQUESTS = 200 };
  static char bytes[SIZE];
  int fd = connect_to_server();
  fcntl(fd, F_SETFL, O_NONBLOCK);
  zp_message_head head = {ZP_PROTOCOL_MAGIC, ZP_PROTOCOL_VERSION, ZP_MESSAGE_PING, SIZE, 0};
  static char stream[REQUESTS * (SIZE + sizeof head)];
  for (size_t i = 0; i < REQUESTS; i++) {
    memcpy(stream + i * (SIZE + sizeof head), &head, sizeof head);
    memcpy(stream + i * (SIZE + sizeof head) + sizeof head, bytes, SIZE);
  }
  size_t sent = 0, got = 0, expected = REQUESTS * (sizeof head + 8 + SIZE);
  for (ssize_t n; (n = send(fd, stream + sent, sizeof stream - sent, MSG_NOSIGNAL)) > 0;) sent += (size_t)n;
  assert_true(sent < sizeof stream); /* the server has stopped taking */
  assert_int_equal(ping(), server);
  while (got < expected) {
    struct pollfd ready = {.fd = fd, .events = POLLIN | (sent < sizeof stream ? POLLOUT : 0)};
    assert_int_equal(poll(&ready, 1, (int)GENEROUS * 1000), 1);
    if (ready.revents & POLLOUT) {
      ssize_t n = send(fd, stream + sent, sizeof stream - sent, MSG_NOSIGNAL);
      if (n > 0) sent += (size_t)n;
    }
    if (ready.revents & POLLIN) {
      static char sink[1 << 16];
      ssize_t n = recv(fd, sink, sizeof sink, 0);
      assert_true(n > 0);
      got += (size_t)n;
    }
  }
  assert_int_equal(got, expected);
  close(fd);
}

static void a_client_waits_for_a_server_that_is_stopped_until_its_time_is_up(void **unused) {
  (void)unused;
  kill(server, SIGSTOP);
  zp_buf echo = ZP_BUF_INIT;
  pid_t pid;
  assert_int_equal(zp_client_ping(path, (zp_bytes){NULL, 0}, zp_clock_now() + 0.05, &pid, &echo), ZP_ETIMEOUT);
  kill(server, SIGCONT);
  zp_buf_free(&echo);
  assert_int_equal(ping(), server);
}

static void a_termination_signal_ends_it_and_leaves_everything_as_it_is(void **unused) {
  (void)unused;
  assert_int_equal(ping(), server);
  kill(server, SIGTERM);
  assert_int_equal(end_of(server), 0);
  server = 0;
  char data[160];
  snprintf(data, sizeof data, "%s/data.mdb", directory);
  assert_int_equal(access(data, F_OK), 0);
}

static void when_the_owner_is_killed_the_store_is_retired_and_removed_and_who_waits_is_told(void **unused) {
  (void)unused;
  pid_t waiter = fork();
  assert_true(waiter >= 0);
  if (waiter == 0) {
    zp_store *store;
    zp_alarm alarm = ZP_ALARM_INIT;
    if (zp_store_open(directory, "main", &store)) _exit(1);
    double deadline = zp_clock_now() + GENEROUS;
    for (;;) {
      int rc = zp_alarm_set(store, &alarm, NULL, 0);
      if (!rc) rc = zp_store_read_begin(store);
      if (rc) _exit(rc == ZP_ENOSTORE ? 7 : 1);
      zp_store_read_end(store);
      if (zp_alarm_wait(store, &alarm, deadline)) _exit(2);
    }
  }
  assert_int_equal(ping(), server);
  kill(owner, SIGKILL);
  assert_int_equal(end_of(waiter), 7);
  assert_int_equal(end_of(server), 0);
  assert_int_equal(access(directory, F_OK), -1);
  assert_int_equal(end_of(owner), -SIGKILL);
  owner = 0;
  server = 0;
}

static void what_an_owner_that_is_killed_has_removed_by_half_is_removed_altogether(void **unused) {
  (void)unused;
  char file[160];
  snprintf(file, sizeof file, "%s/owner", directory);
  assert_int_equal(unlink(file), 0); /* which goes last */
  end_owner();
  assert_int_equal(end_of(server), 0);
  assert_int_equal(access(directory, F_OK), -1);
  server = 0;
}

static void while_a_process_of_a_dead_owner_lives_the_server_stays(void **unused) {
  (void)unused;
  /* The lock on `owner` is what a child inherits; here one is taken in its place, when the owner has let go. */
  char file[160];
  snprintf(file, sizeof file, "%s/owner", directory);
  kill(server, SIGSTOP);
  end_owner();
  zp_dir *dir;
  assert_int_equal(zp_dir_adopt(directory, &dir), 1);
  kill(server, SIGCONT);
  for (int i = 0; i < 3; i++) assert_int_equal(ping(), server);
  assert_int_equal(access(file, F_OK), 0);
  zp_dir_release(&dir);
  assert_int_equal(end_of(server), 0);
  assert_int_equal(access(directory, F_OK), -1);
  server = 0;
}

static void an_alias_leads_to_the_server_and_goes_with_it(void **unused) {
  (void)unused;
  char alias[160];
  snprintf(alias, sizeof alias, "%s/alias", root);
  kill(server, SIGTERM);
  assert_int_equal(end_of(server), 0);
  unlink_sockets();
  start_server(alias, 0);
  must(zp_alias_create(alias, path));
  char socket[160];
  strcpy(socket, path);
  strcpy(path, alias);
  assert_int_equal(ping(), server);
  strcpy(path, socket);
  end_owner();
  assert_int_equal(end_of(server), 0);
  struct stat status;
  assert_int_equal(lstat(alias, &status), -1);
  server = 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(a_ping_is_answered_by_the_server_itself),
      TEST(payloads_of_all_sizes_come_back_and_too_large_ones_are_refused),
      TEST(garbage_is_answered_by_a_closed_door),
      TEST(a_message_that_says_it_is_a_gigabyte_is_a_closed_door),
      TEST(another_version_and_an_unknown_request_are_refused_with_words),
      TEST(half_a_request_holds_up_nobody),
      TEST(a_thousand_silent_connections_hold_up_nobody),
      TEST(of_too_many_connections_the_one_silent_longest_is_closed),
      TEST(who_does_not_read_his_answers_holds_up_nobody_and_gets_them_all_when_he_does),
      TEST(a_client_waits_for_a_server_that_is_stopped_until_its_time_is_up),
      TEST(a_termination_signal_ends_it_and_leaves_everything_as_it_is),
      TEST(when_the_owner_is_killed_the_store_is_retired_and_removed_and_who_waits_is_told),
      TEST(what_an_owner_that_is_killed_has_removed_by_half_is_removed_altogether),
      TEST(while_a_process_of_a_dead_owner_lives_the_server_stays),
      TEST(an_alias_leads_to_the_server_and_goes_with_it),
  };
  return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
