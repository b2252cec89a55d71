/*
 * A match walks along the pattern, which has no loops of its own, and keeps a trail of what it did at each part: which choices are left, and
 * which captures it opened and closed. Where it cannot go on it goes back along the trail to the last choice. So the trail is never longer
 * than the pattern, and nothing here calls itself.
 */
#include "vm/pattern.h"

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <lauxlib.h>

#include "vm/budget.h"

enum { CAPTURES = 32 /* LUA_MAXCAPTURES */, SHORT_PATTERN = 40, ESCAPE = '%' };

/* Lengths of captures that are none. */
#define OPEN ((ptrdiff_t)-1)  /* it was not closed yet */
#define PLACE ((ptrdiff_t)-2) /* it is a position */

typedef struct capture {
  const char *start;
  ptrdiff_t length;
} capture;

/* One thing that was done. */
typedef struct trace {
  enum { MOST, LEAST, ONE, OPENED, CLOSED } kind;
  const char *s;    /* where its part begins in the subject; of LEAST: where it ends by now */
  const char *p;    /* of LEAST: the part */
  const char *next; /* what follows the part in the pattern */
  size_t count;     /* of MOST: how many characters it takes */
  size_t least;     /* of MOST: and no fewer than these; of CLOSED: which capture */
} trace;

typedef struct matcher {
  lua_State *L;
  zp_budget *budget;
  const char *subject, *subject_end;
  const char *pattern, *pattern_end;
  int level; /* captures, closed or not */
  capture captures[CAPTURES];
  size_t depth; /* of the trail */
  trace *trail;
  trace few[SHORT_PATTERN];
} matcher;

/* ---- single characters ---- */

static unsigned char byte_at(const char *at) { return *(const unsigned char *)at; }

/* The end of the part for one character that begins at p: a character, a class or a set. */
static const char *end_of_single(matcher *m, const char *p) {
  char c = *p++;
  if (c == ESCAPE) {
    if (p == m->pattern_end) luaL_error(m->L, "malformed pattern (ends with '%%')");
    return p + 1;
  }
  if (c != '[') return p;
  if (p < m->pattern_end && *p == '^') p++;
  bool first = true; /* a bracket in the first place stands for itself */
  for (; p < m->pattern_end && (first || *p != ']'); first = false) p += *p == ESCAPE && p + 1 < m->pattern_end ? 2 : 1;
  if (p >= m->pattern_end) luaL_error(m->L, "malformed pattern (missing ']')");
  return p + 1;
}

static bool is_of_class(int c, int letter) {
  bool is;
  switch (tolower(letter)) {
    case 'a': is = isalpha(c); break;
    case 'c': is = iscntrl(c); break;
    case 'd': is = isdigit(c); break;
    case 'g': is = isgraph(c); break;
    case 'l': is = islower(c); break;
    case 'p': is = ispunct(c); break;
    case 's': is = isspace(c); break;
    case 'u': is = isupper(c); break;
    case 'w': is = isalnum(c); break;
    case 'x': is = isxdigit(c); break;
    default: return c == letter;
  }
  return isupper(letter) ? !is : is;
}

/* Whether a character is in the set from p, its '[', to before end, behind its ']'. */
static bool is_in_set(int c, const char *p, const char *end) {
  const char *last = end - 1;
  bool inside = p[1] != '^';
  for (p += inside ? 1 : 2; p < last; p++) {
    if (*p == ESCAPE && p + 1 < last) {
      if (is_of_class(c, byte_at(++p))) return inside;
    } else if (p + 2 < last && p[1] == '-') {
      if (byte_at(p) <= c && c <= byte_at(p + 2)) return inside;
      p += 2;
    } else if (byte_at(p) == c) {
      return inside;
    }
  }
  return !inside;
}

/* Whether the character at s is there, and is one of those from p to before end. */
static bool fits(const matcher *m, const char *s, const char *p, const char *end) {
  if (s >= m->subject_end) return false;
  switch (*p) {
    case '.': return true;
    case ESCAPE: return is_of_class(byte_at(s), byte_at(p + 1));
    case '[': return is_in_set(byte_at(s), p, end);
    default: return *p == *s;
  }
}

/* ---- the trail ---- */

static trace *leave(matcher *m, trace what) {
  trace *at = &m->trail[m->depth++];
  *at = what;
  return at;
}

/* Go back to the last choice that is left and take it: true with where to go on. */
static bool go_back(matcher *m, const char **s, const char **p) {
  while (m->depth > 0) {
    trace *last = &m->trail[m->depth - 1];
    switch (last->kind) {
      case OPENED: m->level--; break;
      case CLOSED: m->captures[last->least].length = OPEN; break;
      case ONE: /* without it */
        *s = last->s;
        *p = last->next;
        m->depth--;
        return true;
      case MOST: /* one fewer */
        if (last->count <= last->least) break;
        *s = last->s + --last->count;
        *p = last->next;
        return true;
      case LEAST: /* one more */
        if (!fits(m, last->s, last->p, last->next - 1)) break;
        *s = ++last->s;
        *p = last->next;
        return true;
    }
    m->depth--;
  }
  return false;
}

/* ---- the parts of a pattern: each gives where it ends in the subject, NULL if it does not match ---- */

static void open_capture(matcher *m, const char *s, ptrdiff_t length) {
  if (m->level >= CAPTURES) luaL_error(m->L, "too many captures");
  m->captures[m->level++] = (capture){s, length};
  leave(m, (trace){.kind = OPENED});
}

static void close_capture(matcher *m, const char *s) {
  int which = m->level - 1;
  while (which >= 0 && m->captures[which].length != OPEN) which--;
  if (which < 0) luaL_error(m->L, "invalid pattern capture");
  m->captures[which].length = s - m->captures[which].start;
  leave(m, (trace){.kind = CLOSED, .least = (size_t)which});
}

/* %1: what was captured, once more. */
static const char *match_again(matcher *m, const char *s, char digit) {
  int which = digit - '1';
  if (which < 0 || which >= m->level || m->captures[which].length == OPEN)
    luaL_error(m->L, "invalid capture index %%%d", which + 1);
  ptrdiff_t length = m->captures[which].length;
  if (length == PLACE) return NULL;
  zp_budget_spend(m->budget, 1 + (size_t)length / 64);
  return m->subject_end - s >= length && memcmp(m->captures[which].start, s, (size_t)length) == 0 ? s + length : NULL;
}

/* %bxy */
static const char *match_balanced(matcher *m, const char *s, const char *p) {
  if (m->pattern_end - p < 2) luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
  if (s >= m->subject_end || *s != p[0]) return NULL;
  size_t depth = 1;
  while (++s < m->subject_end) {
    zp_budget_spend(m->budget, 1);
    if (*s == p[1]) {
      if (--depth == 0) return s + 1;
    } else if (*s == p[0]) {
      depth++;
    }
  }
  return NULL;
}

/* %f[set]: the border of what is in the set. */
static bool is_border(const matcher *m, const char *s, const char *p, const char *end) {
  int before = s == m->subject ? '\0' : byte_at(s - 1), after = s < m->subject_end ? byte_at(s) : '\0';
  return !is_in_set(before, p, end) && is_in_set(after, p, end);
}

/* A part for one character, with what may follow it to say how many. Gives where to go on in the pattern, too. */
static const char *match_single(matcher *m, const char *s, const char **pattern) {
  const char *p = *pattern, *end = end_of_single(m, p);
  char suffix = end < m->pattern_end ? *end : '\0';
  size_t cost = *p == '[' ? (size_t)(end - p) : 1, count = 0, least = suffix == '+';
  switch (suffix) {
    case '*':
    case '+':
      while (fits(m, s + count, p, end)) {
        count++;
        zp_budget_spend(m->budget, cost);
      }
      *pattern = end + 1;
      if (count < least) return NULL;
      if (count > least) leave(m, (trace){.kind = MOST, .s = s, .next = *pattern, .count = count, .least = least});
      return s + count;
    case '-':
      *pattern = end + 1;
      leave(m, (trace){.kind = LEAST, .s = s, .p = p, .next = *pattern});
      return s;
    case '?':
      *pattern = end + 1;
      if (!fits(m, s, p, end)) return s;
      leave(m, (trace){.kind = ONE, .s = s, .next = *pattern});
      return s + 1;
    default:
      *pattern = end;
      return fits(m, s, p, end) ? s + 1 : NULL;
  }
}

/* Match one part of the pattern, and move on in it. */
static const char *match_part(matcher *m, const char *s, const char **pattern) {
  const char *p = *pattern;
  if (*p == '(') {
    bool is_place = p + 1 < m->pattern_end && p[1] == ')';
    open_capture(m, s, is_place ? PLACE : OPEN);
    *pattern = p + (is_place ? 2 : 1);
    return s;
  }
  if (*p == ')') {
    close_capture(m, s);
    *pattern = p + 1;
    return s;
  }
  if (*p == '$' && p + 1 == m->pattern_end) {
    *pattern = p + 1;
    return s == m->subject_end ? s : NULL;
  }
  char escaped = *p == ESCAPE && p + 1 < m->pattern_end ? p[1] : '\0';
  if (escaped == 'b') {
    *pattern = p + 4;
    return match_balanced(m, s, p + 2);
  }
  if (escaped == 'f') {
    p += 2;
    if (p >= m->pattern_end || *p != '[') luaL_error(m->L, "missing '[' after '%%f' in pattern");
    *pattern = end_of_single(m, p);
    return is_border(m, s, p, *pattern) ? s : NULL;
  }
  if (escaped >= '0' && escaped <= '9') {
    *pattern = p + 2;
    return match_again(m, s, escaped);
  }
  return match_single(m, s, pattern);
}

/* ---- a whole pattern ---- */

/* Match from s on: the end of the match, or NULL. */
static const char *match(matcher *m, const char *s) {
  const char *p = m->pattern;
  m->level = 0;
  m->depth = 0;
  for (;;) {
    if (p == m->pattern_end) return s;
    zp_budget_spend(m->budget, *p == '[' ? 8 : 1);
    s = match_part(m, s, &p);
    if (!s && !go_back(m, &s, &p)) return NULL;
  }
}

/* Leaves a value on the stack that belongs to the matcher. */
static void prepare(matcher *m, lua_State *L, const char *subject, size_t subject_size, const char *pattern, size_t pattern_size) {
  m->L = L;
  m->budget = zp_budget_of(L);
  m->subject = subject;
  m->subject_end = subject + subject_size;
  m->pattern = pattern;
  m->pattern_end = pattern + pattern_size;
  m->level = 0;
  m->trail = m->few;
  if (pattern_size > SHORT_PATTERN) m->trail = lua_newuserdatauv(L, pattern_size * sizeof *m->trail, 0);
  else lua_pushnil(L);
}

static void push_capture(matcher *m, int which, const char *s, const char *end) {
  if (which >= m->level) {
    if (which != 0) luaL_error(m->L, "invalid capture index %%%d", which + 1);
    lua_pushlstring(m->L, s, (size_t)(end - s));
    return;
  }
  const capture *found = &m->captures[which];
  if (found->length == OPEN) luaL_error(m->L, "unfinished capture");
  if (found->length == PLACE) lua_pushinteger(m->L, found->start - m->subject + 1);
  else lua_pushlstring(m->L, found->start, (size_t)found->length);
}

/* The captures; or, where the pattern has none, the whole match from s to end. With s NULL: nothing then. */
static int push_captures(matcher *m, const char *s, const char *end) {
  int count = m->level == 0 && s ? 1 : m->level;
  luaL_checkstack(m->L, count, "too many captures");
  for (int i = 0; i < count; i++) push_capture(m, i, s, end);
  return count;
}

/* ---- find and match ---- */

/* Where to begin, counted from 0; beyond the size if there is nothing. */
static size_t first_of(lua_State *L, int index, size_t size) {
  lua_Integer first = luaL_optinteger(L, index, 1);
  if (first > 0) return (size_t)first - 1;
  if (first == 0 || first < -(lua_Integer)size) return 0;
  return size - (size_t)-first;
}

static bool is_plain(const char *pattern, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (pattern[i] && strchr("^$*+?.([%-", pattern[i])) return false;
  return true;
}

static int search(lua_State *L, bool find) {
  size_t size, pattern_size;
  const char *subject = luaL_checklstring(L, 1, &size), *pattern = luaL_checklstring(L, 2, &pattern_size);
  size_t first = first_of(L, 3, size);
  if (first > size) {
    luaL_pushfail(L);
    return 1;
  }
  if (find && (lua_toboolean(L, 4) || is_plain(pattern, pattern_size))) {
    zp_budget_spend(zp_budget_of(L), 1 + (size - first) / 16);
    const char *found = pattern_size ? memmem(subject + first, size - first, pattern, pattern_size) : subject + first;
    if (!found) {
      luaL_pushfail(L);
      return 1;
    }
    lua_pushinteger(L, found - subject + 1);
    lua_pushinteger(L, found - subject + (lua_Integer)pattern_size);
    return 2;
  }
  matcher m;
  bool is_anchored = pattern_size > 0 && *pattern == '^';
  prepare(&m, L, subject, size, pattern + is_anchored, pattern_size - is_anchored);
  for (const char *s = subject + first; s <= m.subject_end; s++) {
    const char *end = match(&m, s);
    if (end && find) {
      lua_pushinteger(L, s - subject + 1);
      lua_pushinteger(L, end - subject);
      return 2 + push_captures(&m, NULL, NULL);
    }
    if (end) return push_captures(&m, s, end);
    if (is_anchored) break;
  }
  luaL_pushfail(L);
  return 1;
}

static int string_find(lua_State *L) { return search(L, true); }
static int string_match(lua_State *L) { return search(L, false); }

/* ---- gmatch ---- */

enum { UP_SUBJECT = 1, UP_PATTERN, UP_FROM /* counted from 0 */, UP_LAST /* the end of the last match; -1: none */ };

static void set_place(lua_State *L, int which, ptrdiff_t place) {
  lua_pushinteger(L, place);
  lua_replace(L, lua_upvalueindex(which));
}

static int next_match(lua_State *L) {
  matcher m;
  size_t size, pattern_size;
  const char *subject = lua_tolstring(L, lua_upvalueindex(UP_SUBJECT), &size);
  const char *pattern = lua_tolstring(L, lua_upvalueindex(UP_PATTERN), &pattern_size);
  size_t from = (size_t)lua_tointeger(L, lua_upvalueindex(UP_FROM));
  lua_Integer last = lua_tointeger(L, lua_upvalueindex(UP_LAST));
  prepare(&m, L, subject, size, pattern, pattern_size);
  for (; from <= size; from++) {
    const char *end = match(&m, subject + from);
    if (!end || end - subject == last) continue; /* nothing matches right behind a match */
    set_place(L, UP_FROM, end - subject);
    set_place(L, UP_LAST, end - subject);
    return push_captures(&m, subject + from, end);
  }
  set_place(L, UP_FROM, (ptrdiff_t)size + 1);
  return 0;
}

static int string_gmatch(lua_State *L) {
  size_t size;
  luaL_checklstring(L, 1, &size);
  luaL_checkstring(L, 2);
  size_t first = first_of(L, 3, size);
  lua_settop(L, 2);
  lua_pushinteger(L, (lua_Integer)(first > size ? size + 1 : first));
  lua_pushinteger(L, -1);
  lua_pushcclosure(L, next_match, 4);
  return 1;
}

/* ---- gsub ---- */

/* Add the replacement's string, with %0 to %9 and %% in it. */
static void add_string(matcher *m, luaL_Buffer *out, const char *s, const char *end) {
  size_t size;
  lua_State *L = m->L;
  const char *text = lua_tolstring(L, 3, &size), *text_end = text + size;
  zp_budget_spend(m->budget, 1 + size / 16);
  while (text < text_end) {
    const char *escape = memchr(text, ESCAPE, (size_t)(text_end - text));
    if (!escape) escape = text_end;
    luaL_addlstring(out, text, (size_t)(escape - text));
    if (escape == text_end) return;
    char c = escape + 1 < text_end ? escape[1] : '\0';
    text = escape + 2;
    if (c == ESCAPE) {
      luaL_addchar(out, ESCAPE);
    } else if (c == '0') {
      luaL_addlstring(out, s, (size_t)(end - s));
    } else if (isdigit((unsigned char)c)) {
      push_capture(m, c - '1', s, end);
      luaL_tolstring(L, -1, NULL);
      lua_remove(L, -2);
      luaL_addvalue(out);
    } else {
      luaL_error(L, "invalid use of '%c' in replacement string", ESCAPE);
    }
  }
}

/* Add what replaces a match; whether that is something else. */
static bool add_replacement(matcher *m, luaL_Buffer *out, const char *s, const char *end) {
  lua_State *L = m->L;
  switch (lua_type(L, 3)) {
    case LUA_TFUNCTION:
      lua_pushvalue(L, 3);
      lua_call(L, push_captures(m, s, end), 1);
      break;
    case LUA_TTABLE:
      push_capture(m, 0, s, end);
      lua_gettable(L, 3);
      break;
    default: add_string(m, out, s, end); return true;
  }
  if (!lua_toboolean(L, -1)) {
    lua_pop(L, 1);
    luaL_addlstring(out, s, (size_t)(end - s));
    return false;
  }
  if (!lua_isstring(L, -1)) luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
  luaL_addvalue(out);
  return true;
}

static int string_gsub(lua_State *L) {
  size_t size, pattern_size;
  const char *subject = luaL_checklstring(L, 1, &size), *pattern = luaL_checklstring(L, 2, &pattern_size);
  int kind = lua_type(L, 3);
  luaL_argexpected(L, kind == LUA_TNUMBER || kind == LUA_TSTRING || kind == LUA_TFUNCTION || kind == LUA_TTABLE, 3, "string/function/table");
  lua_Integer most = luaL_optinteger(L, 4, (lua_Integer)size + 1), count = 0;
  bool is_anchored = pattern_size > 0 && *pattern == '^', has_changed = false;
  matcher m;
  luaL_Buffer out;
  lua_settop(L, 3);
  prepare(&m, L, subject, size, pattern + is_anchored, pattern_size - is_anchored);
  luaL_buffinit(L, &out);
  const char *s = subject, *last = NULL;
  while (count < most) {
    const char *end = match(&m, s);
    if (end && end != last) {
      count++;
      has_changed = add_replacement(&m, &out, s, end) || has_changed;
      s = last = end;
    } else if (s < m.subject_end) {
      luaL_addchar(&out, *s++);
    } else {
      break;
    }
    if (is_anchored) break;
  }
  if (has_changed) {
    luaL_addlstring(&out, s, (size_t)(m.subject_end - s));
    luaL_pushresult(&out);
  } else {
    lua_pushvalue(L, 1);
  }
  lua_pushinteger(L, count);
  return 2;
}

static const luaL_Reg functions[] = {
    {"find", string_find}, {"match", string_match}, {"gmatch", string_gmatch}, {"gsub", string_gsub}, {NULL, NULL},
};

void zp_pattern_open(lua_State *L) { luaL_setfuncs(L, functions, 0); }
