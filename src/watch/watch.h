/*
 * watch -- finding the revision that a watcher waits for, and waiting for it.
 *
 * A watcher follows the revisions of one namespace after its cursor, in order, and stops at the first one that it was not told of
 * by itself (another author made it), and that matches: a change of certain keys, or a condition that holds at it. It looks
 * only at revisions that can make a difference: a condition can change only when a key that it read changes, and the store
 * finds the next change of a key by one search. So a watcher costs nothing while other keys change, however fast.
 *
 * A watch that ends without a match consumes nothing: the cursor stays, for watchers of anything else. What it has looked through is noted
 * in the cursor for the next watch of the same kind, which goes on there; so one that is tried again and again neither looks at the same
 * revisions each time nor falls behind what is kept.
 *
 * What comes after the cursor may not be kept any more. A condition that holds at the newest revision matches there all the same; one
 * that does not hold there is waited for if nothing that it reads has changed since the cursor. Anything else is ZP_EHISTORY.
 *
 * Everything happens in the process that waits; no server takes part. A wait sleeps on the bell (store.h, alarms).
 *
 * Conditions are evaluated by a callback, which reads the store as of the revision in question, and says what it read. No read is
 * open when it is called: what it does may take its time, and writers wait for reads.
 *
 * Errors: 0, 1 or ZP_E*. No Lua, never raises. A watch belongs to one thread.
 */
#ifndef ZP_WATCH_WATCH_H
#define ZP_WATCH_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "store/store.h"

/* The place of a handle in the history of its namespace: what it was given so far. Plain data, copied by fork. What was given
   is remembered for each condition: a loop over one must not spin on one revision, but two conditions that both hold are two
   pieces of news. */
enum { ZP_WATCH_SUBJECTS = 16 };

typedef struct zp_watch_cursor {
  uint64_t revision; /* watchers consider what comes after it */
  struct {
    uint64_t id;     /* a number that stands for what is watched: a hash; 0: the place is free */
    uint64_t given;  /* a condition: the newest revision that was returned for it; 0: none so far */
    uint64_t looked; /* nothing after `revision` and up to here matches, of the updates that `flags` lets count */
    uint64_t flags;
  } subjects[ZP_WATCH_SUBJECTS]; /* the one that was used last is first */
} zp_watch_cursor;

/* Move a cursor to any revision, back as well. */
void zp_watch_cursor_move(zp_watch_cursor *cursor, uint64_t revision);

typedef struct zp_watch zp_watch;

/* Evaluate a condition as of a revision (zp_store_read_begin_as_of): 1 it holds, 0 it does not, or an error. Calls zp_watch_read for
   every key that it looks at, absent ones too. ZP_EINTR if a signal is to be taken first: it is evaluated again then. */
typedef int zp_watch_test(void *context, zp_store *store, uint64_t revision, zp_watch *watch);

typedef struct zp_watch_options {
  zp_watch_test *test; /* the condition; NULL: watch for changes of keys */
  void *context;       /* of the test */
  uint64_t id;         /* a number that stands for the kind of watch, its test and what that compares with: a hash */
  bool exclude;        /* changes of any key but these */
  bool duplicates;     /* updates that left everything as it was, by content, count too */
  bool own_known;      /* what this handle changed itself counts as given to it */
  bool live;           /* only what happens from the opening on */
  bool gapless;        /* a condition: each revision at which it holds counts, so none may be lost */
} zp_watch_options;

/* Start a watch at the cursor. The store is borrowed; keys (for changes; none: all) are added with zp_watch_add_key, before the first look. */
int zp_watch_open(zp_store *store, const zp_watch_cursor *cursor, const zp_watch_options *options, zp_watch **watch);
int zp_watch_add_key(zp_watch *watch, zp_bytes key);
void zp_watch_close(zp_watch **watch); /* nulls, may be called twice */

/* For tests: the result depends on this key; NULL: on every key. */
int zp_watch_read(zp_watch *watch, const zp_bytes *key);

/* What the last test read: whether it was every key; else each of them: start with *i = *offset = 0; false at the end. */
bool zp_watch_reads_all(const zp_watch *watch);
bool zp_watch_next_read(const zp_watch *watch, size_t *i, size_t *offset, zp_bytes *key);

/* Wait for the next match, until the deadline (zp_clock_now seconds, ZP_FOREVER). 0 and the revision, with the cursor moved to
   it; ZP_ETIMEOUT, with a note in the cursor of what was looked through; ZP_EINTR if a signal handler ran, and the call may be
   repeated; ZP_EHISTORY if the cursor has fallen behind what is kept; or what the test returned. */
int zp_watch_next(zp_watch *watch, double deadline, zp_watch_cursor *cursor, uint64_t *revision);

/* Within a read: whether an update has changed any key by content (zp_value_equal): 1, 0, or an error. If what was before is not kept any more,
   it has. */
int zp_watch_changes(zp_store *store, const zp_log_record *record);

/* Call a function for each key that an update has changed, in their order, with its value then (NULL: it was deleted), within a read; until
   it gives another number than 0, which is the result. ZP_EHISTORY if the revision is not kept. Not within a read. */
int zp_watch_visit_changes(zp_store *store, uint64_t revision, int (*visit)(void *context, zp_bytes key, const zp_bytes *value), void *context);

/* Move a cursor to the newest revision. */
int zp_watch_go_live(zp_store *store, zp_watch_cursor *cursor);

#endif
