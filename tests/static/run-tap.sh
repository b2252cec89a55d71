#!/bin/sh
# What holds every other test to account does so: tests/run-tap and tests/run-spec, together with automake's driver.
set -eu
. "$SRCDIR/tests/static/tap.sh"

# The results that `make check` would count for a command.
results() {
  "$SRCDIR/tests/log-driver" "$SRCDIR/build-aux/tap-driver.sh" --test-name t --log-file "$scratch/log" --trs-file "$scratch/trs" \
    --color-tests no --enable-hard-errors yes --expect-failure no -- "$SRCDIR/tests/run-tap" "$@" >"$scratch/console" 2>&1 || return
  sed -n 's/^:test-result: //p' "$scratch/trs"
}
gives() { # wanted results, command
  wanted=$1
  shift
  got=$(results "$@" | tr '\n' ' ')
  echo "wanted: $wanted; got: $got; log:"
  cat "$scratch/log"
  [ "$got" = "$wanted " ]
}
logged() { grep -q -e "$1" "$scratch/log" || { cat "$scratch/log"; return 1; }; }
spec() { # text, wanted results: the text as a busted spec
  printf '%s\n' "$1" >"$scratch/x_spec.lua"
  gives "$2" "$SRCDIR/tests/run-spec" "$scratch/x_spec.lua"
}
# The single tests must not be those of this very run.
unset ASAN_OPTIONS UBSAN_OPTIONS ZP_VALGRIND
ZP_TEST_TIMEOUT=1
export ZP_TEST_TIMEOUT

check 'success' gives 'PASS PASS' sh -c 'echo ok 1; echo ok 2; echo 1..2'
check 'a failure counts once, whatever the exit status' gives 'PASS FAIL' sh -c 'echo 1..2; echo ok 1; echo not ok 2; exit 1'
check 'a skip' gives 'SKIP' sh -c 'echo "ok 1 # SKIP not here"; echo 1..1'
check 'a skip as cmocka tells it' gives 'SKIP' sh -c 'echo 1..1; echo "not ok 1 # SKIP name"'
check 'a reason to skip all' gives 'SKIP' sh -c 'echo "1..0 # SKIP not here"'
check 'no test at all is an error' gives 'ERROR' sh -c 'echo 1..0'
check 'no output is an error' gives 'ERROR' true
check 'a plan that is not kept is an error' gives 'PASS ERROR' sh -c 'echo 1..2; echo ok 1'
check 'a crash is an error' gives 'PASS ERROR ERROR' sh -c 'echo 1..2; echo ok 1; kill -SEGV $$'
check 'a status other than 0 is an error' gives 'PASS ERROR' sh -c 'echo 1..1; echo ok 1; exit 3'
check 'a command that is not there is an error' gives 'ERROR ERROR' "$scratch/nothing"
check 'a test that does not end is an error' gives 'PASS ERROR' sh -c 'echo 1..1; echo ok 1; sleep 5'
check 'and is said to have been stopped' logged 'stopped after more than 1 s'
ASAN_OPTIONS=detect_leaks=0
export ASAN_OPTIONS
# The inner shell is to expand it.
# shellcheck disable=SC2016
check 'what a sanitizer reports is an error, whichever process it is about' \
  gives 'PASS ERROR' sh -c 'echo 1..1; echo ok 1; echo out of bounds >"${ASAN_OPTIONS#*:log_path=}.77"'
check 'and is in the log' logged 'out of bounds'
unset ASAN_OPTIONS
cat >"$scratch/valgrind" <<'END'
#!/bin/sh
echo "${COMPLAINT---77-- an unknown system call}" >"${1#--log-file=}"
shift
exec "$@"
END
chmod +x "$scratch/valgrind"
ZP_VALGRIND=$scratch/valgrind
export ZP_VALGRIND
check 'what valgrind says of itself is none' gives 'PASS' sh -c 'echo 1..1; echo ok 1'
COMPLAINT='==77== uninitialised'
export COMPLAINT
check 'what it complains about is an error' gives 'PASS ERROR' sh -c 'echo 1..1; echo ok 1'
check 'and is in the log' logged '==77== uninitialised'
unset ZP_VALGRIND COMPLAINT
check 'a process that stays is an error' gives 'PASS ERROR' sh -c 'echo 1..1; echo ok 1; sleep 77 & '
check 'and is named' logged 'left running: .*sleep 77'

if command -v busted >/dev/null; then
  ZP_TEST_TIMEOUT=30
  check 'a spec that holds' spec 'it("a", function() assert.is_true(true) end)' PASS
  check 'a spec that fails' spec 'it("a", function() error("reason of the failure") end) it("b", function() end)' 'FAIL PASS'
  check 'its message is in the log' logged 'reason of the failure'
  check 'and its traceback' logged 'x_spec.lua:1'
  check 'a spec without a test is an error' spec 'describe("a", function() end)' ERROR
  check 'a spec that does not load fails' spec 'it("a" oops' FAIL
  check 'and the reason is in the log' logged 'near .oops'
  check 'a spec that raises while loading fails' spec 'describe("a", function() error "early" end)' FAIL
  check 'a setup that fails fails' spec 'describe("a", function() setup(function() assert.is_true(false, "late") end) it("b", function() end) end)' 'FAIL'
  check 'and the reason is in the log' logged 'late'
  check 'a spec that is not there fails' gives 'FAIL FAIL' "$SRCDIR/tests/run-spec" "$scratch/nothing_spec.lua"
  check 'a spec that ends its process is an error' spec 'it("a", function() os.exit(0) end)' ERROR
  check 'a pending spec is a skip' spec 'pending("a", function() end)' SKIP
fi
finish
