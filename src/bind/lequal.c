/*
 * lequal -- whether a State has the same content as another, or as a plain table: `state == { ... }`.
 *
 * Both sides become pairs of bytes, which are compared by content (zp_value_equal); so nothing is decoded, and no code of values runs.
 */
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "base/err.h"
#include "bind/core.h"
#include "bind/lerror.h"
#include "bind/lpairs.h"
#include "bind/lremote.h"
#include "bind/lstate.h"
#include "codec/value.h"

/* Push the pairs of the table or State at idx; NULL if it holds what cannot be in a state. May raise. */
static zp_batch *push_content(lua_State *L, int idx) {
  if (zp_lstate_is(L, idx)) return zp_lpairs_newest(L, zp_lstate_check(L, idx));
  if (zp_lremote_is(L, idx)) return zp_lremote_push_newest(L, zp_lremote_check(L, idx));
  if (!lua_istable(L, idx)) return NULL;
  zp_batch *all = zp_lpairs_push(L);
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1)) {
    int top = lua_gettop(L);
    int rc = zp_batch_add(all, L, top - 1, top);
    if (rc == ZP_EKEY || rc == ZP_EENCODE) return NULL;
    if (rc) zp_lua_raise(L, rc);
  }
  return all;
}

static int by_key(const void *a, const void *b) {
  const zp_bytes *one = &((const zp_change *)a)->key, *other = &((const zp_change *)b)->key;
  size_t common = one->size < other->size ? one->size : other->size;
  int difference = memcmp(one->data, other->data, common);
  return difference ? difference : (one->size > other->size) - (one->size < other->size);
}

/* core.same_content(a, b) -> boolean: each is a State or a table. */
static int core_same_content(lua_State *L) {
  luaL_checkstack(L, 8, NULL);
  lua_settop(L, 2);
  zp_batch *one = push_content(L, 1), *other = one ? push_content(L, 2) : NULL;
  int same = other && zp_batch_count(one) == zp_batch_count(other);
  if (same) {
    size_t count = zp_batch_count(one);
    /* The arrays are the batches' own. */
    zp_change *left = (zp_change *)zp_lpairs_all(L, one), *right = (zp_change *)zp_lpairs_all(L, other);
    qsort(left, count, sizeof *left, by_key);
    qsort(right, count, sizeof *right, by_key);
    for (size_t i = 0; i < count && same == 1; i++)
      same = by_key(&left[i], &right[i]) == 0 ? zp_value_equal(left[i].value, right[i].value) : 0;
    if (same < 0) return zp_lua_raise(L, same);
  }
  lua_pushboolean(L, same);
  return 1;
}

void zp_lequal_open(lua_State *L) {
  lua_pushcfunction(L, core_same_content);
  lua_setfield(L, -2, "same_content");
}
