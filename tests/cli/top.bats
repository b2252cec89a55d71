#!/usr/bin/env bats
# zproc top: what it shows, to a person and to a program.

setup() {
  dir=$(mktemp -d)
  script=$dir/script.lua
  cat >"$dir/check.lua" <<'LUA'
local shown = require "cjson".decode(io.read "a")
assert(shown.updates_per_second > 0 and shown.interval >= 0.2 and shown.time > 1e9 and shown.revision > shown.oldest)
assert(shown.namespace == "default" and shown.keys == 2 and shown.address:find "^ipc://")
assert(shown.processes.running >= 4 and shown.processes.exited == 1)
assert(shown.waiting == nil or shown.waiting >= 1)
assert(shown.tasks.count == 1 and shown.tasks.items == 3)
LUA
}

teardown() {
  rm -rf "$dir"
}

# Run zproc top with the arguments within a script that sets one key a hundred times while it looks, has a process that waits, one that has
# ended, and a task.
within() {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
ctx:process(function() zproc.exit(3) end)
pcall(ctx.process_list[1].wait, ctx.process_list[1])
ctx:process(function(state) state:get_when_equal("never", 1) end, { name = "a watcher" })
ctx.state.ready = 0
local task = ctx:process_map(function(n) return n end, { 1, 2, 3 }, { count = 1, return_task = true })
ctx:process(function(state) while true do state.count = 1 end end, { name = "a writer" })
ctx.state:get_when_available "count"
local status = select(3, os.execute(("%s top %s %s"):format(os.getenv "ZPROC", ctx.server_address, table.concat(arg, " "))))
ctx:close()
os.exit(status)
LUA
  run timeout 60 "$ZPROC" run "$script" "$@"
}

@test "top --once shows updates, processes and tasks" {
  within --once --interval 0.2
  echo "$output"
  [ "$status" -eq 0 ]
  [ "${#lines[@]}" -eq 5 ]
  [[ "${lines[0]}" =~ ^zproc\ top:\ ipc://.*,\ [0-9:]+$ ]]
  [[ "${lines[1]}" =~ ^updates\ +[1-9][0-9]*\.[0-9]/s,\ revision\ [0-9]+,\ kept\ since\ [0-9]+$ ]]
  [[ "${lines[2]}" =~ ^keys\ +2\ in\ default$ ]]
  # The script, its server, a watcher, a writer, the worker.
  [[ "${lines[3]}" =~ ^processes\ +[45]\ running.*,\ 0\ retrying,\ 1\ exited,\ 0\ gone$ ]]
  [[ "${lines[4]}" =~ ^tasks\ +1\ with\ 3\ items,\ [0-3]\ finished\ \([0-9.]+/s\),\ [01]\ chunks\ at\ work$ ]]
}

@test "top --json is for programs" {
  within --once --json --interval 0.2
  echo "$output"
  [ "$status" -eq 0 ]
  [ "${#lines[@]}" -eq 1 ]
  "$ZPROC" run "$dir/check.lua" <<<"$output"
}

@test "top shows a namespace whatever its bytes" {
  for option in '' --json; do
    NAMESPACE=$'x\xff\e' OPTION=$option run timeout 60 "$ZPROC" eval '
      os.execute(("%s top %s --once --interval 0.01 --namespace \"$NAMESPACE\" $OPTION"):format(os.getenv "ZPROC", ctx.server_address)) return'
    echo "$output"
    [ "$status" -eq 0 ]
    [[ "$output" == *$'in x\xef\xbf\xbd?'* || "$output" == *$'"namespace":"x\xef\xbf\xbd\\u001b"'* ]]
  done
}

@test "top goes on until a signal ends it" {
  mkfifo "$dir/out"
  echo 'local ctx = require "zproc".context() print(ctx.server_address) io.stdout:flush() ctx.state:get_when_available "end"' >"$script"
  "$ZPROC" run "$script" >"$dir/out" 3>&- &
  keeper=$!
  read -r address <"$dir/out"
  "$ZPROC" top "$address" --json --interval 0.01 >"$dir/out" 3>&- &
  top=$!
  exec 4<"$dir/out"
  for _ in 1 2 3; do
    read -r line <&4
    [[ "$line" == *'"keys":0'* ]]
  done
  kill -TERM $top
  status=0
  wait $top || status=$?
  exec 4<&-
  [ "$status" -eq 0 ]
  "$ZPROC" top "$address" --interval 0.01 >"$dir/out" 2>"$dir/err" 3>&- &
  top=$!
  exec 4<"$dir/out"
  read -r line <&4
  "$ZPROC" state "$address" set end true
  wait $keeper
  cat <&4 >/dev/null
  wait $top || status=$?
  exec 4<&-
  [ "$status" -eq 1 ]
  grep -q ServerLost "$dir/err"
}

@test "top redraws on a terminal, and fits" {
  script -qec true /dev/null </dev/null >/dev/null 2>&1 || skip "no pseudo-terminal"
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
for i = 1, 30 do ctx:process(function() zproc.sleep(1000) end, { name = "process " .. i }) end
local pipe = io.popen(("script -qec 'stty rows 20 cols 60; exec %s top %s --interval 0.01' /dev/null </dev/null")
  :format(os.getenv "ZPROC", ctx.server_address))
local frames, frame = 0, 0
repeat
  local line = pipe:read "L"
  if line:find("\27[H", 1, true) then frames, frame = frames + 1, 0 end
  frame = frame + 1
  assert(frame < 20 and #line:gsub("\27%[%a", ""):gsub("[\r\n]", "") < 60, line)
until frames == 3
for _, row in ipairs(ctx:processes()) do assert(row.state == "running") end
ctx:close() -- which ends top as well
pipe:close()
print "done"
LUA
  run timeout 60 "$ZPROC" run "$script"
  echo "$output"
  [ "${lines[-1]}" = "done" ]
}

@test "top shows the same of a server elsewhere" {
  within --once --json --interval 0.2 --transport network
  echo "$output"
  [ "$status" -eq 0 ]
  "$ZPROC" run "$dir/check.lua" <<<"$output"
}

@test "top counts those who wait, threads and clients elsewhere included" {
  [ "$(cat /proc/$PPID/wchan)" != 0 ] || skip "the kernel does not tell where processes sleep"
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local function watch(state) state:get_when_equal("never", 1) end
for _ = 1, 3 do ctx:process(watch) end
for _ = 1, 2 do ctx:process(watch, { backend = "thread" }) end
local network = zproc.context(ctx.server_address, { transport = "network" })
for _ = 1, 4 do network:process(watch) end
local deadline = os.time() + 60
local waiting
repeat
  local pipe <close> = io.popen(("%s top %s --once --json --interval 0.01"):format(os.getenv "ZPROC", ctx.server_address))
  waiting = pipe:read "a":match '"waiting":(%d+)'
until waiting == "9" or os.time() > deadline
print(waiting)
network:close()
LUA
  run timeout 90 "$ZPROC" run "$script"
  [ "$output" = 9 ]
}

@test "top says what is wrong" {
  run "$ZPROC" top
  [ "$status" -eq 2 ]
  [[ "$output" == *"which server?"* ]]
  run "$ZPROC" top ipc:///x --interval 0
  [ "$status" -eq 2 ]
  [[ "$output" == *"--interval takes a number of seconds above 0"* ]]
  run "$ZPROC" top "ipc://$dir/nothing"
  [ "$status" -eq 1 ]
  [[ "$output" == *"ServerLost"* ]]
  run "$ZPROC" top --help
  [ "$status" -eq 0 ]
  [[ "$output" == "usage: zproc top"* ]]
}
