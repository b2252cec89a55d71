/*
 * bell -- how local processes wake each other without polling: event counts in shared memory, waited for with a futex.
 *
 * A bell is a file of one directory, mapped by every process that uses it: a fixed table of buckets. What can happen has a
 * 64-bit tag (a hash of a key, say), and its bucket is found by the tag; several tags may share a bucket, so a ring is a
 * hint to look again, never a fact. Looking again is the caller's part.
 *
 * The protocol of a waiter, which makes that no ring is lost:
 *     1. zp_bell_arm(bell, tag) -> ticket, for one tag or several; from here on rings of a tag void its ticket
 *     2. look; if there is what one wants, done
 *     3. zp_bell_wait(bell, tags, tickets, count, deadline); returns at once if a ticket is void
 * and of the one who rings: make it so (commit), then zp_bell_ring(bell, tags, n). The ring costs one load per tag where nobody
 * waits, and one futex call where somebody does.
 *
 * Invariant: a bucket is a 64-bit word. Its low half, which is the futex, has in bit 0 "somebody may be waiting", and a count above
 * it; its high half says, while bit 0 is set, for which tag (a further part of the hash; 0: for several). Arming sets the bit; ringing
 * a bucket whose bit is set for that tag adds to the count, clears the bit and wakes all. So a waiter that was killed costs the next
 * ring one needless futex call and is forgotten; there is no count of waiters that could go wrong. And ten thousand waiters for as
 * many keys are hardly ever woken by other keys.
 * Between "make it so" and the load there is a full fence, as there is between arming and looking; so either the ringer sees
 * the bit or the waiter sees what was done.
 *
 * Fork: a mapping that was inherited goes on working; it is the same shared memory. Threads: all functions may be called from
 * several threads at once. Errors: 0 or ZP_E*.
 */
#ifndef ZP_SYS_BELL_H
#define ZP_SYS_BELL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

typedef struct zp_bell zp_bell;

/* The most tags that one wait takes. */
#define ZP_BELL_TAGS_MAX 128

/* Make the bell's file (allocated in full, so that using it cannot fail for want of space); one that is there already is taken
   over. ZP_EFULL, ZP_ESYS. */
int zp_bell_create(const char *directory);

/* Map the bell of a directory. ZP_ENOSTORE if there is none. */
int zp_bell_open(const char *directory, zp_bell **bell);
void zp_bell_close(zp_bell **bell); /* nulls, may be called twice */

/* The tag of a key within a namespace, and that of "anything in this namespace". */
uint64_t zp_bell_tag(const char *name, zp_bytes key);
uint64_t zp_bell_tag_all(const char *name);

uint32_t zp_bell_arm(zp_bell *bell, uint64_t tag);

/* Wait until the bucket of one of the tags was rung after its arming, or the deadline (zp_clock_now seconds, ZP_FOREVER).
   0, ZP_ETIMEOUT, or ZP_EINTR if an interrupt is due (interrupt.h). Takes Linux 5.16; before that it looks every few
   milliseconds. */
int zp_bell_wait(zp_bell *bell, const uint64_t *tags, const uint32_t *tickets, size_t count, double deadline);

void zp_bell_ring(zp_bell *bell, uint64_t tag);

/* Ring every tag. */
void zp_bell_ring_all(zp_bell *bell);

/* How many threads of a process wait at any bell, for two tags or more, as /proc says. *told is set if that says where any of them
   sleeps: not all kernels do. */
unsigned zp_bell_count_waiting(pid_t pid, bool *told);

#endif
