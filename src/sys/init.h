/*
 * init -- what process 1 of a PID namespace, such as that of a container, has to do besides.
 *
 * The kernel gives process 1 no signal that it has no handler for, not even SIGTERM, and makes it the parent of every process whose own has
 * died, which it has to reap. So the program does not run as process 1 but in a child of it, where everything is as elsewhere; process 1 hands
 * signals on to the child, reaps, and ends as the child has ended.
 *
 * All processes of a namespace are killed with its process 1. What only takes a moment, a server that cleans up, has that moment.
 *
 * Errors: words on standard error. Never raises. To be called before there are threads.
 */
#ifndef ZP_SYS_INIT_H
#define ZP_SYS_INIT_H

/* If this is process 1: return in a child of it; process 1 itself does not return. */
void zp_init_enter(void);

#endif
