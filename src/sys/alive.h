/*
 * alive -- what the kernel says about a process, and whether one that was met earlier is still there.
 *
 * A pid is given again; together with the start time that the kernel keeps it is unique until the machine is booted anew. A zombie is not
 * alive. Reads /proc, so it costs some microseconds. Never fails: what cannot be read is not there.
 */
#ifndef ZP_SYS_ALIVE_H
#define ZP_SYS_ALIVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct zp_alive_report {
  uint64_t start; /* the kernel's ticks (sysconf(_SC_CLK_TCK)) since the boot; not 0 */
  bool is_dead;   /* but nobody has reaped it yet */
  int exitcode;   /* of a dead one: its exit status, or -N after signal N */
} zp_alive_report;

/* False if the kernel says nothing: there is no such process, or no /proc. */
bool zp_alive_ask(pid_t pid, zp_alive_report *report);

/* The start time of a process that is alive; else 0. */
uint64_t zp_alive_start(pid_t pid);

/* Whether the process with that pid is alive, and the one with that start time. */
bool zp_alive_is(pid_t pid, uint64_t start);

#endif
