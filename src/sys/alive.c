#include "sys/alive.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "sys/procfile.h"

static const char *skip_words(const char *at, int count) {
  for (; at && count > 0; count--) {
    at = strchr(at, ' ');
    if (at) at++;
  }
  return at;
}

bool zp_alive_ask(pid_t pid, zp_alive_report *out) {
  enum { STATE_TO_START = 22 - 3, START_TO_EXIT = 52 - 22 }; /* distances of the fields, see proc(5) */
  char path[32], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  if (!zp_procfile_read(path, text, sizeof text)) return false;
  const char *name_end = strrchr(text, ')'); /* a name may have anything in it, but nothing behind it has this */
  const char *state = name_end ? skip_words(name_end, 1) : NULL;
  const char *start = skip_words(state, STATE_TO_START), *code = skip_words(start, START_TO_EXIT);
  if (!code) return false;
  int status = atoi(code);
  *out = (zp_alive_report){.start = strtoull(start, NULL, 10), .is_dead = *state == 'Z' || *state == 'X'};
  out->exitcode = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  return true;
}

uint64_t zp_alive_start(pid_t pid) {
  zp_alive_report report;
  return zp_alive_ask(pid, &report) && !report.is_dead ? report.start : 0;
}

bool zp_alive_is(pid_t pid, uint64_t start) {
  zp_alive_report report;
  if (start == 0) return false;
  if (zp_alive_ask(pid, &report)) return !report.is_dead && report.start == start;
  return kill(pid, 0) == 0 || errno == EPERM; /* there may have been no descriptor to read with */
}

/* Where /proc is that of another namespace, its link `self` has this process's number there, or leads nowhere. */
int zp_alive_read_space(zp_alive_space *space) {
  char self[16];
  struct stat status;
  ssize_t size = readlink("/proc/self", self, sizeof self - 1);
  self[size > 0 ? size : 0] = '\0';
  if (size < 0 || atoi(self) != getpid())
    return zp_fail(ZP_EELSEWHERE, "%s: zproc needs the /proc of its own PID namespace (unshare --mount-proc gives one)",
                   size < 0 ? "/proc does not show this process" : "/proc is that of another PID namespace");
  *space = (zp_alive_space){0, 0};
  if (stat("/proc/self/ns/pid", &status) == 0) *space = (zp_alive_space){status.st_dev, status.st_ino};
  else if (errno != ENOENT) return zp_fail(ZP_EELSEWHERE, "the kernel does not tell which PID namespace this is: %s", strerror(errno));
  return 0;
}

int zp_alive_check_space(const zp_alive_space *space, const char *directory) {
  zp_alive_space own = {0};
  int rc = zp_alive_read_space(&own);
  if (rc || (own.device == space->device && own.inode == space->inode)) return rc;
  return zp_fail(ZP_EELSEWHERE, "the processes of the state in %s are in another PID namespace", directory);
}
