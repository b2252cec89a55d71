/*
 * check -- whether the file with the data of a store is whole, before LMDB gets to see it.
 *
 * pages.h looks at the pages; here is what the trees have to hold (store.h, layout and invariants): revisions without a gap, namespaces with as
 * many keys as they say, and for each revision that is kept just those versions that its record names. So files that were mixed from
 * several commits are found out, too, as far as their keys go. Bytes within a value are the codec's matter, which trusts none; that they are the
 * right ones only a sum of the whole file tells.
 *
 * Errors: 0 or ZP_E* with detail, which names the file: ZP_ENOSTORE if it is not there, ZP_ESTORE if it is damaged or no file, ZP_ESYS if it cannot be
 * read. Never raises.
 */
#ifndef ZP_STORE_CHECK_H
#define ZP_STORE_CHECK_H

#include <stdint.h>
#include <sys/types.h>

typedef struct zp_check {
  uint64_t identity;   /* of the state; 0: it has none yet */
  uint64_t oldest;     /* record that is kept, and the newest: revisions; 0: nothing was ever written */
  uint64_t newest;
  uint64_t used_bytes; /* of the file: what comes behind is of no account */
} zp_check;

/* Open a file to read it; what is no plain file is refused (ZP_ESTORE), and so is what other users may do more with than is allowed (`closed`,
   trust.h; ZP_EAUTH). */
int zp_check_open(const char *path, mode_t closed, int *fd);

/* Walk the data in an open file, which nobody changes meanwhile. The path is for messages. */
int zp_check_file(int fd, const char *path, zp_check *found);

/* The same by its path. */
int zp_check_data(const char *path, zp_check *found);

/* The sum (base/sum.h) of the first bytes of a file. */
int zp_check_sum(int fd, const char *path, uint64_t size, uint64_t *sum);

/* Whether a file that may be in use can be mapped: its meta pages, and that it was not cut. */
int zp_check_head(int fd, const char *path);

#endif
