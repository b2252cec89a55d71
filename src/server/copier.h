/*
 * copier -- the process that takes a snapshot of a state that is kept on a disk by snapshots (store/keep.h).
 *
 * Copying a large state takes its time, and all of it is one transaction of LMDB, within which a process cannot follow when the state
 * grows (store/env.h). So it is not the server that copies: its clients on other machines would wait for it. It is the program zproc, executed
 * anew (sys/program.h), one process for each snapshot.
 *
 * That process holds one end of a pipe, and says by a byte that the snapshot is complete. It ends with its server, however that ends.
 *
 * A handle is used by one thread, and does not outlive it. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SERVER_COPIER_H
#define ZP_SERVER_COPIER_H

#include <stdbool.h>

typedef struct zp_copier zp_copier;

/* Begin to take a snapshot of the store in the runtime directory. */
int zp_copier_start(const char *runtime, zp_copier **copier);

/* A descriptor that can be read as soon as it has ended. */
int zp_copier_descriptor(const zp_copier *copier);

/* The end: whether there is a new snapshot. One that is still under way is given up; so is one of NULL. What has failed was told on
   stderr by the process. Nulls the handle. */
bool zp_copier_end(zp_copier **copier);

/* What is executed: the exit status. */
int zp_copier_main(const char *runtime);

#endif
