/*
 * create -- making an empty store in a directory.
 *
 * `control` is put in place last, by rename: what a creator left that was killed before is no store, and the next one
 * starts over. A lock on the directory itself keeps two creators apart.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/random.h"
#include "store/handle.h"
#include "sys/allocate.h"
#include "sys/dirlock.h"
#include "sys/trust.h"

enum { DEFAULT_REVISIONS = 200000, DEFAULT_BYTES = 64 << 20 };

static const char DATA[] = "data.mdb"; /* which may be a link to where the data are */

static int fail_code(const char *directory, int code, const char *what) {
  if (zp_is_full(code) || code == MDB_MAP_FULL) {
    char place[PATH_MAX];
    const char *where = strcmp(what, DATA) == 0 ? zp_env_data_directory(directory, place) : directory;
    return zp_fail(ZP_EFULL, "cannot make a store: no space left in %s", where);
  }
  if (code < 0) return zp_fail(ZP_ESTORE, "cannot make a store in %s: %s: %s", directory, what, mdb_strerror(code));
  errno = code;
  return zp_fail_errno("cannot make a store in %s: %s", directory, what);
}

/* The number by which a state is known, whichever server it has: that of the data, or a new one. 0 or a code. */
static int know_identity(MDB_txn *txn, bool is_new, uint64_t *identity) {
  MDB_dbi about;
  MDB_val key = {sizeof "identity" - 1, "identity"}, value;
  int rc = mdb_dbi_open(txn, "about", MDB_CREATE, &about);
  if (!rc) rc = is_new ? MDB_NOTFOUND : mdb_get(txn, about, &key, &value);
  if (!rc && value.mv_size == sizeof *identity) memcpy(identity, value.mv_data, sizeof *identity);
  if (rc != MDB_NOTFOUND) return rc;
  if (*identity == 0) *identity = zp_random_number();
  value = (MDB_val){sizeof *identity, identity};
  return mdb_put(txn, about, &key, &value, 0);
}

/* Without WRITEMAP, so that LMDB writes by system calls, which fail properly where there is no space. In data that are there already
   nothing changes but, if it is a new state, its identity. *oldest: the oldest revision that is kept. */
static int make_trees(const char *directory, off_t size, bool is_new, uint64_t *oldest, uint64_t *identity) {
  MDB_env *mdb;
  MDB_txn *txn = NULL;
  MDB_cursor *cursor;
  MDB_dbi tree;
  zp_log_span span;
  int rc = mdb_env_create(&mdb);
  if (rc) return fail_code(directory, rc, "mdb_env_create");
  rc = mdb_env_set_maxdbs(mdb, 4);
  if (!rc) rc = mdb_env_set_maxreaders(mdb, ZP_STORE_READERS);
  if (!rc) rc = mdb_env_set_mapsize(mdb, size > ZP_STORE_INITIAL_SIZE ? (size_t)size : ZP_STORE_INITIAL_SIZE);
  if (!rc) rc = mdb_env_open(mdb, directory, MDB_NOSYNC | MDB_NOTLS, 0600);
  if (!rc) rc = mdb_txn_begin(mdb, NULL, 0, &txn);
  if (!rc) rc = mdb_dbi_open(txn, "namespaces", MDB_CREATE, &tree);
  if (!rc) rc = mdb_dbi_open(txn, "versions", MDB_CREATE, &tree);
  if (!rc) rc = mdb_dbi_open(txn, "log", MDB_CREATE, &tree);
  if (!rc) rc = mdb_cursor_open(txn, tree, &cursor);
  if (!rc) {
    rc = zp_log_span_find(cursor, &span);
    *oldest = span.oldest;
    mdb_cursor_close(cursor);
  }
  if (!rc) rc = know_identity(txn, is_new, identity);
  if (!rc) {
    rc = mdb_txn_commit(txn);
    txn = NULL;
  }
  if (txn) mdb_txn_abort(txn);
  mdb_env_close(mdb);
  return rc ? fail_code(directory, rc, DATA) : 0;
}

/* Put a link to the data in the directory. *size: how long they are; 0: new. */
static int place_data(int directory_fd, const char *directory, const char *data_file, off_t *size) {
  int fd = open(data_file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return zp_fail_errno("cannot open %s", data_file);
  struct stat status;
  int code = fstat(fd, &status) < 0 ? errno : 0, rc = code ? 0 : zp_trust_check(&status, ZP_TRUST_PRIVATE, data_file);
  *size = status.st_size;
  close(fd);
  if (code) return fail_code(directory, code, data_file);
  if (rc) return rc;
  if (symlinkat(data_file, directory_fd, DATA) < 0) return zp_fail_errno("cannot make a store in %s", directory);
  return 0;
}

static int allocate(int directory_fd, const char *directory, const char *file, off_t size, int flags, int *out) {
  int fd = openat(directory_fd, file, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0600);
  if (fd < 0) return fail_code(directory, errno, file);
  int code = zp_allocate(fd, 0, size);
  if (code || !out) close(fd);
  else *out = fd;
  return code ? fail_code(directory, code, file) : 0;
}

static int make_control(int directory_fd, const char *directory, const zp_store_limits *limits, bool is_synced, uint64_t oldest,
                        uint64_t identity) {
  int fd = -1;
  struct stat data;
  if (fstatat(directory_fd, DATA, &data, 0) < 0) return fail_code(directory, errno, DATA);
  uint64_t born = zp_files_birth(directory_fd, DATA);
  int rc = allocate(directory_fd, directory, "control.new", sizeof(zp_control), O_NOFOLLOW, &fd);
  if (rc) return rc;
  zp_control *control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  int number = errno;
  close(fd);
  if (control == MAP_FAILED) return fail_code(directory, number, "control");
  memcpy(control->magic, ZP_STORE_MAGIC, sizeof control->magic);
  control->format = ZP_STORE_FORMAT;
  control->size = sizeof *control;
  control->limits.keep_revisions = limits && limits->keep_revisions ? limits->keep_revisions : DEFAULT_REVISIONS;
  control->limits.keep_bytes = limits && limits->keep_bytes ? limits->keep_bytes : DEFAULT_BYTES;
  control->is_synced = is_synced;
  control->identity = identity;
  control->data_device = data.st_dev;
  control->data_inode = data.st_ino;
  control->data_owner = data.st_uid;
  control->data_born = born;
  /* What was given up before is not known in detail. */
  for (int place = 0; place < ZP_STORE_PLACES; place++) {
    atomic_store(&control->trimmed[place], oldest);
    atomic_store(&control->forgotten[place], oldest);
  }
  rc = zp_alive_read_space(&control->space);
  if (!rc) rc = zp_env_init_writer_lock(control);
  munmap(control, sizeof *control);
  if (!rc && renameat(directory_fd, "control.new", directory_fd, "control") < 0)
    rc = fail_code(directory, errno, "control");
  return rc;
}

static void remove_parts(int directory_fd) {
  unlinkat(directory_fd, "control.new", 0);
  unlinkat(directory_fd, DATA, 0);
  unlinkat(directory_fd, "lock.mdb", 0);
  unlinkat(directory_fd, "bell", 0);
}

int zp_store_create(const char *directory, const zp_store_limits *limits) { return zp_store_create_at(directory, limits, NULL); }

int zp_store_create_at(const char *directory, const zp_store_limits *limits, const zp_store_place *place) {
  int fd = -1;
  if (zp_dirlock_take(directory, ZP_FOREVER, &fd)) return zp_fail_errno("cannot make a store in %s", directory);
  int rc = 0;
  struct stat status; /* not faccessat, for which libc makes a call that older filters of containers do not permit */
  if (fstatat(fd, "control", &status, 0) == 0) {
    rc = zp_fail(ZP_ESTORE, "there is a store in %s already", directory);
    goto out;
  }
  remove_parts(fd);
  off_t size = 0;
  uint64_t oldest = 0, identity = 0;
  rc = zp_env_allocate_lock_file(directory);
  if (!rc && place) rc = place_data(fd, directory, place->data_file, &size);
  if (!rc) rc = make_trees(directory, size, place && place->is_rolled_back, &oldest, &identity);
  if (!rc && size < ZP_STORE_INITIAL_SIZE) rc = allocate(fd, directory, DATA, ZP_STORE_INITIAL_SIZE, place ? 0 : O_NOFOLLOW, NULL);
  if (!rc) rc = zp_bell_create(directory);
  if (!rc) rc = make_control(fd, directory, limits, place && place->is_synced, oldest, identity);
  if (rc) remove_parts(fd);
out:
  zp_dirlock_release(fd);
  return rc;
}
