#include "net/doorman.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "net/lib.h"
#include "sys/thread.h"

enum { PART_SIZE = 256 };

struct zp_doorman {
  void *socket;
  const zp_keys *keys;
  zp_thread *thread;
};

/* What is known of one question. */
typedef struct question {
  unsigned char request[PART_SIZE];
  size_t request_size;
  bool is_curve, is_known;
} question;

/* Take the frame number i: version, request, domain, address, identity, mechanism, credentials. */
static void take_part(const zp_doorman *self, int i, const unsigned char *bytes, size_t size, question *asked) {
  enum { REQUEST = 1, MECHANISM = 5, CREDENTIALS = 6 };
  if (i == REQUEST && size <= sizeof asked->request) memcpy(asked->request, bytes, asked->request_size = size);
  if (i == MECHANISM) asked->is_curve = size == 5 && memcmp(bytes, "CURVE", 5) == 0;
  if (i == CREDENTIALS)
    asked->is_known = size == ZP_KEY_BYTES && zp_sodium->sodium_memcmp(bytes, self->keys->client_public, ZP_KEY_BYTES) == 0;
}

/* Hear one question: false when the context is shut down. */
static bool hear(const zp_doorman *self, question *asked) {
  int more = 1;
  *asked = (question){.request_size = 0};
  for (int i = 0; more; i++) {
    unsigned char bytes[PART_SIZE];
    size_t size = sizeof more;
    int n;
    do n = zp_zmq->recv(self->socket, bytes, sizeof bytes, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 || zp_zmq->getsockopt(self->socket, ZMQ_RCVMORE, &more, &size) < 0) return false;
    if ((size_t)n <= sizeof bytes) take_part(self, i, bytes, (size_t)n, asked);
  }
  return true;
}

static bool answer(const zp_doorman *self, const question *asked) {
  const char *status = asked->is_curve && asked->is_known ? "200" : "400";
  const zp_bytes parts[] = {{"1.0", 3}, {asked->request, asked->request_size}, {status, 3}, {"", 0}, {"", 0}, {"", 0}};
  enum { PARTS = sizeof parts / sizeof *parts };
  for (int i = 0; i < PARTS; i++)
    if (zp_zmq->send(self->socket, parts[i].data, parts[i].size, i < PARTS - 1 ? ZMQ_SNDMORE : 0) < 0) return false;
  return true;
}

static int run(void *context, zp_buf *message) {
  (void)message;
  const zp_doorman *self = context;
  question asked;
  while (hear(self, &asked) && answer(self, &asked)) {}
  zp_zmq->close(self->socket);
  return EXIT_SUCCESS;
}

int zp_doorman_start(void *context, const zp_keys *keys, zp_doorman **out) {
  static const int no_linger = 0;
  zp_doorman *self = *out = calloc(1, sizeof *self);
  if (!self) return zp_fail(ZP_ENOMEM, "out of memory: cannot serve the network");
  self->keys = keys;
  self->socket = zp_zmq->socket(context, ZMQ_REP);
  int rc = 0;
  if (!self->socket || zp_zmq->setsockopt(self->socket, ZMQ_LINGER, &no_linger, sizeof no_linger) < 0 ||
      zp_zmq->bind(self->socket, "inproc://zeromq.zap.01") < 0)
    rc = zp_lib_fail("cannot check the keys of clients");
  if (!rc) rc = zp_thread_start(run, self, &self->thread);
  if (!rc) return 0;
  if (self->socket) zp_zmq->close(self->socket);
  free(self);
  *out = NULL;
  return rc;
}

void zp_doorman_stop(zp_doorman **handle) {
  zp_doorman *self = *handle;
  if (!self) return;
  *handle = NULL;
  while (zp_thread_wait(self->thread, ZP_FOREVER) == ZP_EINTR) continue;
  zp_thread_close(&self->thread);
  free(self);
}
