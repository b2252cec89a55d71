/*
 * inet -- TCP sockets by names of hosts and ports: "host:port", "127.0.0.1:7000", "[::1]:7000".
 *
 * All descriptors are close-on-exec and non-blocking. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SYS_INET_H
#define ZP_SYS_INET_H

#include <stdbool.h>

struct addrinfo;

enum { ZP_INET_NAME_SIZE = 300 /* of a whole address, with the NUL */ };

/* Split an address, which is checked: ZP_EUSAGE if it has not got a host and a port from 0 to 65535, or "*" for either. */
int zp_inet_parse(const char *address, char host[ZP_INET_NAME_SIZE], char port[8]);

/* Connect, to the first of the host's addresses at which somebody listens. ZP_ENOSTORE, with errno, if nobody does, or there is no such host;
   ZP_ETIMEOUT at the deadline (zp_clock_now seconds), also if it is the name that takes so long; ZP_EINTR if an interrupt is due
   (interrupt.h), ZP_EUSAGE, ZP_ESYS. */
int zp_inet_connect(const char *address, double deadline, int *fd);

/* Listen. The port "*" or 0 is one that is free; the host "*" is all of this machine's. `bound` receives the address with its port,
   *is_loopback whether only this machine can reach it. ZP_EUSAGE if the port is in use or the host is not this machine, ZP_ESYS. */
int zp_inet_listen(const char *address, int *fd, char bound[ZP_INET_NAME_SIZE], bool *is_loopback);

/* The same in two steps: find out what the address stands for, which may take as long as names take to be looked up (the caller frees *place by
   freeaddrinfo); and listen there, which takes no time. */
int zp_inet_find_own(const char *address, struct addrinfo **place);
int zp_inet_listen_at(const struct addrinfo *place, const char *address, int *fd, char bound[ZP_INET_NAME_SIZE], bool *is_loopback);

/* The address of the other end of a connected socket, by numbers. ZP_ENOSTORE if that is gone. */
int zp_inet_peer(int fd, char name[ZP_INET_NAME_SIZE]);

/* As zp_inet_listen tells it, of a socket that listens. */
int zp_inet_name(int fd, char bound[ZP_INET_NAME_SIZE], bool *is_loopback);

#endif
