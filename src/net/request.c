#include "net/request.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "watch/condition.h"

enum { NAMESPACE_MAX = 255, KEY_BYTES_MAX = 4 * ZP_KEY_MAX /* the store says exactly */, WATCHED_MAX = 1 << 16 /* keys of a watcher */ };

/* What the strings of a request are. */
typedef enum kind { NONE, SPACE, KEY, VALUE, BYTES, CURSOR, CLIENT } kind;

typedef struct shape {
  size_t numbers;
  kind strings[ZP_PARCEL_STRINGS];
  bool has_pairs, changes, is_mute;
} shape;

static const shape shapes[ZP_REQUEST_END] = {
    [ZP_REQUEST_HELLO] = {.numbers = 0},
    [ZP_REQUEST_PING] = {.strings = {BYTES}},
    [ZP_REQUEST_PROBE] = {.numbers = 1},
    [ZP_REQUEST_CANCEL] = {.numbers = 1, .is_mute = true},
    [ZP_REQUEST_PROCESSES] = {.numbers = 0},
    [ZP_REQUEST_GET] = {.strings = {SPACE, KEY}},
    [ZP_REQUEST_COUNT] = {.strings = {SPACE}},
    [ZP_REQUEST_RANGE] = {.strings = {SPACE}},
    [ZP_REQUEST_ALL] = {.numbers = 2, .strings = {SPACE}},
    [ZP_REQUEST_COMMIT] = {.numbers = 1, .strings = {SPACE}, .has_pairs = true, .changes = true},
    [ZP_REQUEST_REPLACE] = {.numbers = 1, .strings = {SPACE}, .has_pairs = true, .changes = true},
    [ZP_REQUEST_SETDEFAULT] = {.numbers = 1, .strings = {SPACE, KEY, VALUE}, .changes = true},
    [ZP_REQUEST_POP] = {.numbers = 1, .strings = {SPACE, KEY, BYTES}, .changes = true},
    [ZP_REQUEST_POPITEM] = {.numbers = 1, .strings = {SPACE, KEY, BYTES}, .changes = true},
    [ZP_REQUEST_ATOMIC] = {.numbers = 2, .strings = {SPACE, BYTES}, .changes = true},
    [ZP_REQUEST_WATCH] = {.numbers = 7, .strings = {SPACE, CURSOR, BYTES}, .has_pairs = true},
    [ZP_REQUEST_TASK_ADD] = {.numbers = 6, .strings = {VALUE}, .changes = true},
    [ZP_REQUEST_TASK_PUT] = {.numbers = 3, .strings = {BYTES}, .changes = true},
    [ZP_REQUEST_TASK_ADOPT] = {.numbers = 2, .changes = true},
    [ZP_REQUEST_TASK_SPECIFICATION] = {.numbers = 1},
    [ZP_REQUEST_TASK_BLOCK] = {.numbers = 2},
    [ZP_REQUEST_TASK_DESCRIBE] = {.numbers = 1},
    [ZP_REQUEST_TASK_DROP] = {.numbers = 1},
    [ZP_REQUEST_TASK_DISBAND] = {.numbers = 1},
    [ZP_REQUEST_TASK_TAKE] = {.numbers = 2},
    [ZP_REQUEST_TASK_ACKNOWLEDGE] = {.numbers = 2, .changes = true},
    [ZP_REQUEST_WORKER_ENLIST] = {.numbers = 1, .changes = true},
    [ZP_REQUEST_WORKER_CLAIM] = {.numbers = 2, .strings = {BYTES}, .changes = true},
    [ZP_REQUEST_WORKER_DIED] = {.numbers = 2, .strings = {CLIENT}},
    [ZP_REQUEST_TASK_RECOVER] = {.numbers = 0},
    [ZP_REQUEST_TASK_WAIT] = {.numbers = 1},
    [ZP_REQUEST_SUMMARY] = {.numbers = 0},
    [ZP_REQUEST_FETCH] = {.numbers = 1},
};

static bool is_known(int type) { return type > 0 && type < ZP_REQUEST_END; }

bool zp_request_is_write(int type) {
  return type == ZP_REQUEST_COMMIT || type == ZP_REQUEST_REPLACE || type == ZP_REQUEST_SETDEFAULT || type == ZP_REQUEST_POP ||
         type == ZP_REQUEST_POPITEM;
}

bool zp_request_changes(int type) { return is_known(type) && shapes[type].changes; }

bool zp_request_is_mute(int type) { return is_known(type) && shapes[type].is_mute; }

static bool fits(kind what, zp_bytes bytes) {
  switch (what) {
    case SPACE: return bytes.size > 0 && bytes.size <= NAMESPACE_MAX && !memchr(bytes.data, 0, bytes.size);
    case KEY: return bytes.size <= KEY_BYTES_MAX;
    case VALUE: return bytes.size > 0;
    case CURSOR: return bytes.size == sizeof(zp_watch_cursor);
    case CLIENT: return bytes.size == ZP_CLIENT_SIZE;
    default: return true;
  }
}

static int fail(int type) { return zp_fail(ZP_EDECODE, "a request of type %d that is none", type); }

/* What the numbers of some requests must be. */
static bool is_sensible(int type, const zp_parcel *parcel) {
  const uint64_t *numbers = parcel->numbers;
  switch (type) {
    case ZP_REQUEST_WATCH:
      if (isnan(zp_parcel_to_double(numbers[4])) || !(zp_parcel_to_double(numbers[5]) >= 0)) return false;
      if (numbers[1] == ZP_WATCH_CHANGE || numbers[1] == ZP_WATCH_UPDATE) return parcel->pair_count <= WATCHED_MAX;
      return numbers[1] <= ZP_WHEN_PREDICATE && parcel->pair_count <= 1;
    case ZP_REQUEST_TASK_ADD: return numbers[0] != 0 && numbers[2] >= 1 && numbers[3] >= 1;
    case ZP_REQUEST_TASK_PUT: return numbers[1] <= UINT32_MAX;
    case ZP_REQUEST_TASK_WAIT: return !isnan(zp_parcel_to_double(numbers[0]));
    case ZP_REQUEST_WORKER_CLAIM: return isfinite(zp_parcel_to_double(numbers[1]));
    case ZP_REQUEST_WORKER_ENLIST: return numbers[0] != 0;
    default: return true;
  }
}

int zp_request_read(int type, zp_bytes body, zp_parcel *parcel) {
  if (!is_known(type)) return zp_fail(ZP_EUSAGE, "this server knows no request of type %d", type);
  const shape *expected = &shapes[type];
  int rc = zp_parcel_read(body, parcel, NULL);
  if (rc) return rc;
  if (parcel->number_count != expected->numbers || (parcel->pair_count > 0 && !expected->has_pairs)) return fail(type);
  for (size_t i = 0; i < ZP_PARCEL_STRINGS; i++) {
    bool is_wanted = expected->strings[i] != NONE;
    if (is_wanted != (i < parcel->string_count)) return fail(type);
    if (is_wanted && !fits(expected->strings[i], parcel->strings[i])) return fail(type);
  }
  zp_parcel_walk walk;
  zp_change pair;
  for (zp_parcel_walk_begin(&walk, parcel); zp_parcel_walk_next(&walk, &pair);) {
    if (!fits(KEY, pair.key) && type != ZP_REQUEST_WATCH) return fail(type);
    if (pair.value.data && !fits(VALUE, pair.value)) return fail(type);
  }
  return is_sensible(type, parcel) ? 0 : fail(type);
}
