/*
 * descriptor -- descriptors where the kernel, or a filter of its calls, lacks the call that is made for them.
 *
 * Errors: -1 with errno, or nothing, as said. Never raises.
 */
#ifndef ZP_SYS_DESCRIPTOR_H
#define ZP_SYS_DESCRIPTOR_H

#include <sys/types.h>

/* Close all from `first` to `last`. May be called from a signal handler, and needs no descriptor itself. */
void zp_descriptor_close_range(unsigned first, unsigned last);

/* A file in memory that has no name, closed on exec: by memfd_create, or where that is not to be had in a directory of shared memory, or of temporary
   files. -1 with the errno of memfd_create. */
int zp_descriptor_memory(const char *name);

#endif
