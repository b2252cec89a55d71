/*
 * lqueue -- what the queue of tasks of a server on this machine and that of one elsewhere (lrqueue.c) have in common at the Lua edge: how
 * items, results and claims look there.
 */
#ifndef ZP_BIND_LQUEUE_H
#define ZP_BIND_LQUEUE_H

#include <lua.h>

#include "map/queue.h"

/* Each pushes what the method of that name gives, and returns how many values that are. May raise. */
int zp_lqueue_push_block(lua_State *L, zp_bytes bytes, uint64_t first, uint64_t items);
int zp_lqueue_push_info(lua_State *L, const zp_task_info *info);
int zp_lqueue_push_summary(lua_State *L, const zp_queue_summary *summary, int64_t waiting); /* -1: nobody knows how many wait */
int zp_lqueue_push_claim(lua_State *L, const zp_claim *claim);

/* The values go into the table at index `array`, behind the offset. */
int zp_lqueue_push_result(lua_State *L, const zp_result *result, zp_bytes bytes, int array, lua_Integer offset);

/* Push a buffer with the result that the arguments 2 and 3 of queue:finish are. May raise. */
zp_buf *zp_lqueue_pack_result(lua_State *L);

#endif
