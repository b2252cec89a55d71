#include "sys/inet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/interrupt.h"

enum { BACKLOG = 1024, PORT_MAX = 65535 };

static int fail_address(const char *address) {
  return zp_fail(ZP_EUSAGE, "'%.*s' is no host and port: 127.0.0.1:7000, example.org:7000, [::1]:7000", ZP_INET_NAME_SIZE, address);
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

/* The addresses of a host and port. The caller frees *found. */
static int resolve(const char *address, bool to_listen, struct addrinfo **found) {
  char host[ZP_INET_NAME_SIZE], port[8];
  int rc = zp_inet_parse(address, host, port);
  if (rc) return rc;
  bool is_any = strcmp(host, "*") == 0;
  if (is_any && !to_listen) return zp_fail(ZP_EUSAGE, "'%s': '*' is for servers; a client needs a host", address);
  struct addrinfo hints = {.ai_family = is_any ? AF_INET : AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = to_listen ? AI_PASSIVE : 0};
  int number = getaddrinfo(is_any ? NULL : host, port, &hints, found);
  if (!number) return 0;
  if (number == EAI_SYSTEM) return zp_fail_errno("cannot look up %s", host);
  return zp_fail(to_listen ? ZP_EUSAGE : ZP_ENOSTORE, "cannot look up %s: %s", host, gai_strerror(number));
}

/* ---- connecting ---- */

static const double LOOK_SECONDS = 0.1; /* between looks for an interrupt, which may come just before the sleep */

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
  int rc = resolve(address, false, &found);
  if (rc) return rc;
  rc = ZP_ENOSTORE;
  int number = 0;
  for (const struct addrinfo *to = found; to && rc == ZP_ENOSTORE; to = to->ai_next) {
    rc = connect_to(to, deadline, fd);
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

int zp_inet_name(int fd, char bound[ZP_INET_NAME_SIZE], bool *is_loopback) {
  struct sockaddr_storage address;
  socklen_t size = sizeof address;
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getsockname(fd, (struct sockaddr *)&address, &size) < 0 ||
      getnameinfo((struct sockaddr *)&address, size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return zp_fail(ZP_ESYS, "cannot find out where a socket listens");
  const char *format = address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s";
  if (snprintf(bound, ZP_INET_NAME_SIZE, format, host, port) >= ZP_INET_NAME_SIZE) return zp_fail(ZP_ESYS, "the name of a socket is too long");
  *is_loopback = is_loopback_address((struct sockaddr *)&address);
  return 0;
}

static int listen_at(const struct addrinfo *at, const char *address, int *fd) {
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

int zp_inet_listen(const char *address, int *fd, char bound[ZP_INET_NAME_SIZE], bool *is_loopback) {
  struct addrinfo *found;
  int rc = resolve(address, true, &found);
  if (rc) return rc;
  rc = listen_at(found, address, fd);
  freeaddrinfo(found);
  if (rc) return rc;
  rc = zp_inet_name(*fd, bound, is_loopback);
  if (rc) close(*fd);
  return rc;
}
