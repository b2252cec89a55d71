/*
 * seat -- the place that a client on another machine has at the queue of tasks: the server acts for it.
 *
 * A seat holds an open queue, and remembers which tasks the client gives the items of, and which are private to it: what zp_queue learns
 * from the death of a process, it is told when the client is gone. A private task whose client takes results is that client's, whoever has
 * stood for it before: it may come back after it was given up, or to another server.
 *
 * A seat is used by one thread at a time. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_SEAT_H
#define ZP_NET_SEAT_H

#include "map/queue.h"
#include "net/answer.h"

typedef struct zp_seat {
  zp_queue *queue; /* NULL until the first request */
  zp_buf produced; /* uint64_t: tasks whose items come from the client */
  zp_buf owned;    /* tasks that nobody else has a use for; they outlive the seat for a while, as the client may come back, */
  zp_buf inner;    /* but for those of a worker, which are made again by the one that gets its claim */
  bool is_worker;
  bool is_armed; /* for work, or for a result */
} zp_seat;

/* Carry out a request about tasks; see request.h. With may_wait false what would copy more than `limit` bytes into the answer, or has to change
   something, is left: ZP_EBUSY. WAIT waits until this thread is to stop: ZP_EINTR. Any other error is the answer's matter as well: the
   caller makes one of it. */
int zp_seat_execute(zp_seat *seat, const char *directory, int type, const zp_parcel *request, bool may_wait, size_t limit, zp_answer *answer);

/* Whether the request only reads, mostly: the first TAKE of a client that has come back changes whose the task is. */
bool zp_seat_only_reads(int type);

/* The client works on these items; if it dies, it has died of them. */
void zp_seat_note(zp_seat *seat, uint64_t item, uint64_t span);

/* The client is gone, or died of what was noted last: what it has claimed is given back, and what it leaves is settled. The seat is
   empty afterwards. If it fails, for want of room say, the seat is as it was, and it is to be tried again. */
int zp_seat_leave(zp_seat *seat, bool is_dead);

#endif
