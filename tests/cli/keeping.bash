# keeping -- what tests of states in data directories have in common: `load keeping`.
# shellcheck shell=bash

setup() {
  dir=$(mktemp -d)
  data=$dir/data
  address=ipc://$dir/place
}

teardown() {
  [ -z "${server-}" ] || kill -9 "$server" 2>/dev/null || true
  rm -rf "$dir"
}

# Wait until there is something in a file.
await_output() {
  local i
  for ((i = 0; i < 600; i++)); do
    [ ! -s "$1" ] || return 0
    sleep 0.1
  done
  return 1
}

# Start a server on the data directory, and wait until it is there.
# bash starts background processes with SIGINT ignored, and what is ignored stays so.
serve() { # OPTION...
  rm -f "$dir/out"
  env --default-signal=INT "$ZPROC" server --bind "$address" --data-dir "$data" "$@" >"$dir/out" 2>&1 3>&- &
  server=$!
  await_output "$dir/out"
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
