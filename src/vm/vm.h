/*
 * vm -- evaluates predicates: Lua functions of a user on a read-only view of the state, within budgets of time and memory.
 *
 * A predicate is loaded from the codec's bytes of a function into a Lua VM of its own, apart from any script's, and apart from other
 * predicates'. A zp_vm is the place where they are made; it keeps those that were closed last, so that loading the same bytes
 * again, as a loop over a watcher does, costs nothing. A predicate is called with one argument, the view: a table that reads
 * through to a zp_view (callbacks of the caller, bytes in, bytes out), so the vm knows nothing of stores. Every key that an
 * evaluation reads is reported to the caller: the result can only change when one of these keys changes.
 *
 * The view. `view.key`, `view:get(key, [default])`, `view:contains(key)`; `pairs(view)`, `#view`, `view:copy()`, `view:keys()`,
 * `view:values()`, `view:items()` depend on every key. Names of these methods shadow keys as they do for a State. An absent key
 * reads as nil. Assigning to the view is an error. What is read is a copy, made afresh each time.
 *
 * The sandbox. A predicate has the basic functions that cannot reach outside (no load, dofile, require, print, collectgarbage), and
 * math, string (without dump), table, utf8, coroutine. Everything else (os, io, debug, package) is absent: a function that captured
 * such a thing is refused when it is loaded, one that names it as a global gets an error that says why. What a predicate
 * changes outside of itself (its upvalues, its globals) may be forgotten between evaluations.
 *
 * Budgets. An evaluation that takes more than its limit of processor time, or allocates more than its limit of memory on
 * top of what the predicate had, is stopped: ZP_EBUDGET, and nothing in the predicate can prevent that, library functions included: those that
 * could run for ever have versions of their own here (pattern.h, library.h). There are no finalisers (__gc), which would run when nobody
 * looks at the clock.
 *
 * Signals. One that is to be raised in the script ends an evaluation, too: ZP_EINTR, and the predicate may be tested again.
 *
 * Errors: 0, 1 or ZP_E* with detail; never raises, never exits. A vm belongs to one thread.
 */
#ifndef ZP_VM_VM_H
#define ZP_VM_VM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

typedef struct zp_vm zp_vm;
typedef struct zp_predicate zp_predicate;

/* Of one evaluation. */
typedef struct zp_vm_limits {
  double seconds; /* of processor time; 0: the default */
  size_t bytes;   /* 0: the default */
} zp_vm_limits;

#define ZP_VM_SECONDS 1.0 /* the defaults */
#define ZP_VM_BYTES ((size_t)64 << 20)

/* Some pairs, one after the other: zp_page_add, zp_page_next. */
typedef struct zp_page {
  zp_buf bytes;
  size_t count;
} zp_page;

enum { ZP_PAGE_BYTES = 1 << 16 /* a page is full when it has so many */ };

int zp_page_add(zp_page *page, zp_bytes key, zp_bytes value);
bool zp_page_next(const zp_page *page, size_t *offset, zp_bytes *key, zp_bytes *value); /* start with *offset = 0; false at the end */

/* How the view reads. Each call is a read of its own: nothing is held while the predicate runs, so that nobody waits for it. What they
   give is of one and the same revision. 0, 1 or ZP_E*. */
typedef struct zp_view {
  void *context;
  int (*get)(void *context, zp_bytes key, zp_bytes *value); /* 1 and a copy of the value, valid until the next call; 0: it is absent */
  /* Fill the page, which is empty, with the pairs that follow a key (NULL: with the first ones) in byte order: up to `most` of them, or
     until it is full; none at the end. */
  int (*walk)(void *context, const zp_bytes *after, size_t most, zp_page *page);
  int (*count)(void *context, uint64_t *count);             /* all keys */
  void (*read)(void *context, const zp_bytes *key);         /* the result depends on this key; NULL: on every key */
} zp_view;

int zp_vm_open(zp_vm **vm);
void zp_vm_close(zp_vm **vm); /* after the predicates of it were closed; nulls, may be called twice */

/* Load a predicate from the codec's bytes of a Lua function, to be evaluated within limits (NULL: the defaults). ZP_EDECODE (not a function, or it captured something that is not to be
   had here: the detail names it), ZP_EBUDGET, ZP_ENOMEM. */
int zp_predicate_load(zp_vm *vm, zp_bytes function, const zp_vm_limits *limits, zp_predicate **predicate);
void zp_predicate_close(zp_predicate **predicate); /* nulls, may be called twice */

/* Evaluate: 1 if it holds (any value but nil and false), 0 if not. An evaluation that raised after it had read an absent key counts as
   "does not hold" (0). Who reads a method of the view and does not call it has meant the key of that name: ZP_EPREDICATE, lest it is
   overlooked. Any other error: ZP_EPREDICATE with the message as detail, and the traceback in
   zp_predicate_traceback; ZP_EBUDGET; ZP_EINTR; or what a callback of the view returned. */
int zp_predicate_test(zp_predicate *predicate, const zp_view *view);

/* The traceback of the predicate's last error; borrowed until its next evaluation. Never NULL. */
const char *zp_predicate_traceback(const zp_predicate *predicate);

#endif
