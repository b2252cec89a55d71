#include "net/judges.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "net/peer.h"
#include "sys/bell.h"
#include "sys/program.h"
#include "sys/thread.h"
#include "watch/condition.h"

enum {
  MOST = 32, /* judges at a time */
  KEPT = 4   /* that have nothing to do */
};
static const double GRACE_SECONDS = 1; /* beyond the limit of a predicate, which ends itself, until its judge is killed */

typedef struct judge {
  zp_peer process;
  uint64_t knows; /* a number for the predicate that it has evaluated last */
  struct judge *next;
} judge;

struct zp_judges {
  char *directory;
  pthread_mutex_t lock; /* of all below */
  pthread_cond_t has_room;
  judge *idle; /* the one that was used last is first */
  size_t idle_count, count;
};

/* The numbers of a request, and of an answer. */
enum { ASK_REVISION, ASK_SECONDS, ASK_BYTES, ASK_COUNT };
enum { SAY_CODE /* below 0 as a positive number */, SAY_HOLDS, SAY_ALL /* it depends on every key */, SAY_COUNT };

int zp_judges_open(const char *directory, zp_judges **out) {
  zp_judges *self = *out = calloc(1, sizeof *self);
  if (self && !(self->directory = strdup(directory))) {
    free(self);
    *out = self = NULL;
  }
  if (!self) return zp_fail(ZP_ENOMEM, "out of memory: cannot serve");
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&self->has_room, &attributes);
  pthread_condattr_destroy(&attributes);
  pthread_mutex_init(&self->lock, NULL);
  return 0;
}

static void free_judge(judge *one) {
  zp_peer_end(&one->process);
  free(one);
}

void zp_judges_close(zp_judges **handle) {
  zp_judges *self = *handle;
  if (!self) return;
  *handle = NULL;
  while (self->idle) {
    judge *one = self->idle;
    self->idle = one->next;
    free_judge(one);
  }
  pthread_cond_destroy(&self->has_room);
  pthread_mutex_destroy(&self->lock);
  free(self->directory);
  free(self);
}

/* ---- who judges ---- */

/* Take one that has nothing to do, best one that knows the predicate; NULL if there is none. Under the lock. */
static judge *take_idle(zp_judges *self, uint64_t predicate) {
  judge **best = &self->idle;
  for (judge **link = &self->idle; *link; link = &(*link)->next)
    if ((*link)->knows == predicate) {
      best = link;
      break;
    }
  judge *one = *best;
  if (!one) return NULL;
  *best = one->next;
  self->idle_count--;
  return one;
}

/* Count one less, and let somebody else make one. */
static void make_room(zp_judges *self) {
  pthread_mutex_lock(&self->lock);
  self->count--;
  pthread_cond_signal(&self->has_room);
  pthread_mutex_unlock(&self->lock);
}

static void dismiss(zp_judges *self, judge *one) {
  free_judge(one);
  make_room(self);
}

/* Wait for a place among the judges. 0 with one that is idle, or with NULL and a place for another. */
static int await_place(zp_judges *self, uint64_t predicate, judge **one) {
  int rc = 0;
  pthread_mutex_lock(&self->lock);
  while (!(*one = take_idle(self, predicate)) && self->count >= MOST && !rc) {
    struct timespec until;
    zp_clock_instant(zp_clock_now() + ZP_PEER_LOOK_MILLISECONDS / 1e3, &until);
    pthread_cond_timedwait(&self->has_room, &self->lock, &until);
    if (zp_thread_is_to_stop()) rc = ZP_EINTR;
  }
  if (!rc && !*one) self->count++;
  pthread_mutex_unlock(&self->lock);
  return rc;
}

static int take(zp_judges *self, uint64_t predicate, judge **out) {
  for (;;) {
    int rc = await_place(self, predicate, out);
    if (rc) return rc;
    if (!*out) break;
    if (!zp_peer_has_ended(&(*out)->process)) return 0;
    dismiss(self, *out); /* it was killed while it had nothing to do */
  }
  const char *arguments[] = {"--judge", self->directory, NULL};
  judge *one = *out = calloc(1, sizeof *one);
  int rc = one ? zp_peer_start(arguments, -1, &one->process) : zp_fail(ZP_ENOMEM, "out of memory: cannot evaluate a predicate");
  if (rc) {
    free(one);
    make_room(self);
  }
  return rc;
}

static void give_back(zp_judges *self, judge *one) {
  pthread_mutex_lock(&self->lock);
  bool is_kept = self->idle_count < KEPT;
  if (is_kept) {
    one->next = self->idle;
    self->idle = one;
    self->idle_count++;
    pthread_cond_signal(&self->has_room);
  }
  pthread_mutex_unlock(&self->lock);
  if (!is_kept) dismiss(self, one);
}

/* ---- asking ---- */

static int ask(judge *one, const zp_judges_question *question, zp_store *store, uint64_t revision, zp_buf *bytes, zp_buf *pairs, zp_parcel *reply) {
  const char *space = zp_store_namespace(store);
  zp_parcel request = {ZP_NUMBERS(revision, zp_parcel_of_double(question->limits.seconds), question->limits.bytes), .string_count = 2};
  request.strings[0] = (zp_bytes){space, strlen(space)};
  request.strings[1] = question->function;
  zp_peer_grant(&one->process, question->limits.seconds + GRACE_SECONDS);
  int rc = zp_peer_send(&one->process, &request);
  if (!rc) rc = zp_peer_receive(&one->process, bytes, pairs, reply);
  bool is_sound = !rc && reply->number_count == SAY_COUNT && reply->string_count == 2;
  return rc || is_sound ? rc : zp_fail(ZP_ESYS, "the process that evaluates predicates gives no sense");
}

/* What a judge has found: as a zp_watch_test. */
static int take_verdict(zp_judges_question *question, zp_watch *watch, const zp_parcel *reply) {
  int rc = reply->numbers[SAY_ALL] ? zp_watch_read(watch, NULL) : 0;
  for (size_t i = 0; i < reply->pair_count && !rc; i++) rc = zp_watch_read(watch, &reply->pairs[i].key);
  if (rc) return rc;
  if (reply->numbers[SAY_CODE] == 0) return reply->numbers[SAY_HOLDS] != 0;
  question->traceback.size = 0;
  rc = zp_buf_append(&question->traceback, reply->strings[1].data, reply->strings[1].size);
  if (!rc) rc = zp_buf_append_byte(&question->traceback, '\0');
  if (rc) return rc;
  return zp_fail(-(int)reply->numbers[SAY_CODE], "%.*s", (int)reply->strings[0].size, (const char *)reply->strings[0].data);
}

int zp_judges_test(zp_judges *self, zp_judges_question *question, zp_store *store, uint64_t revision, zp_watch *watch) {
  uint64_t predicate = zp_bell_tag("", question->function);
  zp_buf bytes = ZP_BUF_INIT, pairs = ZP_BUF_INIT;
  zp_parcel reply;
  char words[64];
  int rc = ZP_ESYS;
  for (int i = 0; i < 2 && (rc == ZP_ESYS || rc == ZP_EBUSY); i++) {
    judge *one;
    rc = take(self, predicate, &one);
    if (rc) break;
    rc = ask(one, question, store, revision, &bytes, &pairs, &reply);
    if (rc == 0) {
      one->knows = predicate;
      give_back(self, one);
      rc = take_verdict(question, watch, &reply);
      break;
    }
    if (rc == ZP_ESYS || rc == ZP_EBUSY) {
      zp_peer_bury(&one->process, words, sizeof words);
      zp_fail(ZP_ESYS, "the process that evaluated the predicate %s", rc == ZP_EBUSY ? "was stopped" : words);
    } else if (rc == ZP_EBUDGET) {
      zp_fail(ZP_EBUDGET, "the predicate was stopped: it took more time than the %g seconds that it may", question->limits.seconds);
    }
    dismiss(self, one);
  }
  zp_buf_free(&bytes);
  zp_buf_free(&pairs);
  return rc == ZP_EBUSY ? ZP_ESYS : rc;
}

/* ---- a judge ---- */

/* The handle for the namespace, instead of the last one. */
static int use_store(const char *directory, zp_bytes space, zp_store **store) {
  char *name = strndup(space.data, space.size);
  zp_store *next = NULL;
  if (!name) return zp_fail(ZP_ENOMEM, "out of memory: cannot evaluate a predicate");
  bool is_same = *store && strcmp(zp_store_namespace(*store), name) == 0;
  int rc = is_same ? 0 : zp_store_open(directory, name, &next);
  if (!rc && !is_same) rc = zp_store_check(next); /* before the last one goes, so that the files stay open */
  free(name);
  if (rc || is_same) {
    zp_store_close(&next);
    return rc;
  }
  zp_store_close(store);
  *store = next;
  return 0;
}

/* Evaluate: 0 or 1, or an error with what a predicate leaves. `predicate` stays open, for its traceback. */
static int judge_request(const char *directory, const zp_parcel *request, zp_vm *vm, zp_store **store, zp_predicate **predicate, zp_watch **watch) {
  zp_vm_limits limits = {zp_parcel_to_double(request->numbers[ASK_SECONDS]), (size_t)request->numbers[ASK_BYTES]};
  zp_watch_cursor cursor = {.revision = 0};
  zp_watch_options options = {.test = zp_condition_test};
  int rc = use_store(directory, request->strings[0], store);
  if (!rc) rc = zp_watch_open(*store, &cursor, &options, watch);
  if (!rc) rc = zp_predicate_load(vm, request->strings[1], &limits, predicate);
  if (rc) return rc == ZP_EDECODE ? ZP_EENCODE : rc;
  zp_condition condition = {.kind = ZP_WHEN_PREDICATE, .predicate = *predicate};
  return zp_condition_test(&condition, *store, request->numbers[ASK_REVISION], *watch);
}

/* The parcel of the verdict, as bytes. */
static int write_verdict(int rc, const zp_predicate *predicate, const zp_watch *watch, zp_buf *keys, zp_parcel *reply) {
  const char *detail = rc < 0 ? zp_error_detail() : "", *traceback = rc < 0 && predicate ? zp_predicate_traceback(predicate) : "";
  bool all = watch && zp_watch_reads_all(watch);
  zp_bytes key;
  int failed = 0;
  for (size_t i = 0, offset = 0; watch && !all && !failed && zp_watch_next_read(watch, &i, &offset, &key);) {
    zp_change pair = {.key = key};
    failed = zp_buf_append(keys, &pair, sizeof pair);
  }
  *reply = (zp_parcel){ZP_NUMBERS(rc < 0 ? (uint64_t)-rc : 0, rc > 0, all), .string_count = 2,
                       .pairs = (const zp_change *)keys->data, .pair_count = keys->size / sizeof(zp_change)};
  reply->strings[0] = (zp_bytes){detail, strlen(detail)};
  reply->strings[1] = (zp_bytes){traceback, strlen(traceback)};
  return failed;
}

static int judge_one(const char *directory, const zp_peer *server, const zp_parcel *request, zp_vm *vm, zp_store **store) {
  zp_predicate *predicate = NULL;
  zp_watch *watch = NULL;
  zp_buf keys = ZP_BUF_INIT;
  zp_parcel reply;
  if (request->number_count != ASK_COUNT || request->string_count != 2) return zp_fail(ZP_EDECODE, "the server gives no sense");
  int rc = judge_request(directory, request, vm, store, &predicate, &watch);
  rc = write_verdict(rc, predicate, watch, &keys, &reply);
  if (!rc) rc = zp_peer_send(server, &reply);
  zp_watch_close(&watch);
  zp_predicate_close(&predicate);
  zp_buf_free(&keys);
  return rc;
}

int zp_judge_main(const char *directory) {
  zp_peer server = {.fd = ZP_PROGRAM_DESCRIPTOR};
  zp_buf bytes = ZP_BUF_INIT, pairs = ZP_BUF_INIT;
  zp_parcel request;
  zp_vm *vm = NULL;
  zp_store *store = NULL;
  int rc = zp_peer_follow(server.fd);
  if (!rc) rc = zp_vm_open(&vm);
  while (!rc && !(rc = zp_peer_receive(&server, &bytes, &pairs, &request))) rc = judge_one(directory, &server, &request, vm, &store);
  bool is_over = rc == ZP_ESYS; /* the server has gone */
  if (!is_over) fprintf(stderr, "zproc: a process that evaluates predicates ends: %s\n", zp_error_detail());
  zp_store_close(&store);
  zp_vm_close(&vm);
  zp_buf_free(&bytes);
  zp_buf_free(&pairs);
  return is_over ? EXIT_SUCCESS : EXIT_FAILURE;
}
