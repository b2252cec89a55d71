#include "server/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
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
#include "sys/descriptor.h"
#include "sys/handler.h"
#include "sys/inet.h"
#include "sys/interrupt.h"
#include "sys/program.h"
#include "sys/sock.h"
#include "sys/thread.h"

/* A server that lived shorter than SHORT_LIFE has died young; after QUICK_STARTS of these in a row, the next one has to wait. */
static const double SHORT_LIFE = 1, RETRY_AFTER = 1; /* seconds */
enum { QUICK_STARTS = 5, STOP_MILLISECONDS = 2000 };

struct zp_server {
  pid_t owner;
  zp_server_kind kind;
  zp_thread *thread;
  int stop_fd;          /* of a thread: readable when it is to end */
  _Atomic pid_t pid;    /* 0: dead, and to be started again at `due` */
  int listener;
  int network;  /* listens, too: for those on this machine who are to use the network */
  int owner_fd; /* readable when this process is dead: a pidfd of it, or the end of a pipe */
  int owner_life; /* the other end, which this process alone has; -1: it is a pidfd */
  int lifeline; /* reading end */
  int null_fd;
  int sockets[ZP_SERVER_SOCKETS_MAX]; /* that listen for other machines */
  size_t socket_count;
  bool is_ending; /* it is not to be started again; under `busy` */
  int young_deaths;
  double started, due;
  const char *program; /* that is executed */
  char *arguments[7];  /* of the program, NULL-terminated; the last one is left out the first time */
  int argument_count;
  const char *directory; /* among the arguments */
  char *socket, *alias;
  zp_server *next;
};

struct zp_listener {
  pid_t owner;
  int fd;
  zp_listener *next;
};

/* Invariant: the lists of the servers and listeners of this process, and what hangs on them, are used only by whoever holds `busy`: a thread,
   or the handler of SIGIO, in whichever thread it runs. The handler cannot wait for it; it leaves word in `missed`, and whoever gives `busy`
   back looks there afterwards.

   Every fork holds `busy` as well. Whoever makes descriptors holds it until they are on a list, and they stay there until they are closed; so
   a forked child finds all that there are, and closes them, and its own lists are empty. It is held for moments only, never across a fork
   that runs handlers (_Fork and posix_spawn do not), a look for a name, or the wait for another process or thread. */
static zp_server *servers;
static zp_listener *listeners;
static atomic_flag busy = ATOMIC_FLAG_INIT;
static _Atomic bool missed;

static bool prepared; /* handler and timer of this process are there; under `busy` */
static timer_t retry_timer;
static pthread_t preparer; /* the thread that has made them, */
static bool unblocked;     /* and whether it had blocked the signal before */

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
    if (fd > first) zp_descriptor_close_range(first, fd - 1);
    if (fd >= first) first = fd + 1;
  }
  zp_descriptor_close_range(first, ~0u);
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
  zp_descriptor_close_range((unsigned)first_free, ~0u);
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
  fcntl(server->lifeline, F_SETFL, O_NONBLOCK); /* no more SIGIO, even if a child that was forked just now has yet to close its copy */
  close(server->lifeline);
  server->lifeline = -1;
  server->pid = 0;
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void look_after(zp_server *server) {
  if (server->kind == ZP_SERVER_THREAD || server->is_ending) return;
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

/* ---- descriptors, which are the owner's alone ---- */

static void close_one(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

/* While busy. */
static void close_descriptors(zp_server *server) {
  close_one(&server->listener);
  close_one(&server->network);
  close_one(&server->owner_fd);
  close_one(&server->owner_life);
  close_one(&server->null_fd);
  close_one(&server->stop_fd);
  close_one(&server->lifeline);
  while (server->socket_count > 0) close(server->sockets[--server->socket_count]);
}

/* A child must not keep a socket open at which nobody answers any more, nor look like a server that lives. */
static void after_fork_in_child(void) {
  for (zp_server *server = servers; server; server = server->next) close_descriptors(server);
  for (zp_listener *listener = listeners; listener; listener = listener->next) close_one(&listener->fd);
  servers = NULL;
  listeners = NULL;
  prepared = false; /* timers are not inherited */
  atomic_store(&missed, false);
  atomic_flag_clear(&busy);
}

static void watch_forks(void) { pthread_atfork(take, give, after_fork_in_child); }

/* Before there is any descriptor. */
static void prepare_forks(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
}

int zp_listener_open(const char *address, zp_listener **out, char bound[ZP_INET_NAME_SIZE], bool *is_loopback) {
  *out = NULL;
  prepare_forks();
  zp_listener *listener = calloc(1, sizeof *listener);
  if (!listener) return zp_fail(ZP_ENOMEM, "out of memory: cannot listen at %s", address);
  struct addrinfo *place;
  int rc = zp_inet_find_own(address, &place);
  if (!rc) {
    take();
    rc = zp_inet_listen_at(place, address, &listener->fd, bound, is_loopback);
    if (!rc) {
      listener->next = listeners;
      listeners = listener;
    }
    give();
    freeaddrinfo(place);
  }
  if (rc) {
    free(listener);
    return rc;
  }
  listener->owner = getpid();
  *out = listener;
  return 0;
}

void zp_listener_close(zp_listener **handle) {
  zp_listener *listener = *handle;
  if (!listener) return;
  *handle = NULL;
  if (listener->owner == getpid()) {
    take();
    zp_listener **link = &listeners;
    while (*link != listener) link = &(*link)->next;
    *link = listener->next;
    close_one(&listener->fd);
    give();
  }
  free(listener);
}

/* What tells a server that its owner is dead. Where there is no pidfd it is a pipe, of which all forked children close the owner's end, and which is
   closed in all that is executed. */
static int open_owner(zp_server *server) {
  server->owner_fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
  if (server->owner_fd >= 0) return 0;
  if (errno != ENOSYS && errno != EPERM) return zp_fail_errno("cannot start a server: pidfd_open");
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return zp_fail_errno("cannot start a server: pipe");
  server->owner_fd = ends[0];
  server->owner_life = ends[1];
  return 0;
}

/* While busy. On an error what there is by then is still to be closed. */
static int open_descriptors(zp_server *server, zp_listener *const *given, size_t count) {
  for (size_t i = 0; i < count; i++) {
    int fd = fcntl(given[i]->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) return zp_fail_errno("cannot start a server");
    server->sockets[server->socket_count++] = fd;
  }
  int rc = zp_sock_make(&server->listener);
  if (!rc) rc = zp_sock_make(&server->network);
  if (rc) return rc;
  if (server->kind == ZP_SERVER_THREAD) {
    server->stop_fd = eventfd(0, EFD_CLOEXEC);
    return server->stop_fd < 0 ? zp_fail_errno("cannot start a server: eventfd") : 0;
  }
  server->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (server->null_fd < 0) return zp_fail_errno("cannot start a server: /dev/null");
  return open_owner(server);
}

/* ---- starting ---- */

/* The handler and the timer. While busy. */
static int prepare(void) {
  if (prepared) return 0;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGIO};
  if (timer_create(CLOCK_MONOTONIC, &event, &retry_timer) < 0) return zp_fail_errno("cannot start a server: timer_create");
  int rc = zp_handler_put(SIGIO, on_sigio);
  if (rc) {
    timer_delete(retry_timer);
    return rc;
  }
  sigset_t sigio, before; /* whoever has started this program may have blocked it */
  sigemptyset(&sigio);
  sigaddset(&sigio, SIGIO);
  pthread_sigmask(SIG_UNBLOCK, &sigio, &before);
  unblocked = sigismember(&before, SIGIO) == 1;
  preparer = pthread_self();
  prepared = true;
  return 0;
}

/* There is no server that is a process any more: leave this process as it was. While busy. */
static void restore(void) {
  for (const zp_server *server = servers; server; server = server->next)
    if (server->kind == ZP_SERVER_PROCESS) return;
  if (!prepared) return;
  timer_delete(retry_timer);
  zp_handler_remove(SIGIO);
  prepared = false;
  if (!unblocked || !pthread_equal(preparer, pthread_self())) return; /* a mask is a thread's own */
  sigset_t sigio;
  sigemptyset(&sigio);
  sigaddset(&sigio, SIGIO);
  pthread_sigmask(SIG_BLOCK, &sigio, NULL);
}

/* What has no descriptors any more. */
static void free_server(zp_server *server) {
  for (int i = 0; i < server->argument_count; i++) free(server->arguments[i]);
  free(server->socket);
  free(server->alias);
  free(server);
}

/* What the program will be called with; a server without an alias gets an empty one. */
static int set_arguments(zp_server *server, const char *directory, const char *alias, size_t socket_count) {
  char sockets[16];
  snprintf(sockets, sizeof sockets, "%zu", socket_count);
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

/* libevent ends the process when it does not get the descriptors that its loop needs, so see to it before that there are enough. */
static int check_descriptors(void) {
  enum { NEEDED = 8 };
  int taken[NEEDED], count = 0, rc = 0;
  while (count < NEEDED && (taken[count] = eventfd(0, EFD_CLOEXEC)) >= 0) count++;
  if (count < NEEDED) rc = zp_fail_errno("cannot start a server: eventfd");
  while (count > 0) close(taken[--count]);
  return rc;
}

/* While busy. */
static void enlist(zp_server *server) {
  server->next = servers;
  servers = server;
}

/* Let go of everything that it has. The sockets are shut down first: then nobody listens, whoever else has one of them: a thread's ZeroMQ has
   descriptors of its own for them, of which a child that was forked meanwhile has inherited copies. While busy. */
static void strike(zp_server *server) {
  zp_server **link = &servers;
  while (*link != server) link = &(*link)->next;
  *link = server->next;
  shutdown(server->listener, SHUT_RDWR);
  shutdown(server->network, SHUT_RDWR);
  for (size_t i = 0; i < server->socket_count; i++) shutdown(server->sockets[i], SHUT_RDWR);
  close_descriptors(server);
  restore();
}

/* Make what the server needs, and put it on the list; a process is started then. */
static int begin(zp_server *server, const zp_server_options *options) {
  take();
  int rc = server->kind == ZP_SERVER_THREAD ? check_descriptors() : prepare();
  if (!rc) rc = open_descriptors(server, options->listeners, options->listener_count);
  if (!rc && server->kind == ZP_SERVER_PROCESS && spawn(server, false) < 0) rc = zp_child_fail_fork("a server");
  if (rc) {
    close_descriptors(server);
    restore();
  } else {
    enlist(server);
  }
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
  zp_thread_set_name("zproc-server");
  const zp_serve_sockets sockets = {server->listener, server->network, server->sockets, server->socket_count};
  return zp_serve_in_thread(server->directory, &sockets, server->stop_fd, tell, shake);
}

/* Of a server that is on the list, so that whatever this process opens next, and whatever it forks, the thread has what it needs. */
static int run_thread(zp_server *server) {
  handshake shake = {.server = server};
  sem_init(&shake.told, 0, 0);
  int rc = zp_thread_start(thread_main, &shake, &server->thread);
  if (!rc) {
    while (sem_wait(&shake.told) < 0 && errno == EINTR) continue;
    if (!shake.is_ready) {
      zp_thread_wait(server->thread, ZP_FOREVER);
      zp_thread_close(&server->thread);
      rc = zp_fail(ZP_ESYS, "cannot start a server: its event loop has not got what it needs");
    }
  }
  sem_destroy(&shake.told);
  return rc;
}

int zp_server_start(const char *directory, const zp_server_options *options, zp_server **out) {
  *out = NULL;
  if (options->listener_count > ZP_SERVER_SOCKETS_MAX)
    return zp_fail(ZP_EUSAGE, "a server listens at %d addresses at most", (int)ZP_SERVER_SOCKETS_MAX);
  prepare_forks();
  zp_server *server = calloc(1, sizeof *server);
  if (!server) return zp_fail(ZP_ENOMEM, "out of memory: cannot start a server");
  server->owner = getpid();
  server->kind = options->kind;
  server->listener = server->network = server->owner_fd = server->owner_life = server->null_fd = server->lifeline = server->stop_fd = -1;
  int rc = set_arguments(server, directory, options->alias, options->listener_count);
  if (!rc && server->kind == ZP_SERVER_PROCESS) rc = zp_program_find(&server->program);
  if (!rc) rc = begin(server, options);
  if (!rc && server->kind == ZP_SERVER_THREAD) {
    server->pid = getpid();
    rc = run_thread(server);
    if (rc) {
      take();
      strike(server);
      give();
    }
  }
  if (rc) free_server(server);
  else *out = server;
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

/* ---- the end ---- */

/* Of a process that is not started again: it has nothing left to do but to end when its lifeline is closed. */
static void end_process(const zp_server *server) {
  kill(server->pid, SIGTERM);
  struct pollfd gone = {.fd = server->lifeline, .events = POLLIN};
  double deadline = zp_clock_now() + STOP_MILLISECONDS / 1e3;
  int n;
  do n = poll(&gone, 1, STOP_MILLISECONDS);
  while (n < 0 && errno == EINTR && zp_clock_now() < deadline);
  if (n <= 0) kill(server->pid, SIGKILL); /* stopped, say */
}

static int end_thread(zp_server *server) {
  static const uint64_t one = 1;
  int status = EXIT_FAILURE;
  (void)!write(server->stop_fd, &one, sizeof one); /* of an eventfd that counts to 1, so it cannot fail */
  while (zp_thread_wait(server->thread, ZP_FOREVER) == ZP_EINTR) zp_interrupt_arm(); /* it will not take long */
  zp_thread_ended(server->thread, &status);
  zp_thread_close(&server->thread);
  malloc_trim(0);
  return status;
}

int zp_server_stop(zp_server **handle) {
  zp_server *server = *handle;
  *handle = NULL;
  if (!server || server->owner != getpid()) return 0; /* an inherited one is part of the parent's image */
  if (server->alias) zp_alias_remove(server->alias, server->socket); /* as long as there is somebody to do it in our place */
  take();
  server->is_ending = true; /* so from here on the handler leaves it alone, and its process stays what it is */
  give();
  int status = 0;
  if (server->kind == ZP_SERVER_THREAD) status = end_thread(server);
  else if (server->pid > 0) end_process(server);
  take();
  if (server->kind == ZP_SERVER_PROCESS && server->pid > 0) status = bury(server);
  strike(server);
  give();
  free_server(server);
  return status;
}

pid_t zp_server_pid(const zp_server *server) { return server->pid; }
