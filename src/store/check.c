#include "store/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/sum.h"
#include "store/handle.h"
#include "store/key.h"
#include "store/pages.h"
#include "sys/trust.h"

typedef struct place {
  uint64_t id, count, live;
} place;

typedef struct checking {
  zp_check *found;
  bool has_log, has_namespaces, has_versions;
  uint64_t first, total; /* of the log: its first revision, the total of the last one */
  zp_buf namespaces;     /* of place */
  bool are_sorted;
  zp_buf record;
  uint64_t expected_count, expected_sum; /* versions, by the log: how many, and the sum of what each is */
  uint64_t met_count, met_sum;
  size_t key_size; /* of the last version, without its revision */
  unsigned char key[ZP_VKEY_MAX];
} checking;

/* The record before these may be half trimmed, and the versions of its revision with it (trim.c). */
static bool is_compared(const checking *self, uint64_t revision) { return revision > self->first + 1; }

static uint64_t version_sum(const void *key, size_t size, uint64_t revision) { return zp_sum_mix(zp_sum_of(key, size), revision); }

static bool is_named(zp_bytes bytes, const char *name) { return bytes.size == strlen(name) && memcmp(bytes.data, name, bytes.size) == 0; }

/* ---- the trees ---- */

static int see_about(checking *self, zp_bytes key, size_t size, const zp_pages_value *value) {
  if (!is_named(key, "identity")) return 0;
  if (size != sizeof self->found->identity) return zp_fail(ZP_ESTORE, "it has no identity");
  zp_buf_clear(&self->record, 0);
  int rc = zp_pages_fetch(value, &self->record);
  if (!rc) memcpy(&self->found->identity, self->record.data, size);
  return rc;
}

static int fail_record(uint64_t revision) {
  return zp_fail(ZP_ESTORE, "the record of revision %llu is damaged", (unsigned long long)revision);
}

/* The versions that a record names. */
static int expect_versions(checking *self, uint64_t revision, const zp_log_head *head) {
  zp_bytes keys = {self->record.data + sizeof *head, self->record.size - sizeof *head}, key;
  zp_vkey vkey;
  uint32_t count = 0;
  for (size_t offset = 0; zp_log_step(keys, &offset, &key); count++) {
    if (zp_vkey_make(&vkey, head->namespace_id, key)) return fail_record(revision);
    if (!is_compared(self, revision)) continue;
    self->expected_count++;
    self->expected_sum += version_sum(vkey.bytes, vkey.prefix, revision);
  }
  return count == head->key_count ? 0 : fail_record(revision);
}

static int see_record(checking *self, zp_bytes key, size_t size, const zp_pages_value *value) {
  zp_log_head head;
  if (key.size != sizeof(uint64_t)) return zp_fail(ZP_ESTORE, "its log has a key of %zu bytes", key.size);
  uint64_t revision = zp_get_be64(key.data);
  if (revision == 0) return size == sizeof(uint64_t) ? 0 : fail_record(revision); /* how far trimming has got */
  if (size < sizeof head) return fail_record(revision);
  zp_buf_clear(&self->record, 1 << 16);
  int rc = zp_pages_fetch(value, &self->record);
  if (rc) return rc;
  memcpy(&head, self->record.data, sizeof head);
  if (self->first == 0) self->first = revision;
  else if (revision != self->found->newest + 1) return zp_fail(ZP_ESTORE, "revision %llu follows %llu", (unsigned long long)revision, (unsigned long long)self->found->newest);
  if (head.author == 0 || head.namespace_id == 0 || head.total <= self->total) return fail_record(revision);
  self->total = head.total;
  self->found->newest = revision;
  return expect_versions(self, revision, &head);
}

static int see_namespace(checking *self, zp_bytes key, size_t size, const zp_pages_value *value) {
  zp_namespace namespace;
  if (size != sizeof namespace) return zp_fail(ZP_ESTORE, "a namespace is damaged");
  zp_buf_clear(&self->record, 1 << 16);
  int rc = zp_pages_fetch(value, &self->record);
  if (rc) return rc;
  memcpy(&namespace, self->record.data, sizeof namespace);
  if (key.size > 255 || memchr(key.data, 0, key.size)) return zp_fail(ZP_ESTORE, "a namespace is damaged");
  place fresh = {namespace.id, namespace.count, 0};
  return zp_buf_append(&self->namespaces, &fresh, sizeof fresh);
}

static int compare_places(const void *a, const void *b) {
  const place *x = a, *y = b;
  return (x->id > y->id) - (x->id < y->id);
}

/* Their numbers are 1, 2, 3, ... */
static int sort_namespaces(checking *self) {
  place *places = (place *)(void *)self->namespaces.data;
  size_t count = self->namespaces.size / sizeof *places;
  self->are_sorted = true;
  if (count > 0) qsort(places, count, sizeof *places, compare_places);
  for (size_t i = 0; i < count; i++)
    if (places[i].id != i + 1) return zp_fail(ZP_ESTORE, "its namespaces are not in order");
  return 0;
}

static int fail_version(void) { return zp_fail(ZP_ESTORE, "a version of a key is damaged"); }

/* Whether a key without its revision is one that zp_vkey_make could have made. */
static bool is_vkey(const unsigned char *bytes, size_t prefix) {
  size_t end = prefix - ZP_VKEY_END;
  if (bytes[end] != 0 || bytes[end + 1] != 1) return false;
  for (size_t i = ZP_VKEY_NAMESPACE; i < end; i++) {
    if (bytes[i] != 0) continue;
    if (++i >= end || bytes[i] != 0xff) return false;
  }
  return true;
}

static int see_version(checking *self, zp_bytes key, size_t size) {
  const unsigned char *bytes = key.data;
  if (key.size < ZP_VKEY_NAMESPACE + ZP_VKEY_END + ZP_VKEY_REVISION || key.size > ZP_VKEY_MAX) return fail_version();
  if (!self->are_sorted) {
    int rc = sort_namespaces(self);
    if (rc) return rc;
  }
  size_t prefix = key.size - ZP_VKEY_REVISION;
  uint64_t id = zp_get_be32(bytes), revision = zp_vkey_revision(bytes, key.size);
  if (id == 0 || id > self->namespaces.size / sizeof(place) || !is_vkey(bytes, prefix)) return fail_version();
  if (revision == 0 || revision > self->found->newest) return fail_version();
  bool is_current = prefix != self->key_size || memcmp(bytes, self->key, prefix) != 0;
  if (is_current) {
    memcpy(self->key, bytes, prefix);
    self->key_size = prefix;
    if (size > 0) ((place *)(void *)self->namespaces.data)[id - 1].live++;
  }
  if (!is_compared(self, revision)) return 0;
  self->met_count++;
  self->met_sum += version_sum(bytes, prefix, revision);
  return 0;
}

static int see(void *context, zp_bytes tree, zp_bytes key, size_t size, const zp_pages_value *value) {
  checking *self = context;
  if (is_named(tree, "log")) return see_record(self, key, size, value);
  if (is_named(tree, "namespaces")) return see_namespace(self, key, size, value);
  if (is_named(tree, "versions")) return see_version(self, key, size);
  return is_named(tree, "about") ? see_about(self, key, size, value) : 0;
}

/* What can be told only at the end. */
static int conclude(checking *self) {
  int rc = self->are_sorted ? 0 : sort_namespaces(self);
  if (rc) return rc;
  const place *places = (const place *)(const void *)self->namespaces.data;
  for (size_t i = 0; i < self->namespaces.size / sizeof *places; i++)
    if (places[i].count != places[i].live)
      return zp_fail(ZP_ESTORE, "a namespace has %llu keys, and says that it has %llu", (unsigned long long)places[i].live, (unsigned long long)places[i].count);
  if (self->expected_count != self->met_count || self->expected_sum != self->met_sum)
    return zp_fail(ZP_ESTORE, "its log and its keys are of different commits");
  self->found->oldest = self->first;
  return 0;
}

/* ---- files ---- */

/* Put the name of the file before what is wrong with it. */
static int name_file(int rc, const char *path) {
  if (rc == ZP_ESTORE) return zp_fail(rc, "%s is damaged: %s", path, zp_error_detail());
  if (rc == ZP_ESYS) return zp_fail(rc, "%s: %s", path, zp_error_detail());
  return rc;
}

int zp_check_open(const char *path, mode_t closed, int *out) {
  struct stat status;
  *out = -1;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* what is a pipe by mistake is not waited for */
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) return zp_fail(ZP_ENOSTORE, "%s is missing", path);
  if (fd < 0) return zp_fail_errno("cannot read %s", path);
  int rc = fstat(fd, &status) < 0 ? zp_fail_errno("cannot read %s", path) : 0;
  if (!rc && !S_ISREG(status.st_mode)) rc = zp_fail(ZP_ESTORE, "%s is no file, but %s", path, S_ISDIR(status.st_mode) ? "a directory" : "something else");
  if (!rc) rc = zp_trust_check(&status, closed, path);
  if (rc) close(fd);
  else *out = fd;
  return rc;
}

int zp_check_file(int fd, const char *path, zp_check *found) {
  *found = (zp_check){0};
  zp_pages_head head;
  checking self = {.found = found};
  int rc = zp_pages_walk(fd, see, &self, &head);
  if (!rc) rc = conclude(&self);
  found->used_bytes = head.used_bytes;
  zp_buf_free(&self.namespaces);
  zp_buf_free(&self.record);
  return name_file(rc, path);
}

int zp_check_data(const char *path, zp_check *found) {
  int fd = -1;
  int rc = zp_check_open(path, ZP_TRUST_PRIVATE, &fd);
  if (rc) return rc;
  rc = zp_check_file(fd, path, found);
  close(fd);
  return rc;
}

int zp_check_sum(int fd, const char *path, uint64_t size, uint64_t *sum) {
  enum { PIECE = 1 << 20 };
  unsigned char *piece = malloc(PIECE);
  if (!piece) return zp_fail(ZP_ENOMEM, "out of memory: cannot check %s", path);
  zp_sum adding;
  zp_sum_begin(&adding);
  int rc = 0;
  for (uint64_t done = 0; !rc && done < size;) {
    ssize_t n = pread(fd, piece, size - done < PIECE ? (size_t)(size - done) : PIECE, (off_t)done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) rc = zp_fail_errno("cannot read %s", path);
    else if (n == 0) rc = zp_fail(ZP_ESTORE, "%s is damaged: it was cut at byte %llu of %llu", path, (unsigned long long)done, (unsigned long long)size);
    if (rc) break;
    zp_sum_add(&adding, piece, (size_t)n);
    done += (uint64_t)n;
  }
  free(piece);
  *sum = zp_sum_end(&adding);
  return rc;
}

int zp_check_head(int fd, const char *path) {
  zp_pages_head head;
  return name_file(zp_pages_read_head(fd, &head), path);
}
