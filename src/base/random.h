/*
 * random -- numbers that nobody else draws: names of directories, of clients, of authors.
 *
 * They are the kernel's. Where its call is forbidden (old filters of containers do not know it) they come from /dev/urandom; where that is not
 * there either, from what the kernel gave to this program at its start, mixed with the process, the thread, the time and a count: two
 * draws still differ, wherever they are made. Never fails, never raises. Threads, fork, handlers of signals: any.
 */
#ifndef ZP_BASE_RANDOM_H
#define ZP_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

void zp_random_fill(void *bytes, size_t size);

/* A number that is not 0. */
uint64_t zp_random_number(void);

#endif
