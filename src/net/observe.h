/*
 * observe -- a watcher of a client on another machine, waited for by the server.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_OBSERVE_H
#define ZP_NET_OBSERVE_H

#include "net/answer.h"
#include "net/judges.h"

/* Carry out a WATCH (request.h) on a store that acts for its author: wait for the next match, until the client's time is up or this
   thread is to stop (ZP_EINTR). The judges evaluate predicates. One that fails is an answer with its traceback. */
int zp_observe(zp_store *store, zp_judges *judges, const zp_parcel *request, zp_answer *answer);

/* Within a read: append all pairs of the namespace to the parcel that ends the buffer: how many, or an error. */
int zp_observe_pairs(zp_store *store, zp_buf *out, uint64_t *count);

#endif
