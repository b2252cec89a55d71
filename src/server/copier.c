#include "server/copier.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "store/keep.h"
#include "sys/program.h"

struct zp_copier {
  pid_t pid;
  int fd; /* of the pipe: read, not blocking */
};

/* ---- in the server ---- */

int zp_copier_start(const char *runtime, zp_copier **out) {
  int ends[2];
  *out = NULL;
  zp_copier *self = calloc(1, sizeof *self);
  if (!self) return zp_fail(ZP_ENOMEM, "out of memory: cannot take a snapshot");
  int rc = pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0 ? zp_fail_errno("cannot make a pipe") : 0;
  if (!rc) {
    const char *arguments[] = {"--snapshot", runtime, NULL};
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

int zp_copier_descriptor(const zp_copier *self) { return self->fd; }

bool zp_copier_end(zp_copier **handle) {
  zp_copier *self = *handle;
  char word;
  if (!self) return false;
  *handle = NULL;
  bool is_taken = read(self->fd, &word, 1) == 1;
  if (!is_taken) kill(self->pid, SIGKILL); /* it may have ended already, but nobody has waited for it */
  while (waitpid(self->pid, NULL, 0) < 0 && errno == EINTR) {}
  close(self->fd);
  free(self);
  return is_taken;
}

/* ---- the process ---- */

/* The wish is forgotten if the server was gone before; then the pipe has no other end. */
static void end_with_server(void) {
  struct pollfd server = {.fd = ZP_PROGRAM_DESCRIPTOR};
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (poll(&server, 1, 0) > 0) _exit(EXIT_FAILURE);
}

int zp_copier_main(const char *runtime) {
  end_with_server();
  int rc = zp_keep_snapshot(runtime);
  if (rc && rc != ZP_ENOSTORE) fprintf(stderr, "zproc: cannot take a snapshot of the state: %s\n", zp_error_detail());
  if (!rc && write(ZP_PROGRAM_DESCRIPTOR, "+", 1) != 1) rc = ZP_ESYS;
  return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
