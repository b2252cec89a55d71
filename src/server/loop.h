/*
 * loop -- what a server does: it answers its clients and, in a process of its own, cleans up after its owner.
 *
 * One libevent loop, one thread; another one for what the dead leave in the queue of tasks (janitor.h), if there is one; and another one for
 * clients on other machines (net/service.h), if there are TCP sockets, or as soon as somebody on this machine connects to the socket for that.
 * Snapshots of the state are taken by a process (copier.h). Clients are strangers until they have said something sensible: what they send is bounded
 * (protocol.h), so is what is kept for one that does not read its answers, and of too many connections the one that has been silent
 * longest is closed.
 *
 * When the owner dies, however it dies, the server waits until none of the processes that the owner started holds the
 * directory any more (dir.h), then retires the store, so that nobody waits at it for ever, removes the directory and ends. SIGTERM
 * ends it at once, with everything left as it is: that is the owner's wish.
 */
#ifndef ZP_SERVER_LOOP_H
#define ZP_SERVER_LOOP_H

#include <stdbool.h>
#include <stddef.h>

/* Descriptors that a server is executed with. */
enum {
  ZP_SERVE_LISTENER = 3, /* a socket that listens, or soon will */
  ZP_SERVE_NETWORK = 4,  /* the same for those on this machine who are to use the network */
  ZP_SERVE_OWNER = 5,    /* readable when the owner is dead */
  ZP_SERVE_LIFELINE = 6, /* a pipe's end, which tells the owner by closing that the server is gone */
  ZP_SERVE_TCP = 7       /* the first of the TCP sockets that listen */
};

/* Serve the store in the directory until it is time to end; alias: see zp_server_start, NULL for none. There are so many TCP sockets.
   `again`: an earlier server died, which is told on stderr. Returns the exit status. */
int zp_serve(const char *directory, const char *alias, size_t sockets, bool again);

/* The sockets of a server: see above. */
typedef struct zp_serve_sockets {
  int listener, network;
  const int *tcp;
  size_t tcp_count;
} zp_serve_sockets;

/* The same in a thread of the owner, until the descriptor `stop` can be read. With the owner it ends and leaves all as it is.
   ready(context, is_ready) is called when it has all that it needs, or has failed to get it. */
int zp_serve_in_thread(const char *directory, const zp_serve_sockets *sockets, int stop,
                       void (*ready)(void *context, bool is_ready), void *context);

#endif
