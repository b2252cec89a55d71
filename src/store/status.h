/*
 * status -- the file `status` of a data directory (keep.h): what is known of the last use of the data, to hold against what is found.
 *
 *   zproc FORMAT STATE BOOT SYNC
 *   the runtime directory of the server
 *   data SIZE INODE BORN IDENTITY REVISION SUM
 *   sum SUM
 *
 * The last line is the sum of the others but for BOOT, the name of a boot of the machine: that is only ever compared with the present one,
 * and one that differs means that the machine went down. Directories of format 3 have the first two lines alone: they are read, and nothing is known
 * of their data.
 *
 * Internal to the store. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_STORE_STATUS_H
#define ZP_STORE_STATUS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "store/env.h"

enum { ZP_STATUS_FORMAT = 4, ZP_STATUS_OLD_FORMAT = 3 };

typedef enum zp_status_state {
  ZP_STATUS_MAKING,    /* the first store: nothing was ever in it */
  ZP_STATUS_OPEN,      /* in use, or left by a server that was killed */
  ZP_STATUS_CLOSED,    /* in order */
  ZP_STATUS_RESTORING, /* data.mdb is about to be replaced by the snapshot */
  ZP_STATUS_ROLLED,    /* data.mdb is a snapshot, and was not used since */
  ZP_STATUS_BACKUP     /* data.mdb is a copy that zp_keep_backup has made */
} zp_status_state;

/* What is known of data.mdb; 0: that is not known. */
typedef struct zp_status_data {
  uint64_t size;        /* at least; with `sum`: bytes of it that count */
  uint64_t inode, born; /* of the file: a copy has others */
  uint64_t identity;    /* of the state */
  uint64_t revision;    /* at least */
  uint64_t sum;         /* of its first `size` bytes; only while nobody uses it */
} zp_status_data;

typedef struct zp_status {
  int format;
  zp_status_state state;
  char boot[ZP_BOOT_SIZE];
  char sync[16];
  char runtime[PATH_MAX];
  zp_status_data data;
} zp_status;

/* 1, 0 if there is none, or an error: ZP_ESTORE if it is damaged. */
int zp_status_read(const char *directory, zp_status *status);

/* Of one that cannot be read: whether that is since another version of the program has written it. */
static inline bool zp_status_is_of_other_program(const zp_status *status) {
  return status->format != 0 && status->format != ZP_STATUS_FORMAT && status->format != ZP_STATUS_OLD_FORMAT;
}

/* Put it in the place of the last one. Format and boot are this program's and this boot's. */
int zp_status_write(const char *directory, const zp_status *status);

#endif
