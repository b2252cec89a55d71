#include "store/holder.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "store/env.h"
#include "sys/procfile.h"

/* The coarse clock is a read of memory; milliseconds are exact enough. */
void zp_holder_enter(zp_holder_note *note, pid_t pid, const char source[ZP_HOLDER_SOURCE], unsigned line) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  if (line) memcpy(note->source, source, sizeof note->source);
  atomic_store_explicit(&note->line, line, memory_order_relaxed);
  atomic_store_explicit(&note->since, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec, memory_order_relaxed);
  atomic_store_explicit(&note->count, atomic_load_explicit(&note->count, memory_order_relaxed) + 1, memory_order_relaxed);
  atomic_store_explicit(&note->pid, pid, memory_order_relaxed);
}

void zp_holder_leave(zp_holder_note *note) { atomic_store_explicit(&note->pid, 0, memory_order_relaxed); }

/* Its name, and whether it is stopped: "12 (name) T ...", where the name may have anything in it. False: there is no such process. */
static bool read_process(zp_holder *holder) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)holder->pid);
  zp_procfile_read(path, text, sizeof text);
  char *begin = strchr(text, '('), *end = strrchr(text, ')');
  if (!begin || !end || end[1] == '\0' || end[2] == '\0') return false;
  *end = '\0';
  snprintf(holder->name, sizeof holder->name, "%.31s", begin + 1);
  for (char *c = holder->name; *c; c++)
    if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
  holder->is_stopped = end[2] == 'T' || end[2] == 't';
  return end[2] != 'Z' && end[2] != 'X';
}

bool zp_holder_look(const zp_holder_note *note, zp_holder *holder) {
  *holder = (zp_holder){.pid = atomic_load(&note->pid), .count = atomic_load(&note->count)};
  if (holder->pid <= 0) return false;
  holder->since = (double)atomic_load(&note->since) * 1e-9;
  holder->seconds = zp_clock_wall() - holder->since;
  if (holder->seconds < 0) holder->seconds = 0;
  unsigned line = atomic_load(&note->line);
  if (line) {
    char source[ZP_HOLDER_SOURCE];
    memcpy(source, note->source, sizeof source);
    source[sizeof source - 1] = '\0';
    for (char *c = source; *c; c++)
      if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
    snprintf(holder->place, sizeof holder->place, "%s:%u", source, line);
  }
  return read_process(holder); /* one that is dead has left the note, and the lock is free */
}

bool zp_store_find_holder(const char *directory, zp_holder *holder) {
  zp_control *control = zp_env_map_control(directory);
  if (!control) return false;
  bool is_held = zp_holder_look(&control->holder, holder);
  munmap(control, sizeof *control);
  return is_held;
}

const char *zp_holder_words(const zp_holder *holder, char words[ZP_HOLDER_WORDS]) {
  char since[32] = "?";
  time_t seconds = (time_t)holder->since;
  struct tm local;
  if (localtime_r(&seconds, &local)) strftime(since, sizeof since, "%T", &local);
  snprintf(words, ZP_HOLDER_WORDS, "process %d (%s) has it since %s%s%s%s", (int)holder->pid, holder->name, since,
           holder->place[0] ? ", for the atomic function at " : "", holder->place, holder->is_stopped ? "; that process is stopped" : "");
  return words;
}
