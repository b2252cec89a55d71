#!/usr/bin/env bats
# A writer that is stopped, or does not end, holds up the others: they say who it is, and need not wait for ever.

load keeping

setup() {
  dir=$(mktemp -d)
  address=ipc://$dir/place
}

teardown() {
  [ -z "${holder-}" ] || kill -9 "$holder" 2>/dev/null || true
  [ -z "${server-}" ] || kill -9 "$server" 2>/dev/null || true
  rm -rf "$dir"
}

serve() {
  "$ZPROC" server --bind "$address" "$@" >"$dir/out" 2>"$dir/server.err" 3>&- &
  server=$!
  await_output "$dir/out"
}

# A script that holds the lock until its process is ended; $holder is that.
hold() {
  cat >"$dir/holder.lua" <<'LUA'
local zproc = require "zproc"
local state = zproc.state(arg[1])
zproc.atomic(function(snapshot)
  snapshot.n = -1
  print "held"
  io.stdout:flush()
  while true do end
end)(state)
LUA
  "$ZPROC" run "$dir/holder.lua" "$address" >"$dir/held" 3>&- &
  holder=$!
  await_output "$dir/held"
}

release() {
  kill -9 "$holder"
  wait "$holder" || true
  holder=
}

await_text() { # FILE TEXT
  local i
  for ((i = 0; i < 600; i++)); do
    ! grep -qF -- "$2" "$1" || return 0
    sleep 0.1
  done
  cat "$1"
  return 1
}

@test "who waits says whom for, once for each wait" {
  serve
  lua 'state.n = 1'
  hold
  kill -STOP "$holder"
  for i in 1 2; do
    lua 'state.n = state.n + 1; state.m = 1' 2>"$dir/waiter$i" 3>&- &
    eval "waiter$i=\$!"
  done
  for i in 1 2; do await_text "$dir/waiter$i" "waits to change the state in"; done
  kill -CONT "$holder"
  cat "$dir/waiter1"
  grep -qE "^zproc: process [0-9]+ waits to change the state in [^ ]+: process $holder \(.+\) has it since [0-9:]+, for the atomic function at .*holder.lua:3; that process is stopped\$" "$dir/waiter1"
  release
  wait "$waiter1"
  wait "$waiter2"
  [ "$(wc -l <"$dir/waiter1")" -eq 1 ]
  [ "$(lua 'print(state.n, state.m)')" = $'3\t1' ] || [ "$(lua 'print(state.n, state.m)')" = $'2\t1' ]
}

@test "a client of the network that waits to write is told whom for, once for each wait" {
  serve
  lua 'state:update { n = 1, k = 1, m = 1 }'
  hold
  local i=0 write
  for write in 'far.n = 2' 'far:update { a = 1, b = 2 }' 'far:pop "k"' 'far:setdefault("d", 1)' 'far:set { e = 1 }'; do
    lua 'local far = zproc.state(state.server_address, { transport = "network", namespace = "'$i'" })
      far.k = nil
      '"$write" 2>"$dir/waiter$i" 3>&- &
    eval "waiter$i=\$!"
    i=$((i + 1))
  done
  lua 'zproc.atomic(function(t) t.n = 7 end)(zproc.state(state.server_address, { transport = "network" }))' 2>"$dir/atomic" 3>&- &
  local atomic=$!
  for i in 0 1 2 3 4; do await_text "$dir/waiter$i" "waits to change the state at"; done
  cat "$dir/waiter0"
  grep -qE "^zproc: process [0-9]+ waits to change the state at [^ ]+, where process $holder \(.+\) has it since [0-9:]+, for the atomic function at .*holder.lua:3\$" "$dir/waiter0"
  release
  for i in 0 1 2 3 4; do
    eval "wait \"\$waiter$i\""
    [ "$(wc -l <"$dir/waiter$i")" -eq 1 ]
  done
  wait "$atomic"
  [ ! -s "$dir/atomic" ] # the process that runs it waits, and says so where the server does
}

@test "ps and top show who holds the lock for long" {
  serve
  run "$ZPROC" ps "$address"
  [[ "$output" != *"lock of the state"* ]]
  hold
  for ((i = 0; i < 600; i++)); do
    run "$ZPROC" ps "$address"
    [[ "$output" != *"lock of the state"* ]] || break
    sleep 0.1
  done
  echo "$output"
  [[ "$output" =~ "The lock of the state's writers is held for "[0-9]+" s by $holder (".+"), for the atomic function at ".*"holder.lua:3." ]]
  run "$ZPROC" top --once "$address"
  echo "$output"
  [[ "$output" =~ "lock       held for "[0-9]+" s by $holder (".+"), for the atomic function at ".*"holder.lua:3" ]]
  kill -STOP "$holder"
  run "$ZPROC" top --once --json "$address"
  echo "$output"
  [[ "$output" == *"\"lock\":{"*"\"pid\":$holder"* ]]
  [[ "$output" == *'"stopped":true'* ]]
  release
  run "$ZPROC" ps "$address" # of one that is dead nothing is said
  [[ "$output" != *"lock of the state"* ]]
  lua 'state.n = 1'
}

@test "a change from a shell need not wait for ever" {
  serve
  lua 'state.n, state.k = 1, 2'
  hold
  for action in "set n 5" "del k"; do
    run timeout 60 "$ZPROC" state "$address" $action --timeout 0.3
    echo "$output"
    [ "$status" -eq 1 ]
    [[ "$output" == *"the lock of the state was not free in time: process $holder ("*"holder.lua:3"* ]]
  done
  echo '{"key":"n","value":9}' >"$dir/dump"
  run timeout 60 "$ZPROC" state "$address" load --timeout 0 "$dir/dump"
  [ "$status" -eq 1 ]
  release
  [ "$("$ZPROC" state "$address" get)" = '{"k":2,"n":1}' ]
  "$ZPROC" state "$address" set n 5 --timeout 5
  [ "$("$ZPROC" state "$address" get n)" = 5 ]
  run "$ZPROC" state "$address" set n 6 --timeout 5 --transport network
  [ "$status" -eq 2 ]
  [[ "$output" == *"shared memory"* ]]
}

@test "an atomic function waits for others as long as it is told, and its own TimeoutError is an error" {
  serve
  lua 'state.n = 1'
  hold
  lua 'local step = zproc.atomic(function(t) t.n = 2 return "done" end, { timeout = 0.2 })
    local result, err = step(state)
    assert(result == nil and zproc.is_error(err, "TimeoutError"), tostring(err))
    assert(err.message:find("holder.lua:3", 1, true), err.message)'
  release
  lua 'local step = zproc.atomic(function(t) t.n = t.n + 1 return t.n, nil, "third" end, { timeout = 5 })
    local a, b, c = step(state)
    assert(a == 2 and b == nil and c == "third")
    local failing = zproc.atomic(function(t) t.n = 7 error(zproc.error_class "TimeoutError" "mine") end, { timeout = 5 })
    local ok, err = pcall(failing, state)
    assert(not ok and zproc.is_error(err, "TimeoutError") and state.n == 2)
    assert(zproc.atomic(function(t) return t.n end)(state) == 2)
    assert(not pcall(zproc.atomic, print, { timeout = -1 }) and not pcall(zproc.atomic, print, { within = 1 }))'
}

@test "an atomic function over the network that does not end is stopped, and its caller is told" {
  ZPROC_ATOMIC_LIMIT=1.5 serve
  lua 'state.n = 1'
  lua 'local far = zproc.state(state.server_address, { transport = "network" })
    local ok, err = pcall(zproc.atomic(function(t) t.n = 5 while true do end end), far)
    assert(not ok and tostring(err):find("it took more than 1.5 seconds; nothing has changed", 1, true), tostring(err))
    ok, err = pcall(zproc.atomic(function(t) t.n = 5 require("zproc").sleep(60) end), far)
    assert(not ok and tostring(err):find("took more than 1.5 seconds", 1, true), tostring(err))
    assert(zproc.atomic(function(t) t.n = t.n + 1 return t.n end)(far) == 2)'
  lua 'local far = zproc.state(state.server_address, { transport = "network" })
    local function refused(limit, fn, words)
      local ok, err = pcall(zproc.atomic(fn, { limit = limit }), far)
      assert(zproc.is_error(err, "RemoteError") and err.message:find(words .. "; nothing has changed", 1, true), tostring(err))
    end
    refused(0.1, function(t) t.n = 5 while true do end end, "it took more than 0.1 seconds") -- the shorter one counts
    refused(60, function(t) t.n = 5 while true do end end, "it took more than 1.5 seconds")
    refused(0.1, function(t) t.n = 5; ("a"):rep(30000):find ".-.-b" end, "it took more than 1.5 seconds") -- which kills
    assert(far.n == 2)'
  hold # on this machine
  lua 'local far = zproc.state(state.server_address, { transport = "network" })
    local ok, err = pcall(zproc.atomic(function(t) t.n = 5 end), far)
    assert(not ok and tostring(err):find("it has waited for the lock of the state: process", 1, true), tostring(err))
    assert(tostring(err):find("holder.lua:3", 1, true), tostring(err))'
  release
  [ "$(lua 'print(zproc.atomic(function(t) t.n = t.n + 1 return t.n end)(zproc.state(state.server_address, { transport = "network" })))')" = 3 ]
}
