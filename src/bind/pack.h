/*
 * pack -- a run of elements of an array as bytes: for many values that travel together.
 *
 * Numbers of one kind take a form of their own, which is several times as fast as the codec, since that has to look at each value anew;
 * all else is one table in the codec's form. A run may hold nils.
 */
#ifndef ZP_BIND_PACK_H
#define ZP_BIND_PACK_H

#include <stdbool.h>

#include <lua.h>

#include "base/buf.h"

/* Append `count` elements of the table at idx, from index `first` on, to the buffer. 0, ZP_ENOMEM or ZP_EENCODE, also for a nil unless
   `nils` says that there may be some. May raise for want of memory only. */
int zp_pack(lua_State *L, int idx, lua_Integer first, size_t count, bool nils, zp_buf *out);

/* Set the elements of a run in the table at idx, from index `first` on. 0, or an error as of zp_value_decode. May raise as that does. */
int zp_unpack(lua_State *L, int idx, lua_Integer first, size_t count, zp_bytes bytes);

#endif
