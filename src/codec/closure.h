/*
 * closure -- what the codec needs to know of a Lua function: its bytecode, and the globals that it names.
 *
 * A function travels as its bytecode (with line information, so that tracebacks read well), its upvalues as numbered
 * cells so that those shared between functions stay shared, and, where an upvalue is the globals table, an
 * environment: the script-defined globals that the function, or any function within it, names in its code. On arrival
 * such an environment is a table of its own that falls back on the receiver's globals for reading what it has not and
 * for writing; without any script-defined global it is the receiver's globals table itself.
 *
 * Which globals a function names is read off its bytecode: instructions that get or set a field of the upvalue _ENV
 * by a constant name. The numbers of these instructions are found out at zp_codec_open by compiling known lines, not
 * written down here.
 */
#ifndef ZP_CODEC_CLOSURE_H
#define ZP_CODEC_CLOSURE_H

#include <lua.h>

#include "base/buf.h"

/* Append the bytecode of the Lua function at idx. 0, ZP_ENOMEM or ZP_EENCODE. Needs a free stack slot; never raises. */
int zp_closure_dump(lua_State *L, int idx, zp_buf *buf);

/* Call visit(context, name, size) for each global name that the bytecode gets or sets through the upvalue of the main
   function with the given number (0-based), including functions within it; names may repeat. visit answers 0 or a
   ZP_E* code. 0, the first other answer of visit, or ZP_EENCODE if the bytecode is not in the format of this Lua.
   Looks at bytes only. In a function that uses the upvalue as a value, names may be reported that it does not use:
   constants beyond the 256th, and those of more than 40 bytes. */
typedef int zp_closure_visit(void *context, const char *name, size_t size);
int zp_closure_globals(zp_bytes bytecode, int env_upvalue, zp_closure_visit *visit, void *context);

/* Find out the instruction numbers; called by zp_codec_open. May raise for want of memory. */
void zp_closure_open(lua_State *L);

#endif
