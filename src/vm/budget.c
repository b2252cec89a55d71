#include "vm/budget.h"

#include <stdint.h>
#include <stdlib.h>

#include <lua.h>

#include "base/clock.h"
#include "sys/interrupt.h"
#include "sys/thread.h"

enum {
  FEW = 32, MANY = 1024, /* instructions between two looks: one may take a nanosecond, or compare or copy megabytes */
  LARGE = 32 << 10       /* bytes of a block that took a while to come about */
};
static const double LONG = 1e-3, SHORT = 1e-4; /* seconds between two looks: look more often, or less */
static const double MOMENT = 1e-3;             /* seconds that nobody asks after */

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
  if (new_size >= LARGE) zp_budget_look(budget);
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

/* ---- time ---- */

zp_budget *zp_budget_of(lua_State *L) {
  void *budget;
  lua_getallocf(L, &budget);
  return budget;
}

/* A signal, or the wish that this thread ends, that the script is to hear of. */
static bool is_interrupted(void) { return zp_interrupt_has_signal() || zp_thread_must_stop(); }

void zp_budget_look(zp_budget *budget) {
  if (!budget->is_timed) return;
  budget->steps = 0;
  if (is_interrupted()) longjmp(budget->escape, ZP_BUDGET_SIGNAL);
  budget->looked = zp_clock_now();
  if (budget->looked < budget->enough) return;
  double used = zp_clock_read(CLOCK_THREAD_CPUTIME_ID);
  if (budget->began < 0) budget->began = used;
  double left = budget->seconds - (used - budget->began);
  if (left <= 0) longjmp(budget->escape, ZP_BUDGET_TIME);
  budget->enough = budget->looked + left;
}

static void on_count(lua_State *L, lua_Debug *ar) {
  (void)ar;
  zp_budget *budget = zp_budget_of(L);
  double before = budget->looked;
  zp_budget_look(budget);
  double took = budget->looked - before;
  int count = lua_gethookcount(L);
  int next = took > LONG ? count / 8 : took < SHORT ? 2 * count : count;
  if (next < 1) next = 1;
  if (next > MANY) next = MANY;
  if (next != count) lua_sethook(L, on_count, LUA_MASKCOUNT, next);
}

void zp_budget_start(zp_budget *budget, lua_State *L, double seconds, size_t bytes) {
  budget->limit = bytes < SIZE_MAX - budget->used ? budget->used + bytes : SIZE_MAX;
  budget->granted = bytes;
  budget->refused = 0;
  budget->starved = budget->penniless = false;
  budget->is_timed = seconds > 0;
  if (seconds <= 0) return;
  budget->steps = 0;
  budget->seconds = seconds;
  budget->began = -1;
  budget->looked = zp_clock_now();
  budget->enough = budget->looked + (seconds < MOMENT ? seconds : MOMENT); /* most evaluations end before, and never make a system call */
  /* A coroutine has the hook of the one that made it; those that are left from an earlier evaluation have it still. */
  lua_sethook(L, on_count, LUA_MASKCOUNT, FEW);
}

bool zp_budget_end(zp_budget *budget, lua_State *L) {
  lua_sethook(L, NULL, 0, 0);
  budget->is_timed = false;
  budget->limit = SIZE_MAX;
  return !budget->starved;
}
