#include "base/sum.h"

#include <string.h>

/* Odd, so that multiplying by it loses nothing: a lane that differs goes on to differ. */
static const uint64_t FACTOR = 0x9e3779b97f4a7c15;

static uint64_t spread(uint64_t word) {
  word ^= word >> 32;
  word *= 0xd6e8feb86659fd93;
  word ^= word >> 32;
  word *= 0xd6e8feb86659fd93;
  return word ^ word >> 32;
}

uint64_t zp_sum_mix(uint64_t a, uint64_t b) { return spread(a * FACTOR + (b ^ b << 29)) + b; }

void zp_sum_begin(zp_sum *sum) {
  sum->size = 0;
  for (unsigned lane = 0; lane < ZP_SUM_LANES; lane++) sum->lanes[lane] = spread(lane + 1);
}

static void add_blocks(uint64_t lanes[ZP_SUM_LANES], const unsigned char *data, size_t blocks) {
  uint64_t at[ZP_SUM_LANES];
  memcpy(at, lanes, sizeof at);
  for (; blocks > 0; blocks--, data += ZP_SUM_BLOCK)
    for (unsigned lane = 0; lane < ZP_SUM_LANES; lane++) {
      uint64_t word;
      memcpy(&word, data + lane * sizeof word, sizeof word);
      word = (at[lane] ^ word) * FACTOR;
      at[lane] = word << 31 | word >> 33;
    }
  memcpy(lanes, at, sizeof at);
}

void zp_sum_add(zp_sum *sum, const void *data, size_t size) {
  const unsigned char *bytes = data;
  size_t held = sum->size % ZP_SUM_BLOCK;
  sum->size += size;
  if (held > 0) {
    size_t missing = ZP_SUM_BLOCK - held, part = size < missing ? size : missing;
    if (part > 0) memcpy(sum->rest + held, bytes, part);
    if (part < missing) return;
    add_blocks(sum->lanes, sum->rest, 1);
    bytes += part;
    size -= part;
  }
  add_blocks(sum->lanes, bytes, size / ZP_SUM_BLOCK);
  size_t left = size % ZP_SUM_BLOCK;
  if (left > 0) memcpy(sum->rest, bytes + (size - left), left);
}

uint64_t zp_sum_end(const zp_sum *sum) {
  uint64_t lanes[ZP_SUM_LANES], result = spread(sum->size);
  unsigned char last[ZP_SUM_BLOCK] = {0};
  size_t held = sum->size % ZP_SUM_BLOCK;
  memcpy(lanes, sum->lanes, sizeof lanes);
  if (held > 0) {
    memcpy(last, sum->rest, held);
    add_blocks(lanes, last, 1);
  }
  for (unsigned lane = 0; lane < ZP_SUM_LANES; lane++) result = zp_sum_mix(result, lanes[lane]);
  return result ? result : 1;
}

uint64_t zp_sum_of(const void *data, size_t size) {
  zp_sum sum;
  zp_sum_begin(&sum);
  zp_sum_add(&sum, data, size);
  return zp_sum_end(&sum);
}
