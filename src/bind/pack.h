/*
 * pack -- a run of values as bytes: many values that travel together, each for itself.
 *
 * Each value is what it was when it was added. Values of a run share nothing: a table that two of them hold is two tables on arrival, and one
 * value that cannot travel, or cannot be read at the other end, is no matter of the others.
 *
 * Numbers of one kind and strings take a form of their own, which is several times as fast as the codec, since that has to look at each value
 * anew; other runs have the codec's bytes of each value. A run may hold nils.
 *
 * Ownership: the caller owns a zp_run, which is zeroed at first. Errors: 0 or ZP_E* with detail.
 */
#ifndef ZP_BIND_PACK_H
#define ZP_BIND_PACK_H

#include <lua.h>

#include "base/buf.h"

typedef struct zp_run {
  zp_buf bytes;
  zp_buf other; /* scratch */
  size_t end;   /* of what is whole in `bytes` */
  size_t count;
  int form;
} zp_run;

/* Add the value at idx. ZP_ENOMEM or ZP_EENCODE: nothing is added. May raise for want of memory; nothing is added then, either. */
int zp_run_add(lua_State *L, zp_run *run, int idx);

/* Of a run that has begun with a number: add elements of the table at idx, from index `first` on, up to `count` of them, as long as they are
   numbers of that kind. How many were added; none if memory runs out, which zp_run_add then says. May raise for want of memory. */
size_t zp_run_add_numbers(lua_State *L, zp_run *run, int idx, lua_Integer first, size_t count);

/* How many bytes it has, about. */
static inline size_t zp_run_size(const zp_run *run) { return run->end; }

/* The bytes, borrowed; nothing can be added then until it is cleared. */
zp_bytes zp_run_finish(zp_run *run);

void zp_run_clear(zp_run *run);
void zp_run_free(zp_run *run);

/* Set the values of a run in the table at idx, from index `first` on, and push nil, or a table of error objects by their places (1, ...) if
   some values cannot be read; these are left out. An error if the run is none. May raise for want of memory, and what ends or interrupts
   this process. */
int zp_unpack(lua_State *L, int idx, lua_Integer first, size_t count, zp_bytes bytes);

#endif
