/*
 * condition -- what a watcher can wait for, as tests for watch.h: the value of one key, compared without any Lua,
 * or a predicate of the user, evaluated in a sandbox.
 *
 * A condition is plain data that borrows its key, value and predicate. Errors: 0, 1 or ZP_E*; never raises.
 */
#ifndef ZP_WATCH_CONDITION_H
#define ZP_WATCH_CONDITION_H

#include "base/buf.h"
#include "vm/vm.h"
#include "watch/watch.h"

typedef enum zp_condition_kind {
  ZP_WHEN_EQUAL,     /* the key is there and has this value */
  ZP_WHEN_NOT_EQUAL, /* the key is there and has another value */
  ZP_WHEN_NONE,      /* the key is absent or null */
  ZP_WHEN_NOT_NONE,  /* the key is there and not null */
  ZP_WHEN_AVAILABLE, /* the key is there */
  ZP_WHEN_PREDICATE  /* the predicate holds */
} zp_condition_kind;

typedef struct zp_condition {
  zp_condition_kind kind;
  zp_bytes key;
  zp_bytes value; /* of EQUAL and NOT_EQUAL: encoded, and compared by content (zp_value_equal) */
  zp_predicate *predicate;
} zp_condition;

/* A zp_watch_test; the context is a zp_condition. */
int zp_condition_test(void *condition, zp_store *store, uint64_t revision, zp_watch *watch);

#endif
