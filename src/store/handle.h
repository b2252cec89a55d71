/*
 * handle -- what a zp_store is made of. Internal to the store.
 */
#ifndef ZP_STORE_HANDLE_H
#define ZP_STORE_HANDLE_H

#include "store/env.h"
#include "store/key.h"

#define ZP_NEWEST UINT64_MAX

struct zp_store {
  char *directory; /* absolute */
  char *name;
  unsigned generation; /* the fork generation that everything down to `author` belongs to */
  zp_env *env;         /* NULL until the first use */
  zp_reader *reader;   /* of the present read, else of the last one, or NULL */
  bool reading;
  bool locked;
  double lock_deadline;  /* until when the lock is waited for (zp_clock_now seconds) */
  char source[ZP_HOLDER_SOURCE]; /* of the atomic function that it is taken for next, */
  unsigned line;                 /* and its line; 0: none */
  uint64_t author;       /* 0 until it is asked for */
  uint32_t namespace_id; /* 0 until it is known; a namespace keeps its id for ever */
  uint64_t at;           /* what reads see: a revision, or ZP_NEWEST */
  uint64_t revision;     /* the same as a number; valid if revision_known */
  bool revision_known;
  bool walking;    /* the walk cursor stands on a version of `walk` */
  zp_vkey key;     /* scratch of gets and commits */
  zp_vkey walk;    /* the key that a walk has reached */
  zp_buf walk_key; /* the same, unescaped, if it had to be */
  zp_buf record;   /* the log record in the making */
};

/* The value of a namespace. */
typedef struct zp_namespace {
  uint32_t id;
  uint32_t unused;
  uint64_t count; /* live keys */
} zp_namespace;

/* The head of a log record; the keys follow, each with its length as a varint. */
typedef struct zp_log_head {
  uint64_t author;
  uint64_t total; /* history bytes up to and with this revision, since the store was made */
  uint32_t namespace_id;
  uint32_t key_count;
} zp_log_head;

/* Bring the handle to life: drop what an ancestor left in it, open the environment, and refuse with ZP_EATOMIC if another
   handle holds the lock in this thread. */
static inline int zp_store_wake(zp_store *store);

/* Its slow parts. */
int zp_store_wake_slowly(zp_store *store);
int zp_store_refuse(void);
int zp_store_fail_retired(const zp_store *store);

static inline int zp_store_wake(zp_store *store) {
  if (!store->env || store->generation != zp_env_generation) {
    int rc = zp_store_wake_slowly(store);
    if (rc) return rc;
  }
  const zp_env *env = store->env;
  if (atomic_load_explicit(&env->control->retired, memory_order_relaxed)) return zp_store_fail_retired(store);
  const void *holder = atomic_load_explicit(&env->lock_thread, memory_order_relaxed);
  if (holder && !store->locked && holder == zp_env_thread()) return zp_store_refuse();
  return 0;
}

/* Look up the id and the count of the handle's namespace: 1, 0 if there is none, or a code of LMDB. */
int zp_namespace_find(zp_store *store, MDB_txn *txn, zp_namespace *found);

/* The revision span of the log as a transaction sees it. */
typedef struct zp_log_span {
  uint64_t first;     /* the first record there is; 0: none */
  uint64_t oldest;    /* the oldest revision that can be read */
  uint64_t newest;
  uint64_t first_total, newest_total;
  uint64_t cleaned;   /* bytes of keys of record first + 1 that are trimmed already; with `cleaning` */
  bool cleaning;
} zp_log_span;

/* 0 or a code of LMDB. */
int zp_log_span_find(MDB_cursor *log, zp_log_span *span);

/* While keys are being deleted, waiters are woken this often within the span that is kept, to move on in it. */
enum { ZP_STORE_PROGRESS = 4 };

/* The tag of that on the bell. */
uint64_t zp_store_progress_tag(void);

/* Step through keys with lengths: 1 and the key, 0 at the end. */
int zp_log_step(zp_bytes keys, size_t *offset, zp_bytes *key);

#endif
