#include "sys/alive.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STATE_FIELD = 3, START_FIELD = 22 }; /* of /proc/PID/stat, counted from 1 */

uint64_t zp_alive_start(pid_t pid) {
  char path[32], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t size = read(fd, text, sizeof text - 1);
  close(fd);
  if (size <= 0) return 0;
  text[size] = 0;
  char *field = strrchr(text, ')'); /* the second field is the program's name, which may hold anything */
  if (!field || field[1] != ' ') return 0;
  field += 2;
  if (*field == 'Z' || *field == 'X') return 0;
  for (int n = STATE_FIELD; n < START_FIELD && field; n++) {
    field = strchr(field, ' ');
    if (field) field++;
  }
  return field ? strtoull(field, NULL, 10) : 0;
}

bool zp_alive_is(pid_t pid, uint64_t start) { return start != 0 && zp_alive_start(pid) == start; }
