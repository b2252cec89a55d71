#include "sys/child.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"

struct zp_child {
  pid_t parent;
  pid_t pid; /* 0 in the child */
  int message_fd;
  int pidfd; /* -1 until a wait needs a deadline */
  bool ended;
  int exitcode;
};

/* The message file: 8 bytes of size, then the message. The size is written last, so a message that was cut short by death
   does not count. */
enum { HEADER = 8 };

int zp_child_fork(bool die_with_parent, zp_child **out, pid_t *out_pid) {
  zp_child *child = malloc(sizeof *child);
  if (!child) return zp_fail(ZP_ENOMEM, "out of memory: cannot start a process");
  *child = (zp_child){.parent = getpid(), .pidfd = -1};
  child->message_fd = memfd_create("zproc-message", MFD_CLOEXEC);
  if (child->message_fd < 0) {
    free(child);
    return zp_fail_errno("cannot start a process: memfd_create");
  }
  fflush(NULL);
  pid_t pid = fork();
  if (pid < 0) {
    int rc = zp_fail_errno("cannot start a process: fork");
    zp_child_close(&child);
    return rc;
  }
  if (pid == 0 && die_with_parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* The parent may have died before the request stood. */
    if (getppid() != child->parent) _exit(128 + SIGKILL);
  }
  child->pid = pid;
  *out = child;
  *out_pid = pid;
  return 0;
}

static int write_at(int fd, const void *data, size_t size, off_t offset) {
  const char *from = data;
  while (size > 0) {
    ssize_t n = pwrite(fd, from, size, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return zp_fail_errno("cannot leave a result of %zu bytes", size);
    from += n;
    offset += n;
    size -= (size_t)n;
  }
  return 0;
}

static int read_at(int fd, void *data, size_t size, off_t offset) {
  char *to = data;
  while (size > 0) {
    ssize_t n = pread(fd, to, size, offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return zp_fail_errno("cannot read a result");
    if (n == 0) return zp_fail(ZP_ESYS, "cannot read a result: it is shorter than it says");
    to += n;
    offset += n;
    size -= (size_t)n;
  }
  return 0;
}

int zp_child_leave(zp_child *child, zp_bytes message) {
  uint64_t size = 0;
  int rc = write_at(child->message_fd, &size, HEADER, 0); /* an earlier message is void from here on */
  if (!rc) rc = write_at(child->message_fd, message.data, message.size, HEADER);
  size = message.size;
  if (!rc) rc = write_at(child->message_fd, &size, HEADER, 0);
  return rc;
}

void zp_child_exit(int status) {
  fflush(NULL);
  _exit(status);
}

static int reap(zp_child *child, int flags) {
  int status;
  pid_t pid = waitpid(child->pid, &status, flags);
  if (pid == 0) return ZP_ETIMEOUT;
  if (pid < 0 && errno == EINTR) return ZP_EINTR;
  if (pid < 0) return zp_fail_errno("cannot wait for process %d", (int)child->pid);
  child->ended = true;
  child->exitcode = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  return 0;
}

/* A pid of -1 must never reach kill() or waitpid(), and another process's children are not ours to reap. */
static int check_owner(const zp_child *child) {
  if (child->pid > 0 && child->parent == getpid()) return 0;
  return zp_fail(ZP_ESYS, "process %d was started by process %d; only that one can wait for it or stop it",
                 (int)child->pid, (int)child->parent);
}

int zp_child_wait(zp_child *child, double deadline) {
  if (child->ended) return 0;
  int rc = check_owner(child);
  if (rc) return rc;
  if (deadline == ZP_FOREVER) return reap(child, 0);

  rc = reap(child, WNOHANG);
  double left = deadline - zp_clock_now();
  if (rc != ZP_ETIMEOUT || left <= 0) return rc;
  if (child->pidfd < 0) {
    /* Not reaped yet, so the pid cannot have been given to somebody else. */
    child->pidfd = (int)syscall(SYS_pidfd_open, child->pid, 0);
    if (child->pidfd < 0) return zp_fail_errno("cannot wait for process %d: pidfd_open", (int)child->pid);
  }
  for (;;) {
    struct pollfd ready = {.fd = child->pidfd, .events = POLLIN};
    struct timespec timeout = {.tv_sec = left < 1e9 ? (time_t)left : 1000000000};
    timeout.tv_nsec = left < 1e9 ? (long)((left - (double)timeout.tv_sec) * 1e9) : 0;
    int n = ppoll(&ready, 1, &timeout, NULL);
    if (n < 0) return errno == EINTR ? ZP_EINTR : zp_fail_errno("cannot wait for process %d", (int)child->pid);
    if (n > 0) return reap(child, 0);
    left = deadline - zp_clock_now();
    if (left <= 0) return reap(child, WNOHANG);
  }
}

bool zp_child_ended(const zp_child *child, int *exitcode) {
  if (child->ended && exitcode) *exitcode = child->exitcode;
  return child->ended;
}

int zp_child_message(const zp_child *child, zp_buf *out) {
  uint64_t size = 0;
  ssize_t n = pread(child->message_fd, &size, HEADER, 0);
  if (n < 0) return zp_fail_errno("cannot read a result");
  if (n != HEADER || size == 0) return 0;
  int rc = zp_buf_reserve(out, size);
  if (!rc) rc = read_at(child->message_fd, out->data + out->size, size, HEADER);
  if (rc) return rc;
  out->size += size;
  return 1;
}

int zp_child_signal(zp_child *child, int signal) {
  if (child->ended) return 0;
  int rc = check_owner(child);
  if (rc) return rc;
  if (kill(child->pid, signal) < 0) return zp_fail_errno("cannot send signal %d to process %d", signal, (int)child->pid);
  return 0;
}

pid_t zp_child_pid(const zp_child *child) { return child->pid; }

void zp_child_close(zp_child **child) {
  if (!*child) return;
  if ((*child)->message_fd >= 0) close((*child)->message_fd);
  if ((*child)->pidfd >= 0) close((*child)->pidfd);
  free(*child);
  *child = NULL;
}
