/*
 * kill_tree -- one process of a tree of eight is killed with -9 at a random instant, round after round, and nothing is ever left.
 *
 * The tree is kill_tree.lua: a script, its server, children and grandchildren that write, watch, sleep, retry. Killed is any
 * of them, the script and the server included: while the tree is being built, when it is up, or while it ends. If the script is not the
 * victim, it has to notice, to go on with those that are left, and ends in one of all ways there are: by returning, an error,
 * os.exit, SIGTERM, SIGINT, SIGKILL, a crash. Then, and that is what this test is about, no process of the tree may be left, neither
 * alive nor as a zombie, and no file.
 *
 * This program is the subreaper of the tree: whatever loses its parent becomes a child of it. So when it has no child, there is nobody.
 *
 *   kill_tree [ROUNDS [SEED]]     (or ZP_ROUNDS; by default few rounds)
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

enum { LIMIT = 60 /* seconds; generous, not an expectation */, TREE_MAX = 64, LINE_MAX_SIZE = 256 };

static int rounds = 25;
static uint32_t seed;
static char root[64], store_root[96], place[96], address[128], log_path[96];

static uint32_t chance(uint32_t below) {
  uint32_t x = seed += 0x9e3779b9u; /* a Weyl sequence, stirred */
  x = (x ^ x >> 16) * 0x21f0aaadu;
  x = (x ^ x >> 15) * 0x735a2d97u;
  x ^= x >> 15;
  return (uint32_t)(((uint64_t)x * below) >> 32);
}

static void rest(double seconds) {
  if (seconds > 0) usleep((useconds_t)(seconds * 1e6));
}

/* ---- the ends that a script may have ---- */

typedef struct ending {
  const char *name, *argument;
  int signal; /* that we send; 0: it ends by itself */
  int status; /* exit status, or -N for signal N */
  bool needs_server; /* to clean up */
} ending;

static const ending endings[] = {
    {"return", "return", 0, 0, false},
    {"error", "error", 0, 1, false},
    {"os.exit", "exit", 0, 7, false},
    {"SIGTERM", "signal", SIGTERM, -SIGTERM, true},
    {"SIGINT", "signal", SIGINT, -SIGINT, false}, /* an error in the script, which then ends in order */
    {"SIGKILL", "signal", SIGKILL, -SIGKILL, true},
    {"SIGSEGV", "signal", SIGSEGV, -SIGSEGV, true},
};
enum { ENDINGS = sizeof endings / sizeof *endings };

/* What main does when a signal comes. */
static const char *const waits[] = {"sleep", "watch", "compute", "wait"};
static const char *const phases[] = {"while it starts", "when it is up", "while it ends"};
enum { STARTING, UP, ENDING, PHASES };

/* ---- a round's tree ---- */

typedef struct tree {
  int round;
  const ending *end;
  const char *wait;
  int phase;
  bool is_static;
  pid_t main;    /* 0 once it is reaped */
  int status;    /* then: exit status, or -N */
  double ended;  /* then: when that was */
  pid_t victim;
  bool is_main;  /* the victim */
  int to, from;  /* pipes */
  char line[LINE_MAX_SIZE];
  size_t line_size;
} tree;

typedef struct process {
  pid_t pid, parent;
  char state;
} process;

static size_t all_processes(process *list, size_t max) {
  size_t count = 0;
  DIR *proc = opendir("/proc");
  assert_non_null(proc);
  for (struct dirent *entry; (entry = readdir(proc)) && count < max;) {
    char path[300], text[512];
    snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
    int fd = entry->d_name[0] >= '1' && entry->d_name[0] <= '9' ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) continue;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) continue;
    text[n] = 0;
    const char *behind_name = strrchr(text, ')');
    process *one = &list[count];
    one->pid = atoi(entry->d_name);
    if (behind_name && sscanf(behind_name + 1, " %c %d", &one->state, &one->parent) == 2) count++;
  }
  closedir(proc);
  return count;
}

/* The descendants of a process, itself first if it is there. */
static size_t descendants(pid_t of, process *out) {
  enum { MACHINE_MAX = 16384 };
  static process all[MACHINE_MAX];
  size_t machine = all_processes(all, MACHINE_MAX), count = 0;
  for (size_t i = 0; i < machine; i++)
    if (all[i].pid == of) out[count++] = all[i];
  for (size_t next = 0; next < count; next++)
    for (size_t i = 0; i < machine && count < TREE_MAX; i++)
      if (all[i].parent == out[next].pid) out[count++] = all[i];
  return count;
}

/* Reap what has ended. False: there is no child any more. */
static bool reap(tree *self) {
  int status;
  pid_t pid;
  while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
    if (pid != self->main) continue;
    self->main = 0;
    self->ended = zp_clock_now();
    self->status = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  }
  return pid == 0;
}

static void show_file(const char *path) {
  FILE *file = fopen(path, "r");
  char line[512];
  while (file && fgets(line, sizeof line, file)) fprintf(stderr, "  | %s", line);
  if (file) fclose(file);
}

/* What there is of the tree in the file system: its stores, and the name of a static address. */
static size_t list_files(bool show) {
  struct stat status;
  size_t count = lstat(place, &status) == 0;
  if (count && show) fprintf(stderr, "  left: %s\n", place);
  DIR *stream = opendir(store_root);
  assert_non_null(stream);
  for (struct dirent *entry; (entry = readdir(stream));) {
    if (entry->d_name[0] == '.') continue;
    count++;
    if (show) fprintf(stderr, "  left: %s/%s\n", store_root, entry->d_name);
  }
  closedir(stream);
  return count;
}

static void remove_root(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", root);
  assert_int_equal(system(command), 0);
}

static _Noreturn void give_up(tree *self, const char *what) {
  fprintf(stderr, "round %d: %s\n  the victim was pid %d%s, killed %s; to end by %s, waiting in %s%s\n  main: %s, status %d\n",
          self->round, what, self->victim, self->is_main ? " (main)" : "", phases[self->phase], self->end->name, self->wait,
          self->is_static ? "; with a static address" : "", self->main ? "alive" : "ended", self->status);
  process list[TREE_MAX];
  size_t count = descendants(getpid(), list);
  for (size_t i = 1; i < count; i++) {
    char path[64];
    fprintf(stderr, "  there: pid %d, parent %d, state %c\n", list[i].pid, list[i].parent, list[i].state);
    snprintf(path, sizeof path, "/proc/%d/wchan", list[i].pid);
    show_file(path);
    fputs("\n", stderr);
  }
  list_files(true);
  fputs("  what the tree has said:\n", stderr);
  show_file(log_path);
  for (size_t i = count; i-- > 1;) kill(list[i].pid, SIGKILL);
  remove_root();
  fail();
  abort();
}

static void plant(tree *self) {
  int to[2], from[2];
  assert_int_equal(pipe2(to, O_CLOEXEC), 0);
  assert_int_equal(pipe2(from, O_CLOEXEC), 0);
  const char *zproc = getenv("ZPROC"), *source = getenv("SRCDIR");
  char script[1024];
  snprintf(script, sizeof script, "%s/tests/fault/kill_tree.lua", source);
  pid_t parent = getpid();
  fflush(NULL);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* if this test is killed, that is one more round */
    int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    if (getppid() != parent || dup2(to[0], 0) < 0 || dup2(from[1], 1) < 0 || dup2(log, 2) < 0) _exit(99);
    execl(zproc, zproc, "run", script, self->end->argument, self->wait, self->is_static ? address : NULL, (char *)NULL);
    _exit(98);
  }
  close(to[0]);
  close(from[1]);
  self->main = pid;
  self->to = to[1];
  self->from = from[0];
}

/* Read the next line that main says. */
static void listen_to(tree *self) {
  double deadline = zp_clock_now() + LIMIT;
  self->line_size = 0;
  for (;;) {
    struct pollfd readable = {.fd = self->from, .events = POLLIN};
    char byte;
    if (poll(&readable, 1, 100) > 0 && read(self->from, &byte, 1) == 1) {
      self->line[self->line_size++] = byte;
      if (byte == '\n' || self->line_size == sizeof self->line - 1) break;
      continue;
    }
    reap(self);
    if (!self->main) give_up(self, "main has ended before its time");
    if (zp_clock_now() > deadline) give_up(self, "main says nothing");
  }
  self->line[self->line_size] = 0;
}

static void tell(tree *self) {
  char text[32];
  int size = snprintf(text, sizeof text, "%d\n", self->victim);
  if (write(self->to, text, (size_t)size) != size) give_up(self, "main does not listen");
}

/* Kill one of the tree as it is now; main somewhat more often than the others, since most hangs on it. */
static void strike(tree *self, pid_t spare) {
  process list[TREE_MAX];
  reap(self);
  size_t count = self->main ? descendants(self->main, list) : 0;
  if (count == 0) return; /* all over */
  size_t candidates = 0;
  for (size_t i = 0; i < count; i++)
    if (list[i].pid != spare && list[i].state != 'Z') list[candidates++] = list[i];
  if (candidates == 0) return;
  self->victim = list[chance(4) == 0 ? 0 : chance((uint32_t)candidates)].pid;
  self->is_main = self->victim == self->main;
  kill(self->victim, SIGKILL);
}

/* Nobody in the tree stays a zombie while main lives. */
static void expect_no_zombie(tree *self) {
  double deadline = zp_clock_now() + LIMIT;
  for (;;) {
    process list[TREE_MAX];
    reap(self);
    size_t count = descendants(self->main, list), zombies = 0;
    for (size_t i = 0; i < count; i++) zombies += list[i].state == 'Z';
    if (zombies == 0) return;
    if (zp_clock_now() > deadline) give_up(self, "there is a zombie");
    rest(0.001);
  }
}

/* Wait until nothing is left; seconds since main's end. */
static double expect_nothing(tree *self) {
  double deadline = zp_clock_now() + LIMIT;
  while (reap(self) || list_files(false) > 0) {
    if (zp_clock_now() > deadline) give_up(self, self->main ? "main does not end" : "something is left");
    rest(0.0005);
  }
  return zp_clock_now() - self->ended;
}

/* ---- rounds ---- */

static double start_time = 0.05; /* seconds that a tree has lately taken until it is up */
static int killed_mains[PHASES], killed_others[PHASES]; /* how many rounds were of which kind */

/* Seconds; negative if all was over before anybody could be killed, which does not count. */
static double run_round(int number, int phase) {
  tree self = {.round = number, .phase = phase};
  self.end = &endings[chance(ENDINGS)];
  self.wait = waits[chance(sizeof waits / sizeof *waits)];
  self.is_static = chance(3) == 0;
  double begun = zp_clock_now();
  plant(&self);
  if (self.phase == STARTING) {
    rest(start_time * chance(1000) / 1000);
    strike(&self, 0);
  }
  if (!self.is_main) {
    if (self.victim) tell(&self);
    listen_to(&self);
    if (!self.victim) start_time = zp_clock_now() - begun;
    pid_t server = 0;
    bool is_up = sscanf(self.line, "up %d", &server) == 1;
    if (!is_up && !self.victim) give_up(&self, "main lost a child that nobody has killed");
    if (self.phase == UP) {
      rest(chance(3000) * 1e-6);
      strike(&self, 0);
    }
    if (!self.is_main) {
      if (self.phase != STARTING) tell(&self);
      listen_to(&self);
      if (strcmp(self.line, "ready\n") != 0) give_up(&self, "main does not get ready");
      if (self.end->signal) expect_no_zombie(&self);
      /* Server and owner at once would be two victims: nobody is left then to clean up before the next Context is made. */
      pid_t spare = self.end->needs_server ? server : 0;
      if (self.phase == ENDING && self.end->signal && chance(2) == 0) { /* before the signal */
        strike(&self, spare);
        rest(chance(500) * 1e-6);
      }
      if (self.end->signal && self.main) kill(self.main, self.end->signal);
      if (self.phase == ENDING && !self.victim) { /* when it ends already */
        rest(chance(2000) * 1e-6);
        strike(&self, spare);
      }
    }
  }
  double seconds = expect_nothing(&self);
  bool as_due = self.status == self.end->status;
  if (self.is_main ? self.status != -SIGKILL && !(self.phase == ENDING && as_due) : !as_due)
    give_up(&self, "main has ended with another status");
  close(self.to);
  close(self.from);
  if (!self.victim) return -1;
  (self.is_main ? killed_mains : killed_others)[self.phase]++;
  return seconds;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void nothing_is_left_whoever_is_killed_whenever(void **unused) {
  (void)unused;
  if (!getenv("ZPROC") || !getenv("SRCDIR")) fail_msg("ZPROC is to name the executable, SRCDIR the sources");
  assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  signal(SIGPIPE, SIG_IGN);
  snprintf(root, sizeof root, "%s/zproc-test-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  assert_non_null(mkdtemp(root));
  snprintf(store_root, sizeof store_root, "%s/stores", root);
  snprintf(log_path, sizeof log_path, "%s/log", root);
  snprintf(place, sizeof place, "%s/place", root);
  snprintf(address, sizeof address, "ipc://%s", place);
  assert_int_equal(mkdir(store_root, 0700), 0);
  setenv("ZPROC_RUNTIME_DIR", store_root, 1);
  const char *asan = getenv("ASAN_OPTIONS"); /* a crash is to end the process as it does without a sanitizer */
  if (asan) {
    char options[1024];
    snprintf(options, sizeof options, "%s:handle_segv=0", asan);
    setenv("ASAN_OPTIONS", options, 1);
  }

  double *times = calloc((size_t)rounds, sizeof *times);
  assert_non_null(times);
  for (int round = 0; round < rounds; round++) {
    uint32_t before = seed;
    int phase = (int)chance(PHASES);
    do times[round] = run_round(round, phase);
    while (times[round] < 0);
    if (times[round] > 1) fprintf(stderr, "round %d, seed %u: took %.3f s\n", round, before, times[round]);
    if (round % 100 == 99) fprintf(stderr, "%d rounds\n", round + 1);
  }
  qsort(times, (size_t)rounds, sizeof *times, by_size);
  printf("# %d rounds; from the end of the script until nothing is left: median %.1f ms, 99%% within %.1f ms, worst %.1f ms\n",
         rounds, times[rounds / 2] * 1e3, times[(rounds * 99 - 1) / 100] * 1e3, times[rounds - 1] * 1e3);
  for (int i = 0; i < PHASES; i++) printf("# killed %s: main %d, others %d\n", phases[i], killed_mains[i], killed_others[i]);
  free(times);
  remove_root();
}

int main(int argc, char **argv) {
  const char *wanted = argc > 1 ? argv[1] : getenv("ZP_ROUNDS");
  if (wanted && atoi(wanted) > 0) rounds = atoi(wanted);
  if (argc > 2) seed = (uint32_t)strtoul(argv[2], NULL, 10);
  else if (getrandom(&seed, sizeof seed, 0) != sizeof seed) return 1;
  printf("# seed %u\n", seed);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(nothing_is_left_whoever_is_killed_whenever),
  };
  return cmocka_run_group_tests_name("kill_tree", tests, NULL, NULL);
}
