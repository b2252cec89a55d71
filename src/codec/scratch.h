/*
 * scratch -- the memory of an encoding, kept from one to the next: which objects were met, and the pairs of the
 * tables that are being written.
 *
 * There is one scratch per lua_State, a userdata in the registry, so an encoding of plain data allocates nothing once
 * the scratch has grown, and nothing leaks where Lua raises an error. Its arrays come from the allocator of the
 * lua_State.
 *
 * Pairs form a stack: a table pushes its pairs on top of those of the tables around it. Strings in pairs are borrowed
 * from the table, which stays as it is because no user code runs meanwhile.
 */
#ifndef ZP_CODEC_SCRATCH_H
#define ZP_CODEC_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lua.h>

#include "base/buf.h"

/* A key or value of a pair: a scalar by its content, any other (KIND_OBJECT) by where it is kept. */
typedef struct zp_item {
  union {
    lua_Integer integer;
    lua_Number number;
    const char *string; /* of a KIND_OBJECT key: its own encoding, to sort by, or NULL */
  } as;
  size_t size; /* of the string */
  int slot;    /* KIND_OBJECT: a stack index, or minus an index into the table of kept values */
  int kind;
} zp_item;

typedef struct zp_pair {
  zp_item key, value;
} zp_pair;

/* What the pairs are sorted by; most comparisons need no look at the pair. */
typedef struct zp_order {
  uint64_t prefix;
  int kind;
  uint32_t pair;
} zp_order;

typedef struct zp_visit {
  const void *object;
  uint32_t generation; /* of another encoding: the place is free */
  uint32_t number;
} zp_visit;

typedef struct zp_scratch {
  lua_Alloc alloc;
  void *alloc_context;
  zp_visit *visits; /* open addressing, a power of two, at most half full */
  size_t visit_capacity, visit_count;
  uint32_t generation;
  zp_pair *pairs;
  zp_order *order; /* order[i] is to be written as the i-th; same capacity as pairs */
  size_t pair_count, pair_capacity;
  const void **marked; /* objects with a registered name */
  size_t marked_count;
  uint64_t marked_filter; /* a bit for each, by its hash */
  lua_Integer kept; /* values in the table of kept values, the userdata's user value */
  zp_buf code;      /* bytecode of the function at hand */
  zp_buf bytes;     /* of a key on its own, to sort by */
  zp_buf path;      /* of a failure (path.h) */
} zp_scratch;

/* Push the scratch of this lua_State, made at the first call. May raise for want of memory. */
zp_scratch *zp_scratch_push(lua_State *L);

/* Push a scratch of one's own. May raise for want of memory. */
zp_scratch *zp_scratch_new(lua_State *L);

/* Begin an encoding: nothing is met, no pairs. */
void zp_scratch_begin(zp_scratch *s);

/* End it: give back what only a large value needs. `idx` is where the userdata is. May raise for want of memory. */
void zp_scratch_end(lua_State *L, int idx, zp_scratch *s);

/* Was the object met? Then its number is in *number. */
bool zp_scratch_find(const zp_scratch *s, const void *object, uint32_t *number);

/* Note an object that was not met. 0 or ZP_ENOMEM. */
int zp_scratch_add(zp_scratch *s, const void *object, uint32_t number);

/* Make room for one more pair. 0 or ZP_ENOMEM. */
int zp_scratch_grow_pairs(zp_scratch *s);

/* Sort order[first..count) by the keys of the pairs. */
void zp_scratch_sort(zp_scratch *s, size_t first);

/* Plain mode looks no names up; a marked object makes it give way to graph mode. The mark is for good: the object
   must stay alive. May raise for want of memory. */
void zp_scratch_mark(lua_State *L, const void *object);

static inline uint64_t zp_scratch_filter_bit(const void *object) {
  return UINT64_C(1) << ((uint64_t)(uintptr_t)object * UINT64_C(0x9e3779b97f4a7c15) >> 58);
}

static inline bool zp_scratch_is_marked(const zp_scratch *s, const void *object) {
  if (!(s->marked_filter & zp_scratch_filter_bit(object))) return false;
  for (size_t i = 0; i < s->marked_count; i++) {
    if (s->marked[i] == object) return true;
  }
  return false;
}

#endif
