/*
 * lerror -- error objects at the Lua edge.
 *
 * An error object is a table {name=, message=, where=, ...} with one metatable for all; lua/zproc/errors.lua gives it its
 * methods. C code raises through here only: a code of base/err.h becomes the error of that name, and wrong use (a wrong
 * argument, a closed State) becomes a UsageError. `where` is the source line of the Lua code that called in.
 *
 * Whoever raises holds nothing: no lock, no read, no memory that a userdata does not own.
 */
#ifndef ZP_BIND_LERROR_H
#define ZP_BIND_LERROR_H

#include <stdbool.h>

#include <lua.h>

/* Raise the error that stands for a ZP_E* code, with zp_error_detail() as its message; for ZP_EINTR the signal that has come. Does not
   return. */
int zp_lua_raise(lua_State *L, int code);

/* The same, with the traceback of where it happened. */
int zp_lua_raise_from(lua_State *L, int code, const char *traceback);

/* Raise a UsageError with a message as by lua_pushfstring. Does not return. */
int zp_lua_usage(lua_State *L, const char *format, ...);

/* Raise a UsageError if a method was given more than the object and so many arguments; nils do not count. `call` is for the message. */
void zp_lua_refuse_surplus(lua_State *L, int most, const char *call);

/* Raise a SignalError; its field `signal` is what zp_lua_set_signals was given for the number. Does not return. */
int zp_lua_raise_signal(lua_State *L, int signal);

/* Push the error object of a failure with that code, as zp_lua_raise would raise it. May raise for want of memory. */
void zp_lua_push_error(lua_State *L, int code);

/* Whether what was raised, on top of the stack, ends or interrupts this process, so that it is no matter of what was done; if not, it is an
   error object afterwards, be it a new one. May raise for want of memory. */
bool zp_lua_is_passing(lua_State *L);

/* Raise the error of a function that has taken longer than it may (sys/limit.h). */
int zp_lua_raise_limit(lua_State *L);

/* Raise the error of an item that nobody wants any more (sys/notepad.h). */
int zp_lua_raise_called_off(lua_State *L);

/* Lua function: takes a table of the values that stand for signals, by number. */
int zp_lua_set_signals(lua_State *L);

/* Whether the function of the debug record, filled in with "S", is one of zproc's own Lua modules. */
bool zp_lua_is_own(const lua_Debug *ar);

/* Pop a table from the stack and make it the metatable of all error objects of this VM, known to the codec as "zproc:Error". */
void zp_lua_set_error_metatable(lua_State *L);

/* The name of the error that stands for a code ("EncodeError"). */
const char *zp_lua_error_name(int code);

#endif
