/*
 * porch -- connections at whose other end nobody has yet shown that it means well.
 *
 * Whoever can reach a port can connect, and say nothing, or something else than ZeroMQ's protocol, or that very slowly; versions of libzmq
 * differ in which of these they end. And a peer that has the name of one that is connected is not heard by ZeroMQ's ROUTER, which keeps
 * the connection all the same. So the service goes by what it hears: a connection has to complete its handshake within
 * ZP_PORCH_HANDSHAKE_SECONDS, and its first message has to come within ZP_PORCH_MESSAGE_SECONDS after that (zproc's clients send an empty one at once);
 * else it is closed. Of more than so many at a time the oldest are closed.
 *
 * ZeroMQ closes its descriptors when it likes, and the system gives their numbers away again. So a connection is held by a descriptor of its
 * own as long as it is on the porch.
 *
 * For the thread of the router. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_PORCH_H
#define ZP_NET_PORCH_H

#include <stddef.h>

#include "net/lib.h"

typedef struct zp_porch zp_porch;

#define ZP_PORCH_HANDSHAKE_SECONDS 5.0
#define ZP_PORCH_MESSAGE_SECONDS 2.0

/* Watch the connections of a socket that has none yet. */
int zp_porch_open(void *context, void *router, zp_porch **porch);

/* Before the socket is closed. Nulls, may be called twice. */
void zp_porch_close(zp_porch **porch);

/* A frame of a message has come: its connection is on the porch no more. */
void zp_porch_admit(zp_porch *porch, zmq_msg_t *frame);

/* Close those that have had their time at the instant `now` (zp_clock_now), and the oldest of more than `most`. */
void zp_porch_mind(zp_porch *porch, double now, size_t most);

#endif
