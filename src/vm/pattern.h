/*
 * pattern -- Lua's patterns for predicates: string.find, match, gmatch and gsub, in versions that can be ended.
 *
 * A pattern can go back and forth over its subject for longer than anybody waits, in one call of a library function, where no hook of Lua
 * looks at the clock. These count their steps against the budget of the VM (budget.h). What they accept and give is what Lua's own do,
 * but for one thing: Lua calls a pattern of some 200 nested parts too complex, and here there is no such limit.
 *
 * Internal to the vm. Functions that take a lua_State may raise.
 */
#ifndef ZP_VM_PATTERN_H
#define ZP_VM_PATTERN_H

#include <lua.h>

/* Put the functions into the table on top of the stack, that of the string library. */
void zp_pattern_open(lua_State *L);

#endif
