/*
 * redis_peer -- what the same costs through Redis: one client on a Unix socket, one command after the other.
 *
 *   redis_peer SOCKET state            median microseconds of GET, SET, INCR, and of INCR within a Lua script
 *   redis_peer SOCKET contend P N      P processes of N increments each: seconds in all
 *   redis_peer SOCKET publish          median microseconds from PUBLISH to the blocked subscriber
 *
 * Prints lines of "name value".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <hiredis/hiredis.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static redisContext *dial(const char *socket) {
  redisContext *redis = redisConnectUnix(socket);
  if (redis && !redis->err) return redis;
  fprintf(stderr, "redis_peer: cannot connect to %s\n", socket);
  exit(1);
}

static void call(redisContext *redis, const char *command) {
  redisReply *reply = redisCommand(redis, command);
  if (!reply || reply->type == REDIS_REPLY_ERROR) {
    fprintf(stderr, "redis_peer: %s: %s\n", command, reply ? reply->str : redis->errstr);
    exit(1);
  }
  freeReplyObject(reply);
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void measure(redisContext *redis, const char *name, const char *command) {
  enum { SAMPLES = 5000 };
  static double took[SAMPLES];
  for (int i = 0; i < SAMPLES; i++) {
    double begin = now();
    call(redis, command);
    took[i] = now() - begin;
  }
  qsort(took, SAMPLES, sizeof *took, compare);
  printf("%s %.3f\n", name, took[SAMPLES / 2]);
}

static void state(const char *socket) {
  redisContext *redis = dial(socket);
  call(redis, "SET count 1");
  measure(redis, "read", "GET count");
  measure(redis, "write", "SET count 1");
  measure(redis, "increment", "INCR count");
  char command[200];
  redisReply *reply = redisCommand(redis, "SCRIPT LOAD %s", "return redis.call('incr', 'count')");
  snprintf(command, sizeof command, "EVALSHA %s 0", reply->str);
  freeReplyObject(reply);
  measure(redis, "script", command);
  redisFree(redis);
}

static void contend(const char *socket, int processes, int increments) {
  redisContext *redis = dial(socket);
  call(redis, "SET count 0");
  double begin = now();
  for (int p = 0; p < processes; p++) {
    if (fork() == 0) {
      redisContext *own = dial(socket);
      for (int i = 0; i < increments; i++) call(own, "INCR count");
      _exit(0);
    }
  }
  for (int p = 0; p < processes; p++) wait(NULL);
  printf("contend %.6f\n", (now() - begin) / 1e6);
  redisFree(redis);
}

/* The subscriber notes when it got each message; both use the clock of the machine. */
static void publish(const char *socket) {
  enum { SAMPLES = 2000 };
  struct shared {
    volatile int got;
    double at[SAMPLES];
  } *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  static double took[SAMPLES];
  shared->got = -1;
  pid_t pid = fork();
  if (pid == 0) {
    redisContext *own = dial(socket);
    call(own, "SUBSCRIBE news");
    shared->got = 0;
    for (int i = 0; i < SAMPLES; i++) {
      void *reply;
      if (redisGetReply(own, &reply) != REDIS_OK) _exit(1);
      shared->at[i] = now();
      freeReplyObject(reply);
      shared->got = i + 1;
    }
    _exit(0);
  }
  redisContext *redis = dial(socket);
  while (shared->got < 0) usleep(100);
  for (int i = 0; i < SAMPLES; i++) {
    usleep(300); /* so that the subscriber is asleep */
    double begin = now();
    call(redis, "PUBLISH news 1");
    while (shared->got <= i) usleep(50);
    took[i] = shared->at[i] - begin;
  }
  waitpid(pid, NULL, 0);
  qsort(took, SAMPLES, sizeof *took, compare);
  printf("publish %.3f\n", took[SAMPLES / 2]);
  redisFree(redis);
}

int main(int argc, char **argv) {
  if (argc >= 3 && strcmp(argv[2], "state") == 0) state(argv[1]);
  else if (argc >= 5 && strcmp(argv[2], "contend") == 0) contend(argv[1], atoi(argv[3]), atoi(argv[4]));
  else if (argc >= 3 && strcmp(argv[2], "publish") == 0) publish(argv[1]);
  else return 2;
  return 0;
}
