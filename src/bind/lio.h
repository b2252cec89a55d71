/*
 * lio -- the io library's reading as something that a caught signal interrupts.
 *
 * A read that is cut short by a signal fails with EINTR: io.read and file:read return that, the iterators of lines raise it as a string,
 * and the script would take it for a fault of the file. In their place there are functions that do the same, but raise the signal as every
 * other wait does (lsignal.h). What a read had got of an unfinished line by then is lost, as it is in Lua.
 */
#ifndef ZP_BIND_LIO_H
#define ZP_BIND_LIO_H

#include <lua.h>

/* Replace io.read, io.lines, file:read and file:lines where they are Lua's own. Before anything learns what is in the io library. May
   raise. */
void zp_lio_install(lua_State *L);

#endif
