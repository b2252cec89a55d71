#!/bin/sh
# scripts/embed carries files of any bytes into an executable.
set -eu
. "$SRCDIR/tests/static/tap.sh"
embed=$SRCDIR/scripts/embed

cat >"$scratch/show.c" <<'END'
#include <stdio.h>
#include <string.h>
#include "bind/embedded.h"
int main(int argc, char **argv) {
  for (const struct zp_embedded *m = zp_embedded_modules; m->name != NULL; m++)
    if (argc > 1 && strcmp(m->name, argv[1]) == 0) return fwrite(m->source, 1, m->size, stdout) != m->size;
  return 3;
}
END

awk 'BEGIN { for (i = 0; i < 256; i++) printf "\\%03o", i }' >"$scratch/octal"
# The file is a format on purpose: that is how printf makes any byte.
# shellcheck disable=SC2059
printf "$(cat "$scratch/octal")" >"$scratch/all bytes=1"
cat "$scratch/all bytes=1" "$scratch/all bytes=1" "$scratch/all bytes=1" >"$scratch/repeated"
: >"$scratch/empty"
printf 'no newline at the end' >"$scratch/text"

build() {
  "$embed" all="$scratch/all bytes=1" rep.eated="$scratch/repeated" empty="$scratch/empty" text="$scratch/text" >"$scratch/embedded.c" &&
    ${CC:-cc} -std=c11 -Wall -Wextra -Werror -I"$SRCDIR/src" -o "$scratch/show" "$scratch/embedded.c" "$scratch/show.c"
}
same() { "$scratch/show" "$1" | cmp - "$2"; }

check 'what it writes compiles' build
check 'every byte survives' same all "$scratch/all bytes=1"
check 'repeated lines survive' same rep.eated "$scratch/repeated"
check 'an empty file stays empty' same empty "$scratch/empty"
check 'nothing is added to a last line' same text "$scratch/text"
refuse 'a missing file is an error' 'cannot read' "$embed" x="$scratch/nothing"
refuse 'a name that is no string literal is an error' 'not a module' "$embed" 'a"b'="$scratch/text"
finish
