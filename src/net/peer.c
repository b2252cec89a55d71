#include "net/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/program.h"
#include "sys/thread.h"

static const double STILL_SECONDS = 10; /* without a moment of processor time: it was stopped */

/* ---- waiting ---- */

static bool is_dead(pid_t pid) {
  siginfo_t info = {.si_pid = 0};
  return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == pid;
}

static int fail_gone(void) { return zp_fail(ZP_ESYS, "the other end is gone"); }

/* Seconds of processor time that a process has used; -1 if that is not to be known. */
static double used_by(pid_t pid) {
  clockid_t clock;
  return clock_getcpuclockid(pid, &clock) == 0 ? zp_clock_read(clock) : -1;
}

void zp_peer_grant(zp_peer *peer, double seconds) {
  double used = used_by(peer->pid);
  peer->seconds = used >= 0 ? used + seconds : 0;
}

/* How a process gets on whose time is limited. */
typedef struct progress {
  double used, since; /* it had used so much at an instant, and no more since */
} progress;

static int mind(const zp_peer *peer, progress *before) {
  if (peer->deadline > 0 && zp_clock_now() >= peer->deadline) return zp_fail(ZP_ETIMEOUT, "its time is up");
  if (!peer->pid || peer->seconds <= 0) return 0;
  double used = used_by(peer->pid), now = zp_clock_now();
  if (used > peer->seconds) return zp_fail(ZP_EBUDGET, "it has used up its time");
  if (used != before->used) *before = (progress){used, now};
  return now - before->since < STILL_SECONDS ? 0 : zp_fail(ZP_EBUSY, "it stands still");
}

/* The end of the socket is not all that tells of the end of a process: what a function has forked may hold it open. */
static int wait_ready(const zp_peer *peer, short events) {
  struct pollfd ready = {.fd = peer->fd, .events = events};
  progress before = {.used = -1};
  for (;;) {
    bool ended = peer->pid && is_dead(peer->pid); /* it says no more than what is there by now */
    if (poll(&ready, 1, ended ? 0 : ZP_PEER_LOOK_MILLISECONDS) > 0) return 0;
    if (ended) return fail_gone();
    if (zp_thread_is_to_stop()) return ZP_EINTR;
    int rc = mind(peer, &before);
    if (rc) return rc;
  }
}

bool zp_peer_has_ended(const zp_peer *peer) {
  struct pollfd gone = {.fd = peer->fd, .events = POLLRDHUP};
  return poll(&gone, 1, 0) > 0 || is_dead(peer->pid);
}

/* ---- whole messages over a stream: their size, and the bytes ---- */

/* A part of a message. */
static int transfer(const zp_peer *peer, void *data, size_t size, bool out) {
  char *at = data;
  while (size > 0) {
    ssize_t n = out ? send(peer->fd, at, size, MSG_NOSIGNAL | MSG_DONTWAIT) : recv(peer->fd, at, size, MSG_DONTWAIT);
    if (n > 0) {
      at += n;
      size -= (size_t)n;
    } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      int rc = wait_ready(peer, out ? POLLOUT : POLLIN);
      if (rc) return rc;
    } else if (n == 0 || errno != EINTR) {
      return fail_gone();
    }
  }
  return 0;
}

int zp_peer_send(const zp_peer *peer, const zp_parcel *parcel) {
  zp_buf bytes = ZP_BUF_INIT;
  int rc = zp_parcel_write(parcel, &bytes);
  uint64_t size = bytes.size;
  if (!rc) rc = transfer(peer, &size, sizeof size, true);
  if (!rc) rc = transfer(peer, bytes.data, bytes.size, true);
  zp_buf_free(&bytes);
  return rc;
}

int zp_peer_receive(const zp_peer *peer, zp_buf *bytes, zp_buf *pairs, zp_parcel *parcel) {
  uint64_t size;
  int rc = transfer(peer, &size, sizeof size, false);
  zp_buf_clear(bytes, 1 << 16);
  if (!rc) rc = zp_buf_reserve(bytes, (size_t)size);
  if (!rc) rc = transfer(peer, bytes->data, (size_t)size, false);
  bytes->size = rc ? 0 : (size_t)size;
  return rc ? rc : zp_parcel_read(zp_buf_bytes(bytes), parcel, pairs);
}

/* ---- the process ---- */

int zp_peer_start(const char *const *arguments, int extra, zp_peer *peer) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return zp_fail_errno("cannot start a process of the server: socketpair");
  const int descriptors[] = {pair[1], extra};
  *peer = (zp_peer){.fd = pair[0]};
  int rc = zp_program_start(arguments, descriptors, extra >= 0 ? 2 : 1, &peer->pid);
  close(pair[1]);
  if (!rc) return 0;
  close(pair[0]);
  *peer = (zp_peer){.fd = -1};
  return rc;
}

static void forget(zp_peer *peer) {
  close(peer->fd);
  *peer = (zp_peer){.fd = -1};
}

void zp_peer_end(zp_peer *peer) {
  if (!peer->pid) return;
  kill(peer->pid, SIGKILL);
  while (waitpid(peer->pid, NULL, 0) < 0 && errno == EINTR) {}
  forget(peer);
}

void zp_peer_bury(zp_peer *peer, char *words, size_t size) {
  int status = 0;
  pid_t ended = 0;
  for (int i = 0; i < ZP_PEER_LOOK_MILLISECONDS && ended == 0; i++) {
    ended = waitpid(peer->pid, &status, WNOHANG);
    if (ended == 0) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
  if (ended > 0) forget(peer);
  else zp_peer_end(peer);
  if (ended > 0 && WIFSIGNALED(status)) snprintf(words, size, "was killed by signal %d", WTERMSIG(status));
  else if (ended > 0) snprintf(words, size, "has ended with status %d", WEXITSTATUS(status));
  else snprintf(words, size, "has closed its connection");
}

/* ---- in the process ---- */

static void *await_end(void *context) {
  struct pollfd server = {.fd = (int)(intptr_t)context, .events = POLLRDHUP};
  while (poll(&server, 1, -1) < 0 && errno == EINTR) {}
  _exit(EXIT_FAILURE); /* in the middle of whatever it is: as if it had been killed */
}

int zp_peer_follow(int fd) {
  pthread_t thread;
  fcntl(fd, F_SETFD, FD_CLOEXEC); /* it is no matter of the programs that functions start */
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
