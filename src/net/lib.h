/*
 * lib -- libzmq and libsodium, loaded when they are needed.
 *
 * They are not linked: a library that is mapped costs every fork the copying of its page tables (0.1 ms for these two), and most
 * processes never use the network. The functions have their own names and types behind a pointer: zp_zmq->ctx_new is zmq_ctx_new.
 *
 * Threads: may be called by several at once. Fork: what is loaded stays loaded; contexts and sockets of libzmq must not be used in a
 * child, nor closed. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_NET_LIB_H
#define ZP_NET_LIB_H

#include <stdatomic.h>

#include <sodium.h>
#include <zmq.h>

#define ZP_ZMQ_FUNCTIONS(X) \
  X(ctx_new) X(ctx_set) X(ctx_term) X(ctx_shutdown) X(socket) X(close) X(setsockopt) X(getsockopt) X(bind) X(unbind) X(connect) \
  X(socket_monitor) X(msg_init) X(msg_init_size) X(msg_init_data) X(msg_data) X(msg_size) X(msg_more) X(msg_get) X(msg_send) X(msg_recv) \
  X(msg_close) X(send) X(recv) X(strerror)

#define ZP_SODIUM_FUNCTIONS(X) \
  X(sodium_init) X(sodium_memzero) X(sodium_memcmp) X(crypto_pwhash) X(crypto_generichash) X(crypto_scalarmult_base)

struct zp_zmq_library {
#define X(name) __typeof__(zmq_##name) *name;
  ZP_ZMQ_FUNCTIONS(X)
#undef X
};

struct zp_sodium_library {
#define X(name) __typeof__(name) *name;
  ZP_SODIUM_FUNCTIONS(X)
#undef X
};

/* NULL until they are loaded. */
extern const struct zp_zmq_library *_Atomic zp_zmq_loaded;
extern const struct zp_sodium_library *_Atomic zp_sodium_loaded;
#define zp_zmq atomic_load_explicit(&zp_zmq_loaded, memory_order_acquire)
#define zp_sodium atomic_load_explicit(&zp_sodium_loaded, memory_order_acquire)

/* Load a library, if that was not done yet. ZP_ESYS if it is not installed. */
int zp_lib_load_zmq(void);
int zp_lib_load_sodium(void);

/* A new context of libzmq, whose first socket is to be made at once. ZP_ESYS without the descriptors for its threads and a few sockets:
   libzmq would end the process for want of them. */
int zp_lib_context(void **out);

/* As zp_fail(ZP_ESYS, ...), with what libzmq says about its last error. */
int zp_lib_fail(const char *what);

#endif
