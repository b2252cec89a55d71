#include "net/remote.h"

#include <errno.h>
#include <limits.h>
#include <linux/tcp.h> /* the system's own, which knows of the bytes */
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/random.h"
#include "net/frames.h"
#include "net/lib.h"
#include "sys/alive.h"
#include "sys/inet.h"
#include "sys/interrupt.h"
#include "sys/procfile.h"
#include "sys/secret.h"
#include "sys/sock.h"
#include "sys/trust.h"

static const double PROBE_FIRST = 0.25, PROBE_LAST = 5; /* seconds between questions after a request */
static const double CONNECT_SECONDS = 10;               /* for the first look whether somebody is there */
static const double REFUSED_SECONDS = 3;                /* for which nobody listens before the server counts as lost */
static const double GLANCE_SECONDS = 0.2;               /* for a look while an answer is awaited */
enum {
  ATTEMPTS_MAX = 20, /* to get a request to a server that then does not know of it: because it dies of it, or has no memory for it */
  REFUSALS_MAX = 3, /* handshakes that the other end breaks off without a word */
  PATIENT_MILLISECONDS = 5,
  PROGRESS = 1 << 14, /* bytes between two looks, at least, of a message under way: far more than heartbeats have */
  KEEP = 1 << 16,   /* bytes of buffers */
  NOTICES_MAX = 100000 /* that may wait while we do something else: with more ZeroMQ stops reading, and hears no heartbeats */
};

struct zp_remote {
  char *endpoint;
  char reached[ZP_INET_NAME_SIZE + 64]; /* the endpoint by number: of several addresses of a host the one at which somebody listens; on this
                                           machine the directory that was found to be a trusted user's, whatever its name leads to later */
  int held; /* that directory, for as long as there is a connection; -1: none */
  zp_keys *keys; /* NULL: none */
  unsigned generation; /* of the process whose connection it is */
  void *context, *socket, *monitor; /* NULL: not connected */
  int socket_fd, monitor_fd;        /* readable when there is something new after the last look */
  int connection_fd;                /* ZeroMQ's, of the connection; -1: there is none */
  uint64_t moved;                   /* bytes that had gone over it at the last look */
  unsigned char client[ZP_CLIENT_SIZE];
  uint64_t sequence, incarnation;
  uint64_t greeting_sequence; /* of the HELLO: requests may have been given up since */
  bool is_greeted;   /* the server has answered on this connection */
  bool is_under_way; /* there is a request; it was sent if is_greeted */
  int type;
  uint64_t state;    /* that the request is for; 0: any */
  uint64_t sent_to;  /* the incarnation that the request was sent to first */
  unsigned sendings; /* of the request */
  unsigned attempts; /* sendings since the server was last heard to work on it */
  zp_buf request;    /* head and parcel of the request */
  zp_buf greeting;   /* the same of a HELLO */
  zp_buf message;    /* what was received last */
  zp_buf pairs;
  zp_buf traceback;
  double heard, asked, probe_at, probe_wait;
  double begun;  /* with the request */
  bool has_told; /* who holds it up */
  int refusals;
  bool has_handshakes; /* there is something to be heard about them */
  bool is_retrying;    /* connecting has failed since something was heard */
  zp_remote_server server;
  char directory[4096];
};

/* ---- the connection ---- */

/* Counts forks; it begins with 1. */
static unsigned generation = 1;

static void count_fork(void) { generation++; }

static void watch_forks(void) { pthread_atfork(NULL, NULL, count_fork); }

int zp_remote_open(const char *endpoint, const zp_keys *keys, zp_remote **out) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  *out = NULL;
  pthread_once(&once, watch_forks);
  int rc = zp_lib_load_zmq();
  if (rc) return rc;
  zp_remote *self = calloc(1, sizeof *self);
  if (self) self->endpoint = strdup(endpoint);
  if (!self || !self->endpoint) {
    free(self);
    return zp_fail(ZP_ENOMEM, "out of memory: cannot connect to a server");
  }
  if (keys) self->keys = zp_secret_new(sizeof *keys);
  if (keys && !self->keys) {
    free(self->endpoint);
    free(self);
    return ZP_ENOMEM;
  }
  if (keys) *self->keys = *keys;
  self->server.directory = self->directory;
  self->held = -1;
  *out = self;
  return 0;
}

static void let_go(zp_remote *self) {
  if (self->held >= 0) close(self->held);
  self->held = -1;
}

/* A child leaves alone what it has inherited: it has not got the threads that belong to it. */
static void forget_if_inherited(zp_remote *self) {
  if (self->generation == generation) return;
  self->context = self->socket = self->monitor = NULL;
  let_go(self);
  self->is_greeted = self->is_under_way = false;
  self->sequence = 0;
  self->generation = generation;
  zp_random_fill(self->client, sizeof self->client);
}

static void disconnect(zp_remote *self) {
  if (self->monitor) zp_zmq->close(self->monitor);
  if (self->socket) zp_zmq->close(self->socket);
  if (self->context) zp_zmq->ctx_term(self->context);
  self->context = self->socket = self->monitor = NULL;
  let_go(self);
  self->is_greeted = self->is_under_way = false;
}

void zp_remote_close(zp_remote **handle) {
  zp_remote *self = *handle;
  if (!self) return;
  *handle = NULL;
  forget_if_inherited(self);
  disconnect(self);
  zp_buf_free(&self->request);
  zp_buf_free(&self->greeting);
  zp_buf_free(&self->message);
  zp_buf_free(&self->pairs);
  zp_buf_free(&self->traceback);
  zp_secret_free(self->keys, sizeof *self->keys);
  free(self->endpoint);
  free(self);
}

static const char IPC[] = "ipc://";

/* Whether anybody listens at an endpoint: ZeroMQ would go on trying for ever and say nothing. *fd: a connection, to be closed. */
static int dial(const char *endpoint, double deadline, int *fd) {
  if (strncmp(endpoint, IPC, strlen(IPC)) == 0) return zp_sock_connect_trusted(endpoint + strlen(IPC), deadline, fd);
  return zp_inet_connect(endpoint + strlen("tcp://"), deadline, fd);
}

/* Let ZeroMQ connect, and connect again, within the very directory that is looked at here. */
static int hold_directory(zp_remote *self) {
  char directory[PATH_MAX];
  const char *path = self->endpoint + strlen(IPC), *slash = strrchr(path, '/');
  if (!slash || strlen(path) >= sizeof directory) return zp_fail(ZP_ENOSTORE, "nobody listens at %s", self->endpoint);
  memcpy(directory, path, (size_t)(slash - path));
  directory[slash - path] = '\0';
  let_go(self);
  int rc = zp_trust_open_directory(directory, ZP_TRUST_PRIVATE, &self->held);
  if (!rc) snprintf(self->reached, sizeof self->reached, "%s/proc/self/fd/%d%.40s", IPC, self->held, slash);
  return rc;
}

/* Look for the server before ZeroMQ does. A host may have several addresses, of which ZeroMQ would take the first. */
static int look(zp_remote *self, double deadline) {
  int fd;
  char name[ZP_INET_NAME_SIZE];
  double latest = zp_clock_now() + CONNECT_SECONDS;
  double until = deadline < latest ? deadline : latest;
  bool is_tcp = strncmp(self->endpoint, "tcp://", 6) == 0;
  int rc = dial(self->endpoint, until, &fd);
  if (rc == ZP_ETIMEOUT && until < deadline) rc = zp_fail(ZP_ENOSTORE, "nobody answers at %s", self->endpoint);
  if (rc) return rc;
  if (is_tcp) rc = zp_inet_peer(fd, name);
  close(fd);
  if (is_tcp && !rc) snprintf(self->reached, sizeof self->reached, "tcp://%s", name);
  return rc || is_tcp ? rc : hold_directory(self);
}

/* What was reached, where that has a number. */
static const char *reached(const zp_remote *self) { return self->reached[0] ? self->reached : self->endpoint; }

static int set_int(void *socket, int option, int value) { return zp_zmq->setsockopt(socket, option, &value, sizeof value); }

/* The name that ZeroMQ has for us at the server, the same for each of its connections. Nobody else knows it; who knew could keep the server from
   hearing us. It is not our number, which others are told. */
static int set_options(zp_remote *self) {
  unsigned char route[ZP_CLIENT_SIZE];
  zp_random_fill(route, sizeof route);
  route[0] |= 1; /* ZeroMQ has names that begin with a zero for itself */
  int failed = set_int(self->socket, ZMQ_LINGER, 0) | set_int(self->socket, ZMQ_IPV6, 1) |
               set_int(self->socket, ZMQ_HEARTBEAT_IVL, ZP_HEARTBEAT_MILLISECONDS) |
               set_int(self->socket, ZMQ_HEARTBEAT_TIMEOUT, ZP_HEARTBEAT_TIMEOUT_MILLISECONDS) |
               set_int(self->socket, ZMQ_HEARTBEAT_TTL, ZP_HEARTBEAT_TIMEOUT_MILLISECONDS) |
               set_int(self->socket, ZMQ_RCVTIMEO, PATIENT_MILLISECONDS) |
               set_int(self->socket, ZMQ_RCVHWM, NOTICES_MAX) |
               set_int(self->socket, ZMQ_RECONNECT_IVL, 50) | set_int(self->socket, ZMQ_RECONNECT_IVL_MAX, 1000) |
               set_int(self->socket, ZMQ_PROBE_ROUTER, 1) | /* the server hears at once that a connection is ours */
               zp_zmq->setsockopt(self->socket, ZMQ_ROUTING_ID, route, sizeof route);
  if (!failed && self->keys)
    failed = zp_zmq->setsockopt(self->socket, ZMQ_CURVE_SERVERKEY, self->keys->server_public, ZP_KEY_BYTES) |
             zp_zmq->setsockopt(self->socket, ZMQ_CURVE_PUBLICKEY, self->keys->client_public, ZP_KEY_BYTES) |
             zp_zmq->setsockopt(self->socket, ZMQ_CURVE_SECRETKEY, self->keys->client_secret, ZP_KEY_BYTES);
  return failed ? zp_lib_fail("cannot set up a connection") : 0;
}

static int watch_handshakes(zp_remote *self) {
  static const char address[] = "inproc://handshakes";
  int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
               ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_CONNECTED | ZMQ_EVENT_DISCONNECTED;
  self->monitor = zp_zmq->socket(self->context, ZMQ_PAIR);
  if (!self->monitor || set_int(self->monitor, ZMQ_LINGER, 0) < 0 || zp_zmq->socket_monitor(self->socket, address, events) < 0 ||
      zp_zmq->connect(self->monitor, address) < 0)
    return zp_lib_fail("cannot set up a connection");
  return 0;
}

static int descriptor_of(void *socket) {
  int fd = -1;
  size_t size = sizeof fd;
  zp_zmq->getsockopt(socket, ZMQ_FD, &fd, &size);
  return fd;
}

static int make_sockets(zp_remote *self) {
  self->connection_fd = -1;
  int rc = zp_lib_context(&self->context);
  if (rc) return rc;
  self->socket = zp_zmq->socket(self->context, ZMQ_DEALER);
  if (!self->socket) return zp_lib_fail("cannot set up a connection");
  rc = set_options(self);
  if (!rc) rc = watch_handshakes(self);
  if (!rc && zp_zmq->connect(self->socket, reached(self)) < 0) rc = zp_lib_fail("cannot connect");
  self->has_handshakes = true;
  if (!rc) {
    self->socket_fd = descriptor_of(self->socket);
    self->monitor_fd = descriptor_of(self->monitor);
  }
  return rc;
}

/* ---- sending ---- */

/* A message that does not go out now is asked after later. */
static int send_bytes(zp_remote *self, const zp_buf *bytes) {
  int number = zp_frames_send(self->socket, (zp_bytes){NULL, 0}, zp_buf_bytes(bytes), (zp_bytes){NULL, 0});
  if (number == 0 || number == EAGAIN) return 0;
  if (number == ENOMEM) return zp_fail(ZP_ENOMEM, "out of memory: cannot send to the server");
  errno = number;
  return zp_lib_fail("cannot send to the server");
}

static int compose(zp_remote *self, uint64_t sequence, int type, const zp_parcel *parcel, zp_buf *out) {
  zp_wire_head head = {.magic = ZP_WIRE_MAGIC, .version = ZP_WIRE_VERSION, .type = (uint16_t)type, .sequence = sequence,
                       .incarnation = self->incarnation};
  memcpy(head.client, self->client, sizeof head.client);
  zp_buf_clear(out, KEEP);
  int rc = zp_buf_append(out, &head, sizeof head);
  if (!rc) rc = zp_parcel_write(parcel, out);
  if (!rc && out->size > ZP_WIRE_MESSAGE_MAX)
    rc = zp_fail(ZP_EVALUE, "a request to a server elsewhere has at most %zu MB", ZP_WIRE_MESSAGE_MAX >> 20);
  return rc;
}

static void set_probe(zp_remote *self, double wait) {
  self->probe_wait = wait;
  self->probe_at = zp_clock_now() + wait;
}

static int send_request(zp_remote *self) {
  if (++self->attempts > ATTEMPTS_MAX)
    return zp_fail(ZP_ENOSTORE, "the server at %s was lost %d times on this request before it had taken it; nothing has happened",
                   self->endpoint, ATTEMPTS_MAX);
  /* Incarnation and number are known only now if the server was greeted after the request was composed. */
  zp_wire_head head;
  memcpy(&head, self->request.data, sizeof head);
  head.sequence = self->sequence;
  head.incarnation = self->sent_to = self->incarnation;
  self->sendings++;
  memcpy(self->request.data, &head, sizeof head);
  set_probe(self, PROBE_FIRST);
  return send_bytes(self, &self->request);
}

static void send_number(zp_remote *self, int type, uint64_t number) {
  zp_parcel parcel = {.number_count = 1, .numbers = {number}};
  zp_remote_tell(self, type, &parcel);
}

void zp_remote_tell(zp_remote *self, int type, const zp_parcel *request) {
  forget_if_inherited(self);
  if (!self->socket || !self->is_greeted) return;
  zp_buf bytes = ZP_BUF_INIT;
  if (compose(self, 0, type, request, &bytes) == 0) (void)send_bytes(self, &bytes);
  zp_buf_free(&bytes);
}

static int greet(zp_remote *self) {
  self->is_greeted = false;
  self->greeting_sequence = ++self->sequence;
  set_probe(self, PROBE_FIRST);
  int rc = compose(self, self->greeting_sequence, ZP_REQUEST_HELLO, &(zp_parcel){.number_count = 0}, &self->greeting);
  return rc ? rc : send_bytes(self, &self->greeting);
}

static int connect_and_greet(zp_remote *self, double deadline) {
  int rc = look(self, deadline);
  if (!rc) rc = make_sockets(self);
  self->refusals = 0;
  self->heard = zp_clock_now();
  if (!rc) rc = greet(self);
  if (rc) disconnect(self);
  return rc;
}

static int fail_other(const zp_remote *self) {
  return zp_fail(ZP_ENOSTORE, "the state that was at %s has ended; there is another one now", self->endpoint);
}

static bool is_other(const zp_remote *self) { return self->state && self->state != self->server.identity; }

int zp_remote_begin(zp_remote *self, uint64_t state, int type, const zp_parcel *request, double deadline) {
  forget_if_inherited(self);
  zp_remote_abandon(self);
  int rc = self->socket ? 0 : connect_and_greet(self, deadline);
  if (!rc) rc = compose(self, self->sequence + 1, type, request, &self->request);
  if (rc) return rc;
  self->state = state;
  if (self->is_greeted && is_other(self)) return fail_other(self);
  self->sequence++;
  self->type = type;
  self->sendings = self->attempts = 0;
  self->is_under_way = true;
  self->traceback.size = 0;
  self->heard = self->begun = zp_clock_now();
  self->has_told = false;
  return self->is_greeted ? send_request(self) : 0;
}

void zp_remote_abandon(zp_remote *self) {
  forget_if_inherited(self);
  if (!self->is_under_way) return;
  self->is_under_way = false;
  send_number(self, ZP_REQUEST_CANCEL, self->sequence);
}

/* ---- receiving ---- */

/* One frame, appended to the message: 1, or 0 if there is none; with ZMQ_DONTWAIT as the flag, or after PATIENT_MILLISECONDS. */
static int receive_frame(zp_remote *self, int flag, bool *more) {
  zmq_msg_t frame;
  int n;
  zp_zmq->msg_init(&frame);
  do n = zp_zmq->msg_recv(&frame, self->socket, flag);
  while (n < 0 && errno == EINTR && flag);
  int rc = n >= 0 ? 1 : errno == EAGAIN || errno == EINTR ? 0 : zp_lib_fail("cannot hear the server");
  *more = false;
  if (rc == 1) {
    *more = zp_zmq->msg_more(&frame);
    int failed = zp_buf_append(&self->message, zp_zmq->msg_data(&frame), zp_zmq->msg_size(&frame));
    if (failed) rc = failed;
  }
  zp_zmq->msg_close(&frame);
  return rc;
}

/* One whole message, if there is one: 1, 0, or an error. Its frames come together. */
static int receive(zp_remote *self, int flag) {
  bool more = true;
  zp_buf_clear(&self->message, KEEP);
  int rc = receive_frame(self, flag, &more), failed = 0;
  while (more && rc != 0) { /* to its end, or what is left would be taken for another one */
    if (rc < 0) failed = rc;
    rc = receive_frame(self, ZMQ_DONTWAIT, &more);
  }
  return failed ? failed : rc;
}

static int fail_lost(const zp_remote *self, double now) {
  return zp_fail(ZP_ENOSTORE, "nothing has been heard of the server at %s for %d seconds%s", self->endpoint, (int)(now - self->heard),
                 zp_request_changes(self->type) ? "; what was asked for last may have happened, or not" : "");
}

static int fail_stale(const zp_remote *self) {
  return zp_fail(ZP_ESTALE, "the server at %s was started again, or was out of reach for too long; what was asked for may have happened, or not",
                 self->endpoint);
}

/* Whether a server that said this is on this machine and lets us use what it uses. */
static bool is_here(const zp_parcel *hello, const char *directory) {
  char boot[64];
  struct stat there;
  zp_alive_space pids;
  int fd = -1;
  size_t n = zp_procfile_read(ZP_PROCFILE_BOOT, boot, sizeof boot);
  if (n == 0 || hello->strings[1].size != n || memcmp(hello->strings[1].data, boot, n) != 0) return false;
  if (hello->numbers[1] != geteuid() || zp_alive_read_space(&pids) || zp_trust_open_directory(directory, ZP_TRUST_PRIVATE, &fd)) return false;
  int failed = fstat(fd, &there);
  close(fd);
  if (failed) return false;
  return there.st_dev == hello->numbers[2] && there.st_ino == hello->numbers[3] && pids.device == hello->numbers[4] &&
         pids.inode == hello->numbers[5] && access(directory, W_OK) == 0;
}

static int take_greeting(zp_remote *self, const zp_parcel *hello) {
  if (hello->number_count != 7 || hello->string_count != 2 || hello->strings[0].size >= sizeof self->directory)
    return zp_fail(ZP_ESYS, "what listens at %s is no server of zproc", self->endpoint);
  memcpy(self->directory, hello->strings[0].data, hello->strings[0].size);
  self->directory[hello->strings[0].size] = '\0';
  self->server.pid = (pid_t)hello->numbers[0];
  self->server.is_here = is_here(hello, self->directory);
  self->server.identity = hello->numbers[6];
  self->is_greeted = true;
  if (self->is_under_way && is_other(self)) return fail_other(self);
  return self->is_under_way ? send_request(self) : 0;
}

static int take_failure(zp_remote *self, const zp_parcel *answer) {
  if (answer->number_count != 1 || answer->string_count != 2) return zp_fail(ZP_ESYS, "the server gave an answer without words");
  int code = answer->numbers[0] > 0 && answer->numbers[0] < 100 ? -(int)answer->numbers[0] : ZP_ESYS;
  zp_bytes detail = answer->strings[0], traceback = answer->strings[1];
  self->traceback.size = 0;
  if (traceback.size > 0) {
    if (zp_buf_append(&self->traceback, traceback.data, traceback.size) || zp_buf_append_byte(&self->traceback, 0)) self->traceback.size = 0;
  }
  int size = detail.size < ZP_DETAIL_MAX ? (int)detail.size : ZP_DETAIL_MAX;
  return zp_fail(code, "%.*s", size, (const char *)detail.data);
}

enum { WAIT_ON = 1 }; /* of the functions below: the answer is yet to come */

/* The server does not know this client, at least not any more: greet it, and then send the request, unless it may have been done. */
static int begin_anew(zp_remote *self, bool may_be_done) {
  int rc = greet(self);
  self->sequence++; /* the request's */
  self->sendings = 0;
  if (!rc && may_be_done) rc = fail_stale(self);
  return rc ? rc : WAIT_ON;
}

/* The other end does not know of the request, or of the greeting. */
static int send_again(zp_remote *self, uint64_t incarnation, bool is_forgotten) {
  if (!self->is_greeted) {
    set_probe(self, PROBE_FIRST);
    int rc = send_bytes(self, &self->greeting);
    return rc ? rc : WAIT_ON;
  }
  if (is_forgotten) return begin_anew(self, zp_request_changes(self->type));
  bool may_be_done = zp_request_changes(self->type) && incarnation != self->sent_to;
  self->incarnation = incarnation;
  if (may_be_done) return fail_stale(self);
  int rc = send_request(self);
  return rc ? rc : WAIT_ON;
}

/* Say on stderr who is waited for, as those on the server's machine do; once for each request. */
static void tell_of_holder(zp_remote *self, zp_bytes words) {
  static const double PATIENCE_SECONDS = 1.5;
  char clean[512];
  if (self->has_told || zp_clock_now() - self->begun < PATIENCE_SECONDS) return;
  self->has_told = true;
  size_t size = words.size < sizeof clean ? words.size : sizeof clean - 1;
  for (size_t i = 0; i < size; i++) { /* the terminal is not the server's */
    unsigned char c = ((const unsigned char *)words.data)[i];
    clean[i] = (char)(c < ' ' || c == 127 ? '?' : c);
  }
  clean[size] = '\0';
  fprintf(stderr, "zproc: process %d waits to change the state at %s, where %s\n", (int)getpid(), self->endpoint, clean);
}

/* What was received: 0 if it is the answer, WAIT_ON, or what has failed. */
static int take_message(zp_remote *self, zp_parcel *answer) {
  zp_wire_head head;
  zp_bytes body;
  int rc = zp_wire_read_head(zp_buf_bytes(&self->message), &head, &body);
  if (rc) return zp_fail(ZP_ESYS, "what listens at %s is no server of zproc", self->endpoint);
  if (head.type == ZP_ANSWER_REFUSED) {
    if (zp_parcel_read(body, answer, &self->pairs) || answer->string_count != 1) answer->strings[0] = (zp_bytes){"it gives no reason", 18};
    return zp_fail(ZP_ESYS, "the server at %s refused: %.*s", self->endpoint, (int)answer->strings[0].size,
                   (const char *)answer->strings[0].data);
  }
  self->heard = zp_clock_now();
  self->is_retrying = false;
  bool is_greeting = !self->is_greeted;
  uint64_t expected = is_greeting ? self->greeting_sequence : self->sequence;
  if (head.type == ZP_ANSWER_NOTICE || head.sequence != expected) return WAIT_ON;
  if (head.type == ZP_ANSWER_RUNNING) {
    self->attempts = 0;
    if (!is_greeting && body.size > 0 && zp_parcel_read(body, answer, &self->pairs) == 0 && answer->string_count == 1)
      tell_of_holder(self, answer->strings[0]);
    return WAIT_ON;
  }
  /* What was sent once, and got there, was not done by anybody. */
  if (head.type == ZP_ANSWER_STRANGER) return begin_anew(self, zp_request_changes(self->type) && self->sendings > 1);
  if (head.type == ZP_ANSWER_KEPT) {
    send_number(self, ZP_REQUEST_FETCH, head.sequence);
    return WAIT_ON;
  }
  if (head.type == ZP_ANSWER_NOT_SEEN || head.type == ZP_ANSWER_FORGOTTEN)
    return send_again(self, head.incarnation, head.type == ZP_ANSWER_FORGOTTEN);
  rc = zp_parcel_read(body, answer, &self->pairs);
  if (rc) return zp_fail(ZP_ESYS, "the server at %s gave an answer that is none", self->endpoint);
  self->incarnation = head.incarnation;
  if (head.type == ZP_ANSWER_FAILED) return take_failure(self, answer);
  if (!is_greeting) return 0;
  rc = take_greeting(self, answer);
  return rc ? rc : WAIT_ON;
}

static int take_messages(zp_remote *self, int flag, zp_parcel *answer) {
  for (;; flag = ZMQ_DONTWAIT) {
    int rc = receive(self, flag);
    if (rc < 0) return rc;
    if (rc == 0) return WAIT_ON;
    rc = take_message(self, answer);
    if (rc != WAIT_ON) return rc;
  }
}

/* ---- handshakes ---- */

static int fail_auth(const zp_remote *self) {
  return zp_fail(ZP_EAUTH, "the server at %s refused the connection: %s", self->endpoint,
                 self->keys ? "the secret key is not its own, or it has none"
                                : "it has a secret key, and none was given, or it is no server of zproc");
}

static int take_handshakes(zp_remote *self) {
  if (!self->has_handshakes) return WAIT_ON;
  self->has_handshakes = false;
  for (;;) {
    unsigned char event[6];
    zmq_msg_t frame;
    int n = zp_zmq->recv(self->monitor, event, sizeof event, ZMQ_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return WAIT_ON;
    zp_zmq->msg_init(&frame); /* the address */
    zp_zmq->msg_recv(&frame, self->monitor, 0);
    zp_zmq->msg_close(&frame);
    uint16_t kind;
    uint32_t value;
    memcpy(&kind, event, sizeof kind);
    memcpy(&value, event + sizeof kind, sizeof value);
    if (kind == ZMQ_EVENT_CONNECTED) self->connection_fd = (int)value;
    else if (kind == ZMQ_EVENT_DISCONNECTED) self->connection_fd = -1;
    else if (kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) self->refusals = 0;
    else if (kind == ZMQ_EVENT_CONNECT_RETRIED) self->is_retrying = true;
    else if (kind == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL && self->is_greeted) self->is_retrying = true; /* a tunnel without a server, say */
    else if (kind != ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL || ++self->refusals >= REFUSALS_MAX) return fail_auth(self);
  }
}

/* ---- waiting ---- */

/* Whether a message is on its way, in either direction. ZeroMQ shows one when the whole of it is there, which takes minutes if it is large
   and the line is slow; so the system is asked. The descriptor may be closed by now, or be another connection's: then this is wrong once. */
static bool is_moving(zp_remote *self) {
  struct tcp_info info = {.tcpi_bytes_received = 0};
  socklen_t size = sizeof info;
  if (self->connection_fd < 0 || getsockopt(self->connection_fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0) return false;
  uint64_t before = self->moved;
  self->moved = info.tcpi_bytes_received + info.tcpi_bytes_acked;
  return self->moved > before + PROGRESS;
}

/* Sleep until there is something to look at. What ZeroMQ had to tell was taken before, so its descriptors show what comes from here on.
   A signal between the look and the sleep ends the sleep: it is let in only there. */
static int sleep_until(zp_remote *self, double instant) {
  struct pollfd ready[] = {{.fd = self->socket_fd, .events = POLLIN}, {.fd = self->monitor_fd, .events = POLLIN}};
  double left = instant - zp_clock_now();
  if (left <= 0) return 0;
  struct timespec timeout = {.tv_sec = left < 1e9 ? (time_t)left : 1000000000};
  if (left < 1e9) timeout.tv_nsec = (long)((left - (double)timeout.tv_sec) * 1e9);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int rc = 0;
  if (zp_interrupt_is_due()) rc = ZP_EINTR;
  else if (ppoll(ready, 2, &timeout, &before) < 0 && errno == EINTR && zp_interrupt_is_due()) rc = ZP_EINTR;
  else if (ready[1].revents) self->has_handshakes = true;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return rc;
}

/* Whether nobody listens there any more. While a server is started again its socket stays open, so its owner is gone as well; somebody
   may start another one there, but that does not take long. */
static bool is_gone(zp_remote *self, double now) {
  if (!self->is_retrying || now - self->heard < REFUSED_SECONDS) return false;
  int fd;
  self->is_retrying = false;
  int rc = dial(reached(self), now + GLANCE_SECONDS, &fd);
  if (!rc) close(fd);
  return rc == ZP_ENOSTORE && (errno == ECONNREFUSED || errno == ENOENT);
}

/* Not while something comes: if that is the answer, another one would be sent behind it. */
static void ask_after(zp_remote *self) {
  if (is_moving(self)) {
    self->heard = zp_clock_now();
    set_probe(self, self->probe_wait);
    return;
  }
  uint64_t sequence = self->is_greeted ? self->sequence : self->greeting_sequence;
  zp_parcel parcel = {.number_count = 1, .numbers = {sequence}};
  zp_buf bytes = ZP_BUF_INIT;
  if (compose(self, sequence, ZP_REQUEST_PROBE, &parcel, &bytes) == 0) (void)send_bytes(self, &bytes);
  zp_buf_free(&bytes);
  self->asked = zp_clock_now();
  set_probe(self, self->probe_wait * 2 < PROBE_LAST ? self->probe_wait * 2 : PROBE_LAST);
}

int zp_remote_await(zp_remote *self, double deadline, zp_parcel *answer) {
  forget_if_inherited(self);
  if (!self->is_under_way) return zp_fail(ZP_ENOSTORE, "there is no connection to %s", self->endpoint);
  /* Most answers come soon: to wait for them within ZeroMQ takes the fewest calls of the system. A signal is noticed as soon as that is over. */
  int flag = zp_interrupt_is_due() || deadline < zp_clock_now() + PATIENT_MILLISECONDS / 1e3 ? ZMQ_DONTWAIT : 0;
  for (;; flag = ZMQ_DONTWAIT) {
    int rc = take_messages(self, flag, answer);
    if (rc == WAIT_ON) rc = take_handshakes(self);
    double now = zp_clock_now();
    if (rc == WAIT_ON && (now - self->heard > ZP_REMOTE_PATIENCE || is_gone(self, now))) rc = fail_lost(self, now);
    if (rc != WAIT_ON) {
      self->is_under_way = false;
      if (rc == ZP_EAUTH || rc == ZP_ENOSTORE) disconnect(self); /* the next request begins anew */
      return rc;
    }
    if (now >= deadline) return ZP_ETIMEOUT;
    if (now >= self->probe_at) ask_after(self);
    double until = self->probe_at < deadline ? self->probe_at : deadline;
    double lost_at = self->heard + ZP_REMOTE_PATIENCE + 0.001;
    rc = sleep_until(self, until < lost_at ? until : lost_at);
    if (rc) return rc;
  }
}

bool zp_remote_is_silent(const zp_remote *self) { return self->asked > self->heard; }

static void swap(zp_buf *a, zp_buf *b) {
  zp_buf other = *a;
  *a = *b;
  *b = other;
}

void zp_remote_give_answer(zp_remote *self, zp_buf *message, zp_buf *pairs) {
  swap(&self->message, message);
  swap(&self->pairs, pairs);
}

const char *zp_remote_traceback(const zp_remote *self) {
  return self->traceback.size > 0 ? (const char *)self->traceback.data : "";
}

const unsigned char *zp_remote_client(zp_remote *self) {
  forget_if_inherited(self);
  return self->client;
}

const zp_remote_server *zp_remote_server_of(const zp_remote *self) { return &self->server; }
