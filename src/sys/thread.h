/*
 * thread -- a thread that is used like a process: it runs one function, leaves an exit code and a message, and can be asked to stop.
 *
 * The signals of the process are not for it (interrupt.h); the wish that it stops, its function sees as SIGTERM. The end of a thread is
 * an interrupt for all the others.
 *
 * A zp_thread is used by the thread that started it. In a forked child there is no such thread: there the handle is inert.
 *
 * Errors: 0 or ZP_E* with detail. No Lua, never raises.
 */
#ifndef ZP_SYS_THREAD_H
#define ZP_SYS_THREAD_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/buf.h"

typedef struct zp_thread zp_thread;

/* What a thread runs: gives its exit code, and may leave a message. */
typedef int zp_thread_main(void *context, zp_buf *message);

/* Start a thread. The context is the thread's from then on. */
int zp_thread_start(zp_thread_main *run, void *context, zp_thread **thread);

/* Wait until it has ended: as zp_child_wait. */
int zp_thread_wait(zp_thread *thread, double deadline);

/* True once it has ended; *exitcode (may be NULL) is then what its function gave. */
bool zp_thread_ended(const zp_thread *thread, int *exitcode);

/* After the end: the message, borrowed until the handle is closed; empty if there is none. */
zp_bytes zp_thread_message(const zp_thread *thread);

/* The process that it is one of. */
pid_t zp_thread_process(const zp_thread *thread);

/* Ask it to stop; insist: again and again, wherever it looks. */
void zp_thread_stop(zp_thread *thread, bool insist);

/* Let it look whether something is asked of it (notepad.h). */
void zp_thread_urge(zp_thread *thread);

/* In a thread: whether it was asked to stop, and whether somebody insists. False in threads that zp_thread_start did not start. */
bool zp_thread_is_to_stop(void);
bool zp_thread_must_stop(void);

/* What ps calls this thread (`-o comm`), and if it is the first one its process: what comes behind the last slash, the first 15 bytes of it. */
void zp_thread_set_name(const char *name);

/* Let go of the handle and null it; the thread itself goes on. May be called twice. */
void zp_thread_close(zp_thread **thread);

#endif
