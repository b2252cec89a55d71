#!/bin/sh
# The linter has nothing to say about our scripts.
set -eu
. "$SRCDIR/tests/static/tap.sh"

if ! command -v shellcheck >/dev/null; then
  echo '1..0 # SKIP shellcheck is not installed'
  exit 0
fi
cd "$SRCDIR"
for script in scripts/* .ci/run tests/run-* tests/log-driver tests/*/*.sh; do
  [ -f "$script" ] || continue
  case $script in
    *.*[!s]h) continue ;;
  esac
  head -n 1 "$script" | grep -q -e '^#!.*sh$' -e 'tap.sh' || continue
  check "$script" shellcheck -x -e SC2317,SC2329 -P "$SRCDIR" "$script"
done
check completion/zproc.bash shellcheck completion/zproc.bash
finish
