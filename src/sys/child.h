/*
 * child -- a forked process, and the one message that it leaves behind.
 *
 * The child inherits everything by fork. Before it ends it may leave one message of any size (what its target returned)
 * in a memory file that both share, so it never blocks on a parent that does not read, and the parent never on a child that
 * does not write. A message is either whole or not there, at whatever instant the child dies.
 *
 * A zp_child belongs to the process that forked it: only that one can wait for it, signal it, or see its exit. What is
 * inherited by further forks is inert. A child that ends is reaped at once, by a handler of SIGCHLD, whether anybody waits for it or
 * not, and whether or not there still is a handle; no pid is signalled after that, so a reused pid is never hit. The program that this is
 * part of may have a handler of its own, which is called as well, and children of its own, which are left to it; should it wait for
 * whichever child and get one of these, the exit status is known all the same.
 *
 * Threads: each zp_child is used by one thread at a time.
 *
 * Errors: 0 or ZP_E* with detail. No Lua, never raises.
 */
#ifndef ZP_SYS_CHILD_H
#define ZP_SYS_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/buf.h"
#include "sys/table.h"

typedef struct zp_child zp_child;

/* Fork. In the parent: 0, and *pid > 0. In the child: 0, *pid == 0, and *child is what zp_child_leave takes.
   Output that is held back is written first, so that it does not appear twice. die_with_parent: the kernel kills the
   child when the thread that forked it ends, however it ends. */
int zp_child_fork(bool die_with_parent, zp_child **child, pid_t *pid);

/* In the parent, right after the fork: list the child in this row of the table, which was claimed for it. Its end is noted there,
   whether or not there still is a handle; until then the table is kept. */
void zp_child_list(zp_child *child, zp_table *table, zp_table_row row);

/* In the parent, right after the fork: a death by a signal that the parent has not sent is to be told, by this name. */
void zp_child_name(zp_child *child, const char *name);

/* A death that is to be told. */
typedef struct zp_child_death {
  pid_t pid;
  int signal;
  char name[96]; /* the end of it, if it is longer */
} zp_child_death;

/* Whether there is a death to be told, and the next one; false if there is none. Which thread has started the process does not matter. */
bool zp_child_has_deaths(void);
bool zp_child_take_death(zp_child_death *death);

/* After a fork that has failed with errno: ZP_ESYS, and words that say why `what` could not be started. */
int zp_child_fail_fork(const char *what);

/* In the child: leave the message, replacing an earlier one. */
int zp_child_leave(zp_child *child, zp_bytes message);

/* In the child: write out what is held back and end at once, without atexit handlers and finalisers, which are the parent's. */
_Noreturn void zp_child_exit(int status);

/* Nothing of zproc is left in this process: put back the handler of SIGCHLD that was there before, unless there are children, which go on
   being reaped. */
void zp_child_release(void);

/* Wait until the child has ended or the deadline (zp_clock_now seconds, or ZP_FOREVER) has passed. 0, ZP_ETIMEOUT, ZP_EINTR if
   an interrupt is due (interrupt.h), or ZP_ESYS (not the parent). A deadline in the past: just look. Once the end was seen here the child
   takes no descriptor any more. */
int zp_child_wait(zp_child *child, double deadline);

/* How long to sleep between two looks, in seconds: the handler that sees an end may be blocked, or the program may have replaced it. */
double zp_child_look_after(void);

/* True once the child has been seen to have ended; *exitcode is then its exit status, or -N if signal N killed it. */
bool zp_child_ended(const zp_child *child, int *exitcode);

/* In the parent, after the end: append the message to out, once; it is not kept. 1, 0 if there is none, or an error. */
int zp_child_message(zp_child *child, zp_buf *out);

/* Send a signal, unless the child has ended. 0 or ZP_ESYS. */
int zp_child_signal(zp_child *child, int signal);

/* Ask the child to end, by SIGTERM; unlike any other SIGTERM it is known to be the parent's wish. 0 or ZP_ESYS. */
int zp_child_stop(zp_child *child);

/* In the child: whether the parent has asked it to end. */
bool zp_child_is_to_stop(const zp_child *child);

pid_t zp_child_pid(const zp_child *child);

/* Let go of the handle and null it; the process itself is not touched. May be called twice. */
void zp_child_close(zp_child **child);

#endif
