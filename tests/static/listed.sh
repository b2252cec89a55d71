#!/bin/sh
# No file is forgotten: every source is part of the build, and every test is run.
set -eu
. "$SRCDIR/tests/static/tap.sh"
cd "$SRCDIR"

cat Makefile.am src/*/layer.am lua/layer.am tests/layer.am | tr -s '[:space:]=:' '\n' | sort -u >"$scratch/listed"

all_listed() {
  find "$@" -type f | sort >"$scratch/there"
  # Something is wrong with the test if there is nothing to look at.
  [ -s "$scratch/there" ] && ! grep -v -x -F -f "$scratch/listed" "$scratch/there"
}

check 'every C file of src/' all_listed src -name '*.[ch]'
check 'every Lua file of lua/' all_listed lua -name '*.lua'
check 'every test in C' all_listed tests/unit tests/fault tests/fuzz -name '*.[ch]'
for kind in spec:lua cli:bats cli:sh fault:bats fault:sh fault:lua fuzz:lua static:sh; do
  dir=tests/${kind%:*}
  [ -n "$(find "$dir" -name "*.${kind#*:}" 2>/dev/null)" ] || continue
  check "every *.${kind#*:} of $dir" all_listed "$dir" -name "*.${kind#*:}"
done
finish
