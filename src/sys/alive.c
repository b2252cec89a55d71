#include "sys/alive.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t size = read(fd, text, sizeof text - 1);
  close(fd);
  if (size <= 0) return false;
  text[size] = '\0';
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

bool zp_alive_is(pid_t pid, uint64_t start) { return start != 0 && zp_alive_start(pid) == start; }
