#include "sys/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "sys/interrupt.h"

enum {
  BUFFER_SIZE = 16 << 10, /* of standard output, within stdio */
  HELD_MAX = 1 << 20,     /* bytes of an unfinished line */
  HELD_KEEP = 4 << 10,    /* bytes of memory to keep for the next one */
  NAME_MAX_SIZE = 64,
  LOCK_SECONDS = 1
};

/* One end of a descriptor, as a thread has it. Used under the lock of its FILE. */
typedef struct sink {
  int fd;
  bool is_error, is_terminal;
  bool is_inside; /* the last byte that was written was no newline */
  int failure;    /* errno of the first write that failed */
  zp_buf held;    /* an unfinished line */
  zp_buf rest;    /* what a signal has kept from being written; it comes before all else */
  zp_buf labelled;
  char *buffer; /* of stdio */
  FILE *file;
} sink;

/* Who writes: one for the process, one for each thread. */
typedef struct writer {
  sink out, err;
  char name[NAME_MAX_SIZE];
} writer;

static writer process = {.out = {.fd = STDOUT_FILENO}, .err = {.fd = STDERR_FILENO, .is_error = true}, .name = "zproc"};
static _Thread_local writer *own; /* NULL: that of the process */

/* What all processes have in common that share the descriptors. */
typedef struct common {
  pthread_mutex_t mutex;
  _Atomic int failure; /* errno of the first write to standard output that has failed in any of them */
} common;

static common *shared; /* NULL: nobody shares */
static bool labels;
static _Atomic bool is_exiting; /* nothing is held any more */
static _Atomic bool is_forking; /* nobody has flushed who wants to see it */

static writer *current(void) { return own ? own : &process; }

/* ---- writing ---- */

static bool lock(void) {
  if (!shared) return false;
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += LOCK_SECONDS;
  int code = pthread_mutex_trylock(&shared->mutex);
  if (code == EBUSY) code = pthread_mutex_clocklock(&shared->mutex, CLOCK_MONOTONIC, &until);
  if (code == EOWNERDEAD) code = pthread_mutex_consistent(&shared->mutex); /* it protects nothing that could be half done */
  return code == 0;
}

/* How much was written: all, or less with errno; EINTR: there is a signal to be raised. */
static size_t write_all(int fd, const unsigned char *data, size_t size) {
  size_t done = 0;
  while (done < size) {
    ssize_t n = write(fd, data + done, size - done);
    if (n < 0 && errno == EAGAIN) n = poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1) < 0 ? -1 : 0;
    else if (n > 0) done += (size_t)n;
    if (n < 0 && errno != EINTR) break;
    /* What was cut short in the middle says how much it has written, and no more. */
    bool cut = n < 0 || (done < size && !atomic_load_explicit(&is_exiting, memory_order_relaxed));
    if (cut && zp_interrupt_has_signal()) {
      errno = EINTR;
      break;
    }
  }
  return done;
}

/* The text with a label at the beginning of each line; false if there is no memory for it. */
static bool add_labels(sink *self, const unsigned char *data, size_t size) {
  char label[NAME_MAX_SIZE + 24];
  size_t length = (size_t)snprintf(label, sizeof label, "[%s %d] ", current()->name, (int)getpid());
  zp_buf_clear(&self->labelled, HELD_KEEP);
  while (size > 0) {
    const unsigned char *end = memchr(data, '\n', size);
    size_t line = end ? (size_t)(end - data) + 1 : size;
    if (!self->is_inside && zp_buf_append(&self->labelled, label, length)) return false;
    if (zp_buf_append(&self->labelled, data, line)) return false;
    self->is_inside = !end;
    data += line;
    size -= line;
  }
  return true;
}

/* Write; 0, or -1 with errno. Where nobody reads, a signal ends the wait: what is left is kept for the next time, since the script may go on
   after that. At the end of the process it is given up. */
static int write_or_keep(sink *self, const unsigned char *data, size_t size) {
  for (;;) {
    size_t done = write_all(self->fd, data, size);
    if (done == size) return 0;
    if (errno != EINTR) return -1;
    if (atomic_load_explicit(&is_exiting, memory_order_relaxed)) return 0;
    data += done;
    size -= done;
    if (zp_buf_append(&self->rest, data, size) == 0) return 0;
  }
}

static void note_failure(sink *self, int number) {
  int none = 0;
  if (!self->failure) self->failure = number;
  if (shared && !self->is_error) atomic_compare_exchange_strong(&shared->failure, &none, number);
}

static int put(sink *self, const unsigned char *data, size_t size) {
  if (size == 0 && self->rest.size == 0) return 0;
  if (labels && size > 0 && add_labels(self, data, size)) {
    data = self->labelled.data;
    size = self->labelled.size;
  }
  bool locked = lock();
  zp_buf before = self->rest;
  self->rest = (zp_buf)ZP_BUF_INIT;
  int rc = before.size > 0 ? write_or_keep(self, before.data, before.size) : 0;
  zp_buf_free(&before);
  if (!rc && self->rest.size > 0) rc = zp_buf_append(&self->rest, data, size) ? -1 : 0; /* it is not its turn */
  else if (!rc) rc = write_or_keep(self, data, size);
  int number = errno;
  if (rc) note_failure(self, number);
  if (locked) pthread_mutex_unlock(&shared->mutex);
  errno = number;
  return rc;
}

/* What is held, and then the text; afterwards nothing is held. */
static int put_with_held(sink *self, const unsigned char *data, size_t size) {
  if (self->held.size == 0) return put(self, data, size);
  int rc;
  if (zp_buf_append(&self->held, data, size) == 0) {
    rc = put(self, self->held.data, self->held.size);
  } else {
    rc = put(self, self->held.data, self->held.size);
    if (!rc) rc = put(self, data, size);
  }
  zp_buf_clear(&self->held, HELD_KEEP);
  return rc;
}

/* Whether the unfinished line at the end of a text is to be held. On standard error it is, and where another thread has flushed all streams
   that there are. Of standard output stdio writes whole buffers when they are full, wherever that may be; anything else was flushed by somebody
   who wants to see it. */
static bool is_to_hold(const sink *self, size_t size, size_t tail) {
  if (!shared || atomic_load_explicit(&is_exiting, memory_order_relaxed) || self->held.size + tail > HELD_MAX) return false;
  const writer *mine = current();
  if (self != &mine->out && self != &mine->err) return true;
  if (atomic_load_explicit(&is_forking, memory_order_relaxed)) return !self->is_terminal;
  return self->is_error || size % BUFFER_SIZE == 0;
}

static ssize_t on_write(void *cookie, const char *text, size_t size) {
  sink *self = cookie;
  const unsigned char *data = (const unsigned char *)text;
  const unsigned char *last = memrchr(data, '\n', size);
  size_t whole = last ? (size_t)(last - data) + 1 : 0, tail = size - whole;
  if (tail == 0 || !is_to_hold(self, size, tail)) return put_with_held(self, data, size) ? 0 : (ssize_t)size;
  if (whole > 0 && put_with_held(self, data, whole)) return 0;
  if (zp_buf_append(&self->held, data + whole, tail)) return put_with_held(self, data + whole, tail) ? 0 : (ssize_t)size;
  return (ssize_t)size;
}

static int on_seek(void *cookie, off64_t *offset, int whence) {
  sink *self = cookie;
  if (put_with_held(self, NULL, 0)) return -1;
  off_t at = lseek(self->fd, *offset, whence);
  if (at < 0) return -1;
  *offset = at;
  return 0;
}

/* ---- streams ---- */

/* Give the sink a stream; false if there is no memory. */
static bool open_stream(sink *self) {
  self->buffer = self->is_error ? NULL : malloc(BUFFER_SIZE);
  self->file = fopencookie(self, "w", (cookie_io_functions_t){.write = on_write, .seek = on_seek});
  if (!self->file || (!self->is_error && !self->buffer)) {
    if (self->file) fclose(self->file);
    free(self->buffer);
    self->file = NULL;
    self->buffer = NULL;
    return false;
  }
  self->is_terminal = isatty(self->fd);
  setvbuf(self->file, self->buffer, self->is_error ? _IONBF : _IOLBF, BUFFER_SIZE);
  return true;
}

static void close_stream(sink *self) {
  if (!self->file) return;
  fclose(self->file);
  put_with_held(self, NULL, 0);
  zp_buf_free(&self->held);
  zp_buf_free(&self->rest);
  zp_buf_free(&self->labelled);
  free(self->buffer);
}

static void flush_held(sink *self) {
  if (!self->file || (self->held.size == 0 && self->rest.size == 0)) return;
  flockfile(self->file);
  put_with_held(self, NULL, 0);
  funlockfile(self->file);
}

/* stdio writes what it still has after this. */
static void on_exit_of_process(void) {
  atomic_store(&is_exiting, true);
  zp_output_flush();
}

/* Nothing is written that is so already, here and below: each page that is touched around a fork costs a page fault. */
static void begin_anew(sink *self) {
  if (self->held.size > 0) self->held.size = 0;
  if (self->rest.size > 0) self->rest.size = 0;
  if (self->is_inside) self->is_inside = false;
}

/* What the parent has begun is the parent's. A process that a thread has forked has the thread's streams; those of the process may have
   been in use. */
static void after_fork_in_child(void) {
  if (atomic_load(&is_forking)) atomic_store(&is_forking, false);
  begin_anew(&process.out);
  begin_anew(&process.err);
  if (!own) return;
  begin_anew(&own->out);
  begin_anew(&own->err);
  __fpurge(stdout);
  __fpurge(stderr);
}

void zp_output_reserve(void) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/", O_PATH | O_DIRECTORY) < 0) return; /* it gets the lowest number that is free */
}

void zp_output_open(void) {
  if (!open_stream(&process.out)) return;
  if (!open_stream(&process.err)) {
    close_stream(&process.out);
    process.out.file = NULL;
    return;
  }
  stdout = process.out.file;
  stderr = process.err.file;
  atexit(on_exit_of_process);
  pthread_atfork(NULL, NULL, after_fork_in_child);
}

static void make_common(void) {
  common *page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return; /* then lines may mix */
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  if (pthread_mutex_init(&page->mutex, &attributes) == 0) shared = page;
  else munmap(page, sizeof *page);
  pthread_mutexattr_destroy(&attributes);
}

void zp_output_share(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  if (process.out.file) pthread_once(&once, make_common);
}

void zp_output_flush_errors(void) {
  sink *err = &current()->err;
  if (err->held.size > 0) flush_held(err);
}

void zp_output_flush(void) {
  fflush(NULL);
  flush_held(&current()->out);
  flush_held(&current()->err);
}

void zp_output_prepare_fork(void) {
  zp_output_share();
  if (current()->out.is_terminal) flush_held(&current()->out);
  if (current()->err.is_terminal) flush_held(&current()->err);
  if (__fpending(zp_output_stdout()) > 0) {
    atomic_store(&is_forking, true);
    fflush(zp_output_stdout());
    atomic_store(&is_forking, false);
  }
  fflush(NULL);
}

void zp_output_enable_labels(void) { labels = true; }

void zp_output_set_name(const char *name) {
  if (!labels) return;
  char *to = current()->name;
  size_t size = strnlen(name, NAME_MAX_SIZE);
  if (size == NAME_MAX_SIZE) name += strlen(name) - (NAME_MAX_SIZE - 1); /* its end says more: file and line */
  memcpy(to, name, strlen(name) + 1);
}

void zp_output_enter_thread(void) {
  writer *fresh = calloc(1, sizeof *fresh);
  if (!fresh) return;
  fresh->out.fd = STDOUT_FILENO;
  fresh->err.fd = STDERR_FILENO;
  fresh->err.is_error = true;
  memcpy(fresh->name, process.name, sizeof fresh->name);
  if (!open_stream(&fresh->out) || !open_stream(&fresh->err)) {
    close_stream(&fresh->out);
    free(fresh);
    return;
  }
  own = fresh;
}

void zp_output_leave_thread(void) {
  writer *old = own;
  if (!old) return;
  fflush(old->out.file);
  flush_held(&old->out);
  flush_held(&old->err);
  own = NULL;
  close_stream(&old->out);
  close_stream(&old->err);
  free(old);
}

void zp_output_enter_child(void) {
  if (!process.out.file && __fbufsize(stdout) != 1) setvbuf(stdout, NULL, _IOLBF, 0); /* 1: the host does not want it buffered at all */
}

int zp_output_failure(void) { return current()->out.failure; }

int zp_output_common_failure(void) { return shared && !process.out.failure ? atomic_load(&shared->failure) : process.out.failure; }

FILE *zp_output_stdout(void) { return own ? own->out.file : stdout; }

FILE *zp_output_stderr(void) { return own ? own->err.file : stderr; }
