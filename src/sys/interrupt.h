/*
 * interrupt -- signals, as something that cuts short whatever this process waits for, and is never missed.
 *
 * One word of the process counts what there is to tell: a caught signal has come, a child has ended. A thread that is
 * about to wait arms itself, looks whether there is anything to do for it, and waits; all waits of zproc end with ZP_EINTR as soon as
 * the word is not what it was at the arming. So a signal that comes between the look and the sleep is not slept through, which EINTR of
 * the system alone would not give.
 *     for (;;) {
 *       zp_interrupt_arm();
 *       ... take what has come (zp_interrupt_take), and leave if that is the end of it
 *       rc = wait(...);
 *       if (rc != ZP_EINTR) break;
 *     }
 *     zp_interrupt_disarm();
 * A thread that has not armed itself is not cut short.
 *
 * Handlers only count, and note which signal it was; what is to be done about it is done by whoever takes it.
 *
 * Fork: a child inherits which signals are caught, and nothing that has come before it was born. Threads: arming is a thread's own, and
 * so is what it takes. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SYS_INTERRUPT_H
#define ZP_SYS_INTERRUPT_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* The signal that tells a thread, or a worker, to look what is asked of it. By default it does nothing, and hardly anybody uses it. */
enum { ZP_INTERRUPT_URGE = SIGURG };

/* Begin and end to be cut short. Arming again is how an interrupt is acknowledged. */
void zp_interrupt_arm(void);
void zp_interrupt_disarm(void);
bool zp_interrupt_is_armed(void);

/* Whether this thread is armed and there has been an interrupt since. */
bool zp_interrupt_is_due(void);

/* The word, for those who sleep on several futexes, and what it was at the arming; NULL if this thread is not armed. */
_Atomic uint32_t *zp_interrupt_word(uint32_t *armed);

/* Sleep until there is an interrupt (ZP_EINTR) or the deadline has passed (ZP_ETIMEOUT; zp_clock_now seconds, ZP_FOREVER). */
int zp_interrupt_wait(double deadline);

/* Interrupt the armed threads of this process. May be called from a signal handler. */
void zp_interrupt_all(void);

/* ---- signals ---- */

/* From now on the signal does not do what it does by default but is noted, to be taken. once: the next one after that does what it does
   by default. ZP_ESYS for signals that cannot be caught. */
int zp_interrupt_catch(int signal, bool once);

/* The signal does again what it did before it was caught. */
void zp_interrupt_release(int signal);

/* Nothing of zproc is left in this process: all signals do again what they did before. */
void zp_interrupt_release_all(void);

/* Whether the signal is ignored at present. Whoever has started this program may have wished so (nohup), and that is to be respected. */
bool zp_interrupt_is_ignored(int signal);

/* A signal that was caught with `once` is the script's business alone: called in a forked child, lets it do there what it did before. */
void zp_interrupt_release_once(void);

/* In a forked worker: signals are for the script that has started it, which may have caught them, and which a terminal or a service manager
   sends them to as well. From now on SIGINT and the signals that are caught do nothing here; SIGTERM, if it is caught, only if
   is_wished() says so, which is called when it is taken. Whoever catches a signal from now on has it again. */
void zp_interrupt_defer(bool (*is_wished)(void));

/* In a process that a worker has forked: signals are again what they were to the script. */
void zp_interrupt_resume(void);

/* The number of a signal that has come; 0: none. Each is given as often as it has come. */
int zp_interrupt_take(void);

/* Whether zp_interrupt_take would give one. */
bool zp_interrupt_has_signal(void);

/* Whether a signal that is caught has ever come to this process, be it taken or not. */
bool zp_interrupt_has_come(int signal);

/* From now on the signal is not taken by zp_interrupt_take but put into a queue, in the order in which they come: that of the process, which one
   thread empties. It cuts short all waits. When there are 4096 in it, further ones are left out. Not in forked children: there the signal does
   what it did before. */
int zp_interrupt_queue(int signal);
void zp_interrupt_unqueue(int signal);

/* The next signal of the queue, which is taken out of it; 0: there is none. */
int zp_interrupt_next(void);
bool zp_interrupt_has_queued(void);

/* What handlers of caught signals call besides, in the thread that they run in; it must be allowed in a signal handler. */
void zp_interrupt_set_notify(void (*notify)(void));

/* Call that, and interrupt the armed threads. For the handlers of other signals. */
void zp_interrupt_notify(void);

/* ---- threads ----
   The signals of a process are for its first thread, whichever thread they come to. Another thread is told to stop by a signal of its
   own, and takes that as SIGTERM. */

/* Called by the first thread before it starts another one. */
void zp_interrupt_prepare_threads(void);

/* What a thread that is not the first one has to take: all zero at first, and there for as long as it runs. */
typedef _Atomic uint64_t zp_interrupt_signals;

/* In a new thread, while it has all signals blocked. */
void zp_interrupt_enter_thread(zp_interrupt_signals *signals);

/* Whether this is another thread than the first one. */
bool zp_interrupt_is_in_thread(void);

/* Let the thread, which has entered with these, have a SIGTERM. It need not have entered yet, but must not be joined. */
void zp_interrupt_thread(pthread_t thread, zp_interrupt_signals *signals);

#endif
