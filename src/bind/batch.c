#include "bind/batch.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "codec/key.h"
#include "codec/value.h"

/* What a buffer may keep for the next update; more than that was a large value, which is rare. */
enum { KEEP = 64 * 1024 };

typedef struct entry {
  size_t key, key_size, value, value_size; /* offsets in bytes; value_size 0: delete */
} entry;

void zp_batch_clear(zp_batch *batch) {
  zp_buf_clear(&batch->bytes, KEEP);
  zp_buf_clear(&batch->entries, KEEP);
  zp_buf_clear(&batch->changes, KEEP);
}

void zp_batch_free(zp_batch *batch) {
  zp_buf_free(&batch->bytes);
  zp_buf_free(&batch->entries);
  zp_buf_free(&batch->changes);
  zp_buf_free(&batch->key);
}

size_t zp_batch_count(const zp_batch *batch) { return batch->entries.size / sizeof(entry); }

static entry *last_entry(const zp_batch *batch) {
  return (entry *)(batch->entries.data + batch->entries.size - sizeof(entry));
}

/* "state.jobs", "state[3]", "state["a b"]": what a user would write to get at the key. */
static void describe_key(lua_State *L, int key, char *text, size_t size) {
  size_t length;
  switch (lua_type(L, key)) {
    case LUA_TSTRING: {
      const char *name = lua_tolstring(L, key, &length);
      int identifier = length > 0 && length < 60 && !isdigit((unsigned char)name[0]);
      for (size_t i = 0; i < length && identifier; i++) identifier = isalnum((unsigned char)name[i]) || name[i] == '_';
      if (identifier)
        snprintf(text, size, "state.%s", name);
      else
        snprintf(text, size, "state[\"%.60s%s\"]", name, length > 60 ? "..." : "");
      break;
    }
    case LUA_TBOOLEAN: snprintf(text, size, "state[%s]", lua_toboolean(L, key) ? "true" : "false"); break;
    default:
      if (lua_isinteger(L, key))
        snprintf(text, size, "state[%lld]", (long long)lua_tointeger(L, key));
      else
        snprintf(text, size, "state[%.14g]", lua_tonumber(L, key));
  }
}

static int encode_value(zp_batch *batch, lua_State *L, int key, int value) {
  size_t before = batch->bytes.size;
  int rc = zp_value_encode(L, value, NULL, &batch->bytes);
  if (rc == ZP_EENCODE) { /* only now is the name of the key worth its making */
    char root[96];
    describe_key(L, key, root, sizeof root);
    batch->bytes.size = before;
    rc = zp_value_encode(L, value, root, &batch->bytes);
  }
  return rc;
}

int zp_batch_add(zp_batch *batch, lua_State *L, int key, int value) {
  int rc = zp_key_encode(L, key, &batch->key);
  if (rc) return rc;
  entry fresh = {.key = batch->bytes.size, .key_size = batch->key.size};
  rc = zp_buf_append(&batch->bytes, batch->key.data, batch->key.size);
  if (rc) return rc;
  fresh.value = batch->bytes.size;
  if (value) {
    rc = encode_value(batch, L, key, value);
    if (rc) return rc;
    fresh.value_size = batch->bytes.size - fresh.value;
  }
  return zp_buf_append(&batch->entries, &fresh, sizeof fresh);
}

int zp_batch_add_bytes(zp_batch *batch, zp_bytes key, const zp_bytes *value) {
  entry fresh = {.key = batch->bytes.size, .key_size = key.size};
  int rc = zp_buf_append(&batch->bytes, key.data, key.size);
  if (rc) return rc;
  fresh.value = batch->bytes.size;
  if (value) {
    rc = zp_buf_append(&batch->bytes, value->data, value->size);
    if (rc) return rc;
    fresh.value_size = value->size;
  }
  return zp_buf_append(&batch->entries, &fresh, sizeof fresh);
}

zp_bytes zp_batch_last_value(const zp_batch *batch) {
  const entry *last = last_entry(batch);
  return (zp_bytes){batch->bytes.data + last->value, last->value_size};
}

void zp_batch_drop_last(zp_batch *batch) {
  batch->bytes.size = last_entry(batch)->key;
  batch->entries.size -= sizeof(entry);
}

zp_change *zp_batch_changes(zp_batch *batch) {
  size_t count = zp_batch_count(batch);
  batch->changes.size = 0;
  if (zp_buf_reserve(&batch->changes, (count ? count : 1) * sizeof(zp_change))) return NULL;
  zp_change *changes = (zp_change *)batch->changes.data;
  const entry *entries = (const entry *)batch->entries.data;
  for (size_t i = 0; i < count; i++) {
    const unsigned char *bytes = batch->bytes.data;
    changes[i].key = (zp_bytes){bytes + entries[i].key, entries[i].key_size};
    changes[i].value = (zp_bytes){entries[i].value_size ? bytes + entries[i].value : NULL, entries[i].value_size};
  }
  return changes;
}
