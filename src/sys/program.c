#include "config.h"

#include "sys/program.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/trust.h"

enum { DESCRIPTORS_MAX = 8, ARGUMENTS_MAX = 8 };
static const double PATIENCE = 10; /* seconds that a program may take to say its version; it takes milliseconds */

static char *module, *configured; /* NULL: this is the executable */
static char *_Atomic found;       /* NULL: not yet. Several threads may look at once; the first that finds it is right */

int zp_program_is_elsewhere(const char *path, const char *bindir) {
  if (module) return 0;
  char *real = realpath(path, NULL);
  module = real ? real : strdup(path);
  configured = strdup(bindir);
  return module && configured ? 0 : zp_fail(ZP_ENOMEM, "out of memory: cannot load zproc");
}

/* ---- executing ---- */

/* No signal is blocked or ignored in what is executed. 0, or an errno: then there is nothing to destroy. */
static int prepare(posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes, short flags) {
  sigset_t none, defaults;
  sigemptyset(&none);
  sigfillset(&defaults);
  int number = posix_spawn_file_actions_init(actions);
  if (number) return number;
  number = posix_spawnattr_init(attributes);
  if (number) {
    posix_spawn_file_actions_destroy(actions);
    return number;
  }
  posix_spawnattr_setsigmask(attributes, &none);
  posix_spawnattr_setsigdefault(attributes, &defaults);
  posix_spawnattr_setflags(attributes, (short)(flags | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF));
  return 0;
}

/* With descriptors that are out of the way of what they are to be: none takes the place of another, and none is there already, which dup2
   would leave to be closed. */
static int spawn(const char *path, char *const *arguments, const int *descriptors, int count, pid_t *pid) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  int number = prepare(&actions, &attributes, POSIX_SPAWN_SETSID);
  if (number) return number;
  for (int i = 0; i < count && !number; i++) number = posix_spawn_file_actions_adddup2(&actions, descriptors[i], ZP_PROGRAM_DESCRIPTOR + i);
  if (!number) number = posix_spawn_file_actions_addclosefrom_np(&actions, ZP_PROGRAM_DESCRIPTOR + count);
  if (!number) number = posix_spawn(pid, path, &actions, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  return number;
}

int zp_program_start(const char *const *arguments, const int *descriptors, size_t count, pid_t *pid) {
  const char *path;
  char *all[ARGUMENTS_MAX + 2] = {"zproc"};
  int moved[DESCRIPTORS_MAX], there = 0, number = 0;
  *pid = 0;
  int rc = zp_program_find(&path);
  if (rc) return rc;
  for (size_t i = 0; arguments[i]; i++) {
    if (i == ARGUMENTS_MAX) return zp_fail(ZP_ESYS, "too many arguments for zproc");
    all[i + 1] = (char *)(uintptr_t)arguments[i]; /* posix_spawn does not change them */
  }
  if (count > DESCRIPTORS_MAX) return zp_fail(ZP_ESYS, "too many descriptors for zproc");
  for (; there < (int)count && !number; there++) {
    moved[there] = fcntl(descriptors[there], F_DUPFD_CLOEXEC, ZP_PROGRAM_DESCRIPTOR + DESCRIPTORS_MAX);
    if (moved[there] < 0) number = errno;
  }
  if (!number) number = spawn(path, all, moved, there, pid);
  while (there > 0)
    if (moved[--there] >= 0) close(moved[there]);
  if (!number) return 0;
  *pid = 0;
  errno = number;
  return zp_fail_errno("cannot execute %s", path);
}

/* ---- is it what we want? ---- */

/* The first line that `path version` writes, up to so many bytes, closed by a zero; false if it does not run, or not to a good end. The end of
   its output is not waited for: a child that another thread forks meanwhile has the pipe as well. */
static bool ask(const char *path, char *answer, size_t size) {
  int out[2];
  pid_t pid = 0;
  if (pipe2(out, O_CLOEXEC) < 0) return false;
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  char *const arguments[] = {"zproc", "version", NULL};
  bool ok = prepare(&actions, &attributes, 0) == 0;
  if (ok) {
    ok = !posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0) &&
         !posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO) &&
         !posix_spawn(&pid, path, &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
  }
  close(out[1]);
  size_t length = 0;
  double deadline = zp_clock_now() + PATIENCE;
  while (ok && length + 1 < size && !memchr(answer, '\n', length)) {
    double left = deadline - zp_clock_now();
    int ready = left > 0 ? poll(&(struct pollfd){.fd = out[0], .events = POLLIN}, 1, (int)(left * 1e3) + 1) : 0;
    if (ready < 0 && errno == EINTR) continue;
    ssize_t n = ready > 0 ? read(out[0], answer + length, size - 1 - length) : -1;
    if (n < 0 && ready > 0 && errno == EINTR) continue;
    if (n < 0) ok = false;
    if (n <= 0) break;
    length += (size_t)n;
  }
  answer[length] = '\0';
  close(out[0]);
  if (pid > 0) {
    if (!ok) kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {} /* what it has said counts, not its status, which a host may have taken */
  }
  return ok;
}

/* 0 if a program that is there can be used; it is remembered then. */
static int check(const char *path) {
  static const char wanted[] = "zproc " PACKAGE_VERSION " ";
  char answer[64];
  if (!ask(path, answer, sizeof answer)) return zp_fail(ZP_ESYS, "no server can be started: %s cannot be executed, or is not zproc", path);
  if (strncmp(answer, wanted, sizeof wanted - 1) != 0) {
    answer[strcspn(answer, "\n")] = '\0';
    return zp_fail(ZP_ESYS, "no server can be started: this module is of zproc " PACKAGE_VERSION ", but %s says that it is '%s'; set ZPROC to "
                            "the path of the zproc that belongs to the module", path, answer);
  }
  char *copy = strdup(path), *before = NULL;
  if (!copy) return zp_fail(ZP_ENOMEM, "out of memory: cannot start a server");
  if (!atomic_compare_exchange_strong(&found, &before, copy)) free(copy);
  return 0;
}

/* ---- where is it? ---- */

/* One that anybody else could have put there is none: a module may lie in a place that is shared. */
static bool is_program(const char *path) {
  struct stat about;
  return stat(path, &about) == 0 && S_ISREG(about.st_mode) && zp_trust_leads(about.st_uid) && !(about.st_mode & S_IWOTH) &&
         access(path, X_OK) == 0;
}

/* Write `directory`/`name`, if that is a program. */
static bool is_in(const char *directory, const char *name, char path[PATH_MAX]) {
  int size = snprintf(path, PATH_MAX, "%s/%s", directory, name);
  return size < PATH_MAX && is_program(path);
}

/* Beside the module: libtool leaves a module in .libs below the executable, and installs it below lib, which has bin for a neighbour. */
static bool is_near(char path[PATH_MAX]) {
  char directory[PATH_MAX];
  if (snprintf(directory, sizeof directory, "%s", module) >= PATH_MAX) return false;
  char *slash = strrchr(directory, '/');
  if (!slash) return false;
  *slash = '\0';
  slash = strrchr(directory, '/');
  bool is_built = slash && strcmp(slash, "/.libs") == 0;
  for (; slash; slash = strrchr(directory, '/')) {
    *slash = '\0';
    if (is_built) return is_in(directory, "zproc", path);
    if (is_in(directory, "bin/zproc", path)) return true;
  }
  return false;
}

static int look(void) {
  char path[PATH_MAX];
  const char *wish = getenv("ZPROC");
  if (wish && *wish) {
    /* The script may change its directory. */
    if (!is_program(wish) || !realpath(wish, path)) return zp_fail(ZP_ESYS, "no server can be started: ZPROC is %s, which is no program, or one of another user", wish);
    return check(path);
  }
  if (is_near(path) || is_in(configured, "zproc", path)) return check(path);
  return zp_fail(ZP_ESYS, "no server can be started, since that is the program zproc: there is none in a directory bin beside the module %s, "
                          "and no %s/zproc; install it, or set ZPROC to its path", module, configured);
}

int zp_program_find(const char **path) {
  *path = "/proc/self/exe";
  if (!module) return 0;
  int rc = atomic_load(&found) ? 0 : look();
  *path = atomic_load(&found);
  return rc;
}
