/*
 * host -- a program with Lua inside that has plans of its own for its signals and children. For tests/cli/host.bats:  host SCRIPT...
 *
 * Each script runs in a VM of its own, one after the other, with a table `host` of what follows. At the end the program says what of its process
 * is not as host.note() has found it, or "as before".
 *
 *   host.handle(signal, how)   ignore, default, count (host.count tells), reap (waits for its own children), reap_any (for whichever),
 *                              chain (counts, and calls the handler before); restart: with SA_RESTART
 *   host.count(signal)         how many have been counted, by whichever of these handlers
 *   host.fork(status) -> pid   a child that ends with the status at once
 *   host.status(pid)           the exit status of a child that was reaped by a handler; nil: not yet
 *   host.is_child(pid)         whether it is a child, alive or a zombie
 *   host.block(signal), host.pending(signal)
 */
#include <errno.h>
#include <lauxlib.h>
#include <locale.h>
#include <lualib.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIGNALS = 65, CHILDREN = 64, LIMITS = 16 };

static volatile sig_atomic_t counts[SIGNALS];
static struct { volatile pid_t pid; volatile int status; volatile sig_atomic_t ended; } children[CHILDREN];
static volatile int child_count;
static struct sigaction replaced[SIGNALS];
static bool reaps_any;

static void count(int number) { counts[number]++; }

static void note_end(pid_t pid, int status) {
  for (int i = 0; i < child_count; i++)
    if (children[i].pid == pid) {
      children[i].status = status;
      children[i].ended = 1;
    }
}

static void reap(int number) {
  int saved = errno, status;
  counts[number]++;
  if (reaps_any)
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) note_end(pid, status);
  else
    for (int i = 0; i < child_count; i++)
      if (!children[i].ended && waitpid(children[i].pid, &status, WNOHANG) > 0) note_end(children[i].pid, status);
  errno = saved;
}

static void chain(int number, siginfo_t *info, void *context) {
  counts[number]++;
  const struct sigaction *old = &replaced[number];
  if (old->sa_flags & SA_SIGINFO) old->sa_sigaction(number, info, context);
  else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) old->sa_handler(number);
}

static int host_handle(lua_State *L) {
  int number = (int)luaL_checkinteger(L, 1);
  const char *how = luaL_checkstring(L, 2);
  struct sigaction action = {.sa_handler = count};
  if (strcmp(how, "ignore") == 0) action.sa_handler = SIG_IGN;
  else if (strcmp(how, "default") == 0) action.sa_handler = SIG_DFL;
  else if (strncmp(how, "reap", 4) == 0) action.sa_handler = reap;
  else if (strcmp(how, "chain") == 0) action = (struct sigaction){.sa_sigaction = chain, .sa_flags = SA_SIGINFO};
  if (strcmp(how, "restart") == 0) action.sa_flags |= SA_RESTART;
  if (strncmp(how, "reap", 4) == 0) reaps_any = strcmp(how, "reap_any") == 0;
  sigaction(number, &action, &replaced[number]);
  return 0;
}

static int host_count(lua_State *L) {
  lua_pushinteger(L, counts[luaL_checkinteger(L, 1)]);
  return 1;
}

static int host_fork(lua_State *L) {
  int status = (int)luaL_checkinteger(L, 1);
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before); /* so that the handler knows it */
  pid_t pid = fork();
  if (pid == 0) _exit(status);
  children[child_count++ % CHILDREN].pid = pid;
  sigprocmask(SIG_SETMASK, &before, NULL);
  lua_pushinteger(L, pid);
  return 1;
}

static int host_status(lua_State *L) {
  for (int i = 0; i < child_count; i++)
    if (children[i].pid == luaL_checkinteger(L, 1) && children[i].ended) {
      lua_pushinteger(L, WEXITSTATUS(children[i].status));
      return 1;
    }
  return 0;
}

static int host_is_child(lua_State *L) {
  siginfo_t info;
  lua_pushboolean(L, waitid(P_PID, (id_t)luaL_checkinteger(L, 1), &info, WEXITED | WNOHANG | WNOWAIT) == 0);
  return 1;
}

static int host_block(lua_State *L) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, (int)luaL_checkinteger(L, 1));
  sigprocmask(SIG_BLOCK, &set, NULL);
  return 0;
}

static int host_pending(lua_State *L) {
  sigset_t set;
  sigpending(&set);
  lua_pushboolean(L, sigismember(&set, (int)luaL_checkinteger(L, 1)));
  return 1;
}

/* ---- what must be as before ---- */

enum { SET_BY_LIBC = 0x04000000 }; /* SA_RESTORER, which its sigaction adds */

static struct state {
  struct sigaction actions[SIGNALS];
  sigset_t mask;
  struct rlimit limits[LIMITS];
  mode_t umask;
  char locale[256];
  FILE *files[3];
} noted;

static void look(struct state *state) {
  memset(state, 0, sizeof *state);
  for (int number = 1; number < SIGNALS; number++) {
    sigaction(number, NULL, &state->actions[number]);
    state->actions[number].sa_flags &= ~SET_BY_LIBC;
  }
  sigprocmask(SIG_SETMASK, NULL, &state->mask);
  for (int i = 0; i < LIMITS; i++) getrlimit((__rlimit_resource_t)i, &state->limits[i]);
  umask(state->umask = umask(0));
  snprintf(state->locale, sizeof state->locale, "%s", setlocale(LC_ALL, NULL));
  state->files[0] = stdin;
  state->files[1] = stdout;
  state->files[2] = stderr;
}

static int host_note(lua_State *L) {
  (void)L;
  look(&noted);
  return 0;
}

static void compare(void) {
  static struct state now;
  bool same = true;
  look(&now);
  for (int number = 1; number < SIGNALS; number++)
    if (now.actions[number].sa_handler != noted.actions[number].sa_handler || now.actions[number].sa_flags != noted.actions[number].sa_flags) {
      printf("another action: %s\n", strsignal(number));
      same = false;
    }
  for (int number = 1; number < SIGNALS; number++)
    if (sigismember(&now.mask, number) != sigismember(&noted.mask, number)) {
      printf("another mask: %s\n", strsignal(number));
      same = false;
    }
  if (memcmp(now.limits, noted.limits, sizeof now.limits)) puts("other limits"), same = false;
  if (now.umask != noted.umask) puts("another umask"), same = false;
  if (strcmp(now.locale, noted.locale)) puts("another locale"), same = false;
  if (memcmp(now.files, noted.files, sizeof now.files)) puts("other streams"), same = false;
  if (same) puts("as before");
}

static const luaL_Reg functions[] = {
    {"handle", host_handle}, {"count", host_count}, {"fork", host_fork},       {"status", host_status}, {"is_child", host_is_child},
    {"block", host_block},   {"note", host_note},   {"pending", host_pending}, {NULL, NULL},
};

static int run(const char *script) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  luaL_newlib(L, functions);
  lua_setglobal(L, "host");
  int failed = luaL_dofile(L, script);
  if (failed) fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
  lua_close(L);
  return failed;
}

int main(int argc, char **argv) {
  look(&noted);
  for (int i = 1; i < argc; i++)
    if (run(argv[i])) return EXIT_FAILURE;
  compare();
  return EXIT_SUCCESS;
}
