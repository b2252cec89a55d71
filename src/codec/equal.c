/*
 * equal -- whether two encoded values are equal by content, without making values of them.
 *
 * A value is a graph: its objects (tables, functions, names, upvalues, environments) refer to each other. Two objects are equal unless
 * some path that both have leads to things that differ; so it does not matter whether a table is shared, or copied, or within itself.
 * That is the question whether two automata are equivalent, and it is answered as that one is, in nearly linear time: suppose that the two
 * roots are equal, put them into one class, and look at what they are made of; what has to be equal then is put into one class as well, and
 * looked at later. Whatever is found to differ ends it: the roots are not equal.
 *
 * The one thing that cannot be paired by itself are keys that are objects, since they are in no order that both have. There each pair
 * of the one table looks for one of the other, by trial; what a trial that fails has supposed is taken back. What it has found to differ
 * is remembered: it differs whatever is supposed, or else the roots do. Trials are bounded: beyond NESTING such keys within each other, or
 * STEPS objects in trials, values count as different.
 *
 * A first pass finds the objects of a value: where they begin and end, and how many there were by then. So a reference is a
 * look into an array, and an object that is to be looked at later is passed over at once. Bytes that are no value end that pass.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "codec/format.h"
#include "codec/value.h"

enum { NESTING = 100, STEPS = 1 << 18 };

typedef struct object {
  unsigned char tag;          /* TAG_META_TABLE is a TAG_TABLE here */
  const unsigned char *begin; /* what follows the tag */
  const unsigned char *end;
  uint32_t next; /* the number of the first object that begins after this one has ended */
  bool has_globals;
} object;

typedef struct global {
  uint32_t environment;
  zp_bytes name;
  const unsigned char *value;
  uint32_t next; /* the number of the value, if it is an object that begins here */
} global;

/* A value with what the first pass has found. */
typedef struct side {
  const unsigned char *at, *end; /* of the first pass */
  object *objects;
  uint32_t count, capacity;
  global *globals;
  size_t global_count, global_capacity;
  int depth;
} side;

/* A place in a value. */
typedef struct place {
  const unsigned char *at;
  uint32_t next; /* the number of the next object that begins */
} place;

typedef struct pair {
  uint32_t a, b;
} pair;

typedef struct comparison {
  side a, b;
  uint32_t *parents; /* of classes: the objects of a, then those of b */
  uint32_t *sizes;
  uint32_t *joined; /* the classes that were put into others, in this order, to be taken back */
  uint32_t joined_count;
  pair *pending; /* supposed to be equal, and to be looked at */
  size_t pending_count, pending_capacity;
  uint64_t *different; /* pairs of objects that a trial has found to differ: open addressing, a power of two; 0 is free */
  size_t different_count, different_capacity;
  int nesting;
  unsigned steps;
  int rc; /* ZP_ENOMEM */
} comparison;

/* ---- the first pass: 0, ZP_EDECODE (without detail) or ZP_ENOMEM ---- */

static int get_number(const unsigned char **at, const unsigned char *end, uint64_t *number) {
  uint64_t value = *number = 0;
  for (int shift = 0; shift < 64 && *at < end; shift += 7) {
    unsigned char byte = *(*at)++;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) {
      *number = value;
      return 0;
    }
  }
  return ZP_EDECODE;
}

static int scan_bytes(side *s, uint64_t size) {
  if (size > (uint64_t)(s->end - s->at)) return ZP_EDECODE;
  s->at += size;
  return 0;
}

static int scan_sized(side *s) {
  uint64_t size;
  int rc = get_number(&s->at, s->end, &size);
  return rc ? rc : scan_bytes(s, size);
}

/* Make room for one more element of an array; the array, or NULL. */
static void *grow(void *array, size_t *capacity, size_t count, size_t size) {
  if (count < *capacity) return array;
  size_t more = *capacity ? *capacity * 2 : 16;
  void *grown = realloc(array, more * size);
  if (grown) *capacity = more;
  return grown;
}

static int scan_value(side *s);

static int scan_table(side *s, bool has_metatable) {
  uint64_t elements, pairs;
  int rc = get_number(&s->at, s->end, &elements);
  if (!rc) rc = get_number(&s->at, s->end, &pairs);
  uint64_t left = (uint64_t)(s->end - s->at);
  if (!rc && (elements > left || pairs > left / 2)) rc = ZP_EDECODE;
  if (rc) return rc;
  for (uint64_t i = elements + 2 * pairs + has_metatable; i > 0 && !rc; i--) rc = scan_value(s);
  return rc;
}

static int scan_function(side *s) {
  uint64_t upvalues;
  int rc = scan_sized(s);
  if (!rc) rc = get_number(&s->at, s->end, &upvalues);
  for (; !rc && upvalues > 0; upvalues--) {
    if (s->at == s->end || (*s->at != TAG_CELL && *s->at != TAG_REFERENCE)) return ZP_EDECODE;
    rc = scan_value(s);
  }
  return rc;
}

static int scan_object(side *s, int tag) {
  size_t capacity = s->capacity;
  object *objects = s->count < UINT32_MAX / 4 ? grow(s->objects, &capacity, s->count, sizeof *objects) : NULL;
  if (!objects) return ZP_ENOMEM;
  s->objects = objects;
  s->capacity = (uint32_t)capacity;
  uint32_t number = s->count++;
  objects[number] = (object){.tag = (unsigned char)(tag == TAG_META_TABLE ? TAG_TABLE : tag), .begin = s->at};
  if (++s->depth > 2 * ZP_DEPTH_MAX + 4) return ZP_EDECODE; /* an upvalue within each function */
  int rc = tag == TAG_FUNCTION      ? scan_function(s)
           : tag == TAG_NAME        ? scan_sized(s)
           : tag == TAG_CELL        ? scan_value(s)
           : tag == TAG_ENVIRONMENT ? 0
                                    : scan_table(s, tag == TAG_META_TABLE);
  s->depth--;
  s->objects[number].end = s->at;
  s->objects[number].next = s->count;
  return rc;
}

static int scan_value(side *s) {
  if (s->at == s->end) return ZP_EDECODE;
  int tag = *s->at++;
  if (tag >= TAG_SMALL_INTEGER || tag <= TAG_NULL) return 0;
  if (tag >= TAG_SHORT_STRING && tag <= TAG_SHORT_STRING_LAST) return scan_bytes(s, (uint64_t)(tag - TAG_SHORT_STRING));
  uint64_t number;
  int rc;
  switch (tag) {
    case TAG_FLOAT:
    case TAG_INT64: return scan_bytes(s, 8);
    case TAG_INT8: return scan_bytes(s, 1);
    case TAG_INT16: return scan_bytes(s, 2);
    case TAG_INT32: return scan_bytes(s, 4);
    case TAG_STRING: return scan_sized(s);
    case TAG_REFERENCE:
      rc = get_number(&s->at, s->end, &number);
      return rc || number < s->count ? rc : ZP_EDECODE;
    case TAG_TABLE:
    case TAG_META_TABLE:
    case TAG_FUNCTION:
    case TAG_NAME:
    case TAG_CELL:
    case TAG_ENVIRONMENT: return scan_object(s, tag);
    default: return ZP_EDECODE;
  }
}

/* The string that a value is, which is at *at and whole. */
static bool get_string(const unsigned char **at, const unsigned char *end, zp_bytes *string) {
  int tag = *(*at)++;
  uint64_t size = (uint64_t)(tag - TAG_SHORT_STRING);
  if (tag == TAG_STRING) {
    if (get_number(at, end, &size)) return false;
  } else if (tag < TAG_SHORT_STRING || tag > TAG_SHORT_STRING_LAST) {
    return false;
  }
  *string = (zp_bytes){*at, (size_t)size};
  *at += size;
  return true;
}

static int scan_global(side *s) {
  uint64_t environment;
  int rc = get_number(&s->at, s->end, &environment);
  if (rc || environment >= s->count) return ZP_EDECODE;
  global *globals = grow(s->globals, &s->global_capacity, s->global_count, sizeof *globals);
  if (!globals) return ZP_ENOMEM;
  s->globals = globals;
  global *fresh = &globals[s->global_count++];
  fresh->environment = (uint32_t)environment;
  s->objects[environment].has_globals = true;
  const unsigned char *name = s->at;
  rc = scan_value(s);
  if (rc || !get_string(&name, s->end, &fresh->name)) return rc ? rc : ZP_EDECODE;
  fresh->value = s->at;
  fresh->next = s->count;
  return scan_value(s);
}

static int scan(side *s, zp_bytes bytes) {
  s->at = (const unsigned char *)bytes.data + 1; /* behind the version */
  s->end = s->at + bytes.size - 1;
  int rc = scan_value(s);
  while (!rc && s->at < s->end) rc = scan_global(s);
  return rc;
}

/* ---- classes of objects that are supposed to be equal ---- */

static uint32_t class_of(const comparison *c, uint32_t number) {
  while (c->parents[number] != number) number = c->parents[number];
  return number;
}

static uint64_t pair_key(uint32_t a, uint32_t b) { return ((uint64_t)a << 32 | b) + 1; }

/* The place of a pair among those that differ, or where it would be. */
static size_t find_different(const comparison *c, uint64_t key) {
  size_t at = (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (c->different_capacity - 1);
  while (c->different[at] && c->different[at] != key) at = (at + 1) & (c->different_capacity - 1);
  return at;
}

static bool is_different(const comparison *c, uint32_t a, uint32_t b) {
  return c->different_count > 0 && c->different[find_different(c, pair_key(a, b))];
}

static void note_different(comparison *c, uint32_t a, uint32_t b) {
  if (c->different_count * 2 >= c->different_capacity) {
    uint64_t *old = c->different;
    size_t capacity = c->different_capacity;
    c->different_capacity = capacity ? capacity * 2 : 64;
    c->different = calloc(c->different_capacity, sizeof *c->different);
    if (!c->different) {
      c->different = old;
      c->different_capacity = capacity;
      c->rc = ZP_ENOMEM;
      return;
    }
    for (size_t i = 0; i < capacity; i++)
      if (old[i]) c->different[find_different(c, old[i])] = old[i];
    free(old);
  }
  c->different[find_different(c, pair_key(a, b))] = pair_key(a, b);
  c->different_count++;
}

/* Suppose that two objects are equal; true unless they cannot be, or there is no memory. */
static bool suppose(comparison *c, uint32_t a, uint32_t b) {
  if (c->a.objects[a].tag != c->b.objects[b].tag || is_different(c, a, b)) return false;
  uint32_t from = class_of(c, a), into = class_of(c, c->a.count + b);
  if (from == into) return true;
  pair *pending = grow(c->pending, &c->pending_capacity, c->pending_count, sizeof *pending);
  if (!pending) {
    c->rc = ZP_ENOMEM;
    return false;
  }
  c->pending = pending;
  pending[c->pending_count++] = (pair){a, b};
  if (c->sizes[from] > c->sizes[into]) {
    uint32_t swap = from;
    from = into;
    into = swap;
  }
  c->parents[from] = into;
  c->sizes[into] += c->sizes[from];
  c->joined[c->joined_count++] = from;
  return true;
}

static void take_back(comparison *c, uint32_t joined_count, size_t pending_count) {
  while (c->joined_count > joined_count) {
    uint32_t number = c->joined[--c->joined_count];
    c->sizes[c->parents[number]] -= c->sizes[number];
    c->parents[number] = number;
  }
  c->pending_count = pending_count;
}

/* ---- the second pass, over what is known to be whole ---- */

static bool is_object(const place *at) {
  int tag = *at->at;
  return tag >= TAG_TABLE && tag <= TAG_CELL;
}

/* Pass over an object or a reference: its number. */
static uint32_t take_object(const side *s, place *at) {
  uint64_t number = at->next;
  if (*at->at == TAG_REFERENCE) {
    at->at++;
    get_number(&at->at, s->end, &number);
  } else {
    at->at = s->objects[number].end;
    at->next = s->objects[number].next;
  }
  return (uint32_t)number;
}

typedef struct scalar {
  enum { CONSTANT, INTEGER, FLOAT, STRING } type;
  int64_t integer; /* of a constant: its tag */
  double number;
  zp_bytes string;
} scalar;

static scalar take_scalar(const side *s, place *at) {
  scalar value = {.type = CONSTANT};
  int tag = *at->at;
  if (tag == TAG_STRING || (tag >= TAG_SHORT_STRING && tag <= TAG_SHORT_STRING_LAST)) {
    value.type = STRING;
    get_string(&at->at, s->end, &value.string);
    return value;
  }
  at->at++;
  if (tag == TAG_FLOAT) {
    value.type = FLOAT;
    memcpy(&value.number, at->at, 8);
    at->at += 8;
  } else if (tag >= TAG_SMALL_INTEGER) {
    value.type = INTEGER;
    value.integer = tag - TAG_SMALL_INTEGER + SMALL_INTEGER_MIN;
  } else if (tag >= TAG_INT8 && tag <= TAG_INT64) {
    int size = 1 << (tag - TAG_INT8), unused = 64 - 8 * size;
    uint64_t bits = 0;
    memcpy(&bits, at->at, (size_t)size);
    value.type = INTEGER;
    value.integer = (int64_t)(bits << unused) >> unused;
    at->at += size;
  } else {
    value.integer = tag;
  }
  return value;
}

static bool is_integer(double number, int64_t integer) {
  return number >= -0x1p63 && number < 0x1p63 && floor(number) == number && (int64_t)number == integer;
}

/* As Lua's == has it: numbers by value, whatever their type; NaN equals nothing. */
static bool same_scalar(const scalar *a, const scalar *b) {
  if (a->type == FLOAT && b->type == INTEGER) return is_integer(a->number, b->integer);
  if (a->type == INTEGER && b->type == FLOAT) return is_integer(b->number, a->integer);
  if (a->type != b->type) return false;
  if (a->type == FLOAT) return a->number == b->number;
  if (a->type != STRING) return a->integer == b->integer;
  return a->string.size == b->string.size && memcmp(a->string.data, b->string.data, a->string.size) == 0;
}

/* Compare two values, and pass over them if they are the same, as far as can be seen here: objects are put off. */
static bool same_value(comparison *c, place *a, place *b) {
  bool is = is_object(a);
  if (is != is_object(b)) return false;
  if (is) {
    uint32_t number = take_object(&c->a, a);
    return suppose(c, number, take_object(&c->b, b));
  }
  scalar one = take_scalar(&c->a, a), other = take_scalar(&c->b, b);
  return same_scalar(&one, &other);
}

static void skip_value(const side *s, place *at) {
  if (is_object(at)) take_object(s, at);
  else take_scalar(s, at);
}

static bool settle(comparison *c, size_t pending_count);

/* Whether two pairs with objects as keys are equal; if not, nothing is supposed because of them. */
static bool try_pair(comparison *c, place a, place b) {
  size_t pending_count = c->pending_count;
  uint32_t joined_count = c->joined_count;
  c->nesting++;
  bool same = same_value(c, &a, &b) && same_value(c, &a, &b) && settle(c, pending_count);
  c->nesting--;
  if (!same) take_back(c, joined_count, pending_count);
  return same;
}

/* Pairs with objects as keys, as many in one table as in the other: each has one of the others for itself. */
static bool match_pairs(comparison *c, place a, place b, uint64_t count) {
  if (c->nesting >= NESTING) return false;
  place *others = malloc((size_t)count * sizeof *others);
  if (!others) {
    c->rc = ZP_ENOMEM;
    return false;
  }
  for (uint64_t i = 0; i < count; i++) {
    others[i] = b;
    skip_value(&c->b, &b);
    skip_value(&c->b, &b);
  }
  bool same = true;
  for (uint64_t left = count; left > 0 && same; left--) { /* those that are left are others[0 .. left) */
    uint64_t i = 0;
    while (i < left && !c->rc && !try_pair(c, a, others[i])) i++;
    same = i < left && !c->rc;
    if (same) memmove(others + i, others + i + 1, (size_t)(left - i - 1) * sizeof *others);
    skip_value(&c->a, &a);
    skip_value(&c->a, &a);
  }
  free(others);
  return same;
}

static bool same_table(comparison *c, place a, place b) {
  uint64_t elements, pairs, other_elements, other_pairs;
  get_number(&a.at, c->a.end, &elements);
  get_number(&a.at, c->a.end, &pairs);
  get_number(&b.at, c->b.end, &other_elements);
  get_number(&b.at, c->b.end, &other_pairs);
  if (elements != other_elements || pairs != other_pairs) return false;
  for (uint64_t i = 0; i < elements; i++)
    if (!same_value(c, &a, &b)) return false;
  for (; pairs > 0; pairs--) {
    bool is = is_object(&a); /* as are all further ones */
    if (is != is_object(&b)) return false;
    if (is) return match_pairs(c, a, b, pairs);
    if (!same_value(c, &a, &b) || !same_value(c, &a, &b)) return false;
  }
  return true; /* a metatable is no content */
}

static bool same_sized(comparison *c, place *a, place *b) {
  uint64_t size, other;
  get_number(&a->at, c->a.end, &size);
  get_number(&b->at, c->b.end, &other);
  if (size != other || memcmp(a->at, b->at, (size_t)size) != 0) return false;
  a->at += size;
  b->at += size;
  return true;
}

static bool same_function(comparison *c, place a, place b) {
  if (!same_sized(c, &a, &b)) return false;
  uint64_t upvalues, other;
  get_number(&a.at, c->a.end, &upvalues);
  get_number(&b.at, c->b.end, &other);
  bool same = upvalues == other;
  for (; same && upvalues > 0; upvalues--) same = same_value(c, &a, &b);
  return same;
}

static size_t count_globals(const side *s, uint32_t environment) {
  size_t count = 0;
  if (!s->objects[environment].has_globals) return 0;
  for (size_t i = 0; i < s->global_count; i++) count += s->globals[i].environment == environment;
  return count;
}

/* The globals that came with two environments. */
static bool same_globals(comparison *c, uint32_t a, uint32_t b) {
  size_t count = count_globals(&c->a, a);
  if (count != count_globals(&c->b, b)) return false;
  for (size_t i = 0; count > 0 && i < c->a.global_count; i++) {
    const global *one = &c->a.globals[i], *other = NULL;
    if (one->environment != a) continue;
    for (size_t j = 0; j < c->b.global_count && !other; j++) {
      const global *candidate = &c->b.globals[j];
      if (candidate->environment == b && candidate->name.size == one->name.size &&
          memcmp(candidate->name.data, one->name.data, one->name.size) == 0)
        other = candidate;
    }
    if (!other) return false;
    place at = {one->value, one->next}, there = {other->value, other->next};
    if (!same_value(c, &at, &there)) return false;
  }
  return true;
}

/* Look at what two objects of one kind are made of. */
static bool same_content(comparison *c, uint32_t number_a, uint32_t number_b) {
  const object *one = &c->a.objects[number_a], *other = &c->b.objects[number_b];
  place a = {one->begin, number_a + 1}, b = {other->begin, number_b + 1};
  if (c->nesting > 0 && c->steps++ >= STEPS) return false;
  switch (one->tag) {
    case TAG_TABLE: return same_table(c, a, b) && same_globals(c, number_a, number_b);
    case TAG_FUNCTION: return same_function(c, a, b);
    case TAG_NAME: return same_sized(c, &a, &b);
    case TAG_CELL: return same_value(c, &a, &b);
    default: return same_globals(c, number_a, number_b);
  }
}

/* Look at what is pending but for the first so many. */
static bool settle(comparison *c, size_t pending_count) {
  while (c->pending_count > pending_count) {
    pair next = c->pending[--c->pending_count];
    if (same_content(c, next.a, next.b)) continue;
    if (c->nesting > 0 && c->steps < STEPS && !c->rc) note_different(c, next.a, next.b);
    return false;
  }
  return true;
}

static int compare(comparison *c, zp_bytes a, zp_bytes b) {
  int rc = scan(&c->a, a);
  if (!rc) rc = scan(&c->b, b);
  if (rc) return rc == ZP_EDECODE ? 0 : rc; /* what is no value equals nothing but its own bytes */
  place one = {(const unsigned char *)a.data + 1, 0}, other = {(const unsigned char *)b.data + 1, 0};
  if (c->a.count == 0 || c->b.count == 0) return same_value(c, &one, &other);
  size_t count = (size_t)c->a.count + c->b.count;
  c->parents = malloc(3 * (count + 1) * sizeof *c->parents);
  if (!c->parents) return ZP_ENOMEM;
  c->sizes = c->parents + count;
  c->joined = c->sizes + count;
  for (size_t i = 0; i < count; i++) {
    c->parents[i] = (uint32_t)i;
    c->sizes[i] = 1;
  }
  bool same = same_value(c, &one, &other) && settle(c, 0);
  return c->rc ? c->rc : same;
}

/* Whether there could be a NaN among the bytes, which is not equal to itself. */
static bool may_have_nan(zp_bytes bytes) {
  const unsigned char *data = bytes.data;
  for (size_t i = 9; i < bytes.size; i++)
    if ((data[i] & 0x7f) == 0x7f && data[i - 1] >= 0xf0 && data[i - 8] == TAG_FLOAT) return true;
  return false;
}

static bool has_version(zp_bytes bytes) {
  return bytes.size >= 2 && (*(const unsigned char *)bytes.data & ~FORMAT_FLAGS) == FORMAT_VERSION;
}

/* Whether the tags of two values tell that they differ, as those of most values that do. */
static bool differ_at_once(zp_bytes a, zp_bytes b) {
  const unsigned char *one = a.data, *other = b.data;
  bool is_table = one[1] == TAG_TABLE || one[1] == TAG_META_TABLE, is_other = other[1] == TAG_TABLE || other[1] == TAG_META_TABLE;
  if (!is_table || !is_other) return is_table != is_other;
  return a.size > 3 && b.size > 3 && one[2] != other[2]; /* the count of elements, or the beginning of it */
}

int zp_value_equal(zp_bytes a, zp_bytes b) {
  if (a.size == b.size && memcmp(a.data, b.data, a.size) == 0 && !may_have_nan(a)) return 1;
  if (!has_version(a) || !has_version(b) || differ_at_once(a, b)) return 0;
  comparison c = {.rc = 0};
  int rc = compare(&c, a, b);
  free(c.a.objects);
  free(c.a.globals);
  free(c.b.objects);
  free(c.b.globals);
  free(c.parents);
  free(c.pending);
  free(c.different);
  return rc == ZP_ENOMEM ? zp_fail(ZP_ENOMEM, "out of memory: cannot compare values") : rc;
}
