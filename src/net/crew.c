#include "net/crew.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/thread.h"

enum {
  MEMBERS_MAX = 4000,
  WAITING_MAX = 3900, /* of these, that may do what waits for others to change something */
  IDLE_MAX = 8
};

typedef struct zp_member {
  struct zp_crew *crew;
  zp_thread *thread;
  pthread_cond_t has_news;
  zp_job *job;      /* under the crew's lock; NULL: nothing to do */
  bool is_dismissed; /* likewise */
  struct zp_member *next;
} zp_member;

struct zp_crew {
  const char *directory;
  zp_runner *runner;
  void (*wake)(void *context);
  void *context;
  pthread_mutex_t lock; /* of jobs, dismissals, of what is finished, and of waking */
  zp_job *finished;
  _Atomic bool has_finished; /* a hint that there is something */
  /* The rest is the service's alone. */
  zp_member *idle;    /* threads without a job */
  zp_member *leaving; /* dismissed, and to be waited for */
  size_t idle_count, count;
};

int zp_crew_open(const char *directory, zp_runner *runner, void (*wake)(void *context), void *context, zp_crew **out) {
  zp_crew *crew = *out = calloc(1, sizeof *crew);
  if (!crew) return zp_fail(ZP_ENOMEM, "out of memory: cannot serve");
  crew->directory = directory;
  crew->runner = runner;
  crew->wake = wake;
  crew->context = context;
  pthread_mutex_init(&crew->lock, NULL);
  return 0;
}

/* ---- in a thread of the crew ---- */

static void do_job(zp_executor **executor, zp_crew *crew, zp_job *job) {
  zp_parcel parcel;
  if (job->is_farewell) {
    if (job->has_died) zp_seat_note(job->seat, job->died_of, job->died_of_span);
    job->rc = zp_seat_leave(job->seat, job->has_died);
    return;
  }
  job->rc = *executor ? 0 : zp_executor_open(crew->directory, crew->runner, executor);
  if (!job->rc) job->rc = zp_request_read(job->type, zp_buf_bytes(&job->body), &parcel);
  if (!job->rc) job->rc = zp_execute(*executor, job->seat, job->type, &parcel, true, &job->answer);
  if (job->rc && job->rc != ZP_EINTR) {
    zp_answer_fail(&job->answer, job->rc, NULL);
    job->rc = 0;
  }
  zp_buf_clear(&job->body, 1 << 16); /* it may be large, and nobody needs it now */
}

/* The next job; NULL once dismissed. */
static zp_job *await_job(zp_member *self) {
  zp_crew *crew = self->crew;
  pthread_mutex_lock(&crew->lock);
  while (!self->job && !self->is_dismissed) pthread_cond_wait(&self->has_news, &crew->lock);
  zp_job *job = self->job;
  pthread_mutex_unlock(&crew->lock);
  return job;
}

static void hand_in(zp_member *self, zp_job *job) {
  zp_crew *crew = self->crew;
  pthread_mutex_lock(&crew->lock);
  self->job = NULL;
  job->next = crew->finished;
  crew->finished = job;
  atomic_store(&crew->has_finished, true);
  crew->wake(crew->context);
  pthread_mutex_unlock(&crew->lock);
}

static int member_main(void *context, zp_buf *message) {
  (void)message;
  zp_member *self = context;
  zp_executor *executor = NULL;
  zp_job *job;
  while ((job = await_job(self))) {
    do_job(&executor, self->crew, job);
    hand_in(self, job);
  }
  zp_executor_close(&executor);
  return EXIT_SUCCESS;
}

/* ---- in the thread of the service ---- */

static void free_member(zp_member *member) {
  zp_thread_close(&member->thread);
  pthread_cond_destroy(&member->has_news);
  free(member);
}

/* Free those that have left. */
static void reap(zp_crew *crew) {
  for (zp_member **link = &crew->leaving; *link;) {
    zp_member *member = *link;
    if (!zp_thread_ended(member->thread, NULL)) {
      link = &member->next;
      continue;
    }
    zp_thread_wait(member->thread, ZP_FOREVER);
    *link = member->next;
    crew->count--;
    free_member(member);
  }
}

static void dismiss(zp_crew *crew, zp_member *member) {
  pthread_mutex_lock(&crew->lock);
  member->is_dismissed = true;
  pthread_cond_signal(&member->has_news);
  pthread_mutex_unlock(&crew->lock);
  member->next = crew->leaving;
  crew->leaving = member;
}

static bool waits_for_others(const zp_job *job) {
  return !job->is_farewell && (job->type == ZP_REQUEST_WATCH || job->type == ZP_REQUEST_TASK_WAIT);
}

static int add_member(zp_crew *crew, const zp_job *job, zp_member **out) {
  reap(crew);
  size_t most = waits_for_others(job) ? WAITING_MAX : MEMBERS_MAX;
  if (crew->count >= most) return zp_fail(ZP_ESYS, "the server has %zu requests to wait for already, as many as it can", most);
  zp_member *member = calloc(1, sizeof *member);
  if (!member) return zp_fail(ZP_ENOMEM, "out of memory: cannot serve");
  member->crew = crew;
  pthread_cond_init(&member->has_news, NULL);
  int rc = zp_thread_start(member_main, member, &member->thread);
  if (rc) {
    free_member(member);
    return rc;
  }
  crew->count++;
  *out = member;
  return 0;
}

int zp_crew_start(zp_crew *crew, zp_job *job) {
  zp_member *member = crew->idle;
  if (member) {
    crew->idle = member->next;
    crew->idle_count--;
  } else {
    int rc = add_member(crew, job, &member);
    if (rc) return rc;
  }
  job->member = member;
  pthread_mutex_lock(&crew->lock);
  member->job = job;
  pthread_cond_signal(&member->has_news);
  pthread_mutex_unlock(&crew->lock);
  return 0;
}

void zp_crew_hold(zp_crew *crew, void (*function)(void *context), void *context) {
  pthread_mutex_lock(&crew->lock);
  function(context);
  pthread_mutex_unlock(&crew->lock);
}

void zp_crew_wake(zp_crew *crew) { zp_crew_hold(crew, crew->wake, crew->context); }

zp_job *zp_crew_take(zp_crew *crew) {
  if (!atomic_load(&crew->has_finished)) return NULL;
  pthread_mutex_lock(&crew->lock);
  zp_job *job = crew->finished;
  if (job) crew->finished = job->next;
  else atomic_store(&crew->has_finished, false);
  pthread_mutex_unlock(&crew->lock);
  if (!job) return NULL;
  zp_member *member = job->member;
  job->member = NULL;
  if (member->is_dismissed || crew->idle_count >= IDLE_MAX) {
    dismiss(crew, member);
  } else {
    member->next = crew->idle;
    crew->idle = member;
    crew->idle_count++;
  }
  return job;
}

void zp_crew_cancel(zp_crew *crew, zp_job *job) {
  zp_member *member = job->member;
  pthread_mutex_lock(&crew->lock);
  member->is_dismissed = true; /* it has been told to stop, so it cannot wait for anything again */
  pthread_mutex_unlock(&crew->lock);
  zp_thread_stop(member->thread, false);
}

void zp_crew_close(zp_crew **handle) {
  zp_crew *crew = *handle;
  if (!crew) return;
  *handle = NULL;
  while (crew->idle) {
    zp_member *member = crew->idle;
    crew->idle = member->next;
    dismiss(crew, member);
  }
  for (zp_member *member = crew->leaving; member; member = crew->leaving) {
    while (zp_thread_wait(member->thread, ZP_FOREVER) == ZP_EINTR) continue;
    crew->leaving = member->next;
    free_member(member);
  }
  pthread_mutex_destroy(&crew->lock);
  free(crew);
}
