/*
 * step_kill -- a process that is killed at every instruction of a commit, of growing, of trimming, of deleting and of joining.
 *
 * The victim is taken through its work step by step (ptrace). Killing it matters only where memory changes that it shares with others.
 * So after each step that has changed control, lock.mdb, a meta page or the size of the data, and after every so many steps that have
 * changed other pages, the files are copied as they are, what the kernel does for the robust mutexes of a dead process is done to the
 * copies, and the store must recover: when others have it open, when nobody is left, and when nothing is left but the data. Each time the
 * update that was acknowledged is there as a whole, the one that was under way is there as a whole or not at all, every page is used or
 * free, and work goes on.
 *
 * Then it is really killed at such steps, some or all, beside a process that has the store open.
 *
 * ZP_ROUNDS (or the first argument) says how much is looked at; 0 means all, without it a little.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <malloc.h>
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
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/err.h"
#include "page_walk.h"
#include "store/env.h"
#include "store/store.h"
#include "store_check.h"
#include "sys/bell.h"

enum {
  MUTEX_READERS = 8, /* in lock.mdb of LMDB 0.9 */
  MUTEX_WRITER = 64,
  LOCK_HEAD = 8192, /* bytes of lock.mdb that are looked at: as many as there are readers here, and many more */
  META_BYTES = 8192,
  KEYS = 3,
  DELETED = 12,
  GROW_SIZE = 20000,
  COPIES = 3
};

static int rounds = 3;
static bool all;
static char root[64], directory[96];

/* Shared with the victim. */
typedef struct notes {
  atomic_int ready, done, failures;
  atomic_long number; /* the update that was acknowledged last */
  atomic_long found;  /* the one that a recovery has found */
} notes;
static notes *known;

static void must(int rc) {
  if (rc >= 0) return;
  fprintf(stderr, "%d: %s\n", rc, zp_error_detail());
  atomic_fetch_add(&known->failures, 1);
  _exit(99);
}

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *format, ...) {
  char command[512];
  va_list args;
  va_start(args, format);
  vsnprintf(command, sizeof command, format, args);
  va_end(args);
  assert_int_equal(system(command), 0);
}

/* ---- what victims do ---- */

static zp_store *open_at(const char *path) {
  zp_store *store = NULL;
  must(zp_store_open(path, "main", &store));
  return store;
}

/* An update: the keys all have its number, and each update of `size` has a key of its own of that size besides. */
static void update(zp_store *store, long number, size_t size) {
  static char large[GROW_SIZE];
  static const char *const names[KEYS] = {"a", "b", "c"};
  char own[32];
  snprintf(own, sizeof own, "large%ld", number);
  zp_change changes[KEYS + 1];
  for (int i = 0; i < KEYS; i++) changes[i] = (zp_change){{names[i], 1}, {&number, sizeof number}};
  changes[KEYS] = (zp_change){{own, strlen(own)}, {large, size}};
  must(zp_store_commit(store, changes, size ? KEYS + 1 : KEYS, NULL, NULL));
}

/* The same, deleting what was made before. */
static void delete_some(zp_store *store, long number) {
  char own[DELETED][32];
  zp_change changes[KEYS + DELETED];
  static const char *const names[KEYS] = {"a", "b", "c"};
  int count = 0;
  for (; count < KEYS; count++) changes[count] = (zp_change){{names[count], 1}, {&number, sizeof number}};
  for (int i = 0; i < DELETED; i++, count++) {
    snprintf(own[i], sizeof own[i], "large%d", i + 1);
    changes[count] = (zp_change){{own[i], strlen(own[i])}, {NULL, 0}};
  }
  must(zp_store_commit(store, changes, (size_t)count, NULL, NULL));
}

typedef struct work {
  const char *name;
  long before;         /* updates that are made before */
  size_t size;         /* of the values besides, then and now */
  zp_store_limits limits;
  void (*act)(zp_store *store, const struct work *work);
  bool is_synced;
  bool is_joining;     /* the victim has not opened the store before, and makes no update */
  bool is_first;       /* nor has anybody else */
} work;

static void act_update(zp_store *store, const work *w) {
  update(store, w->before + 1, w->size);
  known->number = w->before + 1;
}

static void act_delete(zp_store *store, const work *w) {
  delete_some(store, w->before + 1);
  known->number = w->before + 1;
}

static void act_join(zp_store *store, const work *w) {
  (void)w;
  must(zp_store_check(store));
  must(zp_store_read_begin(store));
  zp_store_read_end(store);
}

static void in_child(void (*act)(const work *w), const work *w) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    act(w);
    _exit(0);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_int_equal(status, 0);
}

static void prefill(const work *w) {
  zp_store *store = open_at(directory);
  for (long n = 1; n <= w->before; n++) update(store, n, w->size);
  zp_store_close(&store);
}

static void make_store(const work *w) {
  run("rm -rf %s && mkdir -m 700 %s", directory, directory);
  char file[160];
  snprintf(file, sizeof file, "%s/synced.mdb", root);
  run("rm -f %s", file);
  zp_store_place place = {.data_file = file, .is_synced = true};
  assert_int_equal(zp_store_create_at(directory, &w->limits, w->is_synced ? &place : NULL), 0);
  in_child(prefill, w);
  known->number = w->before;
  known->ready = known->done = 0;
}

/* A victim that waits to be taken through its work. */
static pid_t start_victim(const work *w) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid > 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  zp_store *store = open_at(directory);
  if (!w->is_joining) { /* what is only done once is not what is looked at */
    must(zp_store_lock(store));
    zp_store_unlock(store);
    must(zp_store_read_begin(store));
    zp_store_read_end(store);
  }
  if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0) _exit(77);
  raise(SIGSTOP);
  w->act(store, w);
  known->done = 1;
  for (;;) pause();
}

static void reap(pid_t pid) {
  int status;
  kill(pid, SIGKILL);
  while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) continue;
}

/* Wait until it stops; false if it may not be traced here. */
static bool await_stop(pid_t pid) {
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) return false;
  if (!WIFSTOPPED(status)) fail_msg("the victim has ended with status %x", (unsigned)status);
  return true;
}

/* One instruction. False when its work is done. */
static bool step(pid_t pid) {
  assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
  assert_true(await_stop(pid));
  return !known->done;
}

/* ---- what may be found ---- */

static long value_of(zp_store *store, const char *key) {
  zp_bytes value;
  long number = 0;
  int rc = zp_store_get(store, (zp_bytes){key, 1}, &value);
  must(rc);
  if (rc == 1) memcpy(&number, value.data, sizeof number);
  return number;
}

/* Within a read: the number of the update, which all keys have. */
static long whole_number(zp_store *store) {
  long number = value_of(store, "a");
  if (value_of(store, "b") == number && value_of(store, "c") == number) return number;
  fprintf(stderr, "half an update is there: %ld, %ld, %ld\n", number, value_of(store, "b"), value_of(store, "c"));
  _exit(98);
}

static long read_number(zp_store *store) {
  must(zp_store_read_begin(store));
  long number = whole_number(store);
  zp_store_read_end(store);
  return number;
}

/* As whoever comes next: look, become the writer, look again, go on working; and account for all that there is in the end. In a process of its own,
   which ends, so that the memory of this one stays as fresh as it is. */
static void recover(const char *path, const char *data_path, long least, long most) {
  zp_store *store = open_at(path);
  long before = read_number(store);
  must(zp_store_lock(store));
  long after = read_number(store);
  zp_store_unlock(store);
  if (before < least || after < before || after > most) {
    fprintf(stderr, "update %ld was acknowledged and %ld begun; %ld is read, %ld under the lock\n", least, most, before, after);
    _exit(97);
  }
  known->found = after;
  for (long n = after + 1; n <= after + 5; n++) update(store, n, 3000);
  delete_some(store, after + 6);
  if (read_number(store) != after + 6) {
    fprintf(stderr, "an update after the recovery from update %ld is lost\n", after);
    _exit(96);
  }
  zp_store_close(&store);
  char file[160];
  snprintf(file, sizeof file, "%s/data.mdb", data_path);
  const char *wrong = walk_pages(file);
  if (!wrong) wrong = check_store(data_path);
  if (wrong) fprintf(stderr, "%s\n", wrong);
  _exit(wrong ? 95 : 0);
}

/* Copies of the files of a store, at rest or in the middle of something. */
typedef struct picture {
  const char *data, *lock, *control; /* the files, as mapped by this process */
  size_t size;
  char *seen_data, *seen_lock, *seen_control; /* as they were last looked at */
} picture;

static const char *map_file(const char *name, size_t *size) {
  char path[128];
  struct stat status;
  snprintf(path, sizeof path, "%s/%s", directory, name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  assert_true(fd >= 0);
  assert_int_equal(fstat(fd, &status), 0);
  if (size) *size = (size_t)status.st_size;
  const char *map = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  assert_true(map != MAP_FAILED);
  return map;
}

static void write_file(const char *path, const char *name, const char *bytes, size_t size) {
  char file[160];
  snprintf(file, sizeof file, "%s/%s", path, name);
  int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  assert_int_equal(pwrite(fd, bytes, size, 0), size);
  assert_int_equal(ftruncate(fd, (off_t)size), 0);
  close(fd);
}

/* What the kernel does when the owner of a robust mutex dies, whose word that is. */
static void let_owner_die(char *word, pid_t victim) {
  uint32_t is;
  memcpy(&is, word, sizeof is);
  if ((is & FUTEX_TID_MASK) != (uint32_t)victim) return;
  is = (is & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
  memcpy(word, &is, sizeof is);
}

static void copy_store(const picture *p, const char *path, pid_t victim) {
  char file[160];
  struct stat data;
  static char lock[ZP_STORE_READERS * 64 + 4096];
  write_file(path, "data.mdb", p->data, p->size);
  memcpy(lock, p->lock, sizeof lock);
  let_owner_die(lock + MUTEX_READERS, victim);
  let_owner_die(lock + MUTEX_WRITER, victim);
  write_file(path, "lock.mdb", lock, sizeof lock);
  snprintf(file, sizeof file, "%s/data.mdb", path);
  assert_int_equal(stat(file, &data), 0);
  int fd = open(file, O_PATH | O_CLOEXEC);
  uint64_t born = zp_files_birth(fd, "");
  close(fd);
  zp_control control;
  memcpy(&control, p->control, sizeof control);
  control.data_device = data.st_dev;
  control.data_inode = data.st_ino;
  control.data_born = born;
  let_owner_die((char *)&control.writer, victim);
  write_file(path, "control", (const char *)&control, sizeof control);
}

static void check_recovery(const char *path, const char *data_path, long least, long most, const char *when) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) recover(path, data_path, least, most);
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  if (status) fail_msg("%s: the recovery failed with status %x", when, (unsigned)status);
}

/* ---- copies at each step ---- */

static char copies[COPIES][96], data_directory[96];

static void make_copies(void) {
  for (int i = 0; i < COPIES; i++) {
    snprintf(copies[i], sizeof copies[i], "%s/copy%d", root, i);
    run("rm -rf %s && mkdir -m 700 %s && cp %s/bell %s/bell", copies[i], copies[i], directory, copies[i]);
  }
  snprintf(data_directory, sizeof data_directory, "%s/data", root);
  run("rm -rf %s && mkdir -m 700 %s", data_directory, data_directory);
}

/* Others have it open: LMDB knows by a lock of theirs on lock.mdb. */
static void check_others(const picture *p, pid_t victim, const char *when, long least, long most) {
  char file[160];
  copy_store(p, copies[0], victim);
  snprintf(file, sizeof file, "%s/lock.mdb", copies[0]);
  int fd = open(file, O_RDWR | O_CLOEXEC);
  struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
  assert_int_equal(fcntl(fd, F_SETLK, &lock), 0);
  check_recovery(copies[0], copies[0], least, most, when);
  close(fd);
}

static void check_copies(const picture *p, pid_t victim, const work *w, long step_number) {
  long least = known->number, most = w->is_joining ? w->before : w->before + 1;
  char when[160], file[160];
  /* Nobody is left. */
  copy_store(p, copies[1], victim);
  snprintf(when, sizeof when, "%s, all killed after step %ld", w->name, step_number);
  check_recovery(copies[1], copies[1], least, most, when);
  long first = known->found;
  if (!w->is_first) {
    snprintf(when, sizeof when, "%s, killed after step %ld, others go on", w->name, step_number);
    check_others(p, victim, when, least, most);
    if (known->found != first) fail_msg("%s: update %ld is found, and %ld where nobody is left", when, (long)known->found, first);
  }
  /* Nothing is left but the data: a server is started again. */
  write_file(data_directory, "data.mdb", p->data, p->size);
  snprintf(file, sizeof file, "%s/data.mdb", data_directory);
  run("rm -rf %s && mkdir -m 700 %s", copies[2], copies[2]);
  zp_store_place place = {.data_file = file};
  assert_int_equal(zp_store_create_at(copies[2], &w->limits, &place), 0);
  snprintf(when, sizeof when, "%s, a new server after step %ld", w->name, step_number);
  check_recovery(copies[2], data_directory, least, most, when);
  if (known->found != first) fail_msg("%s: update %ld is found, and %ld with what was in shared memory", when, (long)known->found, first);
}

typedef struct journey {
  long *steps; /* after which control, lock.mdb or a meta page was another */
  size_t count, room;
  long total;
} journey;

static void note_place(journey *j, long at) {
  if (j->count == j->room) {
    j->room = j->room ? j->room * 2 : 256;
    j->steps = realloc(j->steps, j->room * sizeof *j->steps);
  }
  j->steps[j->count++] = at;
}

static void open_picture(picture *p) {
  p->data = map_file("data.mdb", &p->size);
  p->lock = map_file("lock.mdb", NULL);
  p->control = map_file("control", NULL);
  p->seen_data = malloc(p->size);
  p->seen_lock = malloc(LOCK_HEAD);
  p->seen_control = malloc(sizeof(zp_control));
}

static void look(picture *p) {
  memcpy(p->seen_data, p->data, p->size);
  memcpy(p->seen_lock, p->lock, LOCK_HEAD);
  memcpy(p->seen_control, p->control, sizeof(zp_control));
}

static void close_picture(picture *p) {
  munmap((void *)p->data, p->size);
  munmap((void *)p->lock, ZP_STORE_READERS * 64 + 4096);
  munmap((void *)p->control, sizeof(zp_control));
  free(p->seen_data);
  free(p->seen_lock);
  free(p->seen_control);
}

/* ---- a process that has the store open ---- */

static int survivor_goes[2];

/* Has the store open, and recovers it when it is told to. */
static pid_t start_survivor(const work *w) {
  assert_int_equal(pipe(survivor_goes), 0);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid > 0) {
    close(survivor_goes[0]);
    while (!known->ready && known->failures == 0) sched_yield();
    return pid;
  }
  close(survivor_goes[1]);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  zp_store *store = open_at(directory);
  if (read_number(store) != w->before) _exit(95);
  known->ready = 1;
  char byte;
  if (read(survivor_goes[0], &byte, 1) != 1) _exit(94);
  recover(directory, directory, known->number, w->is_joining ? w->before : w->before + 1);
  return 0;
}

/* Without having it do anything. */
static void end_survivor(pid_t pid) {
  reap(pid);
  close(survivor_goes[1]);
}

/* ---- taking a victim through its work ---- */

static bool is_longer(const picture *p) {
  char path[128];
  struct stat status;
  snprintf(path, sizeof path, "%s/data.mdb", directory);
  assert_int_equal(stat(path, &status), 0);
  return (size_t)status.st_size != p->size;
}

/* Take the victim through its work. */
static bool take_through(const work *w, journey *j) {
  make_store(w);
  make_copies();
  pid_t survivor = w->is_joining && !w->is_first ? start_survivor(w) : 0;
  pid_t victim = start_victim(w);
  if (!await_stop(victim)) return false;
  picture p;
  open_picture(&p);
  look(&p);
  long checked = 0, stride = all ? 1 : 997;
  for (j->total = 1; step(victim); j->total++) {
    bool is_hot = memcmp(p.control, p.seen_control, sizeof(zp_control)) != 0 || memcmp(p.lock, p.seen_lock, LOCK_HEAD) != 0 ||
                  memcmp(p.data, p.seen_data, META_BYTES) != 0;
    if (j->total % 16 == 0 && is_longer(&p)) {
      close_picture(&p);
      open_picture(&p);
      is_hot = true;
    }
    if (is_hot) note_place(j, j->total);
    else if (j->total % stride != 0 || memcmp(p.data, p.seen_data, p.size) == 0) continue;
    look(&p);
    check_copies(&p, victim, w, j->total);
    checked++;
  }
  check_copies(&p, victim, w, j->total);
  if (!w->is_joining) assert_int_equal(known->found, w->before + 1);
  reap(victim);
  if (survivor) end_survivor(survivor);
  close_picture(&p);
  print_message("# %s: %ld steps, %zu change what tells others how things are; recovered %ld times\n", w->name, j->total, j->count,
                checked + 1);
  return true;
}

/* ---- real kills ---- */

static void kill_at(const work *w, long at) {
  make_store(w);
  pid_t survivor = start_survivor(w);
  pid_t victim = start_victim(w);
  assert_true(await_stop(victim));
  for (long i = 0; i < at && step(victim);) i++;
  reap(victim);
  assert_int_equal(write(survivor_goes[1], "", 1), 1);
  int status;
  assert_int_equal(waitpid(survivor, &status, 0), survivor);
  close(survivor_goes[1]);
  if (status) fail_msg("%s, really killed after step %ld: who had it open could not go on, status %x", w->name, at, (unsigned)status);
}

static uint32_t chance(uint32_t *seed, uint32_t below) {
  *seed = *seed * 1664525u + 1013904223u;
  return (uint32_t)(((uint64_t)*seed * below) >> 32);
}

static void kill_at_every_step(const work *w) {
  journey j = {0};
  if (!take_through(w, &j)) {
    print_message("# processes may not be traced here\n");
    skip();
  }
  uint32_t seed = 20261128;
  int rounds_left = rounds;
  if (w->is_first) rounds_left = 0; /* the copies say all: who comes next is the first as well */
  if (all && !w->is_first)
    for (size_t i = 0; i < j.count; i++) kill_at(w, j.steps[i]);
  for (int i = 0; i < rounds_left; i++) kill_at(w, i % 3 == 2 ? 1 + chance(&seed, (uint32_t)j.total) : j.steps[chance(&seed, (uint32_t)j.count)]);
  free(j.steps);
  assert_int_equal(known->failures, 0);
}

/* ---- the tests ---- */

static void a_commit(void **unused) {
  (void)unused;
  work w = {.name = "a commit", .before = 10, .act = act_update};
  kill_at_every_step(&w);
}

static void a_synced_commit(void **unused) {
  (void)unused;
  work w = {.name = "a synced commit", .before = 10, .is_synced = true, .act = act_update};
  kill_at_every_step(&w);
}

static void a_commit_of_pages_that_were_freed(void **unused) {
  (void)unused;
  work w = {.name = "a commit of freed pages", .before = 70, .size = 3000, .limits = {.keep_revisions = 4}, .act = act_update};
  kill_at_every_step(&w);
}

static void deleting(void **unused) {
  (void)unused;
  work w = {.name = "deleting", .before = 20, .size = 200, .act = act_delete};
  kill_at_every_step(&w);
}

/* Every 64th commit trims. */
static void trimming(void **unused) {
  (void)unused;
  work w = {.name = "trimming", .before = 127, .size = 100, .limits = {.keep_revisions = 120}, .act = act_update};
  kill_at_every_step(&w);
}

static size_t data_size(void) {
  size_t size;
  const char *map = map_file("data.mdb", &size);
  munmap((void *)map, size);
  return size;
}

static void growing(void **unused) {
  (void)unused;
  work w = {.name = "growing", .before = 1, .size = GROW_SIZE, .act = act_update};
  do { /* the first of so many that does not fit */
    w.before++;
    make_store(&w);
  } while (data_size() == ZP_STORE_INITIAL_SIZE);
  w.before--;
  kill_at_every_step(&w);
  assert_true(known->number == w.before || data_size() >= ZP_STORE_INITIAL_SIZE);
}

static void joining(void **unused) {
  (void)unused;
  work w = {.name = "joining", .before = 10, .act = act_join, .is_joining = true};
  kill_at_every_step(&w);
}

static void being_the_first_to_join(void **unused) {
  (void)unused;
  work w = {.name = "joining as the first", .before = 10, .act = act_join, .is_joining = true, .is_first = true};
  kill_at_every_step(&w);
}

int main(int argc, char **argv) {
  const char *wanted = argc > 1 ? argv[1] : getenv("ZP_ROUNDS");
  if (wanted) {
    rounds = atoi(wanted);
    all = rounds == 0;
  }
  mallopt(M_MMAP_THRESHOLD, 128 << 10); /* for good, so that large pieces are fresh ones: clearing one would be a step a byte */
  known = mmap(NULL, sizeof *known, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (known == MAP_FAILED) return 1;
  snprintf(root, sizeof root, "%s/zproc-test-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  if (!mkdtemp(root)) return 1;
  snprintf(directory, sizeof directory, "%s/store", root);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_commit), cmocka_unit_test(a_synced_commit), cmocka_unit_test(a_commit_of_pages_that_were_freed),
      cmocka_unit_test(deleting), cmocka_unit_test(trimming),        cmocka_unit_test(growing),
      cmocka_unit_test(joining),  cmocka_unit_test(being_the_first_to_join),
  };
  int failed = cmocka_run_group_tests_name("step_kill", tests, NULL, NULL);
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", root);
  return system(command) != 0 || failed;
}
