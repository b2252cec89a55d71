/*
 * sock -- Unix stream sockets by path, of any length.
 *
 * A socket address holds 107 bytes of path. A longer path is reached through its directory, opened first, as
 * /proc/self/fd/N/<name>; so where a runtime directory lies is nobody's worry.
 *
 * All descriptors are close-on-exec and non-blocking. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SYS_SOCK_H
#define ZP_SYS_SOCK_H

#include <stdbool.h>
#include <sys/types.h>

/* Listen at path, where nothing is yet; only this user may connect. The caller owns *fd. ZP_ESYS. */
int zp_sock_listen(const char *path, int *fd);

/* The same in two steps: a socket that does not listen yet, which can be handed to another process; and the rest. */
int zp_sock_make(int *fd);
int zp_sock_bind(int fd, const char *path);

/* Whether it listens. */
bool zp_sock_listens(int fd);

/* Connect to whoever listens at path; symbolic links are followed. Waits while too many others are waiting to be let in. The
   caller owns *fd. ZP_ENOSTORE if nobody listens there, ZP_ETIMEOUT at the deadline (zp_clock_now seconds, ZP_FOREVER),
   ZP_EINTR if a signal handler ran, ZP_ESYS. */
int zp_sock_connect(const char *path, double deadline, int *fd);

/* The same for a socket of a server, which is in a private directory: the directory and the process that listens have to be of users that this
   process trusts (trust.h), else ZP_EAUTH. The name of the socket is not a symbolic link. */
int zp_sock_connect_trusted(const char *path, double deadline, int *fd);

/* The process that listens at the other end of a connected socket: the one that called zp_sock_listen. 0 if unknown. */
pid_t zp_sock_listener(int fd);

#endif
