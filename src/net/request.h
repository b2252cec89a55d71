/*
 * request -- what clients on other machines can ask a server for: the types of messages, and what is in each.
 *
 * A client has at most one request at a time under way, and numbers them. So the server can tell a request that comes again from a new
 * one, and each is applied once:
 *   - The server remembers, for each client, the number of the last request, and the answer to it (of requests that change nothing only
 *     if it is small). Whoever gets no answer asks what has become of its request (PROBE), and hears that it is being worked on; or was never
 *     seen, in which case it sends it again, some twenty times; or that the answer is there. What a server says on one connection arrives in
 *     order, so an answer that has not come before that was lost with a connection, and is asked for (FETCH). Large ones are not sent again
 *     while they are on their way.
 *   - A client says HELLO to each server before anything else, and hears whose state it has: at the same address there may be another one's
 *     by now. Who has not, because the server is another than the last, say, is a stranger.
 *   - What a server knows about its clients ends with it, or when they have been unreachable for long. A request that changes
 *     something, and whose server has forgotten the client, or was followed by another incarnation, may have been applied: the client
 *     reports that.
 *   - POP and POPITEM remove a value that the client can read for certain, which a scalar is, or the very one that it says it has read. Else
 *     they answer with the value and leave it there; once the client has read it, it asks again. So what cannot be read is not lost.
 *
 * The table below is the whole grammar; N are the numbers of a parcel, S its strings, P its pairs. Seconds are the bits of a double.
 */
#ifndef ZP_NET_REQUEST_H
#define ZP_NET_REQUEST_H

#include "net/wire.h"

typedef enum zp_request_type {
  /*                            asks                                                answers */
  ZP_REQUEST_HELLO = 1,      /*                                                     N pid uid device inode(of the directory) device inode(of the
                                                                                    namespace of pids) identity(of the state), S directory,
                                                                                    boot(what is in ZP_PROCFILE_BOOT) */
  ZP_REQUEST_PING,           /* S payload                                           N pid, S payload */
  ZP_REQUEST_PROBE,          /* N sequence                                          see below */
  ZP_REQUEST_CANCEL,         /* N sequence                                          nothing at all */
  ZP_REQUEST_PROCESSES,      /*                                                     S zp_process[] */
  ZP_REQUEST_GET,            /* S namespace key                                     N found, S value */
  ZP_REQUEST_COUNT,          /* S namespace                                         N count */
  ZP_REQUEST_RANGE,          /* S namespace                                         N oldest newest revision */
  ZP_REQUEST_ALL,            /* N is-past revision, S namespace                     N revision, P key value */
  ZP_REQUEST_COMMIT,         /* N author, S namespace, P key [value]: keys ascend   N revision */
  ZP_REQUEST_REPLACE,        /* N author, S namespace, P key [value]: keys ascend   N revision */
  ZP_REQUEST_SETDEFAULT,     /* N author, S namespace key value                     N had revision, S value */
  ZP_REQUEST_POP,            /* N author, S namespace key read                      N had revision(0: it is there still), S value */
  ZP_REQUEST_POPITEM,        /* N author, S namespace read-key read                 N had revision(0: it is there still), S key value */
  ZP_REQUEST_ATOMIC,         /* N author cursor, S namespace call                   N cursor, S outcome */
  ZP_REQUEST_WATCH,          /* N author kind id flags seconds budget-seconds budget-bytes(0: the server's),
                                S namespace cursor subject, P key, or value         N matched(0: the time is up) revision identical
                                                                                    before, S cursor, P key value: first those before; or,
                                                                                    of CHANGES, P key [value] */
  ZP_REQUEST_TASK_ADD,       /* N pool total workers attempts whose chunk,
                                S specification                                     N task */
  ZP_REQUEST_TASK_PUT,       /* N task items is-last, S items                       */
  ZP_REQUEST_TASK_ADOPT,     /* N task pool                                         N found */
  ZP_REQUEST_TASK_SPECIFICATION, /* N task                                          N found, S specification */
  ZP_REQUEST_TASK_BLOCK,     /* N task item                                         N found first items, S items */
  ZP_REQUEST_TASK_DESCRIBE,  /* N task                                              N found, the numbers of zp_task_info */
  ZP_REQUEST_TASK_DROP,      /* N task                                              */
  ZP_REQUEST_TASK_DISBAND,   /* N pool                                              */
  ZP_REQUEST_TASK_TAKE,      /* N task from; arms for it                            N found to is-dead attempts, S result */
  ZP_REQUEST_TASK_ACKNOWLEDGE, /* N task position                                   N is-complete */
  ZP_REQUEST_WORKER_ENLIST,  /* N pool                                              */
  ZP_REQUEST_WORKER_CLAIM,   /* N has-result seconds, S result; arms for work       N found task from to is-suspect */
  ZP_REQUEST_WORKER_DIED,    /* N item span, S client                               */
  ZP_REQUEST_TASK_RECOVER,   /*                                                     N count */
  ZP_REQUEST_TASK_WAIT,      /* N seconds; after TAKE or CLAIM, else ESTALE         N happened */
  ZP_REQUEST_SUMMARY,        /*                                                     N the numbers of zp_queue_summary, waiting(-1: not known) */
  ZP_REQUEST_FETCH,          /* N sequence                                          the answer to that one, or as to PROBE */
  ZP_REQUEST_END
} zp_request_type;

typedef enum zp_answer_type {
  ZP_ANSWER_DONE = 0x100, /* as above */
  ZP_ANSWER_FAILED,       /* N -code, S detail traceback */
  ZP_ANSWER_RUNNING,      /* to a PROBE: it is being worked on; S who holds the lock of writers, if it waits for that */
  ZP_ANSWER_NOT_SEEN,     /* to a PROBE: there was no such request, or one that changes nothing, and whose answer is not kept */
  ZP_ANSWER_FORGOTTEN,    /* to a PROBE: the server does not know the client, at least not any more */
  ZP_ANSWER_REFUSED,      /* S sentence: of another version, say */
  ZP_ANSWER_NOTICE,       /* to nothing: the server wants to know whether there is anybody */
  ZP_ANSWER_KEPT,         /* to a PROBE: it is done, and the answer can be had by FETCH */
  ZP_ANSWER_STRANGER      /* to a request of a client that has not said HELLO: it was not looked at */
} zp_answer_type;

/* Each end looks so often whether the other one is alive, and takes it for dead after so long. */
enum { ZP_HEARTBEAT_MILLISECONDS = 1000, ZP_HEARTBEAT_TIMEOUT_MILLISECONDS = 5000 };

/* Whose results those of a task that is added are: whoever's who pulls them; those of the client; those of the client, for the chunk that it
   works on. */
enum { ZP_TASK_SHARED, ZP_TASK_PRIVATE, ZP_TASK_INNER };

/* Flags of WATCH. */
enum {
  ZP_WATCH_LIVE = 1,
  ZP_WATCH_EXCLUDE = 2,
  ZP_WATCH_DUPLICATES = 4,
  ZP_WATCH_OWN_KNOWN = 8,
  ZP_WATCH_GAPLESS = 16,
  ZP_WATCH_CHANGES = 32, /* of a CHANGE: the answer has the pairs that the revision changed, and no others */
};

/* Kinds of WATCH beyond those of watch/condition.h. */
enum { ZP_WATCH_CHANGE = 100, ZP_WATCH_UPDATE };

/* Of a request: */
bool zp_request_is_write(int type); /* whether it is one change of the state, for which it needs no more than the lock of writers */
bool zp_request_changes(int type); /* whether it must not be applied twice */
bool zp_request_is_mute(int type); /* whether it has no answer */

/* Read the parcel of a request and see that it has what the type needs: strings that are keys, names or values have a fitting size, too. Its pairs
   stay bytes. ZP_EDECODE, or ZP_EUSAGE for a type that there is not. */
int zp_request_read(int type, zp_bytes body, zp_parcel *parcel);

#endif
