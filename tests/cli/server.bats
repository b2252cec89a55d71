# zproc server, zproc ping: what a shell sees.

setup() {
  dir=$(mktemp -d)
  export ZPROC_RUNTIME_DIR=$dir/runtime
  mkdir "$ZPROC_RUNTIME_DIR"
  server=
}

teardown() {
  [ -z "$server" ] || kill -9 "$server" 2>/dev/null || true
  left=$(ls -A "$ZPROC_RUNTIME_DIR")
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

# Start a server in the background; $address is what it prints. bash starts background processes with SIGINT ignored, and what is ignored stays so.
start() {
  mkfifo "$dir/out"
  env --default-signal=INT "$ZPROC" server "$@" >"$dir/out" 2>"$dir/err" 3>&- &
  server=$!
  read -r address <"$dir/out"
  rm "$dir/out"
}

# End it by a signal; $status is what it ends with.
stop() {
  kill -"$1" "$server"
  status=0
  wait "$server" || status=$?
  server=
}

@test "a server prints its address, answers, and cleans up when a signal ends it" {
  for signal in TERM INT HUP; do
    start
    [[ "$address" == "ipc://$ZPROC_RUNTIME_DIR/zproc-"*"/server" ]]
    run "$ZPROC" ping "$address"
    [ "$status" -eq 0 ]
    [[ "$output" =~ ^pid\ [0-9]+,\ [0-9.]+\ ms$ ]]
    stop $signal
    [ "$status" -eq 0 ]
    [ -z "$(ls -A "$ZPROC_RUNTIME_DIR")" ]
    run "$ZPROC" ping "$address"
    [ "$status" -eq 1 ]
  done
}

@test "a signal that comes as soon as the address is printed finds a server that closes its data in order" {
  mkfifo "$dir/out"
  for signal in TERM INT HUP TERM INT HUP; do
    env --default-signal=INT "$ZPROC" server --data-dir "$dir/data" >"$dir/out" 2>"$dir/err" 3>&- &
    server=$!
    read -r address <"$dir/out"
    stop "$signal"
    cat "$dir/err"
    [ "$status" -eq 0 ]
    grep -q '^zproc [0-9]* closed ' "$dir/data/status"
  done
}

@test "a server keeps a state between scripts" {
  start --bind "ipc://$dir/place"
  [ "$address" = "ipc://$dir/place" ]
  echo 'local state = require("zproc").state(...); state.count = (state.count or 0) + 1; print(state.count)' >"$dir/script.lua"
  [ "$("$ZPROC" run "$dir/script.lua" "$address")" = 1 ]
  [ "$("$ZPROC" run "$dir/script.lua" "$address")" = 2 ]
  stop TERM
  [ ! -e "$dir/place" ]
}

@test "a server that is killed is started again, and the state is as it was" {
  start --bind "ipc://$dir/place"
  echo 'local state = require("zproc").state(...); state.count = (state.count or 0) + 1; print(state.count)' >"$dir/script.lua"
  [ "$("$ZPROC" run "$dir/script.lua" "$address")" = 1 ]
  before=$("$ZPROC" ping "$address")
  kill -9 "$(echo "$before" | sed 's/pid \([0-9]*\),.*/\1/')"
  after=$("$ZPROC" ping "$address" --timeout 60)
  [ "${before%,*}" != "${after%,*}" ]
  [ "$("$ZPROC" run "$dir/script.lua" "$address")" = 2 ]
  stop TERM
}

@test "an address in use is an error that names the user" {
  start --bind "ipc://$dir/place"
  run "$ZPROC" server --bind "ipc://$dir/place"
  [ "$status" -eq 2 ]
  [[ "$output" == *"in use: process $server listens there"* ]]
  stop TERM
}

@test "what is no address, and unknown arguments, are errors" {
  run "$ZPROC" server --bind nonsense
  [ "$status" -eq 2 ]
  [[ "$output" == *"no server address"* ]]
  run "$ZPROC" server --bind
  [ "$status" -eq 2 ]
  run "$ZPROC" server --bnid x
  [ "$status" -eq 2 ]
  [[ "$output" == *"unknown argument '--bnid'"* ]]
  run "$ZPROC" ping
  [ "$status" -eq 2 ]
  run "$ZPROC" ping nonsense
  [ "$status" -eq 2 ]
  run "$ZPROC" ping ipc:///x --timeout soon
  [ "$status" -eq 2 ]
  run "$ZPROC" --serve
  [ "$status" -eq 1 ]
  [[ "$output" == *"see zproc server"* ]]
}

@test "an address for everybody takes a key, or --insecure, in the words of the command line" {
  run timeout 60 "$ZPROC" server --bind tcp://0.0.0.0:0
  echo "$output"
  [ "$status" -eq 2 ]
  [[ "$output" == *'without --secret-key-file a server listens at addresses of this machine alone'*'(--insecure if that is wanted); see zproc server --help' ]]
  [[ "$output" != *secret_key* && "$output" != *'insecure = '* ]]
}

@test "nobody at an address is status 1" {
  run "$ZPROC" ping "ipc://$dir/nobody"
  [ "$status" -eq 1 ]
  [[ "$output" == *"ServerLost"*"$dir/nobody"* ]]
}

@test "a server that does not answer in time is status 1" {
  start
  pid=$("$ZPROC" ping "$address" | sed 's/pid \([0-9]*\),.*/\1/')
  kill -STOP "$pid"
  run "$ZPROC" ping "$address" --timeout 0.05
  kill -CONT "$pid"
  [ "$status" -eq 1 ]
  [[ "$output" == *"TimeoutError"* ]]
  stop TERM
}

@test "both have help" {
  run "$ZPROC" server --help
  [ "$status" -eq 0 ]
  [[ "$output" == "usage: zproc server"* ]]
  run "$ZPROC" ping --help
  [ "$status" -eq 0 ]
  [[ "$output" == "usage: zproc ping"* ]]
}
