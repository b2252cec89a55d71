/*
 * runner -- the process in which a server runs the atomic functions of clients on other machines. (Their predicates: judges.h.)
 *
 * A function of a user may run for ever, take all memory, or crash; so it does not run in the server. The runner is the program zproc
 * (program.h), executed anew with a socket to the server, at the first atomic function. It runs one after the other, as the lock of
 * writers would have it anyway. If it dies, the client is told, and the next function gets another runner. Mostly nothing has changed then;
 * but it may have been killed after its commit, and before it could tell. The log shows that, as changes are marked with their author.
 *
 * One that takes more than 30 seconds ($ZPROC_ATOMIC_LIMIT), waiting for the lock of writers included, is killed: it holds up all that change the
 * state, and nobody on this machine might know where it comes from.
 *
 * It ends with the server: a thread of it does nothing but wait for the other end of the socket to be closed. That may take a moment, in which
 * it may still commit. So both hold a lock on a file in the server's directory, and the next server waits for it before it answers anybody:
 * what became of a change is not asked before it is settled. (Not for ever: what a function has forked holds the lock as well.)
 *
 * Threads: functions may be called by several at once. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_RUNNER_H
#define ZP_NET_RUNNER_H

#include "net/answer.h"
#include "net/judges.h"
#include "store/store.h"

typedef struct zp_runner zp_runner;

/* ZP_ENOSTORE if the directory of the server is gone, as its state has ended. */
int zp_runner_open(const char *directory, zp_runner **runner);

/* Whether the processes of servers before this one are gone; if not, ask again. */
bool zp_runner_is_settled(zp_runner *runner);

void zp_runner_close(zp_runner **runner); /* ends the process; nulls, may be called twice */

/* Carry out an ATOMIC (request.h) on the namespace of the store, when it is its turn. ZP_EINTR if this thread is to stop: a function that
   runs is killed, one that does not run yet never will. ZP_EBUDGET if it took too long, and nothing has changed. ZP_ESTALE if the state was, or may have been changed, but the result is lost. */
int zp_runner_run(zp_runner *runner, zp_store *store, const zp_parcel *request, zp_answer *answer);

/* The processes that evaluate predicates, which end with it. */
zp_judges *zp_runner_judges(zp_runner *runner);

/* ---- the other end ---- */

enum { ZP_RUNNER_SOCKET = 3, ZP_RUNNER_LOCK = 4 };

/* Receive the next request: 1, or 0 if the server is gone. `bytes` holds what the parcel points to. */
int zp_runner_receive(int fd, zp_buf *bytes, zp_parcel *request);
int zp_runner_reply(int fd, const zp_parcel *reply);

/* From now on this process ends when the server does. */
int zp_runner_follow(int fd);

#endif
