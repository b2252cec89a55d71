#!/usr/bin/env bats
# zproc as process 1, as in a container: signals end it as elsewhere, and what its processes have left behind is reaped.

setup() {
  # Who is not root takes the right from a user namespace, in which he has the same files.
  enter=(unshare --pid --fork --kill-child --mount-proc)
  [ "$(id -u)" -eq 0 ] || enter=(unshare --user --map-root-user --pid --fork --kill-child --mount-proc)
  "${enter[@]}" true 2>/dev/null || skip "no PID namespace can be made here"
  dir=$(mktemp -d)
  script=$dir/script.lua
  # The namespace ends with process 1, and takes a process away in which leaks are just being looked for.
  [ -z "${ASAN_OPTIONS-}" ] || export ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0"
  export ZPROC_RUNTIME_DIR=$dir/runtime
  mkdir "$ZPROC_RUNTIME_DIR"
}

teardown() {
  [ -n "${dir-}" ] || return 0
  left=$(ls -A "$ZPROC_RUNTIME_DIR")
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

# Starts a command as process 1, with SIGINT as a terminal would have it, and waits until it says that it is there: $pid is its pid out here.
start_inside() { # COMMAND...
  mkfifo "$dir/told"
  env --default-signal=INT "${enter[@]}" "$@" >"$dir/told" 2>"$dir/err" 3>&- &
  outer=$!
  exec 6<"$dir/told"
  read -r -t 60 first <&6
  pid=$(pgrep -P "$outer")
}

await_end() { # the status that a shell sees
  status=0
  timeout 60 tail --pid="$outer" -f /dev/null
  wait "$outer" || status=$?
  exec 6<&-
}

write_waiting() { # WHAT IT DOES BEFORE IT WAITS
  cat >"$script" <<LUA
local zproc = require "zproc"
local ctx = zproc.context()
ctx:process(function(state) state.ready = true zproc.sleep(1000) end)
ctx.state:get_when_available "ready"
$1
print "waits"
io.stdout:flush()
zproc.sleep(1000)
LUA
}

@test "a signal from outside ends a script that is process 1" {
  write_waiting ''
  for signal in TERM HUP USR1; do
    start_inside "$ZPROC" run "$script"
    kill -"$signal" "$pid"
    await_end
    [ "$status" -eq $((128 + $(kill -l "$signal"))) ]
    rm "$dir/told"
  done
}

@test "^C ends it in order" {
  write_waiting ''
  start_inside "$ZPROC" run "$script"
  kill -INT "$pid"
  await_end
  cat "$dir/err"
  [ "$status" -eq 130 ]
  grep -q SIGINT "$dir/err"
}

@test "a signal that the script has made an error comes to it" {
  write_waiting 'zproc.signal_to_error "SIGTERM"'
  start_inside "$ZPROC" run "$script"
  kill -TERM "$pid"
  await_end
  cat "$dir/err"
  [ "$status" -eq 1 ]
  grep -q "SignalError: SIGTERM" "$dir/err"
}

@test "a signal from inside ends it, too" {
  write_waiting 'os.execute "(sleep 0.1; kill -TERM 1) &"'
  start_inside "$ZPROC" run "$script"
  await_end
  [ "$status" -eq 143 ]
}

@test "a server that is process 1 ends in order" {
  start_inside "$ZPROC" server --data-dir "$dir/data"
  kill -TERM "$pid"
  await_end
  cat "$dir/err"
  [ "$status" -eq 0 ]
}

@test "orphans are reaped, and the status is that of the script" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
ctx:process(function() os.execute "for i in 1 2 3; do (exec sleep 0.05) & done" end):wait() -- orphans of the process
local function list()
  local pipe <close> = io.popen "ps -e -o stat=,comm="
  return pipe:read "a"
end
repeat zproc.sleep(0.01) until not list():find "sleep"
assert(not list():find "Z", list())
zproc.exit(7)
LUA
  run timeout 60 "${enter[@]}" "$ZPROC" run "$script"
  echo "$output"
  [ "$status" -eq 7 ]
}

@test "what lives on without its Context ends with the namespace" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context { cleanup = false }
ctx:process(function(state) state.ready = true zproc.sleep(1000) end)
ctx.state:get_when_available "ready"
LUA
  run timeout 60 "${enter[@]}" "$ZPROC" run "$script"
  [ "$status" -eq 0 ]
  "$ZPROC" eval 'ctx' # whoever comes next removes what could not be
}
