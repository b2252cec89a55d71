/*
 * buf -- bytes: a borrowed view (zp_bytes) and an owned, growing buffer (zp_buf).
 *
 * A zp_buf starts as ZP_BUF_INIT (or zeroed) and owns its memory until zp_buf_free. It keeps its capacity when it is
 * cleared, so that one buffer can serve a hot path without allocating. Appending fails only for want of memory; a
 * failed append leaves the buffer as it was. Not thread-safe; plain memory across fork.
 */
#ifndef ZP_BASE_BUF_H
#define ZP_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

typedef struct zp_bytes {
  const void *data;
  size_t size;
} zp_bytes;

typedef struct zp_buf {
  unsigned char *data;
  size_t size;     /* bytes in use */
  size_t capacity; /* bytes allocated */
} zp_buf;

#define ZP_BUF_INIT {NULL, 0, 0}

/* Make room for `more` bytes behind size. 0 or ZP_ENOMEM. */
int zp_buf_reserve(zp_buf *buf, size_t more);

/* Append bytes; 0 or ZP_ENOMEM. data may be NULL if size is 0, and must not point into the buffer. */
int zp_buf_append(zp_buf *buf, const void *data, size_t size);
int zp_buf_append_byte(zp_buf *buf, unsigned char byte);

/* Append an unsigned number as LEB128, 1 to 10 bytes; small numbers are short, equal numbers have equal bytes. */
int zp_buf_append_varint(zp_buf *buf, uint64_t number);

/* What is in it; borrowed until it changes. */
static inline zp_bytes zp_buf_bytes(const zp_buf *buf) { return (zp_bytes){buf->data, buf->size}; }

/* Empty the buffer; a capacity beyond `keep` bytes is given back (a single large value must not stay for ever). */
void zp_buf_clear(zp_buf *buf, size_t keep);

/* Free the memory; the buffer is empty and usable afterwards. May be called twice. */
void zp_buf_free(zp_buf *buf);

/* Big-endian integers, as keys need them: byte order is number order. */
static inline void zp_put_be64(unsigned char *to, uint64_t number) {
  number = __builtin_bswap64(number);
  __builtin_memcpy(to, &number, 8);
}
static inline uint64_t zp_get_be64(const unsigned char *from) {
  uint64_t number;
  __builtin_memcpy(&number, from, 8);
  return __builtin_bswap64(number);
}
static inline void zp_put_be32(unsigned char *to, uint32_t number) {
  number = __builtin_bswap32(number);
  __builtin_memcpy(to, &number, 4);
}
static inline uint32_t zp_get_be32(const unsigned char *from) {
  uint32_t number;
  __builtin_memcpy(&number, from, 4);
  return __builtin_bswap32(number);
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "zproc is written for little-endian machines"
#endif

#endif
