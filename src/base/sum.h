/*
 * sum -- a 64-bit checksum, which tells damaged bytes from whole ones.
 *
 * It is made for files that were cut, overwritten or mixed up, and for speed: some gigabytes a second, by eight lanes that the processor
 * works on at the same time. Any change of one word shows for certain, other changes but for one in 2^64. It is no guard against somebody
 * who wants to deceive.
 *
 * The sum depends on the bytes alone, not on how they were cut into pieces. No allocation; a zp_sum is plain memory.
 */
#ifndef ZP_BASE_SUM_H
#define ZP_BASE_SUM_H

#include <stddef.h>
#include <stdint.h>

enum { ZP_SUM_LANES = 8, ZP_SUM_BLOCK = 8 * ZP_SUM_LANES };

typedef struct zp_sum {
  uint64_t lanes[ZP_SUM_LANES];
  uint64_t size;                     /* bytes so far */
  unsigned char rest[ZP_SUM_BLOCK];  /* those that do not fill a block yet */
} zp_sum;

void zp_sum_begin(zp_sum *sum);
void zp_sum_add(zp_sum *sum, const void *data, size_t size);

/* The sum of what was added. More may be added afterwards. Never 0. */
uint64_t zp_sum_end(const zp_sum *sum);

/* The sum of these bytes. */
uint64_t zp_sum_of(const void *data, size_t size);

/* One word mixed into another, so that each bit of both tells in each bit of the result. */
uint64_t zp_sum_mix(uint64_t a, uint64_t b);

#endif
