/*
 * secret -- memory for what nobody else is to read: it is not swapped out, and not in a core dump.
 *
 * Each piece has pages of its own. That they are locked in memory depends on RLIMIT_MEMLOCK, and a forked child has them unlocked; that they are in
 * no core dump holds for children, too. A program that the process executes has nothing of them.
 *
 * May be called by several threads at once. Errors: 0 or ZP_E* with detail. Never raises.
 */
#ifndef ZP_SYS_SECRET_H
#define ZP_SYS_SECRET_H

#include <stddef.h>

/* Zeroed memory; NULL, with detail, if there is none. */
void *zp_secret_new(size_t size);

/* Wipe it, and give it back; nothing for NULL. */
void zp_secret_free(void *memory, size_t size);

/* Overwrite what will not be needed again, wherever it is. */
void zp_secret_wipe(void *memory, size_t size);

/* Take a variable out of the environment of this process: its value, in memory of this kind, which the caller frees; its place is wiped. *value NULL: it
   is not set, or empty. ZP_ENOMEM: it stays. */
int zp_secret_take_variable(const char *name, char **value, size_t *size);

#endif
