#include "store/env.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

unsigned zp_env_generation = 1;

static struct {
  pthread_mutex_t mutex;
  pthread_once_t once;
  zp_env *envs; /* those of this process, and behind them those of its ancestors */
} registry = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_ONCE_INIT, NULL};

static _Thread_local zp_section *sections; /* that this thread is in */

const void *zp_env_thread(void) { return &sections; }

/* ---- errors ---- */

/* The directory that the data are in: that of the store, or the one to which its data.mdb leads. */
static const char *data_directory(const zp_env *env, char place[PATH_MAX]) {
  char link[PATH_MAX];
  int length = snprintf(link, sizeof link, "%s/data.mdb", env->directory);
  ssize_t size = length < PATH_MAX ? readlink(link, place, PATH_MAX - 1) : -1;
  if (size <= 0) return env->directory;
  place[size] = 0;
  char *slash = strrchr(place, '/');
  if (slash) *slash = 0;
  return place;
}

int zp_env_fail_full(const zp_env *env) {
  char place[PATH_MAX];
  struct stat data;
  mdb_filehandle_t fd;
  unsigned long long used = 0;
  if (env->mdb && mdb_env_get_fd(env->mdb, &fd) == 0 && fstat(fd, &data) == 0) used = (unsigned long long)data.st_size;
  return zp_fail(ZP_EFULL, "the state is full: no space left in %s (the state uses %.1f MB)",
                 data_directory(env, place), (double)used / 1e6);
}

int zp_env_fail(const zp_env *env, int code, const char *what) {
  if (code == 0 || (code < 0 && code >= ZP_EINTR)) return code;
  if (code == MDB_MAP_FULL || code == ENOSPC || code == EDQUOT) return zp_env_fail_full(env);
  if (code == ENOMEM) return zp_fail(ZP_ENOMEM, "out of memory: %s", what);
  if (code == MDB_READERS_FULL)
    return zp_fail(ZP_ESTORE, "the store %s has no room for more readers: %d read it at present", env->directory,
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

/* Small pieces, so that a program with a fast interval timer, whose signals cut a fallocate short, gets on. What was
   allocated before a failure stays. */
int zp_env_allocate(int fd, off_t from, off_t to) {
  enum { PIECE = 1 << 20 };
  while (from < to) {
    off_t size = to - from < PIECE ? to - from : PIECE;
    int rc = posix_fallocate(fd, from, size);
    if (rc == EINTR) continue;
    if (rc) return rc;
    from += size;
  }
  return 0;
}

/* LMDB uses a lock file that is large enough as it is, and computes the number of readers from its size: 64 bytes a reader
   behind less than a page of its own. */
int zp_env_allocate_lock_file(const char *directory) {
  enum { SIZE = ZP_STORE_READERS * 64 + 4096 };
  char *path = zp_env_path(directory, "lock.mdb");
  if (!path) return ZP_ENOMEM;
  int rc = 0;
  struct stat status;
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0 || fstat(fd, &status) < 0) {
    rc = zp_fail_errno("cannot open %s", path);
  } else if (status.st_size < SIZE) {
    int code = zp_env_allocate(fd, 0, SIZE);
    if (code) {
      errno = code;
      rc = zp_fail_errno("cannot make %s", path);
      if (code == ENOSPC || code == EDQUOT) rc = ZP_EFULL;
    }
  }
  if (fd >= 0) close(fd);
  free(path);
  return rc;
}

static int set_size_lock(int fd, short type) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
  while (fcntl(fd, F_SETLKW, &lock) < 0)
    if (errno != EINTR) return zp_fail_errno("cannot lock the file `control` of the store");
  return 0;
}

int zp_env_lock_size(zp_env *env) {
  pthread_mutex_lock(&registry.mutex);
  int rc = set_size_lock(env->control_fd, F_WRLCK);
  if (rc) pthread_mutex_unlock(&registry.mutex);
  return rc;
}

void zp_env_unlock_size(zp_env *env) {
  set_size_lock(env->control_fd, F_UNLCK);
  pthread_mutex_unlock(&registry.mutex);
}

/* ---- control ---- */

void zp_env_read_boot(char boot[ZP_BOOT_SIZE]) {
  FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
  memset(boot, 0, ZP_BOOT_SIZE);
  if (!file) return;
  size_t got = fread(boot, 1, ZP_BOOT_SIZE - 1, file);
  fclose(file);
  boot[got] = 0;
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
  return renew_writer_lock(env->control);
}

/* ---- the registry ---- */

/* Whatever the parent's other threads did, this is the only thread here, and the only one that uses the mutex. */
static void after_fork_in_child(void) {
  zp_env_generation++;
  pthread_mutex_init(&registry.mutex, NULL);
  sections = NULL;
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

static void free_env(zp_env *env) {
  while (env->readers) {
    zp_reader *reader = env->readers;
    env->readers = reader->next;
    mdb_cursor_close(reader->point);
    mdb_cursor_close(reader->walk);
    mdb_cursor_close(reader->log);
    mdb_txn_abort(reader->txn);
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

/* Under the size lock: mdb_env_open sets the file to the size that it is told. */
static int open_mdb(zp_env *env) {
  unsigned flags = ZP_STORE_MDB_FLAGS | (env->control->is_synced ? 0 : ZP_STORE_MDB_UNSYNCED);
  struct stat data;
  char *path = zp_env_path(env->directory, "data.mdb");
  if (!path) return ZP_ENOMEM;
  int rc = stat(path, &data);
  free(path);
  if (rc < 0) return zp_fail_errno("cannot read the store %s: data.mdb", env->directory);
  rc = zp_env_allocate_lock_file(env->directory);
  if (rc) return rc;
  rc = mdb_env_create(&env->mdb);
  if (!rc) rc = mdb_env_set_maxdbs(env->mdb, 3);
  if (!rc) rc = mdb_env_set_maxreaders(env->mdb, ZP_STORE_READERS);
  if (!rc) rc = mdb_env_set_mapsize(env->mdb, (size_t)data.st_size);
  if (!rc) rc = mdb_env_open(env->mdb, env->directory, flags, 0600);
  if (!rc) rc = open_trees(env);
  MDB_stat stat;
  if (!rc) rc = mdb_env_stat(env->mdb, &stat);
  if (rc) return zp_env_fail(env, rc, "cannot open");
  env->page_size = stat.ms_psize;
  env->map_size = (size_t)data.st_size;
  return 0;
}

/* Takes the descriptor, in any case. Under the mutex of the registry. */
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
  env->generation = zp_env_generation;
  env->references = 1;
  /* Readers must not keep a remap waiting for ever; nested sections do not take the lock again (see zp_env_enter). */
  pthread_rwlockattr_t attributes;
  pthread_rwlockattr_init(&attributes);
  pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  pthread_rwlock_init(&env->map_lock, &attributes);
  pthread_rwlockattr_destroy(&attributes);

  int rc = set_size_lock(control_fd, F_WRLCK);
  if (!rc) rc = map_control(env);
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

int zp_env_acquire(const char *directory, zp_env **out) {
  pthread_once(&registry.once, watch_forks);
  char *path = zp_env_path(directory, "control");
  if (!path) return ZP_ENOMEM;
  pthread_mutex_lock(&registry.mutex);
  int rc = 0;
  struct stat control;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) {
    rc = zp_fail(ZP_ENOSTORE, "there is no store in %s", directory);
  } else if (fd < 0 || fstat(fd, &control) < 0) {
    rc = zp_fail_errno("cannot open the store %s", directory);
    if (fd >= 0) close(fd);
  } else {
    zp_env *env = registry.envs;
    while (env && !(env->generation == zp_env_generation && env->dev == control.st_dev && env->ino == control.st_ino))
      env = env->next;
    if (env) {
      close(fd); /* drops this process's fcntl locks on control: none is held, for that takes the mutex */
      env->references++;
      *out = env;
    } else {
      rc = open_env(directory, fd, &control, out);
    }
  }
  pthread_mutex_unlock(&registry.mutex);
  free(path);
  return rc;
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

int zp_env_take_reader(zp_env *env, zp_reader **out) {
  pthread_mutex_lock(&registry.mutex);
  zp_reader *reader = env->readers;
  while (reader && reader->taken) reader = reader->next;
  if (!reader && (reader = calloc(1, sizeof *reader))) {
    reader->next = env->readers;
    env->readers = reader;
  }
  if (reader) reader->taken = true;
  pthread_mutex_unlock(&registry.mutex);
  *out = reader;
  return reader ? 0 : zp_fail(ZP_ENOMEM, "out of memory: cannot read the store");
}

void zp_env_give_reader(zp_env *env, zp_reader *reader) {
  (void)env;
  pthread_mutex_lock(&registry.mutex);
  reader->taken = false;
  pthread_mutex_unlock(&registry.mutex);
}

/* ---- sections ---- */

bool zp_env_inside(const zp_env *env) {
  for (const zp_section *section = sections; section; section = section->next)
    if (section->env == env) return true;
  return false;
}

/* A thread takes map_lock once: taking it again while another thread waits to remap would never end. */
void zp_env_enter(zp_env *env, zp_section *section) {
  section->env = env;
  section->holds = !sections || !zp_env_inside(env);
  if (section->holds) pthread_rwlock_rdlock(&env->map_lock);
  section->next = sections;
  sections = section;
}

void zp_env_leave(zp_section *section) {
  zp_section **link = &sections;
  while (*link != section) link = &(*link)->next;
  *link = section->next;
  if (!section->holds) return;
  for (zp_section *other = sections; other; other = other->next)
    if (other->env == section->env) {
      other->holds = true;
      return;
    }
  pthread_rwlock_unlock(&section->env->map_lock);
}
