/*
 * keeper -- the owner's side of a server: start it, start it again when it dies, stop it.
 *
 * A server is the program zproc, executed anew (`zproc --serve DIRECTORY`; most of the time that is this very program, see program.h), so
 * it shares no memory and no descriptor with the script that owns it. It keeps nothing that the store does not: it may be killed at any
 * instant.
 *
 * The owner holds the listening sockets and hands them down, so clients that come while there is no server wait in the queue of
 * a socket and are served by the next one. It also holds the reading end of a pipe whose other end only the server has: when
 * that closes, the kernel sends SIGIO, and the handler starts the next server there and then, whatever the owner is doing: running
 * Lua, sleeping, blocked in somebody else's C. The handler makes only calls that are allowed in one (fork, without its
 * handlers, and execve). A server that dies again and again is started once a second.
 *
 * A server watches its owner in turn (loop.h): it survives it only for as long as it takes to clean up.
 *
 * Or a server is a thread of its owner: it cannot die alone, and cannot clean up if the owner is killed; what is left then is removed by
 * the next one who makes a directory (zp_dir_sweep).
 *
 * Fork: a child inherits none of it, whichever thread forks it and whatever the others are doing: neither sockets, at which it would keep clients
 * waiting, nor the pipe, by which it would look like a server that lives. The servers are its parent's. (Children that are made without the
 * handlers of fork are to execute something: all descriptors are close-on-exec.) Threads: a server is used by one thread at a time; several
 * threads may have theirs. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SERVER_KEEPER_H
#define ZP_SERVER_KEEPER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "sys/inet.h"

typedef struct zp_server zp_server;

/* A TCP socket that listens, for servers that are to be started. */
typedef struct zp_listener zp_listener;

/* As zp_inet_listen. */
int zp_listener_open(const char *address, zp_listener **listener, char bound[ZP_INET_NAME_SIZE], bool *is_loopback);

/* Close it, and null the handle; a server that was started with it has its own. In a forked child it is closed already. May be called twice. */
void zp_listener_close(zp_listener **listener);

typedef enum zp_server_kind { ZP_SERVER_PROCESS, ZP_SERVER_THREAD } zp_server_kind;

enum { ZP_SERVER_SOCKETS_MAX = 16 };

typedef struct zp_server_options {
  const char *alias; /* a further name for the server's socket, see alias.h; NULL: none */
  zp_server_kind kind;
  zp_listener *const *listeners; /* for clients on other machines; borrowed for the call. When the server is stopped nobody listens there */
  size_t listener_count;
} zp_server_options;

/* Start a server for the store that will be in the directory. The directory (dir.h) is planned but not yet made: so there is no
   instant at which this process could be killed and nobody would be there to remove it. The handle stays until zp_server_stop. */
int zp_server_start(const char *directory, const zp_server_options *options, zp_server **server);

/* When the directory and the store are there: let the server listen at <directory>/server and <directory>/network, and give the first its
   further name. On an error the server is still to be stopped. */
int zp_server_listen(zp_server *server);

/* End the server, and wait for that: the exit status, or -N if signal N killed it. Frees the handle and nulls it. If the process is not
   the owner, nothing but that. May be called twice: 0. */
int zp_server_stop(zp_server **server);

/* The server's process at present, which of a thread is this one; 0 if it is about to be started again. */
pid_t zp_server_pid(const zp_server *server);

#endif
