#include "server/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#include "base/clock.h"
#include "base/err.h"
#include "net/service.h"
#include "server/copier.h"
#include "server/janitor.h"
#include "server/protocol.h"
#include "store/keep.h"
#include "store/store.h"
#include "sys/alias.h"
#include "sys/dir.h"
#include "sys/sock.h"
#include "sys/table.h"

enum {
  CONNECTIONS_MAX = 4096,
  DESCRIPTORS_SPARE = 32,      /* not for connections */
  ANSWERS_MAX = 256 << 10,     /* bytes that wait to be read by a client before no more is taken from it */
  PROBE_FIRST = 2,             /* milliseconds; between looks whether anybody still uses the directory */
  PROBE_LAST = 100,
  SNAPSHOT_INTERVAL = 1,       /* seconds, at least */
  SNAPSHOT_REST = 10,          /* times as long as a snapshot took, before the next one */
  LISTEN_PROBE = 1,            /* milliseconds; between looks whether the owner has made the socket listen */
  NETWORK_PAUSE = 1,           /* seconds, after the network could not be served */
  QUEUE_INTERVAL = 2           /* seconds; between looks whether there is a queue of tasks */
};

typedef struct connection {
  struct bufferevent *stream;
  struct loop *loop;
  TAILQ_ENTRY(connection) link;
} connection;

typedef struct loop {
  const char *directory, *alias;
  bool is_process; /* of its own */
  zp_table *table; /* NULL until it is enlisted */
  int network;
  int tcp[ZP_SERVICE_LISTENERS_MAX];
  size_t tcp_count;
  zp_service *service; /* NULL: not yet needed */
  struct event *is_wanted, *try_again; /* the network: somebody has connected; it could not be served, and is wanted all the same */
  struct event *snapshot_due, *snapshot_ended;
  zp_copier *copier;          /* takes a snapshot; NULL: nobody does */
  uint64_t snapshot_revision; /* of the last one, at least */
  uint64_t copy_revision;     /* of the one that is taken, at least */
  double copy_begun, copy_seconds;
  struct event *queue_due;
  zp_janitor janitor;
  struct event_base *base;
  struct evconnlistener *listener;
  struct event *terminate, *owner_died, *probe, *listens;
  int probe_milliseconds;
  TAILQ_HEAD(connections, connection) connections; /* the one that has been silent longest is first */
  size_t connection_count, connection_limit;
} loop;

/* ---- connections ---- */

static void close_connection(connection *self) {
  TAILQ_REMOVE(&self->loop->connections, self, link);
  self->loop->connection_count--;
  bufferevent_free(self->stream);
  free(self);
}

static void answer(connection *self, zp_message_type type, zp_bytes first, zp_bytes second) {
  zp_message_head head = {ZP_PROTOCOL_MAGIC, ZP_PROTOCOL_VERSION, (uint16_t)type, (uint32_t)(first.size + second.size), 0};
  bufferevent_write(self->stream, &head, sizeof head);
  bufferevent_write(self->stream, first.data, first.size);
  bufferevent_write(self->stream, second.data, second.size);
}

static void refuse(connection *self, const char *format, unsigned number) {
  char words[128];
  int size = snprintf(words, sizeof words, format, number);
  answer(self, ZP_MESSAGE_REFUSED, (zp_bytes){words, (size_t)size}, (zp_bytes){NULL, 0});
}

static int serve_network(loop *self) {
  if (self->service) return 0;
  int rc = zp_service_start(self->directory, self->network, self->tcp, self->tcp_count, 0, &self->service);
  if (!rc) event_del(self->is_wanted); /* from here on ZeroMQ takes who connects */
  return rc;
}

static void open_network(connection *self) {
  char endpoint[PATH_MAX + 16];
  int size = snprintf(endpoint, sizeof endpoint, "ipc://%s/%s", self->loop->directory, ZP_SERVICE_SOCKET);
  int rc = serve_network(self->loop);
  const char *words = zp_error_detail();
  if (rc) answer(self, ZP_MESSAGE_REFUSED, (zp_bytes){words, strlen(words)}, (zp_bytes){NULL, 0});
  else answer(self, ZP_MESSAGE_ENDPOINT, (zp_bytes){endpoint, (size_t)size}, (zp_bytes){NULL, 0});
}

static void handle(connection *self, const zp_message_head *head, zp_bytes payload) {
  int64_t pid = getpid();
  if (head->version != ZP_PROTOCOL_VERSION) {
    refuse(self, "this server speaks another version of the protocol than %u", head->version);
  } else if (head->type == ZP_MESSAGE_PING) {
    answer(self, ZP_MESSAGE_PONG, (zp_bytes){&pid, sizeof pid}, payload);
  } else if (head->type == ZP_MESSAGE_NETWORK) {
    open_network(self);
  } else {
    refuse(self, "this server knows no request of type %u", head->type);
  }
}

/* Answer what has come in, as long as the answers are read. False: the connection was closed. */
static bool take_requests(connection *self) {
  struct evbuffer *in = bufferevent_get_input(self->stream), *out = bufferevent_get_output(self->stream);
  for (;;) {
    if (evbuffer_get_length(out) > ANSWERS_MAX) {
      bufferevent_disable(self->stream, EV_READ); /* on_written goes on */
      return true;
    }
    zp_message_head head;
    if (evbuffer_copyout(in, &head, sizeof head) < (ev_ssize_t)sizeof head) return true;
    if (head.magic != ZP_PROTOCOL_MAGIC || head.size > ZP_MESSAGE_MAX) {
      close_connection(self);
      return false;
    }
    size_t whole = sizeof head + head.size;
    if (evbuffer_get_length(in) < whole) return true;
    unsigned char *bytes = evbuffer_pullup(in, (ev_ssize_t)whole);
    if (!bytes) {
      close_connection(self);
      return false;
    }
    handle(self, &head, (zp_bytes){bytes + sizeof head, head.size});
    evbuffer_drain(in, whole);
  }
}

static void on_readable(struct bufferevent *stream, void *context) {
  (void)stream;
  connection *self = context;
  TAILQ_REMOVE(&self->loop->connections, self, link);
  TAILQ_INSERT_TAIL(&self->loop->connections, self, link);
  take_requests(self);
}

static void on_written(struct bufferevent *stream, void *context) {
  bufferevent_enable(stream, EV_READ);
  take_requests(context);
}

static void on_event(struct bufferevent *stream, short events, void *context) {
  (void)stream;
  if (events & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) close_connection(context);
}

static void on_connect(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size, void *context) {
  (void)listener;
  (void)address;
  (void)size;
  loop *self = context;
  while (self->connection_count >= self->connection_limit) close_connection(TAILQ_FIRST(&self->connections));
  connection *fresh = calloc(1, sizeof *fresh);
  struct bufferevent *stream = fresh ? bufferevent_socket_new(self->base, fd, BEV_OPT_CLOSE_ON_FREE) : NULL;
  if (!stream) {
    free(fresh);
    close(fd);
    return;
  }
  *fresh = (connection){.stream = stream, .loop = self};
  TAILQ_INSERT_TAIL(&self->connections, fresh, link);
  self->connection_count++;
  bufferevent_setcb(stream, on_readable, on_written, on_event, fresh);
  bufferevent_setwatermark(stream, EV_READ, 0, sizeof(zp_message_head) + ZP_MESSAGE_MAX);
  bufferevent_enable(stream, EV_READ | EV_WRITE);
}

/* Out of descriptors, although connections are limited: something else has taken them. Who has been silent longest has to go. */
static void on_accept_error(struct evconnlistener *listener, void *context) {
  (void)listener;
  loop *self = context;
  if (!TAILQ_EMPTY(&self->connections)) close_connection(TAILQ_FIRST(&self->connections));
}

/* Be in the table of processes, as every server is that follows on another one. Without, it does its work all the same. */
static void enlist(loop *self) {
  if (!self->table && zp_table_open(self->directory, &self->table) == 0) zp_table_enlist(self->table, "server");
}

/* ---- snapshots, of a state that is kept on a disk by them ---- */

static void set_snapshot(loop *self) {
  double seconds = self->copy_seconds * SNAPSHOT_REST;
  if (seconds < SNAPSHOT_INTERVAL) seconds = SNAPSHOT_INTERVAL;
  struct timeval wait = {.tv_sec = (time_t)seconds, .tv_usec = (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)};
  evtimer_add(self->snapshot_due, &wait);
}

static void on_snapshot_ended(evutil_socket_t fd, short events, void *context) {
  (void)fd;
  (void)events;
  loop *self = context;
  event_free(self->snapshot_ended);
  self->snapshot_ended = NULL;
  if (zp_copier_end(&self->copier)) self->snapshot_revision = self->copy_revision;
  self->copy_seconds = zp_clock_now() - self->copy_begun;
  set_snapshot(self);
}

/* There is one at the beginning, whatever the revision (keep.c). */
static int start_snapshot(loop *self) {
  int rc = zp_keep_revision(self->directory, &self->copy_revision);
  if (rc || self->copy_revision == self->snapshot_revision) return rc;
  self->copy_begun = zp_clock_now();
  rc = zp_copier_start(self->directory, &self->copier);
  if (rc) return rc;
  self->snapshot_ended = event_new(self->base, zp_copier_descriptor(self->copier), EV_READ, on_snapshot_ended, self);
  if (self->snapshot_ended && event_add(self->snapshot_ended, NULL) == 0) return 0;
  zp_copier_end(&self->copier);
  return zp_fail(ZP_ENOMEM, "out of memory");
}

static void on_snapshot_due(evutil_socket_t fd, short events, void *context) {
  (void)fd;
  (void)events;
  loop *self = context;
  int rc = start_snapshot(self);
  if (rc && rc != ZP_ENOSTORE) fprintf(stderr, "zproc: cannot take a snapshot of the state: %s\n", zp_error_detail());
  if (!self->copier) set_snapshot(self);
}

static void begin_snapshots(loop *self) {
  if (self->snapshot_due || !zp_keep_wants_snapshots(self->directory)) return;
  self->snapshot_revision = UINT64_MAX; /* none is known */
  self->snapshot_due = evtimer_new(self->base, on_snapshot_due, self);
  if (self->snapshot_due) on_snapshot_due(-1, 0, self);
}

static void end_snapshots(loop *self) {
  if (self->snapshot_ended) event_free(self->snapshot_ended);
  if (self->snapshot_due) event_free(self->snapshot_due);
  zp_copier_end(&self->copier);
}

/* ---- the queue of tasks, which others make when they need it ---- */

static void on_queue_due(evutil_socket_t fd, short events, void *context) {
  (void)fd;
  (void)events;
  static const struct timeval interval = {.tv_sec = QUEUE_INTERVAL};
  loop *self = context;
  if (!zp_janitor_begin(&self->janitor)) evtimer_add(self->queue_due, &interval);
}

/* ---- the network, and the beginning ---- */

static void serve_network_or_tell(loop *self) {
  static const struct timeval pause = {.tv_sec = NETWORK_PAUSE};
  int rc = serve_network(self);
  if (!rc || rc == ZP_ENOSTORE) return; /* who has ended the state ends the server next */
  fprintf(stderr, "zproc: the state server (pid %d) cannot be reached by the network: %s\n", (int)getpid(), zp_error_detail());
  evtimer_add(self->try_again, &pause);
}

/* Somebody waits in the queue of the network's socket: whoever is sent there by us, or was a client of a server before this one. */
static void on_wanted(evutil_socket_t fd, short events, void *context) {
  (void)fd;
  (void)events;
  serve_network_or_tell(context);
}

static void on_try_again(evutil_socket_t fd, short events, void *context) {
  (void)fd;
  (void)events;
  loop *self = context;
  if (self->tcp_count > 0) serve_network_or_tell(self);
  else event_add(self->is_wanted, NULL);
}

/* The owner starts us before it makes the directory, and the socket gets its name after that. A moment, and only for the first
   server. */
static void await_listening(evutil_socket_t fd, short events, void *context) {
  (void)fd;
  (void)events;
  loop *self = context;
  struct timeval wait = {.tv_usec = LISTEN_PROBE * 1000};
  if (zp_sock_listens(evconnlistener_get_fd(self->listener))) {
    evconnlistener_enable(self->listener);
    if (self->is_process) enlist(self);
    begin_snapshots(self);
    on_queue_due(-1, 0, self);
    event_add(self->is_wanted, NULL);
    if (self->tcp_count > 0) serve_network_or_tell(self);
  } else {
    evtimer_add(self->listens, &wait);
  }
}

/* ---- the end ---- */

static void on_terminate(evutil_socket_t signal, short events, void *context) {
  (void)signal;
  (void)events;
  event_base_loopbreak(((loop *)context)->base);
}

static void set_probe(loop *self) {
  struct timeval wait = {.tv_usec = self->probe_milliseconds * 1000};
  evtimer_add(self->probe, &wait);
}

static void remove_alias(const loop *self) {
  char socket[PATH_MAX];
  snprintf(socket, sizeof socket, "%s/%s", self->directory, ZP_SERVER_SOCKET);
  if (self->alias) zp_alias_remove(self->alias, socket);
}

/* The owner is dead. Its processes may outlive it for an instant, or, if it wished so, for as long as they like. */
static void on_probe(evutil_socket_t fd, short events, void *context) {
  (void)fd;
  (void)events;
  loop *self = context;
  zp_dir *dir;
  if (zp_dir_adopt(self->directory, &dir)) {
    zp_store_retire(self->directory);
    remove_alias(self);
    zp_dir_remove(&dir);
    event_base_loopbreak(self->base);
  } else if (access(self->directory, F_OK) < 0) { /* that was the owner's last deed, or it had yet to make it */
    remove_alias(self);
    event_base_loopbreak(self->base);
  } else {
    self->probe_milliseconds = self->probe_milliseconds * 2 < PROBE_LAST ? self->probe_milliseconds * 2 : PROBE_LAST;
    set_probe(self);
  }
}

static void on_owner_died(evutil_socket_t fd, short events, void *context) {
  loop *self = context;
  self->probe_milliseconds = PROBE_FIRST;
  on_probe(fd, events, self);
}

/* ---- the loop ---- */

static void raise_descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit); /* if it is refused, what there is has to do */
}

/* How many connections there may be, where other things in this process take `others` descriptors. */
static size_t limit_connections(size_t others) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return DESCRIPTORS_SPARE;
  size_t spare = limit.rlim_cur > others + DESCRIPTORS_SPARE ? (size_t)limit.rlim_cur - others : DESCRIPTORS_SPARE;
  return spare < CONNECTIONS_MAX ? spare : CONNECTIONS_MAX;
}

static bool set_up(loop *self, const zp_serve_sockets *sockets) {
  self->network = sockets->network;
  self->tcp_count = sockets->tcp_count < ZP_SERVICE_LISTENERS_MAX ? sockets->tcp_count : ZP_SERVICE_LISTENERS_MAX;
  memcpy(self->tcp, sockets->tcp, self->tcp_count * sizeof *sockets->tcp);
  TAILQ_INIT(&self->connections);
  self->base = event_base_new();
  if (!self->base) return false;
  self->probe = evtimer_new(self->base, on_probe, self);
  self->listener = evconnlistener_new(self->base, on_connect, self, LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_DISABLED, 0, sockets->listener);
  self->listens = evtimer_new(self->base, await_listening, self);
  self->queue_due = evtimer_new(self->base, on_queue_due, self);
  self->janitor.directory = self->directory;
  self->is_wanted = event_new(self->base, self->network, EV_READ, on_wanted, self);
  self->try_again = evtimer_new(self->base, on_try_again, self);
  if (!self->probe || !self->listener || !self->listens || !self->queue_due || !self->is_wanted || !self->try_again) return false;
  evconnlistener_set_error_cb(self->listener, on_accept_error);
  await_listening(sockets->listener, 0, self);
  return true;
}

/* What ends the loop of a process: a signal, or the death of its owner. */
static bool watch_process(loop *self) {
  self->terminate = evsignal_new(self->base, SIGTERM, on_terminate, self);
  self->owner_died = event_new(self->base, ZP_SERVE_OWNER, EV_READ, on_owner_died, self);
  return self->terminate && self->owner_died && event_add(self->terminate, NULL) == 0 && event_add(self->owner_died, NULL) == 0;
}

static bool watch_stop(loop *self, int stop) {
  self->terminate = event_new(self->base, stop, EV_READ, on_terminate, self);
  return self->terminate && event_add(self->terminate, NULL) == 0;
}

static void tear_down(loop *self) {
  zp_service_stop(&self->service);
  zp_janitor_end(&self->janitor);
  while (!TAILQ_EMPTY(&self->connections)) close_connection(TAILQ_FIRST(&self->connections));
  if (self->listener) evconnlistener_free(self->listener);
  if (self->listens) event_free(self->listens);
  if (self->is_wanted) event_free(self->is_wanted);
  if (self->try_again) event_free(self->try_again);
  end_snapshots(self);
  if (self->queue_due) event_free(self->queue_due);
  if (self->probe) event_free(self->probe);
  if (self->owner_died) event_free(self->owner_died);
  if (self->terminate) event_free(self->terminate);
  if (self->base) event_base_free(self->base);
  zp_table_close(&self->table);
}

/* Run and tear down: the exit status. */
static int dispatch(loop *self, bool is_set_up) {
  bool ok = is_set_up && event_base_dispatch(self->base) >= 0;
  if (!ok) fprintf(stderr, "zproc: the state server (pid %d) cannot run its event loop\n", (int)getpid());
  tear_down(self);
  return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}

int zp_serve(const char *directory, const char *alias, size_t sockets, bool again) {
  loop self = {.directory = directory, .alias = alias, .is_process = true};
  int tcp[ZP_SERVICE_LISTENERS_MAX];
  if (sockets > ZP_SERVICE_LISTENERS_MAX) sockets = ZP_SERVICE_LISTENERS_MAX;
  for (size_t i = 0; i < sockets; i++) tcp[i] = ZP_SERVE_TCP + (int)i;
  raise_descriptor_limit();
  self.connection_limit = limit_connections(DESCRIPTORS_SPARE);
  signal(SIGPIPE, SIG_IGN);
  for (int fd = ZP_SERVE_LISTENER; fd < ZP_SERVE_TCP + (int)sockets; fd++)
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
      fprintf(stderr, "zproc: --serve is for zproc itself; see zproc server\n");
      return EXIT_FAILURE;
    }
  if (again) fprintf(stderr, "zproc: the state server died; it is running again (pid %d)\n", (int)getpid());
  const zp_serve_sockets all = {ZP_SERVE_LISTENER, ZP_SERVE_NETWORK, tcp, sockets};
  return dispatch(&self, set_up(&self, &all) && watch_process(&self));
}

int zp_serve_in_thread(const char *directory, const zp_serve_sockets *sockets, int stop, void (*ready)(void *context, bool is_ready),
                       void *context) {
  loop self = {.directory = directory};
  struct rlimit limit;
  self.connection_limit = limit_connections(getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (size_t)limit.rlim_cur / 2 : DESCRIPTORS_SPARE);
  sigset_t pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE); /* which comes to the thread that writes */
  pthread_sigmask(SIG_BLOCK, &pipe, NULL);
  bool is_ready = set_up(&self, sockets) && watch_stop(&self, stop);
  ready(context, is_ready);
  return dispatch(&self, is_ready);
}
