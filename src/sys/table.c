#include "sys/table.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "sys/alive.h"
#include "sys/bell.h"
#include "sys/shared.h"

static const char MAGIC[8] = {'z', 'p', '-', 't', 'a', 'b', 'l', 'e'};

enum {
  VERSION = 2,
  LINE = 64,         /* bytes of a cache line: what different processes write is kept apart */
  QUEUE_SIZE = 8192, /* more than there are slots, since void entries stay until they are met */
  INDEX_BITS = 12    /* of an entry of the queue, the rest is generation */
};
_Static_assert(1 << INDEX_BITS == ZP_TABLE_SLOTS, "an entry of the queue has the slot's number in its lower bits");

/* What the claimer writes. */
typedef struct content {
  uint64_t order;
  double started;
  int32_t parent;
  int32_t reaper; /* who will see its end; 0: nobody */
  char name[ZP_TABLE_NAME_SIZE];
} content;

enum { CONTENT_WORDS = sizeof(content) / sizeof(uint64_t) };
_Static_assert(sizeof(content) % sizeof(uint64_t) == 0, "copied by words");

typedef struct zp_slot {
  _Atomic uint64_t word;
  _Atomic uint64_t tries;
  _Atomic uint64_t content[CONTENT_WORDS]; /* in atomic words, as it may be overwritten while it is read */
} zp_slot;

_Static_assert(sizeof(zp_slot) == 2 * LINE, "a slot is two cache lines");

struct zp_table_file {
  char magic[sizeof MAGIC];
  uint32_t version, slot_count;
  zp_alive_space space; /* that the pids are of */
  _Alignas(LINE) _Atomic uint32_t fresh; /* slots below this one have been used */
  _Alignas(LINE) _Atomic uint64_t head;  /* of the queue: how many entries were taken, */
  _Alignas(LINE) _Atomic uint64_t tail;  /* and how many were given */
  _Alignas(LINE) _Atomic uint64_t next_search; /* boot-time clock; not before then, as the last one was in vain */
  _Alignas(LINE) _Atomic uint32_t queue[QUEUE_SIZE];
  _Alignas(LINE) zp_slot slots[ZP_TABLE_SLOTS];
};

typedef struct zp_table_file zp_table_file;

struct zp_table {
  zp_table_file *file;
  _Atomic unsigned holders;
};

/* ---- the control word: phase 3 bits, value 10, pid 22 (the kernel has none above 2^22), generation 29 ---- */

typedef enum phase {
  FREE = 0,
  CLAIMED = 1,  /* pid: the claimer's */
  RUNNING = 2,  /* value: hundredths of a second that the start took, TOO_LONG and more are the same */
  RETRYING = 3, /* the same */
  EXITED = 4,   /* value: EXIT_BIAS and the exit code */
  GONE = 5
} phase;

enum {
  PHASE_BITS = 3,
  VALUE_BITS = 10,
  PID_BITS = 22,
  GENERATION_BITS = 29,
  TOO_LONG = (1 << VALUE_BITS) - 1,
  EXIT_BIAS = 128
};

static const uint64_t SECOND = 1000000000, VALUE_UNIT = 10000000; /* nanoseconds */

static uint64_t word_of(uint64_t generation, pid_t pid, uint64_t value, phase is) {
  return ((generation << PID_BITS | (uint64_t)pid) << VALUE_BITS | value) << PHASE_BITS | is;
}

static phase phase_of(uint64_t word) { return (phase)(word & ((1u << PHASE_BITS) - 1)); }

static unsigned value_of(uint64_t word) { return (unsigned)(word >> PHASE_BITS & TOO_LONG); }

static pid_t pid_of(uint64_t word) { return (pid_t)(word >> (PHASE_BITS + VALUE_BITS) & ((1u << PID_BITS) - 1)); }

static uint32_t generation_of(uint64_t word) { return (uint32_t)(word >> (PHASE_BITS + VALUE_BITS + PID_BITS)); }

static uint32_t next_generation(uint64_t word) { return (generation_of(word) + 1) & ((1u << GENERATION_BITS) - 1); }

static bool is_alive_phase(uint64_t word) { return phase_of(word) == RUNNING || phase_of(word) == RETRYING; }

static bool is_reusable(uint64_t word) {
  phase is = phase_of(word);
  return is == FREE || is == EXITED || is == GONE;
}

static uint64_t boot_time(void) {
  struct timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now); /* the clock of the start times that the kernel keeps */
  return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

/* ---- the file ---- */

static const char FILE_NAME[] = "processes";

int zp_table_create(const char *directory) {
  zp_alive_space space;
  int rc = zp_alive_read_space(&space);
  if (!rc) rc = zp_shared_create(directory, FILE_NAME, sizeof(zp_table_file));
  if (rc) return rc;
  void *map;
  rc = zp_shared_open(directory, FILE_NAME, sizeof(zp_table_file), &map);
  if (rc) return rc;
  zp_table_file *file = map;
  memcpy(file->magic, MAGIC, sizeof MAGIC);
  file->version = VERSION;
  file->slot_count = ZP_TABLE_SLOTS;
  file->space = space;
  zp_shared_close(map, sizeof(zp_table_file));
  return 0;
}

int zp_table_open(const char *directory, zp_table **out) {
  zp_table *table = malloc(sizeof *table);
  if (!table) return zp_fail(ZP_ENOMEM, "out of memory");
  void *map = NULL;
  int rc = zp_shared_open(directory, FILE_NAME, sizeof(zp_table_file), &map);
  table->file = map;
  atomic_init(&table->holders, 1);
  if (!rc && (memcmp(table->file->magic, MAGIC, sizeof MAGIC) != 0 || table->file->version != VERSION ||
              table->file->slot_count != ZP_TABLE_SLOTS))
    rc = zp_fail(ZP_ESTORE, "the table of processes in %s is damaged, or of another version", directory);
  if (!rc) rc = zp_alive_check_space(&table->file->space, directory);
  if (rc) {
    zp_table_close(&table);
    return rc;
  }
  *out = table;
  return 0;
}

zp_table *zp_table_keep(zp_table *table) {
  atomic_fetch_add(&table->holders, 1);
  return table;
}

void zp_table_close(zp_table **handle) {
  zp_table *table = *handle;
  *handle = NULL;
  if (!table || atomic_fetch_sub(&table->holders, 1) > 1) return;
  zp_shared_close(table->file, sizeof(zp_table_file));
  free(table);
}

void zp_table_detach(zp_table *table) {
  /* Zeros in the same place: of generation 0 no handle was ever given. */
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
  mmap(table->file, sizeof(zp_table_file), PROT_READ | PROT_WRITE, flags, -1, 0);
}

/* ---- content ---- */

static void write_content(zp_slot *to, const content *from) {
  uint64_t words[CONTENT_WORDS];
  memcpy(words, from, sizeof words);
  /* Whoever sees one of these words sees the claim as well. */
  for (size_t i = 0; i < CONTENT_WORDS; i++) atomic_store_explicit(&to->content[i], words[i], memory_order_release);
  atomic_store_explicit(&to->tries, 1, memory_order_release);
}

/* Copy a row that is beyond its claim; the word that it was found under, or 0 if there is none. */
static uint64_t read_content(zp_slot *from, content *to, unsigned *tries) {
  uint64_t word = atomic_load(&from->word), words[CONTENT_WORDS];
  for (;;) {
    if (phase_of(word) == FREE || phase_of(word) == CLAIMED) return 0;
    for (size_t i = 0; i < CONTENT_WORDS; i++) words[i] = atomic_load_explicit(&from->content[i], memory_order_acquire);
    *tries = (unsigned)atomic_load_explicit(&from->tries, memory_order_acquire);
    uint64_t after = atomic_load_explicit(&from->word, memory_order_relaxed);
    if (generation_of(after) == generation_of(word) && phase_of(after) != FREE && phase_of(after) != CLAIMED) {
      memcpy(to, words, sizeof words);
      return after;
    }
    word = atomic_load(&from->word);
  }
}

static void set_name(char to[ZP_TABLE_NAME_SIZE], const char *name) {
  static const char mark[] = "...";
  size_t size = strlen(name);
  if (size < ZP_TABLE_NAME_SIZE) {
    memcpy(to, name, size);
    return;
  }
  const char *rest = name + size - (ZP_TABLE_NAME_SIZE - sizeof mark);
  while ((*rest & 0xC0) == 0x80) rest++; /* not in the middle of a character of UTF-8 */
  memcpy(to, mark, sizeof mark - 1);
  memcpy(to + sizeof mark - 1, rest, strlen(rest));
}

/* ---- who is there ---- */

/* Ticks of the kernel as boot-time clock, rounded down. */
static uint64_t boot_time_of(uint64_t ticks) {
  uint64_t rate = (uint64_t)sysconf(_SC_CLK_TCK);
  return ticks / rate * SECOND + ticks % rate * SECOND / rate;
}

static bool exists(pid_t pid) { return kill(pid, 0) == 0 || errno != ESRCH; }

typedef enum sighting { NOWHERE, ALIVE, DEAD /* but not reaped */ } sighting;

/* The process with that pid that the kernel started by then (boot-time clock). Of a dead one the exit code as well. */
static sighting look_for(pid_t pid, uint64_t started_by, int *exitcode) {
  zp_alive_report now;
  if (!exists(pid)) return NOWHERE;
  if (!zp_alive_ask(pid, &now)) return exists(pid) ? ALIVE : NOWHERE;
  if (boot_time_of(now.start) > started_by) return NOWHERE; /* another one */
  if (!now.is_dead) return ALIVE;
  *exitcode = now.exitcode;
  return DEAD;
}

static uint64_t started_by(uint64_t word, uint64_t order) {
  return value_of(word) == TOO_LONG ? UINT64_MAX : order + value_of(word) * VALUE_UNIT;
}

/* ---- the queue ---- */

static void give(zp_table_file *file, uint32_t index, uint32_t generation) {
  uint64_t ticket = atomic_fetch_add(&file->tail, 1);
  atomic_store(&file->queue[ticket % QUEUE_SIZE], generation << INDEX_BITS | index);
}

/* Claim a slot that was seen with this word, which must be reusable. */
static bool take(zp_table_file *file, uint32_t index, uint64_t seen, zp_table_row *row) {
  uint32_t generation = next_generation(seen);
  uint64_t mine = word_of(generation, getpid(), 0, CLAIMED);
  if (!atomic_compare_exchange_strong(&file->slots[index].word, &seen, mine)) return false;
  *row = (zp_table_row){file, index, generation};
  return true;
}

static bool take_fresh(zp_table_file *file, zp_table_row *row) {
  while (atomic_load(&file->fresh) < ZP_TABLE_SLOTS) {
    uint32_t index = atomic_fetch_add(&file->fresh, 1);
    if (index >= ZP_TABLE_SLOTS) break;
    uint64_t seen = atomic_load(&file->slots[index].word);
    if (is_reusable(seen) && take(file, index, seen, row)) return true;
  }
  return false;
}

static bool take_ended(zp_table_file *file, zp_table_row *row) {
  for (;;) {
    uint64_t head = atomic_load(&file->head), tail = atomic_load(&file->tail);
    if (head >= tail) return false;
    uint64_t first = tail - head > QUEUE_SIZE ? tail - QUEUE_SIZE : head; /* what is before that was overwritten */
    uint32_t entry = atomic_load(&file->queue[first % QUEUE_SIZE]);
    if (!atomic_compare_exchange_strong(&file->head, &head, first + 1)) continue;
    uint32_t index = entry % ZP_TABLE_SLOTS;
    uint64_t seen = atomic_load(&file->slots[index].word);
    bool valid = is_reusable(seen) && entry >> INDEX_BITS == (generation_of(seen) & (UINT32_MAX >> INDEX_BITS));
    if (valid && take(file, index, seen, row)) return true;
  }
}

/* Whether a slot can be reused although nobody has said so. */
static bool is_lost(zp_slot *slot, uint64_t *word) {
  int exitcode;
  if (is_reusable(*word)) return true;
  uint64_t next;
  if (phase_of(*word) == CLAIMED) {
    if (exists(pid_of(*word))) return false;
    next = word_of(next_generation(*word), 0, 0, FREE);
  } else {
    uint64_t order = atomic_load_explicit(&slot->content[offsetof(content, order) / sizeof(uint64_t)], memory_order_relaxed);
    if (look_for(pid_of(*word), started_by(*word, order), &exitcode) != NOWHERE) return false;
    next = word_of(generation_of(*word), pid_of(*word), 0, GONE);
  }
  if (!atomic_compare_exchange_strong(&slot->word, word, next)) return false;
  *word = next;
  return true;
}

/* The queue is empty: see what there is in truth. */
static bool search(zp_table_file *file) {
  uint64_t due = atomic_load(&file->next_search), now = boot_time();
  if (now < due || !atomic_compare_exchange_strong(&file->next_search, &due, now + SECOND)) return false;
  bool found = false;
  for (uint32_t i = 0; i < ZP_TABLE_SLOTS; i++) {
    uint64_t word = atomic_load(&file->slots[i].word);
    if (!is_lost(&file->slots[i], &word)) continue;
    give(file, i, generation_of(word));
    found = true;
  }
  if (found) atomic_store(&file->next_search, 0);
  return found;
}

/* ---- the life of a row ---- */

static zp_table_row claim(zp_table *table, const char *name, const content *given) {
  zp_table_file *file = table->file;
  zp_table_row row = {0};
  if (!take_fresh(file, &row) && !take_ended(file, &row) && !(search(file) && take_ended(file, &row))) return row;
  content fresh = *given;
  set_name(fresh.name, name);
  write_content(&file->slots[row.index], &fresh);
  return row;
}

zp_table_row zp_table_claim(zp_table *table, const char *name) {
  pid_t self = getpid();
  return claim(table, name, &(content){.order = boot_time(), .started = zp_clock_wall(), .parent = self, .reaper = self});
}

/* The word of a row, as long as it is its row. */
static bool load(zp_table_row row, uint64_t *word) {
  if (!row.file) return false;
  *word = atomic_load(&row.file->slots[row.index].word);
  return generation_of(*word) == row.generation;
}

static bool replace(zp_table_row row, uint64_t *word, uint64_t next) {
  return atomic_compare_exchange_strong(&row.file->slots[row.index].word, word, next);
}

void zp_table_withdraw(zp_table_row row) {
  uint64_t word;
  if (load(row, &word) && phase_of(word) == CLAIMED && replace(row, &word, word_of(row.generation, 0, 0, FREE)))
    give(row.file, row.index, row.generation);
}

void zp_table_start(zp_table_row row, pid_t pid) {
  uint64_t word;
  if (!load(row, &word) || phase_of(word) != CLAIMED) return;
  _Atomic uint64_t *order = &row.file->slots[row.index].content[offsetof(content, order) / sizeof(uint64_t)];
  uint64_t took = (boot_time() - atomic_load_explicit(order, memory_order_relaxed)) / VALUE_UNIT + 1;
  replace(row, &word, word_of(row.generation, pid, took < TOO_LONG ? took : TOO_LONG, RUNNING));
}

void zp_table_end(zp_table_row row, pid_t pid, int exitcode) {
  uint64_t word;
  while (load(row, &word) && phase_of(word) != FREE && phase_of(word) != EXITED)
    if (replace(row, &word, word_of(row.generation, pid, (uint64_t)(EXIT_BIAS + exitcode), EXITED))) {
      give(row.file, row.index, row.generation);
      return;
    }
}

void zp_table_note_try(zp_table_row row, unsigned tries, bool asleep) {
  uint64_t word;
  while (load(row, &word) && is_alive_phase(word)) {
    atomic_store_explicit(&row.file->slots[row.index].tries, tries, memory_order_relaxed);
    if (replace(row, &word, word_of(row.generation, pid_of(word), value_of(word), asleep ? RETRYING : RUNNING))) return;
  }
}

static uint32_t used_slots(zp_table_file *file) {
  uint32_t fresh = atomic_load(&file->fresh);
  return fresh < ZP_TABLE_SLOTS ? fresh : ZP_TABLE_SLOTS;
}

zp_table_row zp_table_enlist(zp_table *table, const char *name) {
  zp_table_file *file = table->file;
  pid_t self = getpid();
  for (uint32_t i = 0, end = used_slots(file); i < end; i++) {
    content is;
    unsigned tries;
    int exitcode;
    uint64_t word = read_content(&file->slots[i], &is, &tries);
    if (!word || !is_alive_phase(word) || pid_of(word) != self) continue;
    if (look_for(self, started_by(word, is.order), &exitcode) == ALIVE) return (zp_table_row){0};
  }
  uint64_t now = boot_time();
  zp_alive_report kernels;
  content mine = {.order = zp_alive_ask(self, &kernels) ? boot_time_of(kernels.start) : now, .parent = getppid()};
  mine.started = zp_clock_wall() - (double)(now - mine.order) * 1e-9;
  zp_table_row row = claim(table, name, &mine);
  uint64_t word;
  if (load(row, &word)) replace(row, &word, word_of(row.generation, self, 1, RUNNING)); /* 1: what was rounded down */
  return row;
}

/* ---- reading ---- */

/* One row; false if the slot has none. *unsettled: nobody seems to have seen its end, but the parent may just be about to
   tell. */
static bool read_row(zp_slot *slot, zp_process *out, bool *unsettled) {
  content is;
  unsigned tries;
  uint64_t word = read_content(slot, &is, &tries);
  if (!word) return false;
  *out = (zp_process){.order = is.order, .started = is.started, .pid = pid_of(word), .parent = is.parent, .tries = tries};
  memcpy(out->name, is.name, sizeof out->name);
  if (phase_of(word) == EXITED) {
    out->state = ZP_PROCESS_EXITED;
    out->exitcode = (int)value_of(word) - EXIT_BIAS;
  } else if (phase_of(word) == GONE) {
    out->state = ZP_PROCESS_GONE;
  } else {
    static const zp_process_state states[] = {
        [NOWHERE] = ZP_PROCESS_GONE, [ALIVE] = ZP_PROCESS_RUNNING, [DEAD] = ZP_PROCESS_EXITED};
    out->state = states[look_for(out->pid, started_by(word, is.order), &out->exitcode)];
    if (out->state == ZP_PROCESS_RUNNING && phase_of(word) == RETRYING) out->state = ZP_PROCESS_RETRYING;
    if (out->state == ZP_PROCESS_GONE && is.reaper && exists(is.reaper)) *unsettled = true;
  }
  return true;
}

static int list_once(zp_table_file *file, zp_buf *out, bool *unsettled) {
  *unsettled = false;
  for (uint32_t i = 0, end = used_slots(file); i < end; i++) {
    zp_process row;
    int rc = read_row(&file->slots[i], &row, unsettled) ? zp_buf_append(out, &row, sizeof row) : 0;
    if (rc) return rc;
  }
  return 0;
}

/* Of two that have the same time, which is the kernel's and therefore a coarse one, the parent comes first. */
static int by_order(const void *left, const void *right) {
  const zp_process *a = left, *b = right;
  if (a->order != b->order) return a->order < b->order ? -1 : 1;
  if (a->pid == b->parent || b->pid == a->parent) return a->pid == b->parent ? -1 : 1;
  return a->pid < b->pid ? -1 : a->pid > b->pid;
}

int zp_table_list(zp_table *table, zp_buf *out) {
  enum { LOOKS = 10 };
  static const struct timespec pause = {.tv_nsec = 1000000};
  size_t before = out->size;
  bool unsettled;
  for (int look = 1;; look++) {
    int rc = list_once(table->file, out, &unsettled);
    if (rc) return rc;
    if (!unsettled || look == LOOKS) break;
    nanosleep(&pause, NULL); /* between reaping and telling is less than this, unless the parent is not given the time */
    out->size = before;
  }
  size_t count = (out->size - before) / sizeof(zp_process);
  if (count > 0) qsort(out->data + before, count, sizeof(zp_process), by_order); /* else the buffer may have no memory yet */
  return 0;
}

int zp_table_count_waiting(zp_table *table) {
  zp_buf rows = ZP_BUF_INIT;
  bool told = false;
  int count = 0;
  int rc = zp_table_list(table, &rows);
  for (size_t i = 0; i < rows.size / sizeof(zp_process) && !rc; i++) {
    const zp_process *process = (const zp_process *)rows.data + i;
    if (process->state == ZP_PROCESS_RUNNING) count += (int)zp_bell_count_waiting(process->pid, &told);
  }
  zp_buf_free(&rows);
  return rc || !told ? -1 : count;
}
