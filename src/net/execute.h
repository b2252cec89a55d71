/*
 * execute -- requests of clients on other machines, carried out on the store.
 *
 * Most take microseconds, and are done by the thread that receives them. Some have to wait: for the writer of the moment, for the disk,
 * for a watcher's condition, for a function of the user to return; or they copy a whole namespace, or a large value. These are told apart here
 * (ZP_EBUSY) and done by other threads.
 *
 * An executor belongs to one thread. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_EXECUTE_H
#define ZP_NET_EXECUTE_H

#include "net/answer.h"
#include "net/runner.h"
#include "net/seat.h"

typedef struct zp_executor zp_executor;

/* Bytes, of a request or of the value that it gives, from which on it takes longer than others, whatever it is. */
enum { ZP_EXECUTE_LARGE = 1 << 16 };

/* For the store in a directory; the runner is for atomic functions, and outlives it. */
int zp_executor_open(const char *directory, zp_runner *runner, zp_executor **executor);
void zp_executor_close(zp_executor **executor); /* nulls, may be called twice */

/* Carry out a request whose parcel was read: 0 with the answer, be it that it has failed. With may_wait false: ZP_EBUSY if it has to be
   done by somebody who may; nothing has happened. ZP_EINTR if this thread is to stop. The seat is the client's. */
int zp_execute(zp_executor *executor, zp_seat *seat, int type, const zp_parcel *request, bool may_wait, zp_answer *answer);

#endif
