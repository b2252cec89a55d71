/*
 * queue -- tasks: the items of a sequence, worked on in chunks by any number of processes, with results that come back in order.
 *
 * The queue of a server is a store of its own in the directory `tasks` within that of the server, made by whoever needs it first. So
 * every step is one commit: whoever dies, dies before it or after it, and what he leaves is whole.
 *
 * A task has a specification (bytes that say what to do) and items, which are numbered from 0 and come in blocks, or are implied by the
 * specification. A worker claims a chunk of consecutive items, at most one at a time, and finishes it by leaving its result. Claims
 * tile the sequence, so results do; the consumer takes them by position, and acknowledges what it needs no more, which is then removed.
 *
 * Chunks grow and shrink with the measured cost of an item, and become small towards the end, so that all workers end together.
 * What was not taken yet is limited in bytes; beyond that nothing is claimed until the consumer goes on, except what was claimed before.
 *
 * Death. A worker has a slot, with its process and its claim; zp_queue_recover looks whether those processes are alive, and gives back what
 * the dead had claimed. In shared memory each worker notes how far it is; so the items at which it died are known, and are the only
 * ones that count an attempt. After too many of these an item's result is that nobody survived it.
 *
 * Pools. A task is for the workers of a few pools; a pool is a number that somebody has chosen. Workers of ZP_POOL_ALL help wherever they
 * can.
 *
 * Owners. A task that is private goes with whoever has added it: with a process of this machine when that is dead, with one elsewhere when it
 * was out of reach for long. Nobody waits for that, so somebody has to look now and then: zp_queue_clear.
 *
 * For others. A process may have handles for workers and callers that it stands for, which are on other machines. It must say itself when
 * one of these is gone: zp_queue_resign, zp_queue_give_up, zp_queue_miss.
 *
 * Invariants:
 *   1  taken <= next <= put <= total. Items below `next` are claimed, given back, finished or taken, each exactly one of these.
 *   2  A claim is recorded with its worker, in the commit that moves `next`; a result is recorded in the commit that ends the claim.
 *   3  A task counts its claims (`active`) and what was given back (`returned`).
 *
 * Fork: a handle that was inherited may be used by the child, except that its slot is the parent's. Threads: a handle belongs to one.
 * Errors: 0 or ZP_E* with detail; ZP_EFULL if there is no room, in which case nothing has happened. No Lua, never raises.
 */
#ifndef ZP_MAP_QUEUE_H
#define ZP_MAP_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

typedef struct zp_queue zp_queue;

#define ZP_TASK_UNKNOWN UINT64_MAX

/* The pool of workers that work on every task, and count in the limits of none. */
#define ZP_POOL_ALL UINT64_MAX

/* Open the queue of the server whose state is in the directory. ZP_ENOSTORE if there is none. */
int zp_queue_open(const char *directory, zp_queue **queue);
void zp_queue_close(zp_queue **queue); /* nulls, may be called twice; gives back the slot, and what is claimed */

/* From now on zp_queue_specification, zp_queue_block and zp_queue_take copy at most so many bytes; what is larger they leave, and return
   ZP_EBUSY. SIZE_MAX, as it is at first: there is no limit. */
void zp_queue_limit(zp_queue *queue, size_t bytes);

/* ---- tasks ---- */

typedef struct zp_task_options {
  uint64_t pool;
  uint64_t total;        /* how many items, which the specification implies; ZP_TASK_UNKNOWN: they come by zp_queue_put */
  uint32_t workers;      /* at most so many at the same time, at least 1 */
  uint32_t max_attempts; /* of an item that kills its worker, at least 1 */
  bool is_private;       /* nobody but its owner wants it: this process, */
  bool is_elsewhere;     /* or, if this is said as well, one that this handle stands for */
  uint32_t chunk;        /* items that are worked on together, and their multiples while they are cheap; 0: as it pays */
} zp_task_options;

int zp_queue_add(zp_queue *queue, const zp_task_options *options, zp_bytes specification, uint64_t *task);

/* Add a block of items behind those that are there. last: no more will come; then there may be no items in it either. */
int zp_queue_put(zp_queue *queue, uint64_t task, uint64_t items, zp_bytes bytes, bool last);

/* Let the workers of this pool work on it, too. 1, or 0 if there is no such task. */
int zp_queue_adopt(zp_queue *queue, uint64_t task, uint64_t pool);

/* Append the specification to the buffer: 1, or 0 if there is no such task. */
int zp_queue_specification(zp_queue *queue, uint64_t task, zp_buf *out);

/* Append the block that has the item: 1, *first and *items say which items it holds; 0 if there is none. */
int zp_queue_block(zp_queue *queue, uint64_t task, uint64_t item, uint64_t *first, uint64_t *items, zp_buf *out);

typedef struct zp_task_info {
  uint64_t total, put, next, taken;
  uint64_t finished;      /* items that have a result, taken or not */
  uint64_t pending_bytes; /* of results that were not taken yet */
  uint64_t block_bytes;   /* of blocks that are still needed */
  uint32_t active;        /* claims */
  bool is_produced;       /* whoever adds blocks is alive, or there is nothing to add */
  bool is_elsewhere;      /* it is private to somebody elsewhere */
} zp_task_info;

/* 1, or 0 if there is no such task (any more). */
int zp_queue_describe(zp_queue *queue, uint64_t task, zp_task_info *info);

/* Of all tasks together. */
typedef struct zp_queue_summary {
  uint64_t tasks;
  uint64_t put, finished; /* items of these tasks that are there, and that have a result */
  uint64_t claims;        /* chunks that are worked on */
} zp_queue_summary;

/* What there is at present in the queue of the server whose state is in the directory. Changes nothing, and makes no queue: where there
   is none, all is 0. */
int zp_queue_summarize(const char *directory, zp_queue_summary *summary);

/* Remove a task with all that belongs to it. */
int zp_queue_drop(zp_queue *queue, uint64_t task);

/* ---- owners ---- */

/* The owner of a private task is elsewhere, and one that this handle stands for: 1, or 0 if it is no such task. Whoever stood for him before
   does so no more. */
int zp_queue_own(zp_queue *queue, uint64_t task);

/* The owner, for whom this handle stands, is out of reach. Nothing happens if it does not stand for him (any more). */
int zp_queue_miss(zp_queue *queue, uint64_t task);

/* Drop the private tasks whose owner is dead, or was missed for `patience` seconds, and what was left by those who died while they dropped a
   task: how many, or an error. What is noted of pools that have no workers goes as well. Who stood for an owner and is dead has left
   him missed. */
int zp_queue_clear(zp_queue *queue, double patience);

/* ---- results ---- */

typedef struct zp_result {
  uint64_t from, to; /* items: `to` is the one behind the last */
  bool is_dead;      /* nobody survived the item: there are no bytes */
  uint32_t attempts;
} zp_result;

/* Append the bytes of the result that begins at the item: 1, or 0 if it is not there yet. It stays until it is acknowledged. */
int zp_queue_take(zp_queue *queue, uint64_t task, uint64_t from, zp_result *result, zp_buf *out);

/* Everything below `position` was taken for good. A task of which all was taken is removed: 1, else 0. */
int zp_queue_acknowledge(zp_queue *queue, uint64_t task, uint64_t position);

/* ---- workers ---- */

/* Become a worker of a pool. ZP_ESYS if there are too many. */
int zp_queue_enlist(zp_queue *queue, uint64_t pool);

typedef struct zp_claim {
  uint64_t task, from, to;
  bool is_suspect; /* somebody died of these items, or may: note each */
} zp_claim;

typedef struct zp_done {
  zp_bytes bytes;
  double seconds; /* that it took */
} zp_done;

/* Finish what was claimed, if done is not NULL, and claim something: 1, or 0 if there is nothing to do at present. If it fails nothing
   has happened: the claim is as it was. */
int zp_queue_claim(zp_queue *queue, const zp_done *done, zp_claim *claim);

/* Give the slot back, and what is claimed. is_dead: the worker has died of what it has noted last; else nobody had begun with it. */
int zp_queue_resign(zp_queue *queue, bool is_dead);

/* The one who gives the items of a task, which was added through a handle of this process, will give no more. */
int zp_queue_give_up(zp_queue *queue, uint64_t task);

/* Note that this worker is about to work on the items from `item`, `span` of them, until it notes again. Nothing happens if it is none. */
void zp_queue_note(zp_queue *queue, uint64_t item, uint64_t span);

/* Nobody will be in this pool any more: what is kept for it can go. */
int zp_queue_disband(zp_queue *queue, uint64_t pool);

/* Give back what dead workers had claimed: how many workers there were, or an error. */
int zp_queue_recover(zp_queue *queue);

/* ---- waiting: arm, look, and wait if there is nothing; a wait may end without a reason ---- */

int zp_queue_arm_work(zp_queue *queue);
int zp_queue_arm_result(zp_queue *queue, uint64_t task, uint64_t from);
int zp_queue_wait(zp_queue *queue, double deadline); /* as zp_alarm_wait */

#endif
