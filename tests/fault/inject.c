/*
 * inject -- a library for LD_PRELOAD with which the n-th allocation of a process fails, or the n-th call that makes a descriptor.
 *
 * Nothing fails until the process asks for it. From Lua:
 *
 *   local inject = assert(package.loadlib(path, "inject_open"))()
 *   inject.arm("memory" | "descriptors", n, count)   the n-th from now on fails, and the next ones, `count` in all
 *   inject.disarm()                                  none fails; returns whether one has failed since arm, here or in a child
 *
 * A forked child inherits what is armed and counts on for itself, a program that is executed does not. Allocations are those of all
 * libraries, Lua's VM and LMDB included, in whichever thread, and what is mapped, but for what the C library maps for itself; when realloc
 * makes a block smaller it does not fail, as Lua takes for granted.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* glibc's own names of what is replaced here: a search for the next symbol would allocate. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);

int inject_open(lua_State *L);

typedef struct countdown {
  atomic_long before; /* calls that succeed */
  atomic_long count;  /* that fail then; 0: not armed */
} countdown;

static countdown memory, descriptors;
static atomic_bool *failed; /* in memory that forked children share */

static bool fails(countdown *self) {
  if (atomic_load(&self->count) <= 0) return false;
  if (atomic_fetch_sub(&self->before, 1) > 0) return false;
  if (atomic_fetch_sub(&self->count, 1) <= 0) return false;
  atomic_store(failed, true);
  return true;
}

/* ---- memory ---- */

static bool no_memory(void) {
  if (!fails(&memory)) return false;
  errno = ENOMEM;
  return true;
}

void *malloc(size_t size) { return no_memory() ? NULL : __libc_malloc(size); }

void *calloc(size_t count, size_t size) { return no_memory() ? NULL : __libc_calloc(count, size); }

void *realloc(void *block, size_t size) {
  bool grows = !block || size > malloc_usable_size(block);
  return grows && no_memory() ? NULL : __libc_realloc(block, size);
}

static void *map(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
  return no_memory() ? MAP_FAILED : (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
}
void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
  return map(at, size, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset) {
  return map(at, size, protection, flags, fd, offset);
}

/* ---- descriptors ---- */

static bool no_descriptor(void) {
  if (!fails(&descriptors)) return false;
  errno = EMFILE;
  return true;
}

/* The function of this name that would be called without this library. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPENS(name, before_mode, call)             \
  int name before_mode {                           \
    va_list args;                                  \
    va_start(args, flags);                         \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0; \
    va_end(args);                                  \
    return no_descriptor() ? -1 : NEXT(name) call; \
  }

OPENS(open, (const char *path, int flags, ...), (path, flags, mode))
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode))
OPENS(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode))
OPENS(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode))

int socket(int domain, int type, int protocol) { return no_descriptor() ? -1 : NEXT(socket)(domain, type, protocol); }
int socketpair(int domain, int type, int protocol, int fds[2]) {
  return no_descriptor() ? -1 : NEXT(socketpair)(domain, type, protocol, fds);
}
int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
  return no_descriptor() ? -1 : NEXT(accept4)(fd, address, size, flags);
}
int pipe(int fds[2]) { return no_descriptor() ? -1 : NEXT(pipe)(fds); }
int pipe2(int fds[2], int flags) { return no_descriptor() ? -1 : NEXT(pipe2)(fds, flags); }
int dup(int fd) { return no_descriptor() ? -1 : NEXT(dup)(fd); }
int memfd_create(const char *name, unsigned flags) { return no_descriptor() ? -1 : NEXT(memfd_create)(name, flags); }
int eventfd(unsigned count, int flags) { return no_descriptor() ? -1 : NEXT(eventfd)(count, flags); }
int epoll_create1(int flags) { return no_descriptor() ? -1 : NEXT(epoll_create1)(flags); }
FILE *fopen(const char *path, const char *mode) { return no_descriptor() ? NULL : NEXT(fopen)(path, mode); }
FILE *fopen64(const char *path, const char *mode) { return no_descriptor() ? NULL : NEXT(fopen64)(path, mode); }
DIR *opendir(const char *path) { return no_descriptor() ? NULL : NEXT(opendir)(path); }

/* ---- for Lua ---- */

static int arm(lua_State *L) {
  countdown *self = strcmp(luaL_checkstring(L, 1), "memory") == 0 ? &memory : &descriptors;
  long n = (long)luaL_checkinteger(L, 2), count = (long)luaL_checkinteger(L, 3);
  atomic_store(failed, false);
  atomic_store(&self->before, n - 1);
  atomic_store(&self->count, count); /* the last, for whoever counts in another thread */
  return 0;
}

static int disarm(lua_State *L) {
  atomic_store(&memory.count, 0);
  atomic_store(&descriptors.count, 0);
  lua_pushboolean(L, atomic_load(failed));
  return 1;
}

int inject_open(lua_State *L) {
  static const luaL_Reg functions[] = {{"arm", arm}, {"disarm", disarm}, {NULL, NULL}};
  failed = mmap(NULL, sizeof *failed, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (failed == MAP_FAILED) return luaL_error(L, "inject: no shared memory");
  luaL_newlib(L, functions);
  return 1;
}
