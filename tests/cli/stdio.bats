# Standard files that fail: a command that cannot say what it has to say ends with status 1, and one that cannot read has not come to an end.

setup() {
  dir=$(mktemp -d)
  export ZPROC_RUNTIME_DIR=$dir/runtime
  mkdir "$ZPROC_RUNTIME_DIR"
  server=
}

teardown() {
  [ -z "$server" ] || { kill "$server"; wait "$server"; }
  left=$(ls -A "$ZPROC_RUNTIME_DIR")
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

start_server() {
  mkfifo "$dir/out"
  "$ZPROC" server --bind "ipc://$dir/place" >"$dir/out" 2>"$dir/err" 3>&- &
  server=$!
  read -r -t 60 address <"$dir/out"
  "$ZPROC" state "$address" set x 1 y 2
}

# Run a command, given as words of the shell, with a standard output that takes nothing, in each of three ways; all end in time, with status 1 and
# a word.
speechless() {
  local way
  rm -f "$dir/unread"
  mkfifo "$dir/unread"
  for way in '>/dev/full' '>&-' '>&8'; do # 8: a pipe that nobody reads
    run timeout -k 5 60 bash -c "trap '' PIPE; exec 7<>'$dir/unread' 8>'$dir/unread' 7>&-; $1 $way"
    echo "$1 $way: $status: $output"
    [ "$status" -eq 1 ]
    [[ "$output" == *"zproc: standard output: "* ]]
    [ "$(grep -c '^zproc: standard output' <<<"$output")" -eq 1 ]
  done
}

@test "watch ends when nobody takes what it prints" {
  start_server
  speechless "'$ZPROC' state '$address' watch --since 0 x"
  # Not only at the first line.
  mkfifo "$dir/lines"
  env --ignore-signal=PIPE "$ZPROC" state "$address" watch >"$dir/lines" 2>"$dir/said" 3>&- &
  watcher=$!
  exec 6<"$dir/lines"
  for ((i = 0; i < 600; i++)); do
    "$ZPROC" state "$address" set x $i
    ! read -r -t 0.1 line <&6 || break
  done
  [[ "$line" == *'"key":"x"'* ]]
  exec 6<&-
  for ((i = 0; i < 600; i++)); do
    "$ZPROC" state "$address" set y $i
    kill -0 $watcher 2>/dev/null || break
  done
  status=0
  wait $watcher || status=$?
  [ "$status" -eq 1 ]
  [[ "$(cat "$dir/said")" == "zproc: standard output: Broken pipe" ]]
}

@test "top ends when nobody takes what it prints" {
  start_server
  for options in '' --json --once; do speechless "'$ZPROC' top '$address' --interval 0.01 $options"; done
}

@test "a server and workers whose first word nobody takes end, and leave nothing" {
  start_server
  speechless "'$ZPROC' server"
  [ "$(find "$ZPROC_RUNTIME_DIR" -mindepth 1 -maxdepth 1 | wc -l)" -eq 1 ]
  speechless "'$ZPROC' worker '$address' --count 1"
}

@test "repl ends when nobody takes what it prints" {
  speechless "yes 1 | '$ZPROC' repl"
}

@test "commands that print once say so, too" {
  start_server
  for command in "state '$address' get" "state '$address' dump" "state '$address' history" "ps '$address'" "ping '$address'" version help \
    "eval 1" "eval 'print(1)'"; do
    speechless "'$ZPROC' $command"
  done
}

@test "a standard input that cannot be read is an error, not an end" {
  start_server
  for command in repl "eval -" "run -" "state '$address' load" "state '$address' load -" "state '$address' set z -"; do
    for way in '</tmp' '<&-'; do
      run timeout -k 5 60 bash -c "'$ZPROC' $command $way"
      echo "$command $way: $status: $output"
      [ "$status" -ne 0 ]
      [[ "$output" == *"irectory"* || "$output" == *"ad file descriptor"* ]]
    done
  done
  run timeout 60 "$ZPROC" repl </dev/null
  [ "$status" -eq 0 ]
}
