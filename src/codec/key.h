/*
 * key -- a Lua key of the state <-> the bytes that the store orders by.
 *
 * Byte order is the order that a person expects: booleans, then numbers by value (integers and floats of one scale),
 * then strings bytewise. A float with an integral value that fits an integer is that integer, as in any Lua table:
 * 1.0 and 1 are one key. A number's bytes start with a rank that both kinds share, so that 1, 1.5 and 2 come in this
 * order.
 *
 * An integer beyond 2^53, where doubles have gaps, has its own eight bytes behind the rank.
 */
#ifndef ZP_CODEC_KEY_H
#define ZP_CODEC_KEY_H

#include <lua.h>

#include "base/buf.h"

#define ZP_KEY_SCRATCH 24 /* bytes that any key but a string needs */

/* Encode the value at idx. For strings the bytes are a tag and the string's own: `buf` is cleared and receives them.
   0; ZP_EKEY if the type cannot be a key (nil, NaN, table, ...), with a detail that says so ("a table cannot be a key
   of the state; use a string, integer, float or boolean"), or if a string is longer than the store takes (the detail
   gives its length, the limit, and the start of the key). Fast for short strings: no allocation once buf has grown.
   Never raises. */
int zp_key_encode(lua_State *L, int idx, zp_buf *buf);

/* Push the key. 0, or ZP_EDECODE if these are no bytes of zp_key_encode (nothing is pushed). Needs one free stack slot.
   May raise for want of memory. */
int zp_key_decode(lua_State *L, zp_bytes bytes);

#endif
