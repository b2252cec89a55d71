/*
 * fork_peer -- what fork, _exit and waitpid cost in C for a process of a given size.
 *
 *   fork_peer ANON_KB FILE_KB
 *
 * Grows itself by that much touched anonymous memory, and by that much of a private mapping of a file, which is read (its own
 * executable and libraries count towards both). Prints "fork MICROSECONDS", the median.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Of /proc/self/status, in kB. */
static long resident(const char *field) {
  char line[200];
  long kb = 0;
  FILE *status = fopen("/proc/self/status", "r");
  while (status && fgets(line, sizeof line, status))
    if (strncmp(line, field, strlen(field)) == 0) kb = atol(line + strlen(field) + 1);
  if (status) fclose(status);
  return kb;
}

int main(int argc, char **argv) {
  enum { SAMPLES = 400 };
  static double took[SAMPLES];
  if (argc < 3) return 2;
  long anon = atol(argv[1]) - resident("RssAnon"), file = atol(argv[2]) - resident("RssFile");
  if (anon > 0) memset(malloc((size_t)anon * 1024), 1, (size_t)anon * 1024);
  if (file > 0) {
    char path[] = "/tmp/fork-peer-XXXXXX";
    int fd = mkstemp(path);
    unlink(path);
    if (ftruncate(fd, file * 1024) < 0) return 1;
    volatile char *map = mmap(NULL, (size_t)file * 1024, PROT_READ, MAP_PRIVATE, fd, 0);
    for (long i = 0; i < file; i++) (void)map[i * 1024];
  }
  for (int i = 0; i < SAMPLES; i++) {
    double begin = now();
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    waitpid(pid, NULL, 0);
    took[i] = now() - begin;
  }
  qsort(took, SAMPLES, sizeof *took, compare);
  printf("fork %.3f\n", took[SAMPLES / 2]);
  return 0;
}
