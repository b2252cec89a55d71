#include "base/buf.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"

int zp_buf_reserve(zp_buf *buf, size_t more) {
  if (more <= buf->capacity - buf->size) return 0;
  if (more > SIZE_MAX / 2 - buf->size) return zp_fail(ZP_ENOMEM, "out of memory: %zu bytes wanted", more);
  size_t capacity = buf->capacity ? buf->capacity : 64;
  while (capacity < buf->size + more) capacity *= 2;
  unsigned char *data = realloc(buf->data, capacity);
  if (!data) return zp_fail(ZP_ENOMEM, "out of memory: %zu bytes wanted", capacity);
  buf->data = data;
  buf->capacity = capacity;
  return 0;
}

int zp_buf_append(zp_buf *buf, const void *data, size_t size) {
  if (size == 0) return 0;
  int rc = zp_buf_reserve(buf, size);
  if (rc) return rc;
  memcpy(buf->data + buf->size, data, size);
  buf->size += size;
  return 0;
}

int zp_buf_append_byte(zp_buf *buf, unsigned char byte) {
  if (buf->size == buf->capacity) {
    int rc = zp_buf_reserve(buf, 1);
    if (rc) return rc;
  }
  buf->data[buf->size++] = byte;
  return 0;
}

int zp_buf_append_varint(zp_buf *buf, uint64_t number) {
  int rc = zp_buf_reserve(buf, 10);
  if (rc) return rc;
  while (number >= 0x80) {
    buf->data[buf->size++] = (unsigned char)(number | 0x80);
    number >>= 7;
  }
  buf->data[buf->size++] = (unsigned char)number;
  return 0;
}

void zp_buf_clear(zp_buf *buf, size_t keep) {
  if (buf->capacity > keep) zp_buf_free(buf);
  buf->size = 0;
}

void zp_buf_free(zp_buf *buf) {
  free(buf->data);
  buf->data = NULL;
  buf->size = buf->capacity = 0;
}
