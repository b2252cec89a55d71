/*
 * crew -- the threads of a server that do what takes time: one for each request that waits.
 *
 * The thread of the service hands out jobs and takes back what is finished; it alone starts and stops threads. A thread that is asked
 * to cancel its job is not used again. Some idle threads are kept for the next jobs.
 *
 * All functions are for one thread at a time. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_CREW_H
#define ZP_NET_CREW_H

#include "net/execute.h"

typedef struct zp_crew zp_crew;

typedef struct zp_job {
  int type;
  zp_buf body;   /* the parcel of the request, as bytes */
  zp_seat *seat; /* of the client: nobody else uses it until the job was taken back */
  bool is_farewell; /* there is no request: the seat is to be left (zp_seat_leave); rc says whether it was */
  bool has_died;    /* its client, of these items: */
  uint64_t died_of, died_of_span;
  zp_answer answer;
  int rc;              /* 0 with the answer; ZP_EINTR: cancelled */
  void *context;       /* the caller's */
  struct zp_member *member; /* the crew's: who does it */
  struct zp_job *next;      /* the crew's */
} zp_job;

/* `wake` is called whenever a job is finished, by its thread, but never twice at a time. */
int zp_crew_open(const char *directory, zp_runner *runner, void (*wake)(void *context), void *context, zp_crew **crew);

/* Begin with a job, which is borrowed until it was taken back. ZP_ESYS if there are too many. */
int zp_crew_start(zp_crew *crew, zp_job *job);

/* Call `wake`: for others who have to tell the same thread something. */
void zp_crew_wake(zp_crew *crew);

/* Call a function while nobody calls `wake`. */
void zp_crew_hold(zp_crew *crew, void (*function)(void *context), void *context);

/* Take back a job that is finished; NULL if there is none. */
zp_job *zp_crew_take(zp_crew *crew);

/* Cancel a job; it is to be taken back all the same. */
void zp_crew_cancel(zp_crew *crew, zp_job *job);

/* Cancel all jobs and wait for the threads; every job was taken back or is forgotten. Nulls, may be called twice. */
void zp_crew_close(zp_crew **crew);

#endif
