#!/bin/sh
# The linter has nothing to say about the manual page.
set -eu
. "$SRCDIR/tests/static/tap.sh"

silent() { # COMMAND...: it succeeds, and says nothing
  output=$("$@" 2>&1) || { echo "$output"; return 1; }
  [ -z "$output" ] || { echo "$output"; return 1; }
}

if ! command -v mandoc >/dev/null; then
  echo '1..0 # SKIP mandoc is not installed'
  exit 0
fi
check 'zproc.1 is in order' silent mandoc -T lint "$SRCDIR/docs/zproc.1"
printf '.Dd November 23, 2026\n.Dt X 1\n.Os\n.Sh NAME\n.Nm x\n.Nd y\n.Sh DESCRIPTION\n.It z\n' >"$scratch/wrong.1"
refuse 'what is not is found' 'It' silent mandoc -T lint "$scratch/wrong.1"
finish
