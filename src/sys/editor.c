#include "sys/editor.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "sys/interrupt.h"

enum { HISTORY_MAX = 1000 }; /* lines that are kept when the file has twice as many */

/* Where words end. `.` and `:` are part of them: state:get is one word. */
static const char WORD_BREAKS[] = " \t\n\"'`@$><=;|&{}()[]+-*/%^#~,!?\\";

typedef char **attempted_completion(const char *text, int start, int end);
typedef char *completion_entry(const char *text, int state);
typedef void line_handler(char *line);

/* What both libraries have, under the names that it has there. */
static struct {
  void (*callback_handler_install)(const char *prompt, line_handler *handler);
  void (*callback_read_char)(void);
  void (*callback_handler_remove)(void);
  char **(*completion_matches)(const char *text, completion_entry *entry);
  int (*add_history)(const char *line);
  void (*using_history)(void);
  /* variables */
  FILE **outstream;
  int *catch_signals, *append_character, *completion_over;
  const char **word_breaks, **program_name;
  attempted_completion **attempted;
} lib;

static const struct {
  const char *name;
  void *slot;
} symbols[] = {
    {"rl_callback_handler_install", &lib.callback_handler_install},
    {"rl_callback_read_char", &lib.callback_read_char},
    {"rl_callback_handler_remove", &lib.callback_handler_remove},
    {"rl_completion_matches", &lib.completion_matches},
    {"add_history", &lib.add_history},
    {"using_history", &lib.using_history},
    {"rl_outstream", &lib.outstream},
    {"rl_catch_signals", &lib.catch_signals},
    {"rl_completion_append_character", &lib.append_character},
    {"rl_attempted_completion_over", &lib.completion_over},
    {"rl_basic_word_break_characters", &lib.word_breaks},
    {"rl_readline_name", &lib.program_name},
    {"rl_attempted_completion_function", &lib.attempted},
};

static bool is_open;
static char *history_path; /* NULL: none is kept */

/* The line that is being read. */
static struct {
  zp_editor_complete *complete;
  void *context;
  char *line;
  bool is_done;
} reading;

/* The words that were offered. */
static struct {
  char **words;
  size_t count, next;
} offers;

/* ---- completion ---- */

void zp_editor_offer(const char *word) {
  char **more = realloc(offers.words, (offers.count + 1) * sizeof *more);
  if (!more) return;
  offers.words = more;
  if ((more[offers.count] = strdup(word))) offers.count++;
}

static char *next_offer(const char *text, int state) {
  (void)text;
  if (state == 0) offers.next = 0;
  return offers.next < offers.count ? strdup(offers.words[offers.next++]) : NULL;
}

static char **on_complete(const char *text, int start, int end) {
  (void)start;
  (void)end;
  *lib.completion_over = 1; /* no names of files */
  *lib.append_character = '\0'; /* readline sets it anew each time */
  if (!reading.complete) return NULL;
  reading.complete(reading.context, text);
  char **matches = offers.count > 0 ? lib.completion_matches(text, next_offer) : NULL;
  while (offers.count > 0) free(offers.words[--offers.count]);
  return matches;
}

/* ---- history ---- */

/* Leave the lines from `from` on in the file. */
static void trim_history(const char *from) {
  char fresh[4096];
  if (snprintf(fresh, sizeof fresh, "%s.new", history_path) >= (int)sizeof fresh) return;
  int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return;
  size_t size = strlen(from);
  bool is_whole = write(fd, from, size) == (ssize_t)size;
  if (close(fd) != 0 || !is_whole || rename(fresh, history_path) != 0) unlink(fresh);
}

static void load_history(void) {
  FILE *file = fopen(history_path, "re");
  if (!file) return;
  char *all = NULL;
  size_t room = 0;
  ssize_t size = getdelim(&all, &room, '\0', file);
  fclose(file);
  if (size > 0) {
    size_t lines = 0;
    char *from = all + size;
    while (from > all && lines <= HISTORY_MAX)
      if (*--from == '\n') lines++;
    if (lines > HISTORY_MAX) from++;
    size_t dropped = 0;
    for (const char *at = all; at < from; at++) dropped += *at == '\n';
    if (dropped > HISTORY_MAX) trim_history(from);
    for (char *line = strtok(from, "\n"); line; line = strtok(NULL, "\n")) lib.add_history(line);
  }
  free(all);
}

void zp_editor_note(const char *line) {
  if (!is_open || !*line || strchr(line, '\n')) return;
  lib.add_history(line);
  if (!history_path) return;
  int fd = open(history_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return;
  dprintf(fd, "%s\n", line);
  close(fd);
}

/* ---- opening ---- */

static int load(void) {
  static const char *const files[] = {"libedit.so.2", "libreadline.so.8", NULL};
  void *handle = NULL;
  for (const char *const *file = files; *file && !handle; file++) handle = dlopen(*file, RTLD_NOW | RTLD_LOCAL);
  if (!handle) return zp_fail(ZP_ESYS, "neither libedit nor readline, for editing lines, can be loaded: %s", dlerror());
  for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
    void *symbol = dlsym(handle, symbols[i].name);
    if (!symbol) return zp_fail(ZP_ESYS, "the library for editing lines has no %s", symbols[i].name);
    *(void **)symbols[i].slot = symbol;
  }
  return 0;
}

int zp_editor_open(const char *history_file) {
  if (is_open) return 0;
  int rc = load();
  if (rc) return rc;
  /* Our own standard output (output.h) is no terminal to the library: it has no descriptor. */
  int fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
  FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
  if (!out) {
    if (fd >= 0) close(fd);
    return zp_fail_errno("cannot open the terminal");
  }
  setlocale(LC_CTYPE, "");
  *lib.outstream = out;
  *lib.catch_signals = 0;
  *lib.word_breaks = WORD_BREAKS;
  *lib.program_name = "zproc";
  *lib.attempted = on_complete;
  lib.using_history();
  if (history_file && (history_path = strdup(history_file))) load_history();
  is_open = true;
  return 0;
}

/* ---- reading ---- */

/* Called by the library when a line is complete; with NULL at the end of input. The prompt of a next line must not appear. */
static void on_line(char *line) {
  reading.line = line;
  reading.is_done = true;
  lib.callback_handler_remove();
}

/* Wait for a key: 0, or ZP_EINTR if there is a signal to take. One that comes between the look and the sleep ends the sleep: it is let in
   only there. */
static int await_key(void) {
  struct pollfd keys = {.fd = STDIN_FILENO, .events = POLLIN};
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool is_wanted = false, is_ready = false;
  while (!is_wanted && !is_ready) {
    is_wanted = zp_interrupt_has_signal();
    if (!is_wanted) is_ready = ppoll(&keys, 1, NULL, &before) > 0;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return is_wanted ? ZP_EINTR : 0;
}

int zp_editor_read(const char *prompt, zp_editor_complete *complete, void *context, char **line) {
  *line = NULL;
  reading.complete = complete;
  reading.context = context;
  reading.line = NULL;
  reading.is_done = false;
  lib.callback_handler_install(prompt, on_line);
  while (!reading.is_done) {
    if (await_key() == ZP_EINTR) {
      lib.callback_handler_remove();
      fputs("\n", *lib.outstream);
      fflush(*lib.outstream);
      return ZP_EINTR;
    }
    lib.callback_read_char();
  }
  *line = reading.line;
  return 0;
}
