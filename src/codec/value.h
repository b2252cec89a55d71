/*
 * value -- any Lua value that can travel <-> bytes.
 *
 * What travels: nil, booleans, integers and floats to the bit, strings, zproc.null (a NULL light userdata), tables
 * (nested, shared, cyclic, with metatables; any key that can travel), Lua functions with their upvalues (closure.h),
 * and what has a name on both sides (names.h). A value and its copy have equal bytes: tables are written array part first
 * (1..n up to the first nil), then the other pairs in the order of their encoded keys; the same graph with the same
 * sharing gives the same bytes.
 *
 * Format. One version byte, then a value: a tag byte and its payload. Tables, functions, upvalues and environments
 * are numbered in the order in which they are met; a second meeting is a reference to the number. The version byte
 * says whether there is any reference, so that the decoder keeps no table of objects when there is none: that is the
 * fast path. A value has at least one byte. docs/codec.md has the grammar.
 *
 * The encoder looks at raw contents (no __index, no __pairs) and runs no user code. The decoder takes hostile bytes:
 * it reads no byte past the end, allocates in proportion to the input, bounds its recursion, and builds nothing that
 * is not in the grammar; only function bodies are handed to Lua's own loader, which is to be trusted only with bytes
 * from an authenticated peer (ZP_DECODE_CODE).
 */
#ifndef ZP_CODEC_VALUE_H
#define ZP_CODEC_VALUE_H

#include <lua.h>

#include "base/buf.h"

/* Tables nested deeper than this (in one line of descent) do not travel. */
#define ZP_DEPTH_MAX 4000

/* Prepare a lua_State for the codec: the registry tables of names.h and the globals that the script starts with. To
   be called once per VM, after the standard libraries are open and before any script. May raise for want of memory.
   */
void zp_codec_open(lua_State *L);

/* The same in a VM in which a script runs already: what it has made of the globals and of Lua's libraries is the script's. */
void zp_codec_open_late(lua_State *L);

/* Append the bytes of the value at idx to buf. On failure buf is as before, and the answer is ZP_ENOMEM, or ZP_EENCODE
   with a detail that names the path, `root` being what the caller calls the value (NULL: "value"):
     state.jobs[3].file: cannot send a userdata (FILE*)
     argument 2, upvalue log of function at main.lua:7: cannot send a coroutine
     state, global logs used by function at main.lua:5, field [1]: cannot send a C function
   Leaves the stack as it was. May raise for want of memory only; buf stays valid then. A value with functions or
   metatables may run finalisers before the call returns, after the encoding is done. */
int zp_value_encode(lua_State *L, int idx, const char *root, zp_buf *buf);

enum {
  ZP_DECODE_DATA = 0, /* functions, library values and finalisers are refused (ZP_EDECODE); registered names are not */
  ZP_DECODE_CODE = 1, /* functions are loaded: the bytes come from someone who may run code here */
  ZP_DECODE_NO_FINALISERS = 2 /* with ZP_DECODE_CODE: metatables with __gc are refused all the same */
};

/* Push the value. The bytes are read to the end of the call, in which Lua may collect garbage and thus run
   finalisers: they must not be taken away by those. 0, or ZP_ENOMEM or ZP_EDECODE with nothing pushed: not the bytes
   of one whole value, or a name that is unknown here (the detail says which). A module that the bytes name
   is required; what that raises is ZP_EDECODE. May raise for want of memory, and an error object, of a signal that comes meanwhile, say. */
int zp_value_decode(lua_State *L, zp_bytes bytes, int flags);

/* Whether two encoded values are equal by content, without decoding: 1, 0, or ZP_ENOMEM. Scalars are, as for Lua's ==: numbers by value (1 and
   1.0 are equal, NaN is equal to nothing), strings by their bytes. Tables are if they have equal keys with equal values, whether or not
   they share or contain themselves; metatables do not count. Functions are if they have the same code (its lines included), and
   equal upvalues and globals; what travels by name, by that. Bytes that are no value equal themselves only. docs/codec.md says more. */
int zp_value_equal(zp_bytes a, zp_bytes b);

/* True if the bytes are those of nil or zproc.null ("none"), without decoding. */
int zp_value_is_none(zp_bytes bytes);

/* True if the bytes are those of a scalar (no table, no function, nothing by name): decoding them runs no Lua code. */
int zp_value_is_scalar(zp_bytes bytes);

#endif
