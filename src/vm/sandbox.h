/*
 * sandbox -- what a predicate finds in its VM: the harmless part of Lua's library, and the view of the state.
 *
 * Internal to the vm. Functions that take a lua_State may raise, and are called under protection.
 */
#ifndef ZP_VM_SANDBOX_H
#define ZP_VM_SANDBOX_H

#include <stdbool.h>

#include <lua.h>

#include "base/buf.h"
#include "vm/vm.h"

/* What the functions of the view need; the VM's extra space points at it. */
typedef struct zp_sandbox {
  const zp_view *view; /* of the evaluation that runs */
  bool read_absent;    /* it has read a key that is absent */
  int failure;         /* what a callback of the view returned, if that was an error */
  unsigned fetched;    /* the methods of the view that it has read; bits */
  unsigned called;     /* those that it has called */
  zp_buf key;          /* scratch for the key that is read */
  zp_page page;        /* scratch for the pairs that are read */
} zp_sandbox;

/* What to do instead of what a predicate cannot: it looked for this in vain ("os.time"; "": something else). */
enum { ZP_SANDBOX_ADVICE_SIZE = 320 };
void zp_sandbox_advise(const char *name, char advice[ZP_SANDBOX_ADVICE_SIZE]);

/* Open the libraries, and leave the view table on the stack. */
void zp_sandbox_open(lua_State *L, zp_sandbox *sandbox);

/* The name of a method that the evaluation has read, as if it were a key of the state, and not called; NULL: there is none. */
const char *zp_sandbox_uncalled(const zp_sandbox *sandbox);

#endif
