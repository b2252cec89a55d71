#include "sys/filelimit.h"

#include <signal.h>
#include <stddef.h>

static void on_limit(int signal) { (void)signal; }

void zp_filelimit_enter(void) {
  struct sigaction now, own = {.sa_handler = on_limit, .sa_flags = SA_RESTART};
  if (sigaction(SIGXFSZ, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL) sigaction(SIGXFSZ, &own, NULL);
}

void zp_filelimit_leave(void) {
  struct sigaction now, before = {.sa_handler = SIG_DFL};
  if (sigaction(SIGXFSZ, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == on_limit) sigaction(SIGXFSZ, &before, NULL);
}
