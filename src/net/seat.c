#include "net/seat.h"

#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/interrupt.h"
#include "sys/thread.h"

/* ---- lists of tasks ---- */

static int remember(zp_buf *list, uint64_t task) { return zp_buf_append(list, &task, sizeof task); }

static size_t count_of(const zp_buf *list) { return list->size / sizeof(uint64_t); }

static uint64_t task_at(const zp_buf *list, size_t i) {
  uint64_t task;
  memcpy(&task, list->data + i * sizeof task, sizeof task);
  return task;
}

static bool has(const zp_buf *list, uint64_t task) {
  for (size_t i = 0; i < count_of(list); i++)
    if (task_at(list, i) == task) return true;
  return false;
}

static void forget(zp_buf *list, uint64_t task) {
  for (size_t i = 0; i < count_of(list); i++) {
    if (task_at(list, i) != task) continue;
    list->size -= sizeof task;
    memmove(list->data + i * sizeof task, list->data + (i + 1) * sizeof task, list->size - i * sizeof task);
    return;
  }
}

/* ---- requests; each gives 0 with the answer, or an error ---- */

static uint32_t cut(uint64_t number) { return number < UINT32_MAX ? (uint32_t)number : UINT32_MAX; }

static int done(zp_answer *answer, zp_parcel parcel) { return zp_answer_done(answer, &parcel); }

static int add(zp_seat *seat, const zp_parcel *request, zp_answer *answer) {
  const uint64_t *numbers = request->numbers;
  zp_task_options options = {.pool = numbers[0], .total = numbers[1], .workers = cut(numbers[2]), .max_attempts = cut(numbers[3]),
                             .is_private = numbers[4] != ZP_TASK_SHARED, .is_elsewhere = true, .chunk = cut(numbers[5])};
  uint64_t task;
  int rc = zp_queue_add(seat->queue, &options, request->strings[0], &task);
  if (rc) return rc;
  /* Without these lists a task would only stay longer than it is needed. */
  if (numbers[4] != ZP_TASK_SHARED) (void)remember(numbers[4] == ZP_TASK_INNER ? &seat->inner : &seat->owned, task);
  if (options.total == ZP_TASK_UNKNOWN) (void)remember(&seat->produced, task);
  return done(answer, (zp_parcel){ZP_NUMBERS(task)});
}

static int put(zp_seat *seat, const zp_parcel *request, zp_answer *answer) {
  uint64_t task = request->numbers[0];
  int rc = zp_queue_put(seat->queue, task, request->numbers[1], request->strings[0], request->numbers[2]);
  if (rc) return rc;
  forget(&seat->produced, task);
  if (!request->numbers[2]) (void)remember(&seat->produced, task);
  return done(answer, (zp_parcel){.number_count = 0});
}

static int specification(zp_seat *seat, const zp_parcel *request, zp_answer *answer) {
  zp_buf bytes = ZP_BUF_INIT;
  int rc = zp_queue_specification(seat->queue, request->numbers[0], &bytes);
  if (rc >= 0) rc = done(answer, (zp_parcel){ZP_NUMBERS((uint64_t)rc), .string_count = 1, .strings = {zp_buf_bytes(&bytes)}});
  zp_buf_free(&bytes);
  return rc;
}

static int block(zp_seat *seat, const zp_parcel *request, zp_answer *answer) {
  zp_buf bytes = ZP_BUF_INIT;
  uint64_t first = 0, items = 0;
  int rc = zp_queue_block(seat->queue, request->numbers[0], request->numbers[1], &first, &items, &bytes);
  if (rc >= 0) {
    zp_parcel parcel = {ZP_NUMBERS((uint64_t)rc, first, items), .string_count = 1, .strings = {zp_buf_bytes(&bytes)}};
    rc = zp_answer_done(answer, &parcel);
  }
  zp_buf_free(&bytes);
  return rc;
}

static int describe(zp_seat *seat, const zp_parcel *request, zp_answer *answer) {
  zp_task_info info = {.total = 0};
  int rc = zp_queue_describe(seat->queue, request->numbers[0], &info);
  if (rc < 0) return rc;
  return done(answer, (zp_parcel){ZP_NUMBERS((uint64_t)rc, info.total, info.put, info.next, info.taken, info.finished, info.pending_bytes,
                                             info.block_bytes, info.active, info.is_produced)});
}

/* Whoever takes the results of a private task is its owner. */
static int own(zp_seat *seat, uint64_t task, bool may_wait) {
  zp_task_info info = {.total = 0};
  if (has(&seat->owned, task) || has(&seat->inner, task)) return 0;
  int rc = zp_queue_describe(seat->queue, task, &info);
  if (rc != 1 || !info.is_elsewhere) return rc < 0 ? rc : 0;
  if (!may_wait) return ZP_EBUSY;
  rc = remember(&seat->owned, task);
  if (rc) return rc;
  rc = zp_queue_own(seat->queue, task);
  if (rc != 1) forget(&seat->owned, task);
  return rc < 0 ? rc : 0;
}

static int take(zp_seat *seat, const zp_parcel *request, bool may_wait, zp_answer *answer) {
  zp_buf bytes = ZP_BUF_INIT;
  zp_result result = {.to = 0};
  int rc = own(seat, request->numbers[0], may_wait);
  if (!rc) rc = zp_queue_arm_result(seat->queue, request->numbers[0], request->numbers[1]);
  if (!rc) seat->is_armed = true;
  if (!rc) rc = zp_queue_take(seat->queue, request->numbers[0], request->numbers[1], &result, &bytes);
  if (rc >= 0) {
    zp_parcel parcel = {ZP_NUMBERS((uint64_t)rc, result.to, result.is_dead, result.attempts), .string_count = 1,
                        .strings = {zp_buf_bytes(&bytes)}};
    rc = zp_answer_done(answer, &parcel);
  }
  zp_buf_free(&bytes);
  return rc;
}

/* The task is there no more. */
static void forget_task(zp_seat *seat, uint64_t task) {
  forget(&seat->produced, task);
  forget(&seat->owned, task);
  forget(&seat->inner, task);
}

static int drop(zp_seat *seat, const zp_parcel *request, zp_answer *answer) {
  int rc = zp_queue_drop(seat->queue, request->numbers[0]);
  if (rc < 0) return rc;
  forget_task(seat, request->numbers[0]);
  return done(answer, (zp_parcel){ZP_NUMBERS((uint64_t)rc)});
}

static int acknowledge(zp_seat *seat, const zp_parcel *request, zp_answer *answer) {
  int rc = zp_queue_acknowledge(seat->queue, request->numbers[0], request->numbers[1]);
  if (rc < 0) return rc;
  if (rc == 1) forget_task(seat, request->numbers[0]);
  return done(answer, (zp_parcel){ZP_NUMBERS((uint64_t)rc)});
}

static int claim(zp_seat *seat, const zp_parcel *request, zp_answer *answer) {
  if (!seat->is_worker) return zp_fail(ZP_ESTALE, "the server does not know this worker any more");
  zp_done result = {request->strings[0], zp_parcel_to_double(request->numbers[1])};
  zp_claim claimed = {.task = 0};
  int rc = zp_queue_arm_work(seat->queue);
  if (!rc) seat->is_armed = true;
  if (!rc) rc = zp_queue_claim(seat->queue, request->numbers[0] ? &result : NULL, &claimed);
  if (rc < 0) return rc;
  return done(answer, (zp_parcel){ZP_NUMBERS((uint64_t)rc, claimed.task, claimed.from, claimed.to, claimed.is_suspect)});
}

static int enlist(zp_seat *seat, const zp_parcel *request, zp_answer *answer) {
  int rc = zp_queue_resign(seat->queue, false);
  if (!rc) seat->is_worker = false;
  if (!rc) rc = zp_queue_enlist(seat->queue, request->numbers[0]);
  if (rc) return rc;
  seat->is_worker = true;
  return done(answer, (zp_parcel){.number_count = 0});
}

static int await(zp_seat *seat, const zp_parcel *request, zp_answer *answer) {
  if (!seat->is_armed) return zp_fail(ZP_ESTALE, "nothing was asked for here that could be waited for");
  double deadline = zp_clock_now() + zp_parcel_to_double(request->numbers[0]);
  int rc;
  do {
    zp_interrupt_arm();
    rc = zp_thread_is_to_stop() ? ZP_EINTR : zp_queue_wait(seat->queue, deadline);
  } while (rc == ZP_EINTR && !zp_thread_is_to_stop());
  zp_interrupt_disarm();
  if (rc && rc != ZP_ETIMEOUT) return rc;
  return done(answer, (zp_parcel){ZP_NUMBERS(rc == 0)});
}

bool zp_seat_only_reads(int type) {
  return type == ZP_REQUEST_TASK_SPECIFICATION || type == ZP_REQUEST_TASK_BLOCK || type == ZP_REQUEST_TASK_DESCRIBE ||
         type == ZP_REQUEST_TASK_TAKE;
}

int zp_seat_execute(zp_seat *seat, const char *directory, int type, const zp_parcel *request, bool may_wait, size_t limit, zp_answer *answer) {
  int rc = seat->queue ? 0 : zp_queue_open(directory, &seat->queue);
  if (rc) return rc;
  zp_queue *queue = seat->queue;
  const uint64_t *numbers = request->numbers;
  zp_queue_limit(queue, may_wait ? SIZE_MAX : limit);
  switch (type) {
    case ZP_REQUEST_TASK_ADD: return add(seat, request, answer);
    case ZP_REQUEST_TASK_PUT: return put(seat, request, answer);
    case ZP_REQUEST_TASK_ADOPT: rc = zp_queue_adopt(queue, numbers[0], numbers[1]); break;
    case ZP_REQUEST_TASK_SPECIFICATION: return specification(seat, request, answer);
    case ZP_REQUEST_TASK_BLOCK: return block(seat, request, answer);
    case ZP_REQUEST_TASK_DESCRIBE: return describe(seat, request, answer);
    case ZP_REQUEST_TASK_DROP: return drop(seat, request, answer);
    case ZP_REQUEST_TASK_DISBAND: rc = zp_queue_disband(queue, numbers[0]); break;
    case ZP_REQUEST_TASK_TAKE: return take(seat, request, may_wait, answer);
    case ZP_REQUEST_TASK_ACKNOWLEDGE: return acknowledge(seat, request, answer);
    case ZP_REQUEST_WORKER_ENLIST: return enlist(seat, request, answer);
    case ZP_REQUEST_WORKER_CLAIM: return claim(seat, request, answer);
    case ZP_REQUEST_TASK_RECOVER: rc = zp_queue_recover(queue); break;
    case ZP_REQUEST_TASK_WAIT: return await(seat, request, answer);
    default: return zp_fail(ZP_EUSAGE, "this server knows no request of type %d about tasks", type);
  }
  return rc < 0 ? rc : done(answer, (zp_parcel){ZP_NUMBERS((uint64_t)rc)});
}

void zp_seat_note(zp_seat *seat, uint64_t item, uint64_t span) {
  if (seat->is_worker) zp_queue_note(seat->queue, item, span);
}

int zp_seat_leave(zp_seat *seat, bool is_dead) {
  int rc = seat->queue ? zp_queue_resign(seat->queue, is_dead) : 0;
  for (size_t i = 0; i < count_of(&seat->produced) && rc >= 0; i++) rc = zp_queue_give_up(seat->queue, task_at(&seat->produced, i));
  for (size_t i = 0; i < count_of(&seat->inner) && rc >= 0; i++) rc = zp_queue_drop(seat->queue, task_at(&seat->inner, i));
  for (size_t i = 0; i < count_of(&seat->owned) && rc >= 0; i++) rc = zp_queue_miss(seat->queue, task_at(&seat->owned, i));
  if (rc < 0 && rc != ZP_ENOSTORE) return rc;
  zp_queue_close(&seat->queue);
  zp_buf_free(&seat->produced);
  zp_buf_free(&seat->owned);
  zp_buf_free(&seat->inner);
  seat->is_worker = seat->is_armed = false;
  return 0;
}
