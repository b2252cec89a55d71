/*
 * loop -- what a server does: it answers its clients and, in a process of its own, cleans up after its owner.
 *
 * One libevent loop, one thread. Clients are strangers until they have said something sensible: what they send is bounded
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

/* Descriptors that a server is executed with. */
enum {
  ZP_SERVE_LISTENER = 3, /* a socket that listens, or soon will */
  ZP_SERVE_OWNER = 4,    /* a pidfd of the owner */
  ZP_SERVE_LIFELINE = 5, /* a pipe's end, which tells the owner by closing that the server is gone */
  ZP_SERVE_FIRST_FREE = 6
};

/* Serve the store in the directory until it is time to end; alias: see zp_server_start, NULL for none. `again`: an earlier server
   died, which is told on stderr. Returns the exit status. */
int zp_serve(const char *directory, const char *alias, bool again);

/* The same in a thread of the owner, until the descriptor `stop` can be read. With the owner it ends and leaves all as it is.
   ready(context, is_ready) is called when it has all that it needs, or has failed to get it. */
int zp_serve_in_thread(const char *directory, int listener, int stop, void (*ready)(void *context, bool is_ready), void *context);

#endif
