/*
 * service -- the network side of a server: one thread with a ROUTER of ZeroMQ, for clients on other machines.
 *
 * It reads the requests, does at once what takes microseconds (execute.h), gives the rest to others (crew.h), and sees to it that each is
 * applied once (sessions.h). So nothing that a client does makes the others wait.
 *
 * Strangers. With keys nobody gets a byte to the decoder who has not shown by CURVE that he has them; the check is done here, as ZeroMQ
 * wants it (ZAP). Connections that do not show in time that somebody means well are closed (porch.h); frames are limited in size before their sender is known;
 * when descriptors run short no more connections are taken for a while.
 *
 * Memory. ZeroMQ collects the frames of a message until the last one is there, and answers until they are read; it bounds neither. So the
 * memory of the process is watched: when it has grown by more than clients may take up, all connections are closed. Who means well connects
 * again, asks after its request, and loses nothing; only if what is kept for such questions is too much by itself, the oldest of it goes.
 *
 * Clients that are gone. ZeroMQ's heartbeats find connections that are dead. A client of which something depends (it has claimed a chunk,
 * it waits for a match) is asked now and then whether it is there; one that cannot be reached for some seconds is given up, and what it
 * has claimed is given back.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_SERVICE_H
#define ZP_NET_SERVICE_H

#include <stddef.h>

typedef struct zp_service zp_service;

enum { ZP_SERVICE_LISTENERS_MAX = 16 };

/* The name of the socket of the service in the server's directory. */
#define ZP_SERVICE_SOCKET "network"

/* Start the service of the server in a directory, at sockets that listen: a Unix socket that is named ZP_SERVICE_SOCKET there (-1: none),
   and so many for TCP. They stay the caller's, and open until the service is stopped. The keys are those in the directory (keys.h).
   `memory` is how many bytes clients may take up (0: half of what the process can have). */
int zp_service_start(const char *directory, int local, const int *listeners, size_t count, size_t memory, zp_service **service);

/* End it, and wait for that. Nulls, may be called twice. */
void zp_service_stop(zp_service **service);

#endif
