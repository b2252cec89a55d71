#include "sys/secret.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"

static size_t whole_pages(size_t size) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  return (size + page - 1) / page * page;
}

void *zp_secret_new(size_t size) {
  size_t whole = whole_pages(size);
  void *memory = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    zp_fail(ZP_ENOMEM, "out of memory: cannot keep a secret");
    return NULL;
  }
  (void)mlock(memory, whole); /* as far as this user may */
  madvise(memory, whole, MADV_DONTDUMP);
  return memory;
}

void zp_secret_wipe(void *memory, size_t size) { explicit_bzero(memory, size); }

void zp_secret_free(void *memory, size_t size) {
  if (!memory) return;
  zp_secret_wipe(memory, size);
  munmap(memory, whole_pages(size));
}

int zp_secret_take_variable(const char *name, char **out, size_t *size) {
  char *value = getenv(name);
  *out = NULL;
  *size = value ? strlen(value) : 0;
  if (*size > 0) {
    *out = zp_secret_new(*size);
    if (!*out) return ZP_ENOMEM;
    memcpy(*out, value, *size);
    zp_secret_wipe(value, *size); /* where the system shows it */
  }
  unsetenv(name);
  return 0;
}
