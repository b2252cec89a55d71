/*
 * client -- asking a server on this machine.
 *
 * Each call is a connection of its own. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SERVER_CLIENT_H
#define ZP_SERVER_CLIENT_H

#include <sys/types.h>

#include "base/buf.h"

/* Ask the server that listens at path for a sign of life. The payload, of at most ZP_PING_MAX bytes, comes back in *echo (the caller
   frees it), and *pid is the server's. A server that is being started again is waited for.
   ZP_ENOSTORE if nobody listens there, ZP_EAUTH if it is a server of a user that this process does not trust (sys/trust.h), ZP_ETIMEOUT at the deadline (zp_clock_now seconds, ZP_FOREVER), ZP_EINTR if a
   signal handler ran; ZP_ESYS, also if what listens there speaks another language. */
int zp_client_ping(const char *path, zp_bytes payload, double deadline, pid_t *pid, zp_buf *echo);

/* ZP_EVALUE if that is too large for the payload of a ping. */
int zp_client_check_payload(zp_bytes payload);

/* Let the server that listens at path serve the network protocol, too, and say at which endpoint of this machine: appended to *endpoint.
   Errors as above. */
int zp_client_network(const char *path, double deadline, zp_buf *endpoint);

enum { ZP_PING_MAX = 32 << 10 };

#endif
