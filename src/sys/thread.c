#include "sys/thread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/interrupt.h"
#include "sys/output.h"

struct zp_thread {
  pid_t process;
  pthread_t id;
  zp_thread_main *run;
  void *context;
  sigset_t mask;  /* of signals, as the starting thread has it */
  zp_interrupt_signals signals;
  zp_buf message; /* the thread's until it has ended */
  int exitcode;
  _Atomic bool ended;
  _Atomic bool to_stop, must_stop;
  _Atomic int references; /* of the handle and of the thread */
  bool joined;
};

static _Thread_local zp_thread *own;

static void release(zp_thread *thread) {
  if (atomic_fetch_sub(&thread->references, 1) > 1) return;
  zp_buf_free(&thread->message);
  free(thread);
}

static void *run(void *argument) {
  zp_thread *thread = argument;
  own = thread;
  zp_interrupt_enter_thread(&thread->signals);
  pthread_sigmask(SIG_SETMASK, &thread->mask, NULL);
  thread->exitcode = thread->run(thread->context, &thread->message);
  atomic_store(&thread->ended, true);
  zp_interrupt_all();
  release(thread);
  return NULL;
}

/* What a thread has forked is a process, and no thread of this one. */
static void after_fork_in_child(void) { own = NULL; }

static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

int zp_thread_start(zp_thread_main *function, void *context, zp_thread **out) {
  *out = NULL;
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
  zp_interrupt_prepare_threads();
  zp_output_share();
  zp_thread *thread = calloc(1, sizeof *thread);
  if (!thread) return zp_fail(ZP_ENOMEM, "out of memory: cannot start a thread");
  thread->process = getpid();
  thread->run = function;
  thread->context = context;
  thread->references = 2;
  /* It begins with everything blocked, so that no signal comes before it knows that it is a thread. */
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &thread->mask);
  sigset_t before = thread->mask;
  int code = pthread_create(&thread->id, NULL, run, thread);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (code) {
    free(thread);
    errno = code;
    return zp_fail_errno(code == EPERM ? "cannot start a thread: clone3" : "cannot start a thread");
  }
  *out = thread;
  return 0;
}

bool zp_thread_ended(const zp_thread *thread, int *exitcode) {
  bool ended = atomic_load(&thread->ended);
  if (ended && exitcode) *exitcode = thread->exitcode;
  return ended;
}

static int check_owner(const zp_thread *thread) {
  if (thread->process == getpid()) return 0;
  return zp_fail(ZP_ESYS, "the thread is one of process %d; only that one can wait for it or stop it", (int)thread->process);
}

int zp_thread_wait(zp_thread *thread, double deadline) {
  int rc = check_owner(thread);
  if (rc) return rc;
  bool cut_short = zp_interrupt_is_armed();
  for (;;) {
    if (!cut_short) zp_interrupt_arm(); /* for the end of the thread alone */
    if (zp_thread_ended(thread, NULL)) break;
    rc = zp_interrupt_wait(deadline);
    if (zp_thread_ended(thread, NULL)) break;
    if (rc != ZP_EINTR || cut_short) goto out;
  }
  rc = 0;
  if (!thread->joined) pthread_join(thread->id, NULL);
  thread->joined = true;
out:
  if (!cut_short) zp_interrupt_disarm();
  return rc;
}

zp_bytes zp_thread_message(const zp_thread *thread) { return (zp_bytes){thread->message.data, thread->message.size}; }

pid_t zp_thread_process(const zp_thread *thread) { return thread->process; }

void zp_thread_stop(zp_thread *thread, bool insist) {
  if (check_owner(thread) || thread->joined) return;
  atomic_store(&thread->to_stop, true);
  if (insist) atomic_store(&thread->must_stop, true);
  zp_interrupt_thread(thread->id, &thread->signals); /* not joined, so the id is still its own */
}

void zp_thread_urge(zp_thread *thread) {
  if (check_owner(thread) || thread->joined) return;
  pthread_kill(thread->id, ZP_INTERRUPT_URGE);
}

bool zp_thread_is_to_stop(void) { return own && atomic_load(&own->to_stop); }
bool zp_thread_must_stop(void) { return own && atomic_load(&own->must_stop); }

void zp_thread_set_name(const char *name) {
  const char *slash = strrchr(name, '/');
  prctl(PR_SET_NAME, slash && slash[1] ? slash + 1 : name);
}

void zp_thread_close(zp_thread **handle) {
  zp_thread *thread = *handle;
  if (!thread) return;
  *handle = NULL;
  if (thread->process != getpid()) return; /* a copy: the thread that would free it is not here */
  if (!thread->joined) pthread_detach(thread->id);
  release(thread);
}
