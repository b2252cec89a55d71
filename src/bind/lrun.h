/*
 * lrun -- runs of values (pack.h) for Lua: core.run, core.pack and core.unpack.
 */
#ifndef ZP_BIND_LRUN_H
#define ZP_BIND_LRUN_H

#include <lua.h>

#include "bind/pack.h"

/* The Run at the index. May raise. */
zp_run *zp_lrun_check(lua_State *L, int index);

#endif
