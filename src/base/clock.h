/*
 * clock -- time for deadlines. All seconds are doubles; a deadline is an instant of the monotonic clock, and
 * ZP_FOREVER stands for "no deadline". Never fails, never raises.
 */
#ifndef ZP_BASE_CLOCK_H
#define ZP_BASE_CLOCK_H

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <time.h>

#define ZP_FOREVER INFINITY

static inline double zp_clock_read(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Seconds on the monotonic clock. */
static inline double zp_clock_now(void) { return zp_clock_read(CLOCK_MONOTONIC); }

/* A deadline as system calls take an instant of the monotonic clock: `until`, filled in, or NULL for ZP_FOREVER. */
static inline struct timespec *zp_clock_instant(double deadline, struct timespec *until) {
  if (deadline == ZP_FOREVER) return NULL;
  double whole = deadline < 1e9 ? deadline : 1e9;
  *until = (struct timespec){.tv_sec = (time_t)whole};
  until->tv_nsec = (long)((whole - (double)until->tv_sec) * 1e9);
  return until;
}

/* Lock a mutex, but wait no longer than for so many seconds, whatever becomes of the wall clock: as pthread_mutex_clocklock; ETIMEDOUT, or
   EBUSY, if it is held by then, or before. */
static inline int zp_clock_lock(pthread_mutex_t *mutex, double seconds) {
#ifdef __SANITIZE_THREAD__ /* which does not know the call */
  int rc = pthread_mutex_trylock(mutex);
  if (rc != EBUSY || seconds <= 0) return rc;
  nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
  return pthread_mutex_trylock(mutex);
#else
  struct timespec until;
  zp_clock_instant(zp_clock_now() + seconds, &until);
  return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &until);
#endif
}

/* The same to write-lock a lock that has readers and writers. */
static inline int zp_clock_wrlock(pthread_rwlock_t *lock, double seconds) {
  struct timespec until;
#ifdef __SANITIZE_THREAD__ /* the wall clock will do; who tries again and again is no writer that new readers make way for */
  clock_gettime(CLOCK_REALTIME, &until);
  long nanoseconds = until.tv_nsec + (long)(seconds * 1e9);
  until.tv_sec += nanoseconds / 1000000000;
  until.tv_nsec = nanoseconds % 1000000000;
  return pthread_rwlock_timedwrlock(lock, &until);
#else
  zp_clock_instant(zp_clock_now() + seconds, &until);
  return pthread_rwlock_clockwrlock(lock, CLOCK_MONOTONIC, &until);
#endif
}

/* Seconds since the epoch. */
static inline double zp_clock_wall(void) { return zp_clock_read(CLOCK_REALTIME); }

#endif
