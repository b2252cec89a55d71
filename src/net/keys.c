#include "net/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "net/lib.h"
#include "sys/trust.h"

static const char NAME[] = "keys";

/* The same for everybody, since there is nobody to ask for another one: it keeps the tables of others from being of use here. */
static const unsigned char SALT[crypto_pwhash_SALTBYTES] = "zproc/curve/keys";

/* The last secret that was derived, and what became of it. Of each thread its own, so that a child never finds it locked by a thread that
   it has not got. */
static _Thread_local struct {
  unsigned char digest[32];
  zp_keys keys;
  bool is_there;
} last;

static void make_pair(const unsigned char *seed, const char *name, unsigned char *public_key, unsigned char *secret_key) {
  zp_sodium->crypto_generichash(secret_key, ZP_KEY_BYTES, (const unsigned char *)name, strlen(name), seed, ZP_KEY_BYTES);
  zp_sodium->crypto_scalarmult_base(public_key, secret_key);
}

int zp_keys_derive(zp_bytes secret, zp_keys *keys) {
  if (secret.size == 0) return zp_fail(ZP_EUSAGE, "a secret key must not be empty");
  int rc = zp_lib_load_sodium();
  if (rc) return rc;
  unsigned char digest[sizeof last.digest], seed[ZP_KEY_BYTES];
  zp_sodium->crypto_generichash(digest, sizeof digest, secret.data, secret.size, NULL, 0);
  if (last.is_there && memcmp(digest, last.digest, sizeof digest) == 0) {
    *keys = last.keys;
  } else if (zp_sodium->crypto_pwhash(seed, sizeof seed, secret.data, secret.size, SALT, crypto_pwhash_OPSLIMIT_INTERACTIVE,
                                      crypto_pwhash_MEMLIMIT_INTERACTIVE, crypto_pwhash_ALG_ARGON2ID13) < 0) {
    rc = zp_fail(ZP_ENOMEM, "out of memory: deriving keys from a secret takes %u MB", crypto_pwhash_MEMLIMIT_INTERACTIVE >> 20);
  } else {
    make_pair(seed, "server", keys->server_public, keys->server_secret);
    make_pair(seed, "client", keys->client_public, keys->client_secret);
    zp_sodium->sodium_memzero(seed, sizeof seed);
    last.keys = *keys;
    memcpy(last.digest, digest, sizeof digest);
    last.is_there = true;
  }
  return rc;
}

static int set_path(const char *directory, char path[PATH_MAX]) {
  if (snprintf(path, PATH_MAX, "%s/%s", directory, NAME) < PATH_MAX) return 0;
  return zp_fail(ZP_ESYS, "the path %.60s... is too long", directory);
}

int zp_keys_write(const char *directory, const zp_keys *keys) {
  char path[PATH_MAX];
  int rc = set_path(directory, path);
  if (rc) return rc;
  int fd;
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
  int fd;
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
  return same ? 0 : zp_fail(ZP_EAUTH, "the secret key is not that of the server");
}
