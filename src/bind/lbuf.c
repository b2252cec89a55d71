#include "bind/lbuf.h"

#include <lauxlib.h>

#define BUFFER_TYPE "zproc.Buffer"

static int lbuf_gc(lua_State *L) {
  zp_buf_free(lua_touserdata(L, 1));
  return 0;
}

zp_buf *zp_lbuf_push(lua_State *L) {
  zp_buf *buf = lua_newuserdatauv(L, sizeof *buf, 0);
  *buf = (zp_buf)ZP_BUF_INIT;
  if (luaL_newmetatable(L, BUFFER_TYPE)) {
    lua_pushcfunction(L, lbuf_gc);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  return buf;
}
