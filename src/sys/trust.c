#include "sys/trust.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"

enum { USERS_MAX = 64, LINKS_MAX = 40, RECORD_SIZE = 4096 };

static _Atomic uint64_t trusted[USERS_MAX]; /* numbers of users, plus 1; 0: none */

/* ---- users ---- */

static bool read_number(const char *text, uid_t *user) {
  char *end;
  errno = 0;
  unsigned long number = strtoul(text, &end, 10);
  *user = (uid_t)number;
  return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && number < UINT32_MAX;
}

int zp_trust_user(const char *name) {
  char record[RECORD_SIZE];
  struct passwd entry, *found = NULL;
  uid_t user;
  int number = getpwnam_r(name, &entry, record, sizeof record, &found);
  if (found) user = found->pw_uid;
  else if (!read_number(name, &user))
    return number ? zp_fail(ZP_ESYS, "cannot look for the user %.100s: %s", name, strerror(number)) : zp_fail(ZP_EUSAGE, "there is no user '%.100s'", name);
  for (int i = 0; i < USERS_MAX; i++) {
    uint64_t none = 0, own = (uint64_t)user + 1;
    if (atomic_compare_exchange_strong(&trusted[i], &none, own) || none == own) return 0;
  }
  return zp_fail(ZP_EUSAGE, "%d users are trusted already, as many as can be", (int)USERS_MAX);
}

static const char WORD[] = "trusted";

int zp_trust_leave(const char *directory) {
  uint64_t users[USERS_MAX];
  int fd, count = 0;
  while (count < USERS_MAX && (users[count] = atomic_load(&trusted[count]))) count++;
  if (count == 0) return 0;
  int rc = zp_trust_open(directory, WORD, O_WRONLY | O_CREAT | O_TRUNC, &fd);
  if (rc) return rc;
  ssize_t size = (ssize_t)((size_t)count * sizeof *users), n = write(fd, users, (size_t)size);
  if (n != size) rc = zp_fail_errno("cannot write %s/%s", directory, WORD);
  close(fd);
  return rc;
}

void zp_trust_find(const char *directory) {
  uint64_t user;
  char number[24];
  int fd;
  if (zp_trust_open(directory, WORD, O_RDONLY, &fd)) return;
  while (read(fd, &user, sizeof user) == (ssize_t)sizeof user && user > 0) {
    snprintf(number, sizeof number, "%llu", (unsigned long long)(user - 1));
    (void)zp_trust_user(number);
  }
  close(fd);
}

bool zp_trust_is(uid_t user) {
  if (user == geteuid()) return true;
  for (int i = 0; i < USERS_MAX; i++) {
    uint64_t one = atomic_load(&trusted[i]);
    if (one == 0) return false;
    if (one == (uint64_t)user + 1) return true;
  }
  return false;
}

/* Where root has no number, as in a user namespace, what is root's has that of the root directory. */
bool zp_trust_leads(uid_t user) {
  struct stat root;
  return zp_trust_is(user) || user == 0 || (stat("/", &root) == 0 && root.st_uid == user);
}

const char *zp_trust_name(uid_t user, char name[ZP_TRUST_NAME_SIZE]) {
  char record[RECORD_SIZE];
  struct passwd entry, *found = NULL;
  getpwuid_r(user, &entry, record, sizeof record, &found);
  if (found) snprintf(name, ZP_TRUST_NAME_SIZE, "%.50s (uid %lu)", found->pw_name, (unsigned long)user);
  else snprintf(name, ZP_TRUST_NAME_SIZE, "uid %lu", (unsigned long)user);
  return name;
}

int zp_trust_fail(const char *what, uid_t owner) {
  char other[ZP_TRUST_NAME_SIZE], own[ZP_TRUST_NAME_SIZE];
  return zp_fail(ZP_EAUTH, "permission denied: %.300s belongs to %s, and this process to %s: it uses nothing of another user unless allow_user names "
                           "that user",
                 what, zp_trust_name(owner, other), zp_trust_name(geteuid(), own));
}

/* ---- what was opened ---- */

int zp_trust_check(const struct stat *opened, mode_t closed, const char *path) {
  if (!zp_trust_is(opened->st_uid)) return zp_trust_fail(path, opened->st_uid);
  if ((opened->st_mode & closed) == 0) return 0;
  char owner[ZP_TRUST_NAME_SIZE];
  return zp_fail(ZP_EAUTH, "permission denied: other users than %s can %s %.300s (its mode is %04o): close it to them with chmod %s",
                 zp_trust_name(opened->st_uid, owner), opened->st_mode & closed & 022 ? "write" : "read", path,
                 (unsigned)(opened->st_mode & 07777), closed == ZP_TRUST_PRIVATE ? "go=" : "go-w");
}

/* The kernel has denied it. Whose it is can be seen nevertheless, mostly; that is for words alone. */
static int fail_denied(const char *path) {
  struct stat named;
  char owner[ZP_TRUST_NAME_SIZE];
  int number = errno;
  if (stat(path, &named) < 0) {
    errno = number;
    return zp_fail(ZP_EAUTH, "cannot open %.300s: %s", path, strerror(number));
  }
  if (!zp_trust_is(named.st_uid)) return zp_trust_fail(path, named.st_uid);
  return zp_fail(ZP_EAUTH, "permission denied: cannot open %.300s, which belongs to %s", path, zp_trust_name(named.st_uid, owner));
}

static int fail_open(const char *path) {
  if (errno == ENOENT) return zp_fail(ZP_ENOSTORE, "there is no %.300s", path);
  if (errno == ENOTDIR) return zp_fail(ZP_ENOSTORE, "cannot open %.300s: %s", path, strerror(errno));
  if (errno == ELOOP) return zp_fail(ZP_EAUTH, "permission denied: %.300s is a symbolic link, which is not followed there", path);
  return errno == EACCES ? fail_denied(path) : zp_fail_errno("cannot open %.300s", path);
}

int zp_trust_open_directory(const char *path, mode_t closed, int *out) {
  struct stat status;
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return fail_open(path);
  int rc = fstat(fd, &status) < 0 ? zp_fail_errno("cannot look at %.300s", path) : zp_trust_check(&status, closed, path);
  if (rc) close(fd);
  else *out = fd;
  return rc;
}

int zp_trust_open_at(int directory_fd, const char *directory, const char *name, int flags, int *out) {
  char path[PATH_MAX];
  struct stat status;
  int fd = openat(directory_fd, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600), number = errno;
  snprintf(path, sizeof path, "%s/%s", directory, name);
  errno = number;
  if (fd < 0) return fail_open(path);
  int rc = fstat(fd, &status) < 0 ? zp_fail_errno("cannot look at %.300s", path) : 0;
  if (!rc && !S_ISREG(status.st_mode)) rc = zp_fail(ZP_ESYS, "%.300s is no file", path);
  if (!rc) rc = zp_trust_check(&status, ZP_TRUST_PRIVATE, path);
  if (rc) close(fd);
  else *out = fd;
  return rc;
}

int zp_trust_open(const char *directory, const char *name, int flags, int *out) {
  int at = -1;
  int rc = zp_trust_open_directory(directory, ZP_TRUST_PRIVATE, &at);
  if (rc) return rc;
  rc = zp_trust_open_at(at, directory, name, flags, out);
  close(at);
  return rc;
}

/* ---- addresses ---- */

/* Where we are on the way to a server. */
typedef struct walk {
  int at;              /* the directory */
  char rest[PATH_MAX]; /* of the path */
  int links;           /* that were followed */
} walk;

/* For messages: the path of what is open. */
static const char *path_of(int fd, char path[PATH_MAX]) {
  char link[32];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, PATH_MAX - 1);
  path[size > 0 ? size : 0] = '\0';
  return path;
}

static void go(walk *self, int fd) {
  close(self->at);
  self->at = fd;
}

/* The target of a link takes the place of its name. */
static int follow_link(walk *self, int fd, const struct stat *link, const char *name) {
  char target[PATH_MAX], path[PATH_MAX], rest[PATH_MAX];
  if (!zp_trust_leads(link->st_uid)) {
    char where[PATH_MAX];
    snprintf(path, sizeof path, "the link %.200s/%.100s", path_of(self->at, where), name);
    return zp_trust_fail(path, link->st_uid);
  }
  if (++self->links > LINKS_MAX) return zp_fail(ZP_EUSAGE, "too many links lead on to others");
  ssize_t size = readlinkat(fd, "", target, sizeof target - 1);
  if (size < 0) return zp_fail_errno("cannot read the link %s", name);
  target[size] = '\0';
  memcpy(rest, self->rest, sizeof rest);
  if (snprintf(self->rest, sizeof self->rest, "%s/%s", target, rest) >= (int)sizeof self->rest)
    return zp_fail(ZP_EUSAGE, "the path that the link %s leads to is too long", name);
  if (target[0] != '/') return 0;
  int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) return zp_fail_errno("cannot open /");
  go(self, root);
  return 0;
}

/* Cut the next name off the rest of the path: false if there is none. */
static bool next_name(walk *self, char name[PATH_MAX]) {
  const char *from = self->rest + strspn(self->rest, "/");
  size_t size = strcspn(from, "/");
  if (size == 0) return false;
  memcpy(name, from, size);
  name[size] = '\0';
  memmove(self->rest, from + size, strlen(from + size) + 1);
  return true;
}

static bool is_last(const walk *self) { return self->rest[strspn(self->rest, "/")] == '\0'; }

/* The end of the way: a socket in the directory of its server. */
static int arrive(const walk *self, const struct stat *there, const char *name, const char *wanted, char directory[PATH_MAX]) {
  struct stat status;
  if (!S_ISSOCK(there->st_mode) || strcmp(name, wanted) != 0) return zp_fail(ZP_EUSAGE, "what is there is something else");
  if (fstat(self->at, &status) < 0) return zp_fail_errno("cannot look at the directory of a server");
  return zp_trust_check(&status, ZP_TRUST_PRIVATE, path_of(self->at, directory));
}

/* One step: 1 when arrived, 0 if the way goes on. */
static int step(walk *self, const char *name, const char *wanted, char directory[PATH_MAX]) {
  struct stat there;
  int fd = openat(self->at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 && errno == EACCES) return fail_denied(path_of(self->at, directory));
  if (fd < 0) return errno == ENOENT || errno == ENOTDIR ? zp_fail(ZP_ENOSTORE, "nothing is there") : zp_fail_errno("cannot follow the address");
  int rc = fstat(fd, &there) < 0 ? zp_fail_errno("cannot follow the address") : 0;
  if (!rc && S_ISLNK(there.st_mode)) {
    rc = follow_link(self, fd, &there, name);
  } else if (!rc && is_last(self)) {
    rc = arrive(self, &there, name, wanted, directory);
    if (!rc) rc = 1;
  } else if (!rc && S_ISDIR(there.st_mode)) {
    go(self, fd);
    return 0;
  } else if (!rc) {
    rc = zp_fail(ZP_ENOSTORE, "nothing is there");
  }
  close(fd);
  return rc;
}

int zp_trust_follow(const char *path, const char *wanted, char directory[PATH_MAX]) {
  walk self = {.links = 0};
  char name[PATH_MAX];
  if (strlen(path) >= sizeof self.rest) return zp_fail(ZP_ENOSTORE, "nothing is there");
  strcpy(self.rest, path);
  self.at = open(path[0] == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (self.at < 0) return zp_fail_errno("cannot follow the address");
  int rc = 0;
  while (rc == 0) rc = next_name(&self, name) ? step(&self, name, wanted, directory) : zp_fail(ZP_EUSAGE, "what is there is something else");
  close(self.at);
  return rc < 0 ? rc : 0;
}
