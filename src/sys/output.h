/*
 * output -- standard output and standard error of processes that share them: lines stay whole.
 *
 * stdout and stderr are replaced by streams that write to the same descriptors. Once there are several processes, or threads, what they
 * write goes out under a lock that all have in common, in whole lines: what is behind the last newline waits for the rest of its line.
 * It goes out unfinished if it is flushed explicitly (a prompt, a progress bar), when its writer waits for something (standard error, of
 * which nobody thinks that it has to be flushed), when its writer ends by itself, or when it is too long to be kept.
 *
 * A line goes out as soon as it is complete, to pipes and files as to a terminal: its writer may be killed at the next instant. That takes a
 * call of the system for each line, which is what Lua's print has always taken. A script that would rather have a block written at once
 * asks for that with setvbuf.
 *
 * The lock is a robust mutex: a process that is killed while it writes holds nobody up, and one that is stopped does for a second.
 *
 * Where nobody reads, a write waits; a caught signal (interrupt.h) ends that wait. What is left is written before what comes next, or when the
 * process ends, unless a signal comes then, too.
 *
 * With labels each line begins with the name and the pid of the process that wrote it.
 *
 * Fork: zp_output_prepare_fork has to come before. Threads: each has streams of its own, so
 * that lines of two threads do not mix either. Errors: as stdio reports them. Never raises.
 */
#ifndef ZP_SYS_OUTPUT_H
#define ZP_SYS_OUTPUT_H

#include <stdbool.h>
#include <stdio.h>

/* Before anything else: see to it that the descriptors 0, 1 and 2 are taken. Where one is closed, the next file that is opened would get its
   number, a state's for example, and what is printed would be written into it. Reading and writing there fails as before (EBADF). */
void zp_output_reserve(void);

/* Replace stdout and stderr. Early in main, before anything has learnt what they are. If there is no memory for it they stay as they
   are. */
void zp_output_open(void);

/* From here on there is more than one who writes. Called before each start of a thread; cheap but for the first time. */
void zp_output_share(void);

/* The same before each fork: write all that is finished, so that it does not appear twice. An unfinished line stays the parent's, except
   on a terminal, where it is written: it may be a question. */
void zp_output_prepare_fork(void);

/* Write all that waits: what stdio holds back, and unfinished lines of this thread. */
void zp_output_flush(void);

/* Write unfinished lines of this thread's standard error. Cheap where there are none. */
void zp_output_flush_errors(void);

/* Begin each line with a label from here on, in this process and those that it starts. */
void zp_output_enable_labels(void);

/* The name that stands in the label of this thread's lines, with the pid; copied, and cut if it is long. Without labels nothing is
   done. */
void zp_output_set_name(const char *name);

/* In a new thread: streams of its own, until zp_output_leave_thread. Without memory for them it uses those of the process. */
void zp_output_enter_thread(void);
void zp_output_leave_thread(void);

/* In a forked child. In a host that keeps its own streams these write line by line from here on. */
void zp_output_enter_child(void);

/* The error number of the first write to standard output that has failed, by this thread's stream; 0: none. */
int zp_output_failure(void);

/* The same, by the process's own stream or by any process or thread that shares the descriptors. */
int zp_output_common_failure(void);

/* The streams of this thread. */
FILE *zp_output_stdout(void);
FILE *zp_output_stderr(void);

#endif
