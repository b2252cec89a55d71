/*
 * protocol -- what a server and its local clients say to each other on the server's socket.
 *
 * A message is a head and `size` bytes, in the byte order of the machine: both ends are on it. A client asks, the server answers each
 * request once, in order. Whoever gets a head with another magic, or with more bytes than ZP_MESSAGE_MAX, closes the connection; a
 * request of another version, or of a type that the server does not know, is answered by REFUSED with words for a person.
 */
#ifndef ZP_SERVER_PROTOCOL_H
#define ZP_SERVER_PROTOCOL_H

#include <stdint.h>

enum {
  ZP_PROTOCOL_MAGIC = 0x4350525a, /* "ZRPC" */
  ZP_PROTOCOL_VERSION = 1,
  ZP_MESSAGE_MAX = 64 << 10 /* bytes behind a head */
};

typedef enum zp_message_type {
  ZP_MESSAGE_PING = 1,   /* any bytes */
  ZP_MESSAGE_PONG = 2,   /* the server's pid, 8 bytes, and the bytes of the ping */
  ZP_MESSAGE_REFUSED = 3, /* a sentence */
  ZP_MESSAGE_NETWORK = 4, /* nothing: serve the network, too, if that is not done yet */
  ZP_MESSAGE_ENDPOINT = 5 /* where: an endpoint of ZeroMQ */
} zp_message_type;

typedef struct zp_message_head {
  uint32_t magic;
  uint16_t version;
  uint16_t type;
  uint32_t size;
  uint32_t unused; /* 0 */
} zp_message_head;

/* The name of the socket in the server's directory. */
#define ZP_SERVER_SOCKET "server"

#endif
