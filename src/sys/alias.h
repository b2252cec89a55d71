/*
 * alias -- a socket's second name, at a place of the user's choice: a symbolic link to it.
 *
 * Where the link leads is where everything else of the server is; so whoever knows the place finds that without asking anybody. A
 * link whose socket nobody listens at is stale and may be replaced. Two processes that want one place are kept apart by a
 * lock on the directory that it is in, held for an instant.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SYS_ALIAS_H
#define ZP_SYS_ALIAS_H

/* Make path lead to the socket `target`, an absolute path. ZP_EUSAGE if somebody listens at path (the detail
   names the process), or if something else is there; ZP_ESYS if it cannot be made. */
int zp_alias_create(const char *path, const char *target);

/* Remove it, if it still leads to the target; and what a maker that was killed has left of it. */
void zp_alias_remove(const char *path, const char *target);

#endif
