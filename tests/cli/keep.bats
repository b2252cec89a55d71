#!/usr/bin/env bats
# A state that is kept in a data directory: what it survives, and what is refused.

setup() {
  dir=$(mktemp -d)
  data=$dir/data
  address=ipc://$dir/place
}

teardown() {
  [ -z "${server-}" ] || kill -9 "$server" 2>/dev/null || true
  rm -rf "$dir"
}

# Start a server on the data directory, and wait until it is there.
serve() { # OPTION...
  rm -f "$dir/out"
  "$ZPROC" server --bind "$address" --data-dir "$data" "$@" >"$dir/out" 2>&1 3>&- &
  server=$!
  for ((i = 0; i < 600; i++)); do
    [ ! -s "$dir/out" ] || break
    sleep 0.1
  done
  [ "$(cat "$dir/out")" = "$address" ]
}

stop() { # SIGNAL
  kill "-$1" "$server"
  wait "$server" || true
  server=
}

# Run a chunk with `state`.
lua() {
  local chunk=$dir/chunk.$BASHPID.lua
  printf 'local zproc = require "zproc"\nlocal state = zproc.state "%s"\n%s\n' "$address" "$1" >"$chunk"
  timeout 60 "$ZPROC" run "$chunk" "${@:2}"
}

# As if the machine had gone down and come up again.
pretend_reboot() {
  sed -i "1s/[0-9a-f]\{8\}-[0-9a-f-]*/00000000-0000-0000-0000-000000000000/" "$data/status"
}

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
