/*
 * lrunner -- the process that runs atomic functions for a server's clients on other machines: its end of the socket. What is in a call
 * and in an outcome is the business of zproc.runner.
 */
#include <lauxlib.h>

#include "base/err.h"
#include "bind/core.h"
#include "bind/lbuf.h"
#include "bind/lerror.h"
#include "bind/lnet.h"
#include "net/runner.h"

/* core.serve_atomics(function): call function(author, cursor, namespace, call) -> cursor, outcome for each, until the server is gone. */
static int core_serve_atomics(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_settop(L, 1);
  zp_buf *bytes = zp_lbuf_push(L);
  zp_parcel request;
  int rc = zp_runner_follow(ZP_RUNNER_SOCKET);
  while (!rc && (rc = zp_runner_receive(ZP_RUNNER_SOCKET, bytes, &request)) == 1) {
    lua_pushvalue(L, 1);
    for (size_t i = 0; i < 2; i++) lua_pushinteger(L, (lua_Integer)request.numbers[i]);
    for (size_t i = 0; i < 2; i++) lua_pushlstring(L, request.strings[i].data, request.strings[i].size);
    lua_call(L, 4, 2);
    zp_parcel reply = {.number_count = 1, .numbers = {(uint64_t)luaL_checkinteger(L, -2)}, ZP_STRINGS(zp_lnet_bytes(L, -1))};
    rc = zp_runner_reply(ZP_RUNNER_SOCKET, &reply);
    lua_settop(L, 2);
  }
  return rc ? zp_lua_raise(L, rc) : 0;
}

static const luaL_Reg functions[] = {
    {"serve_atomics", core_serve_atomics},
    {NULL, NULL},
};

void zp_lrunner_open(lua_State *L) { luaL_setfuncs(L, functions, 0); }
