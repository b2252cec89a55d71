/*
 * lnotepad -- the Notepad of a worker for Lua (sys/notepad.h).
 */
#ifndef ZP_BIND_LNOTEPAD_H
#define ZP_BIND_LNOTEPAD_H

#include <lua.h>

#include "sys/notepad.h"

/* The Notepad at the index, or NULL for nil. May raise. */
zp_notepad *zp_lnotepad_get(lua_State *L, int index);

/* In a new thread: the Notepad that core.own_notepad gives there, or NULL. The thread keeps the handle. */
void zp_lnotepad_set_own(zp_notepad *pad);

#endif
