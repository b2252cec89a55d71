#include "store/room.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/allocate.h"
#include "sys/interrupt.h"

enum {
  STEP_MAX = 64 << 20, /* the file doubles until then */
  STEP_MIN = 64 << 10
};

static void end_resize(zp_env *env) {
  zp_env_unlock_size(env);
  pthread_rwlock_unlock(&env->map_lock);
}

/* Wait until no other thread of this process is in a section. 0, ZP_EINTR if a signal is to be taken, ZP_ESYS. */
static int lock_map(zp_env *env) {
  static const double LOOK_SECONDS = 0.02;
  for (double deadline = zp_clock_now() + zp_env_patience;;) {
    int rc = zp_clock_wrlock(&env->map_lock, LOOK_SECONDS);
    if (rc == 0) return 0;
    if (zp_interrupt_has_signal()) return ZP_EINTR;
    if (zp_clock_now() < deadline) continue;
    return zp_fail(ZP_ESYS, "the state cannot be mapped anew: another thread of this process has read it for %g seconds", zp_env_patience);
  }
}

/* Keep other threads out of the map and other processes off the file. */
static int begin_resize(zp_env *env) {
  if (zp_env_inside(env))
    return zp_fail(ZP_EATOMIC, "the store %s has to be remapped while this thread reads it through another handle",
                   env->directory);
  int rc = lock_map(env);
  if (rc) return rc;
  rc = zp_env_lock_size(env);
  if (rc) pthread_rwlock_unlock(&env->map_lock);
  if (rc || !env->unmapped) return rc;
  rc = zp_env_reopen(env); /* perhaps there is memory by now */
  if (rc) end_resize(env);
  return rc;
}

static int data_file(zp_env *env, int *fd, off_t *size) {
  struct stat status;
  int rc = mdb_env_get_fd(env->mdb, fd);
  if (rc) return zp_env_fail(env, rc, "cannot resize");
  if (fstat(*fd, &status) < 0) return zp_fail_errno("cannot resize the store %s", env->directory);
  *size = status.st_size;
  return 0;
}

/* Whether there is memory for so much more of a map. LMDB unmaps first, and would be left with none. */
static int try_memory(int fd, size_t from, size_t to) {
  void *more = to > from ? mmap(NULL, to - from, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)from) : NULL;
  if (more == MAP_FAILED) return errno;
  if (more) munmap(more, to - from);
  return 0;
}

/* 0, or ours: then the map is as it was, unless another thread has taken just that memory in between. */
static int map(zp_env *env, int fd, off_t size) {
  if ((size_t)size == env->map_size) return 0;
  int rc = try_memory(fd, env->map_size, (size_t)size);
  if (rc) return zp_env_fail(env, rc, "cannot map the state");
  if (mdb_env_set_mapsize(env->mdb, (size_t)size)) return zp_env_reopen(env);
  env->map_size = (size_t)size;
  return 0;
}

int zp_room_remap(zp_env *env) {
  int fd = -1;
  off_t size;
  int rc = begin_resize(env);
  if (rc) return rc;
  rc = data_file(env, &fd, &size);
  if (!rc) rc = map(env, fd, size);
  end_resize(env);
  return rc;
}

/* Extend the file by `step`, all or nothing, if this process can map that as well. Nobody maps what is beyond the size at which the size
   lock was taken, so a piece that was had in vain may be cut off again. */
static int extend(zp_env *env, int fd, off_t size, off_t step) {
  int code = zp_allocate(fd, size, size + step);
  if (!code) code = try_memory(fd, env->map_size, (size_t)(size + step));
  if (!code) return 0;
  while (ftruncate(fd, size) < 0 && errno == EINTR) continue;
  return code;
}

int zp_room_grow(zp_env *env, size_t pages) {
  int fd = -1;
  off_t size = 0;
  int rc = begin_resize(env);
  if (rc) return rc;
  mdb_reader_check(env->mdb, NULL); /* the dead need not hold pages back */
  rc = data_file(env, &fd, &size);
  if (rc) goto out;

  off_t wanted = (off_t)(pages * env->page_size + STEP_MIN - 1) & ~(off_t)(STEP_MIN - 1);
  off_t gained = size - (off_t)env->map_size; /* grown by one who then died, or by another process */
  if (gained < wanted) {
    wanted -= gained;
    off_t step = size < STEP_MAX ? size & ~(off_t)(STEP_MIN - 1) : STEP_MAX;
    if (step < wanted) step = wanted;
    if (step < STEP_MIN) step = STEP_MIN;
    int code;
    while (zp_is_full(code = extend(env, fd, size, step)) || code == ENOMEM) {
      if (step == STEP_MIN) break;
      step = step / 2 & ~(off_t)(STEP_MIN - 1);
      if (step < STEP_MIN) step = STEP_MIN;
    }
    if (!code) size += step;
    else if (gained == 0) rc = zp_env_fail(env, code, "cannot grow");
  }
  if (!rc) rc = map(env, fd, size);
out:
  end_resize(env);
  return rc;
}

size_t zp_room_tail(zp_env *env) {
  MDB_envinfo info = {.me_mapsize = 0};
  if (env->unmapped) return 0;
  mdb_env_info(env->mdb, &info);
  size_t pages = info.me_mapsize / env->page_size, used = info.me_last_pgno + 2; /* LMDB never uses the very last page */
  return pages > used ? pages - used : 0;
}

int zp_room_free(MDB_txn *txn, size_t *pages) {
  *pages = 0;
  MDB_cursor *cursor;
  int rc = mdb_cursor_open(txn, 0, &cursor); /* tree 0 is the free list: transaction -> count, pages */
  if (rc) return rc;
  MDB_val key, data;
  for (rc = mdb_cursor_get(cursor, &key, &data, MDB_FIRST); !rc; rc = mdb_cursor_get(cursor, &key, &data, MDB_NEXT))
    *pages += *(const size_t *)data.mv_data;
  mdb_cursor_close(cursor);
  return rc == MDB_NOTFOUND ? 0 : rc;
}
