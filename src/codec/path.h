/*
 * path -- where in a value the encoder failed, for the sentence that a person reads.
 *
 * While a failure is handed up, each level adds the step that it took: innermost first. The path is put together at
 * the end: `state.jobs[3].file`, `argument 2, upvalue log of function at main.lua:7, field .file`. Steps that cannot
 * be added for want of memory are left out. Nothing here raises.
 */
#ifndef ZP_CODEC_PATH_H
#define ZP_CODEC_PATH_H

#include <lua.h>

#include "base/buf.h"
#include "codec/scratch.h"

void zp_path_add_index(zp_buf *path, lua_Integer index);
void zp_path_add_key(zp_buf *path, lua_State *L, const zp_item *key);
void zp_path_add_text(zp_buf *path, const char *text);

/* The step to an upvalue (1-based) of the function at idx. */
void zp_path_add_upvalue(zp_buf *path, lua_State *L, int idx, int upvalue);

/* Write "function at main.lua:7" for the function at idx. */
void zp_path_describe_function(lua_State *L, int idx, char *text, size_t size);

/* Fail with ZP_EENCODE and "ROOT PATH: DETAIL", where the detail is that of the present failure. */
int zp_path_fail(const zp_buf *path, const char *root);

#endif
