#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char detail[ZP_DETAIL_MAX];

static void set_detail(const char *format, va_list args) {
  char fresh[ZP_DETAIL_MAX]; /* the arguments may point into the sentence that is replaced */
  vsnprintf(fresh, sizeof fresh, format, args);
  memcpy(detail, fresh, sizeof detail);
}

int zp_fail(int code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  set_detail(format, args);
  va_end(args);
  return code;
}

int zp_fail_errno(const char *format, ...) {
  int number = errno;
  va_list args;
  va_start(args, format);
  set_detail(format, args);
  va_end(args);
  size_t used = strlen(detail);
  snprintf(detail + used, sizeof detail - used, ": %s", strerror(number));
  return ZP_ESYS;
}

const char *zp_error_detail(void) { return detail; }

bool zp_is_full(int number) { return number == ENOSPC || number == EDQUOT || number == EFBIG; }
