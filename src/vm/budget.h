/*
 * budget -- the memory and the time that a predicate's VM may use.
 *
 * Memory: the allocator of the VM. It counts, and refuses what goes beyond the limit.
 * Time: a hook that looks at the clock now and then. Once the time is up it raises at every instruction, in whatever coroutine, so that
 * no pcall can go on.
 *
 * Internal to the vm. Nothing here raises but the hook.
 */
#ifndef ZP_VM_BUDGET_H
#define ZP_VM_BUDGET_H

#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

typedef struct zp_budget {
  size_t used;      /* bytes */
  size_t limit;     /* bytes; SIZE_MAX: none */
  double deadline;  /* zp_clock_now seconds */
  unsigned refused; /* allocations refused in a row: the first one makes Lua collect and try again */
  bool starved;     /* memory was short even after that */
  bool expired;     /* the time was up */
} zp_budget;

/* A lua_Alloc; the user data is the budget. */
void *zp_budget_alloc(void *budget, void *block, size_t old_size, size_t new_size);

/* Begin to count for one evaluation; the VM was made with zp_budget_alloc and this budget. */
void zp_budget_start(zp_budget *budget, lua_State *L, double seconds, size_t bytes);

/* End it. True if the evaluation has kept within the budget. */
bool zp_budget_end(zp_budget *budget, lua_State *L);

#endif
