#include "net/frames.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "net/lib.h"

enum { FRAME_SIZE = 32 << 10 /* bytes: seconds on the slowest of lines */ };

static int send_bytes(void *socket, zp_bytes bytes, int flags) {
  int n;
  do n = zp_zmq->send(socket, bytes.data, bytes.size, flags | ZMQ_DONTWAIT);
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

/* Everything that needs memory comes first. The number of frames made; fewer than `count` if there is none for more. */
static size_t make_frames(zmq_msg_t *frames, size_t count, zp_bytes message) {
  const unsigned char *from = message.data;
  for (size_t i = 0; i < count; i++) {
    size_t left = message.size - i * FRAME_SIZE, size = left < FRAME_SIZE ? left : FRAME_SIZE;
    if (zp_zmq->msg_init_size(&frames[i], size) < 0) return i;
    memcpy(zp_zmq->msg_data(&frames[i]), from + i * FRAME_SIZE, size);
  }
  return count;
}

static int send_large(void *socket, zp_bytes route, zp_bytes message) {
  size_t count = (message.size + FRAME_SIZE - 1) / FRAME_SIZE, sent = 0;
  zmq_msg_t *frames = malloc(count * sizeof *frames);
  if (!frames) return ENOMEM;
  size_t made = make_frames(frames, count, message);
  int rc = made < count ? ENOMEM : route.data ? send_bytes(socket, route, ZMQ_SNDMORE) : 0;
  while (!rc && sent < count) {
    rc = send_frame(socket, &frames[sent], sent + 1 < count);
    if (!rc) sent++;
  }
  for (size_t i = sent; i < made; i++) zp_zmq->msg_close(&frames[i]);
  free(frames);
  return rc;
}

int zp_frames_send(void *socket, zp_bytes route, zp_bytes message) {
  if (message.size > FRAME_SIZE) return send_large(socket, route, message);
  zmq_msg_t frame;
  if (make_frames(&frame, 1, message) == 0) return ENOMEM;
  int rc = route.data ? send_bytes(socket, route, ZMQ_SNDMORE) : 0;
  if (!rc) rc = send_frame(socket, &frame, false);
  if (rc) zp_zmq->msg_close(&frame);
  return rc;
}
