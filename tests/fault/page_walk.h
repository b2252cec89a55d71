/*
 * page_walk -- account for every page of a data file: each is a meta page, in a tree, or free, and none is two of these.
 *
 * It knows the format of LMDB 0.9 files, of 64-bit little-endian machines, by itself: LMDB would not notice that a page it uses is on its list of
 * free pages as well. Nobody writes to the file meanwhile. Returns NULL, or a sentence about the first thing that is wrong.
 */
#ifndef ZP_TESTS_PAGE_WALK_H
#define ZP_TESTS_PAGE_WALK_H

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store_check.h"

enum {
  WALK_HEAD = 16,
  WALK_BRANCH = 1,
  WALK_LEAF = 2,
  WALK_OVERFLOW = 4,
  WALK_META = 8,
  WALK_BIG = 1, /* of a node: its value is on pages of its own */
  WALK_TREE = 2 /* its value is a tree */
};

typedef struct walked_tree {
  uint32_t pad;
  uint16_t flags, depth;
  uint64_t branches, leaves, overflows, entries, root;
} walked_tree;

typedef struct walked_meta {
  uint32_t magic, version;
  uint64_t address, mapsize;
  walked_tree free, main;
  uint64_t last, txnid;
} walked_meta;

typedef struct walk {
  const unsigned char *file;
  size_t page_size;
  uint64_t last;   /* page that was ever used */
  char *what;      /* [page] t: of a tree, l: of the tree of free ones, o: of a value, f: free, 0: not met yet */
  const char *wrong;
} walk;

static const unsigned char *walk_page(const walk *w, uint64_t page) { return w->file + page * w->page_size; }

static uint64_t walk_number(const void *at, size_t size) {
  uint64_t number = 0;
  memcpy(&number, at, size);
  return number;
}

static int walk_mark(walk *w, uint64_t page, uint64_t count, char what) {
  for (; count > 0 && !w->wrong; page++, count--) {
    if (page < 2 || page > w->last)
      w->wrong = check_says("page %llu (%c) is not one of %llu", (unsigned long long)page, what, (unsigned long long)w->last + 1);
    else if (w->what[page])
      w->wrong = check_says("page %llu is %c and %c", (unsigned long long)page, w->what[page], what);
    else
      w->what[page] = what;
  }
  return !w->wrong;
}

/* `is_free_list`: the tree of free pages, each value of which is a list of them. */
static void walk_tree(walk *w, uint64_t page, unsigned depth, int is_free_list) {
  if (depth > 64) w->wrong = "a tree has no end";
  if (w->wrong || !walk_mark(w, page, 1, is_free_list ? 'l' : 't')) return;
  const unsigned char *at = walk_page(w, page);
  unsigned flags = (unsigned)walk_number(at + 10, 2), count = ((unsigned)walk_number(at + 12, 2) - WALK_HEAD) / 2;
  if (walk_number(at, 8) != page)
    w->wrong = check_says("page %llu says it is %llu", (unsigned long long)page, (unsigned long long)walk_number(at, 8));
  else if (!(flags & (WALK_BRANCH | WALK_LEAF)) || count > w->page_size / 2)
    w->wrong = check_says("page %llu of a tree is of kind %x", (unsigned long long)page, flags);
  for (unsigned i = 0; i < count && !w->wrong; i++) {
    const unsigned char *node = at + walk_number(at + WALK_HEAD + 2 * i, 2);
    if (node + 8 > at + w->page_size) {
      w->wrong = check_says("page %llu has a node outside of it", (unsigned long long)page);
      return;
    }
    uint64_t low = walk_number(node, 4), node_flags = walk_number(node + 4, 2);
    const unsigned char *value = node + 8 + walk_number(node + 6, 2);
    if (flags & WALK_BRANCH) {
      walk_tree(w, low | node_flags << 32, depth + 1, is_free_list);
      continue;
    }
    if (node_flags & WALK_BIG) {
      uint64_t own = walk_number(value, 8), pages = own <= w->last ? walk_number(walk_page(w, own) + 12, 4) : 0;
      if (!walk_mark(w, own, pages ? pages : 1, 'o')) return;
      if (pages * w->page_size < low + WALK_HEAD)
        w->wrong = check_says("a value of %llu bytes has %llu pages", (unsigned long long)low, (unsigned long long)pages);
      value = walk_page(w, own) + WALK_HEAD;
    }
    if (is_free_list) {
      uint64_t pages = walk_number(value, 8);
      if ((pages + 1) * 8 > low) w->wrong = "a list of free pages is longer than its value";
      for (uint64_t n = 1; n <= pages && !w->wrong; n++) walk_mark(w, walk_number(value + 8 * n, 8), 1, 'f');
    } else if (node_flags & WALK_TREE) {
      walked_tree tree;
      memcpy(&tree, value, sizeof tree);
      if (tree.root != UINT64_MAX) walk_tree(w, tree.root, depth + 1, 0);
    }
  }
}

static const char *walk_pages(const char *data_file) {
  struct stat status;
  walk w = {.page_size = (size_t)sysconf(_SC_PAGESIZE)};
  int fd = open(data_file, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &status) < 0) return "cannot open the data file";
  w.file = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (w.file == MAP_FAILED) return "cannot map the data file";
  walked_meta metas[2];
  for (int i = 0; i < 2; i++) memcpy(&metas[i], walk_page(&w, (uint64_t)i) + WALK_HEAD, sizeof metas[i]);
  const walked_meta *meta = &metas[metas[0].txnid < metas[1].txnid];
  w.last = meta->last;
  if (meta->magic != 0xBEEFC0DE || (w.last + 1) * w.page_size > (uint64_t)status.st_size) w.wrong = "no meta page of an LMDB 0.9 file";
  w.what = calloc(w.last + 1, 1);
  if (!w.wrong && meta->free.root != UINT64_MAX) walk_tree(&w, meta->free.root, 0, 1);
  if (!w.wrong && meta->main.root != UINT64_MAX) walk_tree(&w, meta->main.root, 0, 0);
  for (uint64_t page = 2; page <= w.last && !w.wrong; page++)
    if (!w.what[page]) w.wrong = check_says("page %llu is neither used nor free", (unsigned long long)page);
  free(w.what);
  munmap((void *)w.file, (size_t)status.st_size);
  return w.wrong;
}

#endif
