#include "net/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "net/lib.h"
#include "sys/secret.h"
#include "sys/trust.h"

static const char NAME[] = "keys";

/* The same for everybody, since there is nobody to ask for another one: it keeps the tables of others from being of use here. */
static const char SALT[] = "zproc/curve/keys";
_Static_assert(sizeof SALT - 1 == crypto_pwhash_SALTBYTES, "the salt has the size that libsodium wants");

/* A secret that this process has used, or is to use. They stay; there are few. */
typedef struct held {
  struct held *next;
  unsigned char token[ZP_TOKEN_SIZE]; /* all zero: it has none */
  unsigned char digest[32];           /* of the secret, with a key of this process's own; once it is derived */
  _Atomic int state;                  /* PLAIN, or the pid of who derives, or DERIVED */
  char *plain;                        /* NULL once it is derived */
  size_t size;
  zp_keys keys;
} held;

enum { PLAIN = 0, DERIVED = -1 };

static held *_Atomic all;
static const char TOKEN[] = "\1zproc key ";

static void make_pair(const unsigned char *seed, const char *name, unsigned char *public_key, unsigned char *secret_key) {
  zp_sodium->crypto_generichash(secret_key, ZP_KEY_BYTES, (const unsigned char *)name, strlen(name), seed, ZP_KEY_BYTES);
  zp_sodium->crypto_scalarmult_base(public_key, secret_key);
}

bool zp_keys_is_token(zp_bytes secret) {
  return secret.size == ZP_TOKEN_SIZE && memcmp(secret.data, TOKEN, sizeof TOKEN - 1) == 0;
}

static void add(held *one) {
  held *first = atomic_load(&all);
  do one->next = first;
  while (!atomic_compare_exchange_weak(&all, &first, one));
}

static int new_held(held **out) {
  *out = zp_secret_new(sizeof **out);
  return *out ? 0 : ZP_ENOMEM;
}

int zp_keys_hold(zp_bytes secret, char token[ZP_TOKEN_SIZE]) {
  held *one;
  int rc = new_held(&one);
  if (rc) return rc;
  one->plain = zp_secret_new(secret.size ? secret.size : 1);
  if (!one->plain) {
    zp_secret_free(one, sizeof *one);
    return ZP_ENOMEM;
  }
  if (secret.size) memcpy(one->plain, secret.data, one->size = secret.size);
  memcpy(one->token, TOKEN, sizeof TOKEN - 1);
  size_t from = sizeof TOKEN - 1;
  while (getrandom(one->token + from, ZP_TOKEN_SIZE - from, 0) != (ssize_t)(ZP_TOKEN_SIZE - from)) {}
  memcpy(token, one->token, ZP_TOKEN_SIZE);
  add(one);
  return 0;
}

static int derive(zp_bytes secret, zp_keys *keys) {
  unsigned char seed[ZP_KEY_BYTES];
  if (zp_sodium->crypto_pwhash(seed, sizeof seed, secret.data, secret.size, (const unsigned char *)SALT, crypto_pwhash_OPSLIMIT_INTERACTIVE,
                               crypto_pwhash_MEMLIMIT_INTERACTIVE, crypto_pwhash_ALG_ARGON2ID13) < 0)
    return zp_fail(ZP_ENOMEM, "out of memory: deriving keys from a secret takes %u MB", crypto_pwhash_MEMLIMIT_INTERACTIVE >> 20);
  make_pair(seed, "server", keys->server_public, keys->server_secret);
  make_pair(seed, "client", keys->client_public, keys->client_secret);
  zp_sodium->sodium_memzero(seed, sizeof seed);
  return 0;
}

/* The keys of a secret that is held. One thread derives them, and wipes the secret. A thread of the parent that was at it when this process was forked
   is not here: then it is to be done anew, and the secret is still there. */
static int derive_held(held *one, zp_keys *keys) {
  static const struct timespec moment = {.tv_nsec = 1000000};
  int state = PLAIN;
  while (!atomic_compare_exchange_strong(&one->state, &state, (int)getpid())) {
    if (state == DERIVED) {
      *keys = one->keys;
      return 0;
    }
    if (state != getpid()) {
      if (atomic_compare_exchange_strong(&one->state, &state, (int)getpid())) break;
    } else {
      nanosleep(&moment, NULL);
    }
    state = PLAIN;
  }
  int rc = derive((zp_bytes){one->plain, one->size}, &one->keys);
  if (!rc) {
    zp_secret_free(one->plain, one->size);
    one->plain = NULL;
    *keys = one->keys;
  }
  atomic_store(&one->state, rc ? PLAIN : DERIVED);
  return rc;
}

/* The key of digests: nobody can find out by them, were they ever seen, which secret it is. */
static const unsigned char *digest_key(void) {
  static unsigned char *_Atomic key;
  unsigned char *known = atomic_load(&key), *none = NULL;
  if (known || !(known = zp_secret_new(ZP_KEY_BYTES))) return known;
  while (getrandom(known, ZP_KEY_BYTES, 0) != ZP_KEY_BYTES) {}
  if (atomic_compare_exchange_strong(&key, &none, known)) return known;
  zp_secret_free(known, ZP_KEY_BYTES);
  return none;
}

int zp_keys_derive(zp_bytes secret, zp_keys *keys) {
  if (secret.size == 0) return zp_fail(ZP_EUSAGE, "a secret key must not be empty");
  int rc = zp_lib_load_sodium();
  if (rc) return rc;
  if (zp_keys_is_token(secret)) {
    for (held *one = atomic_load(&all); one; one = one->next)
      if (memcmp(one->token, secret.data, ZP_TOKEN_SIZE) == 0) return derive_held(one, keys);
    return zp_fail(ZP_EUSAGE, "this secret key is held by another process");
  }
  unsigned char digest[32];
  const unsigned char *key = digest_key();
  if (!key) return ZP_ENOMEM;
  zp_sodium->crypto_generichash(digest, sizeof digest, secret.data, secret.size, key, ZP_KEY_BYTES);
  for (held *one = atomic_load(&all); one; one = one->next)
    if (atomic_load(&one->state) == DERIVED && !one->token[0] && memcmp(one->digest, digest, sizeof digest) == 0) {
      *keys = one->keys;
      return 0;
    }
  held *one;
  rc = new_held(&one);
  if (!rc) rc = derive(secret, &one->keys);
  if (rc) {
    zp_secret_free(one, sizeof *one);
    return rc;
  }
  memcpy(one->digest, digest, sizeof digest);
  *keys = one->keys;
  atomic_store(&one->state, DERIVED);
  add(one);
  return 0;
}

static int set_path(const char *directory, char path[PATH_MAX]) {
  if (snprintf(path, PATH_MAX, "%s/%s", directory, NAME) < PATH_MAX) return 0;
  return zp_fail(ZP_ESYS, "the path %.60s... is too long", directory);
}

int zp_keys_write(const char *directory, const zp_keys *keys) {
  char path[PATH_MAX];
  int rc = set_path(directory, path);
  if (rc) return rc;
  int fd = -1;
  rc = zp_trust_open(directory, NAME, O_WRONLY | O_CREAT | O_EXCL, &fd);
  if (rc) return rc;
  ssize_t n = write(fd, keys, sizeof *keys);
  if (n != (ssize_t)sizeof *keys) {
    if (n >= 0) errno = ENOSPC;
    rc = zp_fail_errno("cannot write %s", path);
    unlink(path);
  }
  close(fd);
  return rc;
}

int zp_keys_read(const char *directory, zp_keys *keys) {
  char path[PATH_MAX];
  int rc = set_path(directory, path);
  if (rc) return rc;
  int fd = -1;
  rc = zp_trust_open(directory, NAME, O_RDONLY, &fd);
  if (rc == ZP_ENOSTORE) return 0;
  if (rc) return rc;
  ssize_t n = read(fd, keys, sizeof *keys);
  close(fd);
  return n == (ssize_t)sizeof *keys ? 1 : zp_fail(ZP_ESYS, "%s is damaged", path);
}

int zp_keys_check(const char *directory, zp_bytes secret) {
  zp_keys theirs, ours;
  int rc = zp_keys_read(directory, &theirs);
  if (rc < 0) return rc;
  if (rc == 0) return secret.data ? zp_fail(ZP_EAUTH, "the server has no secret key, but one was given") : 0;
  if (!secret.data) return zp_fail(ZP_EAUTH, "the server has a secret key, and none was given");
  rc = zp_keys_derive(secret, &ours);
  if (rc) return rc;
  bool same = zp_sodium->sodium_memcmp(&theirs, &ours, sizeof ours) == 0;
  zp_secret_wipe(&theirs, sizeof theirs);
  zp_secret_wipe(&ours, sizeof ours);
  return same ? 0 : zp_fail(ZP_EAUTH, "the secret key is not that of the server");
}
