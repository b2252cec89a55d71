/*
 * batch -- changes of the state on their way to one commit: encoded keys and values in one growing buffer.
 *
 * A batch belongs to a State's handle and is reused, so that a small update allocates nothing. Encoding happens before any
 * lock is taken; a batch that was left half filled by an error is emptied by the next zp_batch_clear.
 */
#ifndef ZP_BIND_BATCH_H
#define ZP_BIND_BATCH_H

#include <lua.h>

#include "base/buf.h"
#include "store/store.h"

typedef struct zp_batch {
  zp_buf bytes;   /* keys and values, one after the other */
  zp_buf entries; /* where they are */
  zp_buf changes; /* as zp_store_commit wants them; filled by zp_batch_changes */
  zp_buf key;     /* scratch for one key */
} zp_batch;

void zp_batch_clear(zp_batch *batch);
void zp_batch_free(zp_batch *batch);

/* Add "set the key at stack index `key` to the value at `value`", or "delete it" if value is 0. 0; ZP_EKEY; ZP_EENCODE with a
   path that starts at the key ("state.jobs[3].file: ..."); ZP_ENOMEM. May raise for want of memory. */
int zp_batch_add(zp_batch *batch, lua_State *L, int key, int value);

/* Add a change of which the key, or both, are encoded already. value NULL: delete. */
int zp_batch_add_bytes(zp_batch *batch, zp_bytes key, const zp_bytes *value);

size_t zp_batch_count(const zp_batch *batch);

/* The encoded value of the last change that was added; borrowed until the next addition. */
zp_bytes zp_batch_last_value(const zp_batch *batch);

/* Take back the last change. */
void zp_batch_drop_last(zp_batch *batch);

/* The changes as an array of zp_batch_count elements; borrowed until the batch changes. NULL for want of memory. */
zp_change *zp_batch_changes(zp_batch *batch);

#endif
