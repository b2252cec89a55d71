# Signals that are ignored when a program is started: whoever has started it wished so (nohup, a shell for what it puts into the background).

setup() {
  dir=$(mktemp -d)
  export ZPROC_RUNTIME_DIR=$dir/runtime
  mkdir "$ZPROC_RUNTIME_DIR"
  pid= server=
}

teardown() {
  for pid in $pid $server; do kill -9 "$pid" 2>/dev/null || true; done
  # The server of a script that was ended by a signal cleans up by itself.
  for ((i = 0; i < 600; i++)); do
    left=$(ls -A "$ZPROC_RUNTIME_DIR")
    [ -n "$left" ] || break
    sleep 0.1
  done
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

# Start a command in the background with these signals ignored and all others not, and read the first line that it writes.
start() { # SIGNALS COMMAND...
  local signals=$1
  shift
  mkfifo "$dir/out"
  env --default-signal --ignore-signal="$signals" "$@" >"$dir/out" 2>"$dir/err" 3>&- &
  pid=$!
  exec 6<"$dir/out"
  read -r -t 60 line <&6
  rm "$dir/out"
}

# The signal has no effect: it is ignored by the process, and so does not even reach it.
unmoved() { # SIGNAL
  local mask
  mask=$(sed -n 's/^SigIgn:[[:space:]]*//p' "/proc/$pid/status")
  (( 0x$mask >> ($(kill -l "$1") - 1) & 1 ))
  mask=$(sed -n 's/^SigBlk:[[:space:]]*//p' "/proc/$pid/status")
  (( ! (0x$mask >> ($(kill -l "$1") - 1) & 1) ))
  kill -"$1" "$pid"
}

ends_by() { # SIGNAL
  kill -"$1" "$pid"
  status=0
  wait "$pid" || status=$?
  pid=
  exec 6<&-
}

@test "zproc server outlives the hangup that nohup has it ignore, and ends by the others" {
  for signals in HUP HUP,INT INT; do
    start $signals "$ZPROC" server --bind "ipc://$dir/place"
    for one in ${signals/,/ }; do unmoved $one; done
    "$ZPROC" ping "ipc://$dir/place"
    ends_by TERM
    [ "$status" -eq 0 ]
  done
  start TERM "$ZPROC" server --bind "ipc://$dir/place"
  unmoved TERM
  "$ZPROC" ping "ipc://$dir/place"
  ends_by HUP
  [ "$status" -eq 0 ]
}

@test "nohup itself" {
  mkfifo "$dir/out"
  nohup "$ZPROC" server --bind "ipc://$dir/place" >"$dir/out" 2>&1 3>&- </dev/null &
  pid=$!
  read -r -t 60 line <"$dir/out"
  unmoved HUP
  "$ZPROC" ping "ipc://$dir/place"
  ends_by TERM
}

@test "workers" {
  env --default-signal "$ZPROC" server --bind "ipc://$dir/place" >"$dir/place.out" 2>&1 3>&- &
  server=$!
  for ((i = 0; i < 600; i++)); do ! "$ZPROC" ping "ipc://$dir/place" 2>/dev/null || break; sleep 0.1; done
  start HUP "$ZPROC" worker "ipc://$dir/place" --count 1
  [[ "$line" == "1 workers for"* ]]
  unmoved HUP
  ends_by TERM
  kill "$server"
  wait "$server"
  server=
  [ "$status" -eq 0 ]
}

@test "run, eval, repl, top, state watch, and a script in lua5.4" {
  local code='local ctx = require("zproc").context() ctx.state.x = 1 print(ctx.server_address) io.stdout:flush() require("zproc").sleep(1000)'
  echo "$code" >"$dir/script.lua"
  env --default-signal "$ZPROC" server --bind "ipc://$dir/place" >"$dir/place.out" 2>&1 3>&- &
  server=$!
  for ((i = 0; i < 600; i++)); do ! "$ZPROC" ping "ipc://$dir/place" 2>/dev/null || break; sleep 0.1; done
  "$ZPROC" state "ipc://$dir/place" set x 1
  commands=(
    "$ZPROC run $dir/script.lua"
    "$SRCDIR/tests/run-lua $dir/script.lua"
    "$ZPROC top ipc://$dir/place --json --interval 0.05"
    "$ZPROC state ipc://$dir/place watch --since 0"
  )
  for command in "${commands[@]}"; do
    # shellcheck disable=SC2086
    start INT,HUP $command
    echo "$command: $line"
    [ -n "$line" ]
    [[ "$command" == *run-lua* ]] || unmoved INT # which lua5.4 itself catches, whatever was before
    unmoved HUP
    ends_by TERM
  done
  start INT "$ZPROC" eval "$code"
  unmoved INT
  ends_by TERM
  mkfifo "$dir/in"
  sleep 600 >"$dir/in" 3>&- &
  writer=$!
  echo "$code" >"$dir/code"
  start INT bash -c "exec \"$ZPROC\" repl < <(cat '$dir/code' '$dir/in')"
  unmoved INT
  kill "$writer"
  ends_by TERM
  kill "$server"
  wait "$server"
  server=
}

@test "what a script asks for by itself is caught all the same, also SIGCHLD's being ignored stands in nobody's way" {
  cat >"$dir/script.lua" <<'LUA'
local zproc = require "zproc"
zproc.signal_to_error "SIGHUP"
local ctx = zproc.context()
local process = ctx:process(function() zproc.exit(5) end)
pcall(process.wait, process)
print(select(2, pcall(function() -- the signal comes at any time after the first line
  print(process.exitcode)
  zproc.sleep(1000)
end)))
LUA
  for command in "$ZPROC run" "$SRCDIR/tests/run-lua"; do
    # shellcheck disable=SC2086
    start HUP,CHLD $command "$dir/script.lua"
    [ "$line" = 5 ]
    kill -HUP "$pid"
    read -r -t 60 line <&6
    [[ "$line" == *"SignalError: SIGHUP" ]]
    wait "$pid"
    pid=
    exec 6<&-
  done
}
