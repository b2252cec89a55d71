/*
 * sessions -- what a server knows about its clients on other machines, for as long as they are there.
 *
 * A session belongs to the number that its client has chosen. It has the number of the last request, and what became of that; so a
 * request that comes twice is applied once. All of it is memory of one server; see request.h for what happens when that ends.
 *
 * For one thread. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_SESSIONS_H
#define ZP_NET_SESSIONS_H

#include <sys/queue.h>

#include "net/crew.h"

enum { ZP_ROUTE_MAX = 32 /* bytes of the name that ZeroMQ has for a peer */ };

typedef struct zp_session {
  unsigned char client[ZP_CLIENT_SIZE];
  unsigned char route[ZP_ROUTE_MAX]; /* where the last message came from */
  size_t route_size;
  uint64_t last;  /* the last request; 0: none yet */
  int last_type;
  bool is_greeted; /* it has said HELLO */
  bool is_done;    /* it was answered */
  bool has_answer; /* and the answer is kept; empty: it was, and there is no memory for it any more */
  zp_answer answer;
  zp_job job; /* of a request that takes time */
  bool is_running;
  zp_buf parked; /* a newer request, which waits until the one that runs has been cancelled: head and parcel */
  zp_seat seat;
  bool is_leaving;           /* the client is gone: once nothing runs, it is forgotten */
  bool has_died;             /* it is known to have died, of what it worked on: */
  uint64_t died_of, died_of_span;
  double heard, noticed;     /* instants (zp_clock_now): something came; a notice was sent */
  double unreachable_since;  /* 0: it is reachable */
  LIST_ENTRY(zp_session) in_bucket;
  TAILQ_ENTRY(zp_session) in_order;
} zp_session;

enum {
  ZP_SESSION_BUCKETS = 4096,
  ZP_SESSIONS_MAX = 50000,
  ZP_SESSIONS_LEAVING = 64 /* more that there may be while others leave */
};

LIST_HEAD(zp_session_bucket, zp_session);
TAILQ_HEAD(zp_session_order, zp_session);

typedef struct zp_sessions {
  struct zp_session_bucket buckets[ZP_SESSION_BUCKETS];
  struct zp_session_order order; /* the one that has been silent longest is first */
  size_t count;
} zp_sessions;

void zp_sessions_init(zp_sessions *sessions);

/* The session of a client; NULL if there is none. */
zp_session *zp_sessions_find(const zp_sessions *sessions, const unsigned char *client);

/* A new one. NULL for want of memory, or if there are ZP_SESSIONS_MAX and as many more as may be there while others leave. */
zp_session *zp_sessions_add(zp_sessions *sessions, const unsigned char *client);

/* The one that has been silent longest, of those that nobody would miss; NULL if there is none. */
zp_session *zp_sessions_idlest(const zp_sessions *sessions);

/* The client is gone: it is not found any more, and whoever comes with its number is somebody new. */
void zp_sessions_dismiss(zp_session *session);

/* Something has come from it. */
void zp_sessions_touch(zp_sessions *sessions, zp_session *session);

/* Whether somebody would miss it at once: it has work, or others' work depends on it. */
bool zp_session_matters(const zp_session *session);

/* Forget one that does not run anything; its seat was left. */
void zp_sessions_remove(zp_sessions *sessions, zp_session *session);

#endif
