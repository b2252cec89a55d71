#include "vm/budget.h"

#include <stdint.h>
#include <stdlib.h>

#include <lauxlib.h>

#include "base/clock.h"

enum { INSTRUCTIONS = 1000 /* between two looks at the clock */ };

void *zp_budget_alloc(void *context, void *block, size_t old_size, size_t new_size) {
  zp_budget *budget = context;
  if (!block) old_size = 0; /* Lua then tells what the block is for */
  if (new_size == 0) {
    free(block);
    budget->used -= old_size;
    return NULL;
  }
  if (new_size > old_size && (budget->used > budget->limit || new_size - old_size > budget->limit - budget->used)) {
    if (budget->refused++ > 0) budget->starved = true;
    return NULL;
  }
  void *moved = realloc(block, new_size);
  if (!moved) {
    budget->starved = true;
    return NULL;
  }
  budget->used += new_size - old_size;
  if (new_size > old_size) budget->refused = 0;
  return moved;
}

static void watch_clock(lua_State *L, lua_Debug *ar) {
  (void)ar;
  void *context;
  lua_getallocf(L, &context);
  zp_budget *budget = context;
  if (!budget->expired && zp_clock_now() < budget->deadline) return;
  budget->expired = true;
  lua_sethook(L, watch_clock, LUA_MASKCOUNT, 1);
  luaL_error(L, "the time is up");
}

void zp_budget_start(zp_budget *budget, lua_State *L, double seconds, size_t bytes) {
  budget->deadline = zp_clock_now() + seconds;
  budget->limit = bytes < SIZE_MAX - budget->used ? budget->used + bytes : SIZE_MAX;
  budget->refused = 0;
  budget->starved = budget->expired = false;
  lua_sethook(L, watch_clock, LUA_MASKCOUNT, INSTRUCTIONS);
}

bool zp_budget_end(zp_budget *budget, lua_State *L) {
  lua_sethook(L, NULL, 0, 0);
  budget->limit = SIZE_MAX;
  return !budget->starved && !budget->expired;
}
