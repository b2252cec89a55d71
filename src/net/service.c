#include "net/service.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/random.h"
#include "net/doorman.h"
#include "net/frames.h"
#include "net/keys.h"
#include "net/lib.h"
#include "net/porch.h"
#include "net/sessions.h"
#include "store/holder.h"
#include "sys/inet.h"
#include "sys/memory.h"
#include "sys/secret.h"
#include "sys/thread.h"

enum {
  HANDSHAKE_MILLISECONDS = 5000,
  PORCH_MAX = 4096,         /* connections that have yet to show that somebody means well */
  TICK_MILLISECONDS = 250,  /* between looks at the clock and at the descriptors */
  DESCRIPTORS_SPARE = 128,  /* that are kept for other things than connections */
  RECEIVED_MAX = 16,        /* messages of a client that ZeroMQ keeps: it has one request under way. (Of those to it there may be more:
                               ZeroMQ notices late that they have gone, and drops what goes beyond.) */
  KEEP = 1 << 16,           /* bytes of buffers */
  PORTION = 16 << 20        /* bytes of a message that are joined between two returns of what its frames took */
};
static const double NOTICE_SECONDS = 1, RARE_NOTICE_SECONDS = 5, IDLE_NOTICE_SECONDS = 30, GRACE_SECONDS = 5, SETTLE_SECONDS = 5;
static const double FREEING_SECONDS = 2; /* that ZeroMQ may take to free what closed connections had */
static const char BELL[] = "inproc://bell";
static const struct timespec MOMENT = {.tv_nsec = 1000000};

typedef struct door {
  int fd; /* the caller's */
  char endpoint[ZP_INET_NAME_SIZE + 8];
  bool is_open;
} door;

struct zp_service {
  char *directory;
  zp_thread *thread;
  _Atomic bool is_to_stop;
  void *context, *router;
  void *bell; /* a socket that leads to the router, by which other threads wake this one; used by whoever holds the crew's lock */
  zp_doorman *doorman;
  zp_porch *porch; /* of the router */
  zp_keys *keys; /* NULL: none */
  door doors[1 + ZP_SERVICE_LISTENERS_MAX];
  size_t door_count;
  bool is_shut;
  uint64_t incarnation;
  zp_sessions sessions;
  zp_runner *runner;
  zp_crew *crew;
  zp_executor *executor;
  zp_buf message; /* what was received last, if it came in several frames */
  zp_answer answer;
  zp_answer lost, too_large; /* that there was no memory for an answer: to something that may have changed, to anything else */
  double tick_at;
  size_t memory;        /* bytes that clients may take up */
  size_t memory_before; /* bytes that the process has without what they take up, as far as is known */
};

/* ---- sending ---- */

static zp_wire_head head_of(const zp_service *self, const zp_session *session, uint64_t sequence, const zp_answer *answer) {
  zp_wire_head head = {.magic = ZP_WIRE_MAGIC, .version = ZP_WIRE_VERSION, .type = (uint16_t)answer->type, .sequence = sequence,
                       .incarnation = self->incarnation};
  memcpy(head.client, session->client, sizeof head.client);
  return head;
}

static zp_bytes route_of(const zp_session *session) { return (zp_bytes){session->route, session->route_size}; }

/* 0, or an errno. What cannot go out now is not kept here: the client will ask for it again. */
static int send_answer(zp_service *self, zp_session *session, uint64_t sequence, const zp_answer *answer) {
  zp_wire_head head = head_of(self, session, sequence, answer);
  return zp_frames_send(self->router, route_of(session), (zp_bytes){&head, sizeof head}, zp_buf_bytes(&answer->body));
}

/* To the last request, for whose answer there is no memory. */
static void send_failure(zp_service *self, zp_session *session) {
  send_answer(self, session, session->last, zp_request_changes(session->last_type) ? &self->lost : &self->too_large);
}

static int send_plain(zp_service *self, zp_session *session, uint64_t sequence, zp_answer_type type) {
  zp_answer answer = {.type = type};
  return send_answer(self, session, sequence, &answer);
}

/* ---- requests ---- */

static void send_kept(zp_service *self, zp_session *session) {
  bool is_lost = session->answer.body.size == 0 || send_answer(self, session, session->last, &session->answer) == ENOMEM;
  if (is_lost) send_failure(self, session);
}

/* The answer to the last request of the session, which keeps it if the request must not be repeated. */
static void finish(zp_service *self, zp_session *session, zp_answer *answer) {
  session->is_done = true;
  session->has_answer = zp_request_changes(session->last_type);
  if (session->has_answer) {
    zp_answer other = session->answer;
    session->answer = *answer;
    *answer = other;
    send_kept(self, session);
  } else {
    zp_wire_head head = head_of(self, session, session->last, answer);
    if (zp_frames_give(self->router, route_of(session), (zp_bytes){&head, sizeof head}, &answer->body) == ENOMEM) send_failure(self, session);
  }
}

/* The parcel of a request as a buffer of its own. One that has come in several frames is large, and is not copied: it is moved. */
static int take_body(zp_service *self, zp_bytes body, zp_buf *out) {
  const unsigned char *from = body.data;
  zp_buf_clear(out, KEEP);
  bool is_own = self->message.size > 0 && from >= self->message.data && from + body.size == self->message.data + self->message.size;
  if (!is_own) return zp_buf_append(out, body.data, body.size);
  zp_buf other = *out;
  *out = self->message;
  self->message = other;
  self->message.size = 0;
  memmove(out->data, from, body.size);
  out->size = body.size;
  return 0;
}

static void start_job(zp_service *self, zp_session *session, zp_bytes body) {
  zp_job *job = &session->job;
  job->type = session->last_type;
  job->seat = &session->seat;
  job->context = session;
  int rc = take_body(self, body, &job->body);
  if (!rc) rc = zp_crew_start(self->crew, job);
  if (!rc) {
    session->is_running = true;
    return;
  }
  zp_answer_fail(&self->answer, rc, NULL);
  finish(self, session, &self->answer);
}

/* A worker has died, as the one who has started it says. */
static int take_death(zp_service *self, const zp_parcel *parcel) {
  zp_session *worker = zp_sessions_find(&self->sessions, parcel->strings[0].data);
  if (worker) {
    worker->has_died = true;
    worker->died_of = parcel->numbers[0];
    worker->died_of_span = parcel->numbers[1];
    zp_sessions_dismiss(worker);
    if (worker->is_running) zp_crew_cancel(self->crew, &worker->job);
  }
  return zp_answer_done(&self->answer, &(zp_parcel){.number_count = 0});
}

static void begin(zp_service *self, zp_session *session, const zp_wire_head *head, zp_bytes body) {
  zp_parcel parcel;
  session->last = head->sequence;
  session->last_type = head->type;
  session->is_done = session->has_answer = false;
  zp_buf_clear(&session->answer.body, KEEP); /* nobody wants the last one any more */
  if (body.size > ZP_EXECUTE_LARGE) { /* even to read it takes time */
    start_job(self, session, body);
    return;
  }
  int rc = zp_request_read(head->type, body, &parcel);
  if (rc) {
    zp_answer_fail(&self->answer, rc, NULL);
  } else if (head->type == ZP_REQUEST_WORKER_DIED) {
    rc = take_death(self, &parcel);
    if (rc) zp_answer_fail(&self->answer, rc, NULL);
  } else {
    rc = zp_execute(self->executor, &session->seat, head->type, &parcel, false, &self->answer);
    if (rc == ZP_EBUSY) {
      start_job(self, session, body);
      return;
    }
    if (rc) zp_answer_fail(&self->answer, rc, NULL);
  }
  finish(self, session, &self->answer);
}

/* The number of the request that waits for the end of another one; 0: none does. */
static uint64_t parked_sequence(const zp_session *session) {
  zp_wire_head head;
  zp_bytes body;
  return session->parked.size > 0 && zp_wire_read_head(zp_buf_bytes(&session->parked), &head, &body) == 0 ? head.sequence : 0;
}

/* A new request, or one that came before. */
static void take_request(zp_service *self, zp_session *session, const zp_wire_head *head, zp_bytes body) {
  if (head->type == ZP_REQUEST_HELLO) session->is_greeted = true;
  if (head->sequence < session->last || head->sequence == 0 || head->sequence < parked_sequence(session)) return; /* overtaken */
  if (!session->is_greeted) {
    send_plain(self, session, head->sequence, ZP_ANSWER_STRANGER);
    return;
  }
  if (head->sequence == session->last) {
    if (!session->is_done) return; /* it is being worked on */
    if (session->has_answer) send_kept(self, session);
    else if (!zp_request_changes(head->type)) begin(self, session, head, body);
    return;
  }
  if (!session->is_running) {
    begin(self, session, head, body);
    return;
  }
  /* The client has given up what runs. */
  zp_crew_cancel(self->crew, &session->job);
  zp_buf_clear(&session->parked, KEEP);
  if (zp_buf_append(&session->parked, head, sizeof *head) || zp_buf_append(&session->parked, body.data, body.size)) session->parked.size = 0;
}

/* The client waits, and may want to know whom for. What this process itself writes for others takes no time, but for a function of its script. */
static void send_running(zp_service *self, zp_session *session, uint64_t sequence) {
  static const double LONG_SECONDS = 1.5;
  zp_holder holder;
  char words[ZP_HOLDER_WORDS];
  bool is_write = session->is_running && sequence == session->last && zp_request_is_write(session->last_type);
  if (is_write && zp_store_find_holder(self->directory, &holder) && holder.seconds >= LONG_SECONDS && (holder.pid != getpid() || holder.place[0])) {
    zp_answer_running(&self->answer, zp_holder_words(&holder, words));
    send_answer(self, session, sequence, &self->answer);
  } else {
    send_plain(self, session, sequence, ZP_ANSWER_RUNNING);
  }
}

static bool is_kept(const zp_session *session, uint64_t sequence) { return session->has_answer && sequence == session->last; }

/* Until a session has seen a request it cannot tell what was never seen from what one before it has done. */
static void take_probe(zp_service *self, zp_session *session, uint64_t sequence) {
  bool is_parked = session->parked.size > 0;
  if (session->last == 0) send_plain(self, session, sequence, ZP_ANSWER_FORGOTTEN);
  else if (is_parked || (sequence == session->last && !session->is_done)) send_running(self, session, sequence);
  else if (is_kept(session, sequence)) send_plain(self, session, sequence, ZP_ANSWER_KEPT);
  else if (sequence >= session->last) send_plain(self, session, sequence, ZP_ANSWER_NOT_SEEN);
}

static void take_fetch(zp_service *self, zp_session *session, uint64_t sequence) {
  if (is_kept(session, sequence)) send_kept(self, session);
  else take_probe(self, session, sequence);
}

/* The client has given up a request: the one that runs, or the one that waits for its end. */
static void take_cancel(zp_service *self, zp_session *session, uint64_t sequence) {
  if (session->is_running && session->last == sequence) zp_crew_cancel(self->crew, &session->job);
  if (parked_sequence(session) == sequence) zp_buf_free(&session->parked);
}

/* Requests about requests, and such as have no answer. False: it is none of them. */
static bool take_special(zp_service *self, zp_session *session, const zp_wire_head *head, zp_bytes body) {
  zp_parcel parcel;
  if (head->type != ZP_REQUEST_PROBE && head->type != ZP_REQUEST_FETCH && !zp_request_is_mute(head->type)) return false;
  if (body.size > ZP_EXECUTE_LARGE || zp_request_read(head->type, body, &parcel)) return true;
  uint64_t number = parcel.numbers[0];
  if (head->type == ZP_REQUEST_PROBE) take_probe(self, session, number);
  else if (head->type == ZP_REQUEST_FETCH) take_fetch(self, session, number);
  else take_cancel(self, session, number);
  return true;
}

/* Forget a client that runs nothing any more. Settling what it leaves may have to wait for others, so it is a job, too; if it cannot be
   done now, it is tried again. */
static void bury(zp_service *self, zp_session *session) {
  zp_job *job = &session->job;
  if (!session->seat.queue) {
    zp_sessions_remove(&self->sessions, session);
    return;
  }
  job->is_farewell = true;
  job->has_died = session->has_died;
  job->died_of = session->died_of;
  job->died_of_span = session->died_of_span;
  job->seat = &session->seat;
  job->context = session;
  session->is_running = zp_crew_start(self->crew, job) == 0;
}

/* A session for a client that has none. Where there are many already the one that nobody would miss gives way. NULL if there is none such, or
   no memory. */
static zp_session *admit(zp_service *self, const unsigned char *client) {
  if (self->sessions.count >= ZP_SESSIONS_MAX && self->sessions.count < ZP_SESSIONS_MAX + ZP_SESSIONS_LEAVING) {
    zp_session *idle = zp_sessions_idlest(&self->sessions);
    if (!idle) return NULL;
    zp_sessions_dismiss(idle);
    bury(self, idle);
  }
  return zp_sessions_add(&self->sessions, client);
}

static void refuse(zp_service *self, const unsigned char *route, size_t route_size, const zp_wire_head *head, const char *words) {
  zp_session nobody = {.route_size = route_size};
  memcpy(nobody.client, head->client, sizeof nobody.client);
  memcpy(nobody.route, route, route_size);
  zp_answer_refuse(&self->answer, words);
  send_answer(self, &nobody, head->sequence, &self->answer);
}

static void take_message(zp_service *self, const unsigned char *route, size_t route_size, zp_bytes bytes) {
  zp_wire_head head;
  zp_bytes body;
  if (atomic_load(&self->is_to_stop)) return; /* nothing new is begun */
  if (zp_wire_read_head(bytes, &head, &body)) return; /* whatever it is, there is nothing to say to it */
  if (head.version != ZP_WIRE_VERSION) {
    char words[128];
    snprintf(words, sizeof words, "it speaks version %d of the protocol, not %u", (int)ZP_WIRE_VERSION, head.version);
    refuse(self, route, route_size, &head, words);
    return;
  }
  zp_session *session = zp_sessions_find(&self->sessions, head.client);
  if (!session) session = admit(self, head.client);
  if (!session) {
    refuse(self, route, route_size, &head, "it has too many clients");
    return;
  }
  zp_sessions_touch(&self->sessions, session);
  memcpy(session->route, route, route_size);
  session->route_size = route_size;
  if (!take_special(self, session, &head, body)) take_request(self, session, &head, body);
}

/* ---- receiving ---- */

/* The next message, which is waited for: its frames come together. */
static void receive(zp_service *self) {
  if (!self->router) {
    nanosleep(&MOMENT, NULL);
    return;
  }
  zmq_msg_t frame;
  unsigned char route[ZP_ROUTE_MAX];
  size_t route_size = 0;
  bool is_sound = true, is_first = true, more = true;
  size_t returned = 0;
  self->message.size = 0;
  for (int i = 0; more; i++) {
    zp_zmq->msg_init(&frame);
    int n;
    do n = zp_zmq->msg_recv(&frame, self->router, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
      zp_zmq->msg_close(&frame);
      return;
    }
    more = zp_zmq->msg_more(&frame);
    if (i == 0) zp_porch_admit(self->porch, &frame);
    zp_bytes bytes = {zp_zmq->msg_data(&frame), zp_zmq->msg_size(&frame)};
    if (i == 0) {
      is_sound = bytes.size <= sizeof route && more;
      route_size = is_sound ? bytes.size : 0;
      memcpy(route, bytes.data, route_size);
    } else if (i == 1 && !more) {
      if (is_sound) take_message(self, route, route_size, bytes);
      is_first = false;
    } else if (is_sound) {
      is_sound = self->message.size + bytes.size <= ZP_WIRE_MESSAGE_MAX && zp_buf_append(&self->message, bytes.data, bytes.size) == 0;
    }
    zp_zmq->msg_close(&frame);
    /* Frames are freed as they are joined, but the allocator keeps their pages: a large message would take twice its size. */
    if (self->message.size - returned >= PORTION) {
      zp_memory_trim();
      returned = self->message.size;
    }
  }
  if (is_first && is_sound) take_message(self, route, route_size, zp_buf_bytes(&self->message));
  zp_buf_clear(&self->message, KEEP);
}

/* ---- what is finished, and clients that leave ---- */

static void take_finished(zp_service *self) {
  zp_job *job;
  while ((job = zp_crew_take(self->crew))) {
    zp_session *session = job->context;
    session->is_running = false;
    if (job->is_farewell) {
      if (job->rc == 0) zp_sessions_remove(&self->sessions, session);
      continue;
    }
    if (job->rc == 0) finish(self, session, &job->answer);
    else session->is_done = true; /* cancelled: nobody wants to know */
    zp_buf_clear(&job->answer.body, KEEP);
    zp_buf_clear(&job->body, KEEP);
    if (session->is_leaving) {
      bury(self, session);
    } else if (session->parked.size > 0) {
      zp_buf parked = session->parked;
      session->parked = (zp_buf)ZP_BUF_INIT;
      zp_wire_head head;
      zp_bytes body;
      if (zp_wire_read_head(zp_buf_bytes(&parked), &head, &body) == 0) begin(self, session, &head, body);
      zp_buf_free(&parked);
    }
  }
}

/* Whether the client can be reached, asked by a message to it. */
static void notice(zp_service *self, zp_session *session, double now) {
  session->noticed = now;
  if (send_plain(self, session, 0, ZP_ANSWER_NOTICE) != EHOSTUNREACH) session->unreachable_since = 0;
  else if (session->unreachable_since == 0) session->unreachable_since = now;
}

/* Seconds between notices to a client. One that matters is asked often, but not for ever: it reads none while it works on an item. */
static double notice_interval(const zp_session *session, double now) {
  static const double SHARE = 1.0 / 64; /* of its silence */
  double seconds = (now - session->heard) * SHARE;
  if (!zp_session_matters(session)) return IDLE_NOTICE_SECONDS;
  return seconds < NOTICE_SECONDS ? NOTICE_SECONDS : seconds < RARE_NOTICE_SECONDS ? seconds : RARE_NOTICE_SECONDS;
}

static void look_after_sessions(zp_service *self, double now) {
  for (zp_session *session = TAILQ_FIRST(&self->sessions.order), *next; session; session = next) {
    next = TAILQ_NEXT(session, in_order);
    double quiet = now - (session->heard > session->noticed ? session->heard : session->noticed);
    if (session->is_leaving) {
      if (!session->is_running) bury(self, session);
      continue;
    }
    if (quiet >= notice_interval(session, now)) notice(self, session, now);
    /* Also of those for whom nothing runs: the answer to what has just ended may be what they come back for. */
    if (session->unreachable_since == 0 || now - session->unreachable_since < GRACE_SECONDS) continue;
    zp_sessions_dismiss(session);
    if (session->is_running) zp_crew_cancel(self->crew, &session->job);
    else bury(self, session);
  }
}

/* ---- the router ---- */

static int set_int(void *socket, int option, int value) { return zp_zmq->setsockopt(socket, option, &value, sizeof value); }

static int require_keys(zp_service *self) {
  int failed = set_int(self->router, ZMQ_CURVE_SERVER, 1) |
               zp_zmq->setsockopt(self->router, ZMQ_CURVE_SECRETKEY, self->keys->server_secret, ZP_KEY_BYTES) |
               zp_zmq->setsockopt(self->router, ZMQ_ZAP_DOMAIN, ZP_DOORMAN_DOMAIN, strlen(ZP_DOORMAN_DOMAIN));
  return failed ? zp_lib_fail("cannot check the keys of clients") : 0;
}

/* Before there are keys to be had: messages within this process go without. */
static int hang_bell(zp_service *self) {
  self->bell = zp_zmq->socket(self->context, ZMQ_DEALER);
  if (!self->bell || set_int(self->bell, ZMQ_LINGER, 0) < 0 || zp_zmq->bind(self->router, BELL) < 0 ||
      zp_zmq->connect(self->bell, BELL) < 0)
    return zp_lib_fail("cannot serve the network");
  return 0;
}

/* Without doors yet. */
static int make_router(zp_service *self) {
  self->router = zp_zmq->socket(self->context, ZMQ_ROUTER);
  if (!self->router) return zp_lib_fail("cannot serve the network");
  int64_t frame_max = ZP_WIRE_FRAME_MAX;
  int failed = set_int(self->router, ZMQ_LINGER, 0) | set_int(self->router, ZMQ_ROUTER_MANDATORY, 1) |
               set_int(self->router, ZMQ_IPV6, 1) |
               set_int(self->router, ZMQ_HEARTBEAT_IVL, ZP_HEARTBEAT_MILLISECONDS) |
               set_int(self->router, ZMQ_HEARTBEAT_TIMEOUT, ZP_HEARTBEAT_TIMEOUT_MILLISECONDS) |
               set_int(self->router, ZMQ_HEARTBEAT_TTL, ZP_HEARTBEAT_TIMEOUT_MILLISECONDS) |
               set_int(self->router, ZMQ_RCVHWM, RECEIVED_MAX) |
               set_int(self->router, ZMQ_RCVTIMEO, TICK_MILLISECONDS) |
               set_int(self->router, ZMQ_HANDSHAKE_IVL, HANDSHAKE_MILLISECONDS) | set_int(self->router, ZMQ_BACKLOG, 1024) |
               zp_zmq->setsockopt(self->router, ZMQ_MAXMSGSIZE, &frame_max, sizeof frame_max);
  if (failed) return zp_lib_fail("cannot serve the network");
  int rc = zp_porch_open(self->context, self->router, &self->porch);
  if (!rc) rc = hang_bell(self);
  return !rc && self->keys ? require_keys(self) : rc;
}

/* The doors and all connections go with it. The doors of the next are opened like those that were shut. */
static void close_router(zp_service *self) {
  zp_porch_close(&self->porch);
  if (self->bell) zp_zmq->close(self->bell);
  if (self->router) {
    zp_zmq->unbind(self->router, BELL); /* at once: a name is taken until its socket is wound up */
    zp_zmq->close(self->router);
  }
  self->bell = self->router = NULL;
  for (size_t i = 0; i < self->door_count; i++) self->doors[i].is_open = false;
  self->is_shut = true;
}

/* ---- doors ---- */

static int open_door(zp_service *self, door *one) {
  int fd = fcntl(one->fd, F_DUPFD_CLOEXEC, 0); /* ZeroMQ closes what it is given */
  if (fd < 0) return zp_fail_errno("cannot listen at %s", one->endpoint);
  int rc = zp_zmq->setsockopt(self->router, ZMQ_USE_FD, &fd, sizeof fd);
  if (rc == 0) rc = zp_zmq->bind(self->router, one->endpoint);
  if (rc < 0) {
    rc = zp_lib_fail("cannot listen");
    close(fd);
    return rc;
  }
  one->is_open = true;
  return 0;
}

/* When descriptors run short nobody new is let in: connections then wait at the socket, which is open all the same. Half-open ones are
   closed in time, so there will be room again. */
static void mind_doors(zp_service *self) {
  struct rlimit limit;
  int lowest = eventfd(0, EFD_CLOEXEC);
  if (lowest >= 0) close(lowest);
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  rlim_t spare = limit.rlim_cur / 8 > DESCRIPTORS_SPARE ? DESCRIPTORS_SPARE : limit.rlim_cur / 8;
  bool is_short = lowest < 0 || (rlim_t)lowest + spare > limit.rlim_cur;
  bool is_ample = lowest >= 0 && (rlim_t)lowest + 2 * spare < limit.rlim_cur;
  if (is_short && !self->is_shut) {
    self->is_shut = true;
    for (size_t i = 0; i < self->door_count; i++)
      if (self->doors[i].is_open && zp_zmq->unbind(self->router, self->doors[i].endpoint) == 0) self->doors[i].is_open = false;
  } else if (is_ample && self->is_shut) {
    bool all = true;
    for (size_t i = 0; i < self->door_count; i++)
      if (!self->doors[i].is_open && open_door(self, &self->doors[i])) all = false;
    self->is_shut = !all;
  }
}

/* ---- memory ---- */

/* Kept answers stay when connections are closed: those who have lost theirs come back for them. But they are what clients take up, too; of
   what goes beyond a share of that, the owners are told that it is lost. Gives how many bytes are kept. */
static size_t limit_answers(zp_service *self) {
  size_t kept = 0, most = self->memory / 4;
  zp_session *session;
  TAILQ_FOREACH_REVERSE(session, &self->sessions.order, zp_session_order, in_order) {
    if (session->answer.body.size > most - kept) zp_buf_free(&session->answer.body);
    kept += session->answer.body.size;
  }
  return kept;
}

static void replace_router(void *context) {
  zp_service *self = context;
  close_router(self);
  limit_answers(self);
  double latest = zp_clock_now() + FREEING_SECONDS;
  size_t enough = self->memory_before + self->memory / 2;
  while (zp_memory_private() > enough && zp_clock_now() < latest && !atomic_load(&self->is_to_stop)) {
    nanosleep(&MOMENT, NULL);
    zp_memory_trim();
  }
  if (make_router(self)) close_router(self); /* the next tick tries again */
}

static bool has_grown(zp_service *self) {
  size_t now = zp_memory_private();
  if (now < self->memory_before) self->memory_before = now;
  if (now - self->memory_before <= self->memory) return false;
  zp_memory_trim();
  return zp_memory_private() > self->memory_before + self->memory;
}

/* Close all connections if what they hold may be too much. What the process has then, but for kept answers, is not theirs. */
static void mind_memory(zp_service *self) {
  if (self->router && !has_grown(self)) return;
  zp_crew_hold(self->crew, replace_router, self); /* nobody rings the bell meanwhile */
  size_t now = zp_memory_private(), kept = limit_answers(self);
  self->memory_before = now > kept ? now - kept : 0;
}

/* Strangers get a share of the descriptors, so that those who are known find some. */
static void mind_porch(zp_service *self, double now) {
  struct rlimit limit;
  size_t most = PORCH_MAX;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 8 < most) most = (size_t)limit.rlim_cur / 8;
  if (self->porch) zp_porch_mind(self->porch, now, most);
}

static void tick(zp_service *self) {
  double now = zp_clock_now();
  if (now < self->tick_at) return;
  self->tick_at = now + TICK_MILLISECONDS / 1e3;
  look_after_sessions(self, now);
  mind_porch(self, now);
  mind_memory(self);
  mind_doors(self);
}

/* ---- the thread ---- */

static int run(void *context, zp_buf *message) {
  (void)message;
  zp_service *self = context;
  double latest = zp_clock_now() + SETTLE_SECONDS;
  while (!atomic_load(&self->is_to_stop) && !zp_runner_is_settled(self->runner) && zp_clock_now() < latest) nanosleep(&MOMENT, NULL);
  self->memory_before = zp_memory_private();
  while (!atomic_load(&self->is_to_stop)) {
    receive(self); /* or, after TICK_MILLISECONDS, there is none; one that is empty is the bell */
    take_finished(self);
    tick(self);
  }
  return EXIT_SUCCESS;
}

/* Let the thread look for what is finished, or whether it is to stop. */
static void ring(void *context) {
  zp_service *self = context;
  if (self->bell) zp_zmq->send(self->bell, "", 0, ZMQ_DONTWAIT); /* if there are too many already, one of these will do */
}

/* ---- starting and stopping ---- */

/* Where the path is too long for a socket address of ZeroMQ's, there is only TCP. */
static int name_local_door(const zp_service *self, door *one) {
  static const char scheme[] = "ipc://";
  int size = snprintf(one->endpoint, sizeof one->endpoint, "%s%s/%s", scheme, self->directory, ZP_SERVICE_SOCKET);
  if ((size_t)size - strlen(scheme) < sizeof((struct sockaddr_un *)NULL)->sun_path) return 0;
  return zp_fail(ZP_ESYS, "the path %s is too long for the network's socket", self->directory);
}

static int name_tcp_door(door *one) {
  char name[ZP_INET_NAME_SIZE];
  bool is_loopback;
  int rc = zp_inet_name(one->fd, name, &is_loopback);
  if (!rc) snprintf(one->endpoint, sizeof one->endpoint, "tcp://%s", name);
  return rc;
}

static int open_doors(zp_service *self, int local, const int *listeners, size_t count) {
  int rc = 0;
  if (local >= 0) {
    door *one = &self->doors[0];
    one->fd = local;
    rc = name_local_door(self, one);
    if (!rc) self->door_count++;
    else if (count > 0) rc = 0;
  }
  for (size_t i = 0; i < count && !rc; i++) {
    door *one = &self->doors[self->door_count++];
    one->fd = listeners[i];
    rc = name_tcp_door(one);
  }
  for (size_t i = 0; i < self->door_count && !rc; i++) rc = open_door(self, &self->doors[i]);
  return rc;
}

/* Free what there is; the thread does not run. */
static void tear_down(zp_service *self) {
  for (zp_session *session; (session = TAILQ_FIRST(&self->sessions.order));) {
    zp_seat_leave(&session->seat, false); /* or it is found to be a dead server's */
    zp_sessions_remove(&self->sessions, session);
  }
  zp_crew_close(&self->crew);
  zp_runner_close(&self->runner);
  zp_executor_close(&self->executor);
  close_router(self);
  if (self->context) zp_zmq->ctx_shutdown(self->context);
  zp_doorman_stop(&self->doorman);
  if (self->context) zp_zmq->ctx_term(self->context);
  zp_buf_free(&self->message);
  zp_buf_free(&self->answer.body);
  zp_buf_free(&self->lost.body);
  zp_buf_free(&self->too_large.body);
  zp_secret_free(self->keys, sizeof *self->keys);
  free(self->directory);
  free(self);
}

/* While there is memory. */
static int prepare_lost(zp_service *self) {
  zp_answer_fail(&self->lost, zp_fail(ZP_ESTALE, "the server has no memory for the answer; what was asked for may have happened, or not"), NULL);
  zp_answer_fail(&self->too_large, zp_fail(ZP_ENOMEM, "the server has no memory for the answer"), NULL);
  if (self->lost.body.size > 0 && self->too_large.body.size > 0) return 0;
  return zp_fail(ZP_ENOMEM, "out of memory: cannot serve the network");
}

static int set_up(zp_service *self, int local, const int *listeners, size_t count) {
  int rc = prepare_lost(self);
  if (!rc) rc = zp_lib_load_zmq();
  if (!rc) self->keys = zp_secret_new(sizeof *self->keys);
  if (!rc) rc = self->keys ? zp_keys_read(self->directory, self->keys) : ZP_ENOMEM;
  if (rc < 0) return rc;
  if (rc == 0) {
    zp_secret_free(self->keys, sizeof *self->keys);
    self->keys = NULL;
  }
  rc = self->keys ? zp_lib_load_sodium() : 0;
  if (self->incarnation == 0) self->incarnation = zp_random_number();
  if (!rc) rc = zp_runner_open(self->directory, &self->runner);
  if (!rc) rc = zp_crew_open(self->directory, self->runner, ring, self, &self->crew);
  if (!rc) rc = zp_executor_open(self->directory, self->runner, &self->executor);
  if (!rc) rc = zp_lib_context(&self->context);
  if (!rc && self->keys) rc = zp_doorman_start(self->context, self->keys, &self->doorman);
  if (!rc) rc = make_router(self);
  if (!rc) rc = open_doors(self, local, listeners, count);
  return rc ? rc : zp_thread_start(run, self, &self->thread);
}

int zp_service_start(const char *directory, int local, const int *listeners, size_t count, size_t memory, zp_service **out) {
  *out = NULL;
  zp_service *self = calloc(1, sizeof *self);
  if (self) self->directory = strdup(directory);
  if (!self || !self->directory) {
    free(self);
    return zp_fail(ZP_ENOMEM, "out of memory: cannot serve the network");
  }
  self->memory = memory ? memory : zp_memory_limit() / 2;
  zp_sessions_init(&self->sessions);
  int rc = set_up(self, local, listeners, count);
  if (rc) tear_down(self);
  else *out = self;
  return rc;
}

void zp_service_stop(zp_service **handle) {
  zp_service *self = *handle;
  if (!self) return;
  *handle = NULL;
  atomic_store(&self->is_to_stop, true);
  zp_crew_wake(self->crew);
  while (zp_thread_wait(self->thread, ZP_FOREVER) == ZP_EINTR) continue;
  zp_thread_close(&self->thread);
  /* What runs is told to end; then nothing is left that uses a session. */
  zp_session *session;
  size_t running = 0;
  TAILQ_FOREACH(session, &self->sessions.order, in_order) {
    if (!session->is_running) continue;
    zp_crew_cancel(self->crew, &session->job);
    running++;
  }
  while (running > 0) {
    receive(self); /* the bell */
    while (zp_crew_take(self->crew)) running--;
  }
  tear_down(self);
}
