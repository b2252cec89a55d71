/*
 * answer -- what a request has led to, on its way back.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_ANSWER_H
#define ZP_NET_ANSWER_H

#include "net/request.h"

typedef struct zp_answer {
  int type; /* zp_answer_type */
  zp_buf body;
} zp_answer;

/* The answer is done: these numbers and strings. */
int zp_answer_done(zp_answer *answer, const zp_parcel *parcel);

/* Its beginning, to be followed by so many pairs (zp_parcel_write_pair). */
int zp_answer_begin(zp_answer *answer, const zp_parcel *parcel, size_t pair_count);

/* The request has failed with rc: what zp_error_detail says, and a traceback (NULL: none). If there is no memory for that, an answer
   without words. */
void zp_answer_fail(zp_answer *answer, int rc, const char *traceback);

/* One sentence. */
void zp_answer_refuse(zp_answer *answer, const char *words);

/* An answer to a PROBE: what is asked after waits for the lock of writers, which is held as the words say. */
void zp_answer_running(zp_answer *answer, const char *words);

#endif
