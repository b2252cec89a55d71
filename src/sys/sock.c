#include "sys/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/trust.h"

enum { BACKLOG = 1024 };

/* A path as a socket address, and the directory that it needs open meanwhile (-1: none). */
typedef struct place {
  struct sockaddr_un address;
  int directory;
} place;

/* 0, or -1 with errno. */
static int find(place *where, const char *path) {
  *where = (place){.address.sun_family = AF_UNIX, .directory = -1};
  size_t size = strlen(path);
  if (size < sizeof where->address.sun_path) {
    memcpy(where->address.sun_path, path, size + 1);
    return 0;
  }
  char directory[PATH_MAX];
  const char *slash = strrchr(path, '/');
  size_t length = slash ? (size_t)(slash - path) : size;
  if (!slash || length >= sizeof directory) {
    errno = ENAMETOOLONG;
    return -1;
  }
  memcpy(directory, path, length);
  directory[length] = 0;
  where->directory = open(length ? directory : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (where->directory < 0) return -1;
  int written = snprintf(where->address.sun_path, sizeof where->address.sun_path, "/proc/self/fd/%d/%s",
                         where->directory, slash + 1);
  if ((size_t)written < sizeof where->address.sun_path) return 0;
  close(where->directory);
  errno = ENAMETOOLONG;
  return -1;
}

static void leave(place *where) {
  int number = errno;
  if (where->directory >= 0) close(where->directory);
  errno = number;
}

int zp_sock_make(int *out) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return zp_fail_errno("cannot make a socket");
  *out = fd;
  return 0;
}

int zp_sock_bind(int fd, const char *path) {
  place where;
  if (find(&where, path) < 0) return zp_fail_errno("cannot listen at %s", path);
  int rc = fchmod(fd, 0600); /* before it has a name */
  if (rc >= 0) rc = bind(fd, (struct sockaddr *)&where.address, sizeof where.address);
  if (rc >= 0) rc = listen(fd, BACKLOG);
  leave(&where);
  return rc < 0 ? zp_fail_errno("cannot listen at %s", path) : 0;
}

int zp_sock_listen(const char *path, int *out) {
  int fd = -1;
  int rc = zp_sock_make(&fd);
  if (rc) return rc;
  rc = zp_sock_bind(fd, path);
  if (rc) close(fd);
  else *out = fd;
  return rc;
}

bool zp_sock_listens(int fd) {
  int yes = 0;
  socklen_t size = sizeof yes;
  return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &size) == 0 && yes;
}

/* EAGAIN of a Unix socket says that the queue of the listener is full, and poll cannot wait for that to change. */
static int wait_in_line(double deadline) {
  static const double PAUSE = 0.005; /* seconds */
  double left = deadline - zp_clock_now();
  if (left <= 0) return ZP_ETIMEOUT;
  struct timespec pause = {.tv_nsec = (long)((left < PAUSE ? left : PAUSE) * 1e9)};
  return nanosleep(&pause, NULL) < 0 && errno == EINTR ? ZP_EINTR : 0;
}

int zp_sock_connect(const char *path, double deadline, int *out) {
  place where;
  if (find(&where, path) < 0)
    return errno == ENOENT || errno == ENOTDIR ? zp_fail(ZP_ENOSTORE, "nobody listens at %s", path)
                                               : zp_fail_errno("cannot connect to %s", path);
  int rc = 0, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) rc = zp_fail_errno("cannot connect to %s", path);
  while (!rc && connect(fd, (struct sockaddr *)&where.address, sizeof where.address) < 0) {
    if (errno == EAGAIN) rc = wait_in_line(deadline);
    else if (errno == ENOENT || errno == ENOTDIR || errno == ECONNREFUSED || errno == ENOTSOCK || errno == EPROTOTYPE)
      rc = zp_fail(ZP_ENOSTORE, "nobody listens at %s", path);
    else if (errno != EINTR) rc = zp_fail_errno("cannot connect to %s", path);
  }
  leave(&where);
  if (rc && fd >= 0) close(fd);
  if (!rc) *out = fd;
  return rc;
}

static bool ask_peer(int fd, struct ucred *peer) {
  socklen_t size = sizeof *peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &size) == 0;
}

static int check_peer(int fd, const char *path) {
  struct ucred peer;
  char what[300];
  if (!ask_peer(fd, &peer)) return zp_fail_errno("cannot see who listens at %.200s", path);
  if (zp_trust_is(peer.uid)) return 0;
  snprintf(what, sizeof what, "process %d, which listens at %.200s,", (int)peer.pid, path);
  return zp_trust_fail(what, peer.uid);
}

int zp_sock_connect_trusted(const char *path, double deadline, int *out) {
  char directory[PATH_MAX], held[64 + NAME_MAX];
  const char *slash = strrchr(path, '/');
  int at = -1, fd = -1;
  if (!slash || slash == path || strlen(path) >= sizeof directory || strlen(slash) > NAME_MAX) return zp_fail(ZP_ENOSTORE, "nobody listens at %s", path);
  memcpy(directory, path, (size_t)(slash - path));
  directory[slash - path] = '\0';
  int rc = zp_trust_open_directory(directory, ZP_TRUST_PRIVATE, &at);
  if (rc == ZP_ENOSTORE) return zp_fail(rc, "nobody listens at %s", path);
  if (rc) return rc;
  snprintf(held, sizeof held, "/proc/self/fd/%d%s", at, slash);
  rc = zp_sock_connect(held, deadline, &fd);
  close(at);
  if (rc == ZP_ENOSTORE) return zp_fail(rc, "nobody listens at %s", path);
  if (rc) return rc;
  rc = check_peer(fd, path);
  if (rc) close(fd);
  else *out = fd;
  return rc;
}

pid_t zp_sock_listener(int fd) {
  struct ucred peer;
  return ask_peer(fd, &peer) ? peer.pid : 0;
}
