/* wire, request, keys, inet: what does not need a server. */
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "net/answer.h"
#include "net/keys.h"
#include "net/request.h"
#include "sys/inet.h"
#include "watch/condition.h"
#include "watch/watch.h"

static char directory[64];

static void must(int rc) {
  if (rc) fail_msg("%d: %s", rc, zp_error_detail());
}

static zp_bytes text(const char *words) { return (zp_bytes){words, strlen(words)}; }

static bool is(zp_bytes bytes, const char *words) {
  return bytes.size == strlen(words) && (bytes.size == 0 || memcmp(bytes.data, words, bytes.size) == 0);
}

static int make_directory(void **unused) {
  (void)unused;
  strcpy(directory, "/tmp/zproc-wire-XXXXXX");
  return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **unused) {
  (void)unused;
  char path[80];
  snprintf(path, sizeof path, "%s/keys", directory);
  unlink(path);
  return rmdir(directory);
}

/* ---- parcels ---- */

static const zp_change two_pairs[] = {{{"a", 1}, {"value", 5}}, {{"", 0}, {NULL, 0}}};

static zp_parcel sample(void) {
  return (zp_parcel){ZP_NUMBERS(0, 1, 127, 128, UINT64_MAX), .string_count = 2, .strings = {{"text", 4}, {"", 0}}, .pairs = two_pairs,
                     .pair_count = 2};
}

static void a_parcel_is_read_as_it_was_written(void **unused) {
  (void)unused;
  zp_parcel written = sample(), parcel;
  zp_buf bytes = ZP_BUF_INIT, pairs = ZP_BUF_INIT;
  must(zp_parcel_write(&written, &bytes));
  must(zp_parcel_read(zp_buf_bytes(&bytes), &parcel, &pairs));
  assert_int_equal(parcel.number_count, 5);
  for (size_t i = 0; i < 5; i++) assert_true(parcel.numbers[i] == written.numbers[i]);
  assert_int_equal(parcel.string_count, 2);
  assert_true(is(parcel.strings[0], "text") && is(parcel.strings[1], ""));
  assert_int_equal(parcel.pair_count, 2);
  assert_true(is(parcel.pairs[0].key, "a") && is(parcel.pairs[0].value, "value"));
  assert_true(is(parcel.pairs[1].key, "") && parcel.pairs[1].value.data == NULL);
  zp_buf_free(&bytes);
  zp_buf_free(&pairs);
}

static void a_parcel_that_is_cut_short_or_goes_on_is_none(void **unused) {
  (void)unused;
  zp_parcel written = sample(), parcel;
  zp_buf bytes = ZP_BUF_INIT, pairs = ZP_BUF_INIT;
  must(zp_parcel_write(&written, &bytes));
  for (size_t size = 0; size < bytes.size; size++) {
    unsigned char *copy = malloc(size ? size : 1); /* of that size, so that a tool sees a read beyond it */
    memcpy(copy, bytes.data, size);
    assert_int_equal(zp_parcel_read((zp_bytes){copy, size}, &parcel, &pairs), ZP_EDECODE);
    free(copy);
  }
  must(zp_buf_append_byte(&bytes, 0));
  assert_int_equal(zp_parcel_read(zp_buf_bytes(&bytes), &parcel, &pairs), ZP_EDECODE);
  zp_buf_free(&bytes);
  zp_buf_free(&pairs);
}

static void counts_beyond_what_there_is_are_refused(void **unused) {
  (void)unused;
  static const char *const bad[] = {
      "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",                 /* numbers */
      "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",             /* no number at all */
      "\x0d\1\1\1\1\1\1\1\1\1\1\1\1\1",                           /* one number too many */
      "\1\5\5\1a\1a\1a\1a\1a",                                    /* one string too many */
      "\1\5\1\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",           /* the size of a string */
      "\1\5\1\1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",        /* pairs */
      "\1\5\1\1a\1\1k\2",                                         /* neither there nor not */
  };
  zp_parcel parcel;
  zp_buf pairs = ZP_BUF_INIT;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(zp_parcel_read(text(bad[i]), &parcel, &pairs), ZP_EDECODE);
  zp_buf_free(&pairs);
}

static void pairs_can_stay_bytes(void **unused) {
  (void)unused;
  zp_parcel_walk walk;
  zp_change pair;
  zp_parcel parcel = sample(), read;
  zp_buf bytes = ZP_BUF_INIT;
  must(zp_parcel_write(&parcel, &bytes));
  must(zp_parcel_read(zp_buf_bytes(&bytes), &read, NULL));
  assert_null(read.pairs);
  assert_int_equal(read.pair_count, 2);
  for (int i = 0; i < 2; i++) {
    zp_parcel_walk_begin(&walk, &read);
    assert_true(zp_parcel_walk_next(&walk, &pair) && is(pair.key, "a") && is(pair.value, "value"));
    assert_true(zp_parcel_walk_next(&walk, &pair) && is(pair.key, "") && !pair.value.data);
    assert_false(zp_parcel_walk_next(&walk, &pair));
  }
  zp_parcel_walk_begin(&walk, &(zp_parcel){.pair_count = 0});
  assert_false(zp_parcel_walk_next(&walk, &pair));
  zp_buf_free(&bytes);
}

/* ---- requests ---- */

static int read_request(int type, zp_parcel parcel) {
  zp_buf bytes = ZP_BUF_INIT;
  zp_parcel read;
  must(zp_parcel_write(&parcel, &bytes));
  int rc = zp_request_read(type, zp_buf_bytes(&bytes), &read);
  zp_buf_free(&bytes);
  return rc;
}

static void a_request_has_what_its_type_needs(void **unused) {
  (void)unused;
  static const zp_watch_cursor cursor = {.revision = 1};
  zp_parcel get = {.string_count = 2, .strings = {text("space"), text("key")}};
  must(read_request(ZP_REQUEST_GET, get));
  get.string_count = 1;
  assert_int_equal(read_request(ZP_REQUEST_GET, get), ZP_EDECODE);
  get = (zp_parcel){ZP_NUMBERS(1), .string_count = 2, .strings = {text("space"), text("key")}};
  assert_int_equal(read_request(ZP_REQUEST_GET, get), ZP_EDECODE);
  zp_parcel commit = {ZP_NUMBERS(1), .string_count = 1, .strings = {text("space")}, .pairs = two_pairs, .pair_count = 2};
  must(read_request(ZP_REQUEST_COMMIT, commit));
  assert_int_equal(read_request(ZP_REQUEST_COUNT, commit), ZP_EDECODE);
  zp_parcel watch = {ZP_NUMBERS(1, ZP_WHEN_NONE, 3, 0, zp_parcel_of_double(1), 0, 0), .string_count = 3,
                     .strings = {text("space"), {&cursor, sizeof cursor}, text("key")}};
  must(read_request(ZP_REQUEST_WATCH, watch));
  watch.numbers[1] = ZP_WATCH_UPDATE;
  must(read_request(ZP_REQUEST_WATCH, watch));
  watch.numbers[1] = ZP_WATCH_UPDATE + 1;
  assert_int_equal(read_request(ZP_REQUEST_WATCH, watch), ZP_EDECODE);
  watch.numbers[1] = ZP_WHEN_NONE;
  watch.numbers[4] = zp_parcel_of_double(0.0 / 0.0);
  assert_int_equal(read_request(ZP_REQUEST_WATCH, watch), ZP_EDECODE);
  watch.numbers[4] = 0;
  watch.strings[1].size--;
  assert_int_equal(read_request(ZP_REQUEST_WATCH, watch), ZP_EDECODE);
  assert_int_equal(read_request(0, (zp_parcel){.number_count = 0}), ZP_EUSAGE);
  assert_int_equal(read_request(ZP_REQUEST_END, (zp_parcel){.number_count = 0}), ZP_EUSAGE);
}

static void names_and_keys_and_values_have_a_fitting_size(void **unused) {
  (void)unused;
  static char large[4 * ZP_KEY_MAX + 1], name[257];
  memset(large, 'x', sizeof large);
  memset(name, 'x', sizeof name - 1);
  zp_parcel get = {.string_count = 2, .strings = {text(""), text("key")}};
  assert_int_equal(read_request(ZP_REQUEST_GET, get), ZP_EDECODE);
  get.strings[0] = text(name);
  assert_int_equal(read_request(ZP_REQUEST_GET, get), ZP_EDECODE);
  get.strings[0] = (zp_bytes){"a\0b", 3};
  assert_int_equal(read_request(ZP_REQUEST_GET, get), ZP_EDECODE);
  get.strings[0] = text("space");
  get.strings[1] = (zp_bytes){large, sizeof large};
  assert_int_equal(read_request(ZP_REQUEST_GET, get), ZP_EDECODE);
  zp_parcel set = {ZP_NUMBERS(1), .string_count = 3, .strings = {text("space"), text("key"), text("")}};
  assert_int_equal(read_request(ZP_REQUEST_SETDEFAULT, set), ZP_EDECODE);
  zp_change empty = {{"key", 3}, {"", 0}};
  zp_parcel commit = {ZP_NUMBERS(1), .string_count = 1, .strings = {text("space")}, .pairs = &empty, .pair_count = 1};
  assert_int_equal(read_request(ZP_REQUEST_COMMIT, commit), ZP_EDECODE);
}

static void a_failure_travels_with_its_words(void **unused) {
  (void)unused;
  zp_answer answer = {.body = ZP_BUF_INIT};
  zp_parcel parcel;
  zp_buf pairs = ZP_BUF_INIT;
  zp_answer_fail(&answer, zp_fail(ZP_EHISTORY, "too old"), "a traceback");
  assert_int_equal(answer.type, ZP_ANSWER_FAILED);
  must(zp_parcel_read(zp_buf_bytes(&answer.body), &parcel, &pairs));
  assert_int_equal(parcel.numbers[0], -ZP_EHISTORY);
  assert_true(is(parcel.strings[0], "too old") && is(parcel.strings[1], "a traceback"));
  zp_buf_free(&answer.body);
  zp_buf_free(&pairs);
}

/* ---- keys ---- */

static void keys_are_those_of_the_secret(void **unused) {
  (void)unused;
  zp_keys one, same, other;
  must(zp_keys_derive(text("secret"), &one));
  must(zp_keys_derive(text("another"), &other));
  must(zp_keys_derive(text("secret"), &same));
  assert_memory_equal(&one, &same, sizeof one);
  assert_memory_not_equal(one.server_public, other.server_public, ZP_KEY_BYTES);
  assert_memory_not_equal(one.server_secret, one.client_secret, ZP_KEY_BYTES);
  assert_memory_not_equal(one.server_public, one.client_public, ZP_KEY_BYTES);
  assert_int_equal(zp_keys_derive(text(""), &one), ZP_EUSAGE);
}

static void keys_are_kept_in_the_directory_and_checked_there(void **unused) {
  (void)unused;
  zp_keys keys, read;
  struct stat file;
  char path[80];
  zp_bytes none = {NULL, 0};
  assert_int_equal(zp_keys_read(directory, &read), 0);
  must(zp_keys_check(directory, none));
  assert_int_equal(zp_keys_check(directory, text("secret")), ZP_EAUTH);
  must(zp_keys_derive(text("secret"), &keys));
  must(zp_keys_write(directory, &keys));
  snprintf(path, sizeof path, "%s/keys", directory);
  assert_int_equal(stat(path, &file), 0);
  assert_int_equal(file.st_mode & 0777, 0600);
  assert_int_equal(zp_keys_read(directory, &read), 1);
  assert_memory_equal(&keys, &read, sizeof keys);
  must(zp_keys_check(directory, text("secret")));
  assert_int_equal(zp_keys_check(directory, none), ZP_EAUTH);
  assert_int_equal(zp_keys_check(directory, text("guess")), ZP_EAUTH);
  assert_int_equal(truncate(path, 10), 0);
  assert_int_equal(zp_keys_read(directory, &read), ZP_ESYS);
}

/* ---- addresses ---- */

static void a_host_and_a_port_are_told_from_anything_else(void **unused) {
  (void)unused;
  static const char *const good[] = {"127.0.0.1:7000", "example.org:1", "[::1]:65535", "*:*", "localhost:0"};
  static const char *const bad[] = {"", ":", "127.0.0.1", "127.0.0.1:", ":7000", "a:65536", "a:-1", "a:7x", "::1:7000", "[]:7000", "[::1:7000",
                                   "[::1]7000"};
  char host[ZP_INET_NAME_SIZE], port[8];
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) must(zp_inet_parse(good[i], host, port));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(zp_inet_parse(bad[i], host, port), ZP_EUSAGE);
  char endless[2 * ZP_INET_NAME_SIZE];
  memset(endless, 'a', sizeof endless);
  strcpy(endless + sizeof endless - 6, ":7000");
  assert_int_equal(zp_inet_parse(endless, host, port), ZP_EUSAGE);
  must(zp_inet_parse("[::1]:80", host, port));
  assert_string_equal(host, "::1");
  assert_string_equal(port, "80");
}

static void sockets_listen_and_are_connected_to(void **unused) {
  (void)unused;
  char bound[ZP_INET_NAME_SIZE], again[ZP_INET_NAME_SIZE];
  bool is_loopback;
  int listener, other, fd;
  must(zp_inet_listen("127.0.0.1:*", &listener, bound, &is_loopback));
  assert_true(is_loopback);
  must(zp_inet_connect(bound, zp_clock_now() + 60, &fd));
  close(fd);
  assert_int_equal(zp_inet_listen(bound, &other, again, &is_loopback), ZP_EUSAGE);
  close(listener);
  assert_int_equal(zp_inet_connect(bound, zp_clock_now() + 60, &fd), ZP_ENOSTORE);
  assert_int_equal(errno, ECONNREFUSED);
  must(zp_inet_listen("*:0", &listener, bound, &is_loopback));
  assert_false(is_loopback);
  close(listener);
  assert_int_equal(zp_inet_connect("*:7000", zp_clock_now() + 60, &fd), ZP_EUSAGE);
  assert_int_equal(zp_inet_listen("192.0.2.1:7000", &listener, bound, &is_loopback), ZP_EUSAGE);
}

/* In place of the C library's for this program: of the host two.test it knows two addresses. What is done with them is real. */
int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found) {
  int (*look)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = NULL;
  *(void **)&look = dlsym(RTLD_NEXT, "getaddrinfo");
  if (!host || strcmp(host, "two.test") != 0 || (hints->ai_flags & AI_NUMERICHOST)) return look(host, port, hints, found);
  int rc = look("127.0.0.1", port, hints, found);
  return rc ? rc : look("127.0.0.2", port, hints, &(*found)->ai_next);
}

/* One whose queue is full does not answer, which is how the system treats those who come then. */
static void after_an_address_that_refuses_or_does_not_answer_the_hosts_next_one_is_tried(void **unused) {
  (void)unused;
  enum { MORE_THAN_A_QUEUE = 64 };
  char bound[ZP_INET_NAME_SIZE], second[ZP_INET_NAME_SIZE], both[ZP_INET_NAME_SIZE], peer[ZP_INET_NAME_SIZE];
  bool is_loopback;
  int first, listener, fd, clients[MORE_THAN_A_QUEUE], count = 0;
  must(zp_inet_listen("127.0.0.1:*", &first, bound, &is_loopback));
  const char *port = strrchr(bound, ':') + 1;
  snprintf(second, sizeof second, "127.0.0.2:%s", port);
  snprintf(both, sizeof both, "two.test:%s", port);
  must(zp_inet_listen(second, &listener, peer, &is_loopback));

  assert_int_equal(listen(first, 1), 0);
  int rc = 0;
  while (count < MORE_THAN_A_QUEUE && !(rc = zp_inet_connect(bound, zp_clock_now() + 0.5, &clients[count]))) count++;
  assert_int_equal(rc, ZP_ETIMEOUT);
  must(zp_inet_connect(both, zp_clock_now() + 60, &fd));
  must(zp_inet_peer(fd, peer));
  assert_string_equal(peer, second);
  close(fd);
  while (count > 0) close(clients[--count]);

  close(first);
  must(zp_inet_connect(both, zp_clock_now() + 60, &fd));
  must(zp_inet_peer(fd, peer));
  assert_string_equal(peer, second);
  close(fd);
  close(listener);
  assert_int_equal(zp_inet_connect(both, zp_clock_now() + 60, &fd), ZP_ENOSTORE);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_parcel_is_read_as_it_was_written),
      cmocka_unit_test(a_parcel_that_is_cut_short_or_goes_on_is_none),
      cmocka_unit_test(counts_beyond_what_there_is_are_refused),
      cmocka_unit_test(pairs_can_stay_bytes),
      cmocka_unit_test(a_request_has_what_its_type_needs),
      cmocka_unit_test(names_and_keys_and_values_have_a_fitting_size),
      cmocka_unit_test(a_failure_travels_with_its_words),
      cmocka_unit_test(keys_are_those_of_the_secret),
      cmocka_unit_test_setup_teardown(keys_are_kept_in_the_directory_and_checked_there, make_directory, remove_directory),
      cmocka_unit_test(a_host_and_a_port_are_told_from_anything_else),
      cmocka_unit_test(sockets_listen_and_are_connected_to),
      cmocka_unit_test(after_an_address_that_refuses_or_does_not_answer_the_hosts_next_one_is_tried),
  };
  return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
