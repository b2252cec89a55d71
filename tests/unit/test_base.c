/* base: buffers and error details. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"

static void an_empty_buffer_takes_bytes_and_gives_them_back(void **unused) {
  (void)unused;
  zp_buf buf = ZP_BUF_INIT;
  assert_int_equal(zp_buf_append(&buf, "state", 5), 0);
  assert_int_equal(zp_buf_append_byte(&buf, '!'), 0);
  assert_int_equal(zp_buf_append(&buf, NULL, 0), 0);
  assert_int_equal(buf.size, 6);
  assert_memory_equal(buf.data, "state!", 6);
  zp_buf_free(&buf);
  zp_buf_free(&buf);
  assert_null(buf.data);
}

static void a_buffer_grows_by_any_amount(void **unused) {
  (void)unused;
  zp_buf buf = ZP_BUF_INIT;
  char block[1000];
  memset(block, 'x', sizeof block);
  for (int i = 0; i < 100; i++) assert_int_equal(zp_buf_append(&buf, block, sizeof block), 0);
  assert_int_equal(buf.size, 100000);
  assert_true(buf.capacity >= buf.size);
  zp_buf_free(&buf);
}

static void more_than_there_is_memory_is_an_error_that_leaves_the_buffer_alone(void **unused) {
  (void)unused;
  zp_buf buf = ZP_BUF_INIT;
  assert_int_equal(zp_buf_append(&buf, "abc", 3), 0);
  assert_int_equal(zp_buf_reserve(&buf, SIZE_MAX - 2), ZP_ENOMEM);
  assert_non_null(strstr(zp_error_detail(), "out of memory"));
  assert_int_equal(buf.size, 3);
  assert_memory_equal(buf.data, "abc", 3);
  zp_buf_free(&buf);
}

static void clearing_keeps_a_small_capacity_and_gives_a_large_one_back(void **unused) {
  (void)unused;
  zp_buf buf = ZP_BUF_INIT;
  zp_buf_append(&buf, "abc", 3);
  size_t capacity = buf.capacity;
  zp_buf_clear(&buf, 1024);
  assert_int_equal(buf.size, 0);
  assert_int_equal(buf.capacity, capacity);
  zp_buf_reserve(&buf, 5000);
  zp_buf_clear(&buf, 1024);
  assert_int_equal(buf.capacity, 0);
  zp_buf_free(&buf);
}

static void varints_are_short_for_small_numbers(void **unused) {
  (void)unused;
  const struct {
    uint64_t number;
    size_t size;
  } cases[] = {{0, 1}, {127, 1}, {128, 2}, {16383, 2}, {16384, 3}, {UINT64_MAX, 10}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    zp_buf buf = ZP_BUF_INIT;
    assert_int_equal(zp_buf_append_varint(&buf, cases[i].number), 0);
    assert_int_equal(buf.size, cases[i].size);
    zp_buf_free(&buf);
  }
}

static void big_endian_numbers_order_as_bytes(void **unused) {
  (void)unused;
  unsigned char a[8], b[8];
  zp_put_be64(a, 255);
  zp_put_be64(b, 256);
  assert_true(memcmp(a, b, 8) < 0);
  assert_int_equal(zp_get_be64(b), 256);
  zp_put_be32(a, 0xdeadbeef);
  assert_int_equal(zp_get_be32(a), 0xdeadbeef);
}

static void a_failure_keeps_its_sentence_and_gives_its_code(void **unused) {
  (void)unused;
  assert_int_equal(zp_fail(ZP_EKEY, "key %d is too long", 7), ZP_EKEY);
  assert_string_equal(zp_error_detail(), "key 7 is too long");
  assert_int_equal(zp_fail(ZP_EKEY, "again: %s", zp_error_detail()), ZP_EKEY);
  assert_string_equal(zp_error_detail(), "again: key 7 is too long");
}

static void a_failed_system_call_is_named_with_its_reason(void **unused) {
  (void)unused;
  errno = ENOENT;
  assert_int_equal(zp_fail_errno("cannot open %s", "/nowhere"), ZP_ESYS);
  assert_string_equal(zp_error_detail(), "cannot open /nowhere: No such file or directory");
}

static void an_endless_sentence_is_cut(void **unused) {
  (void)unused;
  char text[3 * ZP_DETAIL_MAX];
  memset(text, 'a', sizeof text - 1);
  text[sizeof text - 1] = 0;
  errno = ENOENT;
  zp_fail_errno("%s", text);
  assert_int_equal(strlen(zp_error_detail()), ZP_DETAIL_MAX - 1);
}

static void the_monotonic_clock_never_goes_back(void **unused) {
  (void)unused;
  double before = zp_clock_now();
  for (int i = 0; i < 1000; i++) {
    double now = zp_clock_now();
    assert_true(now >= before);
    before = now;
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_empty_buffer_takes_bytes_and_gives_them_back),
      cmocka_unit_test(a_buffer_grows_by_any_amount),
      cmocka_unit_test(more_than_there_is_memory_is_an_error_that_leaves_the_buffer_alone),
      cmocka_unit_test(clearing_keeps_a_small_capacity_and_gives_a_large_one_back),
      cmocka_unit_test(varints_are_short_for_small_numbers),
      cmocka_unit_test(big_endian_numbers_order_as_bytes),
      cmocka_unit_test(a_failure_keeps_its_sentence_and_gives_its_code),
      cmocka_unit_test(a_failed_system_call_is_named_with_its_reason),
      cmocka_unit_test(an_endless_sentence_is_cut),
      cmocka_unit_test(the_monotonic_clock_never_goes_back),
  };
  return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
