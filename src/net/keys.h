/*
 * keys -- the CURVE keys of a server and of its clients, derived from the secret that they share.
 *
 * One secret gives two pairs of keys: the server's, and one that all clients have. Whoever knows the secret has both, so there is nothing
 * to exchange, and whoever does not can neither read what the others say nor say anything. The derivation (Argon2id) takes about
 * 0.1 s and 64 MB: a secret that somebody has thought up is expensive to guess even for one who has recorded a whole connection.
 *
 * Derived keys are in memory that is locked and not dumped (sys/secret.h). libzmq has copies of those that it uses, which are not.
 *
 * A server finds its keys in a file of its directory, where its owner has put them: never on a command line, never in an environment. The
 * same file tells a client on the machine whether it has the right secret.
 *
 * Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_KEYS_H
#define ZP_NET_KEYS_H

#include <stdbool.h>

#include "base/buf.h"

enum { ZP_KEY_BYTES = 32 };

typedef struct zp_keys {
  unsigned char server_public[ZP_KEY_BYTES], server_secret[ZP_KEY_BYTES];
  unsigned char client_public[ZP_KEY_BYTES], client_secret[ZP_KEY_BYTES];
} zp_keys;

/* Derive the keys of a secret, or of the token of one that is held. A secret that was used before in this process, or before it was forked, costs
   nothing. ZP_EUSAGE if it is empty; ZP_ENOMEM, ZP_ESYS. The caller wipes them. */
int zp_keys_derive(zp_bytes secret, zp_keys *keys);

enum { ZP_TOKEN_SIZE = 32 };

/* Hold a secret for this process, its threads and what it forks: `token` stands for it from then on, and says nothing of it. The secret itself is
   wiped as soon as its keys are derived, when they are needed. ZP_ENOMEM. */
int zp_keys_hold(zp_bytes secret, char token[ZP_TOKEN_SIZE]);

/* Whether it is a token, and not a secret. */
bool zp_keys_is_token(zp_bytes secret);

/* Leave the keys in a server's directory; read them there: 1, or 0 if the server has none. */
int zp_keys_write(const char *directory, const zp_keys *keys);
int zp_keys_read(const char *directory, zp_keys *keys);

/* Whether a client with this secret (data NULL: without any) may use the server of a directory on this machine: 0 or ZP_EAUTH. */
int zp_keys_check(const char *directory, zp_bytes secret);

#endif
