#include "watch/condition.h"

#include <stdbool.h>
#include <string.h>

#include "codec/value.h"

/* ---- predicates: their view of the store ---- */

typedef struct view_context {
  zp_store *store;
  uint64_t revision;
  zp_watch *watch;
  zp_buf value; /* what was read last */
  int rc;       /* the first failure to note a read */
} view_context;

static int begin(view_context *view) { return view->rc ? view->rc : zp_store_read_begin_as_of(view->store, view->revision); }

static int view_get(void *context, zp_bytes key, zp_bytes *value) {
  view_context *view = context;
  int rc = begin(view);
  if (rc) return rc;
  rc = zp_store_get(view->store, key, value);
  if (rc == 1) {
    zp_buf_clear(&view->value, ZP_PAGE_BYTES);
    int bad = zp_buf_append(&view->value, value->data, value->size);
    if (bad) rc = bad;
    *value = zp_buf_bytes(&view->value);
  }
  zp_store_read_end(view->store);
  return rc;
}

static int view_walk(void *context, const zp_bytes *after, size_t most, zp_page *page) {
  view_context *view = context;
  zp_bytes key, value;
  int rc = begin(view);
  if (rc) return rc;
  rc = after ? zp_store_seek(view->store, *after, &key, &value) : zp_store_first(view->store, &key, &value);
  if (rc == 1 && after && key.size == after->size && memcmp(key.data, after->data, key.size) == 0)
    rc = zp_store_next(view->store, &key, &value);
  while (rc == 1) {
    rc = zp_page_add(page, key, value);
    if (rc || page->count >= most || page->bytes.size >= ZP_PAGE_BYTES) break;
    rc = zp_store_next(view->store, &key, &value);
  }
  zp_store_read_end(view->store);
  return rc;
}

static int view_count(void *context, uint64_t *count) {
  view_context *view = context;
  int rc = begin(view);
  if (rc) return rc;
  rc = zp_store_count(view->store, count);
  zp_store_read_end(view->store);
  return rc;
}

static void view_read(void *context, const zp_bytes *key) {
  view_context *view = context;
  int rc = zp_watch_read(view->watch, key);
  if (rc && !view->rc) view->rc = rc;
}

static int test_predicate(zp_predicate *predicate, zp_store *store, uint64_t revision, zp_watch *watch) {
  view_context context = {.store = store, .revision = revision, .watch = watch};
  zp_view view = {&context, view_get, view_walk, view_count, view_read};
  int rc = zp_predicate_test(predicate, &view);
  zp_buf_free(&context.value);
  return rc;
}

/* ---- values ---- */

static int test_value(const zp_condition *condition, zp_store *store) {
  zp_bytes value;
  int rc = zp_store_get(store, condition->key, &value);
  if (rc < 0) return rc;
  switch (condition->kind) {
    case ZP_WHEN_EQUAL: return rc ? zp_value_equal(condition->value, value) : 0;
    case ZP_WHEN_NOT_EQUAL:
      if (rc) rc = zp_value_equal(condition->value, value);
      else return 0;
      return rc < 0 ? rc : !rc;
    case ZP_WHEN_NONE: return !rc || zp_value_is_none(value);
    case ZP_WHEN_NOT_NONE: return rc && !zp_value_is_none(value);
    default: return rc;
  }
}

int zp_condition_test(void *context, zp_store *store, uint64_t revision, zp_watch *watch) {
  const zp_condition *condition = context;
  if (condition->kind == ZP_WHEN_PREDICATE) return test_predicate(condition->predicate, store, revision, watch);
  int rc = zp_watch_read(watch, &condition->key);
  if (!rc) rc = zp_store_read_begin_as_of(store, revision);
  if (rc) return rc;
  rc = test_value(condition, store);
  zp_store_read_end(store);
  return rc;
}
