/* service and remote: requests over the network, and what strangers may do to a server. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
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

#include "base/clock.h"
#include "base/err.h"
#include "net/execute.h"
#include "net/lib.h"
#include "net/remote.h"
#include "net/service.h"
#include "store/store.h"
#include "sys/inet.h"
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
  must(zp_service_start(directory, -1, &listener, 1, &service));
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
  must(ask(ZP_REQUEST_POP, (zp_parcel){ZP_NUMBERS(5), .string_count = 2, .strings = {text("space"), text("a")}}));
  assert_int_equal(answer.numbers[0], 1);
  assert_int_equal(answer.numbers[1], 3); /* the revision */
  must(ask(ZP_REQUEST_POPITEM, (zp_parcel){ZP_NUMBERS(5), .string_count = 1, .strings = {text("space")}}));
  assert_memory_equal(answer.strings[0].data, "b", 1);
  assert_memory_equal(answer.strings[1].data, "2", 1);
  must(ask(ZP_REQUEST_COUNT, (zp_parcel){.string_count = 1, .strings = {text("space")}}));
  assert_int_equal(answer.numbers[0], 0);
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
  must(zp_service_start(directory, -1, &late, 1, &second));
  assert_true(has("health", "fine"));
  zp_remote_close(&client);
  client = first;
  zp_service_stop(&second);
  close(late);
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
  zp_parcel watch = {ZP_NUMBERS(5, ZP_WATCH_CHANGE, 1, ZP_WATCH_LIVE, zp_parcel_of_double(1e9)),
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
    must(zp_service_start(directory, -1, &listener, 1, &service));
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

/* The type of the answer, and its head; 0 if there is none in time. */
static int hear(const speaker *self, zp_wire_head *head) {
  unsigned char bytes[4096];
  do {
    int n = zp_zmq->recv(self->socket, bytes, sizeof bytes, 0);
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
      (zp_parcel){ZP_NUMBERS(5, ZP_WATCH_CHANGE, 1, 0, zp_parcel_of_double(1e9)), ZP_STRINGS(text("space"), {&cursor, sizeof cursor}, text(""))});
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
      (zp_parcel){ZP_NUMBERS(5, ZP_WATCH_CHANGE, 1, 0, zp_parcel_of_double(1e9)), ZP_STRINGS(text("space"), {&cursor, sizeof cursor}, text(""))});
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
  zp_parcel request = increment_of(changes);
  request.pair_count = PAIRS;
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
      {ZP_REQUEST_POP, {ZP_NUMBERS(5), .string_count = 2, .strings = {text("space"), text("key")}}},
      {ZP_REQUEST_POPITEM, {ZP_NUMBERS(5), .string_count = 1, .strings = {text("space")}}},
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

/* Sanitizers keep what was freed for a while, and books of their own. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { IS_MEASURED = false };
#else
enum { IS_MEASURED = true };
#endif

static long resident_pages(void) {
  long size = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  assert_non_null(file);
  assert_int_equal(fscanf(file, "%ld %ld", &size, &resident), 2);
  fclose(file);
  return resident;
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
    zp_parcel predicate = {ZP_NUMBERS(5, ZP_WHEN_PREDICATE, 1, 0, zp_parcel_of_double(0)),
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
  must(ask(ZP_REQUEST_POP, (zp_parcel){ZP_NUMBERS(5), .string_count = 2, .strings = {text("space"), text("large")}}));
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
  assert_int_not_equal(zp_service_start(directory, -1, &listener, 1, &second), 0);
  setrlimit(RLIMIT_NOFILE, &before);
  must(ask(ZP_REQUEST_PING, (zp_parcel){.string_count = 1, .strings = {text("x")}}));
  zp_remote_close(&client);
  client = first;
  it_is_well();
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(requests_are_carried_out),
      TEST(failures_come_back_as_such),
      TEST(a_large_request_comes_in_parts),
      TEST(what_waits_is_given_up_with_its_client),
      TEST(a_child_connects_for_itself),
      TEST(requests_may_be_given_up_before_the_server_has_answered_at_all),
      TEST(it_stops_while_clients_go_on_asking),
      TEST(a_request_that_comes_twice_is_applied_once),
      TEST(who_has_not_said_hello_is_a_stranger),
      TEST(who_asks_after_a_request_hears_what_became_of_it),
      TEST(what_waits_for_the_one_before_it_can_be_given_up_as_well),
      TEST(who_is_out_of_reach_for_a_moment_was_not_forgotten),
      TEST(another_version_is_refused_with_words),
      TEST(a_large_change_keeps_nobody_waiting),
      TEST(a_large_value_keeps_nobody_waiting),
      TEST(garbage_gets_no_answer_and_does_no_harm),
      TEST(a_frame_that_is_too_large_closes_the_connection),
      TEST(whoever_speaks_something_else_or_stops_halfway_is_hung_up_on),
      TEST(a_large_request_is_not_kept_beyond_its_answer),
      TEST(a_crowd_that_never_speaks_is_no_burden),
      TEST(a_crowd_beyond_the_descriptors_only_keeps_others_waiting),
      TEST(without_descriptors_there_is_an_error_and_no_harm),
      TEST(an_answer_may_take_longer_than_patience_as_long_as_it_comes),
  };
  return cmocka_run_group_tests_name("service", tests, NULL, NULL);
}
