/*
 * wire -- messages between a server and its clients on other machines, as bytes.
 *
 * A message is a head and a parcel. In ZeroMQ it is one or several frames (frames.h) of at most ZP_WIRE_FRAME_MAX bytes: no more is what
 * anybody whose key was not checked yet can make the other side allocate; the parcel goes on from frame to frame.
 *
 * A parcel is what requests and answers are made of: some numbers, some byte strings, and a list of pairs (keys and values, say). Numbers
 * are LEB128, byte strings have their size before them.
 *
 *   parcel  = count number* count string* count pair*
 *   pair    = string presence string?     presence: 0: no second string, 1: there is one
 *
 * The decoder takes hostile bytes: it reads none past the end. A server lets pairs be bytes, so a message takes no more than its size. What it hands out is borrowed
 * from the input.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_WIRE_H
#define ZP_NET_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "store/store.h"

enum {
  ZP_WIRE_MAGIC = 0x4e50525a, /* "ZRPN" */
  ZP_WIRE_VERSION = 2,
  ZP_WIRE_FRAME_MAX = 1 << 20,
  ZP_CLIENT_SIZE = 16
};

/* Of a whole message, in bytes. */
#define ZP_WIRE_MESSAGE_MAX ((size_t)1 << 30)

/* Little-endian, as everything here. The first three fields are the same in every version. */
typedef struct zp_wire_head {
  uint32_t magic;
  uint16_t version;
  uint16_t type;        /* zp_request_type, zp_answer_type */
  uint64_t sequence;    /* of a client's requests: 1, 2, 3, ... An answer has that of its request */
  uint64_t incarnation; /* of the server, as far as the client knows; 0: not at all */
  unsigned char client[ZP_CLIENT_SIZE]; /* chosen at random by the client */
} zp_wire_head;

enum { ZP_PARCEL_NUMBERS = 12, ZP_PARCEL_STRINGS = 4 };

typedef struct zp_parcel {
  size_t number_count, string_count, pair_count;
  uint64_t numbers[ZP_PARCEL_NUMBERS];
  zp_bytes strings[ZP_PARCEL_STRINGS];
  const zp_change *pairs; /* value.data NULL: no second string; NULL if they were read as bytes only: */
  zp_bytes pair_bytes;    /* as they came, sound and without their number */
} zp_parcel;

/* The pairs of a parcel that was read, one after the other, without memory for them. */
typedef struct zp_parcel_walk {
  const unsigned char *at, *end;
} zp_parcel_walk;

void zp_parcel_walk_begin(zp_parcel_walk *walk, const zp_parcel *parcel);
bool zp_parcel_walk_next(zp_parcel_walk *walk, zp_change *pair); /* false at the end */

/* For initialising a parcel: its numbers, its strings. */
#define ZP_NUMBERS(...) .number_count = sizeof((uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t), .numbers = {__VA_ARGS__}
#define ZP_STRINGS(...) .string_count = sizeof((zp_bytes[]){__VA_ARGS__}) / sizeof(zp_bytes), .strings = {__VA_ARGS__}

/* Append a parcel. ZP_ENOMEM. */
int zp_parcel_write(const zp_parcel *parcel, zp_buf *out);

/* In parts, where the pairs are many: first all that comes before them, with their number; then each. */
int zp_parcel_write_begin(const zp_parcel *parcel, size_t pair_count, zp_buf *out);
int zp_parcel_write_pair(zp_bytes first, const zp_bytes *second, zp_buf *out);

/* Read one that fills the bytes exactly. `pairs` is where its pairs are put, as zp_change, which may be sixteen times what they are as bytes; NULL:
   nowhere. ZP_EDECODE if these are no parcel. */
int zp_parcel_read(zp_bytes bytes, zp_parcel *parcel, zp_buf *pairs);

/* Split off the head. ZP_EDECODE if there is none; the version is for the caller to look at. */
int zp_wire_read_head(zp_bytes bytes, zp_wire_head *head, zp_bytes *rest);

/* Seconds as a number, exactly. */
static inline uint64_t zp_parcel_of_double(double number) {
  uint64_t bits;
  __builtin_memcpy(&bits, &number, sizeof bits);
  return bits;
}
static inline double zp_parcel_to_double(uint64_t bits) {
  double number;
  __builtin_memcpy(&number, &bits, sizeof number);
  return number;
}

#endif
