#include "server/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "net/service.h"
#include "server/loop.h"
#include "server/protocol.h"
#include "sys/alias.h"
#include "sys/child.h"
#include "sys/interrupt.h"
#include "sys/program.h"
#include "sys/sock.h"
#include "sys/thread.h"

/* A server that lived shorter than SHORT_LIFE has died young; after QUICK_STARTS of these in a row, the next one has to wait. */
static const double SHORT_LIFE = 1, RETRY_AFTER = 1; /* seconds */
enum { QUICK_STARTS = 5, STOP_MILLISECONDS = 2000 };

struct zp_server {
  pid_t owner;
  zp_thread *thread;    /* NULL: a process */
  int stop_fd;          /* of a thread: readable when it is to end */
  _Atomic pid_t pid;    /* 0: dead, and to be started again at `due` */
  int listener;
  int network;  /* listens, too: for those on this machine who are to use the network */
  int owner_fd; /* pidfd of this process */
  int lifeline; /* reading end */
  int null_fd;
  int sockets[ZP_SERVER_SOCKETS_MAX]; /* that listen for other machines */
  size_t socket_count;
  int young_deaths;
  double started, due;
  const char *program; /* that is executed */
  char *arguments[7];  /* of the program, NULL-terminated; the last one is left out the first time */
  int argument_count;
  const char *directory; /* among the arguments */
  char *socket, *alias;
  zp_server *next;
};

/* Invariant: the list of the servers of this process, and what hangs on it, is used only by whoever holds `busy`: a thread, or the
   handler of SIGIO, in whichever thread it runs. The handler cannot wait for it; it leaves word in `missed`, and whoever gives `busy`
   back looks there afterwards. In a forked child the list is empty. */
static zp_server *servers;
static atomic_flag busy = ATOMIC_FLAG_INIT;
static _Atomic bool missed;

static bool prepared; /* handler and timer of this process are there; under `busy` */
static timer_t retry_timer;

/* ---- allowed in a signal handler: from here ... ---- */

static _Noreturn void give_up(void) {
  static const char words[] = "zproc: cannot execute the state server\n";
  (void)!write(STDERR_FILENO, words, sizeof words - 1);
  _exit(127);
}

static void put_in_place(int from, int to) {
  if (dup2(from, to) < 0) give_up();
}

/* Close all but these and stdio: the script may have left no descriptor free. */
static void keep_only(int *kept, int count) {
  for (int i = 1; i < count; i++)
    for (int k = i; k > 0 && kept[k - 1] > kept[k]; k--) {
      int other = kept[k];
      kept[k] = kept[k - 1];
      kept[k - 1] = other;
    }
  unsigned first = STDERR_FILENO + 1;
  for (int i = 0; i < count; i++) {
    unsigned fd = (unsigned)kept[i];
    if (fd > first) syscall(SYS_close_range, first, fd - 1, 0);
    if (fd >= first) first = fd + 1;
  }
  syscall(SYS_close_range, first, ~0u, 0);
}

/* In the child: nothing but system calls, until the program is another. */
static _Noreturn void execute(const zp_server *server, int lifeline, bool again) {
  int sockets[ZP_SERVER_SOCKETS_MAX], count = (int)server->socket_count;
  int kept[5 + ZP_SERVER_SOCKETS_MAX] = {server->listener, server->network, server->owner_fd, server->null_fd, lifeline};
  for (int i = 0; i < count; i++) kept[5 + i] = server->sockets[i];
  keep_only(kept, 5 + count);
  /* First out of the way of the numbers that they are to have. */
  const int first_free = ZP_SERVE_TCP + count;
  int listener = fcntl(server->listener, F_DUPFD, first_free);
  int network = fcntl(server->network, F_DUPFD, first_free);
  int owner_fd = fcntl(server->owner_fd, F_DUPFD, first_free);
  int null_fd = fcntl(server->null_fd, F_DUPFD, first_free);
  lifeline = fcntl(lifeline, F_DUPFD, first_free);
  for (int i = 0; i < count; i++) sockets[i] = fcntl(server->sockets[i], F_DUPFD, first_free);
  put_in_place(null_fd, STDIN_FILENO);
  put_in_place(null_fd, STDOUT_FILENO);
  put_in_place(listener, ZP_SERVE_LISTENER);
  put_in_place(network, ZP_SERVE_NETWORK);
  put_in_place(owner_fd, ZP_SERVE_OWNER);
  put_in_place(lifeline, ZP_SERVE_LIFELINE);
  for (int i = 0; i < count; i++) put_in_place(sockets[i], ZP_SERVE_TCP + i);
  syscall(SYS_close_range, first_free, ~0u, 0);
  setsid(); /* ^C at the terminal is for the script */
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  char *arguments[sizeof server->arguments / sizeof *server->arguments];
  memcpy(arguments, server->arguments, sizeof arguments);
  if (!again) arguments[server->argument_count - 1] = NULL;
  execve(server->program, arguments, environ);
  give_up();
}

/* While busy. 0, or -1 with errno. */
static int spawn(zp_server *server, bool again) {
  int lifeline[2];
  if (pipe2(lifeline, O_CLOEXEC | O_NONBLOCK) < 0) return -1;
  server->started = zp_clock_now();
  pid_t pid = fcntl(lifeline[0], F_SETOWN, getpid()) < 0 || fcntl(lifeline[0], F_SETFL, O_NONBLOCK | O_ASYNC) < 0 ? -1 : _Fork();
  if (pid == 0) execute(server, lifeline[1], again);
  int number = errno;
  close(lifeline[1]);
  if (pid < 0) {
    close(lifeline[0]);
    errno = number;
    return -1;
  }
  server->lifeline = lifeline[0];
  server->pid = pid;
  return 0;
}

static void set_alarm(double due) {
  double left = due - zp_clock_now();
  if (left < 0.001) left = 0.001;
  struct itimerspec when = {.it_value.tv_sec = (time_t)left};
  when.it_value.tv_nsec = (long)((left - (double)when.it_value.tv_sec) * 1e9);
  timer_settime(retry_timer, 0, &when, NULL);
}

static bool has_died(zp_server *server) {
  char byte;
  ssize_t n;
  do n = read(server->lifeline, &byte, 1);
  while (n < 0 && errno == EINTR);
  return n == 0;
}

/* Take note of the end of a server whose lifeline is closed: it has nothing left to do but to end. */
static int bury(zp_server *server) {
  int status = 0;
  while (waitpid(server->pid, &status, 0) < 0 && errno == EINTR) {}
  close(server->lifeline);
  server->lifeline = -1;
  server->pid = 0;
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void look_after(zp_server *server) {
  if (server->thread) return;
  double now = zp_clock_now();
  if (server->pid > 0 && has_died(server)) {
    bury(server);
    server->young_deaths = now - server->started < SHORT_LIFE ? server->young_deaths + 1 : 0;
    server->due = server->young_deaths > QUICK_STARTS ? now + RETRY_AFTER : now;
  }
  if (server->pid == 0 && server->due <= now && spawn(server, true) < 0) server->due = now + RETRY_AFTER;
  if (server->pid == 0) set_alarm(server->due);
}

/* Do what is to be done, unless somebody is busy, who will. */
static void settle(void) {
  while (atomic_load(&missed) && !atomic_flag_test_and_set(&busy)) {
    atomic_store(&missed, false);
    for (zp_server *server = servers; server; server = server->next) look_after(server);
    atomic_flag_clear(&busy);
  }
}

static void on_sigio(int signal) {
  (void)signal;
  int number = errno;
  atomic_store(&missed, true);
  settle();
  errno = number;
}

/* ---- ... to here ---- */

static void take(void) {
  static const struct timespec instant = {.tv_nsec = 100000};
  while (atomic_flag_test_and_set(&busy)) nanosleep(&instant, NULL);
}

static void give(void) {
  atomic_flag_clear(&busy);
  settle();
}

/* A child must not keep a socket open at which nobody answers any more. The list is whole at every instant, even if another thread is
   busy with it. */
static void after_fork_in_child(void) {
  atomic_flag_clear(&busy);
  atomic_store(&missed, false);
  for (zp_server *server = servers; server; server = server->next) {
    close(server->listener);
    close(server->network);
    if (server->owner_fd >= 0) close(server->owner_fd);
    if (server->lifeline >= 0) close(server->lifeline);
    if (server->stop_fd >= 0) close(server->stop_fd);
    for (size_t i = 0; i < server->socket_count; i++) close(server->sockets[i]);
  }
  servers = NULL;
  prepared = false; /* timers are not inherited */
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

/* The handler and the timer. While busy. */
static int prepare(void) {
  if (prepared) return 0;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGIO};
  if (timer_create(CLOCK_MONOTONIC, &event, &retry_timer) < 0) return zp_fail_errno("cannot start a server: timer_create");
  struct sigaction action = {.sa_handler = on_sigio, .sa_flags = SA_RESTART};
  sigfillset(&action.sa_mask);
  if (sigaction(SIGIO, &action, NULL) < 0) return zp_fail_errno("cannot start a server: sigaction");
  prepared = true;
  return 0;
}

static void free_server(zp_server *server) {
  if (server->listener >= 0) close(server->listener);
  if (server->network >= 0) close(server->network);
  if (server->owner_fd >= 0) close(server->owner_fd);
  if (server->null_fd >= 0) close(server->null_fd);
  if (server->stop_fd >= 0) close(server->stop_fd);
  for (size_t i = 0; i < server->socket_count; i++) close(server->sockets[i]);
  for (int i = 0; i < server->argument_count; i++) free(server->arguments[i]);
  free(server->socket);
  free(server->alias);
  free(server);
}

/* What the program will be called with; a server without an alias gets an empty one. */
static int set_arguments(zp_server *server, const char *directory, const char *alias) {
  char sockets[16];
  snprintf(sockets, sizeof sockets, "%zu", server->socket_count);
  const char *const words[] = {"zproc", "--serve", directory, alias ? alias : "", sockets, "again"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    char *copy = strdup(words[i]);
    if (!copy) return zp_fail(ZP_ENOMEM, "out of memory: cannot start a server");
    server->arguments[server->argument_count++] = copy;
  }
  server->directory = server->arguments[2];
  size_t size = strlen(directory) + sizeof "/" ZP_SERVER_SOCKET;
  server->socket = malloc(size);
  if (server->socket) snprintf(server->socket, size, "%s/%s", directory, ZP_SERVER_SOCKET);
  if (alias) server->alias = strdup(alias);
  if (!server->socket || (alias && !server->alias)) return zp_fail(ZP_ENOMEM, "out of memory: cannot start a server");
  return 0;
}

/* While busy. */
static void enlist(zp_server *server) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
  server->next = servers;
  servers = server;
}

static int start_process(zp_server *server) {
  int rc = zp_program_find(&server->program);
  if (rc) return rc;
  server->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  server->owner_fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
  if (server->null_fd < 0 || server->owner_fd < 0) return zp_fail_errno("cannot start a server");
  take();
  rc = prepare();
  if (!rc && spawn(server, false) < 0) rc = zp_child_fail_fork("a server");
  if (!rc) enlist(server);
  give();
  return rc;
}

/* What a starting thread tells its starter. */
typedef struct handshake {
  const zp_server *server;
  sem_t told;
  bool is_ready;
} handshake;

static void tell(void *context, bool is_ready) {
  handshake *shake = context;
  shake->is_ready = is_ready;
  sem_post(&shake->told); /* it is gone after that */
}

static int thread_main(void *context, zp_buf *message) {
  (void)message;
  handshake *shake = context;
  const zp_server *server = shake->server;
  const zp_serve_sockets sockets = {server->listener, server->network, server->sockets, server->socket_count};
  return zp_serve_in_thread(server->directory, &sockets, server->stop_fd, tell, shake);
}

/* libevent ends the process when it does not get the descriptors that its loop needs, so see to it before that there are enough. */
static int check_descriptors(void) {
  enum { NEEDED = 8 };
  int taken[NEEDED], count = 0, rc = 0;
  while (count < NEEDED && (taken[count] = eventfd(0, EFD_CLOEXEC)) >= 0) count++;
  if (count < NEEDED) rc = zp_fail_errno("cannot start a server");
  while (count > 0) close(taken[--count]);
  return rc;
}

static int start_thread(zp_server *server) {
  int rc = check_descriptors();
  if (rc) return rc;
  server->stop_fd = eventfd(0, EFD_CLOEXEC);
  if (server->stop_fd < 0) return zp_fail_errno("cannot start a server: eventfd");
  server->pid = getpid();
  handshake shake = {.server = server};
  sem_init(&shake.told, 0, 0);
  rc = zp_thread_start(thread_main, &shake, &server->thread);
  if (!rc) {
    /* Whatever this process opens next, the thread has what it needs. */
    while (sem_wait(&shake.told) < 0 && errno == EINTR) continue;
    if (!shake.is_ready) {
      zp_thread_wait(server->thread, ZP_FOREVER);
      zp_thread_close(&server->thread);
      rc = zp_fail(ZP_ESYS, "cannot start a server: its event loop has not got what it needs");
    }
  }
  sem_destroy(&shake.told);
  if (rc) return rc;
  take();
  enlist(server);
  give();
  return 0;
}

int zp_server_start(const char *directory, const zp_server_options *options, zp_server **out) {
  *out = NULL;
  const char *alias = options->alias;
  if (options->socket_count > ZP_SERVER_SOCKETS_MAX)
    return zp_fail(ZP_EUSAGE, "a server listens at %d addresses at most", (int)ZP_SERVER_SOCKETS_MAX);
  zp_server *server = calloc(1, sizeof *server);
  if (!server) return zp_fail(ZP_ENOMEM, "out of memory: cannot start a server");
  server->owner = getpid();
  server->listener = server->network = server->owner_fd = server->null_fd = server->lifeline = server->stop_fd = -1;
  int rc = 0;
  for (size_t i = 0; i < options->socket_count && !rc; i++) {
    int fd = fcntl(options->sockets[i], F_DUPFD_CLOEXEC, 0);
    if (fd < 0) rc = zp_fail_errno("cannot start a server");
    else server->sockets[server->socket_count++] = fd;
  }
  if (!rc) rc = set_arguments(server, directory, alias);
  if (!rc) rc = zp_sock_make(&server->listener);
  if (!rc) rc = zp_sock_make(&server->network);
  if (rc) {
    free_server(server);
    return rc;
  }
  rc = options->kind == ZP_SERVER_THREAD ? start_thread(server) : start_process(server);
  if (!rc) {
    *out = server;
    return 0;
  }
  free_server(server);
  return rc;
}

int zp_server_listen(zp_server *server) {
  char path[PATH_MAX];
  int size = snprintf(path, sizeof path, "%s/%s", server->directory, ZP_SERVICE_SOCKET);
  if (size >= (int)sizeof path) return zp_fail(ZP_ESYS, "the path %s is too long", server->directory);
  int rc = zp_sock_bind(server->network, path);
  if (!rc) rc = zp_sock_bind(server->listener, server->socket); /* the server begins when it sees that */
  return rc || !server->alias ? rc : zp_alias_create(server->alias, server->socket);
}

/* End the server's process, while busy. */
static int end(zp_server *server) {
  if (server->pid == 0) return 0;
  kill(server->pid, SIGTERM);
  struct pollfd gone = {.fd = server->lifeline, .events = POLLIN};
  double deadline = zp_clock_now() + STOP_MILLISECONDS / 1e3;
  int n;
  do n = poll(&gone, 1, STOP_MILLISECONDS);
  while (n < 0 && errno == EINTR && zp_clock_now() < deadline);
  if (n <= 0) kill(server->pid, SIGKILL); /* stopped, say */
  return bury(server);
}

static int stop_thread(zp_server *server) {
  static const uint64_t one = 1;
  int status = EXIT_FAILURE;
  (void)!write(server->stop_fd, &one, sizeof one); /* of an eventfd that counts to 1, so it cannot fail */
  while (zp_thread_wait(server->thread, ZP_FOREVER) == ZP_EINTR) zp_interrupt_arm(); /* it will not take long */
  zp_thread_ended(server->thread, &status);
  zp_thread_close(&server->thread);
  return status;
}

int zp_server_stop(zp_server **handle) {
  zp_server *server = *handle;
  *handle = NULL;
  if (!server || server->owner != getpid()) return 0; /* an inherited one is part of the parent's image */
  if (server->alias) zp_alias_remove(server->alias, server->socket); /* as long as there is somebody to do it in our place */
  take();
  zp_server **link = &servers;
  while (*link != server) link = &(*link)->next;
  *link = server->next;
  int status = server->thread ? stop_thread(server) : end(server);
  give();
  free_server(server);
  return status;
}

pid_t zp_server_pid(const zp_server *server) { return server->pid; }
