/*
 * lbuf -- a zp_buf that the Lua stack owns, so that raising an error frees it.
 */
#ifndef ZP_BIND_LBUF_H
#define ZP_BIND_LBUF_H

#include <lua.h>

#include "base/buf.h"

/* Push a userdata that holds an empty buffer; the buffer lives as long as that. May raise. */
zp_buf *zp_lbuf_push(lua_State *L);

#endif
