/*
 * frames -- sending one message of any size by ZeroMQ, as several frames.
 *
 * Frames are small: ZeroMQ's heartbeats count whole frames only, so on a slow line a large one would look like silence. And a message goes
 * out as a whole or not at all, whatever memory there is: the rest of one that was begun would be taken for part of the next one.
 *
 * Errors: an errno. Never raises.
 */
#ifndef ZP_NET_FRAMES_H
#define ZP_NET_FRAMES_H

#include "base/buf.h"

/* Send a message, which is `head` and `body` one after the other; route: to which peer of a ROUTER (data NULL: the socket is none). Never waits.
   0, or an errno: EAGAIN if there is no room for it, EHOSTUNREACH if the peer is not there, ENOMEM. */
int zp_frames_send(void *socket, zp_bytes route, zp_bytes head, zp_bytes body);

/* The same without copying a body that is large: it is taken, and the buffer is empty afterwards. If it is small it may stay. */
int zp_frames_give(void *socket, zp_bytes route, zp_bytes head, zp_buf *body);

#endif
