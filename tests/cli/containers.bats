#!/usr/bin/env bats
# One server, and clients in another PID namespace that see its files: a container that shares /dev/shm and /tmp. To them a pid means another
# process, so they must not use the tables and locks in shared memory; the network serves them, without being asked for.

load helpers

setup() {
  # Who is not root takes the right from a user namespace, in which he has the same files.
  enter=(unshare --pid --fork --kill-child)
  [ "$(id -u)" -eq 0 ] || enter=(unshare --user --map-root-user --pid --fork --kill-child)
  "${enter[@]}" --mount-proc true 2>/dev/null || skip "no PID namespace can be made here"
  dir=$(mktemp -d)
  mkfifo "$dir/out"
  "$ZPROC" server --bind "ipc://$dir/place" >"$dir/out" 2>"$dir/server" 3>&- &
  server=$!
  read -r address <"$dir/out"
}

teardown() {
  [ -n "${server-}" ] || return 0
  for pid in "$server" ${other-}; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}

# Run something in a PID namespace of its own, with its own /proc, or with that of this one.
inside() { timeout 100 "${enter[@]}" --mount-proc "$@" 3>&-; }
misplaced() { timeout 100 "${enter[@]}" "$@" 3>&-; }

# A script that does all that one does with a server, and says by which way.
all() {
  script all <<'LUA'
local zproc = require "zproc"
local core = require "zproc.core"
local ctx <close> = zproc.context(ADDRESS)
ctx.state.count = 0
local increment = zproc.atomic(function(snapshot) snapshot.count = snapshot.count + 1 end)
ctx:process_factory(function(state)
  for _ = 1, 20 do increment(state) end
end, { count = 2 })
local watcher = ctx:process(function(state) return state:get_when_equal("count", 40).count end)
ctx:process(function(inner) inner.state.inner = true end, { pass_context = true }):wait()
print(watcher:wait(), ctx:wait_all().n, ctx.state.count, ctx.state.inner)
print(table.concat(ctx:process_map(function(n) return n * n end, { 1, 2, 3 }):collect(), " "))
for _, state in ipairs { ctx.state, zproc.state(ADDRESS), ctx.state:fork() } do
  io.write(core.link_of(state).directory and "directly " or "by the network ")
end
print(ctx:ping() == zproc.ping(ADDRESS))
ctx.state.inner = nil
LUA
}

@test "who is in another PID namespace goes by the network, without being told" {
  all
  for way in inside misplaced; do
    run $way "$ZPROC" run "$dir/all.lua"
    echo "$output"
    [ "$output" = "$(printf '40\t2\t40\ttrue\n1 4 9\nby the network by the network by the network true')" ]
  done
  run "$ZPROC" run "$dir/all.lua"
  echo "$output"
  [ "$output" = "$(printf '40\t2\t40\ttrue\n1 4 9\ndirectly directly directly true')" ]
}

@test "the processes of a server are seen from another PID namespace as they are" {
  script stays <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context(ADDRESS)
ctx:process(function(state) state:get_when_equal("never", 1) end, { name = "stays" })
print "begun"
io.stdout:flush()
ctx:wait_all()
LUA
  "$ZPROC" run "$dir/stays.lua" >"$dir/begun" 3>&- &
  other=$!
  await "$dir/begun" begun
  expected=$("$ZPROC" ps "$address")
  [[ "$expected" =~ running.*stays ]]
  for way in inside misplaced; do
    run $way "$ZPROC" ps "$address"
    echo "$output"
    [ "$output" = "$expected" ]
    run $way "$ZPROC" top "$address" --once --json
    echo "$output"
    [[ "$output" =~ \"gone\":0 ]]
  done
}

@test "an item that a living worker has is not given to another one from another PID namespace" {
  script map <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context(ADDRESS)
local increment = zproc.atomic(function(snapshot) snapshot.runs = (snapshot.runs or 0) + 1 end)
ctx.state.task = ctx:process_map(function(state, n)
  increment(state)
  state:get_when_equal("go", true)
  return n
end, { 1, 2 }, { count = 2, stateful = true, return_task = true })
ctx.state:get_when_equal("end", true)
LUA
  script pull <<'LUA'
local zproc = require "zproc"
local core = require "zproc.core"
local ctx <close> = zproc.context(ADDRESS)
local state = ctx.state
state:get_when_equal("runs", 2)
local results = ctx:pull_results_for_task(state.task)
core.link_of(state):queue():recover() -- as whoever waits for results does when he has waited for some time
state.go = true
print(table.concat(results:collect(), " "), state.runs)
state["end"] = true
LUA
  "$ZPROC" run "$dir/map.lua" >"$dir/mapped" 2>&1 3>&- &
  other=$!
  run inside "$ZPROC" run "$dir/pull.lua"
  echo "$output"
  cat "$dir/mapped"
  [ "$output" = "$(printf '1 2\t2')" ]
}

@test "every command works from another PID namespace" {
  "$ZPROC" state "$address" set a 1
  [ "$(inside "$ZPROC" state "$address" get a)" = 1 ]
  inside "$ZPROC" state "$address" set b 2
  [ "$(inside "$ZPROC" eval --address "$address" 'return state.a + state.b')" = 3 ]
  [[ "$(inside "$ZPROC" ping "$address")" =~ ^pid\ [0-9]+,\ [0-9.]+\ ms$ ]]
  [ "$(echo 'print(state.a)' | inside "$ZPROC" repl "$address")" = 1 ]
  timeout 100 "${enter[@]}" --mount-proc "$ZPROC" worker "$address" --count 1 >"$dir/worker" 3>&- & # which hands a signal on
  other=$!
  await "$dir/worker" "1 workers for $address"
  script one <<'LUA'
local ctx <close> = require "zproc".context(ADDRESS)
print(ctx:process_map(function(n) return n end, { 5 }, { count = 1 }):collect()[1])
LUA
  [ "$("$ZPROC" run "$dir/one.lua")" = 5 ]
}

@test "what is in shared memory is refused in another PID namespace, however it is opened" {
  script open <<'LUA'
local zproc = require "zproc"
local core = require "zproc.core"
local directory = core.real_path((ADDRESS):sub(#"ipc://" + 1)):match "^(.+)/"
zproc.context(ADDRESS):process_map(function(n) return n end, { 1 }):collect() -- so that there is a queue
for _, open in ipairs {
  function() core.state_check(core.state(directory, "default", { server_address = ADDRESS })) end,
  function() core.open_table(directory) end,
  function() core.queue(directory):recover() end,
  function() core.summarize(directory) end,
} do
  local ok, err = pcall(open)
  print(ok, not ok and err.message:gsub("state in .* are", "state in DIRECTORY are"))
end
LUA
  run inside "$ZPROC" run "$dir/open.lua"
  echo "$output"
  [ "${#lines[@]}" -eq 4 ]
  for line in "${lines[@]}"; do [[ "$line" =~ ^false.the\ processes\ of\ the\ state\ in\ DIRECTORY\ are\ in\ another\ PID\ namespace ]]; done
}

@test "a server cannot be where /proc is that of another PID namespace, and that is said" {
  export ZPROC_RUNTIME_DIR=$dir/runtime
  mkdir "$ZPROC_RUNTIME_DIR"
  run misplaced "$ZPROC" eval 'return require("zproc").context().state'
  echo "$output"
  [ "$status" -ne 0 ]
  [[ "$output" =~ "/proc is that of another PID namespace" ]]
  [ -z "$(ls "$ZPROC_RUNTIME_DIR")" ]
}
