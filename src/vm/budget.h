/*
 * budget -- the memory and the time that a predicate's VM may use.
 *
 * Memory: the allocator of the VM. It counts, refuses what goes beyond the limit, and knows all of its blocks.
 *
 * Time: a hook that looks at the clock now and then. When the time is up it does not raise an error: Lua would still run message
 * handlers and closing variables of the predicate, and those with hooks off. It jumps out of the VM altogether, to where the
 * evaluation began. That is safe because a hook runs between two instructions of Lua code, and what lies in between is
 * Lua's own frames and library functions that called back, which hold nothing but memory of the VM. The VM is not to be used after
 * that, not even closed; its blocks are freed.
 *
 * Internal to the vm. Nothing here raises but the hook.
 */
#ifndef ZP_VM_BUDGET_H
#define ZP_VM_BUDGET_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>

#include <lua.h>

typedef struct zp_block zp_block;

typedef struct zp_budget {
  size_t used;      /* bytes */
  size_t limit;     /* bytes; SIZE_MAX: none */
  size_t granted;   /* bytes, for the evaluation that runs */
  double deadline;  /* zp_clock_now seconds */
  unsigned refused; /* allocations refused in a row: the first one makes Lua collect and try again */
  bool starved;     /* memory was short even after that */
  bool penniless;   /* and it was the system that had none */
  jmp_buf escape;   /* where to go when the time is up */
  zp_block *blocks;
} zp_budget;

/* A lua_Alloc; the user data is the budget. */
void *zp_budget_alloc(void *budget, void *block, size_t old_size, size_t new_size);

/* Begin to count for one evaluation in the VM, which was made with this budget. With seconds = 0 no time is kept; else `escape` has been set,
   and stays valid until the end. */
void zp_budget_start(zp_budget *budget, lua_State *L, double seconds, size_t bytes);

/* End it. True if the memory was enough; else `penniless` says why not. */
bool zp_budget_end(zp_budget *budget, lua_State *L);

/* Free every block: the VM is gone. */
void zp_budget_free(zp_budget *budget);

#endif
