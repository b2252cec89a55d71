/*
 * zmq_peer -- what a request costs in ZeroMQ alone: DEALERs that send as many bytes as a request of zproc has, and a ROUTER that sends
 * them back, over TCP on this machine.
 *
 *   zmq_peer echo            median microseconds of a round trip
 *   zmq_peer many P N        P clients of N round trips each: seconds in all
 *
 * Prints lines of "name value".
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <zmq.h>

enum { SIZE = 64 };

static char endpoint[256];
static pid_t server;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void must(int ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "zmq_peer: %s: %s\n", what, zmq_strerror(zmq_errno()));
  exit(1);
}

/* In a child: send back what comes, and tell where by the pipe. */
static void serve(int told) {
  setsid(); /* as servers are: the kernel may schedule sessions as groups, which costs both sides the same then */
  void *context = zmq_ctx_new(), *router = zmq_socket(context, ZMQ_ROUTER);
  size_t size = sizeof endpoint;
  must(zmq_bind(router, "tcp://127.0.0.1:*") == 0, "bind");
  zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &size);
  must(write(told, endpoint, sizeof endpoint) == (ssize_t)sizeof endpoint, "write");
  for (;;) {
    zmq_msg_t route, body;
    zmq_msg_init(&route);
    zmq_msg_init(&body);
    must(zmq_msg_recv(&route, router, 0) >= 0 && zmq_msg_recv(&body, router, 0) >= 0, "recv");
    must(zmq_msg_send(&route, router, ZMQ_SNDMORE) >= 0 && zmq_msg_send(&body, router, 0) >= 0, "send");
  }
}

static void *dial(void) {
  void *dealer = zmq_socket(zmq_ctx_new(), ZMQ_DEALER);
  must(zmq_connect(dealer, endpoint) == 0, "connect");
  return dealer;
}

static void call(void *dealer) {
  char bytes[SIZE] = "";
  must(zmq_send(dealer, bytes, sizeof bytes, 0) == SIZE, "send");
  must(zmq_recv(dealer, bytes, sizeof bytes, 0) == SIZE, "recv");
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void echo(void) {
  enum { SAMPLES = 5000, WARM = 200 };
  static double took[SAMPLES];
  void *dealer = dial();
  for (int i = 0; i < WARM; i++) call(dealer);
  for (int i = 0; i < SAMPLES; i++) {
    double begin = now();
    call(dealer);
    took[i] = now() - begin;
  }
  qsort(took, SAMPLES, sizeof *took, compare);
  printf("echo %.3f\n", took[SAMPLES / 2]);
}

static void many(int clients, int calls) {
  double begin = now();
  for (int i = 0; i < clients; i++) {
    pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
      void *dealer = dial();
      for (int k = 0; k < calls; k++) call(dealer);
      _exit(0);
    }
  }
  for (int i = 0; i < clients; i++) {
    int status = 1;
    must(wait(&status) > 0 && status == 0, "wait");
  }
  printf("many %.6f\n", (now() - begin) / 1e6);
}

static void stop(void) {
  kill(server, SIGKILL);
}

int main(int argc, char **argv) {
  int told[2];
  must(pipe(told) == 0, "pipe");
  server = fork();
  must(server >= 0, "fork");
  if (server == 0) serve(told[1]);
  pid_t self = getpid();
  must(read(told[0], endpoint, sizeof endpoint) == (ssize_t)sizeof endpoint, "read");
  if (argc == 2 && strcmp(argv[1], "echo") == 0) echo();
  else if (argc == 4 && strcmp(argv[1], "many") == 0) many(atoi(argv[2]), atoi(argv[3]));
  else fprintf(stderr, "usage: zmq_peer echo | many P N\n");
  if (getpid() == self) stop();
  return 0;
}
