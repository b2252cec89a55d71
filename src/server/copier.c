#include "server/copier.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "store/keep.h"
#include "sys/program.h"
#include "sys/trust.h"

enum { WAIT_MILLISECONDS = 100 }; /* before looks whether a signal has come that poll does not tell of */

struct zp_copier {
  pid_t pid;
  int fd; /* of the pipe: read, not blocking */
};

/* ---- in the process that wants the copy ---- */

/* What a process that makes a backup says at its end; the words of a failure follow. */
typedef struct outcome {
  int64_t code;
  uint64_t revision;
} outcome;

static int start(const char *const *arguments, zp_copier **out) {
  int ends[2];
  *out = NULL;
  zp_copier *self = calloc(1, sizeof *self);
  if (!self) return zp_fail(ZP_ENOMEM, "out of memory: cannot copy a state");
  int rc = pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0 ? zp_fail_errno("cannot make a pipe") : 0;
  if (!rc) {
    rc = zp_program_start(arguments, &ends[1], 1, &self->pid);
    close(ends[1]);
    if (rc) close(ends[0]);
  }
  if (rc) {
    free(self);
    return rc;
  }
  self->fd = ends[0];
  *out = self;
  return 0;
}

int zp_copier_start(const char *runtime, zp_copier **copier) {
  const char *arguments[] = {"--snapshot", runtime, NULL};
  return start(arguments, copier);
}

int zp_copier_start_backup(const char *runtime, const char *directory, zp_copier **copier) {
  const char *arguments[] = {"--backup", runtime, directory, NULL};
  return start(arguments, copier);
}

int zp_copier_descriptor(const zp_copier *self) { return self->fd; }

int zp_copier_wait(const zp_copier *self) {
  struct pollfd said = {.fd = self->fd, .events = POLLIN};
  if (poll(&said, 1, WAIT_MILLISECONDS) > 0) return 0;
  return ZP_EINTR;
}

/* What it has said: how many bytes. Nothing: it is ended. */
static size_t end(zp_copier **handle, void *said, size_t size) {
  zp_copier *self = *handle;
  if (!self) return 0;
  *handle = NULL;
  ssize_t n = read(self->fd, said, size);
  if (n <= 0) kill(self->pid, SIGKILL); /* it may have ended already, but nobody has waited for it */
  while (waitpid(self->pid, NULL, 0) < 0 && errno == EINTR) {}
  close(self->fd);
  free(self);
  return n > 0 ? (size_t)n : 0;
}

bool zp_copier_end(zp_copier **handle) {
  char word;
  return end(handle, &word, 1) == 1;
}

int zp_copier_end_backup(zp_copier **handle, uint64_t *revision) {
  char said[sizeof(outcome) + ZP_DETAIL_MAX];
  outcome result;
  size_t size = end(handle, said, sizeof said - 1);
  *revision = 0;
  if (size < sizeof result) return zp_fail(ZP_ESYS, "the process that makes the backup was ended");
  said[size] = '\0';
  memcpy(&result, said, sizeof result);
  *revision = result.revision;
  return result.code == 0 ? 0 : zp_fail((int)result.code, "%s", said + sizeof result);
}

/* ---- the process ---- */

/* The wish is forgotten if the server was gone before; then the pipe has no other end. */
static void end_with_server(void) {
  struct pollfd server = {.fd = ZP_PROGRAM_DESCRIPTOR};
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (poll(&server, 1, 0) > 0) _exit(EXIT_FAILURE);
}

static int make_backup(const char *runtime, const char *directory) {
  outcome result;
  result.code = zp_keep_backup(runtime, directory, &result.revision);
  const char *words = result.code ? zp_error_detail() : "";
  struct iovec parts[] = {{&result, sizeof result}, {(void *)words, strlen(words)}};
  return writev(ZP_PROGRAM_DESCRIPTOR, parts, 2) > 0 && result.code == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int zp_copier_main(const char *runtime, const char *directory) {
  end_with_server();
  zp_trust_find(runtime); /* the data may be another user's, whom the owner trusts */
  if (directory) return make_backup(runtime, directory);
  int rc = zp_keep_snapshot(runtime);
  if (rc && rc != ZP_ENOSTORE) fprintf(stderr, "zproc: cannot take a snapshot of the state: %s\n", zp_error_detail());
  if (!rc && write(ZP_PROGRAM_DESCRIPTOR, "+", 1) != 1) rc = ZP_ESYS;
  return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
