# No program that is started gets a descriptor of ours: a state could be read, or its memory be held, by whatever runs longer.

load helpers

setup() {
  dir=$(mktemp -d)
  export ZPROC_RUNTIME_DIR=$dir/runtime
  mkdir "$ZPROC_RUNTIME_DIR"
  # A program that appends a line for each descriptor that it has beyond the standard ones.
  cat >"$dir/list" <<'SH'
for link in /proc/$$/fd/*; do
  # The one by which this list was read is gone by now, and the text of this program is the shell's own.
  [ "${link##*/}" -lt 3 ] || ! [ -L "$link" ] || [ "$(readlink "$link")" = "$0" ] || ls -l "$link" | sed 's,.*/fd/,,' >>"$1"
done
echo "$2" >>"$1.names"
SH
  sh "$dir/list" "$dir/before" before
  touch "$dir/before"
  # A sanitizer that lua5.4 was preloaded with has nothing to look for in programs of others.
  export LIST="env -u LD_PRELOAD sh $dir/list $dir/after"
}

teardown() {
  left=$(ls -A "$ZPROC_RUNTIME_DIR")
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

# All of these were started, and had nothing that a program started from here does not have.
nothing_new() { # NAME...
  printf '%s\n' "$@" | sort >"$dir/wanted"
  sort -u "$dir/after.names" | diff "$dir/wanted" -
  touch "$dir/after"
  run grep -v -x -F -f "$dir/before" "$dir/after"
  echo "$output"
  [ -z "$output" ]
}

# What all of them have open here: a local state with a queue, a server with data, one for the network.
contexts='
local zproc = require "zproc"
local function start(name) os.execute(os.getenv "LIST" .. " " .. name) end
local ctx = zproc.context()
ctx.state.a = 1
local kept, place = zproc.start_server(nil, { data_dir = os.getenv "KEPT" })
local state = zproc.context(place).state
state.a = 1
local server, address = zproc.start_server "tcp://127.0.0.1:*"
local remote = zproc.context(address)
remote.state.a = 1
'

body='
start "execute"
io.popen(os.getenv "LIST" .. " popen"):close()
ctx:process(function(s) s.b = 1 start "process" end):wait()
ctx:process(function(s) s.b = 1 os.execute(os.getenv "LIST" .. " thread") end, { backend = "thread" }):wait()
ctx:process_map(function(x) start "worker" end, { 1 }, { count = 1 }):collect()
zproc.atomic(function(s) s.c = 1 start "atomic" end)(ctx.state)
zproc.atomic(function(s) s.c = 1 os.execute(os.getenv "LIST" .. " runner") end)(remote.state)
remote:process(function(s) s.b = 1 start "client" end):wait()
remote:process_map(function(x) start "client-worker" end, { 1 }, { count = 1 }):collect()
ctx:process(function(s) s.b = 1 start "after-map" end):wait()
'

@test "programs that a script starts, in whatever process or thread of it" {
  export KEPT=$dir/kept
  printf '%s' "$contexts" "$body" >"$dir/script.lua"
  run "$ZPROC" run "$dir/script.lua"
  echo "$output"
  [ "$status" -eq 0 ]
  nothing_new execute popen process thread worker atomic runner client client-worker after-map
}

@test "the same with the module in lua5.4" {
  export KEPT=$dir/kept
  printf '%s' "$contexts" "$body" >"$dir/script.lua"
  run env ZP_TEST_FINDS=1 "$SRCDIR/tests/run-lua" "$dir/script.lua"
  echo "$output"
  [ "$status" -eq 0 ]
  nothing_new execute popen process thread worker atomic runner client client-worker after-map
}

@test "a server and a worker of the command line, and what they start" {
  "$ZPROC" server --bind 'tcp://127.0.0.1:*' --data-dir "$dir/kept" >"$dir/out" 2>"$dir/server" 3>&- &
  server=$!
  await "$dir/out" tcp://
  address=$(grep -o 'tcp://[^ ]*' "$dir/out")
  "$ZPROC" worker "$address" --count 1 --transport network >"$dir/worker" 2>&1 3>&- &
  worker=$!
  await "$dir/worker" 'workers for'
  script task <<'LUA'
local zproc = require "zproc"
local list = os.getenv "LIST"
local ctx <close> = zproc.context(ADDRESS, { transport = "network" })
zproc.atomic(function(s) s.c = 1 os.execute(list .. " runner") end)(ctx.state)
print(#ctx:process_map(function(x) os.execute(list .. " worker") return x end, { 1, 2 }, { count = 1 }):collect())
LUA
  run timeout 100 "$ZPROC" run "$dir/task.lua"
  echo "$output"
  kill "$worker" "$server"
  wait "$worker" "$server" || true
  [ "$status" -eq 0 ]
  nothing_new runner worker
}
