/*
 * encoder -- one encoding under way; shared by encode.c (values, tables) and encode_function.c (functions and globals).
 *
 * An encoding begins in plain mode: scalars and tables without metatables whose keys are scalars. Anything else ends
 * it with ENCODE_GRAPH, and it begins again in graph mode, which looks up every object among the named ones and may
 * push new Lua values. Only graph mode reports what cannot travel.
 *
 * Graph mode runs under lua_pcall and with the garbage collector put off, so that no finaliser changes a table while
 * its pairs are held.
 */
#ifndef ZP_CODEC_ENCODER_H
#define ZP_CODEC_ENCODER_H

#include "codec/format.h"
#include "codec/scratch.h"

enum { ENCODE_GRAPH = 1 };

typedef struct zp_encoder {
  lua_State *L;
  zp_buf *buf;
  zp_scratch *scratch;
  const char *root; /* what the caller calls the value */
  int home;       /* stack index of the scratch */
  lua_Integer elements; /* of the array part that was written last */
  int depth;      /* tables and functions around the present value */
  uint32_t count; /* objects numbered */
  bool graph;
  bool references;
  const struct zp_encoder *outer; /* this one encodes a key of that one, only to sort by */
  int nesting;                    /* how many such are around */
  size_t budget;                  /* bytes that may still be encoded to sort by */
  const void *globals;    /* graph mode: the globals table */
  const void *metatable;  /* graph mode: that of private environments */
  int queue;              /* graph mode: stack index of the table of globals that are to follow */
  int queued_set;         /* graph mode: stack index of the table of those that were queued */
  lua_Integer queued;     /* globals in the queue */
  int answer;             /* graph mode: of the whole */
} zp_encoder;

static inline int zp_encoder_reserve(zp_encoder *e, size_t size) {
  return size <= e->buf->capacity - e->buf->size ? 0 : zp_buf_reserve(e->buf, size);
}

/* Write after a zp_encoder_reserve. */
static inline void zp_encoder_byte(zp_encoder *e, unsigned char byte) { e->buf->data[e->buf->size++] = byte; }

/* Write a tag and a number. */
static inline int zp_encoder_number(zp_encoder *e, unsigned char tag, uint64_t number) {
  int rc = zp_encoder_reserve(e, 11);
  if (rc) return rc;
  zp_encoder_byte(e, tag);
  return zp_buf_append_varint(e->buf, number);
}

/* Write the value on top of the stack, which stays there. 0, a ZP_E* code, or ENCODE_GRAPH. */
int zp_encode_value(zp_encoder *e);

/* Go one level down; every zp_encode_down that answered 0 has its `e->depth--`. */
int zp_encode_down(zp_encoder *e);

/* Write a reference if the object was met before, and answer 1; else number it, and answer 0. ZP_ENOMEM. */
int zp_encode_reference(zp_encoder *e, const void *object);

/* Graph mode: write the function on top of the stack, which has its number. */
int zp_encode_function(zp_encoder *e);

/* Graph mode: write the globals that the functions of the value use. */
int zp_encode_globals(zp_encoder *e);

#endif
