/*
 * format -- the bytes of an encoded value, shared by the encoder and the decoder. docs/codec.md has the grammar.
 *
 * Every value starts with a tag. The values that states are mostly made of (small integers, short strings) have their
 * content in the tag itself. Each value has exactly one form: the shortest. So a value and its copy have equal bytes, and the
 * decoder refuses the longer forms.
 */
#ifndef ZP_CODEC_FORMAT_H
#define ZP_CODEC_FORMAT_H

#include <lua.h>

/* The first byte: the version in the upper half, what occurs in the value in the lower. */
enum {
  FORMAT_VERSION = 0x10,
  FORMAT_VERSION_MASK = 0xf0,
  FORMAT_REFERENCES = 0x01, /* an object is met twice: the decoder has to keep the objects by number */
  FORMAT_GLOBALS = 0x02,    /* globals follow the value: environments are tables of their own */
  FORMAT_FLAGS = FORMAT_REFERENCES | FORMAT_GLOBALS
};

enum {
  TAG_NIL = 0x00,
  TAG_FALSE = 0x01,
  TAG_TRUE = 0x02,
  TAG_NULL = 0x03,
  TAG_FLOAT = 0x04, /* 8 bytes */
  TAG_INT8 = 0x05,
  TAG_INT16 = 0x06,
  TAG_INT32 = 0x07,
  TAG_INT64 = 0x08,
  TAG_STRING = 0x09,      /* size, bytes */
  TAG_TABLE = 0x0a,       /* array size, pair count, elements, pairs */
  TAG_META_TABLE = 0x0b,  /* the same, then the metatable */
  TAG_FUNCTION = 0x0c,    /* size, bytecode, upvalue count, upvalues */
  TAG_NAME = 0x0d,        /* size, name */
  TAG_REFERENCE = 0x0e,   /* number of an object */
  TAG_ENVIRONMENT = 0x0f, /* the globals; only in a cell */
  TAG_CELL = 0x10,        /* an upvalue that is met for the first time: its value */
  TAG_OUTER_REFERENCE = 0x11, /* leaves the encoder never: see prepare_object_keys */
  TAG_SHORT_STRING = 0x20,
  TAG_SHORT_STRING_LAST = 0x5f,
  TAG_SMALL_INTEGER = 0x80
};

/* The longest string with its size in the tag. */
#define SHORT_STRING_MAX ((size_t)(TAG_SHORT_STRING_LAST - TAG_SHORT_STRING))
#define SMALL_INTEGER_MIN (-16)
#define SMALL_INTEGER_MAX 111

/* The name by which the metatable of private environments travels. */
#define ENVIRONMENT_NAME "zproc:environment"

/* Push the metatable of private environments: what a decoded function has for its globals when some came with it. */
int zp_environment_metatable(lua_State *L);

/* The order of the keys that follow the array part of a table, by kind, then by value. */
enum kind { KIND_FALSE, KIND_TRUE, KIND_INTEGER, KIND_FLOAT, KIND_STRING, KIND_NULL, KIND_OBJECT };

/* A double's bits as a number whose order is that of the doubles. */
static inline unsigned long long ordered_bits(double number) {
  unsigned long long bits;
  __builtin_memcpy(&bits, &number, 8);
  return bits >> 63 ? ~bits : bits | 1ULL << 63;
}

/* The first eight bytes of a string, as a number whose order is that of the strings. */
static inline unsigned long long ordered_prefix(const char *string, size_t size) {
  unsigned long long prefix = 0;
  if (size >= 8) {
    __builtin_memcpy(&prefix, string, 8);
    return __builtin_bswap64(prefix);
  }
  for (size_t i = 0; i < size; i++) prefix |= (unsigned long long)(unsigned char)string[i] << (56 - 8 * i);
  return prefix;
}

#endif
