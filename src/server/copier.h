/*
 * copier -- the process that copies the data of a state: a snapshot of one that is kept on a disk by snapshots, or a backup (store/keep.h).
 *
 * Copying a large state takes its time, and all of it is one transaction of LMDB, within which a process cannot follow when the state
 * grows (store/env.h). So it is not the server that copies: its clients on other machines would wait for it. It is the program zproc, executed
 * anew (sys/program.h), one process for each copy. Nor is it a script that makes a backup, whose other threads go on.
 *
 * That process holds one end of a pipe, and says there what has come of it. It ends with the process that has started it, however that ends.
 *
 * A handle is used by one thread, and does not outlive it. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SERVER_COPIER_H
#define ZP_SERVER_COPIER_H

#include <stdbool.h>
#include <stdint.h>

typedef struct zp_copier zp_copier;

/* Begin to take a snapshot of the store in the runtime directory. */
int zp_copier_start(const char *runtime, zp_copier **copier);

/* A descriptor that can be read as soon as it has ended. */
int zp_copier_descriptor(const zp_copier *copier);

/* The end: whether there is a new snapshot. One that is still under way is given up; so is one of NULL. What has failed was told on
   stderr by the process. Nulls the handle. */
bool zp_copier_end(zp_copier **copier);

/* Begin to make a backup of the store in the runtime directory, in a directory that is not there yet or is empty. */
int zp_copier_start_backup(const char *runtime, const char *directory, zp_copier **copier);

/* Wait until it has ended: 0, or ZP_EINTR as soon as a signal handler runs. */
int zp_copier_wait(const zp_copier *copier);

/* The end: 0 and the revision of the backup, or what has failed there. One that is under way is given up; so is one of NULL. Nulls the handle. */
int zp_copier_end_backup(zp_copier **copier, uint64_t *revision);

/* What is executed: the exit status. `directory`: of a backup; NULL: take a snapshot. */
int zp_copier_main(const char *runtime, const char *directory);

#endif
