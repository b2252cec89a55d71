#!/usr/bin/env bats
# A state that is kept in a data directory: what it survives, and what is refused.

load keeping

# Change something, and wait until there is another snapshot; it may have begun before the change.
change_and_await_snapshot() {
  local before i
  before=$(stat -c %i "$data/snapshot.mdb")
  lua "state.n = $1"
  for ((i = 0; i < 600; i++)); do
    [ "$(stat -c %i "$data/snapshot.mdb" 2>/dev/null || echo "$before")" = "$before" ] || return 0
    sleep 0.1
  done
  return 1
}

# While something changes all the time: have the process that takes a snapshot stopped in the middle of that.
stop_copier() {
  (exec 3>&-; lua 'local n = 0; while true do n = n + 1; state.n = n end' >/dev/null 2>&1) &
  local i
  for ((i = 0; i < 60000; i++)); do
    copier=$(pgrep -P "$(pgrep -P "$server")" || true)
    if [ -n "$copier" ] && kill -STOP "$copier" 2>/dev/null; then
      [ ! -s "$data/snapshot.new" ] || return 0
      kill -CONT "$copier"
    fi
    sleep 0.001
  done
  return 1
}

is_gone() { # PID
  local i
  for ((i = 0; i < 600; i++)); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  return 1
}

damage() { head -c 100000 /dev/urandom >"$data/data.mdb"; }

@test "the state survives its server, however that ends and whatever is synced" {
  for mode in never interval always; do
    rm -rf "$data"
    serve --sync $mode
    lua 'state.n, state.t, state.gone = 1, { 1, { "x" } }, 1; state.gone = nil'
    stop TERM
    serve --sync $mode
    [ "$(lua 'print(state.n, state.t[2][1], state.gone, #state)')" = $'1\tx\tnil\t2' ]
    lua 'state.n = 2'
    stop KILL
    serve --sync $mode
    [ "$(lua 'print(state.n, state.t[2][1], state.gone, #state)')" = $'2\tx\tnil\t2' ]
    stop INT
  done
}

@test "revisions go on, and the past can still be read" {
  serve
  lua 'state.n = "old"; state.n = "new"'
  stop TERM
  serve
  [ "$(lua 'state.n = "newest"; print(state:revision(), state:at(1).n, state:at(2).n)')" = $'3\told\tnew' ]
  [ "$(lua 'for snapshot in state:when_change("n", { since = 1, count = 2 }) do print(snapshot.n) end')" = $'new\nnewest' ]
}

@test "every update that was acknowledged is there after everything was killed" {
  for round in 1 2 3 4 5; do
    serve --sync never
    for writer in a b; do
      : >"$dir/$writer" # that of the round before is not to be counted
      (exec 3>&-; lua 'while true do state[arg[1]] = (state[arg[1]] or 0) + 1; print(state[arg[1]]); io.stdout:flush() end' $writer \
        >"$dir/$writer") &
    done
    for ((i = 0; i < 600; i++)); do
      [ "$(wc -l <"$dir/a")" -lt 200 ] || [ "$(wc -l <"$dir/b")" -lt 200 ] || break
      sleep 0.05
    done
    # The writers, the owner of the server, and the server.
    pkill -9 -f -- "$dir/chunk" || true
    kill -9 $(pgrep -P "$server") "$server"
    wait "$server" || true
    server=
    wait
    serve --sync never
    for writer in a b; do
      last=$(grep -c . "$dir/$writer")
      number=$(sed -n "${last}p" "$dir/$writer")
      kept=$(lua "print(state.$writer)")
      [ "$kept" -ge "$(sed -n "$((last - 1))p" "$dir/$writer")" ]
      [ "$kept" -ge "$number" ] || [ "$(tail -c 1 "$dir/$writer" | wc -l)" -eq 0 ]
    done
    stop TERM
  done
}

@test "one server at a time uses a data directory" {
  serve
  run timeout 60 "$ZPROC" server --bind "ipc://$dir/other" --data-dir "$data"
  [ "$status" -eq 1 ]
  [[ "$output" == *"is in use by another server"* ]]
  lua 'state.n = 1'
  stop TERM
  serve
  [ "$(lua 'print(state.n)')" = 1 ]
}

@test "after a power failure what was synced is there" {
  serve --sync always
  lua 'state.n = 5'
  stop KILL
  pretend_reboot
  serve --sync always
  [ "$(lua 'print(state.n)')" = 5 ]
}

@test "after a power failure the last snapshot is there" {
  serve --sync interval
  lua 'state.n = 5'
  stop TERM
  serve --sync interval # which begins with a snapshot of what there is
  stop KILL
  pretend_reboot
  damage
  serve --sync interval
  [ "$(lua 'print(state.n)')" = 5 ]
  # And others are taken while the state changes.
  change_and_await_snapshot 6
  change_and_await_snapshot 7 # which began after the 6
  stop KILL
  pretend_reboot
  damage
  serve --sync interval
  [ "$(lua 'print(state.n)')" -ge 6 ]
}

@test "after a power failure data that were never synced are refused, not guessed at" {
  serve --sync never
  lua 'state.n = 5'
  stop KILL
  pretend_reboot
  run timeout 60 "$ZPROC" server --data-dir "$data"
  [ "$status" -eq 1 ]
  [[ "$output" == *"may be damaged; remove the directory"* ]]
  # It was the unclean end: one that is in order is enough.
  rm -rf "$data"
  serve --sync never
  lua 'state.n = 6'
  stop TERM
  pretend_reboot
  serve --sync never
  [ "$(lua 'print(state.n)')" = 6 ]
}

@test "what was in order and synced is not given up for an old snapshot" {
  serve --sync interval
  lua 'state.v = "old"'
  stop TERM
  serve --sync always
  lua 'state.v = "new"'
  stop TERM
  mkdir "$data/snapshot.new" # so that there will be none of what is there now
  run timeout 60 "$ZPROC" server --data-dir "$data" --sync interval
  [ "$status" -eq 1 ]
  [[ "$output" == *"snapshot.new"* ]]
  pretend_reboot
  rmdir "$data/snapshot.new"
  serve --sync interval
  [ "$(lua 'print(state.v)')" = new ]
}

@test "whoever knows more than the snapshot that is left is told so" {
  serve --sync interval
  lua 'state.n = 1'
  mkfifo "$dir/go"
  cat >"$dir/client.lua" <<'LUA'
local zproc = require "zproc"
local state = zproc.state(arg[1], { transport = "network" })
for i = 1, 20 do state.n = i end
print(state.n)
io.stdout:flush()
io.open(arg[2]):read "a"
local ok, err = pcall(state.get_when_change, state, "n", { timeout = 60 })
print(ok, zproc.is_error(err, "ServerLost"))
LUA
  timeout 100 "$ZPROC" run "$dir/client.lua" "$address" "$dir/go" >"$dir/told" 2>&1 3>&- &
  client=$!
  await_output "$dir/told"
  cp "$data/snapshot.mdb" "$dir/first"
  stop KILL
  pretend_reboot
  cp "$dir/first" "$data/snapshot.mdb"
  serve --sync interval
  lua 'for i = 100, 129 do state.n = i end'
  echo go >"$dir/go"
  wait "$client"
  [ "$(tail -n 1 "$dir/told")" = $'false\ttrue' ]
}

@test "a server that is killed while a snapshot is taken leaves a whole one, and the next one starts" {
  serve --sync interval
  lua 'for i = 1, 64 do state[i] = ("x"):rep(1 << 20) end'
  for _ in 1 2 3; do
    (exec 3>&-; lua 'local n = 0; while true do n = n + 1; state.n = n end' >/dev/null 2>&1) &
    for ((i = 0; i < 60000; i++)); do
      [ ! -s "$data/snapshot.new" ] || break
      sleep 0.001
    done
    [ $i -lt 60000 ]
    stop KILL
    serve --sync interval
    pkill -9 -f -- "$dir/chunk" || true
    stop KILL
    pretend_reboot
    damage
    serve --sync interval
    [ "$(lua 'for i = 1, 64 do assert(#state[i] == 1 << 20) end; print(#state)')" -ge 64 ]
  done
}

@test "the state grows while a snapshot is taken, for clients of the network as well" {
  serve --sync interval
  lua 'for i = 1, 64 do state[i] = ("x"):rep(1 << 20) end'
  stop_copier
  before=$(stat -c %i "$data/snapshot.mdb")
  lua 'state = zproc.state(arg[1], { transport = "network" }); for i = 65, 160 do state[i] = ("x"):rep(1 << 20) end' "$address"
  pkill -9 -f -- "$dir/chunk"
  [ "$(stat -c %i "$data/snapshot.mdb")" = "$before" ]
  [ "$(lua 'for i = 1, 160 do assert(#state[i] == 1 << 20) end; print(#state)')" -ge 160 ]
  kill -CONT "$copier"
  is_gone "$copier"
  [ "$(stat -c %i "$data/snapshot.mdb")" != "$before" ]
  stop KILL
  pretend_reboot
  damage
  serve --sync interval
  [ "$(lua 'for i = 1, 64 do assert(#state[i] == 1 << 20) end; print(#state)')" -ge 64 ] # what it was begun with
}

@test "the process that takes a snapshot ends with its server, and leaves nothing if that ends in order" {
  serve --sync interval
  lua 'for i = 1, 64 do state[i] = ("x"):rep(1 << 20) end'
  stop_copier
  kill -9 "$copier" # one that is killed is followed by another one
  is_gone "$copier"
  change_and_await_snapshot 6
  pkill -9 -f -- "$dir/chunk"
  stop_copier
  pkill -9 -f -- "$dir/chunk"
  stop TERM
  is_gone "$copier"
  [ ! -e "$data/snapshot.new" ]
  serve --sync interval
  stop_copier
  pkill -9 -f -- "$dir/chunk"
  kill -9 "$(pgrep -P "$server")"
  is_gone "$copier"
  change_and_await_snapshot 7 # there is another server
  stop KILL
  serve --sync interval
  [ "$(lua 'print(#state)')" -ge 64 ]
}

@test "a data directory that is moved away is not mixed up with the one that takes its place" {
  serve --sync interval
  lua 'state.n = "first"'
  mv "$data" "$dir/moved"
  first=$server first_address=$address
  address=ipc://$dir/second
  serve --sync interval
  lua 'assert(state.n == nil); state.n = "second"'
  address=$first_address
  run lua 'print(state.n)'
  [ "$status" -eq 1 ]
  [[ "$output" == *ServerLost*"moved or replaced"* ]]
  kill "$first"
  wait "$first" || true
  address=ipc://$dir/second
  [ "$(lua 'print(state.n)')" = second ]
  stop TERM
  serve
  [ "$(lua 'print(state.n)')" = second ]
  stop TERM
  data=$dir/moved
  serve
  [ "$(lua 'print(state.n)')" = first ]
}

@test "a data directory is free when its server was stopped, whoever else is still about" {
  cat >"$dir/script.lua" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context() -- of another state
local server = zproc.start_server { data_dir = arg[1] }
local process = ctx:process(function() zproc.sleep(1000) end)
server:stop()
server = zproc.start_server { data_dir = arg[1] }
assert(process.is_alive)
print "it is"
LUA
  [ "$("$ZPROC" run "$dir/script.lua" "$data")" = "it is" ]
}

@test "a script can keep its state, too" {
  cat >"$dir/script.lua" <<'LUA'
local zproc = require "zproc"
local server, address = zproc.start_server { data_dir = arg[1], sync = "never" }
local ctx = zproc.context(address)
zproc.atomic(function(snapshot) snapshot.runs = (snapshot.runs or 0) + 1 end)(ctx.state)
print(ctx:process(function(state) return state.runs end):wait())
LUA
  [ "$("$ZPROC" run "$dir/script.lua" "$data")" = 1 ]
  [ "$("$ZPROC" run "$dir/script.lua" "$data")" = 2 ]
}

@test "what cannot be a data directory is refused with words" {
  refused() { # WORDS STATUS OPTION...
    run timeout 60 "$ZPROC" server "${@:3}"
    echo "$output"
    [ "$status" -eq "$2" ]
    [[ "$output" == *"$1"* ]]
  }
  refused '--sync goes with --data-dir' 2 --sync always
  refused '--sync is never, interval or always' 2 --data-dir "$data" --sync sometimes
  refused 'one --data-dir is enough' 2 --data-dir a --data-dir b
  refused '--data-dir takes a value' 2 --data-dir
  echo x >"$dir/file"
  refused 'Not a directory' 1 --data-dir "$dir/file"
  refused 'No such file' 1 --data-dir "$dir/no/where"
  mkdir "$dir/strange"
  echo x >"$dir/strange/data.mdb"
  refused 'it is no data directory' 1 --data-dir "$dir/strange"
  [ "$(cat "$dir/strange/data.mdb")" = x ]
  serve
  stop TERM
  sed -i '1s/zproc [0-9]*/zproc 99/' "$data/status"
  refused 'has format 99' 1 --data-dir "$data"
  echo nonsense >"$data/status"
  refused 'is no status' 1 --data-dir "$data"
}
