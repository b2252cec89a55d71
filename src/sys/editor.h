/*
 * editor -- lines from a terminal, with editing, history and completion: libedit or, where that is not there, readline.
 *
 * The library is loaded when the editor is opened, and never linked: a library that is mapped costs every fork the copying of its page
 * tables, and only `zproc repl` needs this one. There is one editor in a process, for standard input and output.
 *
 * The terminal is in the editor's hands only within zp_editor_read.
 *
 * History is kept in a file, line by line, each as it is entered; the file is for its owner alone. What goes wrong with it is not told:
 * it is only a convenience.
 *
 * Threads: for one thread. Fork: a child must not use it. Errors: 0 or ZP_E* with detail. Never raises, but see zp_editor_complete.
 */
#ifndef ZP_SYS_EDITOR_H
#define ZP_SYS_EDITOR_H

/* Called while a line is edited, when completion is asked for: give all words that the text, the word at the cursor, may become to
   zp_editor_offer. It must not jump out. */
typedef void zp_editor_complete(void *context, const char *text);

/* Offer a word, which is copied. Within zp_editor_complete. */
void zp_editor_offer(const char *word);

/* Load the library, and the history of the file (NULL: no history is kept). The locale of characters becomes that of the environment. ZP_ESYS
   if neither library is there. */
int zp_editor_open(const char *history_file);

/* Let the user edit a line. *line (caller frees) is what was entered, without its newline, or NULL at the end of input. `complete` may be
   NULL. ZP_EINTR if a signal has come that is to be taken (interrupt.h): what was typed is given up. */
int zp_editor_read(const char *prompt, zp_editor_complete *complete, void *context, char **line);

/* Add a line to the history. */
void zp_editor_note(const char *line);

#endif
