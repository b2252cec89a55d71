#include "store/env.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "store/check.h"
#include "sys/allocate.h"
#include "sys/interrupt.h"
#include "sys/procfile.h"
#include "sys/trust.h"

unsigned zp_env_generation = 1;
double zp_env_patience = 15;

static struct {
  pthread_mutex_t mutex;
  pthread_once_t once;
  zp_env *envs; /* those of this process, and behind them those of its ancestors */
} registry = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_ONCE_INIT, NULL};

_Thread_local zp_section *zp_env_sections;

enum { KEPT_READERS = 4, IDLE_READERS = 4 };

/* The readers that this thread keeps, one for each of the environments that it has read last. An environment may be closed and gone: the
   serial tells. */
typedef struct kept_reader {
  const zp_env *env;
  uint64_t serial;
  zp_reader *reader;
} kept_reader;
static _Thread_local kept_reader kept[KEPT_READERS];
static _Thread_local bool is_known; /* to the key by which the end of this thread is told */
static pthread_key_t thread_key;
static uint64_t serials;

/* ---- errors ---- */

const char *zp_env_data_directory(const char *directory, char place[PATH_MAX]) {
  char link[PATH_MAX];
  int length = snprintf(link, sizeof link, "%s/data.mdb", directory);
  ssize_t size = length < PATH_MAX ? readlink(link, place, PATH_MAX - 1) : -1;
  if (size <= 0) return directory;
  place[size] = 0;
  char *slash = strrchr(place, '/');
  if (slash) *slash = 0;
  return place;
}

int zp_env_fail_full(const zp_env *env) {
  char place[PATH_MAX], path[PATH_MAX];
  struct stat data;
  unsigned long long used = 0;
  if (snprintf(path, sizeof path, "%s/data.mdb", env->directory) < PATH_MAX && stat(path, &data) == 0)
    used = (unsigned long long)data.st_size;
  struct rlimit limit;
  char words[64] = "";
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
    snprintf(words, sizeof words, "; a file may have %.1f MB here: ulimit -f", (double)limit.rlim_cur / 1e6);
  return zp_fail(ZP_EFULL, "the state is full: no space left in %s (the state uses %.1f MB%s)",
                 zp_env_data_directory(env->directory, place), (double)used / 1e6, words);
}

int zp_env_fail(const zp_env *env, int code, const char *what) {
  if (code == 0 || (code < 0 && code >= ZP_EINTR)) return code;
  if (code == MDB_MAP_FULL || zp_is_full(code)) return zp_env_fail_full(env);
  if (code == ENOMEM) return zp_fail(ZP_ENOMEM, "out of memory: %s", what);
  if (code == MDB_READERS_FULL)
    return zp_fail(ZP_ESTORE, "the store %s has no room for more readers: %d threads and processes read it at present", env->directory,
                   ZP_STORE_READERS);
  if (code == MDB_TXN_FULL) return zp_fail(ZP_EVALUE, "too many changes for one commit");
  if (code > 0) {
    errno = code;
    return zp_fail_errno("%s: the store %s", what, env->directory);
  }
  return zp_fail(ZP_ESTORE, "%s: the store %s: %s", what, env->directory, mdb_strerror(code));
}

/* ---- files ---- */

char *zp_env_path(const char *directory, const char *file) {
  size_t size = strlen(directory) + 1 + strlen(file) + 1;
  char *path = malloc(size);
  if (!path) {
    zp_fail(ZP_ENOMEM, "out of memory: cannot name %s", file);
    return NULL;
  }
  snprintf(path, size, "%s/%s", directory, file);
  return path;
}

/* LMDB uses a lock file that is large enough as it is, and computes the number of readers from its size: 64 bytes a reader
   behind less than a page of its own. */
int zp_env_allocate_lock_file(const char *directory) {
  enum { SIZE = ZP_STORE_READERS * 64 + 4096 };
  struct stat status;
  int fd, rc = zp_trust_open(directory, "lock.mdb", O_RDWR | O_CREAT, &fd);
  if (rc) return rc;
  if (fstat(fd, &status) < 0) {
    rc = zp_fail_errno("cannot open %s/lock.mdb", directory);
  } else if (status.st_size < SIZE) {
    int code = zp_allocate(fd, 0, SIZE);
    if (code) {
      errno = code;
      rc = zp_fail_errno("cannot make %s/lock.mdb", directory);
      if (zp_is_full(code)) rc = ZP_EFULL;
    }
  }
  close(fd);
  return rc;
}

/* ---- the size lock ---- */

/* F_WRLCK or F_UNLCK. 0, ZP_EBUSY if another process has it, ZP_ESYS. */
static int set_size_lock(int fd, short type) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
  while (fcntl(fd, F_SETLK, &lock) < 0) {
    if (errno == EACCES || errno == EAGAIN) return ZP_EBUSY;
    if (errno != EINTR) return zp_fail_errno("cannot lock the file `control` of the store");
  }
  return 0;
}

/* Somebody has it for too long: who? */
static int fail_size_lock(int fd) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
  if (fcntl(fd, F_GETLK, &lock) < 0 || lock.l_type == F_UNLCK) lock.l_pid = 0;
  return zp_fail(ZP_ESYS, "process %d has held the lock on the size of the state for %g seconds; was it stopped?", (int)lock.l_pid, zp_env_patience);
}

/* Wait until the size lock can be had: this process has it then, but not the mutex, so it is to be taken again with that. Whoever has it
   needs it for a moment only, but may have been stopped in the middle: so nobody waits with the mutex in hand, nor for ever, and a signal ends
   it. 0, ZP_EINTR, ZP_ESYS. */
static int await_size_lock(int fd, double deadline) {
  static const double PAUSE = 5e-5, PAUSE_MAX = 5e-3;
  for (double pause = PAUSE; !zp_interrupt_has_signal(); pause = pause < PAUSE_MAX ? 2 * pause : pause) {
    int rc = set_size_lock(fd, F_WRLCK);
    if (rc != ZP_EBUSY) return rc;
    if (zp_clock_now() >= deadline) return fail_size_lock(fd);
    nanosleep(&(struct timespec){.tv_nsec = (long)(pause * 1e9)}, NULL);
  }
  return ZP_EINTR;
}

int zp_env_lock_size(zp_env *env) {
  double deadline = 0;
  for (;;) {
    pthread_mutex_lock(&registry.mutex);
    int rc = set_size_lock(env->control_fd, F_WRLCK);
    if (rc == 0) return 0;
    pthread_mutex_unlock(&registry.mutex);
    if (deadline == 0) deadline = zp_clock_now() + zp_env_patience;
    if (rc == ZP_EBUSY) rc = await_size_lock(env->control_fd, deadline);
    if (rc) return rc;
  }
}

void zp_env_unlock_size(zp_env *env) {
  set_size_lock(env->control_fd, F_UNLCK);
  pthread_mutex_unlock(&registry.mutex);
}

/* ---- control ---- */

void zp_env_read_boot(char boot[ZP_BOOT_SIZE]) {
  memset(boot, 0, ZP_BOOT_SIZE); /* all of it is kept */
  zp_procfile_read(ZP_PROCFILE_BOOT, boot, ZP_BOOT_SIZE);
  boot[strcspn(boot, "\n")] = 0;
}

int zp_env_init_writer_lock(zp_control *control) {
  zp_env_read_boot(control->boot);
  pthread_mutexattr_t attributes;
  int rc = pthread_mutexattr_init(&attributes);
  if (!rc) {
    rc = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    if (!rc) rc = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    memset(&control->writer, 0, sizeof control->writer);
    if (!rc) rc = pthread_mutex_init(&control->writer, &attributes);
    pthread_mutexattr_destroy(&attributes);
  }
  if (!rc) return 0;
  errno = rc;
  return zp_fail_errno("cannot make the lock of a store");
}

/* A mutex that was locked when the machine went down has no owner who could be found dead. Under the size lock. */
static int renew_writer_lock(zp_control *control) {
  char boot[ZP_BOOT_SIZE];
  zp_env_read_boot(boot);
  return !boot[0] || strcmp(boot, control->boot) == 0 ? 0 : zp_env_init_writer_lock(control);
}

static int map_control(zp_env *env) {
  struct stat status;
  if (fstat(env->control_fd, &status) < 0) return zp_fail_errno("cannot read the store %s", env->directory);
  struct {
    char magic[sizeof ZP_STORE_MAGIC];
    uint32_t format, size;
  } head;
  if (pread(env->control_fd, &head, sizeof head, 0) != (ssize_t)sizeof head ||
      memcmp(head.magic, ZP_STORE_MAGIC, sizeof head.magic) != 0)
    return zp_fail(ZP_ESTORE, "%s/control is not the file of a store", env->directory);
  if (head.format != ZP_STORE_FORMAT)
    return zp_fail(ZP_ESTORE, "the store %s has format %u; this program knows format %d", env->directory, head.format,
                   ZP_STORE_FORMAT);
  if (head.size != sizeof(zp_control) || status.st_size < (off_t)sizeof(zp_control))
    return zp_fail(ZP_ESTORE, "the store %s was made by a program for another machine or C library", env->directory);
  void *map = mmap(NULL, sizeof(zp_control), PROT_READ | PROT_WRITE, MAP_SHARED, env->control_fd, 0);
  if (map == MAP_FAILED) return zp_fail_errno("cannot map the store %s", env->directory);
  env->control = map;
  int rc = zp_alive_check_space(&env->control->space, env->directory);
  return rc ? rc : renew_writer_lock(env->control);
}

/* ---- the registry ---- */

/* Whatever the parent's other threads did, this is the only thread here, and the only one that uses the mutex. */
static void after_fork_in_child(void) {
  zp_env_generation++;
  pthread_mutex_init(&registry.mutex, NULL);
  zp_env_sections = NULL;
  memset(kept, 0, sizeof kept);
}

static void give_all_kept(void *unused);

static void watch_forks(void) {
  pthread_atfork(NULL, NULL, after_fork_in_child);
  pthread_key_create(&thread_key, give_all_kept);
}

void zp_env_empty_reader(zp_reader *reader) {
  mdb_cursor_close(reader->point);
  mdb_cursor_close(reader->walk);
  mdb_cursor_close(reader->log);
  mdb_txn_abort(reader->txn);
  reader->point = reader->walk = reader->log = NULL;
  reader->txn = NULL;
}

static void free_env(zp_env *env) {
  while (env->readers) {
    zp_reader *reader = env->readers;
    env->readers = reader->next;
    zp_env_empty_reader(reader);
    free(reader);
  }
  if (env->mdb) mdb_env_close(env->mdb);
  zp_bell_close(&env->bell);
  if (env->control) munmap(env->control, sizeof *env->control);
  if (env->control_fd >= 0) close(env->control_fd);
  pthread_rwlock_destroy(&env->map_lock);
  zp_buf_free(&env->scratch);
  free(env->directory);
  free(env);
}

static int open_trees(zp_env *env) {
  MDB_txn *txn;
  int rc = mdb_txn_begin(env->mdb, NULL, MDB_RDONLY, &txn);
  if (rc) return rc;
  rc = mdb_dbi_open(txn, "namespaces", 0, &env->namespaces);
  if (!rc) rc = mdb_dbi_open(txn, "versions", 0, &env->versions);
  if (!rc) rc = mdb_dbi_open(txn, "log", 0, &env->log);
  if (!rc) return mdb_txn_commit(txn); /* which keeps the trees open */
  mdb_txn_abort(txn);
  return rc;
}

static int fail_moved(const zp_env *env) {
  return zp_fail(ZP_ENOSTORE, "the data of the state in %s were moved or replaced", env->directory);
}

/* Look at what data.mdb leads to before it is used. Whose it may be was decided when the store was made (create.c). */
static int check_data(const zp_env *env, int directory_fd, struct stat *data) {
  char place[PATH_MAX], what[PATH_MAX + 16];
  int fd = openat(directory_fd, "data.mdb", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == EISDIR || errno == ELOOP)) return fail_moved(env);
  if (fd < 0) return zp_fail_errno("cannot read the store %s: data.mdb", env->directory);
  snprintf(what, sizeof what, "%s/data.mdb", zp_env_data_directory(env->directory, place));
  int rc = fstat(fd, data) < 0 ? zp_fail_errno("cannot read the store %s: data.mdb", env->directory) : 0;
  if (!rc && !zp_env_has_data(env->control, data, fd)) rc = fail_moved(env);
  if (!rc) rc = zp_check_head(fd, what);
  close(fd);
  if (rc) return rc;
  if (data->st_uid != env->control->data_owner && !zp_trust_is(data->st_uid)) return zp_trust_fail(what, data->st_uid);
  struct stat own = *data;
  own.st_uid = geteuid();
  return zp_trust_check(&own, ZP_TRUST_PRIVATE, what);
}

/* What LMDB has opened by its name has to be what was looked at. */
static int check_opened(const zp_env *env) {
  mdb_filehandle_t fd;
  struct stat opened;
  int rc = mdb_env_get_fd(env->mdb, &fd);
  if (rc) return rc;
  return fstat(fd, &opened) < 0 ? errno : zp_env_has_data(env->control, &opened, fd) ? 0 : fail_moved(env);
}

/* An LMDB of the system opens the data file for programs that are started as well: afterwards is too late for one that another thread starts
   just then. Ours has done it at the open. */
static int close_data_on_exec(MDB_env *mdb) {
#ifdef MDB_ZPROC
  (void)mdb;
  return 0;
#else
  mdb_filehandle_t fd;
  int rc = mdb_env_get_fd(mdb, &fd);
  if (rc) return rc;
  return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? errno : 0;
#endif
}

/* Under the size lock: mdb_env_open sets the file to the size that it is told. */
static int open_mdb(zp_env *env) {
  unsigned flags = ZP_STORE_MDB_FLAGS | (env->control->is_synced ? 0 : ZP_STORE_MDB_UNSYNCED);
  struct stat data;
  int at = -1;
  char path[32];
  int rc = zp_trust_open_directory(env->directory, ZP_TRUST_PRIVATE, &at);
  if (rc) return rc;
  snprintf(path, sizeof path, "/proc/self/fd/%d", at); /* the directory that was looked at, whatever its name leads to by now */
  rc = check_data(env, at, &data);
  if (!rc) rc = zp_env_allocate_lock_file(env->directory);
  if (rc) {
    close(at);
    return rc;
  }
  rc = mdb_env_create(&env->mdb);
  if (!rc) rc = mdb_env_set_maxdbs(env->mdb, 3);
  if (!rc) rc = mdb_env_set_maxreaders(env->mdb, ZP_STORE_READERS);
  if (!rc) rc = mdb_env_set_mapsize(env->mdb, (size_t)data.st_size);
  if (!rc) rc = mdb_env_open(env->mdb, path, flags, 0600);
  close(at);
  if (!rc) rc = check_opened(env);
  if (!rc) rc = close_data_on_exec(env->mdb);
  if (!rc) rc = open_trees(env);
  MDB_stat stat;
  if (!rc) rc = mdb_env_stat(env->mdb, &stat);
  if (rc) return zp_env_fail(env, rc, "cannot open");
  env->page_size = stat.ms_psize;
  env->map_size = (size_t)data.st_size;
  return 0;
}

int zp_env_reopen(zp_env *env) {
  for (zp_reader *reader = env->readers; reader; reader = reader->next) zp_env_empty_reader(reader);
  if (env->mdb) mdb_env_close(env->mdb);
  env->mdb = NULL;
  int rc = open_mdb(env);
  if (rc && env->mdb) mdb_env_close(env->mdb);
  if (rc) env->mdb = NULL;
  env->unmapped = rc != 0;
  return rc;
}

/* Takes the descriptor and the size lock, in any case. Under the mutex of the registry. */
static int open_env(const char *directory, int control_fd, const struct stat *control, zp_env **out) {
  zp_env *env = calloc(1, sizeof *env);
  if (!env || !(env->directory = strdup(directory))) {
    free(env);
    close(control_fd);
    return zp_fail(ZP_ENOMEM, "out of memory: cannot open a store");
  }
  env->control_fd = control_fd;
  env->dev = control->st_dev;
  env->ino = control->st_ino;
  env->serial = ++serials;
  env->generation = zp_env_generation;
  env->references = 1;
  env->pid = getpid();
  /* Readers must not keep a remap waiting for ever; nested sections do not take the lock again (see zp_env_enter). */
  pthread_rwlockattr_t attributes;
  pthread_rwlockattr_init(&attributes);
  pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  pthread_rwlock_init(&env->map_lock, &attributes);
  pthread_rwlockattr_destroy(&attributes);

  int rc = map_control(env);
  if (!rc) rc = zp_bell_open(env->directory, &env->bell);
  if (!rc) rc = open_mdb(env);
  if (rc) {
    /* Its files are being removed, and some are gone already. */
    if (env->control && atomic_load(&env->control->retired)) rc = zp_fail(ZP_ENOSTORE, "there is no store in %s any more", directory);
    free_env(env); /* closing control ends the size lock */
    return rc;
  }
  set_size_lock(control_fd, F_UNLCK);
  env->next = registry.envs;
  registry.envs = env;
  *out = env;
  return 0;
}

/* The environment of this process with that control file, NULL: none. Under the mutex of the registry. */
static zp_env *find_env(const struct stat *control) {
  zp_env *env = registry.envs;
  while (env && !(env->generation == zp_env_generation && env->dev == control->st_dev && env->ino == control->st_ino))
    env = env->next;
  return env;
}

/* Takes the descriptor, in any case. 0, ZP_EINTR, ... */
static int find_or_open(const char *directory, int fd, const struct stat *control, zp_env **out) {
  double deadline = zp_clock_now() + zp_env_patience;
  for (;;) {
    pthread_mutex_lock(&registry.mutex);
    zp_env *env = find_env(control);
    int rc = env ? 0 : set_size_lock(fd, F_WRLCK);
    if (env) {
      env->references++;
      *out = env;
      close(fd); /* drops this process's fcntl locks on control: nobody relies on one, for that takes the mutex */
    } else if (rc == 0) {
      rc = open_env(directory, fd, control, out);
    } else if (rc != ZP_EBUSY) {
      close(fd);
    }
    pthread_mutex_unlock(&registry.mutex);
    if (rc != ZP_EBUSY) return rc;
    rc = await_size_lock(fd, deadline);
    if (!rc) continue;
    pthread_mutex_lock(&registry.mutex);
    close(fd);
    pthread_mutex_unlock(&registry.mutex);
    return rc;
  }
}

int zp_env_acquire(const char *directory, zp_env **out) {
  pthread_once(&registry.once, watch_forks);
  struct stat control;
  int fd, rc = zp_trust_open(directory, "control", O_RDWR, &fd);
  if (rc == ZP_ENOSTORE) return zp_fail(ZP_ENOSTORE, "there is no store in %s", directory);
  if (rc) return rc;
  if (fstat(fd, &control) < 0) return zp_fail_errno("cannot open the store %s", directory); /* what is open has a status */
  return find_or_open(directory, fd, &control, out);
}

zp_control *zp_env_map_control(const char *directory) {
  pthread_mutex_lock(&registry.mutex); /* or closing it would drop the size lock of another thread */
  int fd = -1;
  struct stat status;
  void *map = MAP_FAILED;
  if (zp_trust_open(directory, "control", O_RDWR, &fd) == 0 && fstat(fd, &status) == 0 && status.st_size >= (off_t)sizeof(zp_control))
    map = mmap(NULL, sizeof(zp_control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0) close(fd);
  pthread_mutex_unlock(&registry.mutex);
  if (map == MAP_FAILED) return NULL;
  zp_control *control = map;
  if (memcmp(control->magic, ZP_STORE_MAGIC, sizeof control->magic) == 0 && control->format == ZP_STORE_FORMAT &&
      control->size == sizeof *control)
    return control;
  munmap(map, sizeof *control);
  return NULL;
}

void zp_env_release(zp_env *env) {
  pthread_mutex_lock(&registry.mutex);
  if (--env->references == 0) {
    zp_env **link = &registry.envs;
    while (*link != env) link = &(*link)->next;
    *link = env->next;
    free_env(env);
  }
  pthread_mutex_unlock(&registry.mutex);
}

/* ---- readers ---- */

/* The first one that nobody has, if possible one with a place. Under the mutex of the registry. */
static zp_reader *find_idle(zp_env *env) {
  zp_reader *found = NULL;
  for (zp_reader *reader = env->readers; reader; reader = reader->next)
    if (!reader->taken && (!found || (reader->txn && !found->txn))) found = reader;
  return found;
}

/* The environment has it again; of those that nobody has, a few keep their places. Under the mutex of the registry. */
static void give_to_env(zp_env *env, zp_reader *reader) {
  unsigned idle = 0;
  for (zp_reader *other = env->readers; other; other = other->next) idle += !other->taken && other->txn;
  if (idle >= IDLE_READERS) zp_env_empty_reader(reader);
  reader->taken = reader->is_reading = false;
  atomic_store_explicit(&reader->keeper, NULL, memory_order_relaxed);
}

/* Its environment, if that is open still. Under the mutex of the registry. */
static zp_env *find_kept(const kept_reader *k) {
  zp_env *env = k->env ? registry.envs : NULL;
  while (env && !(env == k->env && env->serial == k->serial)) env = env->next;
  return env;
}

/* Under the mutex of the registry. */
static void give_kept(kept_reader *k) {
  zp_env *env = find_kept(k);
  if (env) give_to_env(env, k->reader);
  k->env = NULL;
}

/* At the end of a thread. */
static void give_all_kept(void *unused) {
  (void)unused;
  pthread_mutex_lock(&registry.mutex);
  for (kept_reader *k = kept; k < kept + KEPT_READERS; k++) give_kept(k);
  is_known = false;
  pthread_mutex_unlock(&registry.mutex);
}

static bool is_of(const kept_reader *k, const zp_env *env) { return k->env == env && k->serial == env->serial; }

/* This thread keeps the reader, if it keeps none of the environment, instead of the one that it has kept for longest. A thread that cannot tell of its
   end keeps none. Under the mutex of the registry. */
static void keep_reader(zp_env *env, zp_reader *reader) {
  kept_reader *place = NULL, *last = kept + KEPT_READERS - 1;
  for (kept_reader *k = kept; k <= last; k++) {
    if (is_of(k, env)) return;
    if (!place && !(find_kept(k) && k->reader->is_reading)) place = k;
  }
  if (!is_known) is_known = pthread_setspecific(thread_key, kept) == 0;
  if (!place || !is_known) return;
  give_kept(place);
  memmove(place, place + 1, (size_t)(last - place) * sizeof *place);
  *last = (kept_reader){env, env->serial, reader};
  atomic_store_explicit(&reader->keeper, zp_env_thread(), memory_order_relaxed);
}

static int take_slowly(zp_env *env, zp_reader **out) {
  pthread_mutex_lock(&registry.mutex);
  zp_reader *reader = find_idle(env);
  if (!reader && (reader = calloc(1, sizeof *reader))) {
    reader->next = env->readers;
    env->readers = reader;
  }
  if (reader) {
    reader->taken = reader->is_reading = true;
    keep_reader(env, reader);
  }
  pthread_mutex_unlock(&registry.mutex);
  *out = reader;
  return reader ? 0 : zp_fail(ZP_ENOMEM, "out of memory: cannot read the store");
}

int zp_env_find_reader(zp_env *env, zp_reader **out) {
  for (kept_reader *k = kept; k < kept + KEPT_READERS; k++) {
    if (!is_of(k, env) || k->reader->is_reading) continue;
    k->reader->is_reading = true;
    *out = k->reader;
    return 0;
  }
  return take_slowly(env, out);
}

void zp_env_return_reader(zp_env *env, zp_reader *reader) {
  pthread_mutex_lock(&registry.mutex);
  give_to_env(env, reader);
  pthread_mutex_unlock(&registry.mutex);
}

void zp_env_park(zp_env *env) {
  pthread_mutex_lock(&registry.mutex);
  for (kept_reader *k = kept; k < kept + KEPT_READERS; k++)
    if (is_of(k, env) && !k->reader->is_reading) zp_env_empty_reader(k->reader);
  for (zp_reader *reader = env->readers; reader; reader = reader->next)
    if (!reader->taken) zp_env_empty_reader(reader);
  pthread_mutex_unlock(&registry.mutex);
}

/* ---- sections ---- */

bool zp_env_inside(const zp_env *env) {
  for (const zp_section *section = zp_env_sections; section; section = section->next)
    if (section->env == env) return true;
  return false;
}

/* A thread takes map_lock once: taking it again while another thread waits to remap would never end. */
void zp_env_enter(zp_env *env, zp_section *section) {
  section->env = env;
  section->holds = !zp_env_sections || !zp_env_inside(env);
  if (section->holds) pthread_rwlock_rdlock(&env->map_lock);
  section->next = zp_env_sections;
  zp_env_sections = section;
}

void zp_env_leave(zp_section *section) {
  zp_section **link = &zp_env_sections;
  while (*link != section) link = &(*link)->next;
  *link = section->next;
  if (!section->holds) return;
  for (zp_section *other = zp_env_sections; other; other = other->next)
    if (other->env == section->env) {
      other->holds = true;
      return;
    }
  pthread_rwlock_unlock(&section->env->map_lock);
}
