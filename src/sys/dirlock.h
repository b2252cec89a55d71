/*
 * dirlock -- a lock on a directory, for what is done to the names in it by one process at a time.
 *
 * It is an exclusive flock on the directory itself, so it needs no file of its own, and a holder that is killed has let go. Anybody who can
 * read a directory can lock it: where others can, it is not waited for without a limit.
 *
 * The lock is the descriptor, which is close-on-exec and also leads to what is in the directory (openat). A child that is forked meanwhile
 * has it as well; so it is given up, and not just closed: then it is free at once, whatever the child does.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SYS_DIRLOCK_H
#define ZP_SYS_DIRLOCK_H

/* Lock the directory, waiting for it until the deadline (zp_clock_now seconds, or ZP_FOREVER); signals do not cut that short. ZP_ESYS, "cannot
   lock <directory>", with errno (EWOULDBLOCK: the deadline) for those who would rather say what it is for. */
int zp_dirlock_take(const char *directory, double deadline, int *lock);

/* Give the lock up, and close it. */
void zp_dirlock_release(int lock);

#endif
