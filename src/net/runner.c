#include "net/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/program.h"
#include "sys/thread.h"

enum { LOOK_MILLISECONDS = 50 /* between looks whether this thread is to stop */ };

struct zp_runner {
  char *directory;
  pthread_mutex_t turn; /* of all below */
  pid_t pid;            /* 0: there is none */
  int fd;
  int lock; /* a file that is locked as long as a server here, or its process, is alive */
};

/* ---- whole messages over a stream: their size, and the bytes ---- */

/* The other end: its process, if that is a child of this one. */
typedef struct peer {
  int fd;
  pid_t pid; /* 0: it is not */
} peer;

/* Whether the child has ended; it is still to be waited for. */
static bool has_ended(pid_t pid) {
  siginfo_t info = {.si_pid = 0};
  return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == pid;
}

static int fail_gone(void) { return zp_fail(ZP_ESYS, "the other end is gone"); }

/* The end of the socket is not all that tells of the end of a process: what a function has forked may hold it open. */
static int wait_ready(peer other, short events) {
  struct pollfd ready = {.fd = other.fd, .events = events};
  for (;;) {
    bool ended = other.pid && has_ended(other.pid); /* it says no more than what is there by now */
    if (poll(&ready, 1, ended ? 0 : LOOK_MILLISECONDS) > 0) return 0;
    if (ended) return fail_gone();
    if (zp_thread_is_to_stop()) return ZP_EINTR;
  }
}

/* A part of a message: 0, ZP_EINTR, or ZP_ESYS if the other end is gone. */
static int transfer(peer other, void *data, size_t size, bool out) {
  int fd = other.fd;
  char *at = data;
  while (size > 0) {
    ssize_t n = out ? send(fd, at, size, MSG_NOSIGNAL | MSG_DONTWAIT) : recv(fd, at, size, MSG_DONTWAIT);
    if (n > 0) {
      at += n;
      size -= (size_t)n;
    } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      int rc = wait_ready(other, out ? POLLOUT : POLLIN);
      if (rc) return rc;
    } else if (n == 0 || errno != EINTR) {
      return fail_gone();
    }
  }
  return 0;
}

static int send_parcel(peer other, const zp_parcel *parcel) {
  zp_buf bytes = ZP_BUF_INIT;
  int rc = zp_parcel_write(parcel, &bytes);
  uint64_t size = bytes.size;
  if (!rc) rc = transfer(other, &size, sizeof size, true);
  if (!rc) rc = transfer(other, bytes.data, bytes.size, true);
  zp_buf_free(&bytes);
  return rc;
}

static int receive_parcel(peer other, zp_buf *bytes, zp_parcel *parcel) {
  uint64_t size;
  zp_buf pairs = ZP_BUF_INIT;
  int rc = transfer(other, &size, sizeof size, false);
  zp_buf_clear(bytes, 1 << 16);
  if (!rc) rc = zp_buf_reserve(bytes, (size_t)size);
  if (!rc) rc = transfer(other, bytes->data, (size_t)size, false);
  bytes->size = rc ? 0 : (size_t)size;
  if (!rc) rc = zp_parcel_read(zp_buf_bytes(bytes), parcel, &pairs);
  zp_buf_free(&pairs);
  return rc;
}

/* ---- the server's end ---- */

static int open_lock(zp_runner *self) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/atomics", self->directory);
  self->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (self->lock >= 0) return 0;
  if (errno == ENOENT) return zp_fail(ZP_ENOSTORE, "the state that was in %.200s has ended", self->directory);
  return zp_fail_errno("cannot make %.200s", path);
}

int zp_runner_open(const char *directory, zp_runner **out) {
  zp_runner *self = calloc(1, sizeof *self);
  *out = self;
  if (self) self->directory = strdup(directory);
  if (!self || !self->directory) {
    free(self);
    *out = NULL;
    return zp_fail(ZP_ENOMEM, "out of memory: cannot serve");
  }
  self->fd = self->lock = -1;
  pthread_mutex_init(&self->turn, NULL);
  int rc = open_lock(self);
  if (rc) zp_runner_close(out);
  return rc;
}

bool zp_runner_is_settled(zp_runner *self) {
  return flock(self->lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

static int start(zp_runner *self) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
    return zp_fail_errno("cannot start the process that runs atomic functions");
  const char *arguments[] = {"--run-atomics", self->directory, NULL};
  const int descriptors[] = {[ZP_RUNNER_SOCKET - ZP_PROGRAM_DESCRIPTOR] = pair[1], [ZP_RUNNER_LOCK - ZP_PROGRAM_DESCRIPTOR] = self->lock};
  int rc = zp_program_start(arguments, descriptors, sizeof descriptors / sizeof *descriptors, &self->pid);
  close(pair[1]);
  if (rc) close(pair[0]);
  else self->fd = pair[0];
  return rc;
}

static void forget(zp_runner *self) {
  close(self->fd);
  self->pid = 0;
  self->fd = -1;
}

/* Kill the process, if there is one. */
static void end(zp_runner *self) {
  if (!self->pid) return;
  kill(self->pid, SIGKILL);
  while (waitpid(self->pid, NULL, 0) < 0 && errno == EINTR) {}
  forget(self);
}

void zp_runner_close(zp_runner **handle) {
  zp_runner *self = *handle;
  if (!self) return;
  *handle = NULL;
  end(self);
  if (self->lock >= 0) close(self->lock);
  pthread_mutex_destroy(&self->turn);
  free(self->directory);
  free(self);
}

static int await_turn(zp_runner *self) {
  for (;;) {
    if (zp_clock_lock(&self->turn, LOOK_MILLISECONDS / 1e3) == 0) return 0;
    if (zp_thread_is_to_stop()) return ZP_EINTR;
  }
}

/* How the process ended, or is ended now, as words. The end of the socket comes before that of the process, so it shows a moment later. */
static void bury(zp_runner *self, char *words, size_t size) {
  int status = 0;
  pid_t ended = 0;
  for (int i = 0; i < LOOK_MILLISECONDS && ended == 0; i++) {
    ended = waitpid(self->pid, &status, WNOHANG);
    if (ended == 0) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  if (ended > 0) forget(self);
  else end(self);
  if (ended > 0 && WIFSIGNALED(status)) snprintf(words, size, "was killed by signal %d", WTERMSIG(status));
  else if (ended > 0) snprintf(words, size, "has ended with status %d", WEXITSTATUS(status));
  else snprintf(words, size, "has closed its connection");
}

/* Whether the author has changed the state after a revision: 1, 0, or an error if that is not to be known. */
static int has_changed(zp_store *store, uint64_t author, uint64_t revision) {
  zp_log_record record;
  int rc = zp_store_lock(store); /* whatever the dead one has left half done is settled with that */
  if (rc) return rc;
  zp_store_unlock(store);
  rc = zp_store_read_begin(store);
  if (rc) return rc;
  uint64_t newest = zp_store_read_revision(store);
  bool found = false;
  while (rc == 0 && !found && revision < newest) {
    int there = zp_store_log(store, ++revision, &record);
    if (there < 0) rc = there;
    else found = there == 1 && record.author == author;
  }
  zp_store_read_end(store);
  return rc ? rc : found;
}

/* There is no result of the function. Its process has died, or is to, since what else it has to say is of no use. */
static int fail_died(zp_runner *self, zp_store *store, uint64_t author, uint64_t revision) {
  char words[64];
  bury(self, words, sizeof words);
  int changed = has_changed(store, author, revision);
  if (changed == ZP_EINTR) return changed;
  if (changed == 0) return zp_fail(ZP_ESYS, "the process that ran the atomic function %s; nothing has changed", words);
  return zp_fail(ZP_ESTALE, "the process that ran the atomic function %s; it %s the state, but its result is lost", words,
                 changed == 1 ? "has changed" : "may have changed");
}

static int newest_of(zp_store *store, uint64_t *revision) {
  int rc = zp_store_read_begin(store);
  if (rc) return rc;
  *revision = zp_store_read_revision(store);
  zp_store_read_end(store);
  return 0;
}

int zp_runner_run(zp_runner *self, zp_store *store, const zp_parcel *request, zp_answer *answer) {
  zp_buf bytes = ZP_BUF_INIT;
  zp_parcel reply;
  uint64_t before = 0;
  int rc = await_turn(self);
  if (rc) return rc;
  struct pollfd gone = {.fd = self->fd, .events = POLLRDHUP};
  if (self->pid && (poll(&gone, 1, 0) > 0 || has_ended(self->pid))) end(self); /* killed while it had nothing to do */
  if (!self->pid) rc = start(self);
  if (!rc) rc = newest_of(store, &before);
  if (!rc && zp_thread_is_to_stop()) rc = ZP_EINTR; /* given up while it waited */
  bool is_asked = rc == 0;
  peer other = {self->fd, self->pid};
  if (!rc) rc = send_parcel(other, request);
  if (!rc) rc = receive_parcel(other, &bytes, &reply);
  if (!rc) rc = zp_answer_done(answer, &reply);
  if (rc == ZP_EINTR && is_asked) end(self);
  else if (rc && is_asked) rc = fail_died(self, store, request->numbers[0], before);
  pthread_mutex_unlock(&self->turn);
  zp_buf_free(&bytes);
  return rc;
}

/* ---- the runner's end ---- */

int zp_runner_receive(int fd, zp_buf *bytes, zp_parcel *request) {
  int rc = receive_parcel((peer){.fd = fd}, bytes, request);
  return rc == ZP_ESYS ? 0 : rc ? rc : 1;
}

int zp_runner_reply(int fd, const zp_parcel *reply) { return send_parcel((peer){.fd = fd}, reply); }

static void *await_end(void *context) {
  struct pollfd server = {.fd = (int)(intptr_t)context, .events = POLLRDHUP};
  while (poll(&server, 1, -1) < 0 && errno == EINTR) {}
  _exit(EXIT_FAILURE); /* in the middle of whatever it is: as if it had been killed */
}

int zp_runner_follow(int fd) {
  pthread_t thread;
  /* They are no matter of the programs that functions start. */
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  fcntl(ZP_RUNNER_LOCK, F_SETFD, FD_CLOEXEC);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int number = pthread_create(&thread, NULL, await_end, (void *)(intptr_t)fd);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (number) {
    errno = number;
    return zp_fail_errno("cannot start a thread");
  }
  pthread_detach(thread);
  return 0;
}
