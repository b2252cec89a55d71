/*
 * shared -- files of a fixed size in a server's directory that every process maps: memory that all have in common.
 *
 * Every byte of the file is allocated when it is made, so that using it cannot fail for want of space. A mapping that was inherited by
 * fork goes on working. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SYS_SHARED_H
#define ZP_SYS_SHARED_H

#include <stddef.h>

/* Make the file, or take over one that is there: what is new of it is zero. ZP_EFULL, ZP_ESYS. */
int zp_shared_create(const char *directory, const char *name, size_t size);

/* Map it for reading and writing. ZP_ENOSTORE if there is none; ZP_ESTORE if it has another size. */
int zp_shared_open(const char *directory, const char *name, size_t size, void **map);

void zp_shared_close(void *map, size_t size); /* NULL: nothing */

#endif
