/*
 * key -- the keys of the tree of versions: namespace id, escaped key, ~revision.
 *
 * A zero byte of a key is written 00 FF and the key ends with 00 01, so that byte order of the escaped form is byte order
 * of the keys and no escaped key is a prefix of another: all versions of one key stand together. The revision follows
 * as its complement, so that the newest version stands first.
 */
#ifndef ZP_STORE_KEY_H
#define ZP_STORE_KEY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"

enum {
  ZP_VKEY_NAMESPACE = 4,
  ZP_VKEY_END = 2,
  ZP_VKEY_REVISION = 8,
  ZP_VKEY_MAX = 511 /* LMDB's longest key */
};

typedef struct zp_vkey {
  size_t prefix; /* bytes before the revision */
  unsigned char bytes[ZP_VKEY_MAX + 1];
} zp_vkey;

/* Write namespace and key, leaving room for a revision. 0, or ZP_EKEY if the key is too long. */
int zp_vkey_make(zp_vkey *vkey, uint32_t namespace_id, zp_bytes key);

/* 0 or ZP_EKEY, as zp_vkey_make would say. */
int zp_vkey_check(zp_bytes key);

/* The key in an escaped form (without namespace, terminator and revision). `to` has room for `size` bytes; returns the
   size of the key. */
size_t zp_vkey_unescape(const unsigned char *escaped, size_t size, unsigned char *to);

/* Complete the key with a revision: a search from here meets this version or the newest one below it. */
static inline void zp_vkey_at(zp_vkey *vkey, uint64_t revision) { zp_put_be64(vkey->bytes + vkey->prefix, ~revision); }

static inline size_t zp_vkey_size(const zp_vkey *vkey) { return vkey->prefix + ZP_VKEY_REVISION; }

/* Is this found key a version of the same key of the same namespace? */
static inline int zp_vkey_same(const zp_vkey *vkey, const void *found, size_t size) {
  return size == vkey->prefix + ZP_VKEY_REVISION && memcmp(found, vkey->bytes, vkey->prefix) == 0;
}

static inline uint64_t zp_vkey_revision(const void *found, size_t size) {
  return ~zp_get_be64((const unsigned char *)found + size - ZP_VKEY_REVISION);
}

#endif
