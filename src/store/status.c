#include "store/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/sum.h"
#include "store/check.h"
#include "store/files.h"
#include "sys/trust.h"

enum { STATUS_MAX = PATH_MAX + 512 };

static const char NONE[] = "-"; /* a boot that the kernel does not tell */

static const char *const names[] = {
    [ZP_STATUS_MAKING] = "making",       [ZP_STATUS_OPEN] = "open",     [ZP_STATUS_CLOSED] = "closed",
    [ZP_STATUS_RESTORING] = "restoring", [ZP_STATUS_ROLLED] = "rolled", [ZP_STATUS_BACKUP] = "backup"};

enum { STATES = sizeof names / sizeof names[0] };

/* The lines before the last one. */
static void render_lines(const zp_status *status, const char *boot, char text[STATUS_MAX]) {
  const zp_status_data *data = &status->data;
  int size = snprintf(text, STATUS_MAX, "zproc %d %s %s %s\n%s\n", status->format, names[status->state], boot[0] ? boot : NONE, status->sync,
                      status->runtime);
  if (status->format == ZP_STATUS_OLD_FORMAT) return;
  snprintf(text + size, STATUS_MAX - (size_t)size, "data %llu %llu %llu %016llx %llu %016llx\n", (unsigned long long)data->size,
           (unsigned long long)data->inode, (unsigned long long)data->born, (unsigned long long)data->identity,
           (unsigned long long)data->revision, (unsigned long long)data->sum);
}

static void render(const zp_status *status, char text[STATUS_MAX]) {
  if (status->format != ZP_STATUS_OLD_FORMAT) {
    render_lines(status, NONE, text);
    uint64_t sum = zp_sum_of(text, strlen(text));
    render_lines(status, status->boot, text);
    size_t size = strlen(text);
    snprintf(text + size, STATUS_MAX - size, "sum %016llx\n", (unsigned long long)sum);
  } else {
    render_lines(status, status->boot, text);
  }
}

static int read_file(const char *path, char text[STATUS_MAX]) {
  int fd = -1;
  int rc = zp_check_open(path, ZP_TRUST_UNWRITABLE, &fd);
  if (rc == ZP_ENOSTORE) return 0;
  if (rc) return rc;
  size_t size = 0;
  for (;;) {
    ssize_t n = read(fd, text + size, STATUS_MAX - 1 - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) rc = zp_fail_errno("cannot read %s", path);
    if (n <= 0) break;
    size += (size_t)n;
  }
  close(fd);
  text[size] = 0;
  return rc ? rc : 1;
}

/* What the lines say; whether they are as this program writes them is seen afterwards. */
static bool parse(const char *text, zp_status *status) {
  char state[16];
  unsigned long long size, inode, born, identity, revision, sum;
  int consumed = 0;
  if (sscanf(text, "zproc %d %15s %39s %15s%n", &status->format, state, status->boot, status->sync, &consumed) != 4) return false;
  if (text[consumed] != '\n') return false;
  const char *runtime = text + consumed + 1, *end = strchr(runtime, '\n');
  if (!end || end - runtime >= PATH_MAX) return false;
  memcpy(status->runtime, runtime, (size_t)(end - runtime));
  status->runtime[end - runtime] = 0;
  int found = 0;
  while (found < STATES && strcmp(names[found], state) != 0) found++;
  if (found == STATES) return false;
  status->state = (zp_status_state)found;
  if (strcmp(status->boot, NONE) == 0) status->boot[0] = 0;
  if (status->format != ZP_STATUS_FORMAT) return true;
  if (sscanf(end + 1, "data %llu %llu %llu %llx %llu %llx", &size, &inode, &born, &identity, &revision, &sum) != 6) return false;
  status->data = (zp_status_data){size, inode, born, identity, revision, sum};
  return true;
}

int zp_status_read(const char *directory, zp_status *out) {
  char path[PATH_MAX], text[STATUS_MAX], same[STATUS_MAX];
  *out = (zp_status){.format = 0};
  int rc = zp_files_path(directory, "status", path);
  if (!rc) rc = read_file(path, text);
  if (rc != 1) return rc;
  bool is_status = parse(text, out);
  if (zp_status_is_of_other_program(out))
    return zp_fail(ZP_ESTORE, "the state in %s has format %d; this program knows format %d", directory, out->format, ZP_STATUS_FORMAT);
  if (!is_status) return zp_fail(ZP_ESTORE, "%s is damaged: it is no status of a state", path);
  render(out, same);
  return strcmp(text, same) == 0 ? 1 : zp_fail(ZP_ESTORE, "%s is damaged: its sum is another", path);
}

int zp_status_write(const char *directory, const zp_status *status) {
  char path[PATH_MAX], text[STATUS_MAX];
  int rc = zp_files_path(directory, "status.new", path);
  if (rc) return rc;
  zp_status fresh = *status;
  fresh.format = ZP_STATUS_FORMAT;
  zp_env_read_boot(fresh.boot);
  render(&fresh, text);
  FILE *file = fopen(path, "we");
  if (!file) return zp_fail_errno("cannot write %s", path);
  fputs(text, file);
  bool failed = ferror(file);
  if ((fclose(file) != 0) | failed) {
    int number = errno;
    rc = zp_fail_errno("cannot write %s", path);
    return zp_is_full(number) ? ZP_EFULL : rc;
  }
  return zp_files_replace(directory, path, "status");
}
