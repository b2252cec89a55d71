#include "sys/inet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/interrupt.h"

enum { BACKLOG = 1024, PORT_MAX = 65535 };

static int fail_address(const char *address) {
  return zp_fail(ZP_EUSAGE, "'%.*s' is no host and port such as 127.0.0.1:7000, example.org:7000 or [::1]:7000; a port is at most %d",
                 ZP_INET_NAME_SIZE, address, PORT_MAX);
}

static bool is_port(const char *port) {
  char *end;
  if (strcmp(port, "*") == 0) return true;
  long number = strtol(port, &end, 10);
  return port[0] >= '0' && port[0] <= '9' && *end == '\0' && number <= PORT_MAX;
}

int zp_inet_parse(const char *address, char host[ZP_INET_NAME_SIZE], char port[8]) {
  const char *colon = strrchr(address, ':');
  bool is_bracketed = address[0] == '[';
  if (!colon || strlen(address) >= ZP_INET_NAME_SIZE || strlen(colon + 1) >= 8 || !is_port(colon + 1)) return fail_address(address);
  size_t size = (size_t)(colon - address);
  if (is_bracketed && (size < 3 || colon[-1] != ']')) return fail_address(address);
  const char *from = is_bracketed ? address + 1 : address;
  if (is_bracketed) size -= 2;
  if (size == 0 || (!is_bracketed && memchr(from, ':', size))) return fail_address(address);
  memcpy(host, from, size);
  host[size] = '\0';
  strcpy(port, strcmp(colon + 1, "*") == 0 ? "0" : colon + 1);
  return 0;
}

/* ---- names ---- */

static const double LOOK_SECONDS = 0.1; /* between looks for an interrupt, which may come just before the sleep */

static int fail_lookup(const char *host, int number, int code) {
  if (number == EAI_SYSTEM) return zp_fail_errno("cannot look up %s", host);
  return zp_fail(code, "cannot look up %s: %s", host, gai_strerror(number));
}

int zp_inet_find_own(const char *address, struct addrinfo **found) {
  char host[ZP_INET_NAME_SIZE], port[8];
  int rc = zp_inet_parse(address, host, port);
  if (rc) return rc;
  bool is_any = strcmp(host, "*") == 0;
  struct addrinfo hints = {.ai_family = is_any ? AF_INET : AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
  int number = getaddrinfo(is_any ? NULL : host, port, &hints, found);
  return number ? fail_lookup(host, number, ZP_EUSAGE) : 0;
}

/* A question to whoever knows names, asked by a thread of its own: the C library waits for the answer as long as it likes. Whoever of the two
   is the last to need it frees it. */
typedef struct lookup {
  char host[ZP_INET_NAME_SIZE], port[8];
  struct addrinfo *found;
  int number, code; /* what getaddrinfo gave; errno */
  sem_t is_answered;
  _Atomic int holders;
} lookup;

static void leave_lookup(lookup *self) {
  if (atomic_fetch_sub(&self->holders, 1) > 1) return;
  if (self->found) freeaddrinfo(self->found);
  sem_destroy(&self->is_answered);
  free(self);
}

static void *answer_lookup(void *context) {
  lookup *self = context;
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  self->number = getaddrinfo(self->host, self->port, &hints, &self->found);
  self->code = errno;
  if (self->number) self->found = NULL;
  sem_post(&self->is_answered);
  leave_lookup(self);
  return NULL;
}

static int start_lookup(const char *host, const char *port, lookup **out) {
  lookup *self = *out = calloc(1, sizeof *self);
  if (!self) return zp_fail(ZP_ENOMEM, "out of memory: cannot look up %s", host);
  strcpy(self->host, host);
  strcpy(self->port, port);
  atomic_init(&self->holders, 2);
  sem_init(&self->is_answered, 0, 0);
  pthread_t thread;
  pthread_attr_t attributes;
  sigset_t all, before;
  sigfillset(&all); /* signals are for the others */
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int code = pthread_create(&thread, &attributes, answer_lookup, self);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (!code) return 0;
  leave_lookup(self);
  leave_lookup(self);
  errno = code;
  return zp_fail_errno("cannot look up %s", host);
}

static int await_lookup(lookup *self, double deadline) {
  for (;;) {
    double now = zp_clock_now(), until = now + LOOK_SECONDS < deadline ? now + LOOK_SECONDS : deadline;
    if (zp_interrupt_is_due()) return ZP_EINTR;
    struct timespec limit;
    if (sem_clockwait(&self->is_answered, CLOCK_MONOTONIC, zp_clock_instant(until, &limit)) == 0) return 0;
    if (zp_clock_now() >= deadline) return ZP_ETIMEOUT;
  }
}

/* The addresses of a host and port elsewhere. The caller frees *found. */
static int resolve(const char *address, double deadline, struct addrinfo **found) {
  char host[ZP_INET_NAME_SIZE], port[8];
  int rc = zp_inet_parse(address, host, port);
  if (rc) return rc;
  if (strcmp(host, "*") == 0) return zp_fail(ZP_EUSAGE, "'%s': '*' is for servers; a client needs a host", address);
  if (strcmp(port, "0") == 0) return zp_fail(ZP_EUSAGE, "'%s': a port that is free is for servers; a client needs the server's", address);
  struct addrinfo numbers = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
  if (getaddrinfo(host, port, &numbers, found) == 0) return 0;
  lookup *question;
  rc = start_lookup(host, port, &question);
  if (rc) return rc;
  rc = await_lookup(question, deadline);
  if (!rc) {
    *found = question->found;
    question->found = NULL;
    errno = question->code;
    if (question->number) rc = fail_lookup(host, question->number, ZP_ENOSTORE);
  }
  leave_lookup(question);
  return rc;
}

/* ---- connecting ---- */

static const double NEXT_SECONDS = 2; /* for an address of a host that has others: one that does not answer may be of a broken line */

static int await_connection(int fd, double deadline) {
  struct pollfd ready = {.fd = fd, .events = POLLOUT};
  for (;;) {
    double left = deadline - zp_clock_now();
    if (left <= 0) return ZP_ETIMEOUT;
    if (zp_interrupt_is_due()) return ZP_EINTR;
    int n = poll(&ready, 1, left < LOOK_SECONDS ? (int)(left * 1000) + 1 : (int)(LOOK_SECONDS * 1000));
    if (n > 0) break;
    if (n < 0 && errno != EINTR) return zp_fail_errno("cannot wait for a connection");
  }
  int number = 0;
  socklen_t size = sizeof number;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size);
  errno = number;
  return number ? ZP_ENOSTORE : 0;
}

static int connect_to(const struct addrinfo *to, double deadline, int *fd) {
  *fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (*fd < 0) return errno == EAFNOSUPPORT ? ZP_ENOSTORE : zp_fail_errno("cannot make a socket");
  int rc = 0;
  if (connect(*fd, to->ai_addr, to->ai_addrlen) < 0) rc = errno == EINPROGRESS || errno == EINTR ? await_connection(*fd, deadline) : ZP_ENOSTORE;
  if (!rc) return 0;
  int number = errno;
  close(*fd);
  errno = number;
  return rc;
}

int zp_inet_connect(const char *address, double deadline, int *fd) {
  struct addrinfo *found;
  int rc = resolve(address, deadline, &found);
  if (rc) return rc;
  rc = ZP_ENOSTORE;
  int number = 0;
  for (const struct addrinfo *to = found; to && (rc == ZP_ENOSTORE || rc == ZP_ETIMEOUT); to = to->ai_next) {
    double limit = zp_clock_now() + NEXT_SECONDS;
    rc = connect_to(to, to->ai_next && limit < deadline ? limit : deadline, fd);
    number = errno;
  }
  freeaddrinfo(found);
  if (rc == ZP_ENOSTORE) zp_fail(rc, "nobody can be reached at %s: %s", address, strerror(number));
  errno = number;
  return rc;
}

/* ---- listening ---- */

static bool is_loopback_address(const struct sockaddr *address) {
  if (address->sa_family == AF_INET) return (ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24) == 127;
  const struct in6_addr *six = &((const struct sockaddr_in6 *)address)->sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(six) || (IN6_IS_ADDR_V4MAPPED(six) && six->s6_addr[12] == 127);
}

/* An address with numbers alone. */
static int name_address(const struct sockaddr_storage *address, socklen_t size, char name[ZP_INET_NAME_SIZE]) {
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getnameinfo((const struct sockaddr *)address, size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return zp_fail(ZP_ESYS, "cannot find out the address of a socket");
  const char *format = address->ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s";
  if (snprintf(name, ZP_INET_NAME_SIZE, format, host, port) >= ZP_INET_NAME_SIZE) return zp_fail(ZP_ESYS, "the name of a socket is too long");
  return 0;
}

int zp_inet_name(int fd, char bound[ZP_INET_NAME_SIZE], bool *is_loopback) {
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  if (getsockname(fd, (struct sockaddr *)&address, &size) < 0) return zp_fail_errno("cannot find out where a socket listens");
  *is_loopback = is_loopback_address((struct sockaddr *)&address);
  return name_address(&address, size, bound);
}

int zp_inet_peer(int fd, char name[ZP_INET_NAME_SIZE]) {
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  if (getpeername(fd, (struct sockaddr *)&address, &size) < 0) return zp_fail(ZP_ENOSTORE, "the other end of a connection is gone");
  return name_address(&address, size, name);
}

static int listen_to(const struct addrinfo *at, const char *address, int *fd) {
  static const int on = 1;
  *fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (*fd < 0) return zp_fail_errno("cannot make a socket");
  setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on); /* a server may follow on one that has just ended */
  if (bind(*fd, at->ai_addr, at->ai_addrlen) == 0 && listen(*fd, BACKLOG) == 0) return 0;
  int number = errno;
  close(*fd);
  errno = number;
  if (number == EADDRINUSE) return zp_fail(ZP_EUSAGE, "the address %s is in use by another program", address);
  if (number == EADDRNOTAVAIL) return zp_fail(ZP_EUSAGE, "the address %s is not one of this machine", address);
  return zp_fail_errno("cannot listen at %s", address);
}

int zp_inet_listen_at(const struct addrinfo *place, const char *address, int *fd, char bound[ZP_INET_NAME_SIZE], bool *is_loopback) {
  int rc = listen_to(place, address, fd);
  if (rc) return rc;
  rc = zp_inet_name(*fd, bound, is_loopback);
  if (rc) close(*fd);
  return rc;
}

int zp_inet_listen(const char *address, int *fd, char bound[ZP_INET_NAME_SIZE], bool *is_loopback) {
  struct addrinfo *found;
  int rc = zp_inet_find_own(address, &found);
  if (rc) return rc;
  rc = zp_inet_listen_at(found, address, fd, bound, is_loopback);
  freeaddrinfo(found);
  return rc;
}
