#!/usr/bin/env bats
# Two users of one machine: nobody plants, squats, locks, or lays out links and files, and this user does not fall for it. Both are real:
# so root is needed, who is this user here.

load helpers

setup() {
  [ "$(id -u)" -eq 0 ] || skip "only root can be two users"
  stranger=(setpriv --reuid=65534 --regid=65534 --clear-groups env -u XDG_RUNTIME_DIR)
  "${stranger[@]}" true 2>/dev/null || skip "there is no second user here"
  name=$(id -nu 65534 2>/dev/null || echo 'uid 65534')
  dir=$(mktemp -d /tmp/zproc-strangers.XXXXXX) # a place that both can use, as /tmp is
  chmod 1777 "$dir"
  install -m 755 "$ZPROC" "$dir/zproc" # where it was built may be closed to nobody
  stranger+=(ZPROC_RUNTIME_DIR="$dir" TMPDIR="$dir")
  mkfifo -m 666 "$dir/out"
  address=none
  pids=()
}

teardown() {
  for pid in ${pids[@]+"${pids[@]}"}; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  [ -z "${dir-}" ] || rm -rf "$dir"
}

# Start a server, and have its $address: of nobody, or of this user.
their_server() { start "${stranger[@]}" "$dir/zproc" server "$@"; }
own_server() { start "$ZPROC" server "$@"; }
start() {
  "$@" >"$dir/out" 2>"$dir/errors" 3>&- &
  pids+=($!)
  read -r address <"$dir/out"
}

# A state whose values run code in whoever reads them.
plant() {
  cat >"$dir/plant.lua" <<LUA
local zproc = require "zproc"
local state = zproc.state(arg[1])
state.config = setmetatable({}, { __gc = function() os.execute "echo ran as \$(id -u) >>$dir/planted" end })
LUA
  chmod 644 "$dir/plant.lua"
  "${stranger[@]}" "$dir/zproc" run "$dir/plant.lua" "$1"
  rm -f "$dir/planted"
}

denied() { # COMMAND...: it fails, and says whose that is
  run timeout 60 "$@"
  echo "$output"
  [ "$status" -eq 1 ]
  [[ "$output" == *"permission denied"*"$name"* ]]
  [ ! -e "$dir/planted" ]
}

@test "an address at which another user's server is found is not followed, not even by root" {
  their_server --bind "ipc://$dir/app.sock"
  plant "$address"
  random=ipc://$("${stranger[@]}" readlink "$dir/app.sock")
  for place in "$address" "$random"; do
    denied "$ZPROC" state "$place" get config
    denied "$ZPROC" state "$place" set config 1
    denied "$ZPROC" state "$place" dump
    denied "$ZPROC" ping "$place"
    denied "$ZPROC" ps "$place"
    denied "$ZPROC" top "$place" --once
    denied "$ZPROC" worker "$place"
    for transport in network auto; do denied "$ZPROC" state "$place" get config --transport $transport; done
    denied "$ZPROC" ping "$place" --transport network
    for call in 'zproc.context(ADDRESS)' 'zproc.state(ADDRESS)' 'zproc.ping(ADDRESS)' 'zproc.process(print, ADDRESS)'; do
      address=$place script call <<<"local zproc = require 'zproc' zproc.start_server() $call"
      denied "$ZPROC" run "$dir/call.lua"
    done
  done
}

@test "another user's server can be used by whoever says so" {
  their_server --bind "ipc://$dir/app.sock"
  "${stranger[@]}" "$dir/zproc" state "$address" set count 5
  run "$ZPROC" state "$address" get count --allow-user 65534
  [ "$output" = 5 ]
  run "$ZPROC" state "$address" get count --allow-user "$name" --transport network
  [ "$name" = "uid 65534" ] || [ "$output" = 5 ]
  run "$ZPROC" ping "$address" --allow-user 65534
  [ "$status" -eq 0 ]
  script allow <<'LUA'
local zproc = require "zproc"
local ctx <close> = zproc.context(ADDRESS, { allow_user = "65534" })
ctx.state.count = ctx.state.count + 1
ctx:process(function(state) state.count = state.count + 1 end):wait()
print(ctx.state.count, #ctx:process_map(function(n) return n end, { 1, 2, 3 }):collect())
LUA
  run "$ZPROC" run "$dir/allow.lua"
  echo "$output"
  [ "$output" = "$(printf '7\t3')" ]
  run "$ZPROC" state "$address" get count --allow-user nobody-of-that-name
  echo "$output"
  [ "$status" -eq 2 ]
  [[ "$output" == *"no user 'nobody-of-that-name'"* ]]
}

@test "what a user who is not root cannot open is said to be another user's" {
  own_server --bind "ipc://$dir/app.sock"
  for command in "ping $address" "state $address get x" "ps $address"; do
    # shellcheck disable=SC2086
    run timeout 60 "${stranger[@]}" "$dir/zproc" $command
    echo "$output"
    [ "$status" -eq 1 ]
    [[ "$output" == *"permission denied"*"belongs to root (uid 0)"* ]]
  done
}

@test "a link of another user is not followed, even if it leads to a server of one's own" {
  own_server
  "$ZPROC" state "$address" set secret 1
  "${stranger[@]}" ln -s "${address#ipc://}" "$dir/app.sock"
  denied "$ZPROC" state "ipc://$dir/app.sock" get secret
  "${stranger[@]}" mkdir "$dir/way"
  "${stranger[@]}" ln -s "$(dirname "${address#ipc://}")" "$dir/way/state"
  denied "$ZPROC" state "ipc://$dir/way/state/server" get secret
  ln -s "${address#ipc://}" "$dir/own.sock"
  run "$ZPROC" state "ipc://$dir/own.sock" get secret
  [ "$output" = 1 ]
}

@test "a file of a state that was given to another user, or opened to others, is not used" {
  own_server
  place=$(dirname "${address#ipc://}")
  "$ZPROC" state "$address" set x 1
  for file in control data.mdb lock.mdb bell processes; do
    [ -e "$place/$file" ] || continue
    chown 65534 "$place/$file"
    denied "$ZPROC" state "$address" set x 2 || [ "$file" = processes ]
    chown 0 "$place/$file"
    chmod 666 "$place/$file"
    run "$ZPROC" state "$address" set x 2
    echo "$file: $output"
    [ "$status" -eq 1 ] || [ "$file" = processes ]
    chmod 600 "$place/$file"
  done
  chmod 755 "$place"
  run "$ZPROC" state "$address" get x
  echo "$output"
  [ "$status" -eq 1 ]
  [[ "$output" == *"other users than root"* ]]
  chmod 700 "$place"
  run "$ZPROC" state "$address" set x 3
  [ "$status" -eq 0 ]
}

@test "an address that another user has taken is in use, and it is said by whom" {
  their_server --bind "ipc://$dir/app.sock"
  run timeout 60 "$ZPROC" server --bind "ipc://$dir/app.sock"
  echo "$output"
  [ "$status" -eq 2 ]
  [[ "$output" == *"in use"* ]]
  own_server --bind "ipc://$dir/own.sock"
  run timeout 60 "${stranger[@]}" "$dir/zproc" server --bind "ipc://$dir/own.sock"
  echo "$output"
  [ "$status" -eq 2 ]
  [[ "$output" == *"in use"*"root (uid 0)"* ]]
  run timeout 60 "$ZPROC" server --bind "ipc://$dir/own.sock"
  echo "$output"
  [ "$status" -eq 2 ]
  [[ "$output" == *"in use: process"* ]]
}

@test "nobody keeps a server from its address by a lock on the directory, or for long by one of his files" {
  "${stranger[@]}" flock --no-fork "$dir" sleep 1000 3>&- &
  pids+=($!)
  until ! flock -n "$dir" true; do sleep 0.05; done
  own_server --bind "ipc://$dir/app.sock"
  run "$ZPROC" ping "$address"
  [ "$status" -eq 0 ]
  "${stranger[@]}" touch "$dir/other.sock.lock"
  run timeout 60 "$ZPROC" server --bind "ipc://$dir/other.sock"
  echo "$output"
  [ "$status" -eq 1 ]
  [[ "$output" == *"$dir/other.sock.lock belongs to $name"* ]]
  [ ! -e "$dir/app.sock.lock" ]
}

@test "a data directory of another user, or that others can write, is not used" {
  "${stranger[@]}" mkdir "$dir/data"
  denied "$ZPROC" server --data-dir "$dir/data"
  mkdir -m 777 "$dir/open"
  run timeout 60 "$ZPROC" server --data-dir "$dir/open"
  echo "$output"
  [ "$status" -eq 1 ]
  [[ "$output" == *"other users"*"can write $dir/open"* ]]
  # Data that another user has made, in a directory of one's own.
  mkdir "$dir/own"
  their_server --data-dir "$dir/theirs"
  kill "${pids[0]}"
  wait "${pids[0]}" || true
  cp -a "$dir/theirs/." "$dir/own"
  denied "$ZPROC" server --data-dir "$dir/own"
  own_server --data-dir "$dir/own" --allow-user 65534
  before=$(stat -c %i "$dir/own/snapshot.mdb")
  run "$ZPROC" state "$address" set x 1
  [ "$status" -eq 0 ]
  for ((i = 0; i < 600; i++)); do # the process that takes the snapshot trusts that user, too
    [ "$(stat -c %i "$dir/own/snapshot.mdb")" = "$before" ] || break
    sleep 0.1
  done
  cat "$dir/errors"
  [ ! -s "$dir/errors" ]
}

@test "a lock on a data directory by somebody who can read it keeps nothing waiting" {
  mkdir -m 755 "$dir/data"
  "${stranger[@]}" flock --no-fork "$dir/data" sleep 1000 3>&- &
  pids+=($!)
  until ! flock -n "$dir/data" true; do sleep 0.05; done
  own_server --data-dir "$dir/data"
  run "$ZPROC" state "$address" set x 1
  [ "$status" -eq 0 ]
}

@test "a runtime directory of another user is not used" {
  "${stranger[@]}" mkdir -m 777 "$dir/run"
  script context <<<"print(require 'zproc'.context().state)"
  denied env ZPROC_RUNTIME_DIR="$dir/run" "$ZPROC" run "$dir/context.lua"
  denied env ZPROC_RUNTIME_DIR="$dir/run" "$ZPROC" server
  run env ZPROC_RUNTIME_DIR="$dir" "$ZPROC" run "$dir/context.lua" # which is shared, but this user's own
  [ "$status" -eq 0 ]
}

@test "what another user lays out in a shared place is neither used nor removed" {
  "${stranger[@]}" mkdir "$dir/zproc-0-0123456789abcdef"
  "${stranger[@]}" touch "$dir/zproc-0-0123456789abcdef/owner"
  mkdir "$dir/kept"
  touch "$dir/kept/file"
  "${stranger[@]}" ln -s "$dir/kept" "$dir/zproc-0-fedcba9876543210"
  script context <<<"print(require 'zproc'.context().state)"
  run env ZPROC_RUNTIME_DIR="$dir" "$ZPROC" run "$dir/context.lua"
  echo "$output"
  [ "$status" -eq 0 ]
  [ -e "$dir/zproc-0-0123456789abcdef/owner" ]
  [ -e "$dir/kept/file" ]
}
