#!/bin/sh
# What is installed is hardened, and scripts/check-hardening finds what is not.
set -eu
. "$SRCDIR/tests/static/tap.sh"

built=${ZPROC%/*}
if [ -n "${ASAN_OPTIONS-}${TSAN_OPTIONS-}" ]; then
  echo '1..0 # SKIP sanitizers look after memory in their own way'
  exit 0
fi
if ! command -v readelf >/dev/null; then
  echo '1..0 # SKIP readelf is not installed'
  exit 0
fi
check 'the executable is hardened' "$SRCDIR/scripts/check-hardening" "$ZPROC"
check 'the module is hardened' "$SRCDIR/scripts/check-hardening" "$built/.libs/zproc.so"

cat >"$scratch/soft.c" <<'C'
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv) { char text[64]; strcpy(text, argv[argc - 1]); puts(text); return 0; }
C
soft() { # what is the matter, options of the compiler
  what=$1
  shift
  gcc -w -O2 -fPIE -pie -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -Wl,-z,relro,-z,now "$@" "$scratch/soft.c" -o "$scratch/soft"
  refuse "what $what is found" "not ok [0-9]* - soft: $what" "$SRCDIR/scripts/check-hardening" "$scratch/soft"
}
if command -v gcc >/dev/null; then
  gcc -w -O2 -fPIE -pie -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -Wl,-z,relro,-z,now "$scratch/soft.c" -o "$scratch/soft"
  check 'a small program that is hardened passes' "$SRCDIR/scripts/check-hardening" "$scratch/soft"
  soft 'is at no fixed place' -no-pie -fno-pie
  soft 'cannot execute its stack' -Wl,-z,execstack
  soft 'has tables that are closed' -Wl,-z,norelro
  soft 'binds all symbols' -Wl,-z,lazy
  soft 'watches over frames' -fno-stack-protector
  soft 'watches over sizes' -U_FORTIFY_SOURCE
fi
finish
