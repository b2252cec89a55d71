/*
 * library -- what predicates have of Lua's libraries.
 *
 * It is what cannot reach outside: the basic functions but those that read files, make code, write or turn the collector on; string (without
 * dump), table, math, utf8 and coroutine. A function that could run for ever in one call, or for long without taking memory, has a version of
 * its own, which counts its steps against the budget of the VM (budget.h) and otherwise does what Lua's does. The others take
 * time in proportion to their arguments and results, which memory limits.
 *
 * Internal to the vm. Functions that take a lua_State may raise.
 */
#ifndef ZP_VM_LIBRARY_H
#define ZP_VM_LIBRARY_H

#include <stdbool.h>

#include <lua.h>

/* Open the libraries in a fresh VM. */
void zp_library_open(lua_State *L);

#endif
