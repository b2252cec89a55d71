#!/usr/bin/env bats
# zproc ps: what it prints, and what it refuses.

setup() {
  dir=$(mktemp -d)
  script=$dir/script.lua
}

teardown() {
  rm -rf "$dir"
}

# Run zproc ps with the arguments within a script that has processes.
within() {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
ctx:process(function() zproc.exit(3) end, { name = "has left" })
pcall(ctx.process_list[1].wait, ctx.process_list[1])
ctx:process(function(state) state:get_when_equal("never", 1) end, { name = os.getenv "NAME" or "stays" })
ctx:ping() -- then the server is in the list, too
assert(os.execute(("%s ps %s %s"):format(os.getenv "ZPROC", ctx.server_address, table.concat(arg, " "))))
LUA
  run "$ZPROC" run "$script" "$@"
}

@test "ps lists the script, the server and the processes" {
  within
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "${lines[0]}" =~ ^PID\ +PARENT\ +STATE\ +TRIES\ +START\ +EXIT\ +NAME$ ]]
  [ "${#lines[@]}" -eq 5 ]
  [[ "${lines[1]}" =~ ^[0-9]+\ +[0-9]+\ +running\ +1\ +[0-9-]+\ [0-9:]+\ +-\ +"$script"$ ]]
  [[ "$output" =~ running\ +1\ +[0-9-]+\ [0-9:]+\ +-\ +server ]]
  [[ "$output" =~ exited\ +1\ +[0-9-]+\ [0-9:]+\ +3\ +has\ left ]]
  [[ "$output" =~ running\ +1\ +[0-9-]+\ [0-9:]+\ +-\ +stays ]]
}

@test "ps has one line for each process, whatever its name" {
  NAME=$'two\nlines' within
  echo "$output"
  [ "$status" -eq 0 ]
  [ "${#lines[@]}" -eq 5 ]
  [[ "$output" == *"two?lines"* ]]
  NAME=$'caf\xe9 \e[31m \u009b31m' within
  [ "$status" -eq 0 ]
  [[ "$output" == *$'caf\ufffd ?[31m ?31m'* ]]
}

@test "ps --json is for programs" {
  within --json
  echo "$output"
  [ "$status" -eq 0 ]
  cat >"$dir/check.lua" <<'LUA'
local rows = require "cjson".decode(io.read "a")
local by_name = {}
for _, row in ipairs(rows) do by_name[row.name] = row end
assert(#rows == 4 and by_name.server.state == "running" and by_name.stays.parent == by_name[arg[1]].pid)
assert(by_name["has left"].exitcode == 3 and by_name["has left"].state == "exited" and by_name.stays.exitcode == nil)
assert(by_name.stays.tries == 1 and by_name.stays.started > 1e9)
LUA
  "$ZPROC" run "$dir/check.lua" "$script" <<<"$output"
}

@test "ps --json has every process, whatever the bytes of a name" {
  NAME=$'caf\xe9 \e[31m \u009b31m' within --json
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *$'"caf\ufffd \\u001b[31m \\u009b31m"'* ]]
  [[ "$output" == *'"server"'* ]]
}

@test "ps says what is wrong" {
  run "$ZPROC" ps
  [ "$status" -eq 2 ]
  [[ "$output" == *"which server"* ]]
  run "$ZPROC" ps --jsn ipc:///tmp/x
  [ "$status" -eq 2 ]
  [[ "$output" == *"unknown argument '--jsn'"* ]]
  run "$ZPROC" ps nonsense
  [ "$status" -eq 2 ]
  run "$ZPROC" ps "ipc://$dir/nothing"
  [ "$status" -eq 1 ]
  [[ "$output" == *"ServerLost"* ]]
  run "$ZPROC" ps --help
  [ "$status" -eq 0 ]
  [[ "$output" == *"--json"* ]]
}
