#include "sys/alias.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/dirlock.h"
#include "sys/sock.h"
#include "sys/trust.h"

/* What is done about the name `path` is done by one process at a time, of this user's: another user's have no business with it. */
typedef struct turn {
  char file[PATH_MAX];
  int lock;
} turn;

/* Another process of this user may have been stopped in the middle, so it is not waited for without a limit. */
static int take_turn(const char *path, turn *self) {
  static const double PATIENCE = 10; /* seconds */
  if (path[0] != '/' || snprintf(self->file, sizeof self->file, "%s.lock", path) >= (int)sizeof self->file)
    return zp_fail(ZP_ESYS, "%.100s is no absolute path that can be used", path);
  int rc = zp_dirlock_take_file(self->file, zp_clock_now() + PATIENCE, &self->lock);
  return rc ? zp_fail(rc, "cannot use the address %s: %s", path, zp_error_detail()) : 0;
}

static void end_turn(const turn *self) { zp_dirlock_release_file(self->file, self->lock); }

static bool leads_to(const char *path, const char *target) {
  char found[PATH_MAX];
  ssize_t size = readlink(path, found, sizeof found);
  return size == (ssize_t)strlen(target) && memcmp(found, target, (size_t)size) == 0;
}

/* What is there is another user's, and cannot be taken over or even asked. */
static int fail_foreign(const char *path, const struct stat *named) {
  char owner[ZP_TRUST_NAME_SIZE];
  return zp_fail(ZP_EUSAGE, "the address %s is in use: it belongs to %s", path, zp_trust_name(named->st_uid, owner));
}

/* When it is our turn: 0 if the place is free or may be taken over. */
static int check_free(const char *path) {
  struct stat status;
  if (lstat(path, &status) < 0) return errno == ENOENT ? 0 : zp_fail_errno("cannot use the address %s", path);
  int fd;
  int rc = zp_sock_connect(path, zp_clock_now(), &fd);
  if (rc == 0) {
    rc = zp_fail(ZP_EUSAGE, "the address %s is in use: process %d listens there", path, (int)zp_sock_listener(fd));
    close(fd);
    return rc;
  }
  if (rc == ZP_ETIMEOUT) return zp_fail(ZP_EUSAGE, "the address %s is in use, by a server that is very busy", path);
  if (rc != ZP_ENOSTORE) return zp_trust_is(status.st_uid) ? rc : fail_foreign(path, &status);
  if (S_ISLNK(status.st_mode) || S_ISSOCK(status.st_mode)) return 0;
  return zp_fail(ZP_EUSAGE, "the address %s is in use: there is a file that is no socket", path);
}

/* What the link is called before it has its name: a name that follows from its target, so that whoever cleans up after us knows it. */
static int name_fresh(const char *path, const char *target, char *out, size_t max) {
  uint64_t hash = 14695981039346656037u; /* FNV-1a */
  for (const char *c = target; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
  if (snprintf(out, max, "%s.%016llx", path, (unsigned long long)hash) < (int)max) return 0;
  return zp_fail(ZP_ESYS, "the address %.100s... is too long", path);
}

int zp_alias_create(const char *path, const char *target) {
  char fresh[PATH_MAX];
  struct stat status;
  turn ours;
  int rc = take_turn(path, &ours);
  if (rc) return rc;
  rc = check_free(path);
  if (rc) goto out;
  rc = name_fresh(path, target, fresh, sizeof fresh);
  if (rc) goto out;
  if (symlink(target, fresh) < 0 || rename(fresh, path) < 0) {
    rc = zp_fail_errno("cannot use the address %s", path);
    if (lstat(path, &status) == 0 && !zp_trust_is(status.st_uid)) rc = fail_foreign(path, &status);
    unlink(fresh);
  }
out:
  end_turn(&ours);
  return rc;
}

void zp_alias_remove(const char *path, const char *target) {
  char fresh[PATH_MAX];
  turn ours;
  if (name_fresh(path, target, fresh, sizeof fresh) || take_turn(path, &ours)) return;
  if (leads_to(path, target)) unlink(path);
  if (leads_to(fresh, target)) unlink(fresh);
  end_turn(&ours);
}
