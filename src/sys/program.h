/*
 * program -- the executable zproc: what a server is executed as, and what runs the atomic functions of clients elsewhere.
 *
 * To the executable that is itself. Where zproc is a module of another program (lua5.4, say) it is the executable that was built with the
 * module, and has to be found: it is what $ZPROC says, or, from the module's own place upwards, the first bin/zproc, or the one in the
 * directory that it was configured for. So it is found in the tree of a build, below any prefix that both were copied to, and in a tree of
 * LuaRocks. One of another version is refused: both sides have to agree on what is in a store.
 *
 * Threads: any, once zp_program_is_elsewhere was called. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SYS_PROGRAM_H
#define ZP_SYS_PROGRAM_H

#include <stddef.h>
#include <sys/types.h>

/* This code is in the module at that path, and the executable was to be installed in that directory. Both are copied. Before anything is
   started; looks at nothing but the file system. ZP_ENOMEM. */
int zp_program_is_elsewhere(const char *module, const char *bindir);

/* The path to execute, which stays valid. A module looks for it at the first call, and runs it once to learn its version. ZP_ESYS if
   there is none, or one that cannot be used; the next call looks again. */
int zp_program_find(const char **path);

/* Execute it, with these arguments behind its name (a NULL ends them), in a session of its own: with the `count` descriptors as 3, 4, ...,
   those below as they are here, and no others; no signal is blocked or ignored. *pid (0 on an error) is a child of this process, which has
   to wait for it. ZP_ESYS, also if it cannot be found. */
enum { ZP_PROGRAM_DESCRIPTOR = 3 /* the first of them */ };
int zp_program_start(const char *const *arguments, const int *descriptors, size_t count, pid_t *pid);

#endif
