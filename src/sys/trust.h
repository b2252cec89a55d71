/*
 * trust -- whose files and processes this process uses: those of its own user, and of users that it was told to trust.
 *
 * Who can write what a process reads of a state can run code in that process (docs/security.md). So a directory, a file, a socket or a link
 * that an address, a variable or a name leads to is looked at before it is used: its owner has to be trusted, and nobody else may be able
 * to write it. It is the opened file that is looked at, never a name: between a look at a name and its opening the name can be given to
 * another file.
 *
 * root is trusted by nobody but itself here, apart from the links and directories that lead somewhere: root's own files would be
 * closed to others anyway.
 *
 * Users are trusted by the whole process, and by what it forks from then on: a trusted user can run code in it. All functions may be called by
 * several threads at once. Errors: 0 or ZP_E* with detail; ZP_EAUTH names the owner. Never raises.
 */
#ifndef ZP_SYS_TRUST_H
#define ZP_SYS_TRUST_H

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

enum {
  ZP_TRUST_PRIVATE = 077, /* what nobody else may do with it: nothing at all */
  ZP_TRUST_UNWRITABLE = 022,
  ZP_TRUST_NAME_SIZE = 80
};

/* Trust a user from now on, named or by number. ZP_EUSAGE if there is none. */
int zp_trust_user(const char *name);

/* Leave word in a private directory of whom this process trusts; trust those of whom word was left there: for programs that it executes. The first gives 0
   or an error; without word there is nobody. */
int zp_trust_leave(const char *directory);
void zp_trust_find(const char *directory);

/* Whether this process trusts what the user owns. */
bool zp_trust_is(uid_t user);

/* The same for links and directories that lead somewhere: those of the system (of root, mostly) count as well. */
bool zp_trust_leads(uid_t user);

/* A user for a person to read: "mallory (uid 1001)". */
const char *zp_trust_name(uid_t user, char name[ZP_TRUST_NAME_SIZE]);

/* ZP_EAUTH, in words: `what` belongs to a user that is not trusted. */
int zp_trust_fail(const char *what, uid_t owner);

/* Whether what was opened may be used: trusted, and without the rights `closed` (of others and of the group). `path` is for messages. */
int zp_trust_check(const struct stat *opened, mode_t closed, const char *path);

/* Open a directory that may be used, for what is in it. ZP_ENOSTORE if there is none, ZP_EAUTH, ZP_ESYS. The caller owns *fd. */
int zp_trust_open_directory(const char *path, mode_t closed, int *fd);

/* Open a file in such a directory that nobody else can write or read; symbolic links are refused. `directory` is for messages. ZP_ENOSTORE if it
   is not there. */
int zp_trust_open_at(int directory_fd, const char *directory, const char *name, int flags, int *fd);

/* The same by the path of the directory, which has to be private. */
int zp_trust_open(const char *directory, const char *name, int flags, int *fd);

/* Find the server at the path of an address: the directory of its socket `name`, without links. Each link on the way has to be of a trusted user or
   of the system, the directory private and of a trusted user. ZP_ENOSTORE if nothing is there, ZP_EUSAGE if it is something else, ZP_EAUTH,
   ZP_ESYS. */
int zp_trust_follow(const char *path, const char *name, char directory[PATH_MAX]);

#endif
