#include "vm/budget.h"

#include <stdint.h>
#include <stdint.h>
#include <stdlib.h>

#include <lua.h>

#include "base/clock.h"

enum { INSTRUCTIONS = 1000 /* between two looks at the clock */ };

/* In front of each block. */
struct zp_block {
  zp_block *next, *previous;
};

static void unlink_block(zp_budget *budget, zp_block *block) {
  if (block->previous) block->previous->next = block->next;
  else budget->blocks = block->next;
  if (block->next) block->next->previous = block->previous;
}

static void link_block(zp_budget *budget, zp_block *block) {
  block->previous = NULL;
  block->next = budget->blocks;
  if (block->next) block->next->previous = block;
  budget->blocks = block;
}

void *zp_budget_alloc(void *context, void *pointer, size_t old_size, size_t new_size) {
  zp_budget *budget = context;
  zp_block *block = pointer ? (zp_block *)pointer - 1 : NULL;
  if (!block) old_size = 0; /* Lua then tells what the block is for */
  if (new_size == 0) {
    if (block) unlink_block(budget, block);
    free(block);
    budget->used -= old_size;
    return NULL;
  }
  if (new_size > old_size && (budget->used > budget->limit || new_size - old_size > budget->limit - budget->used)) {
    /* Lua collects garbage and tries again; but not where a library function asks for a buffer, nor would that help if
       the whole budget is too small. */
    if (budget->refused++ > 0 || new_size - old_size > budget->granted) budget->starved = true;
    return NULL;
  }
  if (block) unlink_block(budget, block);
  zp_block *moved = realloc(block, sizeof *block + new_size);
  if (!moved) {
    if (block) link_block(budget, block);
    budget->starved = budget->penniless = true;
    return NULL;
  }
  link_block(budget, moved);
  budget->used += new_size - old_size;
  if (new_size > old_size) budget->refused = 0;
  return moved + 1;
}

void zp_budget_free(zp_budget *budget) {
  while (budget->blocks) {
    zp_block *block = budget->blocks;
    budget->blocks = block->next;
    free(block);
  }
  budget->used = 0;
}

static void watch_clock(lua_State *L, lua_Debug *ar) {
  (void)ar;
  void *context;
  lua_getallocf(L, &context);
  zp_budget *budget = context;
  if (zp_clock_now() >= budget->deadline) longjmp(budget->escape, 1);
}

void zp_budget_start(zp_budget *budget, lua_State *L, double seconds, size_t bytes) {
  budget->deadline = zp_clock_now() + seconds;
  budget->limit = bytes < SIZE_MAX - budget->used ? budget->used + bytes : SIZE_MAX;
  budget->granted = bytes;
  budget->refused = 0;
  budget->starved = budget->penniless = false;
  /* A coroutine has the hook of the one that made it; those that are left from an earlier evaluation have it still. */
  if (seconds > 0) lua_sethook(L, watch_clock, LUA_MASKCOUNT, INSTRUCTIONS);
}

bool zp_budget_end(zp_budget *budget, lua_State *L) {
  lua_sethook(L, NULL, 0, 0);
  budget->limit = SIZE_MAX;
  return !budget->starved;
}
