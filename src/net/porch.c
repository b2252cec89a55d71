#include "net/porch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"

typedef struct waiter {
  int number; /* of ZeroMQ's descriptor */
  int fd;     /* our own of the same connection */
  bool is_known; /* its handshake is complete */
  double until;
  TAILQ_ENTRY(waiter) in_order;
} waiter;

TAILQ_HEAD(waiters, waiter);

struct zp_porch {
  void *router, *monitor;
  waiter **by_number;    /* with room for `room` numbers */
  size_t room, count;
  struct waiters lists[2]; /* without a handshake yet, and with one: each in the order of their deadlines */
};

enum { EVENTS = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
               ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_CLOSED };

int zp_porch_open(void *context, void *router, zp_porch **out) {
  static _Atomic unsigned count; /* names are of the context, and one is taken until its socket is wound up */
  static const int none = 0;
  char name[48];
  zp_porch *self = *out = calloc(1, sizeof *self);
  if (!self) return zp_fail(ZP_ENOMEM, "out of memory: cannot serve the network");
  for (int i = 0; i < 2; i++) TAILQ_INIT(&self->lists[i]);
  self->router = router;
  snprintf(name, sizeof name, "inproc://porch-%u", atomic_fetch_add(&count, 1));
  self->monitor = zp_zmq->socket(context, ZMQ_PAIR);
  /* Without a limit of messages: else ZeroMQ's thread would wait for this one when there are too many. */
  if (self->monitor && zp_zmq->setsockopt(self->monitor, ZMQ_LINGER, &none, sizeof none) == 0 &&
      zp_zmq->setsockopt(self->monitor, ZMQ_RCVHWM, &none, sizeof none) == 0 && zp_zmq->socket_monitor(router, name, EVENTS) == 0 &&
      zp_zmq->connect(self->monitor, name) == 0)
    return 0;
  int rc = zp_lib_fail("cannot watch connections");
  zp_porch_close(out);
  return rc;
}

static waiter *find(const zp_porch *self, int number) {
  return number >= 0 && (size_t)number < self->room ? self->by_number[number] : NULL;
}

static void leave(zp_porch *self, waiter *one) {
  self->by_number[one->number] = NULL;
  self->count--;
  TAILQ_REMOVE(&self->lists[one->is_known], one, in_order);
  close(one->fd);
  free(one);
}

static void hang_up(zp_porch *self, waiter *one) {
  shutdown(one->fd, SHUT_RDWR); /* ZeroMQ then finds its end, and closes it */
  leave(self, one);
}

static bool make_room(zp_porch *self, size_t number) {
  size_t room = self->room ? self->room : 64;
  while (room <= number) room *= 2;
  if (room == self->room) return true;
  waiter **larger = realloc(self->by_number, room * sizeof *larger);
  if (!larger) return false;
  memset(larger + self->room, 0, (room - self->room) * sizeof *larger);
  self->by_number = larger;
  self->room = room;
  return true;
}

static void arrive(zp_porch *self, int number) {
  waiter *one = find(self, number);
  if (one) leave(self, one);
  int fd = fcntl(number, F_DUPFD_CLOEXEC, 0);
  one = fd >= 0 && make_room(self, (size_t)number) ? malloc(sizeof *one) : NULL;
  if (!one) { /* no descriptors, or no memory, is no time for strangers */
    if (fd >= 0) close(fd);
    if (fd >= 0 || errno != EBADF) shutdown(number, SHUT_RDWR);
    return;
  }
  *one = (waiter){.number = number, .fd = fd, .until = zp_clock_now() + ZP_PORCH_HANDSHAKE_SECONDS};
  self->by_number[number] = one;
  self->count++;
  TAILQ_INSERT_TAIL(&self->lists[false], one, in_order);
}

static void know(zp_porch *self, waiter *one) {
  TAILQ_REMOVE(&self->lists[one->is_known], one, in_order);
  one->is_known = true;
  one->until = zp_clock_now() + ZP_PORCH_MESSAGE_SECONDS;
  TAILQ_INSERT_TAIL(&self->lists[true], one, in_order);
}

/* What has become of connections: a frame with the kind of the event and the descriptor, and one with the address. */
static void take_events(zp_porch *self) {
  for (;;) {
    unsigned char frame[6], address[1];
    uint16_t kind;
    int32_t number;
    int n = zp_zmq->recv(self->monitor, frame, sizeof frame, ZMQ_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < (int)sizeof frame) return;
    while (zp_zmq->recv(self->monitor, address, sizeof address, 0) < 0 && errno == EINTR) continue;
    memcpy(&kind, frame, sizeof kind);
    memcpy(&number, frame + sizeof kind, sizeof number);
    waiter *one = find(self, number);
    if (kind == ZMQ_EVENT_ACCEPTED) arrive(self, number);
    else if (one && kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) know(self, one);
    else if (one) leave(self, one);
  }
}

void zp_porch_admit(zp_porch *self, zmq_msg_t *frame) {
  int number = zp_zmq->msg_get(frame, ZMQ_SRCFD);
  if (number < 0) return; /* it is of this process */
  take_events(self);
  waiter *one = find(self, number);
  if (one) leave(self, one);
}

void zp_porch_mind(zp_porch *self, double now, size_t most) {
  waiter *one;
  take_events(self);
  for (int i = 0; i < 2; i++)
    while ((one = TAILQ_FIRST(&self->lists[i])) && (one->until <= now || self->count > most)) hang_up(self, one);
}

void zp_porch_close(zp_porch **handle) {
  zp_porch *self = *handle;
  if (!self) return;
  *handle = NULL;
  waiter *one;
  for (int i = 0; i < 2; i++)
    while ((one = TAILQ_FIRST(&self->lists[i]))) leave(self, one);
  if (self->monitor) {
    zp_zmq->socket_monitor(self->router, NULL, 0);
    zp_zmq->close(self->monitor);
  }
  free(self->by_number);
  free(self);
}
