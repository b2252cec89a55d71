/*
 * judges -- the processes in which a server evaluates the predicates of clients on other machines.
 *
 * A predicate is code of a user. What it does in Lua is limited (vm.h); should it be stuck all the same, or take the memory of the machine, that is
 * ended with the process. So it does not run in the server: a judge is the program zproc, executed anew with a socket to the server, opens the
 * store itself, and evaluates one predicate at a time, as of a revision. The server does the rest of watching. There are as many judges as
 * there are evaluations at once, up to a limit; a few are kept for the next ones, with the predicates that they have loaded.
 *
 * An evaluation changes nothing: one whose judge has died is done again by another, once. A judge ends with the server.
 *
 * Threads: any. Errors: 0, 1 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_JUDGES_H
#define ZP_NET_JUDGES_H

#include "store/store.h"
#include "vm/vm.h"
#include "watch/watch.h"

typedef struct zp_judges zp_judges;

int zp_judges_open(const char *directory, zp_judges **judges);
void zp_judges_close(zp_judges **judges); /* when nobody asks any more; ends the processes; nulls, may be called twice */

typedef struct zp_judges_question {
  zp_bytes function; /* of the predicate, as zp_predicate_load takes it */
  zp_vm_limits limits;
  zp_buf traceback; /* out: of the predicate's error; the caller frees it */
} zp_judges_question;

/* Evaluate as a zp_watch_test does. ZP_EINTR if this thread is to stop. */
int zp_judges_test(zp_judges *judges, zp_judges_question *question, zp_store *store, uint64_t revision, zp_watch *watch);

/* What a judge does: `zproc --judge DIRECTORY`. Gives its exit status. */
int zp_judge_main(const char *directory);

#endif
