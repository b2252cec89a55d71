#!/usr/bin/env bats
# zproc state: reading, changing and watching a state from a shell.

setup() {
  dir=$(mktemp -d)
  export ZPROC_RUNTIME_DIR=$dir/runtime
  mkdir "$ZPROC_RUNTIME_DIR"
  address=ipc://$dir/place
  mkfifo "$dir/out"
  "$ZPROC" server --bind "$address" >"$dir/out" 2>"$dir/err" 3>&- &
  server=$!
  read -r _ <"$dir/out"
}

teardown() {
  kill "$server"
  wait "$server" || true
  left=$(ls -A "$ZPROC_RUNTIME_DIR")
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

state() { timeout 60 "$ZPROC" state "$address" "$@"; }

# The output is these lines.
prints() {
  echo "$output"
  [ "$output" = "$(printf '%s\n' "$@")" ]
}

# STATUS WORDS ARGUMENT...: it ends with that status, and says that.
says() {
  run timeout 60 "$ZPROC" state "${@:3}"
  echo "$output"
  [ "$status" -eq "$1" ]
  [[ "$output" == *"$2"* ]]
}

@test "what is set can be got" {
  state set apples 5 price 0.1 big 9007199254740993 one 1.0 text '"a\u00e9"' list '[1, {"x": null}]' none null
  for pair in 'apples 5' 'price 0.1' 'big 9007199254740993' 'one 1.0' 'text "aé"' 'list [1,{"x":null}]' 'none null'; do
    [ "$(state get "${pair%% *}")" = "${pair#* }" ]
  done
  run state get
  prints '{"apples":5,"big":9007199254740993,"list":[1,{"x":null}],"none":null,"one":1.0,"price":0.1,"text":"aé"}'
  echo '{"from": "stdin"}' | state set piped -
  [ "$(state get piped)" = '{"from":"stdin"}' ]
  state set --string name 'Ada "L"' other 5
  [ "$(state get name)$(state get other)" = '"Ada \"L\"""5"' ]
}

@test "a value that cannot be read sets nothing" {
  state set x 1
  for option in '' --string; do
    run state set $option x - </tmp
    [ "$status" -eq 1 ]
    [[ "$output" == *"cannot read stdin"* ]]
  done
  [ "$(state get x)" = 1 ]
}

@test "an integer that takes more than 64 bits is refused wherever it stands, and nothing is set" {
  state set x 1
  big=9223372036854775808
  for words in "set x $big" "set x -9223372036854775809" "set y 1 x {\"a\":[1,$big]}" "set x ${big}e0" "set --json-keys $big 1" "get --json-keys $big" \
    "del --json-keys $big" "watch --json-keys $big --timeout 1"; do
    # shellcheck disable=SC2086
    run timeout 60 "$ZPROC" state "$address" $words
    echo "$words: $status: $output"
    [ "$status" -eq 2 ]
    [[ "$output" == *"an integer that takes more than 64 bits at byte"* ]]
  done
  echo $big >"$dir/stdin"
  run state set x - <"$dir/stdin"
  [ "$status" -eq 2 ]
  for line in "{\"key\":\"x\",\"value\":$big}" "{\"key\":$big,\"value\":1}" "{\"key\":\"x\",\"value\":{\"a\":[[$big]]}}"; do
    printf '{"key":"y","value":1}\n%s\n' "$line" >"$dir/dump"
    for option in '' --replace; do
      # shellcheck disable=SC2086
      run state load $option "$dir/dump"
      echo "$line: $status: $output"
      [ "$status" -eq 1 ]
      [[ "$output" == *"line 2 of the dump"*"an integer that takes more than 64 bits"* ]]
    done
  done
  [ "$(state get)" = '{"x":1}' ]
  state set least -9223372036854775808 most 9223372036854775807 float 9223372036854775808.0 power 1e19
  [ "$(state get)" = '{"float":9.223372036854776e+18,"least":-9223372036854775808,"most":9223372036854775807,"power":1e+19,"x":1}' ]
  state dump | state load --namespace copy
  [ "$(state get --namespace copy)" = "$(state get)" ]
}

@test "several keys are set in one step" {
  state set a 1 b -2 keys 3
  run state history
  prints '{"revision":1,"changes":[{"key":"a","value":1},{"key":"b","value":-2},{"key":"keys","value":3}]}'
}

@test "keys may be JSON" {
  state set --json-keys 5 '"five"' true '"yes"' '"5"' '"text"'
  [ "$(state get --json-keys 5)$(state get --json-keys true)$(state get 5)" = '"five""yes""text"' ]
  state del --json-keys 5
  says 1 'there is no key 5' "$address" get --json-keys 5
  [ "$(state get 5)" = '"text"' ]
  says 2 'the key [1] is neither' "$address" get --json-keys '[1]'
  says 2 'the key x cannot be read as JSON' "$address" get --json-keys x
}

@test "keys are deleted, and those that were not there are told" {
  state set a 1 b 2 c 3
  says 1 'there is no key x' "$address" del a x b
  [ "$(state get)" = '{"c":3}' ]
  state del c
  [ "$(state get)" = '{}' ]
  says 1 'there is no key c' "$address" get c
}

@test "a dump that is loaded restores everything" {
  cat >"$dir/fill.lua" <<'LUA'
local zproc = require "zproc"
local state = zproc.state(...)
state.double = function(x) return 2 * x end
state.odd = { [1] = 1, [3] = math.huge, bytes = "\xff" }
state[7], state["\xfe"], state.plain = "seven", 1, { 1, 2.0 }
LUA
  "$ZPROC" run "$dir/fill.lua" "$address"
  state dump >"$dir/dump"
  cat "$dir/dump"
  [ "$(wc -l <"$dir/dump")" -eq 7 ]
  grep -qxF '{"key":"plain","value":[1,2.0]}' "$dir/dump"
  grep -qxF '{"key":7,"value":"seven"}' "$dir/dump"
  state dump --namespace copy >"$dir/empty"
  [ "$(wc -l <"$dir/empty")" -eq 2 ]
  state load --namespace copy "$dir/dump"
  state dump --namespace copy | cmp - "$dir/dump"
  echo 'local s = require "zproc".state(..., { namespace = "copy" }) print(s.double(4), s.odd[3], s["\xfe"])' >"$dir/check.lua"
  [ "$("$ZPROC" run "$dir/check.lua" "$address")" = $'8\tinf\t1' ]

  state set --namespace copy more 1
  state load --namespace copy <"$dir/dump"
  [ "$(state get --namespace copy more)" = 1 ]
  state load --namespace copy --replace <"$dir/dump"
  says 1 'no key more' "$address" get --namespace copy more
}

@test "a dump that is not whole changes nothing, whatever has written it" {
  state set a 1 b 2 c 3
  state dump >"$dir/dump"
  state dump --namespace none >"$dir/none" # no keys at all
  state set --namespace copy old 1
  run state history
  history=$output
  refused() { # WORDS: what is on stdin
    cat >"$dir/cut"
    for option in --replace --namespace=copy; do
      run "$ZPROC" state "$address" load --namespace copy ${option#--namespace=copy} <"$dir/cut"
      echo "$output"
      [ "$status" -eq 1 ]
      [[ "$output" == *"$1"* ]]
      run "$ZPROC" state "$address" load --namespace copy ${option#--namespace=copy} "$dir/cut"
      [ "$status" -eq 1 ]
    done
    [ "$(state get --namespace copy)" = '{"old":1}' ]
  }
  { "$ZPROC" state "ipc://$dir/nothing" dump 2>/dev/null || true; } | refused 'there is no dump: it is empty'
  printf '\n \n' | refused 'there is no dump: it is empty'
  for lines in 1 2 3 4; do head -n $lines "$dir/dump" | refused "it ends after $((lines - 1)) keys"; done
  head -c -1 "$dir/dump" >"$dir/shorter"
  head -c -5 "$dir/dump" | refused 'line 5 of the dump'
  head -c 40 "$dir/dump" | refused 'line 3 of the dump'
  tail -n +2 "$dir/dump" | refused 'the beginning of the dump is missing'
  sed 2d "$dir/dump" | refused 'it has 2 keys, and had 3'
  sed 's/"value":2/"value":4/' "$dir/dump" | refused 'its sum is another'
  sed 's/"sum":"./"sum":"x/' "$dir/dump" | refused 'line 5 of the dump'
  awk 'NR == 3 { held = $0; next } { print } NR == 4 { print held }' "$dir/dump" | refused 'its sum is another' # in another order
  cat "$dir/dump" "$dir/dump" | refused 'line 6 of the dump is behind its end'
  { head -n 3 "$dir/dump"; cat "$dir/dump"; } | refused 'begins another one'
  { echo '{"dump":2}'; tail -n +2 "$dir/dump"; } | refused 'version 2'
  run state history
  [ "$output" = "$history" ]
  # What is whole, a state of no keys among them, and lines of one's own.
  state load --namespace copy --replace "$dir/shorter"
  [ "$(state get --namespace copy)" = '{"a":1,"b":2,"c":3}' ]
  state load --namespace copy --replace "$dir/none"
  [ "$(state get --namespace copy)" = '{}' ]
  grep '"key":"b"' "$dir/dump" | state load --namespace copy
  [ "$(state get --namespace copy)" = '{"b":2}' ]
}

@test "a dump that cannot be written is a failure, and what there is of it is refused" {
  [ -e /dev/full ] || skip "there is no /dev/full"
  for i in $(seq 50); do state set "k$i" '"some text"'; done
  run bash -c '"$1" state "$2" dump >/dev/full' bash "$ZPROC" "$address"
  [ "$status" -ne 0 ]
  run bash -c 'set -o pipefail; "$1" state "$2" dump | head -c 300 | "$1" state "$2" load --namespace copy --replace' bash "$ZPROC" "$address"
  [ "$status" -ne 0 ]
  [ "$(state get --namespace copy)" = '{}' ]
}

@test "a dump with a wrong line changes nothing" {
  printf '{"key":"a","value":1}\n\n{"key":"b"}\n' >"$dir/dump"
  says 1 'line 3 of the dump: it has to have a key and a value' "$address" load "$dir/dump"
  [ "$(state get)" = '{}' ]
  printf '\n{"key":null,"value":1}\n' >"$dir/dump"
  says 1 'line 2 of the dump: null cannot be a key' "$address" load "$dir/dump"
  printf '{"key":"%05000d","value":1}\n' 0 >"$dir/dump"
  says 1 'line 1 of the dump: ' "$address" load "$dir/dump"
  nan=$("$ZPROC" eval '(require "zproc.core".encode(0/0):gsub(".", function(c) return ("%02x"):format(c:byte()) end))')
  printf '{"key_bytes":"%s","value":1}\n' "$nan" >"$dir/dump"
  says 1 'line 1 of the dump: NaN cannot be a key' "$address" load "$dir/dump"
  printf '{"key":"a","value":1,"value_bytes":"%s"}\n' "$nan" >"$dir/dump"
  says 1 'line 1 of the dump: it has both value and value_bytes' "$address" load "$dir/dump"
  says 1 'cannot read the dump: ' "$address" load "$dir/nothing"
  says 1 'cannot read the dump: ' "$address" load "$dir"
}

@test "what JSON cannot carry is an error that says where it is" {
  echo 'require "zproc".state(...).jobs = { { run = print, n = 1/0 } }' >"$dir/fill.lua"
  "$ZPROC" run "$dir/fill.lua" "$address"
  says 1 'jobs[1].' "$address" get jobs
  says 1 'state.jobs[1].' "$address" get
}

@test "what JSON cannot carry says what shows it" {
  echo 'local s = require "zproc".state(...) s[5] = "five" s.list = { 1, nil, 3 }' >"$dir/fill.lua"
  "$ZPROC" run "$dir/fill.lua" "$address"
  says 1 'list: JSON has no arrays with holes: there is [3], but not [2]; dump prints it' "$address" get list
  says 1 'no strings, such as 5; dump prints all keys, and get KEY, or get --json-keys KEY, one of them' "$address" get
  [ "$(state get --json-keys 5)" = '"five"' ]
  [ "$(state dump | wc -l)" -eq 4 ]
}

@test "watch prints a change once, however often its key is named" {
  state set w 1
  run state watch w w --since 0 --count 1
  prints '{"revision":1,"changes":[{"key":"w","value":1}]}'
}

@test "what is no server's socket is none" {
  echo >"$dir/plain"
  says 1 "there is no server at ipc://$dir/plain: what is there is something else" "ipc://$dir/plain" get
}

@test "an empty array becomes an empty table" {
  state set a '[]' b '[[]]' c '{}'
  run state get
  prints '{"a":{},"b":[{}],"c":{}}'
}

@test "what is long is not repeated at length" {
  long=$(printf 'x%.0s' $(seq 5000))
  says 2 'the value xxx' "$address" set a "$long"
  [ "${#output}" -lt 300 ]
  says 1 'there is no key xxx' "$address" get "${long:0:400}"
  [ "${#output}" -lt 300 ]
  says 2 "unknown argument 'xxx" "$address" get a "$long"
  [ "${#output}" -lt 300 ]
  says 2 'the value ?[31m cannot' "$address" set a $'\e[31m'
  echo 'local t = 1/0 for _ = 1, 900 do t = { t } end require "zproc".state(...).deep = t' >"$dir/fill.lua"
  "$ZPROC" run "$dir/fill.lua" "$address"
  says 1 'deep[1][1]' "$address" get deep
  [[ "$output" == *'...'*'[1]: JSON has no inf'* ]]
  [ "${#output}" -lt 400 ]
}

@test "watch prints a line for each update" {
  state set a 1
  state watch --since 0 --count 3 >"$dir/all" &
  all=$!
  state watch b --since 0 --count 1 >"$dir/b" &
  b=$!
  state set a 1.0 b 2
  state del a
  wait $all
  wait $b
  run cat "$dir/all"
  prints '{"revision":1,"changes":[{"key":"a","value":1}]}' \
    '{"revision":2,"changes":[{"key":"a","value":1.0},{"key":"b","value":2}]}' \
    '{"revision":3,"changes":[{"key":"a","deleted":true}]}'
  [ "$(cat "$dir/b")" = '{"revision":2,"changes":[{"key":"b","value":2}]}' ]
}

@test "watch shows an update at once, not when a buffer is full" {
  mkfifo "$dir/lines"
  timeout 60 "$ZPROC" state "$address" watch --since 0 >"$dir/lines" 3>&- &
  watcher=$!
  exec 4<"$dir/lines"
  state set a 1
  read -r line <&4
  kill $watcher
  wait $watcher || true
  exec 4<&-
  [ "$line" = '{"revision":1,"changes":[{"key":"a","value":1}]}' ]
}

@test "watch ends with status 1 when the time is up" {
  state set a 1
  says 1 'no update for 0.05 seconds' "$address" watch --timeout 0.05
  run state watch --since 0 --count 2 --timeout 0.05
  [ "$status" -eq 1 ]
  [[ "${lines[0]}" == '{"revision":1,'* ]]
}

@test "watch and history read what has changed, and nothing else" {
  # A value that cannot be read here is no matter of other updates.
  "$ZPROC" eval --address "$address" 'package.loaded.elsewhere = { f = function() end } state.foreign = package.loaded.elsewhere.f'
  state set a 1 b 2
  state set a 1 b 3
  state del a
  run state watch --since 1 --count 3
  [ "$status" -eq 0 ]
  [ "${lines[0]}" = '{"revision":2,"changes":[{"key":"a","value":1},{"key":"b","value":2}]}' ]
  [ "${lines[1]}" = '{"revision":3,"changes":[{"key":"b","value":3}]}' ]
  [ "${lines[2]}" = '{"revision":4,"changes":[{"key":"a","deleted":true}]}' ]
  [ "${#lines[@]}" -eq 3 ]
  seen=$output
  run state history --since 1
  [ "$output" = "$seen" ]
  run state --transport network history --since 1
  [ "$output" = "$seen" ]
  run state watch a --since 1 --count 2
  [ "${lines[0]}" = '{"revision":2,"changes":[{"key":"a","value":1}]}' ]
  [ "${lines[1]}" = '{"revision":4,"changes":[{"key":"a","deleted":true}]}' ]
}

@test "history has the newest updates, or those after a revision, of one namespace" {
  for i in 1 2 3; do state set n "$i"; done
  for i in $(seq 30); do echo "{\"key\":\"other\",\"value\":$i}" | state load --namespace elsewhere; done
  run state history --limit 2
  prints '{"revision":2,"changes":[{"key":"n","value":2}]}' '{"revision":3,"changes":[{"key":"n","value":3}]}'
  run state history --since 1 --limit 1
  prints '{"revision":2,"changes":[{"key":"n","value":2}]}'
  run state history --since 3
  prints ''
  run state history --namespace elsewhere
  [ "${#lines[@]}" -eq 20 ]
  [ "${lines[0]}" = '{"revision":14,"changes":[{"key":"other","value":11}]}' ]
  [ "$(state get n --at 2)$(state get --at 1)" = '2{"n":1}' ]
  [ "$(state dump --at 2 | sed -n 2p)" = '{"key":"n","value":2}' ]
  says 1 'HistoryLost' "$address" get --at 99
  says 2 'from 0 to 33' "$address" history --since 99
}

@test "all of it works over the network" {
  state --transport network set a 1 b 2
  state --transport network set a 3
  [ "$(state --transport network get a)" = 3 ]
  [ "$(state --transport network dump | sed '1d;$d')" = $'{"key":"a","value":3}\n{"key":"b","value":2}' ]
  run state --transport network watch --since 0 --count 2
  [ "$status" -eq 0 ]
  prints '{"revision":1,"changes":[{"key":"a","value":1},{"key":"b","value":2}]}' '{"revision":2,"changes":[{"key":"a","value":3}]}'
  run state --transport network history --limit 1
  prints '{"revision":2,"changes":[{"key":"a","value":3}]}'
  state --transport network del a
  echo '{"key":"c","value":1}' | state --transport network load --replace
  [ "$(state get)" = '{"c":1}' ]
}

@test "wrong usage is status 2 and says what is wrong" {
  says 2 'which server?'
  says 2 'what is to be done? get, set,' "$address"
  says 2 "there is no 'gte'" "$address" gte
  says 2 "unknown argument '--jsn'" "$address" get --jsn
  says 2 "unknown argument 'b'" "$address" get a b
  says 2 '--count does not go with get' "$address" get --count 3
  says 2 '--json-keys takes no value' "$address" get --json-keys=yes
  says 2 'set takes a key and a value' "$address" set a
  says 2 'the key c has no value' "$address" set a 1 c
  says 2 'del takes a key' "$address" del
  says 2 "the value abc cannot be read as JSON" "$address" set a abc
  says 2 '--since takes a revision number' "$address" watch --since -1
  says 2 'no server address' nonsense get
  says 1 'ServerLost' "ipc://$dir/nothing" get
}

@test "all that is wrong with a command line is told in one form" {
  for words in 'gte' 'get --jsn' 'get --count 3' 'get a b' 'set a' 'set a 1 c' 'set a abc' 'get --json-keys x' 'history --since 99' \
    'watch --since -1' 'get --namespace='; do
    # shellcheck disable=SC2086
    run timeout 60 "$ZPROC" state "$address" $words
    echo "$output"
    [ "$status" -eq 2 ]
    [[ "$output" == 'zproc: state: '*'; see zproc state --help' ]]
    [[ "$output" != *UsageError* ]]
  done
  run "$ZPROC" state nonsense get
  [[ "$output" == 'zproc: state: "nonsense" is no server address'*'; see zproc state --help' ]]
  run "$ZPROC" eval --address nonsense 1
  [[ "$output" == 'zproc: eval: "nonsense" is no server address'*'; see zproc eval --help' ]]
}

@test "state has help" {
  run "$ZPROC" state --help
  [ "$status" -eq 0 ]
  [[ "$output" == "usage: zproc state ADDRESS get"* ]]
  for words in "$address get --help" 'get --help' "$address get a --help --at"; do
    # shellcheck disable=SC2086
    run "$ZPROC" state $words
    [ "$status" -eq 0 ]
    [[ "$output" == "usage: zproc state ADDRESS get"*--at*Example:* ]]
    [[ "$output" != *--replace* ]]
  done
}
