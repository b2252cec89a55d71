#include "store/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/sum.h"
#include "store/check.h"
#include "store/handle.h"
#include "sys/trust.h"

#define TRAILER_MAGIC "zprocsum" /* 8 bytes */

enum { TRAILER_FORMAT = 1 };

typedef struct trailer {
  char magic[8];
  uint64_t format;
  uint64_t size, identity, revision;
  double time;
  uint64_t sum;
  uint64_t own; /* sum of the fields before this one */
} trailer;

static uint64_t sum_of_trailer(const trailer *self) { return zp_sum_of(self, offsetof(trailer, own)); }

/* 1, 0 if there is none, or an error. */
static int read_trailer(int fd, const char *path, trailer *out) {
  struct stat status;
  if (fstat(fd, &status) < 0) return zp_fail_errno("cannot read %s", path);
  off_t at = status.st_size - (off_t)sizeof *out;
  if (at < 0) return 0;
  ssize_t n = pread(fd, out, sizeof *out, at);
  if (n < 0) return zp_fail_errno("cannot read %s", path);
  if (n != (ssize_t)sizeof *out || memcmp(out->magic, TRAILER_MAGIC, sizeof out->magic) != 0) return 0;
  if (out->own != sum_of_trailer(out) || out->size != (uint64_t)at) return zp_fail(ZP_ESTORE, "%s is damaged: its trailer is", path);
  return out->format == TRAILER_FORMAT ? 1 : zp_fail(ZP_ESTORE, "%s is of another version", path);
}

static int check_file(int fd, const char *path, bool is_old, zp_snapshot *out) {
  trailer end;
  zp_check found;
  int has_trailer = read_trailer(fd, path, &end), rc = has_trailer < 0 ? has_trailer : 0;
  if (!rc && !has_trailer && !is_old) rc = zp_fail(ZP_ESTORE, "%s is damaged: it has no end", path);
  if (!rc) rc = zp_check_file(fd, path, &found);
  if (rc) return rc;
  *out = (zp_snapshot){found.used_bytes, found.identity, found.newest, 0, 0};
  rc = zp_check_sum(fd, path, has_trailer ? end.size : out->size, &out->sum);
  if (rc || !has_trailer) return rc;
  if (end.sum != out->sum || end.identity != out->identity || end.revision != out->revision || end.size < out->size)
    return zp_fail(ZP_ESTORE, "%s is damaged: its sum is another", path);
  out->size = end.size;
  out->time = end.time;
  return 0;
}

int zp_snapshot_check(const char *path, bool is_old, zp_snapshot *snapshot) {
  int fd = -1;
  int rc = zp_check_open(path, ZP_TRUST_PRIVATE, &fd);
  if (rc) return rc;
  rc = check_file(fd, path, is_old, snapshot);
  close(fd);
  return rc;
}

/* What was copied is looked at: data that were damaged while they are in use must not replace a snapshot that is good. */
int zp_snapshot_copy(zp_store *store, int fd, const char *path, zp_snapshot *snapshot) {
  zp_section section;
  zp_check found;
  struct stat status;
  zp_env_enter(store->env, &section);
  int rc = store->env->unmapped ? ENOMEM : mdb_env_copyfd(store->env->mdb, fd);
  zp_env_leave(&section);
  if (zp_is_full(rc)) return zp_fail(ZP_EFULL, "no space left to write %s", path);
  if (rc) return zp_env_fail(store->env, rc, "cannot copy");
  if (fsync(fd) < 0 || fstat(fd, &status) < 0) return zp_fail_errno("cannot sync %s", path);
  rc = zp_check_file(fd, path, &found);
  if (rc == ZP_ESTORE) return zp_fail(rc, "the data of the state in %s are damaged, so no copy is kept: %s", store->directory, zp_error_detail());
  if (rc) return rc;
  *snapshot = (zp_snapshot){(uint64_t)status.st_size, found.identity, found.newest, zp_clock_wall(), 0};
  return zp_check_sum(fd, path, snapshot->size, &snapshot->sum);
}

int zp_snapshot_seal(int fd, const char *path, const zp_snapshot *snapshot) {
  trailer end = {.format = TRAILER_FORMAT,
                 .size = snapshot->size,
                 .identity = snapshot->identity,
                 .revision = snapshot->revision,
                 .time = snapshot->time,
                 .sum = snapshot->sum};
  memcpy(end.magic, TRAILER_MAGIC, sizeof end.magic);
  end.own = sum_of_trailer(&end);
  ssize_t n = pwrite(fd, &end, sizeof end, (off_t)snapshot->size);
  if (n >= 0 && n != (ssize_t)sizeof end) errno = ENOSPC;
  if (n == (ssize_t)sizeof end && fsync(fd) == 0) return 0;
  int number = errno;
  int rc = zp_fail_errno("cannot write %s", path);
  return zp_is_full(number) ? ZP_EFULL : rc;
}

const char *zp_snapshot_words(const zp_snapshot *snapshot, char words[80]) {
  int size = snprintf(words, 80, "revision %llu", (unsigned long long)snapshot->revision);
  time_t seconds = (time_t)snapshot->time;
  struct tm local;
  if (seconds > 0 && localtime_r(&seconds, &local)) strftime(words + size, 80 - (size_t)size, " of %F %T", &local);
  return words;
}
