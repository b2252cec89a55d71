/*
 * env -- the LMDB environment of a directory: opened once per process, shared by its handles, left alone after fork.
 *
 * Files of a store. data.mdb and lock.mdb are LMDB's. `control` is ours: format version, limits, and the writer lock, a
 * robust mutex shared by all processes. It is put in place last, so a directory without it holds no store.
 *
 * The writer lock is taken around a whole read-modify-commit span; LMDB's own write transaction lasts only while changes
 * are applied. So a commit that finds the map full can abort, make room, and apply the same changes once more with
 * nobody coming between.
 *
 * Size. LMDB's map is always the whole of data.mdb, and every byte of it is allocated before it is mapped (I3). Only the
 * holder of the writer lock makes the file longer. mdb_env_open and mdb_env_set_mapsize truncate the file to the size
 * that they are told; so opening, remapping and growing hold the size lock, an fcntl lock on `control`, and under it
 * use the size that the file has. An fcntl lock dies with its process and is not inherited by fork. It excludes processes,
 * not threads: those are kept apart by the mutex of the registry, which is held with it. It is gone as soon as the process closes any
 * descriptor of the file: so that is done under the mutex, too.
 *
 * Threads. Remapping pulls the map away from under every transaction of the process. A thread is inside a section while it
 * has a transaction; remapping waits until nobody is. Sections of one thread on one environment nest (they may end in any
 * order), but such a thread cannot remap: it would wait for itself, and is told ZP_EATOMIC.
 *
 * No map. LMDB unmaps before it maps anew, and for the new map there may be no memory. Then the environment is `unmapped`: nothing of
 * LMDB may be called but by zp_env_reopen, which the next call that needs the map tries (room.h). Whoever enters a section to begin a
 * transaction looks at that first.
 *
 * Readers. LMDB has places for so many readers of all processes. A read takes one of the process's readers, which keeps its place. Each
 * thread keeps one for its next read, the others go back to the environment. So a process has as many places as it has threads
 * that read, however many handles, and a thread that sleeps has none. When most places are taken, nobody keeps one between reads.
 *
 * Fork. A child handler of pthread_atfork counts the generation up. Environments of an older generation belong to an
 * ancestor: they stay in the list for ever, unused and not closed, because closing would release what the ancestor holds.
 *
 * Internal to the store.
 */
#ifndef ZP_STORE_ENV_H
#define ZP_STORE_ENV_H

#include <limits.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "store/files.h"
#include "store/holder.h"
#include "store/store.h"
#include "sys/alive.h"
#include "sys/bell.h"

typedef struct zp_env zp_env;
typedef struct zp_reader zp_reader;
typedef struct zp_section zp_section;

enum {
  ZP_STORE_FORMAT = 3,
  ZP_STORE_READERS = 4096,
  ZP_STORE_INITIAL_SIZE = 1 << 20, /* of data.mdb */
  ZP_STORE_PLACES = 64,            /* in tables by namespace */
  ZP_BOOT_SIZE = 40                /* of what names a boot of the machine, with the NUL */
};

#define ZP_STORE_MAGIC "zproc\0\0" /* 8 bytes */

/* Without syncing a power failure may cost the store, the death of any process does not. */
#define ZP_STORE_MDB_FLAGS (MDB_WRITEMAP | MDB_NOTLS)
#define ZP_STORE_MDB_UNSYNCED (MDB_NOSYNC | MDB_NOMETASYNC)

/* The file `control`, mapped by every process. */
typedef struct zp_control {
  char magic[8];
  uint32_t format;
  uint32_t size; /* of this structure, which depends on the C library's mutex */
  zp_store_limits limits;
  _Atomic uint32_t retired;  /* not 0: the store is given up */
  uint32_t is_synced;        /* commits are on the disk before they count as done */
  _Atomic uint32_t unsettled; /* not 0: a writer has died, and it is not yet seen to that all that he committed can be read */
  _Atomic uint32_t deleting; /* not 0: keys were deleted since waiters were last told to look */
  uint64_t identity;       /* of the state; drawn at random, and kept with the data */
  uint64_t data_device, data_inode, data_born; /* of data.mdb: another file in its place is not this store's */
  uint32_t data_owner;                         /* the user whose it is, whom the maker of the store trusts */
  zp_alive_space space;    /* of its maker: a mutex's owner, and who has claimed a task, are known by numbers of it */
  char boot[ZP_BOOT_SIZE]; /* the boot of the machine that `writer` is of: a mutex does not survive one */
  _Alignas(64) pthread_mutex_t writer;
  zp_holder_note holder; /* of it */
  /* What giving up history has cost each namespace, several of which may share a place: the newest update whose record is gone, or the
     next to go; and the newest deletion of which nothing is left, not even that the key once was. Raised under the writer lock,
     before the commit that makes it true. */
  _Alignas(64) _Atomic uint64_t trimmed[ZP_STORE_PLACES];
  _Atomic uint64_t forgotten[ZP_STORE_PLACES];
} zp_control;

/* Whether an open file, which has this status, is the data.mdb of the store. */
static inline bool zp_env_has_data(const zp_control *control, const struct stat *data, int fd) {
  return control->data_device == data->st_dev && control->data_inode == data->st_ino && control->data_born == zp_files_birth(fd, "");
}

struct zp_section {
  zp_env *env;
  zp_section *next; /* of the same thread */
  bool holds;       /* this one has map_lock; the nested ones lean on it */
};

/* A read transaction with its cursors, kept for the next read: renewing is far cheaper than beginning. While nobody reads with it, it is
   changed within a section or under the mutex of the registry. */
struct zp_reader {
  zp_section section;
  MDB_txn *txn;       /* NULL until the first read, and when it has no place in LMDB's table */
  MDB_cursor *point;  /* on versions: gets */
  MDB_cursor *walk;   /* on versions: walks; NULL until the first one */
  MDB_cursor *log;    /* NULL until it is asked for */
  zp_reader *next;    /* of the environment */
  _Atomic(const void *) keeper; /* the thread that keeps it (zp_env_thread), NULL: none */
  bool taken;         /* by a read, or kept by a thread; what is below is that thread's */
  bool is_reading;
  bool is_crowded;    /* the table was, at the last look */
};

struct zp_env {
  MDB_env *mdb;
  MDB_dbi namespaces, versions, log;
  zp_bell *bell;
  zp_control *control;
  int control_fd; /* for the size lock */
  dev_t dev;      /* what `control` is: two spellings of a path are one environment */
  ino_t ino;
  uint64_t serial; /* no other environment of this process has had it */
  unsigned generation;
  unsigned references;
  pthread_rwlock_t map_lock; /* shared: in a section; exclusive: remapping */
  size_t page_size;
  size_t map_size;
  bool unmapped; /* changes only while nobody is in a section */
  pid_t pid;     /* of this process */
  bool tight;  /* the last attempt to grow found no space; touched under the writer lock */
  _Atomic(const void *) lock_thread; /* the thread of this process that holds the writer lock; NULL: none */
  zp_buf scratch; /* of the holder of the writer lock */
  zp_reader *readers;
  zp_env *next;
  char *directory;
};

/* Seconds until a wait for the size lock, or for the other threads of this process to leave their sections, ends with an error: whoever waits may
   have the writer lock, which all others wait for. It takes that long only if somebody was stopped in the middle. Tests shorten it. */
extern double zp_env_patience;

/* Counted up in each forked child. Changes only while a process has one thread. */
extern unsigned zp_env_generation;

/* The environment of a store, opened if this process has not done so. 0, ZP_ENOSTORE, ZP_EELSEWHERE if its processes are in another PID
   namespace, ... */
int zp_env_acquire(const char *directory, zp_env **env);
void zp_env_release(zp_env *env);

/* A reader for one read: *reader is the one that the handle has had last, or NULL, and likely to be it again. 0 or ZP_ENOMEM. */
static inline int zp_env_take_reader(zp_env *env, zp_reader **reader);
static inline void zp_env_give_reader(zp_env *env, zp_reader *reader);

/* Their slow parts. */
int zp_env_find_reader(zp_env *env, zp_reader **reader);
void zp_env_return_reader(zp_env *env, zp_reader *reader);

/* Give up its place in LMDB's table. Within a section or under the mutex of the registry. */
void zp_env_empty_reader(zp_reader *reader);

/* The places that this thread, or nobody, keeps in LMDB's table are given up. Not within a read of this thread. */
void zp_env_park(zp_env *env);

/* Close LMDB's environment, as far as there is one, and open it at the size that the file has: 0, or an error, and then it is unmapped.
   With the size lock, while nobody is in a section. */
int zp_env_reopen(zp_env *env);

/* After a lock of the writer's mutex, whose result is given: if a writer has died, see to it that all that he committed can be read. 0 or an error
   number (the mutex is not held), or ZP_E* (it is held, and the next one will be told again). */
int zp_env_settle(zp_env *env, int rc);

/* Enter and leave a section, within which this process does not remap. */
void zp_env_enter(zp_env *env, zp_section *section);
void zp_env_leave(zp_section *section);

/* Is this thread in a section of the environment? */
bool zp_env_inside(const zp_env *env);

/* An address that stands for the calling thread. */
static inline const void *zp_env_thread(void);
extern _Thread_local zp_section *zp_env_sections; /* that this thread is in */

/* The control file of a store of this program's kind, mapped for a look, or to mark it; to be unmapped. NULL if there is none. */
zp_control *zp_env_map_control(const char *directory);

/* The size lock, with the registry's mutex. Not while the latter is held. 0; ZP_ESYS, which names the process that has it for too long; ZP_EINTR if
   a signal has come that is to be taken (interrupt.h) and somebody else has it. */
int zp_env_lock_size(zp_env *env);
void zp_env_unlock_size(zp_env *env);

/* Make lock.mdb as large as LMDB will ever use it, all of it allocated. Only while this process has not opened the
   environment: closing any descriptor of lock.mdb drops LMDB's locks on it. */
int zp_env_allocate_lock_file(const char *directory);

/* Which boot of the machine this is; empty if the kernel does not say. */
void zp_env_read_boot(char boot[ZP_BOOT_SIZE]);

/* Initialise the writer lock in a control file that nobody else uses. 0 or ZP_ESYS. */
int zp_env_init_writer_lock(zp_control *control);

/* The directory that the data are in: that of the store, or the one to which its data.mdb leads. The result is `directory` or `place`. */
const char *zp_env_data_directory(const char *directory, char place[PATH_MAX]);

/* <directory>/<file> in a fresh string, or NULL with ZP_ENOMEM recorded. */
char *zp_env_path(const char *directory, const char *file);

/* Turn an LMDB code or errno into ours, with a sentence saying what failed; codes of ours pass through, keeping their
   sentence. */
int zp_env_fail(const zp_env *env, int code, const char *what);

/* ZP_EFULL with its sentence. */
int zp_env_fail_full(const zp_env *env);

static inline const void *zp_env_thread(void) { return &zp_env_sections; }

static inline int zp_env_take_reader(zp_env *env, zp_reader **reader) {
  zp_reader *last = *reader;
  if (!last || atomic_load_explicit(&last->keeper, memory_order_relaxed) != zp_env_thread() || last->is_reading)
    return zp_env_find_reader(env, reader);
  last->is_reading = true;
  return 0;
}

static inline void zp_env_give_reader(zp_env *env, zp_reader *reader) {
  if (atomic_load_explicit(&reader->keeper, memory_order_relaxed)) reader->is_reading = false;
  else zp_env_return_reader(env, reader);
}

#endif
