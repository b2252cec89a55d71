/*
 * records -- what a zp_queue is made of, and what it keeps in its store. Internal to the layer.
 *
 * A key is a letter and up to two numbers of 8 bytes, so that numbers of one kind stand in order. All records are plain structures of
 * this machine.
 */
#ifndef ZP_MAP_RECORDS_H
#define ZP_MAP_RECORDS_H

#include <stdatomic.h>

#include "map/queue.h"
#include "store/store.h"

enum {
  ZP_KEY_COUNTER = 'N',  /* -> the number of the last task */
  ZP_KEY_TASK = 'T',     /* task -> zp_task */
  ZP_KEY_SPEC = 'S',     /* task -> specification */
  ZP_KEY_BLOCK = 'B',    /* task, last item -> number of items, bytes */
  ZP_KEY_RESULT = 'R',   /* task, first item -> zp_result_head, bytes */
  ZP_KEY_RETURNED = 'Q', /* task, first item -> zp_returned */
  ZP_KEY_WORK = 'I',     /* pool, task -> a byte: the pool's workers look there */
  ZP_KEY_WORKER = 'W',   /* slot -> zp_worker */
  ZP_KEY_WAKE = 'P'      /* pool -> a number that changes when there is new work */
};

enum {
  ZP_QUEUE_SLOTS = 4096,
  ZP_TASK_POOLS = 4,
  ZP_TASK_WAKES = ZP_TASK_POOLS + 1, /* these, and ZP_POOL_ALL */
  ZP_QUEUE_KEY_MAX = 17
};

/* In which everything stands. */
#define ZP_QUEUE_NAMESPACE "tasks"

typedef struct zp_process_id {
  int32_t pid;
  uint32_t handle; /* of an owner elsewhere: the number of the handle in this process that stands for him; else 0 */
  uint64_t start; /* of the process, as the kernel counts: tells two with the same pid apart */
} zp_process_id;

typedef struct zp_task {
  uint64_t total, put, next, taken, finished;
  uint64_t pending_bytes, block_bytes;
  uint64_t pools[ZP_TASK_POOLS]; /* 0: none */
  zp_process_id producer;        /* pid 0: there is nothing more to add */
  zp_process_id owner;           /* whom the task goes with; pid 0: nobody */
  double missed_since;           /* instant (zp_clock_now) since which an owner elsewhere is out of reach; 0: he is not */
  double item_seconds;           /* measured; 0: not yet */
  double item_bytes;             /* of results */
  uint32_t workers, max_attempts, chunk;
  uint32_t active, returned;
  uint32_t helpers; /* how many of the active ones are of ZP_POOL_ALL */
  uint32_t last_chunk;
  uint32_t dropped; /* it is being removed */
  uint32_t adopted; /* how many pools were added to the first one */
} zp_task;

typedef struct zp_result_head {
  uint64_t to;
  uint32_t is_dead, attempts;
} zp_result_head;

typedef struct zp_returned {
  uint64_t to;
  uint64_t attempts;
} zp_returned;

typedef struct zp_worker {
  zp_process_id process;
  uint64_t pool;
  uint64_t task; /* that it has claimed something of; 0: nothing */
  uint64_t from, to;
  uint64_t attempts; /* that these items have had before */
} zp_worker;

/* How far a worker is, in shared memory. Written by the worker alone; read after its death. */
typedef struct zp_progress {
  _Atomic uint64_t item, span;
} zp_progress;

/* A change in the making: the value is borrowed until the commit; NULL deletes. */
typedef struct zp_entry {
  unsigned char key[ZP_QUEUE_KEY_MAX];
  unsigned char key_size;
  zp_bytes value;
} zp_entry;

struct zp_queue {
  zp_store *store;
  zp_alarm alarm;
  zp_progress *progress; /* ZP_QUEUE_SLOTS of them */
  zp_buf entries;        /* zp_entry, of the commit in the making */
  bool is_incomplete;    /* there was no memory for one of them: they must not be committed */
  zp_buf changes;        /* zp_change, likewise */
  zp_buf value;          /* scratch */
  size_t limit;          /* bytes that a reader copies */
  int64_t slot;          /* -1: none */
  int32_t slot_process;  /* whose slot it is */
  uint64_t pool;
  zp_process_id self; /* this process, once that was asked for; pid 0: not yet */
  uint32_t number;    /* that no other handle of this process has; never 0 */
};

static inline zp_bytes zp_bytes_of(const void *data, size_t size) { return (zp_bytes){data, size}; }
#define ZP_BYTES_OF(object) zp_bytes_of(&(object), sizeof(object))

/* ---- keys and records (queue.c) ---- */

/* Write a key; `count` numbers are in it. */
zp_bytes zp_queue_key(unsigned char *to, int kind, int count, uint64_t first, uint64_t second);

/* Within a read: copy the record of a fixed size: 1, 0 if there is none, or an error. */
int zp_queue_get(zp_queue *queue, int kind, int count, uint64_t first, uint64_t second, void *record, size_t size);

/* Within a read: go to the first record of this kind (and of this first number, if count is 2) with at least the number `from`: 1, its
   number and value; 0 if there is none. zp_queue_step goes on from there. */
int zp_queue_seek(zp_queue *queue, int kind, int count, uint64_t first, uint64_t from, uint64_t *number, zp_bytes *value);
int zp_queue_step(zp_queue *queue, int kind, int count, uint64_t first, uint64_t *number, zp_bytes *value);

/* This process. */
zp_process_id zp_queue_self(zp_queue *queue);

/* ---- commits (queue.c): lock, read, collect changes, commit ---- */

/* Take the lock, and begin to read. */
int zp_queue_begin(zp_queue *queue);

/* Add a change. If memory runs out the commit says so. */
void zp_queue_set(zp_queue *queue, int kind, int count, uint64_t first, uint64_t second, zp_bytes value);
void zp_queue_delete(zp_queue *queue, int kind, int count, uint64_t first, uint64_t second);

/* Wake the idle workers of a pool, or of all pools of a task, and those of ZP_POOL_ALL: further changes. The counters hold their values
   until the commit. */
int zp_queue_wake(zp_queue *queue, uint64_t pool, uint64_t counters[2]);
int zp_queue_wake_task(zp_queue *queue, const zp_task *task, uint64_t counters[ZP_TASK_WAKES]);

/* The pools of a task need not look at it any more: changes. */
void zp_queue_forget_work(zp_queue *queue, uint64_t id, const zp_task *task);

/* Commit what was collected, unless rc says that something went wrong, and unlock: rc, or what the commit says. */
int zp_queue_end(zp_queue *queue, int rc);

/* Whether no more can be claimed of the task until some of its results were taken. */
bool zp_task_is_blocked(const zp_task *task);

/* Whether all that there will ever be was claimed and finished. */
bool zp_task_is_complete(const zp_task *task);

#endif
