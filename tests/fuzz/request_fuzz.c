/*
 * Bytes from anyone to the decoders of messages: the server's, for requests, and the client's, for answers. What is accepted must be
 * the same after it was written and read again.
 *
 * A seed is a message as it is on the wire: its head and a parcel (tests/fuzz/corpus/request).
 */
#include <stdlib.h>
#include <string.h>

#include "net/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok) {
  if (!ok) abort();
}

static int same(zp_bytes a, zp_bytes b) { return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0); }

static void compare(const zp_parcel *a, const zp_parcel *b) {
  must(a->number_count == b->number_count && a->string_count == b->string_count && a->pair_count == b->pair_count);
  for (size_t i = 0; i < a->number_count; i++) must(a->numbers[i] == b->numbers[i]);
  for (size_t i = 0; i < a->string_count; i++) must(same(a->strings[i], b->strings[i]));
  for (size_t i = 0; i < a->pair_count; i++) {
    must(same(a->pairs[i].key, b->pairs[i].key) && same(a->pairs[i].value, b->pairs[i].value));
    must(!a->pairs[i].value.data == !b->pairs[i].value.data);
  }
}

/* Everything that is handed out lies within the input. */
static void touch(const zp_parcel *parcel) {
  volatile unsigned char sum = 0;
  for (size_t i = 0; i < parcel->string_count; i++)
    for (size_t k = 0; k < parcel->strings[i].size; k++) sum += ((const unsigned char *)parcel->strings[i].data)[k];
  for (size_t i = 0; i < parcel->pair_count; i++) {
    for (size_t k = 0; k < parcel->pairs[i].key.size; k++) sum += ((const unsigned char *)parcel->pairs[i].key.data)[k];
    for (size_t k = 0; k < parcel->pairs[i].value.size; k++) sum += ((const unsigned char *)parcel->pairs[i].value.data)[k];
  }
}

/* The pairs as bytes are as many as there are said to be, and lie within the input, too. */
static void walk(const zp_parcel *parcel) {
  volatile unsigned char sum = 0;
  size_t count = 0;
  zp_parcel_walk at;
  zp_change pair;
  for (zp_parcel_walk_begin(&at, parcel); zp_parcel_walk_next(&at, &pair); count++) {
    for (size_t k = 0; k < pair.key.size; k++) sum += ((const unsigned char *)pair.key.data)[k];
    for (size_t k = 0; k < pair.value.size; k++) sum += ((const unsigned char *)pair.value.data)[k];
  }
  must(count == parcel->pair_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  zp_wire_head head;
  zp_bytes body;
  zp_parcel parcel, again;
  zp_buf pairs = ZP_BUF_INIT, more = ZP_BUF_INIT, bytes = ZP_BUF_INIT;
  if (zp_wire_read_head((zp_bytes){data, size}, &head, &body)) return 0;
  int as_request = zp_request_read(head.type, body, &parcel);
  if (as_request == 0) walk(&parcel);
  int as_answer = zp_parcel_read(body, &parcel, &pairs);
  must(as_answer == 0 || as_request != 0); /* a request is a parcel */
  if (as_answer == 0) {
    touch(&parcel);
    must(zp_parcel_write(&parcel, &bytes) == 0);
    must(zp_parcel_read(zp_buf_bytes(&bytes), &again, &more) == 0);
    compare(&parcel, &again);
  }
  zp_buf_free(&pairs);
  zp_buf_free(&more);
  zp_buf_free(&bytes);
  return 0;
}
