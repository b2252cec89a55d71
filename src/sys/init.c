#include "sys/init.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

static const double PATIENCE = 2; /* seconds in which others may end when the program has */

/* Signals of faults are for whoever has made them. */
static void all_but_faults(sigset_t *set) {
  sigfillset(set);
  static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(set, faults[i]);
}

/* Reap whatever has ended. Whether the program is among it, and how that has ended, as a shell says it; *alone: there is nobody left. */
static bool reap(pid_t program, int *status, bool *alone) {
  bool has_ended = false;
  for (;;) {
    int code;
    pid_t pid = waitpid(-1, &code, WNOHANG);
    *alone = pid < 0 && errno == ECHILD;
    if (pid <= 0) return has_ended;
    if (pid != program) continue;
    has_ended = true;
    *status = WIFSIGNALED(code) ? 128 + WTERMSIG(code) : WEXITSTATUS(code);
  }
}

/* ^C and its like come from the terminal to all of its processes; what a process has sent comes to this one alone. */
static bool is_to_hand_on(const siginfo_t *info) {
  return info->si_signo != SIGCHLD && info->si_signo != SIGTTIN && info->si_signo != SIGTTOU && info->si_code <= 0;
}

static _Noreturn void look_after(pid_t program, const sigset_t *signals) {
  int status = EXIT_FAILURE;
  bool alone = false;
  while (!reap(program, &status, &alone)) {
    siginfo_t info;
    if (sigwaitinfo(signals, &info) > 0 && is_to_hand_on(&info)) kill(program, info.si_signo);
  }
  double due = zp_clock_now() + PATIENCE;
  for (double left = PATIENCE; !alone && left > 0; left = due - zp_clock_now()) {
    struct timespec moment = {.tv_sec = (time_t)left, .tv_nsec = (long)((left - (double)(time_t)left) * 1e9)};
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    int other;
    sigtimedwait(&children, NULL, &moment);
    reap(program, &other, &alone);
  }
  _exit(status);
}

void zp_init_enter(void) {
  if (getpid() != 1) return;
  sigset_t signals, before;
  all_but_faults(&signals);
  sigprocmask(SIG_SETMASK, &signals, &before); /* before the fork, so that none is lost */
  pid_t program = fork();
  if (program < 0) fprintf(stderr, "zproc: as process 1 no other can be started: %s\n", strerror(errno));
  if (program > 0) look_after(program, &signals);
  sigprocmask(SIG_SETMASK, &before, NULL);
}
