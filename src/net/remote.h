/*
 * remote -- a client's connection to a server on another machine.
 *
 * One request at a time: begin, await. The connection is made at the first request, and again by itself whenever it breaks; a request
 * that gets no answer is asked after, so it is applied once, or the client is told that nobody knows (request.h).
 *
 *     rc = zp_remote_begin(remote, state, type, &parcel, deadline);
 *     while ((rc = zp_remote_await(remote, deadline, &answer)) == ZP_EINTR) ...
 *
 * Heartbeats tell within some seconds that the other end is dead. Nobody waits longer than ZP_REMOTE_PATIENCE seconds for one of whom nothing
 * is heard: ZP_ENOSTORE.
 *
 * Fork: what was connected is the parent's; the child connects anew, as another client. Threads: a connection belongs to one. Errors: 0
 * or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_REMOTE_H
#define ZP_NET_REMOTE_H

#include <sys/types.h>

#include "net/keys.h"
#include "net/request.h"

typedef struct zp_remote zp_remote;

enum { ZP_REMOTE_PATIENCE = 15 };

/* A connection to an endpoint of ZeroMQ, with keys (NULL: none). Nothing is connected yet. ZP_ENOMEM; ZP_ESYS without libzmq. */
int zp_remote_open(const char *endpoint, const zp_keys *keys, zp_remote **remote);
void zp_remote_close(zp_remote **remote); /* nulls, may be called twice */

/* Send a request, for the state of that identity (zp_remote_server; 0: whichever there is); one that is under way is abandoned. ZP_ENOSTORE if
   nobody listens there, or the state there is another one, ZP_ETIMEOUT if that is not known at the deadline
   (zp_clock_now seconds, ZP_FOREVER), ZP_EINTR if an interrupt is due before there is a connection; then nothing was sent. ZP_EVALUE if it is
   larger than a message may be. */
int zp_remote_begin(zp_remote *remote, uint64_t state, int type, const zp_parcel *request, double deadline);

/* Await its answer, until the deadline (zp_clock_now seconds, ZP_FOREVER): 0, borrowed until the next request; what the server
   has failed with, see zp_remote_traceback; ZP_ETIMEOUT and ZP_EINTR (if an interrupt is due), after which it may be awaited again; ZP_EAUTH if
   the keys do not fit; ZP_ENOSTORE if nothing is heard of the server, its state is another one, or it is lost each time that it is sent this;
   ZP_ESTALE if it was started again meanwhile, so that it may have happened or not; ZP_ESYS if the server is of another version. */
int zp_remote_await(zp_remote *remote, double deadline, zp_parcel *answer);

/* Whether what was asked last about the request that is under way was not answered by now: the server is not there, or far. */
bool zp_remote_is_silent(const zp_remote *remote);

/* Give up the request that is under way, if there is one: the server stops waiting for what it waits for. */
void zp_remote_abandon(zp_remote *remote);

/* Send a request that has no answer. If it does not get there, it does not matter. */
void zp_remote_tell(zp_remote *remote, int type, const zp_parcel *request);

/* Take the memory that the last answer is borrowed from: from then on it lives as long as these two buffers. */
void zp_remote_give_answer(zp_remote *remote, zp_buf *message, zp_buf *pairs);

/* The traceback of the last request that failed; empty if there is none. */
const char *zp_remote_traceback(const zp_remote *remote);

/* The number that the server knows this client by: ZP_CLIENT_SIZE bytes. */
const unsigned char *zp_remote_client(zp_remote *remote);

/* What the server said about itself in the greeting; borrowed, empty before the first answer. */
typedef struct zp_remote_server {
  pid_t pid;
  bool is_here; /* it is on this machine, this user's, and its processes can see ours */
  const char *directory;
  uint64_t identity; /* of its state; never 0 */
} zp_remote_server;

const zp_remote_server *zp_remote_server_of(const zp_remote *remote);

#endif
