/*
 * forbid -- runs a program as a kernel or a container does that lacks some system calls, or does not permit them:
 *
 *   forbid ENOSYS|EPERM CALL[,CALL]... COMMAND [ARGUMENT]...
 *
 * The calls fail with that error, in the command and all that it starts; a filter of seccomp does that. A call is a name of the table below, or
 * a number. Status 77: there is no seccomp here.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CALLS_MAX = 32, NOT_HERE = 77 };

#define CALL(name) {#name, SYS_##name}
static const struct { const char *name; long number; } calls[] = {
    CALL(accept4), CALL(clone3), CALL(close_range), CALL(copy_file_range), CALL(epoll_create1), CALL(eventfd2), CALL(faccessat2), CALL(fallocate),
    CALL(fchmod), CALL(flock), CALL(fstatfs), CALL(ftruncate), CALL(futex_waitv), CALL(getrandom), CALL(getpeername), CALL(madvise), CALL(memfd_create),
    CALL(mremap), CALL(pidfd_open), CALL(pipe2), CALL(prctl), CALL(prlimit64), CALL(readlink), CALL(renameat), CALL(rseq), CALL(sched_getaffinity),
    CALL(sched_setscheduler), CALL(set_robust_list), CALL(setsid), CALL(shutdown), CALL(socketpair), CALL(statx), CALL(sysinfo), CALL(timer_create),
    CALL(waitid),
};

static long find(const char *name) {
  for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
    if (strcmp(calls[i].name, name) == 0) return calls[i].number;
  char *end;
  long number = strtol(name, &end, 10);
  if (*name && !*end) return number;
  fprintf(stderr, "forbid: there is no call %s in my table\n", name);
  exit(2);
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: forbid ENOSYS|EPERM CALL[,CALL]... COMMAND [ARGUMENT]...\n");
    return 2;
  }
  const unsigned error = strcmp(argv[1], "EPERM") == 0 ? EPERM : ENOSYS;
  struct sock_filter program[2 * CALLS_MAX + 2];
  unsigned short count = 0;
  program[count++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (char *name = strtok(argv[2], ","); name && count < 2 * CALLS_MAX; name = strtok(NULL, ",")) {
    program[count++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)find(name), 0, 1);
    program[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
  }
  program[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  const struct sock_fprog filter = {.len = count, .filter = program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0) {
    perror("forbid: seccomp");
    return NOT_HERE;
  }
  execvp(argv[3], argv + 3);
  fprintf(stderr, "forbid: cannot execute %s: %s\n", argv[3], strerror(errno));
  return 126;
}
