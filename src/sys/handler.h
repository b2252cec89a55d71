/*
 * handler -- handlers of signals beside those that the program has.
 *
 * zproc may be a guest in a program with handlers of its own (src/module). A handler that is put here is called first; then the action that
 * was there before is done, if it is a handler. When nobody needs ours any more, what was there before is put back.
 *
 * A program may put a handler of its own over ours, and that may call ours or not. So putting ours again means that it gets on top again, and
 * removing leaves alone what is not on top: what stays there is called by the program's handler, does no harm, and goes on to the one before.
 *
 * What the program wants of a signal besides stays as it is: whether system calls are restarted, whether stopped children are told of, and
 * which stack is used. Where the program had no handler, system calls are restarted.
 *
 * Threads: calls for one signal are made by one thread at a time, which the caller sees to. Fork: a child inherits all of it, and exec none.
 */
#ifndef ZP_SYS_HANDLER_H
#define ZP_SYS_HANDLER_H

#include <stdbool.h>

/* Called with all signals blocked; must be allowed in a signal handler, keep errno, and stand being called without a signal for it. */
typedef void zp_handler(int signal);

/* From now on `own` is called for the signal, which is one handler for each signal. May be called again at any time. 0, or ZP_ESYS. */
int zp_handler_put(int signal, zp_handler *own);

/* Nobody needs it any more. A signal that is still on its way to it is dropped, if the program has no handler. */
void zp_handler_remove(int signal);

/* Whether without ours the signal would be ignored by the program, be it that it said so or, for SIGCHLD, that it wants no zombies
   (SA_NOCLDWAIT). May be called from a signal handler. */
bool zp_handler_is_unwanted(int signal);

#endif
