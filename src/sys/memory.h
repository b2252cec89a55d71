/*
 * memory -- how much memory this process has to itself, and how much it could have.
 *
 * Reads /proc and, where there are control groups (version 2), /sys/fs/cgroup; costs some ten microseconds. Threads: any. Never fails: what
 * cannot be read sets no limit.
 */
#ifndef ZP_SYS_MEMORY_H
#define ZP_SYS_MEMORY_H

#include <stddef.h>

/* Bytes that belong to this process alone, in memory or swapped out: its heap and its stacks, not its shared files. */
size_t zp_memory_private(void);

/* Bytes that this process could have at most: the memory of the machine, of its control group, or its own limits (RLIMIT_DATA,
   RLIMIT_AS), whichever is least. */
size_t zp_memory_limit(void);

/* Give back to the system what was freed. */
void zp_memory_trim(void);

#endif
