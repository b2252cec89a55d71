#include "net/wire.h"

#include <string.h>

#include "base/err.h"

/* ---- writing ---- */

static int write_string(zp_bytes bytes, zp_buf *out) {
  int rc = zp_buf_append_varint(out, bytes.size);
  return rc ? rc : zp_buf_append(out, bytes.data, bytes.size);
}

int zp_parcel_write_begin(const zp_parcel *parcel, size_t pair_count, zp_buf *out) {
  int rc = zp_buf_append_varint(out, parcel->number_count);
  for (size_t i = 0; i < parcel->number_count && !rc; i++) rc = zp_buf_append_varint(out, parcel->numbers[i]);
  if (!rc) rc = zp_buf_append_varint(out, parcel->string_count);
  for (size_t i = 0; i < parcel->string_count && !rc; i++) rc = write_string(parcel->strings[i], out);
  return rc ? rc : zp_buf_append_varint(out, pair_count);
}

int zp_parcel_write_pair(zp_bytes first, const zp_bytes *second, zp_buf *out) {
  int rc = write_string(first, out);
  if (!rc) rc = zp_buf_append_byte(out, second != NULL);
  return rc || !second ? rc : write_string(*second, out);
}

int zp_parcel_write(const zp_parcel *parcel, zp_buf *out) {
  int rc = zp_parcel_write_begin(parcel, parcel->pair_count, out);
  for (size_t i = 0; i < parcel->pair_count && !rc; i++) {
    const zp_change *pair = &parcel->pairs[i];
    rc = zp_parcel_write_pair(pair->key, pair->value.data ? &pair->value : NULL, out);
  }
  return rc;
}

/* ---- reading ---- */

typedef struct reader {
  const unsigned char *at, *end;
} reader;

static int fail(void) { return zp_fail(ZP_EDECODE, "these are no message of zproc"); }

static size_t left(const reader *in) { return (size_t)(in->end - in->at); }

static bool read_number(reader *in, uint64_t *number) {
  *number = 0;
  for (int shift = 0; shift < 64 && in->at < in->end; shift += 7) {
    unsigned char byte = *in->at++;
    if (shift == 63 && byte > 1) return false;
    *number |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return true;
  }
  return false;
}

static bool read_string(reader *in, zp_bytes *bytes) {
  uint64_t size;
  if (!read_number(in, &size) || size > left(in)) return false;
  *bytes = (zp_bytes){in->at, (size_t)size};
  in->at += size;
  return true;
}

static bool read_count(reader *in, size_t most, size_t *count) {
  uint64_t number;
  if (!read_number(in, &number) || number > most) return false;
  *count = (size_t)number;
  return true;
}

static bool read_pair(reader *in, zp_change *pair) {
  *pair = (zp_change){.value = {NULL, 0}};
  if (!read_string(in, &pair->key) || in->at == in->end) return false;
  unsigned char presence = *in->at++;
  return presence == 0 || (presence == 1 && read_string(in, &pair->value));
}

int zp_parcel_read(zp_bytes bytes, zp_parcel *parcel, zp_buf *pairs) {
  enum { PAIR_BYTES = 2 }; /* at least */
  reader in = {bytes.data, (const unsigned char *)bytes.data + bytes.size};
  *parcel = (zp_parcel){.number_count = 0};
  if (!read_count(&in, ZP_PARCEL_NUMBERS, &parcel->number_count)) return fail();
  for (size_t i = 0; i < parcel->number_count; i++)
    if (!read_number(&in, &parcel->numbers[i])) return fail();
  if (!read_count(&in, ZP_PARCEL_STRINGS, &parcel->string_count)) return fail();
  for (size_t i = 0; i < parcel->string_count; i++)
    if (!read_string(&in, &parcel->strings[i])) return fail();
  size_t count;
  if (!read_count(&in, left(&in) / PAIR_BYTES, &count)) return fail();
  parcel->pair_bytes = (zp_bytes){in.at, left(&in)};
  if (pairs) zp_buf_clear(pairs, 1 << 16);
  for (size_t i = 0; i < count; i++) {
    zp_change pair;
    if (!read_pair(&in, &pair)) return fail();
    int rc = pairs ? zp_buf_append(pairs, &pair, sizeof pair) : 0;
    if (rc) return rc;
  }
  if (in.at != in.end) return fail();
  parcel->pair_count = count;
  if (pairs) parcel->pairs = (const zp_change *)pairs->data;
  return 0;
}

void zp_parcel_walk_begin(zp_parcel_walk *walk, const zp_parcel *parcel) {
  walk->at = parcel->pair_bytes.data;
  walk->end = walk->at + parcel->pair_bytes.size;
}

bool zp_parcel_walk_next(zp_parcel_walk *walk, zp_change *pair) {
  reader in = {walk->at, walk->end};
  if (in.at == in.end || !read_pair(&in, pair)) return false;
  walk->at = in.at;
  return true;
}

int zp_wire_read_head(zp_bytes bytes, zp_wire_head *head, zp_bytes *rest) {
  if (bytes.size < sizeof *head) return fail();
  memcpy(head, bytes.data, sizeof *head);
  if (head->magic != ZP_WIRE_MAGIC) return fail();
  *rest = (zp_bytes){(const unsigned char *)bytes.data + sizeof *head, bytes.size - sizeof *head};
  return 0;
}
