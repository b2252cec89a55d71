/*
 * filelimit -- a limit on the size of files (ulimit -f, RLIMIT_FSIZE) makes calls fail, and ends no process.
 *
 * By default the system sends SIGXFSZ to whoever writes beyond the limit, which ends the process: in the middle of a change to a state. With
 * a handler that does nothing the call fails with EFBIG, which zproc takes for a full disk (zp_is_full). Programs that this process executes have
 * the default again. A program that ignores or handles the signal itself has its way.
 *
 * Fork: inherited. Threads: of the process. Never fails, never raises.
 */
#ifndef ZP_SYS_FILELIMIT_H
#define ZP_SYS_FILELIMIT_H

void zp_filelimit_enter(void);

/* The signal does again what it did before. */
void zp_filelimit_leave(void);

#endif
