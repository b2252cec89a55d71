#include "store/store.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/random.h"
#include "store/handle.h"
#include "store/write.h"
#include "sys/interrupt.h"
#include "store/room.h"

enum { NAME_MAX_BYTES = 255 };

int zp_store_open(const char *directory, const char *name, zp_store **out) {
  *out = NULL;
  size_t name_size = strlen(name);
  if (name_size == 0 || name_size > NAME_MAX_BYTES)
    return zp_fail(ZP_EKEY, "the name of a namespace has 1 to %d bytes, not %zu", NAME_MAX_BYTES, name_size);
  zp_store *store = calloc(1, sizeof *store);
  char cwd[PATH_MAX] = "";
  if (!store) goto no_memory;
  /* The first use may come after a chdir. */
  if (directory[0] != '/' && !getcwd(cwd, sizeof cwd)) {
    free(store);
    return zp_fail_errno("cannot open the store %s: getcwd", directory);
  }
  store->directory = cwd[0] ? zp_env_path(cwd, directory) : strdup(directory);
  store->name = strdup(name);
  if (!store->directory || !store->name) goto no_memory;
  store->generation = zp_env_generation;
  store->lock_deadline = ZP_FOREVER;
  *out = store;
  return 0;
no_memory:
  zp_store_close(&store);
  return zp_fail(ZP_ENOMEM, "out of memory: cannot open a store");
}

/* Forget what belongs to an ancestor. Nothing is closed: the reader's slot, the lock, and the files are the ancestor's;
   its environment stays in the list of env.c with all that hangs on it. */
static void forget(zp_store *store) {
  store->env = NULL;
  store->reader = NULL;
  store->reading = store->locked = store->walking = false;
  store->author = 0;
  store->generation = zp_env_generation;
}

int zp_store_wake_slowly(zp_store *store) {
  if (store->generation != zp_env_generation) forget(store);
  return store->env ? 0 : zp_env_acquire(store->directory, &store->env);
}

int zp_store_refuse(void) {
  return zp_fail(ZP_EATOMIC, "the state is in use by an atomic function of this very process");
}

int zp_store_check(zp_store *store) { return zp_store_wake(store); }

void zp_store_close(zp_store **handle) {
  zp_store *store = *handle;
  if (!store) return;
  *handle = NULL;
  if (store->generation != zp_env_generation) forget(store);
  zp_store_read_end(store);
  zp_store_unlock(store);
  if (store->env) zp_env_release(store->env);
  zp_buf_free(&store->walk_key);
  zp_buf_free(&store->record);
  free(store->directory);
  free(store->name);
  free(store);
}

int zp_store_identity(zp_store *store, uint64_t *identity) {
  int rc = zp_store_wake(store);
  if (!rc) *identity = store->env->control->identity;
  return rc;
}

bool zp_store_is_synced(const zp_store *store) { return store->env->control->is_synced; }

const char *zp_store_directory(const zp_store *store) { return store->directory; }
const char *zp_store_namespace(const zp_store *store) { return store->name; }

uint64_t zp_store_author(zp_store *store) {
  if (store->generation != zp_env_generation) forget(store);
  if (store->author == 0) store->author = zp_random_number();
  return store->author;
}

void zp_store_set_author(zp_store *store, uint64_t author) {
  if (store->generation != zp_env_generation) forget(store);
  store->author = author;
}

/* Say on stderr who is waited for: once for each wait, and once in this process for each time that somebody holds the lock. */
static void tell_of_holder(const zp_env *env) {
  static _Atomic uint64_t told;
  zp_holder holder;
  char words[ZP_HOLDER_WORDS];
  if (!zp_holder_look(&env->control->holder, &holder) || atomic_exchange(&told, holder.count) == holder.count) return;
  fprintf(stderr, "zproc: process %d waits to change the state in %s: %s\n", (int)env->pid, env->directory, zp_holder_words(&holder, words));
}

static int fail_held(const zp_env *env) {
  zp_holder holder;
  char words[ZP_HOLDER_WORDS];
  if (!zp_holder_look(&env->control->holder, &holder)) return zp_fail(ZP_ETIMEOUT, "others have held the lock of the state all the time");
  return zp_fail(ZP_ETIMEOUT, "the lock of the state was not free in time: %s", zp_holder_words(&holder, words));
}

/* A robust mutex survives the death of its owner, but not every death of a waiter: one that is killed between being
   woken and taking the mutex takes the wake-up with it, and if a third process has come in meanwhile without seeing
   that others sleep, nobody is woken again. So a waiter looks for itself now and then, for a signal of the process as well: the
   owner may have been stopped. 0, an error number, ZP_EINTR, or ZP_ETIMEOUT. */
static int wait_for_writer(const zp_store *store, pthread_mutex_t *writer) {
  static const double LOOK_SECONDS = 0.02, PATIENCE_SECONDS = 2;
  double tell_at = zp_clock_now() + PATIENCE_SECONDS;
  int rc;
  do {
    if (zp_interrupt_has_signal()) return ZP_EINTR;
    double now = zp_clock_now(), left = store->lock_deadline - now;
    if (left <= 0) return fail_held(store->env);
    if (now >= tell_at) {
      tell_of_holder(store->env);
      tell_at = ZP_FOREVER;
    }
    rc = zp_clock_lock(writer, left < LOOK_SECONDS ? left : LOOK_SECONDS);
  } while (rc == EBUSY || rc == ETIMEDOUT);
  return rc;
}

void zp_store_set_lock_deadline(zp_store *store, double deadline) { store->lock_deadline = deadline; }

void zp_store_set_place(zp_store *store, const char source[ZP_HOLDER_SOURCE], unsigned line) {
  memcpy(store->source, source, sizeof store->source);
  store->line = line;
}

static int lock_with(zp_store *store, bool may_wait) {
  unsigned line = store->line;
  store->line = 0;
  int rc = zp_store_wake(store);
  if (rc) return rc;
  if (store->locked) return zp_store_refuse();
  zp_store_read_end(store); /* it would not see what was committed while this waited */
  pthread_mutex_t *writer = &store->env->control->writer;
  rc = pthread_mutex_trylock(writer);
  if (rc == EBUSY && may_wait) rc = wait_for_writer(store, writer);
  if (rc == EBUSY || rc == ZP_EINTR || rc == ZP_ETIMEOUT) return rc == EBUSY ? ZP_EBUSY : rc;
  rc = zp_env_settle(store->env, rc);
  if (rc < 0) pthread_mutex_unlock(writer);
  if (rc) return zp_env_fail(store->env, rc, "cannot lock");
  if (atomic_load_explicit(&store->env->control->retired, memory_order_relaxed)) { /* while this waited */
    pthread_mutex_unlock(writer);
    return zp_store_fail_retired(store);
  }
  zp_holder_enter(&store->env->control->holder, store->env->pid, store->source, line);
  store->locked = true;
  atomic_store_explicit(&store->env->lock_thread, zp_env_thread(), memory_order_relaxed);
  return 0;
}

int zp_store_lock(zp_store *store) { return lock_with(store, true); }

int zp_store_try_lock(zp_store *store) { return lock_with(store, false); }

void zp_store_unlock(zp_store *store) {
  if (!zp_store_is_locked(store)) return;
  store->locked = false;
  atomic_store_explicit(&store->env->lock_thread, NULL, memory_order_relaxed);
  zp_holder_leave(&store->env->control->holder);
  pthread_mutex_unlock(&store->env->control->writer);
}

bool zp_store_is_locked(const zp_store *store) { return store->locked && store->generation == zp_env_generation; }

/* mdb_reader_list prints a heading, then a line for each slot in use. */
static int count_line(const char *line, void *context) {
  uint32_t *lines = context;
  for (; *line; line++)
    if (*line == '\n') ++*lines;
  return 0;
}

int zp_store_describe(zp_store *store, zp_store_info *info) {
  *info = (zp_store_info){0};
  bool reading = store->reading && store->generation == zp_env_generation;
  int rc = reading ? 0 : zp_store_read_begin(store);
  if (rc) return rc;
  zp_env *env = store->env;
  MDB_envinfo mdb;
  MDB_cursor *log = NULL;
  zp_log_span span;
  struct stat data;
  mdb_filehandle_t fd;
  size_t free_pages;
  rc = zp_room_free(store->reader->txn, &free_pages);
  if (!rc) rc = mdb_env_info(env->mdb, &mdb);
  if (!rc) rc = mdb_env_get_fd(env->mdb, &fd);
  if (!rc && fstat(fd, &data) < 0) rc = errno;
  if (!rc) rc = mdb_cursor_open(store->reader->txn, env->log, &log);
  if (!rc) rc = zp_log_span_find(log, &span);
  mdb_cursor_close(log);
  if (!rc) {
    size_t used = mdb.me_last_pgno + 1;
    info->allocated_bytes = (uint64_t)data.st_size;
    info->used_bytes = (used > free_pages ? used - free_pages : 0) * env->page_size;
    info->history_bytes = span.newest_total - span.first_total;
    info->oldest = span.oldest;
    info->newest = span.newest;
    info->limits = env->control->limits;
    uint32_t lines = 0;
    if (mdb_reader_list(env->mdb, count_line, &lines) >= 0) info->readers = lines > 0 ? lines - 1 : 0;
  }
  if (!reading) zp_store_read_end(store);
  return zp_env_fail(env, rc, "cannot describe");
}
