/* service and remote: requests over the network, and what strangers may do to a server. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "range.h"
#include "base/clock.h"
#include "base/err.h"
#include "net/execute.h"
#include "net/frames.h"
#include "net/judges.h"
#include "net/lib.h"
#include "net/remote.h"
#include "net/service.h"
#include "store/store.h"
#include "sys/inet.h"
#include "sys/memory.h"
#include "sys/sock.h"
#include "watch/condition.h"
#include "watch/watch.h"

static const double GENEROUS = 60; /* seconds; a limit, not an expectation */

static char directory[64], address[ZP_INET_NAME_SIZE], endpoint[ZP_INET_NAME_SIZE + 8];
static int listener;
static zp_service *service;
static zp_remote *client;
static zp_parcel answer;

static void must(int rc) {
  if (rc) fail_msg("%d: %s", rc, zp_error_detail());
}

static zp_bytes text(const char *words) { return (zp_bytes){words, strlen(words)}; }

static int set_up(void **unused) {
  (void)unused;
  bool is_loopback;
  snprintf(directory, sizeof directory, "%s/zproc-net-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  assert_non_null(mkdtemp(directory));
  must(zp_store_create(directory, NULL));
  must(zp_inet_listen("127.0.0.1:*", &listener, address, &is_loopback));
  snprintf(endpoint, sizeof endpoint, "tcp://%s", address);
  must(zp_service_start(directory, -1, &listener, 1, 0, &service));
  must(zp_remote_open(endpoint, NULL, &client));
  return 0;
}

static int tear_down(void **unused) {
  (void)unused;
  char command[128];
  zp_remote_close(&client);
  zp_service_stop(&service);
  zp_service_stop(&service);
  close(listener);
  snprintf(command, sizeof command, "rm -rf %s", directory);
  return system(command);
}

/* ---- a client that behaves ---- */

static int ask(int type, zp_parcel request) {
  int rc = zp_remote_begin(client, 0, type, &request, ZP_FOREVER);
  return rc ? rc : zp_remote_await(client, zp_clock_now() + GENEROUS, &answer);
}

static void set(const char *key, const char *value) {
  zp_change change = {text(key), text(value)};
  must(ask(ZP_REQUEST_COMMIT, (zp_parcel){ZP_NUMBERS(5), .string_count = 1, .strings = {text("space")}, .pairs = &change, .pair_count = 1}));
}

static bool has(const char *key, const char *value) {
  must(ask(ZP_REQUEST_GET, (zp_parcel){.string_count = 2, .strings = {text("space"), text(key)}}));
  zp_bytes got = answer.strings[0];
  return answer.numbers[0] && got.size == strlen(value) && memcmp(got.data, value, got.size) == 0;
}

static uint64_t newest(void) {
  must(ask(ZP_REQUEST_RANGE, (zp_parcel){.string_count = 1, .strings = {text("space")}}));
  return answer.numbers[1];
}

static void it_is_well(void) {
  set("health", "fine");
  assert_true(has("health", "fine"));
}

static void requests_are_carried_out(void **unused) {
  (void)unused;
  set("a", "1");
  assert_int_equal(answer.numbers[0], 1);
  assert_true(has("a", "1"));
  assert_false(has("b", "1"));
  must(ask(ZP_REQUEST_SETDEFAULT, (zp_parcel){ZP_NUMBERS(5), .string_count = 3, .strings = {text("space"), text("b"), text("2")}}));
  assert_int_equal(answer.numbers[0], 0);
  must(ask(ZP_REQUEST_POP, (zp_parcel){ZP_NUMBERS(5), ZP_STRINGS(text("space"), text("a"), text("1"))}));
  assert_int_equal(answer.numbers[0], 1);
  assert_int_equal(answer.numbers[1], 3); /* the revision */
  must(ask(ZP_REQUEST_POPITEM, (zp_parcel){ZP_NUMBERS(5), ZP_STRINGS(text("space"), text("b"), text("2"))}));
  assert_memory_equal(answer.strings[0].data, "b", 1);
  assert_memory_equal(answer.strings[1].data, "2", 1);
  must(ask(ZP_REQUEST_COUNT, (zp_parcel){.string_count = 1, .strings = {text("space")}}));
  assert_int_equal(answer.numbers[0], 0);
}

static void nothing_is_removed_that_the_client_may_be_unable_to_read(void **unused) {
  (void)unused;
  static const struct {
    int type;
    const char *read_key, *read;
    bool is_removed;
  } cases[] = {
      {ZP_REQUEST_POP, "key", "", false},     {ZP_REQUEST_POP, "key", "other", false},     {ZP_REQUEST_POP, "key", "value", true},
      {ZP_REQUEST_POPITEM, "", "", false},    {ZP_REQUEST_POPITEM, "", "value", false},    {ZP_REQUEST_POPITEM, "kex", "value", false},
      {ZP_REQUEST_POPITEM, "key", "", false}, {ZP_REQUEST_POPITEM, "key", "valuf", false}, {ZP_REQUEST_POPITEM, "key", "value", true},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bool is_last = cases[i].type == ZP_REQUEST_POPITEM;
    set("key", "value");
    must(ask(cases[i].type, (zp_parcel){ZP_NUMBERS(5), ZP_STRINGS(text("space"), text(cases[i].read_key), text(cases[i].read))}));
    assert_int_equal(answer.numbers[0], 1);
    assert_int_equal(answer.numbers[1] != 0, cases[i].is_removed);
    assert_memory_equal(answer.strings[is_last ? 1 : 0].data, "value", 5);
    assert_int_equal(has("key", "value"), !cases[i].is_removed);
  }
}

static void failures_come_back_as_such(void **unused) {
  (void)unused;
  assert_int_equal(ask(ZP_REQUEST_ALL, (zp_parcel){ZP_NUMBERS(1, 1000), .string_count = 1, .strings = {text("space")}}), ZP_EHISTORY);
  assert_int_equal(ask(ZP_REQUEST_TASK_PUT, (zp_parcel){ZP_NUMBERS(99, 0, 1), .string_count = 1, .strings = {text("")}}), ZP_ENOTASK);
  assert_int_equal(ask(ZP_REQUEST_GET, (zp_parcel){.number_count = 0}), ZP_EDECODE);
  assert_int_equal(ask(999, (zp_parcel){.number_count = 0}), ZP_EUSAGE);
  it_is_well();
}

static void a_large_request_comes_in_parts(void **unused) {
  (void)unused;
  enum { SIZE = 5 << 20 };
  char *large = malloc(SIZE + 1);
  memset(large, 'x', SIZE);
  large[SIZE] = '\0';
  set("large", large);
  assert_true(has("large", large));
  free(large);
}

/* Whoever waits does not keep others from anything, and can be abandoned. */
static void what_waits_is_given_up_with_its_client(void **unused) {
  (void)unused;
  zp_parcel claim = {ZP_NUMBERS(0, 0), .string_count = 1, .strings = {text("")}};
  assert_int_equal(ask(ZP_REQUEST_TASK_WAIT, (zp_parcel){ZP_NUMBERS(0)}), ZP_ESTALE);
  must(ask(ZP_REQUEST_WORKER_ENLIST, (zp_parcel){ZP_NUMBERS(7)}));
  must(ask(ZP_REQUEST_WORKER_CLAIM, claim));
  assert_int_equal(answer.numbers[0], 0);
  zp_parcel wait = {ZP_NUMBERS(zp_parcel_of_double(1e9)), .string_count = 0};
  must(zp_remote_begin(client, 0, ZP_REQUEST_TASK_WAIT, &wait, ZP_FOREVER));
  assert_int_equal(zp_remote_await(client, zp_clock_now() + 0.05, &answer), ZP_ETIMEOUT);
  must(ask(ZP_REQUEST_WORKER_CLAIM, claim)); /* the next request ends it */
  assert_int_equal(answer.numbers[0], 0);
}

static void a_child_connects_for_itself(void **unused) {
  (void)unused;
#ifdef __SANITIZE_THREAD__
  skip(); /* it does not take threads that are started in a child of a process with threads */
#endif
  set("a", "parent");
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    bool ok = has("a", "parent");
    if (ok) set("a", "child");
    zp_remote_close(&client);
    _exit(ok ? 0 : 1);
  }
  int status = 1;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 0);
  assert_true(has("a", "child"));
}

/* The greeting is for the connection, whichever request there is when it is answered. */
static void requests_may_be_given_up_before_the_server_has_answered_at_all(void **unused) {
  (void)unused;
  int late;
  bool is_loopback;
  char name[ZP_INET_NAME_SIZE], place[ZP_INET_NAME_SIZE + 8];
  zp_remote *first = client;
  zp_service *second;
  it_is_well();
  must(zp_inet_listen("127.0.0.1:*", &late, name, &is_loopback)); /* nobody answers there yet */
  snprintf(place, sizeof place, "tcp://%s", name);
  must(zp_remote_open(place, NULL, &client));
  zp_parcel request = {.string_count = 2, .strings = {text("space"), text("health")}};
  for (int i = 0; i < 3; i++) {
    must(zp_remote_begin(client, 0, ZP_REQUEST_GET, &request, ZP_FOREVER));
    assert_int_equal(zp_remote_await(client, zp_clock_now() + 0.05, &answer), ZP_ETIMEOUT);
    if (i > 0) zp_remote_abandon(client);
  }
  must(zp_service_start(directory, -1, &late, 1, 0, &second));
  assert_true(has("health", "fine"));
  zp_remote_close(&client);
  client = first;
  zp_service_stop(&second);
  close(late);
}

static void there_is_none_for_a_state_that_has_ended(void **unused) {
  (void)unused;
  zp_service *none = NULL;
  char gone[96];
  snprintf(gone, sizeof gone, "%s/gone", directory);
  assert_int_equal(zp_service_start(gone, -1, &listener, 1, 0, &none), ZP_ENOSTORE);
  assert_null(none);
}

static void it_stops_while_clients_go_on_asking(void **unused) {
  (void)unused;
#ifdef __SANITIZE_THREAD__
  skip(); /* see above */
#endif
  enum { ROUNDS = 20, CLIENTS = 12, ENOUGH = 100 };
  _Atomic unsigned *answered = mmap(NULL, sizeof *answered, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(answered != MAP_FAILED);
  zp_watch_cursor cursor = {.revision = 1000};
  zp_parcel all = {ZP_NUMBERS(0, 0), .string_count = 1, .strings = {text("space")}};
  zp_parcel watch = {ZP_NUMBERS(5, ZP_WATCH_CHANGE, 1, ZP_WATCH_LIVE, zp_parcel_of_double(1e9), 0, 0),
                     ZP_STRINGS(text("space"), {&cursor, sizeof cursor}, text(""))};
  set("a", "1");
  for (int round = 0; round < ROUNDS; round++) {
    pid_t clients[CLIENTS];
    atomic_store(answered, 0);
    for (int i = 0; i < CLIENTS; i++) {
      assert_true((clients[i] = fork()) >= 0);
      for (; clients[i] == 0; atomic_fetch_add(answered, 1))
        if (ask(i % 3 == 0 ? ZP_REQUEST_WATCH : ZP_REQUEST_ALL, i % 3 == 0 ? watch : all)) _exit(1);
    }
    double limit = zp_clock_now() + GENEROUS;
    while (atomic_load(answered) < ENOUGH)
      if (zp_clock_now() > limit) fail_msg("nobody is served");
    zp_service_stop(&service);
    for (int i = 0; i < CLIENTS; i++) {
      kill(clients[i], SIGKILL);
      waitpid(clients[i], NULL, 0);
    }
    must(zp_service_start(directory, -1, &listener, 1, 0, &service));
  }
  munmap((void *)answered, sizeof *answered);
  it_is_well();
}

/* ---- one that speaks ZeroMQ, and says what it likes ---- */

typedef struct speaker {
  void *context, *socket;
  unsigned char client[ZP_CLIENT_SIZE];
} speaker;

static speaker dial_only(void) {
  speaker self = {.context = zp_zmq->ctx_new()};
  static const int no_linger = 0, patience = 30000; /* milliseconds */
  self.socket = zp_zmq->socket(self.context, ZMQ_DEALER);
  zp_zmq->setsockopt(self.socket, ZMQ_LINGER, &no_linger, sizeof no_linger);
  zp_zmq->setsockopt(self.socket, ZMQ_RCVTIMEO, &patience, sizeof patience);
  assert_int_equal(getrandom(self.client, sizeof self.client, 0), (ssize_t)sizeof self.client);
  assert_int_equal(zp_zmq->connect(self.socket, endpoint), 0);
  return self;
}

static void hang_up(speaker *self) {
  zp_zmq->close(self->socket);
  zp_zmq->ctx_term(self->context);
}

static zp_wire_head head_of(const speaker *self, int type, uint64_t sequence) {
  zp_wire_head head = {.magic = ZP_WIRE_MAGIC, .version = ZP_WIRE_VERSION, .type = (uint16_t)type, .sequence = sequence};
  memcpy(head.client, self->client, sizeof head.client);
  return head;
}

static void say(const speaker *self, zp_wire_head head, zp_parcel parcel) {
  zp_buf bytes = ZP_BUF_INIT;
  must(zp_buf_append(&bytes, &head, sizeof head));
  must(zp_parcel_write(&parcel, &bytes));
  assert_true(zp_zmq->send(self->socket, bytes.data, bytes.size, 0) >= 0);
  zp_buf_free(&bytes);
}

/* Connect, and greet; with a number that nothing is answered to. */
static speaker dial(void) {
  speaker self = dial_only();
  say(&self, head_of(&self, ZP_REQUEST_HELLO, 0), (zp_parcel){.number_count = 0});
  return self;
}

/* Leave the frames that are left of a message. */
static void skip_frames(const speaker *self) {
  unsigned char byte;
  int more = 0;
  size_t size = sizeof more;
  while (zp_zmq->getsockopt(self->socket, ZMQ_RCVMORE, &more, &size) == 0 && more) zp_zmq->recv(self->socket, &byte, sizeof byte, 0);
}

/* The type of the answer, and its head; 0 if there is none in time. */
static int hear(const speaker *self, zp_wire_head *head) {
  unsigned char bytes[4096];
  do {
    int n = zp_zmq->recv(self->socket, bytes, sizeof bytes, 0);
    if (n >= 0) skip_frames(self);
    if (n < (int)sizeof *head) return 0;
    memcpy(head, bytes, sizeof *head);
  } while (head->type == ZP_ANSWER_NOTICE);
  return head->type;
}

static zp_parcel increment_of(const zp_change *change) {
  return (zp_parcel){ZP_NUMBERS(5), .string_count = 1, .strings = {text("space")}, .pairs = change, .pair_count = 1};
}

static void a_request_that_comes_twice_is_applied_once(void **unused) {
  (void)unused;
  zp_change change = {text("key"), text("value")};
  speaker other = dial();
  zp_wire_head head;
  for (int i = 0; i < 3; i++) {
    say(&other, head_of(&other, ZP_REQUEST_COMMIT, 1), increment_of(&change));
    assert_int_equal(hear(&other, &head), ZP_ANSWER_DONE);
    assert_int_equal(head.sequence, 1);
  }
  assert_int_equal(newest(), 1);
  say(&other, head_of(&other, ZP_REQUEST_COMMIT, 3), increment_of(&change));
  assert_int_equal(hear(&other, &head), ZP_ANSWER_DONE);
  say(&other, head_of(&other, ZP_REQUEST_COMMIT, 2), increment_of(&change)); /* overtaken: nobody waits for it */
  say(&other, head_of(&other, ZP_REQUEST_FETCH, 3), (zp_parcel){ZP_NUMBERS(3)});
  assert_int_equal(hear(&other, &head), ZP_ANSWER_DONE); /* the answer to 3 again */
  assert_int_equal(head.sequence, 3);
  assert_int_equal(newest(), 2);
  hang_up(&other);
}

static void who_has_not_said_hello_is_a_stranger(void **unused) {
  (void)unused;
  zp_change change = {text("key"), text("value")};
  speaker other = dial_only();
  zp_wire_head head;
  for (int i = 0; i < 2; i++) {
    say(&other, head_of(&other, ZP_REQUEST_COMMIT, 2), increment_of(&change));
    assert_int_equal(hear(&other, &head), ZP_ANSWER_STRANGER);
    assert_int_equal(newest(), 0);
  }
  say(&other, head_of(&other, ZP_REQUEST_HELLO, 1), (zp_parcel){.number_count = 0});
  assert_int_equal(hear(&other, &head), ZP_ANSWER_DONE);
  say(&other, head_of(&other, ZP_REQUEST_COMMIT, 2), increment_of(&change));
  assert_int_equal(hear(&other, &head), ZP_ANSWER_DONE);
  assert_int_equal(newest(), 1);
  hang_up(&other);
}

static void who_asks_after_a_request_hears_what_became_of_it(void **unused) {
  (void)unused;
  speaker other = dial();
  zp_wire_head head;
  for (int i = 0; i < 2; i++) { /* however often: the first answer may be lost */
    say(&other, head_of(&other, ZP_REQUEST_PROBE, 1), (zp_parcel){ZP_NUMBERS(1)});
    assert_int_equal(hear(&other, &head), ZP_ANSWER_FORGOTTEN);
  }
  zp_watch_cursor cursor = {.revision = 0};
  say(&other, head_of(&other, ZP_REQUEST_WATCH, 1),
      (zp_parcel){ZP_NUMBERS(5, ZP_WATCH_CHANGE, 1, 0, zp_parcel_of_double(1e9), 0, 0), ZP_STRINGS(text("space"), {&cursor, sizeof cursor}, text(""))});
  say(&other, head_of(&other, ZP_REQUEST_PROBE, 1), (zp_parcel){ZP_NUMBERS(1)});
  assert_int_equal(hear(&other, &head), ZP_ANSWER_RUNNING);
  say(&other, head_of(&other, ZP_REQUEST_GET, 2), (zp_parcel){.string_count = 2, .strings = {text("space"), text("key")}});
  assert_int_equal(hear(&other, &head), ZP_ANSWER_DONE);
  assert_int_equal(head.sequence, 2);
  for (int type = ZP_REQUEST_PROBE, i = 0; i < 2; i++, type = ZP_REQUEST_FETCH) {
    say(&other, head_of(&other, type, 3), (zp_parcel){ZP_NUMBERS(3)});
    assert_int_equal(hear(&other, &head), ZP_ANSWER_NOT_SEEN);
  }
  hang_up(&other);
}

/* A watcher of a change that never comes. */
static void watch(const speaker *self, uint64_t sequence) {
  zp_watch_cursor cursor = {.revision = 0};
  say(self, head_of(self, ZP_REQUEST_WATCH, sequence),
      (zp_parcel){ZP_NUMBERS(5, ZP_WATCH_CHANGE, 1, 0, zp_parcel_of_double(1e9), 0, 0), ZP_STRINGS(text("space"), {&cursor, sizeof cursor}, text(""))});
}

/* What becomes of a request that was given up: until nothing runs for it. */
static void await_not_seen(const speaker *self, uint64_t sequence) {
  double limit = zp_clock_now() + GENEROUS / 4;
  zp_wire_head head;
  do {
    if (zp_clock_now() > limit) fail_msg("request %d runs on", (int)sequence);
    say(self, head_of(self, ZP_REQUEST_PROBE, sequence), (zp_parcel){ZP_NUMBERS(sequence)});
  } while (hear(self, &head) != ZP_ANSWER_NOT_SEEN);
}

static void what_waits_for_the_one_before_it_can_be_given_up_as_well(void **unused) {
  (void)unused;
  speaker other = dial();
  for (uint64_t sequence = 1; sequence < 100; sequence += 2) {
    watch(&other, sequence);
    watch(&other, sequence + 1); /* which ends the first one */
    say(&other, head_of(&other, ZP_REQUEST_CANCEL, sequence + 1), (zp_parcel){ZP_NUMBERS(sequence + 1)});
    await_not_seen(&other, sequence + 1);
  }
  hang_up(&other);
}

static void who_is_overtaken_does_not_replace_what_waits(void **unused) {
  (void)unused;
  speaker other = dial();
  zp_wire_head head;
  zp_parcel get = {ZP_STRINGS(text("space"), text("key"))};
  for (uint64_t sequence = 1; sequence < 1000; sequence += 3) {
    watch(&other, sequence);
    say(&other, head_of(&other, ZP_REQUEST_GET, sequence + 2), get); /* waits until the watcher has ended */
    say(&other, head_of(&other, ZP_REQUEST_GET, sequence + 1), get);
    assert_int_equal(hear(&other, &head), ZP_ANSWER_DONE);
    assert_int_equal(head.sequence, sequence + 2);
  }
  hang_up(&other);
}

/* More clients than there may be: the one that has been silent longest goes, and what it leaves has to wait for a lock, but nobody else. */
static void who_has_to_give_way_keeps_nobody_waiting(void **unused) {
  (void)unused;
  enum { CROWD = 50000 };
  char path[sizeof directory + 8];
  zp_store *store;
  it_is_well();
  must(ask(ZP_REQUEST_TASK_ADD, (zp_parcel){ZP_NUMBERS(7, 10, 1, 1, ZP_TASK_PRIVATE, 1), ZP_STRINGS(text("what to do"))}));
  snprintf(path, sizeof path, "%s/tasks", directory);
  must(zp_store_open(path, "tasks", &store));
  must(zp_store_lock(store));
  speaker crowd = dial();
  for (uint32_t i = 0; i < CROWD; i++) {
    memcpy(crowd.client, &i, sizeof i);
    say(&crowd, head_of(&crowd, ZP_REQUEST_HELLO, 0), (zp_parcel){.number_count = 0});
  }
  it_is_well();
  zp_store_unlock(store);
  zp_store_close(&store);
  hang_up(&crowd);
  it_is_well();
}

/* The answer comes while nobody can be reached, and is there when he can be. */
static void who_is_out_of_reach_for_a_moment_was_not_forgotten(void **unused) {
  (void)unused;
  static const double MOMENT = 2.5;
  zp_change change = {text("key"), text("value")};
  zp_store *store;
  zp_wire_head head;
  it_is_well();
  uint64_t before = newest();
  must(zp_store_open(directory, "other", &store));
  must(zp_store_lock(store));
  speaker other = dial();
  say(&other, head_of(&other, ZP_REQUEST_COMMIT, 1), increment_of(&change));
  say(&other, head_of(&other, ZP_REQUEST_PROBE, 1), (zp_parcel){ZP_NUMBERS(1)});
  assert_int_equal(hear(&other, &head), ZP_ANSWER_RUNNING);
  hang_up(&other);
  double gone = zp_clock_now();
  while (zp_clock_now() - gone < MOMENT) assert_int_equal(newest(), before);
  zp_store_unlock(store);
  while (zp_clock_now() - gone < MOMENT + 0.5 || newest() == before) assert_true(has("health", "fine"));
  speaker again = dial_only(); /* the same client */
  memcpy(again.client, other.client, sizeof again.client);
  say(&again, head_of(&again, ZP_REQUEST_PROBE, 1), (zp_parcel){ZP_NUMBERS(1)});
  assert_int_equal(hear(&again, &head), ZP_ANSWER_KEPT);
  say(&again, head_of(&again, ZP_REQUEST_FETCH, 1), (zp_parcel){ZP_NUMBERS(1)});
  assert_int_equal(hear(&again, &head), ZP_ANSWER_DONE);
  hang_up(&again);
  zp_store_close(&store);
}

static void another_version_is_refused_with_words(void **unused) {
  (void)unused;
  speaker other = dial();
  zp_wire_head head = head_of(&other, ZP_REQUEST_PING, 1);
  head.version++;
  say(&other, head, (zp_parcel){.string_count = 1, .strings = {text("x")}});
  assert_int_equal(hear(&other, &head), ZP_ANSWER_REFUSED);
  it_is_well();
  hang_up(&other);
}

/* Many pairs take long to write: the thread that serves all others does something else meanwhile. */
static void a_large_change_keeps_nobody_waiting(void **unused) {
  (void)unused;
  enum { PAIRS = 50000, DIGITS = 8 };
  static char keys[PAIRS][DIGITS + 1];
  static zp_change changes[PAIRS];
  for (int i = 0; i < PAIRS; i++) {
    snprintf(keys[i], sizeof keys[i], "%08x", (unsigned)i * 2654435761U);
    changes[i] = (zp_change){text(keys[i]), text("value")};
  }
  size_t count = PAIRS;
  must(zp_changes_sort(changes, &count));
  zp_parcel request = increment_of(changes);
  request.pair_count = count;
  speaker other = dial();
  zp_wire_head head;
  say(&other, head_of(&other, ZP_REQUEST_COMMIT, 1), request);
  say(&other, head_of(&other, ZP_REQUEST_PROBE, 1), (zp_parcel){ZP_NUMBERS(1)});
  assert_int_equal(hear(&other, &head), ZP_ANSWER_RUNNING);
  assert_int_equal(hear(&other, &head), ZP_ANSWER_DONE);
  assert_int_equal(newest(), 1);
  hang_up(&other);
}

/* Nor does a large value that is read, or taken: copying that is left to those who may wait. */
static void a_large_value_keeps_nobody_waiting(void **unused) {
  (void)unused;
  static char large[ZP_EXECUTE_LARGE + 2];
  memset(large, 'x', sizeof large - 1);
  zp_executor *executor;
  zp_seat seat = {.queue = NULL};
  zp_answer got = {.type = 0};
  must(zp_executor_open(directory, NULL, &executor));
  const struct {
    int type;
    zp_parcel request;
  } cases[] = {
      {ZP_REQUEST_GET, {.string_count = 2, .strings = {text("space"), text("key")}}},
      {ZP_REQUEST_SETDEFAULT, {ZP_NUMBERS(5), .string_count = 3, .strings = {text("space"), text("key"), text("value")}}},
      {ZP_REQUEST_POP, {ZP_NUMBERS(5), ZP_STRINGS(text("space"), text("key"), text(""))}},
      {ZP_REQUEST_POPITEM, {ZP_NUMBERS(5), ZP_STRINGS(text("space"), text(""), text(""))}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    set("key", large);
    uint64_t before = newest();
    assert_int_equal(zp_execute(executor, &seat, cases[i].type, &cases[i].request, false, &got), ZP_EBUSY);
    assert_int_equal(newest(), before);
    must(zp_execute(executor, &seat, cases[i].type, &cases[i].request, true, &got));
    assert_int_equal(got.type, ZP_ANSWER_DONE);
    assert_true(got.body.size >= sizeof large - 1);
    set("key", "small");
    must(zp_execute(executor, &seat, cases[i].type, &cases[i].request, false, &got));
    assert_int_equal(got.type, ZP_ANSWER_DONE);
  }
  zp_buf_free(&got.body);
  zp_executor_close(&executor);
}

/* Nor what belongs to tasks: what is to be done, the items, the results. */
static void a_large_part_of_a_task_keeps_nobody_waiting(void **unused) {
  (void)unused;
  static char large[ZP_EXECUTE_LARGE + 1];
  zp_executor *executor;
  zp_seat seat = {.queue = NULL};
  zp_answer got = {.type = 0};
  must(zp_executor_open(directory, NULL, &executor));
  static const size_t sizes[] = {ZP_EXECUTE_LARGE, ZP_EXECUTE_LARGE + 1};
  for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
    zp_bytes bytes = {large, sizes[k]};
    int until_waited = sizes[k] > ZP_EXECUTE_LARGE ? ZP_EBUSY : 0;
    uint64_t task = k + 1;
    const struct {
      int type;
      zp_parcel request;
      int rc; /* of those who may not wait */
    } steps[] = {
        {ZP_REQUEST_TASK_ADD, {ZP_NUMBERS(7, ZP_TASK_UNKNOWN, 1, 1, 0, 1), ZP_STRINGS(bytes)}, ZP_EBUSY},
        {ZP_REQUEST_TASK_PUT, {ZP_NUMBERS(task, 1, 1), ZP_STRINGS(bytes)}, ZP_EBUSY},
        {ZP_REQUEST_TASK_SPECIFICATION, {ZP_NUMBERS(task)}, until_waited},
        {ZP_REQUEST_TASK_BLOCK, {ZP_NUMBERS(task, 0)}, until_waited},
        {ZP_REQUEST_WORKER_ENLIST, {ZP_NUMBERS(7)}, ZP_EBUSY},
        {ZP_REQUEST_WORKER_CLAIM, {ZP_NUMBERS(0, 0), ZP_STRINGS(text(""))}, ZP_EBUSY},
        {ZP_REQUEST_WORKER_CLAIM, {ZP_NUMBERS(1, 0), ZP_STRINGS(bytes)}, ZP_EBUSY},
        {ZP_REQUEST_TASK_TAKE, {ZP_NUMBERS(task, 0)}, until_waited},
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
      assert_int_equal(zp_execute(executor, &seat, steps[i].type, &steps[i].request, false, &got), steps[i].rc);
      must(zp_execute(executor, &seat, steps[i].type, &steps[i].request, true, &got));
      assert_int_equal(got.type, ZP_ANSWER_DONE);
      if (zp_seat_only_reads(steps[i].type)) assert_true(got.body.size >= sizes[k]);
    }
  }
  must(zp_seat_leave(&seat, false));
  zp_buf_free(&got.body);
  zp_executor_close(&executor);
}

/* One that was given up because it could not be reached, or knew another server, finds its results when it comes back. */
static void who_comes_back_finds_the_results_of_his_task(void **unused) {
  (void)unused;
  zp_executor *executor;
  zp_seat before = {.queue = NULL}, after = {.queue = NULL};
  zp_answer got = {.type = 0};
  zp_queue *queue;
  must(zp_executor_open(directory, NULL, &executor));
  must(zp_queue_open(directory, &queue));
  const zp_parcel mine = {ZP_NUMBERS(7, 10, 1, 1, ZP_TASK_PRIVATE, 1), ZP_STRINGS(text("what to do"))};
  const zp_parcel inner = {ZP_NUMBERS(7, 10, 1, 1, ZP_TASK_INNER, 1), ZP_STRINGS(text("what to do"))};
  const zp_parcel take = {ZP_NUMBERS(1, 0)};
  zp_task_info info;
  must(zp_execute(executor, &before, ZP_REQUEST_TASK_ADD, &mine, true, &got));
  must(zp_execute(executor, &before, ZP_REQUEST_TASK_ADD, &inner, true, &got));
  must(zp_execute(executor, &before, ZP_REQUEST_TASK_TAKE, &take, false, &got));
  must(zp_seat_leave(&before, false));
  assert_int_equal(zp_queue_describe(queue, 1, &info), 1);
  assert_int_equal(zp_queue_describe(queue, 2, &info), 0);
  assert_int_equal(zp_execute(executor, &after, ZP_REQUEST_TASK_TAKE, &take, false, &got), ZP_EBUSY);
  must(zp_execute(executor, &after, ZP_REQUEST_TASK_TAKE, &take, true, &got));
  assert_int_equal(got.type, ZP_ANSWER_DONE);
  must(zp_execute(executor, &after, ZP_REQUEST_TASK_TAKE, &take, false, &got));
  assert_int_equal(zp_queue_clear(queue, 0), 0);
  must(zp_seat_leave(&after, false));
  assert_int_equal(zp_queue_clear(queue, GENEROUS), 0);
  assert_int_equal(zp_queue_clear(queue, 0), 1);
  zp_buf_free(&got.body);
  zp_queue_close(&queue);
  zp_executor_close(&executor);
}

static void garbage_gets_no_answer_and_does_no_harm(void **unused) {
  (void)unused;
  speaker other = dial();
  zp_wire_head head;
  unsigned char bytes[300];
  static const int brief = 100;
  zp_zmq->setsockopt(other.socket, ZMQ_RCVTIMEO, &brief, sizeof brief);
  unsigned seed = 1;
  for (int i = 0; i < 2000; i++) {
    size_t size = (size_t)(rand_r(&seed) % (int)sizeof bytes);
    for (size_t k = 0; k < size; k++) bytes[k] = (unsigned char)rand_r(&seed);
    if (i % 3 == 0 && size > sizeof head) { /* with a head that is one */
      head = head_of(&other, rand_r(&seed) % 40, (uint64_t)i + 1);
      if (head.type == ZP_REQUEST_PROBE || head.type == 0) head.magic = 0;
      memcpy(bytes, &head, sizeof head);
    }
    assert_true(zp_zmq->send(other.socket, bytes, size, i % 5 == 0 ? ZMQ_SNDMORE : 0) >= 0);
  }
  zp_zmq->send(other.socket, "", 0, 0);
  while (hear(&other, &head)) assert_int_equal(head.type, ZP_ANSWER_FAILED); /* to those with a head */
  it_is_well();
  hang_up(&other);
}

static void a_frame_that_is_too_large_closes_the_connection(void **unused) {
  (void)unused;
  speaker other = dial();
  zp_wire_head head;
  static const int brief = 1000;
  zp_zmq->setsockopt(other.socket, ZMQ_RCVTIMEO, &brief, sizeof brief);
  size_t size = ZP_WIRE_FRAME_MAX + 1;
  char *large = calloc(1, size);
  head = head_of(&other, ZP_REQUEST_PING, 1);
  memcpy(large, &head, sizeof head);
  assert_true(zp_zmq->send(other.socket, large, size, 0) >= 0);
  assert_int_equal(hear(&other, &head), 0);
  free(large);
  it_is_well();
  hang_up(&other);
}

/* ---- strangers that do not even speak ZeroMQ ---- */

static int connect_plainly(void) {
  int fd;
  must(zp_inet_connect(address, zp_clock_now() + GENEROUS, &fd));
  return fd;
}

static void await_end(int fd) {
  char bytes[4096];
  double limit = zp_clock_now() + GENEROUS;
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  for (;;) {
    if (zp_clock_now() > limit) fail_msg("the connection stays open");
    if (poll(&ready, 1, 1000) <= 0) continue;
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    if (n == 0 || (n < 0 && errno == ECONNRESET)) break;
  }
  close(fd);
}

static void whoever_speaks_something_else_or_stops_halfway_is_hung_up_on(void **unused) {
  (void)unused;
  static const char half[] = "\xff\0\0\0\0\0\0\0\1\x7f\3";
  static const char promise[] = "\xff\0\0\0\0\0\0\0\1\x7f\3\1NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                                "\0\2\0\0\0\0\x40\0\0\0"; /* and a frame of a gigabyte */
  static const struct { const char *bytes; size_t size; } words[] = {
      {"GET / HTTP/1.0\r\n\r\n", 18}, {"\0\1\2\3", 4}, {half, sizeof half - 1}, {promise, sizeof promise - 1}, {"", 0}};
  int fds[sizeof words / sizeof *words];
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    fds[i] = connect_plainly();
    if (words[i].size) assert_int_equal(send(fds[i], words[i].bytes, words[i].size, MSG_NOSIGNAL), (ssize_t)words[i].size);
  }
  it_is_well();
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) await_end(fds[i]);
  it_is_well();
}

/* A byte now and then is no handshake. */
static void a_greeting_that_comes_byte_by_byte_is_not_waited_for(void **unused) {
  (void)unused;
  static const char greeting[64] = "\xff\0\0\0\0\0\0\0\1\x7f\3\1NULL";
  enum { PACE = 500 /* milliseconds a byte: half a minute for all */ };
  int fd = connect_plainly();
  double limit = zp_clock_now() + sizeof greeting * PACE / 1e3 / 2;
  bool is_open = true;
  for (size_t at = 0; is_open && at < sizeof greeting; at++) {
    char bytes[256];
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    is_open = send(fd, greeting + at, 1, MSG_NOSIGNAL) == 1;
    for (int left = PACE; is_open && left > 0 && poll(&ready, 1, left) > 0; left -= PACE / 10) is_open = recv(fd, bytes, sizeof bytes, 0) > 0;
    if (zp_clock_now() > limit) break;
  }
  close(fd);
  assert_false(is_open);
  it_is_well();
}

/* ---- those that take the name of another ---- */

static const unsigned char NAME[ZP_CLIENT_SIZE] = "a name of many.";

/* A speaker whose connection has that name at the server; NULL: no keys. */
static speaker dial_as(const void *name, size_t size, const zp_keys *keys) {
  static const int no_linger = 0, patience = 200; /* milliseconds */
  speaker self = {.context = zp_zmq->ctx_new()};
  self.socket = zp_zmq->socket(self.context, ZMQ_DEALER);
  zp_zmq->setsockopt(self.socket, ZMQ_LINGER, &no_linger, sizeof no_linger);
  zp_zmq->setsockopt(self.socket, ZMQ_RCVTIMEO, &patience, sizeof patience);
  assert_int_equal(zp_zmq->setsockopt(self.socket, ZMQ_ROUTING_ID, name, size), 0);
  if (keys) {
    zp_zmq->setsockopt(self.socket, ZMQ_CURVE_SERVERKEY, keys->server_public, ZP_KEY_BYTES);
    zp_zmq->setsockopt(self.socket, ZMQ_CURVE_PUBLICKEY, keys->client_public, ZP_KEY_BYTES);
    zp_zmq->setsockopt(self.socket, ZMQ_CURVE_SECRETKEY, keys->client_secret, ZP_KEY_BYTES);
  }
  assert_int_equal(getrandom(self.client, sizeof self.client, 0), (ssize_t)sizeof self.client);
  assert_int_equal(zp_zmq->connect(self.socket, endpoint), 0);
  return self;
}

static void ask_as_many(const zp_keys *keys, int rounds) {
  enum { SPEAKERS = 4 };
  zp_change change = {text("key"), text("value")};
  for (int round = 0; round < rounds; round++) {
    speaker all[SPEAKERS];
    zp_wire_head head;
    for (int i = 0; i < SPEAKERS; i++) {
      all[i] = dial_as(NAME, sizeof NAME, keys);
      say(&all[i], head_of(&all[i], ZP_REQUEST_HELLO, 0), (zp_parcel){.number_count = 0});
      for (int k = 1; k < 4; k++) say(&all[i], head_of(&all[i], ZP_REQUEST_COMMIT, (uint64_t)k), increment_of(&change));
    }
    for (int i = 0; i < SPEAKERS; i++) hear(&all[(i + round) % SPEAKERS], &head);
    for (int i = 0; i < SPEAKERS; i++) hang_up(&all[(i + round / 2) % SPEAKERS]);
    it_is_well();
  }
}

static void two_live_connections_of_one_name_do_no_harm(void **unused) {
  (void)unused;
  ask_as_many(NULL, 25);
}

static void nor_do_they_with_keys(void **unused) {
  (void)unused;
  zp_keys keys;
  must(zp_keys_derive(text("known to all"), &keys));
  zp_service_stop(&service);
  must(zp_keys_write(directory, &keys));
  must(zp_service_start(directory, -1, &listener, 1, 0, &service));
  zp_remote_close(&client);
  must(zp_remote_open(endpoint, &keys, &client));
  ask_as_many(&keys, 25);
}

/* By hand: names that ZeroMQ lets nobody choose, or of any length; connections that say nothing more, or are closed at once. */
static void names_that_cannot_be_chosen_do_no_harm(void **unused) {
  (void)unused;
  enum { ROUNDS = 200, AT_ONCE = 8, GREETING = 64 };
  static const char greeting[GREETING] = "\xff\0\0\0\0\0\0\0\1\x7f\3\1NULL";
  static const char ready[] = "\5READY\13Socket-Type\0\0\0\6DEALER\10Identity\0\0";
  int fds[AT_ONCE] = {0};
  unsigned seed = 7;
  for (int round = 0; round < ROUNDS; round++) {
    unsigned char bytes[4 + sizeof ready + 2 + 255];
    size_t size = (size_t)(rand_r(&seed) % 4 == 0 ? 5 : rand_r(&seed) % 200), head = sizeof ready - 1;
    bytes[0] = 4;
    bytes[1] = (unsigned char)(head + 2 + size);
    memcpy(bytes + 2, ready, head);
    bytes[2 + head] = 0;
    bytes[3 + head] = (unsigned char)size;
    memset(bytes + 4 + head, 0, size);
    if (size > 0) bytes[3 + head + size] = (unsigned char)(rand_r(&seed) % 2);
    int *fd = &fds[round % AT_ONCE];
    if (*fd > 0) close(*fd);
    *fd = connect_plainly();
    assert_int_equal(send(*fd, greeting, sizeof greeting, MSG_NOSIGNAL), (ssize_t)sizeof greeting);
    assert_int_equal(send(*fd, bytes, 4 + head + size, MSG_NOSIGNAL), (ssize_t)(4 + head + size));
    if (round % 3) (void)!send(*fd, "\0\1x\0\0", 5, MSG_NOSIGNAL);
    it_is_well();
  }
  for (int i = 0; i < AT_ONCE; i++) await_end(fds[i]); /* none of them has said anything of use */
}

/* The connection is known by what is said on it, not by its name: whoever comes back by another one is the same client. */
static void who_comes_back_under_another_name_is_known_by_the_number(void **unused) {
  (void)unused;
  zp_change change = {text("key"), text("value")};
  zp_wire_head head;
  speaker first = dial();
  say(&first, head_of(&first, ZP_REQUEST_COMMIT, 1), increment_of(&change));
  assert_int_equal(hear(&first, &head), ZP_ANSWER_DONE);
  speaker second = dial_only();
  memcpy(second.client, first.client, sizeof first.client);
  say(&second, head_of(&second, ZP_REQUEST_COMMIT, 1), increment_of(&change));
  assert_int_equal(hear(&second, &head), ZP_ANSWER_DONE);
  assert_int_equal(newest(), 1);
  hang_up(&first);
  hang_up(&second);
}

/* ---- those that speak it, but without end ---- */

static void hear_bytes(int fd, unsigned char *bytes, size_t size) {
  struct pollfd ready = {.fd = fd, .events = POLLIN};
  for (size_t have = 0; have < size;) {
    assert_int_equal(poll(&ready, 1, (int)(GENEROUS * 1e3)), 1);
    ssize_t n = recv(fd, bytes + have, size - have, 0);
    if (n <= 0) fail_msg("the connection is closed by those who should greet");
    have += (size_t)n;
  }
}

/* Connect, say what ZeroMQ says at the beginning without keys, and hear it: who goes on before is hung up on for that. */
static int connect_as_dealer(void) {
  enum { GREETING = 64 };
  static const char greeting[GREETING] = "\xff\0\0\0\0\0\0\0\1\x7f\3\1NULL";
  static const char ready[] = "\4\x1c\5READY\13Socket-Type\0\0\0\6DEALER";
  unsigned char theirs[UINT8_MAX], start[2];
  int fd = connect_plainly();
  assert_int_equal(send(fd, greeting, sizeof greeting, MSG_NOSIGNAL), (ssize_t)sizeof greeting);
  assert_int_equal(send(fd, ready, sizeof ready - 1, MSG_NOSIGNAL), (ssize_t)sizeof ready - 1);
  hear_bytes(fd, theirs, GREETING);
  hear_bytes(fd, start, sizeof start);
  assert_int_equal(start[0], 4); /* READY, too, whose size is next */
  hear_bytes(fd, theirs, start[1]);
  return fd;
}

static void who_has_shaken_hands_and_says_nothing_is_hung_up_on(void **unused) {
  (void)unused;
  await_end(connect_as_dealer());
  it_is_well();
}

/* A message of which there is always more: frames, as many as are taken within a deadline. True if the connection was closed meanwhile. */
static bool go_on_and_on(double deadline) {
  enum { FRAME = 1 << 18 };
  static const unsigned char start[] = {3 /* it is long, and there is more */, 0, 0, 0, 0, 0, FRAME >> 16, 0, 0};
  unsigned char *frame = calloc(1, sizeof start + FRAME);
  memcpy(frame, start, sizeof start);
  int fd = connect_as_dealer();
  bool is_open = true;
  struct pollfd ready_to = {.fd = fd, .events = POLLOUT};
  for (size_t at = 0; is_open && zp_clock_now() < deadline;) {
    if (poll(&ready_to, 1, 1000) <= 0) continue;
    ssize_t n = send(fd, frame + at, sizeof start + FRAME - at, MSG_NOSIGNAL);
    if (n > 0) at = (at + (size_t)n) % (sizeof start + FRAME);
    else is_open = errno == EAGAIN || errno == EINTR;
  }
  free(frame);
  close(fd);
  return !is_open;
}

/* Sanitizers keep what was freed for a while, and books of their own. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { IS_MEASURED = false };
#else
enum { IS_MEASURED = true };
#endif

static void limit_memory(void) {
  enum { MEMORY = 64 << 20 };
  zp_service_stop(&service);
  must(zp_service_start(directory, -1, &listener, 1, MEMORY, &service));
}

static void a_message_without_end_ends_the_connection(void **unused) {
  (void)unused;
  limit_memory();
  set("before", "this");
  uint64_t revision = newest();
  for (int i = 0; i < 3; i++) {
    assert_true(go_on_and_on(zp_clock_now() + GENEROUS));
    assert_true(has("before", "this")); /* a client that was connected, too */
    set("again", "and again");
    assert_int_equal(newest(), ++revision);
  }
  it_is_well();
}

/* Ask for a value over and over without ever reading an answer, while others are served. True if the connection was closed within a
   deadline. */
static bool ask_and_ask(const char *key, double deadline) {
  enum { REQUESTS = 64 /* then for one that is small: enough is enough, whatever the server does */ };
  int fd = connect_as_dealer();
  speaker self = {.client = {1}};
  struct pollfd ended = {.fd = fd};
  bool is_open = true;
  for (uint64_t i = 0; is_open && zp_clock_now() < deadline; i++) {
    zp_wire_head head = head_of(&self, i == 0 ? ZP_REQUEST_HELLO : ZP_REQUEST_GET, i);
    zp_parcel hello = {.number_count = 0}, get = {ZP_STRINGS(text("space"), text(i <= REQUESTS ? key : "health"))};
    unsigned char start[2] = {0 /* it is short, and all of a message */};
    zp_buf frame = ZP_BUF_INIT;
    must(zp_buf_append(&frame, start, sizeof start));
    must(zp_buf_append(&frame, &head, sizeof head));
    must(zp_parcel_write(i == 0 ? &hello : &get, &frame));
    assert_uint_in_range(frame.size - sizeof start, 1, UINT8_MAX);
    frame.data[1] = (unsigned char)(frame.size - sizeof start);
    is_open = (send(fd, frame.data, frame.size, MSG_NOSIGNAL) > 0 || errno == EAGAIN) && poll(&ended, 1, 50) == 0;
    zp_buf_free(&frame);
    it_is_well();
  }
  close(fd);
  return !is_open;
}

static void answers_that_nobody_reads_end_the_connection(void **unused) {
  (void)unused;
  enum { SIZE = 8 << 20 };
  limit_memory();
  char *large = calloc(1, SIZE);
  zp_change change = {text("large"), {large, SIZE}};
  must(ask(ZP_REQUEST_COMMIT, (zp_parcel){ZP_NUMBERS(5), ZP_STRINGS(text("space")), .pairs = &change, .pair_count = 1}));
  free(large);
  assert_true(ask_and_ask("large", zp_clock_now() + GENEROUS));
  it_is_well();
}

/* Answers to what must not be repeated are kept until their clients ask for something else. */
static void answers_that_are_kept_do_not_grow_without_end(void **unused) {
  (void)unused;
  if (!IS_MEASURED) skip();
  enum { SIZE = 8 << 20, CLIENTS = 24, BRIEF = 1000 /* milliseconds */, ENOUGH = 96 << 20 /* what clients may take up, and half as much */ };
  static const int brief = BRIEF;
  limit_memory();
  it_is_well();
  size_t before = zp_memory_private();
  char *large = calloc(1, SIZE);
  speaker others[CLIENTS];
  zp_wire_head head;
  zp_change change = {text("large"), {large, SIZE}};
  for (int i = 0; i < CLIENTS; i++) {
    must(ask(ZP_REQUEST_COMMIT, (zp_parcel){ZP_NUMBERS(5), ZP_STRINGS(text("space")), .pairs = &change, .pair_count = 1}));
    others[i] = dial_only();
    zp_zmq->setsockopt(others[i].socket, ZMQ_RCVTIMEO, &brief, sizeof brief);
    int type = ZP_ANSWER_STRANGER;
    while (type == 0 || type == ZP_ANSWER_STRANGER) { /* all connections may be closed at any time, and what is under way is lost */
      if (type == ZP_ANSWER_STRANGER) say(&others[i], head_of(&others[i], ZP_REQUEST_HELLO, 0), (zp_parcel){.number_count = 0});
      say(&others[i], head_of(&others[i], ZP_REQUEST_POP, 1), (zp_parcel){ZP_NUMBERS(5), ZP_STRINGS(text("space"), text("large"), text(""))});
      type = hear(&others[i], &head);
    }
    assert_int_equal(type, ZP_ANSWER_DONE);
  }
  free(large);
  double limit = zp_clock_now() + GENEROUS;
  while (zp_memory_private() > before + ENOUGH)
    if (zp_clock_now() > limit) fail_msg("%zu bytes are kept", zp_memory_private() - before);
  do say(&others[0], head_of(&others[0], ZP_REQUEST_FETCH, 2), (zp_parcel){ZP_NUMBERS(1)});
  while (hear(&others[0], &head) == 0);
  assert_int_equal(head.type, ZP_ANSWER_FAILED); /* it has happened or not; the client was told that it has, long ago */
  for (int i = 0; i < CLIENTS; i++) hang_up(&others[i]);
  it_is_well();
}

/* A server that greets, and then never knows of any request. */
static void be_ignorant(const char *at) {
  void *router = zp_zmq->socket(zp_zmq->ctx_new(), ZMQ_ROUTER);
  if (zp_zmq->bind(router, at) < 0) _exit(1);
  for (;;) {
    unsigned char route[256], bytes[4096];
    zp_wire_head head;
    int size = zp_zmq->recv(router, route, sizeof route, 0), n = zp_zmq->recv(router, bytes, sizeof bytes, 0);
    if (size < 0 || n < (int)sizeof head) continue;
    memcpy(&head, bytes, sizeof head);
    zp_buf out = ZP_BUF_INIT;
    zp_parcel hello = {.number_count = 7, .numbers = {1}, ZP_STRINGS(text("/nowhere"), text("another machine"))}, nothing = {.number_count = 0};
    bool is_hello = head.type == ZP_REQUEST_HELLO;
    head.type = is_hello ? ZP_ANSWER_DONE : ZP_ANSWER_NOT_SEEN;
    head.incarnation = 1;
    if (zp_buf_append(&out, &head, sizeof head) || zp_parcel_write(is_hello ? &hello : &nothing, &out)) _exit(1);
    zp_zmq->send(router, route, (size_t)size, ZMQ_SNDMORE);
    zp_zmq->send(router, out.data, out.size, 0);
    zp_buf_free(&out);
  }
}

static void a_server_that_never_takes_a_request_is_not_asked_for_ever(void **unused) {
  (void)unused;
  char path[128];
  snprintf(path, sizeof path, "ipc://%s/ignorant", directory);
  pid_t pid = fork();
  if (pid == 0) be_ignorant(path);
  zp_remote *first = client;
  must(zp_remote_open(path, NULL, &client));
  double limit = zp_clock_now() + GENEROUS;
  int fd = -1;
  while (zp_sock_connect(path + strlen("ipc://"), limit, &fd) && zp_clock_now() < limit) sched_yield(); /* it has a name before it listens */
  assert_true(fd >= 0);
  close(fd);
  assert_int_equal(ask(ZP_REQUEST_GET, (zp_parcel){ZP_STRINGS(text("space"), text("key"))}), ZP_ENOSTORE);
  assert_non_null(strstr(zp_error_detail(), "nothing has happened"));
  zp_remote_close(&client);
  client = first;
  kill(pid, SIGKILL);
  assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static long resident_pages(void) {
  long size = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  assert_non_null(file);
  assert_int_equal(fscanf(file, "%ld %ld", &size, &resident), 2);
  fclose(file);
  return resident;
}

/* The most memory that this process has had since it was asked to forget it; in bytes. */
static void forget_peak(void) {
  FILE *file = fopen("/proc/self/clear_refs", "w");
  if (!file) skip();
  fputs("5", file);
  fclose(file);
}

static size_t peak(void) {
  char line[256];
  unsigned long kilobytes = 0;
  FILE *file = fopen("/proc/self/status", "r");
  assert_non_null(file);
  while (fgets(line, sizeof line, file))
    if (sscanf(line, "VmHWM: %lu", &kilobytes) == 1) break;
  fclose(file);
  return (size_t)kilobytes << 10;
}

/* A request of a process of its own, so that what it takes there is not counted; the type of the answer. */
static int send_elsewhere(int type, zp_parcel parcel, const char *pair, size_t pair_size, size_t count) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    zp_buf bytes = ZP_BUF_INIT;
    speaker other = dial();
    zp_wire_head head = head_of(&other, type, 1);
    if (zp_parcel_write_begin(&parcel, count, &bytes)) _exit(1);
    for (size_t i = 0; i < count; i++) {
      if (zp_buf_append(&bytes, pair, pair_size)) _exit(1);
      if (pair_size > 4) zp_put_be32(bytes.data + bytes.size - pair_size + 1, (uint32_t)i); /* keys that ascend */
    }
    if (zp_frames_send(other.socket, (zp_bytes){NULL, 0}, (zp_bytes){&head, sizeof head}, zp_buf_bytes(&bytes))) _exit(1);
    _exit(hear(&other, &head) - ZP_ANSWER_DONE);
  }
  int status = 0, served = 0;
  for (double limit = zp_clock_now() + GENEROUS; waitpid(pid, &status, WNOHANG) == 0; served++) {
    assert_true(zp_clock_now() < limit);
    must(ask(ZP_REQUEST_PING, (zp_parcel){ZP_STRINGS(text("x"))})); /* the others do not wait for that */
  }
  assert_true(served > 0);
  return ZP_ANSWER_DONE + WEXITSTATUS(status);
}

static void a_request_takes_no_more_memory_than_its_bytes(void **unused) {
  (void)unused;
#ifdef __SANITIZE_THREAD__
  skip(); /* see above */
#endif
  enum { SIZE = 48 << 20, ENOUGH = SIZE + (24 << 20) /* what has been joined is no longer there as frames */ };
  static const char tiny[] = "\0", small[] = "\4....\0";
  zp_watch_cursor cursor = {.revision = 0};
  zp_parcel change = {ZP_NUMBERS(5), ZP_STRINGS(text("space"))};
  zp_parcel watch = {ZP_NUMBERS(5, ZP_WATCH_CHANGE, 1, ZP_WATCH_LIVE, zp_parcel_of_double(0.1), 0, 0),
                     ZP_STRINGS(text("space"), {&cursor, sizeof cursor}, text(""))};
  it_is_well();
  forget_peak();
  size_t before = peak();
  assert_int_equal(send_elsewhere(ZP_REQUEST_COMMIT, change, tiny, 2, SIZE / 2), ZP_ANSWER_FAILED); /* the same key again and again */
  assert_int_equal(send_elsewhere(ZP_REQUEST_REPLACE, change, tiny, 2, SIZE / 2), ZP_ANSWER_FAILED);
  assert_int_equal(send_elsewhere(ZP_REQUEST_WATCH, watch, tiny, 2, SIZE / 2), ZP_ANSWER_FAILED);
  assert_int_equal(send_elsewhere(ZP_REQUEST_GET, change, tiny, 2, SIZE / 2), ZP_ANSWER_FAILED);
  assert_int_equal(send_elsewhere(ZP_REQUEST_COMMIT, change, small, 6, (IS_MEASURED ? SIZE : 1 << 20) / 6), ZP_ANSWER_DONE);
  print_message("%zu MB for %d MB\n", (peak() - before) >> 20, SIZE >> 20);
  assert_true(!IS_MEASURED || peak() - before < ENOUGH);
  it_is_well();
}

static void a_large_request_is_not_kept_beyond_its_answer(void **unused) {
  (void)unused;
  if (!IS_MEASURED) skip();
  enum { CLIENTS = 8, SIZE = 30 << 20, PAGES = 30000 /* 120 MB */ };
  zp_remote *first = client, *clients[CLIENTS];
  zp_watch_cursor cursor = {.revision = 0};
  char *large = malloc(SIZE);
  memset(large, 'x', SIZE);
  it_is_well();
  long pages = resident_pages();
  for (int i = 0; i < CLIENTS; i++) {
    must(zp_remote_open(endpoint, NULL, &clients[i]));
    client = clients[i];
    zp_parcel predicate = {ZP_NUMBERS(5, ZP_WHEN_PREDICATE, 1, 0, zp_parcel_of_double(0), 0, 0),
                           ZP_STRINGS(text("space"), {&cursor, sizeof cursor}, {large, SIZE})};
    assert_int_not_equal(ask(ZP_REQUEST_WATCH, predicate), 0); /* that is no function */
    must(ask(ZP_REQUEST_PING, (zp_parcel){.string_count = 1, .strings = {text("x")}}));
  }
  client = first;
  it_is_well();
  assert_true(resident_pages() - pages < PAGES);
  for (int i = 0; i < CLIENTS; i++) zp_remote_close(&clients[i]);
  free(large);
}

/* In a process of its own: open so many connections, say how many there are, and keep them until the pipe is closed. */
static pid_t start_crowd(int count, int *told, int *life) {
  int up[2], down[2];
  assert_int_equal(pipe(up), 0);
  assert_int_equal(pipe(down), 0);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    close(down[1]);
    int opened = 0, fd;
    while (opened < count && zp_inet_connect(address, zp_clock_now() + GENEROUS, &fd) == 0) opened++;
    if (write(up[1], &opened, sizeof opened) != sizeof opened) _exit(1);
    char byte;
    (void)!read(down[0], &byte, 1);
    _exit(0);
  }
  close(up[1]);
  close(down[0]);
  *told = up[0];
  *life = down[1];
  return pid;
}

static void a_crowd_that_never_speaks_is_no_burden(void **unused) {
  (void)unused;
  enum { CROWD = 10000, PAGES = 50000 /* 200 MB */ };
  struct rlimit limit, before;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  limit = before;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  it_is_well();
  long pages = resident_pages();
  int told, life, opened = 0;
  pid_t crowd = start_crowd(CROWD, &told, &life);
  it_is_well();
  assert_int_equal(read(told, &opened, sizeof opened), sizeof opened);
  print_message("%d connections\n", opened);
  assert_true(opened == CROWD || limit.rlim_max < 2 * CROWD);
  it_is_well();
  assert_true(!IS_MEASURED || resident_pages() - pages < PAGES);
  close(life);
  close(told);
  waitpid(crowd, NULL, 0);
  it_is_well();
  setrlimit(RLIMIT_NOFILE, &before);
}

/* Pass on what comes, so many bytes of it a second towards `from`, until one side ends; and count these. */
static void pass_on(int from, int to, double rate, _Atomic uint64_t *returned) {
  char bytes[1 << 15];
  struct pollfd ready[] = {{.fd = from, .events = POLLIN}, {.fd = to, .events = POLLIN}};
  double begun = zp_clock_now();
  for (uint64_t passed = 0;;) {
    poll(ready, 2, -1);
    for (int i = 0; i < 2; i++) {
      if (!ready[i].revents) continue;
      ssize_t n = recv(ready[i].fd, bytes, sizeof bytes, 0);
      if (n <= 0 || send(ready[1 - i].fd, bytes, (size_t)n, MSG_NOSIGNAL) != n) return;
      if (i == 0) continue;
      passed += (uint64_t)n;
      atomic_fetch_add(returned, (uint64_t)n);
      double early = begun + (double)passed / rate - zp_clock_now();
      if (early > 0) poll(NULL, 0, (int)(early * 1e3));
    }
  }
}

/* In a process of its own: a way to the server that takes long. */
static pid_t start_line(double rate, int *end, char slow[ZP_INET_NAME_SIZE + 8], _Atomic uint64_t *returned) {
  char name[ZP_INET_NAME_SIZE];
  bool is_loopback;
  static const int small = 1 << 16;
  must(zp_inet_listen("127.0.0.1:*", end, name, &is_loopback));
  setsockopt(*end, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  snprintf(slow, ZP_INET_NAME_SIZE + 8, "tcp://%s", name);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid > 0) return pid;
  alarm((unsigned)(2 * GENEROUS)); /* whatever becomes of the test */
  for (;;) {
    int from, to;
    struct pollfd ready = {.fd = *end, .events = POLLIN};
    poll(&ready, 1, -1);
    from = accept(*end, NULL, NULL);
    if (from < 0 || zp_inet_connect(address, zp_clock_now() + GENEROUS, &to)) continue;
    setsockopt(to, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    pass_on(from, to, rate, returned);
    close(from);
    close(to);
  }
}

static void an_answer_may_take_longer_than_patience_as_long_as_it_comes(void **unused) {
  (void)unused;
  enum { SIZE = 32 << 20, RATE = SIZE / (ZP_REMOTE_PATIENCE + 4) /* bytes a second */ };
  char *large = malloc(SIZE + 1), slow[ZP_INET_NAME_SIZE + 8];
  int end;
  _Atomic uint64_t *returned = mmap(NULL, sizeof *returned, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(returned != MAP_FAILED);
  memset(large, 'x', SIZE);
  large[SIZE] = '\0';
  set("large", large);
  pid_t line = start_line(RATE, &end, slow, returned);
  zp_remote *direct = client;
  must(zp_remote_open(slow, NULL, &client));
  double begun = zp_clock_now();
  must(ask(ZP_REQUEST_POP, (zp_parcel){ZP_NUMBERS(5), ZP_STRINGS(text("space"), text("large"), text(""))}));
  assert_int_equal(answer.strings[0].size, SIZE);
  double took = zp_clock_now() - begun;
  assert_true(took > ZP_REMOTE_PATIENCE);
  must(ask(ZP_REQUEST_PING, (zp_parcel){.string_count = 1, .strings = {text("x")}}));
  assert_true(atomic_load(returned) < 2ull * SIZE); /* it is not sent again while it is on its way */
  zp_remote_close(&client);
  client = direct;
  kill(line, SIGKILL);
  waitpid(line, NULL, 0);
  close(end);
  munmap((void *)returned, sizeof *returned);
  free(large);
}

static struct rlimit limit_descriptors(rlim_t count) {
  struct rlimit limit, before;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  limit = before;
  limit.rlim_cur = count;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
  return before;
}

/* More connections than there are descriptors: others wait at the door until the silent ones were closed. */
static void a_crowd_beyond_the_descriptors_only_keeps_others_waiting(void **unused) {
  (void)unused;
  enum { DESCRIPTORS = 300, CROWD = 600 };
  int told, life, opened = 0;
  it_is_well();
  struct sockaddr_in server = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  server.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
  int late = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* while there are descriptors */
  assert_true(late >= 0);
  pid_t crowd = start_crowd(CROWD, &told, &life); /* before the limit is lowered, which is for the server */
  struct rlimit before = limit_descriptors(DESCRIPTORS);
  assert_int_equal(read(told, &opened, sizeof opened), sizeof opened);
  assert_int_equal(opened, CROWD);
  it_is_well(); /* who was there before is served */
  assert_int_equal(connect(late, (struct sockaddr *)&server, sizeof server), 0);
  struct pollfd greeted = {.fd = late, .events = POLLIN};
  unsigned char first = 0;
  assert_int_equal(poll(&greeted, 1, (int)(GENEROUS * 1e3)), 1);
  assert_int_equal(recv(late, &first, 1, 0), 1); /* ZeroMQ speaks first */
  assert_int_equal(first, 0xff);
  close(late);
  close(life);
  close(told);
  waitpid(crowd, NULL, 0);
  it_is_well();
  setrlimit(RLIMIT_NOFILE, &before);
}

static void without_descriptors_there_is_an_error_and_no_harm(void **unused) {
  (void)unused;
  enum { FEW = 6 };
  it_is_well();
  int fds[FEW];
  for (int i = 0; i < FEW; i++) assert_true((fds[i] = dup(STDERR_FILENO)) >= 0);
  struct rlimit before = limit_descriptors((rlim_t)fds[FEW - 1] + 1);
  for (int i = 0; i < FEW; i++) close(fds[i]);
  zp_remote *first = client;
  zp_service *second = NULL;
  int rc = zp_remote_open(endpoint, NULL, &client);
  if (!rc) rc = ask(ZP_REQUEST_PING, (zp_parcel){.string_count = 1, .strings = {text("x")}});
  assert_int_equal(rc, ZP_ESYS);
  assert_int_not_equal(zp_service_start(directory, -1, &listener, 1, 0, &second), 0);
  setrlimit(RLIMIT_NOFILE, &before);
  must(ask(ZP_REQUEST_PING, (zp_parcel){.string_count = 1, .strings = {text("x")}}));
  zp_remote_close(&client);
  client = first;
  it_is_well();
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "--judge") == 0) return zp_judge_main(argv[2]); /* executed by the service, whose program this is */
  signal(SIGPIPE, SIG_IGN);
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(requests_are_carried_out),
      TEST(nothing_is_removed_that_the_client_may_be_unable_to_read),
      TEST(failures_come_back_as_such),
      TEST(a_large_request_comes_in_parts),
      TEST(what_waits_is_given_up_with_its_client),
      TEST(a_child_connects_for_itself),
      TEST(requests_may_be_given_up_before_the_server_has_answered_at_all),
      TEST(it_stops_while_clients_go_on_asking),
      TEST(there_is_none_for_a_state_that_has_ended),
      TEST(a_request_that_comes_twice_is_applied_once),
      TEST(who_has_not_said_hello_is_a_stranger),
      TEST(who_asks_after_a_request_hears_what_became_of_it),
      TEST(what_waits_for_the_one_before_it_can_be_given_up_as_well),
      TEST(who_is_overtaken_does_not_replace_what_waits),
      TEST(who_has_to_give_way_keeps_nobody_waiting),
      TEST(who_is_out_of_reach_for_a_moment_was_not_forgotten),
      TEST(another_version_is_refused_with_words),
      TEST(a_large_change_keeps_nobody_waiting),
      TEST(a_large_value_keeps_nobody_waiting),
      TEST(a_large_part_of_a_task_keeps_nobody_waiting),
      TEST(who_comes_back_finds_the_results_of_his_task),
      TEST(garbage_gets_no_answer_and_does_no_harm),
      TEST(a_frame_that_is_too_large_closes_the_connection),
      TEST(whoever_speaks_something_else_or_stops_halfway_is_hung_up_on),
      TEST(who_has_shaken_hands_and_says_nothing_is_hung_up_on),
      TEST(a_greeting_that_comes_byte_by_byte_is_not_waited_for),
      TEST(two_live_connections_of_one_name_do_no_harm),
      TEST(nor_do_they_with_keys),
      TEST(names_that_cannot_be_chosen_do_no_harm),
      TEST(who_comes_back_under_another_name_is_known_by_the_number),
      TEST(a_request_takes_no_more_memory_than_its_bytes),
      TEST(a_large_request_is_not_kept_beyond_its_answer),
      TEST(a_message_without_end_ends_the_connection),
      TEST(answers_that_nobody_reads_end_the_connection),
      TEST(answers_that_are_kept_do_not_grow_without_end),
      TEST(a_server_that_never_takes_a_request_is_not_asked_for_ever),
      TEST(a_crowd_that_never_speaks_is_no_burden),
      TEST(a_crowd_beyond_the_descriptors_only_keeps_others_waiting),
      TEST(without_descriptors_there_is_an_error_and_no_harm),
      TEST(an_answer_may_take_longer_than_patience_as_long_as_it_comes),
  };
  return cmocka_run_group_tests_name("service", tests, NULL, NULL);
}
