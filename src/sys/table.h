/*
 * table -- the processes of a server, in shared memory: who runs, who has ended and how.
 *
 * A table is a file of one directory, mapped by whoever needs it: a header and ZP_TABLE_SLOTS slots, each with a row
 * about one process. The row is claimed by the parent before the fork, started after it, and ended when the parent reaps.
 * The child itself writes only how often it has tried. A process that no zproc process has started (a script, the server)
 * enlists itself.
 *
 * Invariants:
 *   1. A slot has one control word of 64 bits: generation, pid, a value, and the phase. All changes of it are by
 *      compare-and-swap, so there is no lock that a killed process could hold. The generation goes up by one with each
 *      claim.
 *   2. The rest of the row is written only by the claimer, while the phase is CLAIMED, but for the number of tries, which
 *      is one word. It does not change until the next claim. So a reader that finds the same generation before and after
 *      copying a row, and a phase beyond CLAIMED after it, has a whole one.
 *   3. A handle (zp_table_row) names slot and generation. What is done with one whose slot was claimed anew since does
 *      nothing.
 *   4. A slot can be claimed if it is free, if its process has ended, if its process is there no more without anybody
 *      having seen its end, or if its claimer died before the start. Else it is never taken from anybody.
 *
 * Finding a slot. First come those that were never used, by a counter; then the ended ones, the one that ended first
 * coming first, so that ends stay readable for as long as possible. These stand in a queue that is a hint only: whoever
 * is killed between two steps loses an entry of it, whoever takes one checks the slot's word. When it is empty, all slots
 * are looked at for what is reusable in truth (4 above), at most once a second if that finds nothing. Then the table is
 * full: the process is started all the same, it is just not listed.
 *
 * Who is it? A pid is given again. The start time that the kernel keeps (/proc/PID/stat) would tell, but reading it at
 * each start costs more than all the rest here. So a row has the boot-time clock before the fork, and the word, in
 * hundredths of a second, how much later it was after it: a process with that pid that the kernel started later than that
 * is another one. Readers compare; a start only reads the clock. If the start took ten seconds (the machine was asleep,
 * say) the pid alone has to do. A claimer is known by its pid alone: one that was killed within the claim, and whose pid
 * was given to somebody, leaves the slot unusable for as long as that one lives.
 *
 * All processes must see the same pids: the table is for those of the PID namespace of its maker.
 *
 * Fork: a child goes on with the mapping, and knows its own row by the handle that it inherits. Threads: all functions
 * may be called at once, as long as the table has a holder. Errors: 0 or ZP_E*. zp_table_start and zp_table_end are
 * async-signal-safe.
 */
#ifndef ZP_SYS_TABLE_H
#define ZP_SYS_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"

typedef struct zp_table zp_table;

enum { ZP_TABLE_SLOTS = 4096, ZP_TABLE_NAME_SIZE = 88 /* with the NUL */ };

/* A handle to a row; all zero: not listed, and everything that is done with it does nothing. It is valid as long as the
   table has a holder. */
typedef struct zp_table_row {
  struct zp_table_file *file;
  uint32_t index, generation;
} zp_table_row;

typedef enum zp_process_state {
  ZP_PROCESS_RUNNING,
  ZP_PROCESS_RETRYING, /* asleep before the next try */
  ZP_PROCESS_EXITED,
  ZP_PROCESS_GONE /* it is there no more, and nobody saw its end */
} zp_process_state;

typedef struct zp_process {
  uint64_t order;  /* a later start has a higher number: the boot-time clock, in nanoseconds */
  double started;  /* seconds since the epoch */
  pid_t pid, parent;
  zp_process_state state;
  unsigned tries;
  int exitcode; /* of an EXITED one: its exit status, or -N after signal N */
  char name[ZP_TABLE_NAME_SIZE];
} zp_process;

/* Make the table's file (allocated in full, so that using it cannot fail for want of space). ZP_EFULL, ZP_ESYS, ZP_EELSEWHERE. */
int zp_table_create(const char *directory);

/* Map the table of a directory, for one holder. ZP_ENOSTORE if there is none, ZP_EELSEWHERE if it is of another PID namespace. */
int zp_table_open(const char *directory, zp_table **table);

/* One more holder, who closes it, too: for rows that are needed longer than whoever has opened the table. */
zp_table *zp_table_keep(zp_table *table);

/* Let go of it; it is unmapped with the last holder. Nulls, may be called twice. */
void zp_table_close(zp_table **table);

/* Let go of the file and its memory while handles to rows may still be in use: what is done with them from here on does
   nothing. */
void zp_table_detach(zp_table *table);

/* A row for a process that this one is about to fork. All zero if the table is full. A name that is too long loses its
   beginning. */
zp_table_row zp_table_claim(zp_table *table, const char *name);

/* It was not forked after all. */
void zp_table_withdraw(zp_table_row row);

/* It runs. Called by the parent after the fork; a child that wants to be sure to be listed calls it too, with its own
   pid. The later one does nothing. */
void zp_table_start(zp_table_row row, pid_t pid);

/* It has ended; also if it was not marked as started yet. */
void zp_table_end(zp_table_row row, pid_t pid, int exitcode);

/* In the process: this is its try number `tries`, the first is 1; `asleep`: it waits before the next one. */
void zp_table_note_try(zp_table_row row, unsigned tries, bool asleep);

/* List this very process, which no zproc process has started. All zero if it is in the table already, or the table is
   full. */
zp_table_row zp_table_enlist(zp_table *table, const char *name);

/* Append a zp_process for every row to `out`, in the order of their starts. 0 or ZP_ENOMEM. */
int zp_table_list(zp_table *table, zp_buf *out);

/* How many threads of the processes that run wait for a change (bell.h); -1 if there is no memory for it, or the kernel does not tell. */
int zp_table_count_waiting(zp_table *table);

#endif
