#include "sys/memory.h"

#include <limits.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sys/procfile.h"

/* Bytes of a line of /proc/self/status, which has kilobytes. */
static size_t bytes_of(const char *status, const char *name) {
  const char *line = strstr(status, name);
  return line ? (size_t)strtoull(line + strlen(name), NULL, 10) << 10 : 0;
}

size_t zp_memory_private(void) {
  char status[4096];
  if (!zp_procfile_read("/proc/self/status", status, sizeof status)) return 0;
  return bytes_of(status, "\nRssAnon:") + bytes_of(status, "\nVmSwap:");
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static size_t limit_of(int resource) {
  struct rlimit limit;
  return getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY ? (size_t)limit.rlim_cur : SIZE_MAX;
}

static size_t limit_of_group(void) {
  char group[PATH_MAX], path[PATH_MAX + 64], text[64];
  if (!zp_procfile_read("/proc/self/cgroup", group, sizeof group)) return SIZE_MAX;
  const char *name = strstr(group, "0::");
  if (!name) return SIZE_MAX;
  name += strlen("0::");
  snprintf(path, sizeof path, "/sys/fs/cgroup%.*s/memory.max", (int)strcspn(name, "\n"), name);
  if (!zp_procfile_read(path, text, sizeof text)) return SIZE_MAX;
  char *end;
  unsigned long long bytes = strtoull(text, &end, 10);
  return end > text && bytes > 0 ? (size_t)bytes : SIZE_MAX; /* "max" is no number */
}

size_t zp_memory_limit(void) {
  long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  size_t all = pages > 0 && size > 0 ? (size_t)pages * (size_t)size : SIZE_MAX;
  return least(least(all, limit_of_group()), least(limit_of(RLIMIT_DATA), limit_of(RLIMIT_AS)));
}

void zp_memory_trim(void) { malloc_trim(0); }
