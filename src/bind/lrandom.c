#include "bind/lrandom.h"

#include <lauxlib.h>
#include <lualib.h>

#include "base/random.h"
#include "bind/core.h"

static const char randomseed_key;

void zp_lrandom_install(lua_State *L) {
  if (luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE) && lua_getfield(L, -1, LUA_MATHLIBNAME) == LUA_TTABLE) {
    lua_getfield(L, -1, "randomseed");
    if (!lua_iscfunction(L, -1)) { /* the script's own */
      lua_pop(L, 1);
      lua_pushnil(L);
    }
    lua_rawsetp(L, LUA_REGISTRYINDEX, &randomseed_key);
  }
  lua_settop(L, -3);
}

static void seed(lua_State *L, lua_Integer first, lua_Integer second) {
  if (lua_rawgetp(L, LUA_REGISTRYINDEX, &randomseed_key) != LUA_TFUNCTION) {
    lua_pop(L, 1);
    return;
  }
  lua_pushinteger(L, first);
  lua_pushinteger(L, second);
  lua_call(L, 2, 0);
}

void zp_lrandom_seed(lua_State *L) {
  lua_Integer numbers[2];
  zp_random_fill(numbers, sizeof numbers);
  seed(L, numbers[0], numbers[1]);
}

/* core.seed_random([first, second]): make the draws from here on those of the two numbers, or those of nobody. */
static int core_seed_random(lua_State *L) {
  if (lua_isnoneornil(L, 1)) zp_lrandom_seed(L);
  else seed(L, luaL_checkinteger(L, 1), luaL_checkinteger(L, 2));
  return 0;
}

static const luaL_Reg functions[] = {
    {"seed_random", core_seed_random},
    {NULL, NULL},
};

void zp_lrandom_open(lua_State *L) { luaL_setfuncs(L, functions, 0); }
