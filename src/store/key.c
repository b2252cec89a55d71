#include "store/key.h"

#include "base/err.h"
#include "store/store.h"

_Static_assert(ZP_VKEY_NAMESPACE + ZP_KEY_MAX + ZP_VKEY_END + ZP_VKEY_REVISION <= ZP_VKEY_MAX, "ZP_KEY_MAX must fit");

static int too_long(size_t size) {
  return zp_fail(ZP_EKEY, "the key is too long: %zu bytes, a zero byte counted twice; at most %d fit", size, ZP_KEY_MAX);
}

static size_t count_zeros(zp_bytes key) {
  size_t zeros = 0;
  const unsigned char *at = key.data, *end = at + key.size;
  while (at < end && (at = memchr(at, 0, (size_t)(end - at)))) {
    zeros++;
    at++;
  }
  return zeros;
}

int zp_vkey_check(zp_bytes key) {
  if (key.size <= ZP_KEY_MAX / 2) return 0;
  size_t size = key.size > ZP_KEY_MAX ? key.size : key.size + count_zeros(key);
  return size > ZP_KEY_MAX ? too_long(size) : 0;
}

int zp_vkey_make(zp_vkey *vkey, uint32_t namespace_id, zp_bytes key) {
  int rc = zp_vkey_check(key);
  if (rc) return rc;
  unsigned char *to = vkey->bytes;
  zp_put_be32(to, namespace_id);
  to += ZP_VKEY_NAMESPACE;
  const unsigned char *from = key.data;
  size_t left = key.size;
  while (left > 0) {
    const unsigned char *zero = memchr(from, 0, left);
    size_t run = zero ? (size_t)(zero - from) : left;
    memcpy(to, from, run);
    to += run;
    from += run;
    left -= run;
    if (zero) {
      *to++ = 0x00;
      *to++ = 0xFF;
      from++;
      left--;
    }
  }
  *to++ = 0x00;
  *to++ = 0x01;
  vkey->prefix = (size_t)(to - vkey->bytes);
  return 0;
}

size_t zp_vkey_unescape(const unsigned char *escaped, size_t size, unsigned char *to) {
  unsigned char *start = to;
  const unsigned char *end = escaped + size;
  while (escaped < end) {
    unsigned char byte = *to++ = *escaped++;
    if (byte == 0) escaped++; /* the FF behind it */
  }
  return (size_t)(to - start);
}
