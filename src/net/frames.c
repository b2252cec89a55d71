#include "net/frames.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "net/lib.h"

enum { FRAME_SIZE = 32 << 10 /* bytes: seconds on the slowest of lines */ };

static int send_route(void *socket, zp_bytes route) {
  int n;
  do n = zp_zmq->send(socket, route.data, route.size, ZMQ_SNDMORE | ZMQ_DONTWAIT);
  while (n < 0 && errno == EINTR);
  return n < 0 ? errno : 0;
}

/* Takes the frame if it goes out. */
static int send_frame(void *socket, zmq_msg_t *frame, bool more) {
  int n;
  do n = zp_zmq->msg_send(frame, socket, more ? ZMQ_SNDMORE | ZMQ_DONTWAIT : ZMQ_DONTWAIT);
  while (n < 0 && errno == EINTR);
  return n < 0 ? errno : 0;
}

/* As much of the message as a frame has, from an offset. */
static void fill(unsigned char *to, size_t offset, size_t size, zp_bytes head, zp_bytes body) {
  size_t of_head = offset >= head.size ? 0 : head.size - offset < size ? head.size - offset : size;
  if (of_head > 0) memcpy(to, (const unsigned char *)head.data + offset, of_head);
  if (size > of_head) memcpy(to + of_head, (const unsigned char *)body.data + (offset + of_head - head.size), size - of_head);
}

/* A body that frames refer to. The last of them frees it, in whatever thread ZeroMQ is done with it. */
typedef struct shared {
  zp_buf bytes;
  _Atomic size_t holders;
} shared;

static void leave_shared(void *data, void *hint) {
  (void)data;
  shared *self = hint;
  if (atomic_fetch_sub(&self->holders, 1) > 1) return;
  zp_buf_free(&self->bytes);
  free(self);
}

/* A frame of a part of the body that is to be copied, or, with `from`, to be referred to. False: there is no memory. */
static bool make_frame(zmq_msg_t *frame, size_t offset, size_t size, zp_bytes head, zp_bytes body, shared *from) {
  if (from && offset >= head.size) {
    atomic_fetch_add(&from->holders, 1);
    if (zp_zmq->msg_init_data(frame, from->bytes.data + (offset - head.size), size, leave_shared, from) == 0) return true;
    leave_shared(NULL, from);
    return false;
  }
  if (zp_zmq->msg_init_size(frame, size) < 0) return false;
  fill(zp_zmq->msg_data(frame), offset, size, head, body);
  return true;
}

static int send(void *socket, zp_bytes route, zp_bytes head, zp_bytes body, shared *from) {
  size_t all = head.size + body.size, count = all > 0 ? (all + FRAME_SIZE - 1) / FRAME_SIZE : 1, made = 0, sent = 0;
  zmq_msg_t one, *frames = count == 1 ? &one : malloc(count * sizeof *frames);
  if (!frames) return ENOMEM;
  /* Everything that needs memory comes first. */
  for (; made < count; made++) {
    size_t offset = made * FRAME_SIZE, left = all - offset;
    if (!make_frame(&frames[made], offset, left < FRAME_SIZE ? left : FRAME_SIZE, head, body, from)) break;
  }
  int rc = made < count ? ENOMEM : route.data ? send_route(socket, route) : 0;
  while (!rc && sent < count) {
    rc = send_frame(socket, &frames[sent], sent + 1 < count);
    if (!rc) sent++;
  }
  for (size_t i = sent; i < made; i++) zp_zmq->msg_close(&frames[i]);
  if (frames != &one) free(frames);
  return rc;
}

int zp_frames_send(void *socket, zp_bytes route, zp_bytes head, zp_bytes body) { return send(socket, route, head, body, NULL); }

int zp_frames_give(void *socket, zp_bytes route, zp_bytes head, zp_buf *body) {
  zp_bytes bytes = zp_buf_bytes(body);
  shared *from = bytes.size > FRAME_SIZE ? malloc(sizeof *from) : NULL;
  if (!from) return send(socket, route, head, bytes, NULL);
  from->bytes = *body;
  atomic_init(&from->holders, 1); /* this one */
  *body = (zp_buf)ZP_BUF_INIT;
  int rc = send(socket, route, head, bytes, from);
  leave_shared(NULL, from);
  return rc;
}
