/*
 * doorman -- who may come in: answers ZeroMQ's questions about peers whose CURVE handshake is under way (RFC 27, ZAP), in a thread of its
 * own. Those have our client key who know the secret, and nobody else gets a byte any further.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_DOORMAN_H
#define ZP_NET_DOORMAN_H

#include "net/keys.h"

typedef struct zp_doorman zp_doorman;

/* The domain that sockets name whose peers it checks. */
#define ZP_DOORMAN_DOMAIN "zproc"

/* Begin, for a context of ZeroMQ, before any socket of it listens. The keys are borrowed. */
int zp_doorman_start(void *context, const zp_keys *keys, zp_doorman **doorman);

/* End it: the context is shut down first (zmq_ctx_shutdown). Nulls, may be called twice. */
void zp_doorman_stop(zp_doorman **doorman);

#endif
