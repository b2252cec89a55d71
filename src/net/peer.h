/*
 * peer -- the other end of a socket between a server and a process of its own: whole parcels, back and forth.
 *
 * Such a process is the program zproc (program.h), executed anew, so that code of clients does not run in the server. Each side waits for the
 * other one without end, but the server's only until the process has ended, or used up the time that it was given, or stands still; or until
 * this thread is to stop. The process ends with the server.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_PEER_H
#define ZP_NET_PEER_H

#include <stdbool.h>
#include <sys/types.h>

#include "net/wire.h"

typedef struct zp_peer {
  int fd;
  pid_t pid;      /* a child of this process; 0: it is none, or there is none */
  double seconds; /* of processor time that it may have used by the end of what it does now; 0: any */
  double deadline; /* until when that has to be done (zp_clock_now); 0: for ever */
} zp_peer;

enum { ZP_PEER_LOOK_MILLISECONDS = 50 /* between looks whether to go on waiting */ };

/* Execute the program with these arguments, and the socket as ZP_PROGRAM_DESCRIPTOR; `extra` (-1: none) is the descriptor behind it. */
int zp_peer_start(const char *const *arguments, int extra, zp_peer *peer);

/* Whether its process has ended, or is about to; it is still to be waited for. */
bool zp_peer_has_ended(const zp_peer *peer);

/* 0; ZP_EINTR if this thread is to stop; ZP_ESYS if the other end is gone; ZP_EBUDGET if it has used up its time; ZP_ETIMEOUT at its deadline; ZP_EBUSY if it has not run for
   long, though it should. After any of these it is of no use any more. `bytes` and `pairs` hold what the parcel points to. */
int zp_peer_send(const zp_peer *peer, const zp_parcel *parcel);
int zp_peer_receive(const zp_peer *peer, zp_buf *bytes, zp_buf *pairs, zp_parcel *parcel);

/* From now on it may use so many seconds of processor time. */
void zp_peer_grant(zp_peer *peer, double seconds);

/* Kill it, if there is one. */
void zp_peer_end(zp_peer *peer);

/* The same, and how it ended, as words. The end of the socket comes before that of the process, so it shows a moment later. */
void zp_peer_bury(zp_peer *peer, char *words, size_t size);

/* In the process: end it as soon as the other end of the socket is closed, in the middle of whatever it does. */
int zp_peer_follow(int fd);

#endif
