#include "net/lib.h"

#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"

const struct zp_zmq_library *_Atomic zp_zmq_loaded;
const struct zp_sodium_library *_Atomic zp_sodium_loaded;

typedef struct entry {
  const char *name;
  size_t offset;
} entry;

#define X(name) {"zmq_" #name, offsetof(struct zp_zmq_library, name)},
static const entry zmq_entries[] = {ZP_ZMQ_FUNCTIONS(X) {NULL, 0}};
#undef X
#define X(name) {#name, offsetof(struct zp_sodium_library, name)},
static const entry sodium_entries[] = {ZP_SODIUM_FUNCTIONS(X) {NULL, 0}};
#undef X

/* Fill in the functions of the first of the files that is there. */
static int load(const char *const *files, const entry *entries, void *library, const char *what) {
  if (!library) return zp_fail(ZP_ENOMEM, "out of memory: cannot load %s", what);
  void *handle = NULL;
  for (; *files && !handle; files++) handle = dlopen(*files, RTLD_NOW | RTLD_LOCAL);
  if (!handle) return zp_fail(ZP_ESYS, "%s, which the network needs, cannot be loaded: %s", what, dlerror());
  for (; entries->name; entries++) {
    void *function = dlsym(handle, entries->name);
    if (!function) return zp_fail(ZP_ESYS, "%s has no %s: it is another version than the one that zproc was built with", what, entries->name);
    *(void **)((char *)library + entries->offset) = function;
  }
  return 0;
}

/* No lock, which a forked child might find held by a thread that it has not got: of several who load at once, the first one's table
   counts. */
int zp_lib_load_zmq(void) {
  static const char *const files[] = {"libzmq.so.5", "libzmq.so", NULL};
  if (zp_zmq) return 0;
  struct zp_zmq_library *library = calloc(1, sizeof *library);
  const struct zp_zmq_library *none = NULL;
  int rc = load(files, zmq_entries, library, "libzmq");
  if (rc || !atomic_compare_exchange_strong(&zp_zmq_loaded, &none, library)) free(library);
  return rc;
}

int zp_lib_load_sodium(void) {
  static const char *const files[] = {"libsodium.so.23", "libsodium.so.26", "libsodium.so", NULL};
  if (zp_sodium) return 0;
  struct zp_sodium_library *library = calloc(1, sizeof *library);
  const struct zp_sodium_library *none = NULL;
  int rc = load(files, sodium_entries, library, "libsodium");
  if (!rc && library->sodium_init() < 0) rc = zp_fail(ZP_ESYS, "libsodium cannot be used here");
  if (rc || !atomic_compare_exchange_strong(&zp_sodium_loaded, &none, library)) free(library);
  return rc;
}

/* libzmq ends the process when one of these calls fails, so each is tried before, in a way that changes nothing. */
static int try_calls(void) {
  struct sched_param parameters;
  int policy = sched_getscheduler(0);
  if (policy < 0 || sched_getparam(0, &parameters) < 0 || sched_setscheduler(0, policy, &parameters) < 0)
    return zp_fail_errno("cannot use the network, for which libzmq starts threads: sched_setscheduler");
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) return zp_fail_errno("cannot use the network: epoll_create1");
  close(epoll);
  if (accept4(-1, NULL, NULL, SOCK_CLOEXEC) < 0 && errno != EBADF) return zp_fail_errno("cannot use the network: accept4");
  return 0;
}

int zp_lib_context(void **out) {
  enum { DESCRIPTORS = 16 }; /* two for each of its two threads, one for each socket, and connections */
  int fds[DESCRIPTORS], count = 0, rc = 0;
  *out = NULL;
  while (count < DESCRIPTORS && !rc) {
    fds[count] = eventfd(0, EFD_CLOEXEC);
    if (fds[count] >= 0) count++;
    else rc = zp_fail_errno("cannot use the network: eventfd");
  }
  while (count > 0) close(fds[--count]);
  if (!rc) rc = try_calls();
  if (rc) return rc;
  *out = zp_zmq->ctx_new();
  return *out ? 0 : zp_lib_fail("cannot use the network");
}

int zp_lib_fail(const char *what) { return zp_fail(ZP_ESYS, "%s: %s", what, zp_zmq->strerror(errno)); }
