/*
 * lclass -- the metatables of userdata.
 */
#ifndef ZP_BIND_LCLASS_H
#define ZP_BIND_LCLASS_H

#include <lauxlib.h>

/* Make the metatable of a type: methods (NULL: none) as its __index, and gc (NULL: none) as its __gc. Pushes nothing. May raise. */
void zp_lclass_new(lua_State *L, const char *type, const luaL_Reg *methods, lua_CFunction gc);

#endif
