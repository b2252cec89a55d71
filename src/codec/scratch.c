#include "codec/scratch.h"

#include <lauxlib.h>
#include <string.h>

#include "base/err.h"
#include "codec/format.h"

#define VISITS_FIRST 64
#define PAIRS_FIRST 32
#define VISITS_KEEP 16384 /* beyond these the memory is given back after the encoding */
#define PAIRS_KEEP 4096
#define BYTES_KEEP 65536
#define INSERTION_MAX 16 /* a run that is sorted by insertion */

static const char scratch_key;

static void *resize(zp_scratch *s, void *memory, size_t old_size, size_t size) {
  return s->alloc(s->alloc_context, memory, memory ? old_size : 0, size);
}

static void free_visits(zp_scratch *s) {
  if (s->visits) resize(s, s->visits, s->visit_capacity * sizeof *s->visits, 0);
  s->visits = NULL;
  s->visit_capacity = 0;
}

static void free_pairs(zp_scratch *s) {
  if (s->pairs) resize(s, s->pairs, s->pair_capacity * sizeof *s->pairs, 0);
  if (s->order) resize(s, s->order, s->pair_capacity * sizeof *s->order, 0);
  s->pairs = NULL;
  s->order = NULL;
  s->pair_capacity = 0;
}

static int collect_scratch(lua_State *L) {
  zp_scratch *s = lua_touserdata(L, 1);
  free_visits(s);
  free_pairs(s);
  if (s->marked) resize(s, s->marked, s->marked_count * sizeof *s->marked, 0);
  s->marked = NULL;
  s->marked_count = 0;
  zp_buf_free(&s->code);
  zp_buf_free(&s->bytes);
  zp_buf_free(&s->path);
  return 0;
}

zp_scratch *zp_scratch_new(lua_State *L) {
  zp_scratch *s = lua_newuserdatauv(L, sizeof *s, 1);
  memset(s, 0, sizeof *s);
  s->alloc = lua_getallocf(L, &s->alloc_context);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, collect_scratch);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  lua_newtable(L);
  lua_setiuservalue(L, -2, 1);
  return s;
}

zp_scratch *zp_scratch_push(lua_State *L) {
  lua_rawgetp(L, LUA_REGISTRYINDEX, &scratch_key);
  zp_scratch *s = lua_touserdata(L, -1);
  if (s) return s;
  lua_pop(L, 1);
  s = zp_scratch_new(L);
  lua_pushvalue(L, -1);
  lua_rawsetp(L, LUA_REGISTRYINDEX, &scratch_key);
  return s;
}

void zp_scratch_mark(lua_State *L, const void *object) {
  zp_scratch *s = zp_scratch_push(L);
  lua_pop(L, 1);
  if (zp_scratch_is_marked(s, object)) return;
  size_t size = s->marked_count * sizeof *s->marked;
  const void **marked = resize(s, s->marked, size, size + sizeof *marked);
  if (!marked) luaL_error(L, "not enough memory");
  s->marked = marked;
  marked[s->marked_count++] = object;
  s->marked_filter |= zp_scratch_filter_bit(object);
}

void zp_scratch_begin(zp_scratch *s) {
  s->visit_count = 0;
  s->pair_count = 0;
  s->code.size = s->path.size = 0;
  if (++s->generation == 0) { /* once in four billion encodings: old generations would come to life */
    if (s->visits) memset(s->visits, 0, s->visit_capacity * sizeof *s->visits);
    s->generation = 1;
  }
}

void zp_scratch_end(lua_State *L, int idx, zp_scratch *s) {
  s->pair_count = 0;
  if (s->visit_capacity > VISITS_KEEP) free_visits(s);
  if (s->pair_capacity > PAIRS_KEEP) free_pairs(s);
  zp_buf_clear(&s->code, BYTES_KEEP);
  zp_buf_clear(&s->path, BYTES_KEEP);
  if (s->kept > 0) {
    lua_newtable(L);
    lua_setiuservalue(L, idx, 1);
    s->kept = 0;
  }
}

/* ---- objects met ---- */

static size_t place_of(const zp_scratch *s, const void *object) {
  uint64_t hash = (uint64_t)(uintptr_t)object * UINT64_C(0x9e3779b97f4a7c15);
  return (size_t)(hash >> 32) & (s->visit_capacity - 1);
}

bool zp_scratch_find(const zp_scratch *s, const void *object, uint32_t *number) {
  if (s->visit_count == 0) return false;
  size_t mask = s->visit_capacity - 1;
  for (size_t place = place_of(s, object);; place = (place + 1) & mask) {
    const zp_visit *visit = &s->visits[place];
    if (visit->generation != s->generation) return false;
    if (visit->object == object) {
      *number = visit->number;
      return true;
    }
  }
}

static void insert_visit(zp_scratch *s, const void *object, uint32_t number) {
  size_t mask = s->visit_capacity - 1, place = place_of(s, object);
  while (s->visits[place].generation == s->generation) place = (place + 1) & mask;
  s->visits[place] = (zp_visit){object, s->generation, number};
}

static int grow_visits(zp_scratch *s) {
  zp_visit *old = s->visits;
  size_t old_capacity = s->visit_capacity, capacity = old ? 2 * old_capacity : VISITS_FIRST;
  zp_visit *visits = resize(s, NULL, 0, capacity * sizeof *visits);
  if (!visits) return zp_fail(ZP_ENOMEM, "out of memory: %zu objects in one value", old_capacity);
  memset(visits, 0, capacity * sizeof *visits);
  s->visits = visits;
  s->visit_capacity = capacity;
  for (size_t i = 0; i < old_capacity; i++) {
    if (old[i].generation == s->generation) insert_visit(s, old[i].object, old[i].number);
  }
  if (old) resize(s, old, old_capacity * sizeof *old, 0);
  return 0;
}

int zp_scratch_add(zp_scratch *s, const void *object, uint32_t number) {
  if (2 * (s->visit_count + 1) > s->visit_capacity) {
    int rc = grow_visits(s);
    if (rc) return rc;
  }
  insert_visit(s, object, number);
  s->visit_count++;
  return 0;
}

/* ---- pairs ---- */

int zp_scratch_grow_pairs(zp_scratch *s) {
  size_t old = s->pair_capacity, capacity = old ? 2 * old : PAIRS_FIRST;
  zp_pair *pairs = capacity <= UINT32_MAX ? resize(s, NULL, 0, capacity * sizeof *pairs) : NULL;
  if (!pairs) return zp_fail(ZP_ENOMEM, "out of memory: %zu pairs in one value", old);
  zp_order *order = resize(s, NULL, 0, capacity * sizeof *order);
  if (!order) {
    resize(s, pairs, capacity * sizeof *pairs, 0);
    return zp_fail(ZP_ENOMEM, "out of memory: %zu pairs in one value", old);
  }
  if (old > 0) {
    memcpy(pairs, s->pairs, old * sizeof *pairs);
    memcpy(order, s->order, old * sizeof *order);
    free_pairs(s);
  }
  s->pairs = pairs;
  s->order = order;
  s->pair_capacity = capacity;
  return 0;
}

static bool is_before(const zp_scratch *s, const zp_order *a, const zp_order *b) {
  if (a->kind != b->kind) return a->kind < b->kind;
  if (a->prefix != b->prefix) return a->prefix < b->prefix;
  const zp_item *x = &s->pairs[a->pair].key, *y = &s->pairs[b->pair].key;
  if (a->kind < KIND_STRING) return false;
  size_t common = x->size < y->size ? x->size : y->size;
  int difference = common > 0 ? memcmp(x->as.string, y->as.string, common) : 0;
  return difference ? difference < 0 : x->size < y->size;
}

static void sort_by_insertion(const zp_scratch *s, zp_order *order, size_t count) {
  for (size_t i = 1; i < count; i++) {
    zp_order moved = order[i];
    size_t to = i;
    for (; to > 0 && is_before(s, &moved, &order[to - 1]); to--) order[to] = order[to - 1];
    order[to] = moved;
  }
}

static void sift_down(const zp_scratch *s, zp_order *order, size_t root, size_t count) {
  zp_order moved = order[root];
  for (;;) {
    size_t child = 2 * root + 1;
    if (child >= count) break;
    if (child + 1 < count && is_before(s, &order[child], &order[child + 1])) child++;
    if (!is_before(s, &moved, &order[child])) break;
    order[root] = order[child];
    root = child;
  }
  order[root] = moved;
}

static void sort_by_heap(const zp_scratch *s, zp_order *order, size_t count) {
  for (size_t i = count / 2; i-- > 0;) sift_down(s, order, i, count);
  for (size_t last = count - 1; last > 0; last--) {
    zp_order first = order[0];
    order[0] = order[last];
    order[last] = first;
    sift_down(s, order, 0, last);
  }
}

static void swap(zp_order *a, zp_order *b) {
  zp_order kept = *a;
  *a = *b;
  *b = kept;
}

/* Quicksort with the median of three; what defeats it is finished by heapsort, so that no order of keys is slow. */
static void sort_range(const zp_scratch *s, zp_order *order, size_t count, int rounds) {
  while (count > INSERTION_MAX) {
    if (rounds-- == 0) {
      sort_by_heap(s, order, count);
      return;
    }
    zp_order *middle = &order[count / 2], *last = &order[count - 1];
    if (is_before(s, middle, order)) swap(middle, order);
    if (is_before(s, last, middle)) {
      swap(last, middle);
      if (is_before(s, middle, order)) swap(middle, order);
    }
    zp_order pivot = *middle;
    size_t i = 0, j = count - 1;
    for (;;) { /* what is left of i is not above the pivot, what is right of j is not below */
      do i++;
      while (is_before(s, &order[i], &pivot));
      do j--;
      while (is_before(s, &pivot, &order[j]));
      if (i >= j) break;
      swap(&order[i], &order[j]);
    }
    size_t left = j + 1;
    if (left < count - left) {
      sort_range(s, order, left, rounds);
      order += left;
      count -= left;
    } else {
      sort_range(s, order + left, count - left, rounds);
      count = left;
    }
  }
  sort_by_insertion(s, order, count);
}

void zp_scratch_sort(zp_scratch *s, size_t first) {
  size_t count = s->pair_count - first;
  int rounds = 2;
  for (size_t n = count; n > 1; n /= 2) rounds += 2;
  sort_range(s, s->order + first, count, rounds);
}
