#include "sys/bell.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/interrupt.h"
#include "sys/shared.h"

/* So many that ten thousand waiters on as many keys seldom share one: then a ring of one wakes the other needlessly. */
enum { BUCKETS = 1 << 16, FILE_SIZE = BUCKETS * sizeof(uint64_t) };

/* Of a bucket's low half: the bit, and one step of the count. */
#define ARMED ((uint32_t)1)
#define COUNT ((uint32_t)2)

struct zp_bell {
  _Atomic uint64_t *buckets;
};

static const char FILE_NAME[] = "bell";

int zp_bell_create(const char *directory) { return zp_shared_create(directory, FILE_NAME, FILE_SIZE); }

int zp_bell_open(const char *directory, zp_bell **out) {
  zp_bell *bell = malloc(sizeof *bell);
  if (!bell) return zp_fail(ZP_ENOMEM, "out of memory");
  void *map;
  int rc = zp_shared_open(directory, FILE_NAME, FILE_SIZE, &map);
  if (rc) {
    free(bell);
    return rc;
  }
  bell->buckets = map;
  *out = bell;
  return 0;
}

void zp_bell_close(zp_bell **bell) {
  if (!*bell) return;
  zp_shared_close((void *)(*bell)->buckets, FILE_SIZE);
  free(*bell);
  *bell = NULL;
}

/* FNV-1a with a final mix, so that all bits of short keys count in the bucket's number. */
static uint64_t hash(uint64_t state, const void *data, size_t size) {
  const unsigned char *byte = data;
  for (size_t i = 0; i < size; i++) state = (state ^ byte[i]) * 0x100000001b3u;
  return state;
}

static uint64_t finish(uint64_t state) {
  state ^= state >> 32;
  state *= 0xd6e8feb86659fd93u;
  return state ^ state >> 32;
}

static uint64_t hash_name(const char *name) {
  return hash(0xcbf29ce484222325u, name, strlen(name) + 1); /* with its end, so that "a"+"bc" is not "ab"+"c" */
}

uint64_t zp_bell_tag(const char *name, zp_bytes key) { return finish(hash(hash_name(name), key.data, key.size)); }

uint64_t zp_bell_tag_all(const char *name) { return finish(hash_name(name)); }

static _Atomic uint64_t *bucket_of(zp_bell *bell, uint64_t tag) { return &bell->buckets[tag % BUCKETS]; }

/* The low half of a bucket: the machine is little-endian. */
static uint32_t *futex_of(zp_bell *bell, uint64_t tag) { return (uint32_t *)bucket_of(bell, tag); }

/* What tells the tags of a bucket apart, as the high half of it; never 0. */
static uint64_t mark_of(uint64_t tag) { return (tag >> 32 | 1) << 32; }

uint32_t zp_bell_arm(zp_bell *bell, uint64_t tag) {
  _Atomic uint64_t *bucket = bucket_of(bell, tag);
  uint64_t now = atomic_load(bucket), then;
  do {
    then = now & UINT32_MAX;
    if (!(now & ARMED)) then |= mark_of(tag) | ARMED;
    else if (now >> 32 << 32 == mark_of(tag)) then = now; /* written all the same: see below */
    /* else for several */
  } while (!atomic_compare_exchange_weak(bucket, &now, then));
  /* Sequentially consistent: what is looked at afterwards is not older than the arming. */
  return (uint32_t)then;
}

static bool is_void(zp_bell *bell, const uint64_t *tags, const uint32_t *tickets, size_t count) {
  for (size_t i = 0; i < count; i++)
    if ((uint32_t)atomic_load(bucket_of(bell, tags[i])) != tickets[i]) return true;
  return false;
}

/* Sleep while the words are what the tickets say, and no interrupt is due; -1 with errno as futex(2) has it. The clock is the
   monotonic one, and the futexes are not private: other processes ring. */
static long sleep_on(zp_bell *bell, const uint64_t *tags, const uint32_t *tickets, size_t count, double deadline) {
  struct timespec until;
  uint32_t armed;
  _Atomic uint32_t *interrupt = zp_interrupt_word(&armed);
  if (count == 1 && !interrupt)
    return syscall(SYS_futex, futex_of(bell, tags[0]), FUTEX_WAIT_BITSET, tickets[0], zp_clock_instant(deadline, &until), NULL,
                   FUTEX_BITSET_MATCH_ANY);
  struct futex_waitv waiters[ZP_BELL_TAGS_MAX + 1];
  for (size_t i = 0; i < count; i++)
    waiters[i] = (struct futex_waitv){
        .val = tickets[i], .uaddr = (uintptr_t)futex_of(bell, tags[i]), .flags = FUTEX_32};
  unsigned words = (unsigned)count;
  if (interrupt)
    waiters[words++] =
        (struct futex_waitv){.val = armed, .uaddr = (uintptr_t)interrupt, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG};
  long rc = syscall(SYS_futex_waitv, waiters, words, 0, zp_clock_instant(deadline, &until), CLOCK_MONOTONIC);
  if (rc >= 0 || (errno != ENOSYS && errno != EPERM)) return rc; /* a kernel, or a filter of its calls, that does not know it */
  double soon = zp_clock_now() + 0.005;
  return syscall(SYS_futex, futex_of(bell, tags[0]), FUTEX_WAIT_BITSET, tickets[0],
                 zp_clock_instant(soon < deadline ? soon : deadline, &until), NULL, FUTEX_BITSET_MATCH_ANY);
}

int zp_bell_wait(zp_bell *bell, const uint64_t *tags, const uint32_t *tickets, size_t count, double deadline) {
  assert(count > 0 && count <= ZP_BELL_TAGS_MAX);
  for (;;) {
    if (is_void(bell, tags, tickets, count)) return 0;
    if (zp_interrupt_is_due()) return ZP_EINTR;
    if (deadline != ZP_FOREVER && deadline <= zp_clock_now()) return ZP_ETIMEOUT;
    if (sleep_on(bell, tags, tickets, count, deadline) >= 0) continue;
    if (errno != EINTR && errno != EAGAIN && errno != ETIMEDOUT) return zp_fail_errno("cannot wait: futex");
  }
}

/* mark: of the tag that is rung; 0: of all. */
static void ring_bucket(_Atomic uint64_t *bucket, uint64_t mark) {
  uint64_t now = atomic_load(bucket);
  do {
    if (!(now & ARMED)) return; /* nobody waits, or another ringer has just woken them */
    uint64_t armed_for = now >> 32 << 32;
    if (mark && armed_for && armed_for != mark) return; /* for another tag */
  } while (!atomic_compare_exchange_weak(bucket, &now, (uint32_t)((uint32_t)now + COUNT) & ~ARMED));
  syscall(SYS_futex, (uint32_t *)bucket, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void zp_bell_ring(zp_bell *bell, uint64_t tag) {
  /* Sequentially consistent with arming: what was done before is seen by whoever arms after this load. */
  atomic_thread_fence(memory_order_seq_cst);
  ring_bucket(bucket_of(bell, tag), mark_of(tag));
}

void zp_bell_ring_all(zp_bell *bell) {
  atomic_thread_fence(memory_order_seq_cst);
  for (size_t i = 0; i < BUCKETS; i++) ring_bucket(&bell->buckets[i], 0);
}

/* Whether a thread sleeps where sleep_on does. */
static bool waits(int tasks, const char *thread, bool *told) {
  char path[300], place[64];
  snprintf(path, sizeof path, "%.250s/wchan", thread);
  int fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? 0 : read(fd, place, sizeof place - 1);
  if (fd >= 0) close(fd);
  place[n > 0 ? n : 0] = '\0';
  if (place[0] != '\0' && strcmp(place, "0") != 0) *told = true; /* it runs, or is not for everybody to know */
  return strstr(place, "futex_wait_multiple") != NULL;
}

unsigned zp_bell_count_waiting(pid_t pid, bool *told) {
  char path[32];
  unsigned count = 0;
  snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
  DIR *tasks = opendir(path);
  if (!tasks) return 0;
  if (syscall(SYS_futex_waitv, NULL, 0, 0, NULL, 0) >= 0 || (errno != ENOSYS && errno != EPERM))
    for (struct dirent *entry; (entry = readdir(tasks));)
      if (entry->d_name[0] != '.' && waits(dirfd(tasks), entry->d_name, told)) count++;
  closedir(tasks);
  return count;
}
