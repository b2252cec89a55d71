/*
 * pages -- the pages of an LMDB file, read without LMDB: whether it may be trusted with them.
 *
 * LMDB believes what is in its file. A file that was cut raises SIGBUS where it is read, one with other bytes in it leads LMDB anywhere, and its
 * assertions abort the program. So a file that may be damaged is looked at here first: by pread, so that nothing in it can do harm, and
 * with its layout (of the 0.9 series, 64-bit) written down once more.
 *
 * The walk visits each page that the newest commit can reach, once: each has its own number, lies within the file, and is what its parent takes it for;
 * its nodes fill it without a gap or an overlap; keys ascend; the counts in the heads of the trees are those that were met; what the list of
 * free pages has is in no tree. Of values with pages of their own it reads only the first page, unless the visitor wants to have them.
 *
 * Errors: 0 or ZP_E* with detail; ZP_ESTORE says what is wrong with the file, without its name. Never raises.
 */
#ifndef ZP_STORE_PAGES_H
#define ZP_STORE_PAGES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

/* What the meta pages say of a file. */
typedef struct zp_pages_head {
  size_t page_size;
  uint64_t transaction; /* the newest commit */
  uint64_t last_page;   /* that it uses */
  uint64_t used_bytes;  /* of the file, by that */
} zp_pages_head;

/* Look at both meta pages: whether they are of LMDB's kind, and all that they point to lies within the file. It takes a microsecond or two, and
   may be done while the file is in use. */
int zp_pages_read_head(int fd, zp_pages_head *head);

typedef struct zp_pages_value zp_pages_value; /* while it is visited */

/* Visits the entries of all trees in the order of their keys. `tree` is the name of one. 0, or what ends the walk: a code, with detail. */
typedef int zp_pages_visitor(void *context, zp_bytes tree, zp_bytes key, size_t size, const zp_pages_value *value);

/* The bytes of the value that is visited, appended. */
int zp_pages_fetch(const zp_pages_value *value, zp_buf *out);

/* Walk the file, which nobody changes meanwhile. */
int zp_pages_walk(int fd, zp_pages_visitor *visit, void *context, zp_pages_head *head);

#endif
