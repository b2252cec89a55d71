#include "net/answer.h"

#include <string.h>

#include "base/err.h"

enum { KEEP = 1 << 16 }; /* bytes of a buffer, for the next answer */

static void begin(zp_answer *answer, int type) {
  answer->type = type;
  zp_buf_clear(&answer->body, KEEP);
}

int zp_answer_begin(zp_answer *answer, const zp_parcel *parcel, size_t pair_count) {
  begin(answer, ZP_ANSWER_DONE);
  return zp_parcel_write_begin(parcel, pair_count, &answer->body);
}

int zp_answer_done(zp_answer *answer, const zp_parcel *parcel) { return zp_answer_begin(answer, parcel, 0); }

void zp_answer_fail(zp_answer *answer, int rc, const char *traceback) {
  const char *detail = zp_error_detail();
  zp_parcel parcel = {ZP_NUMBERS((uint64_t)-rc), .string_count = 2};
  parcel.strings[0] = (zp_bytes){detail, strlen(detail)};
  parcel.strings[1] = (zp_bytes){traceback, traceback ? strlen(traceback) : 0};
  begin(answer, ZP_ANSWER_FAILED);
  if (zp_parcel_write(&parcel, &answer->body)) answer->body.size = 0;
}

static void say(zp_answer *answer, zp_answer_type type, const char *words) {
  zp_parcel parcel = {.string_count = 1, .strings = {{words, strlen(words)}}};
  begin(answer, type);
  if (zp_parcel_write(&parcel, &answer->body)) answer->body.size = 0;
}

void zp_answer_refuse(zp_answer *answer, const char *words) { say(answer, ZP_ANSWER_REFUSED, words); }

void zp_answer_running(zp_answer *answer, const char *words) { say(answer, ZP_ANSWER_RUNNING, words); }
