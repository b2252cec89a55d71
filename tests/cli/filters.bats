# Kernels and containers that lack a system call (ENOSYS), or do not permit it (EPERM): where there is another way it is taken, else the error
# names the call. forbid.c makes a filter for the program and all that it starts.

setup_file() {
  export FORBID_DIR
  FORBID_DIR=$(mktemp -d)
  "${CC:-cc}" -D_GNU_SOURCE -o "$FORBID_DIR/forbid" "$SRCDIR/tests/cli/forbid.c"
}

teardown_file() { rm -rf "$FORBID_DIR"; }

setup() {
  [ -z "${ASAN_OPTIONS-}${TSAN_OPTIONS-}" ] || skip "a sanitizer makes calls of its own"
  "$FORBID_DIR/forbid" EPERM copy_file_range true || skip "no filters of system calls can be made here"
  dir=$(mktemp -d)
  export ZPROC_RUNTIME_DIR=$dir/runtime
  mkdir "$ZPROC_RUNTIME_DIR"
  # Something of everything: processes, a thread, atomic functions, a watcher, a map, the network, a server that is killed.
  cat >"$dir/smoke.lua" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
ctx.state.count = 0
local increment = zproc.atomic(function(snapshot, step) snapshot.count = snapshot.count + step end)
ctx:process_factory(function(state)
  for _ = 1, 20 do increment(state, 1) end
end, { count = 2 })
ctx:wait_all()
assert(ctx.state.count == 40)
local watcher = ctx:process(function(state)
  state.waits = true
  return state:get_when_equal("go", true, { timeout = 60 }).go, ("x"):rep(100000)
end)
ctx.state:get_when_available "waits"
ctx.state.go = true
assert(#select(2, watcher:wait()) == 100000)
ctx.state.large = ("x"):rep(3000000) -- for which the file has to grow
assert(#ctx.state.large == 3000000)
assert(table.concat(ctx:process_map(function(x) return x * x end, { 1, 2, 3 }, { count = 2 }):collect(), " ") == "1 4 9")
assert(ctx:process(function(_, a) return a end, { backend = "thread", args = { 5 } }):wait() == 5)
local far <close> = zproc.context(ctx.server_address, { transport = "network" })
far.state.x = 1
zproc.atomic(function(snapshot) snapshot.x = snapshot.x + 1 end)(far.state)
assert(far.state.x == 2)
assert(ctx:process(function() zproc.sleep(1000) end):stop() == -15)
local first, second = ctx:ping(), nil
os.execute("kill -9 " .. first)
repeat second = ctx:ping { timeout = 60 } until second ~= first
print "all of it"
LUA
}

teardown() {
  [ -n "${dir-}" ] || return 0
  # A process of a server for clients of the network may be a moment behind.
  for ((i = 0; i < 600; i++)); do
    left=$(ls -A "$ZPROC_RUNTIME_DIR")
    [ -n "$left" ] || break
    sleep 0.1
  done
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

# ERROR CALLS COMMAND...
without() { timeout -k 5 120 "$FORBID_DIR/forbid" "$@"; }

@test "there is another way for these calls, one by one and for all of them" {
  for calls in pidfd_open close_range futex_waitv faccessat2 memfd_create getrandom fallocate \
    pidfd_open,close_range,futex_waitv,faccessat2,memfd_create,getrandom,fallocate,rseq,copy_file_range,statx,madvise; do
    for error in ENOSYS EPERM; do
      run without $error $calls "$ZPROC" run "$dir/smoke.lua"
      echo "$calls $error: $status: $output"
      [ "$status" -eq 0 ]
      [[ "$output" == *"all of it" ]]
    done
  done
  run without ENOSYS clone3 "$ZPROC" run "$dir/smoke.lua"
  [ "$status" -eq 0 ]
}

@test "in plain lua5.4, too" {
  run without EPERM pidfd_open,close_range,futex_waitv,faccessat2,memfd_create,getrandom env ZP_TEST_FINDS=1 "$SRCDIR/tests/run-lua" "$dir/smoke.lua"
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"all of it" ]]
}

@test "without pidfd_open a server notices all the same that its owner was killed" {
  cat >"$dir/script.lua" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
ctx.state.x = 1
local child = ctx:process(function() zproc.sleep(1000) end)
print(ctx:ping(), child.pid)
io.stdout:flush()
zproc.sleep(1000)
LUA
  mkfifo "$dir/out"
  "$FORBID_DIR/forbid" EPERM pidfd_open "$ZPROC" run "$dir/script.lua" >"$dir/out" 3>&- &
  owner=$!
  read -r -t 60 pids <"$dir/out"
  kill -9 $owner
  for pid in $pids; do timeout 60 tail --pid="$pid" -f /dev/null; done
  [ -z "$(ls -A "$ZPROC_RUNTIME_DIR")" ]
}

@test "without close_range a server has none of the descriptors of the script, wherever they are" {
  cat >"$dir/script.lua" <<'LUA'
local zproc = require "zproc"
local server, address = zproc.start_server()
local pid = zproc.ping(address)
os.execute("ls -l /proc/" .. pid .. "/fd")
server:stop()
LUA
  for error in ENOSYS EPERM; do
    run without $error close_range bash -c "exec 3<'$dir/script.lua' 9<'$dir/script.lua' 200<'$dir/script.lua'; exec '$ZPROC' run '$dir/script.lua'"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ "$output" == *socket* ]]
    [[ "$output" != *script.lua* ]]
  done
  # With a limit that is reached, so that there is none left to look with.
  run without EPERM close_range bash -c "ulimit -n 40; exec '$ZPROC' eval '
    local files = {}
    local server, address = zproc.start_server()
    local pid = zproc.ping(address)
    repeat files[#files + 1] = io.open \"$dir/script.lua\" until not files[#files + 1] and #files > 20
    os.execute(\"kill -9 \" .. pid)
    local second
    for i = 1, 8 do table.remove(files):close() end
    repeat second = zproc.ping(address, { timeout = 60 }) until second ~= pid
    os.execute(\"ls -l /proc/\" .. second .. \"/fd\")
    server:stop()'"
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" != *script.lua* ]]
}

@test "without getrandom no two processes have the same numbers" {
  cat >"$dir/script.lua" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local seen = {}
for i, number in ctx:process_map(function() return math.random(0) end, zproc.range(1, 40), { count = 4 }) do
  assert(not seen[number])
  seen[number] = true
end
for _ = 1, 10 do
  local number = ctx:process(function() return math.random(0) end):wait()
  assert(not seen[number])
  seen[number] = true
end
print "different"
LUA
  for error in ENOSYS EPERM; do
    run without $error getrandom "$ZPROC" run "$dir/script.lua"
    echo "$output"
    [ "$status" -eq 0 ]
    [ "$output" = different ]
  done
}

@test "for these there is no other way: the error names the call, and nothing is left" {
  for error in ENOSYS EPERM; do
    for call in timer_create eventfd2 epoll_create1 sched_setscheduler flock renameat socketpair; do
      run without $error $call "$ZPROC" run "$dir/smoke.lua"
      echo "$call $error: $status: $output"
      [ "$status" -eq 1 ]
      [[ "$output" == *"cannot "*": ${call%2}"*": "* ]]
    done
  done
  run without EPERM clone3 "$ZPROC" run "$dir/smoke.lua"
  [ "$status" -eq 1 ]
  [[ "$output" == *"cannot start a thread: clone3: Operation not permitted"* ]]
}
