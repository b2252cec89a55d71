/*
 * keep -- a directory on a disk, in which a state outlives its server.
 *
 * Files. `data.mdb` is the data of the store; all else that a store needs is in the runtime directory of the server, which lives as long as
 * that does. `lock` is locked by the server's owner and inherited by his processes. `status` says what is known of the last use
 * (status.h). `snapshot.mdb` is a copy of the data as they were at some revision (snapshot.h).
 *
 * What a kill cannot cost: any commit that was acknowledged, whatever the sync mode, because the pages of the file are the system's. What a
 * power failure can cost depends on the mode:
 *   always    nothing: each commit is on the disk before it is acknowledged
 *   interval  what came after the last snapshot. Snapshots are taken while the state changes, every second or less often if they
 *             take long. The data themselves may be damaged, since pages reach the disk in any order; so they are replaced by the snapshot
 *   never     everything: after a power failure the data are refused
 *
 * Damage. Nothing is made anew where something has been, and no file of the directory is mapped before it was looked at: the data are walked
 * (check.h), and held against the status: it has their size, the file that they are in, the state, a revision that they have reached, and,
 * after an end in order, their sum. What contradicts it is an error that says what is wrong and what can be restored; nothing is changed then. It takes a
 * wish (zp_restore) to go on from the snapshot, or with data that are whole but not as the status has them. What is replaced by a wish stays, under another
 * name.
 *
 * A copy of a directory in use may be torn, which its pages do not always show: so data that were not closed in order have to be in the file that
 * was in use. zp_keep_backup makes copies that are whole.
 *
 * One server at a time. A server that was killed may still have clients which have its files mapped; its store is retired and the writer
 * that is in the middle of a commit is waited for, before the data are used again.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_STORE_KEEP_H
#define ZP_STORE_KEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "store/store.h"

typedef enum zp_sync { ZP_SYNC_NEVER, ZP_SYNC_INTERVAL, ZP_SYNC_ALWAYS } zp_sync;

/* What users call the modes, in their order; a NULL ends them. */
extern const char *const zp_sync_names[];

/* What to go on with where the data are not as the status has them. */
typedef enum zp_restore { ZP_RESTORE_NOTHING, ZP_RESTORE_DATA, ZP_RESTORE_SNAPSHOT } zp_restore;

/* What users call them; a NULL ends them. */
extern const char *const zp_restore_names[];

typedef struct zp_keep zp_keep;

/* Take the directory, making it if it is not there (one level), and bring its data into order. ZP_ESYS if another server uses it, or if it
   cannot be used; ZP_ESTORE if its data are of another format, or may be damaged. */
int zp_keep_open(const char *directory, zp_sync sync, zp_restore restore, zp_keep **keep);

/* Make the store of the runtime directory, with the data of this one. */
int zp_keep_create_store(zp_keep *keep, const char *runtime, const zp_store_limits *limits);

/* Let the directory go, after the store was retired: in order, if nobody writes any more. Nulls the handle; may be called twice. In a
   forked child nothing is done but that. */
void zp_keep_close(zp_keep **keep);

/* ---- in the server ---- */

/* Whether snapshots of the store in the runtime directory are to be taken. */
bool zp_keep_wants_snapshots(const char *runtime);

/* The revision that the store is at: a snapshot that is begun later has it. ZP_ENOSTORE if the store was retired. */
int zp_keep_revision(const char *runtime, uint64_t *revision);

/* Take a snapshot. It takes as long as copying the data, during all of which this process cannot follow when the state grows: so it should
   be one that does nothing else. It may be killed. ZP_ENOSTORE if the store was retired, or is not that of the data any more. */
int zp_keep_snapshot(const char *runtime);

/* ---- in a process of its own, of any kind of store ---- */

/* Make a copy of the data of the store in the runtime directory, as they are at this instant, in another directory, which is not there yet or is
   empty: a data directory that a server can be started on. *revision: of the copy. It takes as long as copying the data; see zp_keep_snapshot. */
int zp_keep_backup(const char *runtime, const char *directory, uint64_t *revision);

#endif
