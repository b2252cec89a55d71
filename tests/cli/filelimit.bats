# A limit on the size of files (ulimit -f) is a disk that is full: an error, and no process dies of it.

setup() {
  dir=$(mktemp -d)
  cat >"$dir/fill.lua" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context(...)
local function fill(state)
  for i = 1, 1000 do
    local ok, err = pcall(function() state[i] = ("x"):rep(100000) end)
    if not ok then return zproc.is_error(err, "StateFull"), err.message:match "ulimit %-f" end
  end
end
print("here", fill(ctx.state))
ctx.state:clear()
ctx.state.after = "works"
print("a process", ctx:process(fill):wait())
ctx.state:clear()
print("a map", ctx:process_map(function() return 1 end, zproc.range(1, 100)):collect().n, ctx.state.after)
ctx.state.done = true
print(ctx.state.done)
LUA
}

teardown() {
  for pid in ${server-}; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}

limited() { bash -c 'ulimit -f 8000; exec "$@"' _ "$@"; } # blocks of 1,024 bytes

expect() { # the output of fill.lua, whose State goes the way
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"here"$'\t'"true"$'\t'"ulimit -f"* ]]
  [[ "$output" == *"a process"*"true"* ]]
  [[ "$output" == *"true" ]]
}

@test "a state that may not grow is full, in a script and its processes" {
  run limited timeout 100 "$ZPROC" run "$dir/fill.lua"
  expect
}

@test "the same in a plain lua5.4, which has its own way with the signal back in the end" {
  run limited timeout 100 "$SRCDIR/tests/run-lua" "$dir/fill.lua"
  expect
}

@test "the same of a server with a data directory, for those who reach it by the network, too" {
  mkfifo "$dir/out"
  bash -c 'ulimit -f 8000; exec "$@"' _ "$ZPROC" server --data-dir "$dir/data" >"$dir/out" 2>"$dir/errors" 3>&- &
  server=$!
  read -r address <"$dir/out"
  echo 'local zproc = require "zproc"
    local state = zproc.state(arg[1], { transport = "network" })
    local ok, err = true, nil
    for i = 1, 1000 do
      ok, err = pcall(function() state[i] = ("x"):rep(100000) end)
      if not ok then break end
    end
    print(ok, err.name)
    state:clear()
    state.x = 1
    print(state.x)' >"$dir/net.lua"
  run timeout 100 "$ZPROC" run "$dir/net.lua" "$address"
  echo "$output"
  [ "$output" = "$(printf 'false\tStateFull\n1')" ]
  kill -0 "$server"
  run "$ZPROC" ping "$address"
  [ "$status" -eq 0 ]
}

@test "where not even a state can be made, that is said" {
  echo 'print(pcall(require "zproc".context))' >"$dir/context.lua"
  run bash -c 'ulimit -f 16; exec "$@"' _ timeout 100 "$ZPROC" run "$dir/context.lua"
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *"false"*"StateFull"* ]]
}

@test "programs that a script starts are ended by the signal as ever, and what ignores it goes on to" {
  echo 'print(os.execute("head -c 10000000 /dev/zero >" .. arg[1]))' >"$dir/start.lua"
  run bash -c 'ulimit -f 100; exec "$@"' _ "$ZPROC" run "$dir/start.lua" "$dir/file"
  echo "$output"
  [[ "$output" == *"153"* || "$output" == *"signal"* ]]
  run bash -c 'trap "" XFSZ; ulimit -f 100; exec "$@"' _ "$ZPROC" run "$dir/start.lua" "$dir/other"
  echo "$output"
  [[ "$output" == *"exit"$'\t'1* ]]
}
