/*
 * alive -- whether a process that was met earlier is still there.
 *
 * A pid is given again; together with the start time that the kernel keeps it is unique until the machine is booted anew. A zombie is not
 * alive. Reads /proc, so it costs some microseconds. Never fails: what cannot be read is not there.
 */
#ifndef ZP_SYS_ALIVE_H
#define ZP_SYS_ALIVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The start time of a process, in the kernel's ticks; 0 if it is not alive. */
uint64_t zp_alive_start(pid_t pid);

bool zp_alive_is(pid_t pid, uint64_t start);

#endif
