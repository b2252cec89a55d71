/*
 * alive -- what the kernel says about a process, and whether one that was met earlier is still there.
 *
 * A pid is given again; together with the start time that the kernel keeps it is unique until the machine is booted anew. A zombie is not
 * alive. Reads /proc, so it costs some microseconds. Never fails: of what cannot be read nothing is known.
 *
 * A pid means something only within its PID namespace, that of a container, say. What notes pids for other processes notes its namespace
 * with them, and whoever opens it asks first whether he is in the same one.
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

/* Whether the process with that pid is alive, and the one with that start time. If that cannot be read (descriptors have run out, say) any
   process with that pid counts: what the dead leave is taken from nobody on a suspicion. */
bool zp_alive_is(pid_t pid, uint64_t start);

/* A PID namespace, as the kernel names it; all zero for the only one of a kernel that has none. */
typedef struct zp_alive_space {
  uint64_t device, inode;
} zp_alive_space;

/* That of this process. 0; ZP_EELSEWHERE if /proc, where pids are looked up, is not there, or is that of another namespace. */
int zp_alive_read_space(zp_alive_space *space);

/* Whether this process is in that namespace, to which the processes of the state in a directory belong. 0, ZP_EELSEWHERE. */
int zp_alive_check_space(const zp_alive_space *space, const char *directory);

#endif
