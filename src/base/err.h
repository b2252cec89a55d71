/*
 * err -- the error codes of every C layer, and the sentence that goes with the last one.
 *
 * A function that can fail returns 0 (or a count) or one negative code of this table. The sentence that a person needs
 * ("cannot open /dev/shm/x: No space left on device") is kept beside it, one per thread, by zp_fail(): the callee
 * writes it once where it knows most, the callers hand the code up, and the edge (Lua, the command line) reads it.
 *
 * Threads and fork: the sentence is thread-local and copied by fork like all memory. Nothing here allocates.
 */
#ifndef ZP_BASE_ERR_H
#define ZP_BASE_ERR_H

#include <stdbool.h>

enum {
  ZP_OK = 0,
  ZP_ENOMEM = -1,    /* malloc said no */
  ZP_ESYS = -2,      /* a system call failed; the detail names it and errno */
  ZP_ESTORE = -3,    /* the store is damaged or LMDB refused; the detail says which call */
  ZP_EFULL = -4,     /* no space left where the store is kept, even after history was given up */
  ZP_ENOSTORE = -5,  /* no store there */
  ZP_EKEY = -6,      /* a key that is too long or of a type that cannot be a key */
  ZP_EVALUE = -7,    /* a value that is too large */
  ZP_EHISTORY = -8,  /* a revision that is no longer kept, or not yet there */
  ZP_EATOMIC = -9,   /* the store is in use by an atomic function of this very process */
  ZP_ETIMEOUT = -10, /* the time is up */
  ZP_EENCODE = -11,  /* a Lua value that cannot travel; the detail gives its path */
  ZP_EDECODE = -12,  /* bytes that are no encoded value, or name something unknown here */
  ZP_EINTR = -13,    /* cut short by a signal */
  ZP_EBUDGET = -14,  /* a predicate took more time or memory than it may */
  ZP_EPREDICATE = -15, /* a predicate raised; the detail is its message */
  ZP_ENOTASK = -16,  /* there is no such task (any more) */
  ZP_EAUTH = -17,    /* the wrong key, or none, or one too many */
  ZP_EBUSY = -18,    /* it would have to wait */
  ZP_EUSAGE = -19,   /* the caller's fault, in words of the detail */
  ZP_ESTALE = -20,   /* the server was started again while a request was under way: it may have been applied, or not */
  ZP_EELSEWHERE = -21 /* it is of processes in another PID namespace, or nobody can tell */
};

/* Record a printf-style sentence for this thread and return code, so that `return zp_fail(...)` reads as one step.
   The sentence is cut at ZP_DETAIL_MAX - 1 bytes. Arguments may point into the previous sentence. Never raises. */
int zp_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* As zp_fail(ZP_ESYS, ...), with ": " and the text of errno appended. Takes errno as it stands at the call. */
int zp_fail_errno(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The sentence of the last failure on this thread; borrowed until the next failure. Never NULL. */
const char *zp_error_detail(void);

/* Whether an errno says that there is no room: on the disk, for this user, or under the limit on the size of files. */
bool zp_is_full(int number);

#define ZP_DETAIL_MAX 1024

#endif
