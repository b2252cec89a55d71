/*
 * holder -- who holds the writer lock of a store, since when, and where: for those who wait for it, and for those who look.
 *
 * A writer that was stopped, or that does not end, holds up all others, and nobody may take the lock from it. So it is named. The holder notes
 * itself when it takes the lock: some stores into shared memory, next to the mutex. What is read of that by others may be of two holders at an instant at
 * which the lock changes hands; of one that holds it for long it is right.
 *
 * Threads: any. Never fails, never raises.
 */
#ifndef ZP_STORE_HOLDER_H
#define ZP_STORE_HOLDER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { ZP_HOLDER_SOURCE = 60, ZP_HOLDER_WORDS = 400 };

/* In shared memory. */
typedef struct zp_holder_note {
  _Atomic int32_t pid;     /* 0: nobody */
  _Atomic uint32_t line;   /* of the atomic function that runs, in `source`; 0: none does */
  _Atomic uint64_t since;  /* nanoseconds since the epoch */
  _Atomic uint64_t count;  /* of holdings: tells one from the next */
  char source[ZP_HOLDER_SOURCE];
} zp_holder_note;

typedef struct zp_holder {
  pid_t pid;
  double since;   /* seconds since the epoch */
  double seconds; /* from then until now */
  uint64_t count;
  bool is_stopped;
  char name[32];  /* of the process */
  char place[ZP_HOLDER_SOURCE + 16]; /* "script.lua:12": where the atomic function begins; empty if it is none */
} zp_holder;

/* The lock was taken by this process (line 0: for nothing that has a name), or is about to be given back. */
void zp_holder_enter(zp_holder_note *note, pid_t pid, const char source[ZP_HOLDER_SOURCE], unsigned line);
void zp_holder_leave(zp_holder_note *note);

/* Whether somebody holds it, and who. */
bool zp_holder_look(const zp_holder_note *note, zp_holder *holder);

/* The same for the store in a directory; false if there is none. */
bool zp_store_find_holder(const char *directory, zp_holder *holder);

/* Words for a person: "process 12 (lua5.4) has it since 12:00:01, for the atomic function at script.lua:3; it is stopped". */
const char *zp_holder_words(const zp_holder *holder, char words[ZP_HOLDER_WORDS]);

#endif
