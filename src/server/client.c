#include "server/client.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "server/protocol.h"
#include "sys/sock.h"

/* Wait until the socket is ready for the events. */
static int wait_ready(int fd, short events, double deadline) {
  struct timespec timeout = {.tv_sec = 1000000000};
  double left = deadline - zp_clock_now();
  if (left <= 0) return ZP_ETIMEOUT;
  if (left < 1e9) {
    timeout.tv_sec = (time_t)left;
    timeout.tv_nsec = (long)((left - (double)timeout.tv_sec) * 1e9);
  }
  struct pollfd ready = {.fd = fd, .events = events};
  int n = ppoll(&ready, 1, &timeout, NULL);
  if (n > 0) return 0;
  if (n == 0) return ZP_ETIMEOUT;
  return errno == EINTR ? ZP_EINTR : zp_fail_errno("cannot wait for the server");
}

/* The other end is gone; a server that died is started again by its owner, so the call may be made anew. */
enum { CLOSED = 1 };

static int send_all(int fd, const void *data, size_t size, double deadline) {
  const char *from = data;
  while (size > 0) {
    ssize_t n = send(fd, from, size, MSG_NOSIGNAL);
    int rc = 0;
    if (n >= 0) {
      from += n;
      size -= (size_t)n;
    } else if (errno == EAGAIN) {
      rc = wait_ready(fd, POLLOUT, deadline);
    } else if (errno == EPIPE || errno == ECONNRESET) {
      rc = CLOSED;
    } else if (errno != EINTR) {
      rc = zp_fail_errno("cannot ask the server");
    }
    if (rc) return rc;
  }
  return 0;
}

static int receive_all(int fd, void *data, size_t size, double deadline) {
  char *to = data;
  while (size > 0) {
    ssize_t n = recv(fd, to, size, 0);
    int rc = 0;
    if (n > 0) {
      to += n;
      size -= (size_t)n;
    } else if (n == 0 || errno == ECONNRESET) {
      rc = CLOSED;
    } else if (errno == EAGAIN) {
      rc = wait_ready(fd, POLLIN, deadline);
    } else if (errno != EINTR) {
      rc = zp_fail_errno("cannot hear the server");
    }
    if (rc) return rc;
  }
  return 0;
}

/* One request and its answer, whose type must be `expected`. */
static int call(int fd, zp_message_type type, zp_bytes payload, zp_message_type expected, double deadline, zp_buf *answer) {
  zp_message_head head = {ZP_PROTOCOL_MAGIC, ZP_PROTOCOL_VERSION, (uint16_t)type, (uint32_t)payload.size, 0};
  int rc = send_all(fd, &head, sizeof head, deadline);
  if (!rc) rc = send_all(fd, payload.data, payload.size, deadline);
  if (!rc) rc = receive_all(fd, &head, sizeof head, deadline);
  if (rc) return rc;
  if (head.magic != ZP_PROTOCOL_MAGIC || head.size > ZP_MESSAGE_MAX)
    return zp_fail(ZP_ESYS, "what listens there is no server of zproc");
  zp_buf_clear(answer, ZP_MESSAGE_MAX);
  rc = zp_buf_reserve(answer, head.size);
  if (!rc) rc = receive_all(fd, answer->data, head.size, deadline);
  if (rc) return rc;
  answer->size = head.size;
  if (head.type == ZP_MESSAGE_REFUSED) return zp_fail(ZP_ESYS, "the server refused: %.*s", (int)answer->size, answer->data);
  if (head.type != expected) return zp_fail(ZP_ESYS, "the server gave an answer of type %d, which was not asked for", head.type);
  return 0;
}

/* The same by a connection of its own, made anew if the server dies meanwhile. */
static int ask(const char *path, zp_message_type type, zp_bytes payload, zp_message_type expected, double deadline, zp_buf *answer) {
  int rc;
  do {
    int fd;
    rc = zp_sock_connect_trusted(path, deadline, &fd);
    if (rc) return rc;
    rc = call(fd, type, payload, expected, deadline, answer);
    close(fd);
  } while (rc == CLOSED);
  return rc;
}

int zp_client_network(const char *path, double deadline, zp_buf *endpoint) {
  return ask(path, ZP_MESSAGE_NETWORK, (zp_bytes){NULL, 0}, ZP_MESSAGE_ENDPOINT, deadline, endpoint);
}

int zp_client_check_payload(zp_bytes payload) {
  if (payload.size <= ZP_PING_MAX) return 0;
  return zp_fail(ZP_EVALUE, "the payload of a ping has at most %d bytes, not %zu", ZP_PING_MAX, payload.size);
}

int zp_client_ping(const char *path, zp_bytes payload, double deadline, pid_t *pid, zp_buf *echo) {
  int rc = zp_client_check_payload(payload);
  if (!rc) rc = ask(path, ZP_MESSAGE_PING, payload, ZP_MESSAGE_PONG, deadline, echo);
  if (rc) return rc;
  int64_t number;
  if (echo->size < sizeof number) return zp_fail(ZP_ESYS, "the server gave an answer that is too short");
  memcpy(&number, echo->data, sizeof number);
  *pid = (pid_t)number;
  echo->size -= sizeof number;
  memmove(echo->data, echo->data + sizeof number, echo->size);
  return 0;
}
