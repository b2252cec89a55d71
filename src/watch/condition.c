#include "watch/condition.h"

#include <stdbool.h>
#include <string.h>

#include "codec/value.h"

/* ---- predicates: their view of the store ---- */

typedef struct view_context {
  zp_store *store;
  zp_watch *watch;
  int rc; /* the first failure to note a read */
} view_context;

static int view_get(void *context, zp_bytes key, zp_bytes *value) {
  view_context *view = context;
  return view->rc ? view->rc : zp_store_get(view->store, key, value);
}

static int view_first(void *context, zp_bytes *key, zp_bytes *value) {
  view_context *view = context;
  return view->rc ? view->rc : zp_store_first(view->store, key, value);
}

static int view_next(void *context, zp_bytes *key, zp_bytes *value) {
  view_context *view = context;
  return view->rc ? view->rc : zp_store_next(view->store, key, value);
}

static void view_read(void *context, const zp_bytes *key) {
  view_context *view = context;
  int rc = zp_watch_read(view->watch, key);
  if (rc && !view->rc) view->rc = rc;
}

static int test_predicate(zp_predicate *predicate, zp_store *store, zp_watch *watch) {
  view_context context = {.store = store, .watch = watch};
  zp_view view = {&context, view_get, view_first, view_next, view_read};
  return zp_predicate_test(predicate, &view);
}

/* ---- values ---- */

static bool equals(const zp_condition *condition, zp_bytes value) {
  for (size_t i = 0; i < condition->value_count; i++)
    if (condition->values[i].size == value.size && memcmp(condition->values[i].data, value.data, value.size) == 0)
      return true;
  return false;
}

int zp_condition_test(void *context, zp_store *store, zp_watch *watch) {
  const zp_condition *condition = context;
  if (condition->kind == ZP_WHEN_PREDICATE) return test_predicate(condition->predicate, store, watch);
  int rc = zp_watch_read(watch, &condition->key);
  if (rc) return rc;
  zp_bytes value;
  rc = zp_store_get(store, condition->key, &value);
  if (rc < 0) return rc;
  switch (condition->kind) {
    case ZP_WHEN_EQUAL: return rc && equals(condition, value);
    case ZP_WHEN_NOT_EQUAL: return rc && !equals(condition, value);
    case ZP_WHEN_NONE: return !rc || zp_value_is_none(value);
    case ZP_WHEN_NOT_NONE: return rc && !zp_value_is_none(value);
    default: return rc;
  }
}
