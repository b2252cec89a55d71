/*
 * procfile -- what the kernel tells in small files: /proc, /sys.
 *
 * Threads: any. Never raises.
 */
#ifndef ZP_SYS_PROCFILE_H
#define ZP_SYS_PROCFILE_H

#include <stddef.h>

/* What is in it, as text, names the boot of the machine: two processes that read the same are on one machine that has run since. */
#define ZP_PROCFILE_BOOT "/proc/sys/kernel/random/boot_id"

/* Read a file into so many bytes of text, the last of which is a zero: as much as it gives at once, which of such files is all that fits.
   Returns how many bytes were read; 0, and an empty text, if it cannot be read. */
size_t zp_procfile_read(const char *path, char *text, size_t size);

#endif
