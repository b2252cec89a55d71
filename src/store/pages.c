#include "store/pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

/* ---- the layout ---- */

enum {
  META_MAGIC = (int)0xBEEFC0DE,
  META_VERSION = 1,
  META_COUNT = 2,
  PAGE_MIN = 512,
  PAGE_MAX = 32768,
  KEY_MAX = 511,
  DEPTH_MAX = 32, /* of LMDB's cursors */
  BRANCH = 1,     /* kinds of pages */
  LEAF = 2,
  OVERFLOW = 4,
  META = 8,
  BIG = 1, /* flags of nodes: the value is on pages of its own */
  TREE = 2, /* the value is the head of a tree */
  INTEGER_KEYS = 8 /* flag of a tree */
};

#define NO_PAGE UINT64_MAX

typedef struct page_head {
  uint64_t number;
  uint16_t unused, kind;
  union {
    struct {
      uint16_t lower, upper; /* of the room between the places of nodes and the nodes */
    };
    uint32_t pages; /* of a run */
  };
} page_head;

typedef struct node_head {
  uint16_t low, high, flags, key_size;
} node_head;

typedef struct tree_head {
  uint32_t page_size; /* in the meta page, of the tree of free pages */
  uint16_t flags, depth;
  uint64_t branches, leaves, overflows, entries, root;
} tree_head;

typedef struct meta_page {
  uint32_t magic, version;
  uint64_t address, map_size;
  tree_head trees[2]; /* of free pages; of names */
  uint64_t last_page, transaction;
} meta_page;

_Static_assert(sizeof(page_head) == 16 && sizeof(node_head) == 8 && sizeof(tree_head) == 48 && sizeof(meta_page) == 136, "LMDB's layout");

static uint64_t child_of(const node_head *node) {
  return node->low | (uint64_t)node->high << 16 | (uint64_t)node->flags << 32;
}

static size_t size_of(const node_head *node) { return node->low | (size_t)node->high << 16; }

/* ---- reading ---- */

#define PAGE_FAIL(...) zp_fail(ZP_ESTORE, __VA_ARGS__)

static int read_at(int fd, void *to, size_t size, uint64_t offset) {
  unsigned char *bytes = to;
  while (size > 0) {
    ssize_t n = pread(fd, bytes, size, (off_t)offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return zp_fail_errno("cannot read it");
    if (n == 0) return PAGE_FAIL("it was cut at byte %llu", (unsigned long long)offset);
    bytes += n;
    size -= (size_t)n;
    offset += (uint64_t)n;
  }
  return 0;
}

static bool is_power_of_two(uint64_t number) { return number > 0 && (number & (number - 1)) == 0; }

static int read_meta(int fd, unsigned index, size_t page_size, meta_page *meta) {
  page_head head;
  int rc = read_at(fd, &head, sizeof head, index * page_size);
  if (!rc) rc = read_at(fd, meta, sizeof *meta, index * page_size + sizeof head);
  if (rc) return rc;
  if (head.kind != META || meta->magic != (uint32_t)META_MAGIC) return PAGE_FAIL("page %u is not the meta page of an LMDB file", index);
  if (meta->version != META_VERSION) return PAGE_FAIL("page %u is of version %u of LMDB's format, not %d", index, meta->version, META_VERSION);
  size_t size = meta->trees[0].page_size;
  if (size < PAGE_MIN || size > PAGE_MAX || !is_power_of_two(size)) return PAGE_FAIL("page %u says that pages have %zu bytes", index, size);
  return 0;
}

/* `pages`: those that are in the file. */
static int check_meta(const meta_page *meta, unsigned index, size_t page_size, uint64_t pages) {
  const tree_head *trees = meta->trees;
  if (trees[0].page_size != page_size) return PAGE_FAIL("its two meta pages have different page sizes");
  if (trees[0].flags != INTEGER_KEYS || trees[1].flags != 0) return PAGE_FAIL("page %u has flags that are not zproc's", index);
  if (meta->transaction > 0 && meta->transaction % META_COUNT != index) return PAGE_FAIL("page %u has the commit of the other meta page", index);
  if (meta->last_page < META_COUNT - 1 || meta->last_page >= UINT64_MAX / page_size - 1 || meta->last_page >= pages)
    return PAGE_FAIL("it was cut: it has %llu pages, and page %llu is in use", (unsigned long long)pages, (unsigned long long)meta->last_page);
  if (meta->map_size < (meta->last_page + 1) * page_size) return PAGE_FAIL("page %u has a size that is too small for what is in use", index);
  for (int i = 0; i < 2; i++)
    if (trees[i].root != NO_PAGE && (trees[i].root < META_COUNT || trees[i].root >= pages))
      return PAGE_FAIL("page %u has the root of a tree outside of the file", index);
  return 0;
}

/* Fields of a meta page that is being written are old ones and new ones, each of which is within the file: it grows before that. So
   its size is read last. */
static int read_newest(int fd, meta_page *newest, zp_pages_head *head) {
  meta_page metas[META_COUNT];
  struct stat status;
  int rc = read_meta(fd, 0, 0, &metas[0]);
  if (rc) return rc;
  size_t page_size = metas[0].trees[0].page_size;
  rc = read_meta(fd, 1, page_size, &metas[1]);
  if (!rc && fstat(fd, &status) < 0) rc = zp_fail_errno("cannot read it");
  for (unsigned i = 0; !rc && i < META_COUNT; i++) rc = check_meta(&metas[i], i, page_size, (uint64_t)status.st_size / page_size);
  if (rc) return rc;
  *newest = metas[metas[0].transaction < metas[1].transaction];
  *head = (zp_pages_head){page_size, newest->transaction, newest->last_page, (newest->last_page + 1) * page_size};
  return 0;
}

int zp_pages_read_head(int fd, zp_pages_head *head) {
  meta_page newest;
  return read_newest(fd, &newest, head);
}

/* ---- the walk ---- */

typedef struct walk {
  int fd;
  size_t page_size;
  uint64_t last_page;
  uint64_t *seen; /* a bit for each page */
  zp_pages_visitor *visit;
  void *context;
} walk;

struct zp_pages_value {
  const walk *walk;
  const unsigned char *data; /* on the leaf, or NULL: */
  uint64_t offset;           /* in the file */
  size_t size;
};

/* A tree that is being walked. */
typedef struct tree {
  walk *walk;
  zp_bytes name;
  bool is_free_list, is_names;
  const tree_head *head;
  uint64_t branches, leaves, overflows, entries;
  size_t low_size; /* of a key that all that follow are above */
  bool may_equal;  /* or equal to, once */
  unsigned char low[KEY_MAX];
  unsigned char *pages; /* one of memory for each level */
} tree;

static int take_page(walk *self, uint64_t number) {
  if (number < META_COUNT || number > self->last_page)
    return PAGE_FAIL("page %llu is asked for, but the last one is %llu", (unsigned long long)number, (unsigned long long)self->last_page);
  uint64_t bit = UINT64_C(1) << number % 64;
  if (self->seen[number / 64] & bit) return PAGE_FAIL("page %llu is used twice", (unsigned long long)number);
  self->seen[number / 64] |= bit;
  return 0;
}

static int compare_keys(const tree *self, const unsigned char *a, size_t a_size, const unsigned char *b, size_t b_size) {
  if (self->is_free_list) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
  }
  int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
  return order ? order : (a_size > b_size) - (a_size < b_size);
}

static int pass_key(tree *self, uint64_t number, const unsigned char *key, size_t size, bool is_separator) {
  if (size == 0 || size > KEY_MAX || (self->is_free_list && size != sizeof(uint64_t)))
    return PAGE_FAIL("page %llu has a key of %zu bytes", (unsigned long long)number, size);
  int order = self->low_size ? compare_keys(self, key, size, self->low, self->low_size) : 1;
  if (order < 0 || (order == 0 && !self->may_equal)) return PAGE_FAIL("the keys of page %llu do not ascend", (unsigned long long)number);
  memcpy(self->low, key, size);
  self->low_size = size;
  self->may_equal = is_separator;
  return 0;
}

/* Whether the nodes fill the page from `upper` to its end. Where each begins is marked; then each has to end where one begins, or the page
   does. */
static int check_nodes(const walk *self, const unsigned char *page, uint64_t number, size_t count, bool is_leaf) {
  uint64_t begins[PAGE_MAX / 2 / 64] = {0};
  const page_head *head = (const page_head *)page;
  const uint16_t *places = (const uint16_t *)(page + sizeof *head);
  size_t filled = 0;
  for (size_t i = 0; i < count; i++) {
    size_t place = places[i];
    if (place < head->upper || place % 2 != 0 || place + sizeof(node_head) > self->page_size) goto wrong;
    if (begins[place / 128] & UINT64_C(1) << place / 2 % 64) goto wrong;
    begins[place / 128] |= UINT64_C(1) << place / 2 % 64;
  }
  for (size_t i = 0; i < count; i++) {
    const node_head *node = (const node_head *)(page + places[i]);
    size_t size = sizeof *node + node->key_size;
    if (is_leaf) size += node->flags & BIG ? sizeof(uint64_t) : size_of(node);
    size += size % 2;
    size_t end = places[i] + size;
    if (end > self->page_size || (end < self->page_size && !(begins[end / 128] & UINT64_C(1) << end / 2 % 64))) goto wrong;
    filled += size;
  }
  if (filled == self->page_size - head->upper) return 0;
wrong:
  return PAGE_FAIL("the entries of page %llu are not in order", (unsigned long long)number);
}

/* Read a page of a tree, and look at all of it that has nothing to do with the others. */
static int read_page(tree *self, uint64_t number, unsigned char *page, bool is_leaf, size_t *count) {
  walk *at = self->walk;
  const page_head *head = (const page_head *)page;
  int rc = take_page(at, number);
  if (!rc) rc = read_at(at->fd, page, at->page_size, number * at->page_size);
  if (rc) return rc;
  if (head->number != number) return PAGE_FAIL("page %llu has the number %llu", (unsigned long long)number, (unsigned long long)head->number);
  if (head->kind != (is_leaf ? LEAF : BRANCH)) return PAGE_FAIL("page %llu is of the kind %x, not of a tree", (unsigned long long)number, head->kind);
  if (head->lower < sizeof *head || head->lower % 2 != 0 || head->lower > head->upper || head->upper > at->page_size)
    return PAGE_FAIL("page %llu has no beginning or no end", (unsigned long long)number);
  *count = (head->lower - sizeof *head) / 2;
  size_t least = is_leaf || self->is_free_list ? 1 : 2;
  if (*count < least) return PAGE_FAIL("page %llu has %zu entries", (unsigned long long)number, *count);
  return check_nodes(at, page, number, *count, is_leaf);
}

static int take_overflow(tree *self, uint64_t first, size_t size) {
  walk *at = self->walk;
  page_head head;
  size_t needed = (sizeof head + size - 1) / at->page_size + 1;
  if (first < META_COUNT || first > at->last_page) return take_page(at, first);
  int rc = read_at(at->fd, &head, sizeof head, first * at->page_size);
  if (rc) return rc;
  if (head.number != first || head.kind != OVERFLOW || head.pages < needed || head.pages > at->last_page - first + 1)
    return PAGE_FAIL("page %llu does not begin a value of %zu bytes", (unsigned long long)first, size);
  for (uint64_t number = first; !rc && number < first + head.pages; number++) rc = take_page(at, number);
  self->overflows += head.pages;
  return rc;
}

/* A record of the list of free pages: how many, and their numbers, the highest first. */
static int take_free(walk *self, const zp_pages_value *value) {
  zp_buf record = ZP_BUF_INIT;
  int rc = zp_pages_fetch(value, &record);
  uint64_t count = 0, number, above = NO_PAGE;
  if (!rc && record.size >= sizeof count) memcpy(&count, record.data, sizeof count);
  if (!rc && (record.size < sizeof count || record.size % sizeof count != 0 || count > record.size / sizeof count - 1))
    rc = PAGE_FAIL("a list of free pages is damaged");
  for (uint64_t i = 1; !rc && i <= count; i++) {
    memcpy(&number, record.data + i * sizeof number, sizeof number);
    if (number >= above) rc = PAGE_FAIL("a list of free pages is damaged");
    else rc = take_page(self, number);
    above = number;
  }
  zp_buf_free(&record);
  return rc;
}

static int walk_tree(walk *self, zp_bytes name, const tree_head *head, bool is_free_list, bool is_names);

static int take_entry(tree *self, uint64_t number, const node_head *node) {
  walk *at = self->walk;
  const unsigned char *key = (const unsigned char *)(node + 1);
  int rc = pass_key(self, number, key, node->key_size, false);
  if (rc) return rc;
  zp_pages_value value = {at, key + node->key_size, 0, size_of(node)};
  bool is_tree = node->flags == TREE && self->is_names && value.size == sizeof(tree_head);
  if (node->flags != 0 && node->flags != BIG && !is_tree) return PAGE_FAIL("page %llu has an entry of another kind", (unsigned long long)number);
  if (self->is_names && !is_tree) return PAGE_FAIL("page %llu has a name that is not a tree's", (unsigned long long)number);
  self->entries++;
  if (node->flags == BIG) {
    uint64_t first;
    memcpy(&first, value.data, sizeof first);
    rc = take_overflow(self, first, value.size);
    value.data = NULL;
    value.offset = first * at->page_size + sizeof(page_head);
  }
  if (rc) return rc;
  if (self->is_free_list) return take_free(at, &value);
  if (!is_tree) return at->visit(at->context, self->name, (zp_bytes){key, node->key_size}, value.size, &value);
  tree_head head;
  memcpy(&head, value.data, sizeof head);
  return walk_tree(at, (zp_bytes){key, node->key_size}, &head, false, false);
}

static int walk_page(tree *self, uint64_t number, unsigned level) {
  size_t page_size = self->walk->page_size, count = 0;
  unsigned char *page = self->pages + (level - 1) * page_size;
  bool is_leaf = level == self->head->depth;
  int rc = read_page(self, number, page, is_leaf, &count);
  if (rc) return rc;
  if (is_leaf) self->leaves++;
  else self->branches++;
  const uint16_t *places = (const uint16_t *)(page + sizeof(page_head));
  for (size_t i = 0; !rc && i < count; i++) {
    const node_head *node = (const node_head *)(page + places[i]);
    if (is_leaf) {
      rc = take_entry(self, number, node);
    } else {
      if (i > 0) rc = pass_key(self, number, (const unsigned char *)(node + 1), node->key_size, true); /* the first one's is of no account */
      if (!rc) rc = walk_page(self, child_of(node), level + 1);
    }
  }
  return rc;
}

static int walk_tree(walk *at, zp_bytes name, const tree_head *head, bool is_free_list, bool is_names) {
  if (head->root == NO_PAGE && head->entries == 0) return 0;
  if (head->root == NO_PAGE || head->depth == 0 || head->depth > DEPTH_MAX) return PAGE_FAIL("a tree has %u levels", head->depth);
  if (head->flags != (is_free_list ? INTEGER_KEYS : 0)) return PAGE_FAIL("a tree has flags that are not zproc's");
  tree self = {.walk = at, .name = name, .is_free_list = is_free_list, .is_names = is_names, .head = head};
  self.pages = malloc(head->depth * at->page_size);
  if (!self.pages) return zp_fail(ZP_ENOMEM, "out of memory: cannot check the data of a state");
  int rc = walk_page(&self, head->root, 1);
  free(self.pages);
  if (!rc && (self.branches != head->branches || self.leaves != head->leaves || self.overflows != head->overflows ||
              self.entries != head->entries))
    rc = PAGE_FAIL("a tree has %llu entries, and says that it has %llu", (unsigned long long)self.entries, (unsigned long long)head->entries);
  return rc;
}

int zp_pages_fetch(const zp_pages_value *value, zp_buf *out) {
  if (value->data) return zp_buf_append(out, value->data, value->size);
  int rc = zp_buf_reserve(out, value->size);
  if (!rc) rc = read_at(value->walk->fd, out->data + out->size, value->size, value->offset);
  if (!rc) out->size += value->size;
  return rc;
}

int zp_pages_walk(int fd, zp_pages_visitor *visit, void *context, zp_pages_head *head) {
  meta_page meta;
  int rc = read_newest(fd, &meta, head);
  if (rc) return rc;
  walk self = {fd, head->page_size, head->last_page, NULL, visit, context};
  self.seen = calloc(head->last_page / 64 + 1, sizeof *self.seen);
  if (!self.seen) return zp_fail(ZP_ENOMEM, "out of memory: cannot check the data of a state");
  rc = walk_tree(&self, (zp_bytes){"", 0}, &meta.trees[1], false, true);
  if (!rc) rc = walk_tree(&self, (zp_bytes){"", 0}, &meta.trees[0], true, false);
  free(self.seen);
  return rc;
}
