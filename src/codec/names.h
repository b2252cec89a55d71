/*
 * names -- values that travel by name because both sides have them: modules, library functions, registered values.
 *
 * A `require`d module (any table or function in package.loaded) travels as its module name; a function or a table
 * that is a field of such a module as "module\0field" (string.format, _G.print); a table that a library registered
 * with zp_names_register (metatables of its own, say) as the name that it gave. On arrival a module is required if it
 * is not loaded yet.
 *
 * The script's own globals are not library values: the standard modules, "_G" among them, count only for what they
 * had at zp_codec_open. What they had then keeps its name for good: a script that puts its own `print` in place of
 * the library's and calls the old one from there finds the library's on arrival.
 *
 * The fields of a module count as they are when an encoding first meets the module. Functions here need up to 10 free
 * stack slots and see to them on their own where they say so.
 */
#ifndef ZP_CODEC_NAMES_H
#define ZP_CODEC_NAMES_H

#include <stdbool.h>

#include <lua.h>

/* Let the value on top of the stack (a table, function, userdata or light userdata) travel as `name`; pops it. The
   other side must have registered one of the same name. Names are namespaced by a prefix and a colon, "zproc:Error".
   May raise for want of memory. */
void zp_names_register(lua_State *L, const char *name);

/* ---- for the codec ---- */

/* Make the tables of names and remember what the libraries and the globals are; called by zp_codec_open, and harmless
   the second time. May raise for want of memory. */
void zp_names_open(lua_State *L);

/* The same where a script runs already: what it has added to the globals and libraries, or put in the place of something there, is not
   taken for Lua's own. Once per VM. May raise for want of memory. */
void zp_names_open_late(lua_State *L);

/* Look at package.loaded again if modules came since; called when an encoding meets its first function. */
void zp_names_refresh(lua_State *L);

/* If the value at idx has a name: push the name (a string) and return true; else push nothing. Needs 6 free slots. */
bool zp_names_find(lua_State *L, int idx);

/* Push the value of a name; 0, or ZP_EDECODE. May raise for want of memory, and what a module raises that is an object with a registered
   metatable. */
int zp_names_resolve(lua_State *L, const char *name, size_t size);

/* True if the global `name` (string at idx) was defined by the script: it is in the globals table and was not there, or
   not with this value, at zp_codec_open. */
bool zp_names_is_script_global(lua_State *L, int idx);

#endif
