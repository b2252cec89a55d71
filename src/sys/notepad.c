#include "sys/notepad.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/interrupt.h"

struct zp_notepad {
  zp_notes *notes;
  _Atomic int references;
};

/* What this thread works for. */
static _Thread_local struct {
  zp_notes *volatile notes; /* NULL: nothing */
  volatile bool is_told;
  volatile bool is_insisted; /* that it is told again and again */
  volatile bool has_timer;
  volatile double deadline; /* of the grace; 0: it has not begun */
  int timer;                /* the kernel's number */
} work;

static _Thread_local bool is_prepared; /* to be urged */

/* ---- handles ---- */

int zp_notepad_new(zp_notepad **out) {
  zp_notepad *pad = malloc(sizeof *pad);
  *out = NULL;
  if (!pad) return zp_fail(ZP_ENOMEM, "out of memory: cannot start a worker");
  void *memory = mmap(NULL, sizeof(zp_notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    free(pad);
    return zp_fail_errno("cannot share memory with a worker");
  }
  *pad = (zp_notepad){.notes = memory, .references = 1};
  *out = pad;
  return 0;
}

zp_notepad *zp_notepad_keep(zp_notepad *pad) {
  atomic_fetch_add(&pad->references, 1);
  return pad;
}

void zp_notepad_close(zp_notepad **handle) {
  zp_notepad *pad = *handle;
  *handle = NULL;
  if (!pad || atomic_fetch_sub(&pad->references, 1) > 1) return;
  munmap(pad->notes, sizeof *pad->notes);
  free(pad);
}

zp_notes *zp_notepad_notes(zp_notepad *pad) { return pad->notes; }

/* ---- calling off ----
   The parent writes the call and then reads the task; the worker writes the task and then reads the calls. So one of them sees what the
   other has written. */

static bool is_called_off(const zp_notes *notes) {
  uint64_t task = atomic_load(&notes->task);
  for (int i = 0; task && i < ZP_NOTEPAD_CALLS; i++)
    if (atomic_load(&notes->called_off[i]) == task) return true;
  return false;
}

bool zp_notepad_call_off(zp_notepad *pad, uint64_t task) {
  zp_notes *notes = pad->notes;
  bool is_new = true;
  for (int i = 0; i < ZP_NOTEPAD_CALLS; i++) is_new &= atomic_load(&notes->called_off[i]) != task;
  if (is_new) atomic_store(&notes->called_off[atomic_fetch_add(&notes->calls, 1) % ZP_NOTEPAD_CALLS], task);
  return atomic_load(&notes->task) == task;
}

/* ---- the worker ---- */

/* What a worker has forked works for nobody. Timers are not inherited. */
static void after_fork_in_child(void) {
  memset(&work, 0, sizeof work);
  is_prepared = false;
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, after_fork_in_child); }

static void prepare(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, watch_forks);
  zp_interrupt_prepare_threads(); /* puts the handler */
  is_prepared = true;
}

void zp_notepad_begin(zp_notepad *pad, uint64_t task) {
  if (!is_prepared) prepare();
  work.is_told = work.is_insisted = false;
  work.deadline = 0;
  atomic_fetch_add(&pad->notes->begun, 1);
  atomic_store(&pad->notes->task, task);
  work.notes = pad->notes;
  if (zp_notepad_is_called_off()) zp_notepad_on_urge(); /* before it had begun */
}

void zp_notepad_finish(void) {
  zp_notes *notes = work.notes;
  if (!notes) return;
  atomic_store(&notes->task, 0);
  work.notes = NULL;
  if (!work.has_timer) return;
  work.has_timer = false;
  syscall(SYS_timer_delete, work.timer);
}

bool zp_notepad_is_called_off(void) {
  const zp_notes *notes = work.notes;
  return notes && is_called_off(notes);
}

bool zp_notepad_has_call(void) { return work.notes && (!work.is_told || work.is_insisted) && is_called_off(work.notes); }

bool zp_notepad_is_insisted(void) { return work.notes && work.is_insisted; }

bool zp_notepad_take_call(void) {
  if (!zp_notepad_has_call()) return false;
  work.is_told = true;
  return true;
}

/* Let this thread be urged again after the grace. */
static bool set_timer(void) {
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = ZP_INTERRUPT_URGE};
  event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
  if (!work.has_timer && syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &work.timer) < 0) return false;
  work.has_timer = true;
  struct itimerspec after = {.it_value = {(time_t)ZP_NOTEPAD_GRACE, 1000000}};
  return syscall(SYS_timer_settime, work.timer, 0, &after, NULL) == 0;
}

void zp_notepad_on_urge(void) {
  if (!zp_notepad_is_called_off()) return;
  double now = zp_clock_now();
  if (work.deadline > 0 && now < work.deadline) return;
  bool is_over = work.deadline > 0;
  if (is_over && !zp_interrupt_is_in_thread()) _exit(EXIT_SUCCESS);
  work.is_insisted = is_over;
  work.deadline = now + ZP_NOTEPAD_GRACE;
  if (!set_timer() && !zp_interrupt_is_in_thread()) _exit(EXIT_SUCCESS);
}
