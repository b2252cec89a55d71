#include "net/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "net/peer.h"
#include "store/holder.h"
#include "sys/limit.h"
#include "sys/thread.h"

static const double LIMIT_SECONDS = 30; /* unless the environment says otherwise */

struct zp_runner {
  char *directory;
  double limit; /* seconds that a function may take */
  zp_judges *judges;
  pthread_mutex_t turn; /* of all below */
  zp_peer process;
  int lock; /* a file that is locked as long as a server here, or its process, is alive */
};

/* ---- the server's end ---- */

static double read_limit(void) {
  const char *text = getenv("ZPROC_ATOMIC_LIMIT");
  char *end;
  double seconds = text ? strtod(text, &end) : 0;
  return text && *text && *end == '\0' && seconds > 0 ? seconds : LIMIT_SECONDS;
}

static int open_lock(zp_runner *self) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/atomics", self->directory);
  self->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (self->lock >= 0) return 0;
  if (errno == ENOENT) return zp_fail(ZP_ENOSTORE, "the state that was in %.200s has ended", self->directory);
  return zp_fail_errno("cannot make %.200s", path);
}

int zp_runner_open(const char *directory, zp_runner **out) {
  zp_runner *self = calloc(1, sizeof *self);
  *out = self;
  if (self) self->directory = strdup(directory);
  if (!self || !self->directory) {
    free(self);
    *out = NULL;
    return zp_fail(ZP_ENOMEM, "out of memory: cannot serve");
  }
  self->process.fd = self->lock = -1;
  self->limit = read_limit();
  pthread_mutex_init(&self->turn, NULL);
  int rc = open_lock(self);
  if (!rc) rc = zp_judges_open(directory, &self->judges);
  if (rc) zp_runner_close(out);
  return rc;
}

bool zp_runner_is_settled(zp_runner *self) {
  return flock(self->lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

static int start(zp_runner *self) {
  const char *arguments[] = {"--run-atomics", self->directory, NULL};
  return zp_peer_start(arguments, self->lock, &self->process);
}

void zp_runner_close(zp_runner **handle) {
  zp_runner *self = *handle;
  if (!self) return;
  *handle = NULL;
  zp_judges_close(&self->judges);
  zp_peer_end(&self->process);
  if (self->lock >= 0) close(self->lock);
  pthread_mutex_destroy(&self->turn);
  free(self->directory);
  free(self);
}

zp_judges *zp_runner_judges(zp_runner *self) { return self->judges; }

static int await_turn(zp_runner *self) {
  for (;;) {
    if (zp_clock_lock(&self->turn, ZP_PEER_LOOK_MILLISECONDS / 1e3) == 0) return 0;
    if (zp_thread_is_to_stop()) return ZP_EINTR;
  }
}

/* Whether the author has changed the state after a revision: 1, 0, or an error if that is not to be known. */
static int has_changed(zp_store *store, uint64_t author, uint64_t revision) {
  zp_log_record record;
  /* Whatever the dead one has left half done is settled by who has the lock next. */
  int rc = zp_store_try_lock(store);
  if (rc == ZP_EBUSY) rc = 0;
  if (rc) return rc;
  zp_store_unlock(store);
  rc = zp_store_read_begin(store);
  if (rc) return rc;
  uint64_t newest = zp_store_read_revision(store);
  bool found = false;
  while (rc == 0 && !found && revision < newest) {
    int there = zp_store_log(store, ++revision, &record);
    if (there < 0) rc = there;
    else found = there == 1 && record.author == author;
  }
  zp_store_read_end(store);
  return rc ? rc : found;
}

/* There is no result of the function. Its process has died, or is to, since what else it has to say is of no use. */
static int fail_died(zp_runner *self, zp_store *store, uint64_t author, uint64_t revision) {
  char words[64];
  zp_peer_bury(&self->process, words, sizeof words);
  int changed = has_changed(store, author, revision);
  if (changed == ZP_EINTR) return changed;
  if (changed == 0) return zp_fail(ZP_ESYS, "the process that ran the atomic function %s; nothing has changed", words);
  return zp_fail(ZP_ESTALE, "the process that ran the atomic function %s; it %s the state, but its result is lost", words,
                 changed == 1 ? "has changed" : "may have changed");
}

/* Its time is up: it is killed, whatever it does. Perhaps it has only waited for somebody else. */
static int fail_late(zp_runner *self, zp_store *store, uint64_t author, uint64_t revision) {
  char words[64], others[ZP_HOLDER_WORDS + 64] = "", about[ZP_HOLDER_WORDS];
  zp_holder holder;
  if (zp_store_find_holder(self->directory, &holder) && holder.pid != self->process.pid)
    snprintf(others, sizeof others, "; it has waited for the lock of the state: %s", zp_holder_words(&holder, about));
  zp_peer_end(&self->process);
  int changed = has_changed(store, author, revision);
  snprintf(words, sizeof words, "%s", changed == 0 ? "nothing has changed" : changed == 1 ? "it has changed the state" : "it may have changed the state");
  return zp_fail(changed == 0 ? ZP_EBUDGET : ZP_ESTALE, ZP_LIMIT_WORDS "%s", self->limit, words, others);
}

static int newest_of(zp_store *store, uint64_t *revision) {
  int rc = zp_store_read_begin(store);
  if (rc) return rc;
  *revision = zp_store_read_revision(store);
  zp_store_read_end(store);
  return 0;
}

int zp_runner_run(zp_runner *self, zp_store *store, const zp_parcel *request, zp_answer *answer) {
  zp_buf bytes = ZP_BUF_INIT, pairs = ZP_BUF_INIT;
  zp_parcel reply;
  uint64_t before = 0;
  int rc = await_turn(self);
  if (rc) return rc;
  if (self->process.pid && zp_peer_has_ended(&self->process)) zp_peer_end(&self->process); /* killed while it had nothing to do */
  if (!self->process.pid) rc = start(self);
  if (!rc) rc = newest_of(store, &before);
  if (!rc && zp_thread_is_to_stop()) rc = ZP_EINTR; /* given up while it waited */
  bool is_asked = rc == 0;
  self->process.deadline = zp_clock_now() + self->limit;
  if (!rc) rc = zp_peer_send(&self->process, request);
  if (!rc) rc = zp_peer_receive(&self->process, &bytes, &pairs, &reply);
  if (!rc) rc = zp_answer_done(answer, &reply);
  self->process.deadline = 0;
  if (rc == ZP_EINTR && is_asked) zp_peer_end(&self->process);
  else if (rc == ZP_ETIMEOUT && is_asked) rc = fail_late(self, store, request->numbers[0], before);
  else if (rc && is_asked) rc = fail_died(self, store, request->numbers[0], before);
  pthread_mutex_unlock(&self->turn);
  zp_buf_free(&bytes);
  zp_buf_free(&pairs);
  return rc;
}

/* ---- the runner's end ---- */

int zp_runner_receive(int fd, zp_buf *bytes, zp_parcel *request) {
  zp_buf pairs = ZP_BUF_INIT;
  int rc = zp_peer_receive(&(zp_peer){.fd = fd}, bytes, &pairs, request);
  zp_buf_free(&pairs); /* there are none */
  return rc == ZP_ESYS ? 0 : rc ? rc : 1;
}

int zp_runner_reply(int fd, const zp_parcel *reply) { return zp_peer_send(&(zp_peer){.fd = fd}, reply); }

int zp_runner_follow(int fd) {
  fcntl(ZP_RUNNER_LOCK, F_SETFD, FD_CLOEXEC); /* it is no matter of the programs that functions start */
  return zp_peer_follow(fd);
}
