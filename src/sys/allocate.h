/*
 * allocate -- have the file system give all the room for a part of a file, before it is mapped and written to.
 *
 * Never raises.
 */
#ifndef ZP_SYS_ALLOCATE_H
#define ZP_SYS_ALLOCATE_H

#include <sys/types.h>

/* Allocate [from, to) of the file, extending it. What is in it stays. Where the kernel or the file system has no call for that, or a filter does
   not permit it, the bytes are written, so nobody else may write to them meanwhile. What was allocated before a failure stays. 0, ENOSPC, or
   another errno. */
int zp_allocate(int fd, off_t from, off_t to);

#endif
