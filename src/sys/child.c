#include "sys/child.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/descriptor.h"
#include "sys/handler.h"
#include "sys/interrupt.h"
#include "sys/output.h"

/* What is known of a process that was forked. It outlives the handle until the end of the process was seen, because somebody has to
   see it. */
typedef struct birth {
  pid_t pid;
  int message_fd;     /* the handle's; -1: it has closed it; under the lock */
  int exitcode;       /* valid once it has ended */
  _Atomic bool ended; /* and is reaped */
  bool forgotten;     /* there is no handle any more; under the lock */
  bool is_asked;      /* to end, by its parent; under the lock */
  char *name;         /* by which its death is told; NULL: it is not; under the lock */
  zp_table_row row;   /* where it is listed; under the lock */
  zp_table *table;    /* kept for the row; NULL if it is not listed */
  struct birth *next;
} birth;

struct zp_child {
  pid_t parent;
  pid_t pid; /* 0 in the child */
  int message_fd; /* -1: it was closed after the end */
  zp_buf message; /* then: what was in it */
  birth *birth;
};

/* The message file: 8 bytes of size, 8 of the parent's wish that it ends, 8 of the status that the child has ended with and one more, then the
   message. The size is written last, so a message that was cut short by death does not count. */
enum { WISH = 8, STATUS = 16, HEADER = 24 };

/* Where this process notes its exit status, if it is a child itself. A process that it forks by other means inherits that, but not the pid. */
static struct {
  pid_t pid;
  int message_fd;
} own;

/* ---- reaping ----
   Children are reaped by the handler of SIGCHLD, so that none stays a zombie, whether or not anybody waits for it.

   Invariant: `births` has those that have not ended, `graves` those that have ended and have no handle; all others belong to their
   handle. The lists are changed only with SIGCHLD blocked and `lock` held; the handler holds `lock` as well, since it may run in
   another thread, and nothing is freed there. An entry's end is written once, by whoever reaps it, before `ended` is set. */

static birth *births, *graves;
static atomic_flag lock = ATOMIC_FLAG_INIT;

static void take_lock(void) {
  while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire)) sched_yield();
}

static void give_lock(void) { atomic_flag_clear_explicit(&lock, memory_order_release); }

static void block(sigset_t *before) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  pthread_sigmask(SIG_BLOCK, &set, before);
}

static void unblock(const sigset_t *before) { pthread_sigmask(SIG_SETMASK, before, NULL); }

/* How a process ended that somebody else has reaped, such as a program that waits for whichever child: as it has noted itself. One that was
   killed had no time for that, and by which signal is lost. Under the lock. */
static int recall_exit(const birth *entry) {
  uint64_t noted = 0;
  if (entry->message_fd < 0 || pread(entry->message_fd, &noted, sizeof noted, STATUS) != sizeof noted || noted == 0) return EXIT_FAILURE;
  return (int)(noted - 1);
}

/* The deaths that are to be told, the oldest first; under the lock. When there is no room for more, whoever tells them has not come to that for
   long, and later ones are left out. */
enum { DEATHS_MAX = 64 };
static zp_child_death deaths[DEATHS_MAX];
static unsigned death_count;
static _Atomic bool has_deaths;

/* A process that has been asked to end by its parent ends by that signal, or by SIGKILL. */
static void note_death(const birth *entry) {
  int number = -entry->exitcode;
  bool is_wished = entry->is_asked && (number == SIGTERM || number == SIGKILL);
  if (number <= 0 || !entry->name || is_wished || death_count == DEATHS_MAX) return;
  zp_child_death *death = &deaths[death_count++];
  size_t length = strlen(entry->name), room = sizeof death->name - 1;
  death->pid = entry->pid;
  death->signal = number;
  strcpy(death->name, length > room ? entry->name + (length - room) : entry->name);
  atomic_store(&has_deaths, true);
}

/* Look whether a process has ended, and if so take it off the list. Under the lock. */
static bool reap(birth **link) {
  birth *entry = *link;
  int status;
  pid_t pid = waitpid(entry->pid, &status, WNOHANG);
  if (pid == 0 || (pid < 0 && errno != ECHILD)) return false;
  entry->exitcode = pid < 0 ? recall_exit(entry) : WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  zp_table_end(entry->row, entry->pid, entry->exitcode);
  note_death(entry);
  *link = entry->next;
  if (entry->forgotten) {
    entry->next = graves;
    graves = entry;
  }
  atomic_store(&entry->ended, true);
  return true;
}

static birth **find(pid_t pid) {
  birth **link = &births;
  while (*link && (*link)->pid != pid) link = &(*link)->next;
  return link;
}

/* Of many children one has ended, most of the time: ask the kernel which, rather than each of them. A zombie that is none of ours hides
   the others, and is left to whoever it belongs to; unless the program has said that nobody waits for its children, of which the kernel would
   have taken care without our handler. */
static void on_sigchld(int signal) {
  int number = errno;
  bool nobody_waits = zp_handler_is_unwanted(signal);
  take_lock();
  for (;;) {
    siginfo_t info = {0};
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0) break;
    birth **link = find(info.si_pid);
    if (*link ? reap(link) : nobody_waits && waitpid(info.si_pid, NULL, WNOHANG) == info.si_pid) continue;
    for (link = &births; *link;)
      if (!reap(link)) link = &(*link)->next;
    break;
  }
  give_lock();
  if (zp_child_has_deaths()) zp_interrupt_notify();
  else zp_interrupt_all();
  errno = number;
}

/* Whose children these were is not this process. */
static void after_fork_in_child(void) {
  births = graves = NULL;
  death_count = 0;
  atomic_store(&has_deaths, false);
  atomic_flag_clear(&lock);
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

static void free_birth(birth *entry) {
  zp_table_close(&entry->table);
  free(entry->name);
  free(entry);
}

static void free_graves(birth *entry) {
  while (entry) {
    birth *next = entry->next;
    free_birth(entry);
    entry = next;
  }
}

/* ---- starting ---- */

int zp_child_fail_fork(const char *what) {
  if (errno != EAGAIN) return zp_fail_errno("cannot start %s", what);
  return zp_fail(ZP_ESYS, "cannot start %s: there are as many processes as this user, or this container, may have (ulimit -u)", what);
}

int zp_child_fork(bool die_with_parent, zp_child **out, pid_t *out_pid) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
  zp_child *child = malloc(sizeof *child);
  birth *entry = calloc(1, sizeof *entry);
  if (!child || !entry) {
    free(child);
    free(entry);
    return zp_fail(ZP_ENOMEM, "out of memory: cannot start a process");
  }
  *child = (zp_child){.parent = getpid(), .birth = entry};
  child->message_fd = zp_descriptor_memory("zproc-message");
  if (child->message_fd < 0) {
    free(child);
    free(entry);
    return zp_fail_errno("cannot start a process: memfd_create");
  }
  entry->message_fd = child->message_fd;
  zp_output_prepare_fork();
  birth *forgotten = NULL;
  sigset_t before;
  block(&before);
  take_lock();
  int rc = zp_handler_put(SIGCHLD, on_sigchld); /* the program may have replaced it since the last time */
  give_lock();
  if (rc) {
    unblock(&before);
    free(entry);
    child->birth = NULL;
    zp_child_close(&child);
    return rc;
  }
  pid_t pid = fork();
  if (pid > 0) {
    entry->pid = pid;
    take_lock();
    entry->next = births;
    births = entry;
    forgotten = graves;
    graves = NULL;
    give_lock();
  }
  int number = errno;
  unblock(&before);
  free_graves(forgotten);
  if (pid < 0) {
    errno = number;
    rc = zp_child_fail_fork("a process");
    free(entry);
    child->birth = NULL;
    zp_child_close(&child);
    return rc;
  }
  if (pid == 0 && die_with_parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* The parent may have died before the request stood. */
    if (getppid() != child->parent) _exit(128 + SIGKILL);
  }
  if (pid == 0) zp_output_enter_child();
  child->pid = pid;
  if (pid == 0) {
    own.pid = getpid();
    own.message_fd = child->message_fd;
  }
  *out = child;
  *out_pid = pid;
  return 0;
}

void zp_child_list(zp_child *child, zp_table *table, zp_table_row row) {
  sigset_t before;
  child->birth->table = zp_table_keep(table);
  zp_table_start(row, child->pid);
  block(&before);
  take_lock();
  child->birth->row = row;
  bool ended = atomic_load(&child->birth->ended);
  give_lock();
  unblock(&before);
  if (ended) zp_table_end(row, child->pid, child->birth->exitcode);
}

/* Without memory for the name it stays untold. */
void zp_child_name(zp_child *child, const char *name) {
  char *copy = strdup(name);
  sigset_t before;
  block(&before);
  take_lock();
  child->birth->name = copy;
  if (atomic_load(&child->birth->ended)) note_death(child->birth);
  give_lock();
  unblock(&before);
}

bool zp_child_has_deaths(void) { return atomic_load_explicit(&has_deaths, memory_order_relaxed); }

bool zp_child_take_death(zp_child_death *death) {
  if (!zp_child_has_deaths()) return false;
  sigset_t before;
  block(&before);
  take_lock();
  bool is_there = death_count > 0;
  if (is_there) {
    *death = deaths[0];
    memmove(deaths, deaths + 1, --death_count * sizeof *deaths);
  }
  atomic_store(&has_deaths, death_count > 0);
  give_lock();
  unblock(&before);
  return is_there;
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
  int rc = write_at(child->message_fd, &size, sizeof size, 0); /* an earlier message is void from here on */
  if (!rc) rc = write_at(child->message_fd, message.data, message.size, HEADER);
  size = message.size;
  if (!rc) rc = write_at(child->message_fd, &size, sizeof size, 0);
  return rc;
}

void zp_child_exit(int status) {
  zp_output_flush();
  uint64_t noted = (uint64_t)(status & 0xff) + 1;
  /* It matters only if somebody else reaps this process, so without memory for it, it is left out. */
  if (own.pid == getpid()) (void)!pwrite(own.message_fd, &noted, sizeof noted, STATUS);
  _exit(status);
}

void zp_child_release(void) {
  sigset_t before;
  block(&before);
  take_lock();
  if (!births) zp_handler_remove(SIGCHLD);
  give_lock();
  unblock(&before);
}

/* A pid of -1 must never reach kill() or waitpid(), and another process's children are not ours to reap. */
static int check_owner(const zp_child *child) {
  if (child->pid > 0 && child->parent == getpid()) return 0;
  return zp_fail(ZP_ESYS, "process %d was started by process %d; only that one can wait for it or stop it",
                 (int)child->pid, (int)child->parent);
}

static bool has_ended(const zp_child *child) { return child->birth && atomic_load(&child->birth->ended); }

/* Should the handler not run, because somebody has replaced it, or blocks the signal for ever, the child is found all the same. */
static void look(const zp_child *child) {
  sigset_t before;
  block(&before);
  take_lock();
  if (!has_ended(child)) reap(find(child->pid));
  give_lock();
  unblock(&before);
}

/* The message of a file: 0, also if there is none, or an error. */
static int read_message(int fd, zp_buf *out) {
  uint64_t size = 0;
  ssize_t n = pread(fd, &size, sizeof size, 0);
  if (n < 0) return zp_fail_errno("cannot read a result");
  if (n != sizeof size || size == 0) return 0;
  int rc = zp_buf_reserve(out, size);
  if (!rc) rc = read_at(fd, out->data, size, HEADER);
  if (!rc) out->size = size;
  return rc;
}

/* After the end: nobody writes into the message file any more, so it does not have to stay open. */
static int settle(zp_child *child) {
  if (child->message_fd < 0) return 0;
  int rc = read_message(child->message_fd, &child->message);
  if (rc) return rc;
  close(child->message_fd); /* nobody asks for it in the birth of a child that has ended */
  child->message_fd = -1;
  return 0;
}

/* Where the signal is blocked (a program may read it from a descriptor) looking is all there is. */
double zp_child_look_after(void) {
  static const double SELDOM = 0.5, OFTEN = 0.01;
  sigset_t mask;
  return pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0 && sigismember(&mask, SIGCHLD) == 1 ? OFTEN : SELDOM;
}

static int await_end(zp_child *child, double deadline) {
  const double LOOK = zp_child_look_after();
  if (has_ended(child)) return 0;
  int rc = check_owner(child);
  if (rc) return rc;
  look(child);
  bool cut_short = zp_interrupt_is_armed();
  for (;;) {
    if (!cut_short) zp_interrupt_arm(); /* for the end of the child alone */
    if (has_ended(child)) break;
    double now = zp_clock_now();
    rc = deadline <= now ? ZP_ETIMEOUT : zp_interrupt_wait(deadline < now + LOOK ? deadline : now + LOOK);
    if (has_ended(child)) break;
    if (rc == ZP_ETIMEOUT && now < deadline) look(child);
    else if (rc == ZP_ETIMEOUT || rc != ZP_EINTR || cut_short) goto out;
  }
  rc = 0;
out:
  if (!cut_short) zp_interrupt_disarm();
  return rc;
}

int zp_child_wait(zp_child *child, double deadline) {
  int rc = await_end(child, deadline);
  if (!rc) (void)settle(child); /* or whoever asks for the message is told */
  return rc;
}

bool zp_child_ended(const zp_child *child, int *exitcode) {
  bool ended = has_ended(child);
  if (ended && exitcode) *exitcode = child->birth->exitcode;
  return ended;
}

int zp_child_message(zp_child *child, zp_buf *out) {
  int rc = settle(child);
  if (rc || child->message.size == 0) return rc;
  rc = zp_buf_append(out, child->message.data, child->message.size);
  if (rc) return rc;
  zp_buf_free(&child->message);
  return 1;
}

/* Whoever reaps the child does it with SIGCHLD blocked or in its handler, so with the signal blocked the pid is still that of the child,
   or it has ended. */
int zp_child_signal(zp_child *child, int signal) {
  if (has_ended(child)) return 0;
  int rc = check_owner(child);
  if (rc) return rc;
  sigset_t before;
  block(&before);
  take_lock();
  if (!has_ended(child) && (signal == SIGTERM || signal == SIGKILL)) child->birth->is_asked = true;
  if (!has_ended(child) && kill(child->pid, signal) < 0)
    rc = zp_fail_errno("cannot send signal %d to process %d", signal, (int)child->pid);
  give_lock();
  unblock(&before);
  return rc;
}

int zp_child_stop(zp_child *child) {
  static const uint64_t yes = 1;
  if (has_ended(child)) return 0;
  int rc = write_at(child->message_fd, &yes, sizeof yes, WISH);
  return rc ? rc : zp_child_signal(child, SIGTERM);
}

bool zp_child_is_to_stop(const zp_child *child) {
  uint64_t wish = 0;
  return pread(child->message_fd, &wish, sizeof wish, WISH) == (ssize_t)sizeof wish && wish;
}

pid_t zp_child_pid(const zp_child *child) { return child->pid; }

void zp_child_close(zp_child **handle) {
  zp_child *child = *handle;
  if (!child) return;
  *handle = NULL;
  zp_buf_free(&child->message);
  if (child->birth && child->parent == getpid()) { /* in another process it is a copy that nothing uses */
    sigset_t before;
    block(&before);
    take_lock();
    child->birth->forgotten = true;
    child->birth->message_fd = -1;
    bool ended = has_ended(child);
    give_lock();
    unblock(&before);
    if (ended) free_birth(child->birth);
  }
  if (child->message_fd >= 0) close(child->message_fd);
  free(child);
}
