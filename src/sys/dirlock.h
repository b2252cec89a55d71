/*
 * dirlock -- a lock on a directory, for what is done to the names in it by one process at a time.
 *
 * It is an exclusive flock, so a holder that is killed has let go. Anybody who can open a file or a directory can lock it: so only a
 * directory that is closed to others is locked itself, and for what is done in another one a file is locked that is this user's.
 *
 * The lock is the descriptor, which is close-on-exec; that of a directory also leads to what is in it (openat). A child that is forked meanwhile
 * has it as well; so it is given up, and not just closed: then it is free at once, whatever the child does.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SYS_DIRLOCK_H
#define ZP_SYS_DIRLOCK_H

/* Lock the private directory, waiting for it until the deadline (zp_clock_now seconds, or ZP_FOREVER); signals do not cut that short. ZP_ESYS, "cannot
   lock <directory>", with errno (EWOULDBLOCK: the deadline) for those who would rather say what it is for. */
int zp_dirlock_take(const char *directory, double deadline, int *lock);

/* Lock a file, which is made if there is none, in a directory that others may use as well. Errors as above; ZP_EAUTH if there is one that is another
   user's, who does not remove it within a second. */
int zp_dirlock_take_file(const char *path, double deadline, int *lock);

/* Give the lock up, and close it. */
void zp_dirlock_release(int lock);

/* The same for a file that is not to stay. */
void zp_dirlock_release_file(const char *path, int lock);

#endif
