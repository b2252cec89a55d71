/*
 * notepad -- a page that a worker shares with the process that has started it: how far the worker is, and whether that is still wanted.
 *
 * The worker notes the task that it works for. When the task is dropped its parent calls it off: it writes that onto the page and urges the
 * worker, by the signal that threads are urged by (interrupt.h). The worker is told where it looks for signals, once, so it raises an
 * error there. If it is still at work after ZP_NOTEPAD_GRACE seconds it is in a C function that does not return, or has not listened: a
 * process ends then, whatever it does; a thread is told again and again.
 *
 * Ownership: handles of one process count references to the page. A forked child has the page, and a handle of its own by inheritance.
 * Threads: a worker's functions are about the calling thread. The signal handler only reads the page, and sets a timer.
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SYS_NOTEPAD_H
#define ZP_SYS_NOTEPAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define ZP_NOTEPAD_GRACE 2.0
enum { ZP_NOTEPAD_CLIENT = 16, ZP_NOTEPAD_CALLS = 4 };

typedef struct zp_notes {
  /* of a worker whose server is elsewhere */
  unsigned char client[ZP_NOTEPAD_CLIENT]; /* the number that the server knows it by */
  _Atomic bool is_enlisted;
  _Atomic uint64_t item, span;

  _Atomic uint64_t task;  /* that it works for; 0: none */
  _Atomic uint64_t begun; /* how often it has begun to work */
  _Atomic uint64_t called_off[ZP_NOTEPAD_CALLS]; /* the tasks that were called off last */
  _Atomic uint32_t calls;
  _Atomic bool is_retired; /* it is to end when it has nothing to do */
} zp_notes;

typedef struct zp_notepad zp_notepad;

int zp_notepad_new(zp_notepad **pad);
zp_notepad *zp_notepad_keep(zp_notepad *pad); /* one reference more */
void zp_notepad_close(zp_notepad **pad);      /* nulls, may be called twice */
zp_notes *zp_notepad_notes(zp_notepad *pad);  /* borrowed from the handle */

/* ---- the parent ---- */

/* The task is dropped: whether the worker works for it, and so has to be urged. */
bool zp_notepad_call_off(zp_notepad *pad, uint64_t task);

/* ---- the worker: the calling thread ---- */

/* It works for the task from now on, or for none any more. The handle stays until then. */
void zp_notepad_begin(zp_notepad *pad, uint64_t task);
void zp_notepad_finish(void);

/* Whether what it works for was called off; and whether it has still to be told, which is then done. */
bool zp_notepad_is_called_off(void);
bool zp_notepad_has_call(void);
bool zp_notepad_take_call(void);
bool zp_notepad_is_insisted(void); /* it is told again and again */

/* Called by the handler of the signal that urges. */
void zp_notepad_on_urge(void);

#endif
