#include "sys/handler.h"

#include <signal.h>
#include <stddef.h>

#include "base/err.h"

/* How often ours can get on top of the program's: each time takes a function of its own, since the program may call any of them from its own
   handler, and that must not lead in a circle. */
enum { LEVELS = 4, SIGNALS = 65 };

typedef struct step {
  struct sigaction before;
} step;

static struct {
  zp_handler *own;
  int count; /* of levels in use */
  step levels[LEVELS];
} slots[SIGNALS];

static void call(int level, int signal, siginfo_t *info, void *context) {
  slots[signal].own(signal);
  const struct sigaction *before = &slots[signal].levels[level].before;
  if (before->sa_flags & SA_SIGINFO) before->sa_sigaction(signal, info, context);
  else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN) before->sa_handler(signal);
}

static void on_level_0(int signal, siginfo_t *info, void *context) { call(0, signal, info, context); }
static void on_level_1(int signal, siginfo_t *info, void *context) { call(1, signal, info, context); }
static void on_level_2(int signal, siginfo_t *info, void *context) { call(2, signal, info, context); }
static void on_level_3(int signal, siginfo_t *info, void *context) { call(3, signal, info, context); }

typedef void function(int signal, siginfo_t *info, void *context);

static function *const functions[LEVELS] = {on_level_0, on_level_1, on_level_2, on_level_3};

static bool has_handler(const struct sigaction *action) {
  return action->sa_flags & SA_SIGINFO || (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN);
}

static bool is(const struct sigaction *action, int level) { return action->sa_flags & SA_SIGINFO && action->sa_sigaction == functions[level]; }

int zp_handler_put(int signal, zp_handler *own) {
  struct sigaction now;
  int count = slots[signal].count;
  if (sigaction(signal, NULL, &now) < 0) return zp_fail_errno("signal %d cannot be caught: sigaction", signal);
  if (count > 0 && is(&now, count - 1)) return 0;
  if (count == LEVELS) return 0; /* a program that replaces ours again and again does not want it */
  int flags = has_handler(&now) ? now.sa_flags & (SA_RESTART | SA_NOCLDSTOP | SA_ONSTACK) : SA_RESTART | SA_NOCLDSTOP;
  struct sigaction action = {.sa_sigaction = functions[count], .sa_flags = SA_SIGINFO | flags};
  sigfillset(&action.sa_mask);
  slots[signal].own = own;
  slots[signal].levels[count].before = now;
  slots[signal].count = count + 1;
  if (sigaction(signal, &action, NULL) == 0) return 0;
  slots[signal].count = count;
  return zp_fail_errno("signal %d cannot be caught: sigaction", signal);
}

void zp_handler_remove(int signal) {
  struct sigaction now;
  int count = slots[signal].count;
  if (count == 0 || sigaction(signal, NULL, &now) < 0 || !is(&now, count - 1)) return;
  const struct sigaction *before = &slots[signal].levels[count - 1].before;
  /* One that is on its way would do what it does by default, which may be to end the process; ignoring a signal drops it. */
  static const struct sigaction ignore = {.sa_handler = SIG_IGN};
  if (!has_handler(before) && signal != SIGCHLD) sigaction(signal, &ignore, NULL);
  sigaction(signal, before, NULL);
  slots[signal].count = count - 1;
}

bool zp_handler_is_unwanted(int signal) {
  int count = slots[signal].count;
  if (count == 0) return false;
  const struct sigaction *before = &slots[signal].levels[count - 1].before;
  return before->sa_flags & SA_NOCLDWAIT || (!(before->sa_flags & SA_SIGINFO) && before->sa_handler == SIG_IGN);
}
