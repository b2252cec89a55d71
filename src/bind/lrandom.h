/*
 * lrandom -- the random numbers of processes, threads and items.
 *
 * A forked process inherits the generator of math.random, and Lua seeds a new VM by the second and by an address, which two VMs may have in
 * common. So each VM of zproc's own and each forked process is seeded from the system before it runs a target. The generator of a host is
 * left alone: its script may have seeded it. It is the library's own function that seeds, whatever the script has put in its place.
 */
#ifndef ZP_BIND_LRANDOM_H
#define ZP_BIND_LRANDOM_H

#include <lua.h>

/* Keep math.randomseed as this VM has it. Called before a script can replace it, or late, in which case nothing is kept if it did. May
   raise for want of memory. */
void zp_lrandom_install(lua_State *L);

/* Seed the generator of this VM from the system. Needs 8 free slots. Raises nothing. */
void zp_lrandom_seed(lua_State *L);

#endif
