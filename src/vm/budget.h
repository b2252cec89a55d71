/*
 * budget -- the memory and the processor time that a predicate's VM may use.
 *
 * Memory: the allocator of the VM. It counts, refuses what goes beyond the limit, and knows all of its blocks.
 *
 * Time: that of the processor, which this thread has used since the evaluation began; so nothing is taken off while the process is stopped or
 * others run. Asking for it is a system call. The monotonic clock is not, and runs no slower: only once that has gone on by what is left
 * is the question asked.
 *
 * Three places look whether the time is up: a hook between two instructions of Lua code; the library's functions, which count their
 * steps (zp_budget_spend); and the allocator, for large blocks. When it is up they do not raise an error: Lua would still run message
 * handlers and closing variables of the predicate, and those with hooks off. They jump out of the VM altogether, to where the
 * evaluation began. That is safe because what lies in between is Lua's own frames and library functions, which hold nothing but memory of
 * the VM: each of them may be left by an error for want of memory at the same places. The VM is not to be used after that, not even closed;
 * its blocks are freed. A signal that is to be raised in the script ends an evaluation the same way.
 *
 * Internal to the vm. Nothing here raises; what looks may jump.
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
  unsigned refused; /* allocations refused in a row: the first one makes Lua collect and try again */
  bool starved;     /* memory was short even after that */
  bool penniless;   /* and it was the system that had none */
  zp_block *blocks;
  bool is_timed;    /* an evaluation runs, and `escape` is valid */
  double seconds;   /* of processor time, for the evaluation that runs */
  double began;     /* this thread's processor time at the first look; below 0: there was none */
  double enough;    /* until this instant of the monotonic clock there is time, whatever happens */
  double looked;    /* the last look, on the same clock */
  size_t steps;     /* of library functions, since the last look */
  jmp_buf escape;   /* where to go when the time is up (ZP_BUDGET_TIME), or for a signal (ZP_BUDGET_SIGNAL) */
} zp_budget;

enum { ZP_BUDGET_TIME = 1, ZP_BUDGET_SIGNAL };

/* Steps of a library function, of some nanoseconds each, between two looks. */
enum { ZP_BUDGET_STEPS = 10000 };

/* A lua_Alloc; the user data is the budget. */
void *zp_budget_alloc(void *budget, void *block, size_t old_size, size_t new_size);

/* Begin to count for one evaluation in the VM, which was made with this budget. With seconds = 0 no time is kept; else `escape` has been set,
   and stays valid until the end. */
void zp_budget_start(zp_budget *budget, lua_State *L, double seconds, size_t bytes);

/* End it. True if the memory was enough; else `penniless` says why not. */
bool zp_budget_end(zp_budget *budget, lua_State *L);

/* The budget of a VM. */
zp_budget *zp_budget_of(lua_State *L);

/* Look whether the time is up, or a signal has come. */
void zp_budget_look(zp_budget *budget);

/* A library function has taken so many steps. */
static inline void zp_budget_spend(zp_budget *budget, size_t steps) {
  budget->steps += steps;
  if (budget->steps >= ZP_BUDGET_STEPS) zp_budget_look(budget);
}

/* Free every block: the VM is gone. */
void zp_budget_free(zp_budget *budget);

#endif
