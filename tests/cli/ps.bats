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
  NAME=$'caf\xe9 \e[31m \xc2\x9b31m' within
  [ "$status" -eq 0 ]
  [[ "$output" == *$'caf\xef\xbf\xbd ?[31m ?31m'* ]]
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
  NAME=$'caf\xe9 \e[31m \xc2\x9b31m' within --json
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "$output" == *$'"caf\xef\xbf\xbd \\u001b[31m \\u009b31m"'* ]]
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

@test "the system's ps has names for what zproc starts, too" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context { server_backend = arg[1] }
local function names(what)
  local pipe <close> = io.popen("env -u LD_PRELOAD ps -L -o comm= -p " .. what)
  return "\n" .. pipe:read "a"
end
local function sleep(state, name) state[name] = true zproc.sleep(1000) end
local function start(name, backend, given)
  local p = ctx:process(sleep, { args = { name }, name = given, backend = backend })
  ctx.state:get_when_available(name)
  return p
end
local server = arg[1] == "thread" and zproc.getpid() or ctx.server_process.pid
repeat until names(server):find "\nzproc%-server\n"
assert(names(start("named", nil, "mailer").pid):find "\nmailer\n")
assert(names(start("long", nil, "a-name-that-is-too-long").pid):find "\na%-name%-that%-is%-\n")
assert(names(start("unnamed").pid):find "\nscript%.lua:%d+\n")
start("thread", "thread", "in a thread")
assert(names(zproc.getpid()):find "\nin a thread\n")
ctx:process_map(function(x) return x end, { 1 }):collect()
assert(names(ctx.worker_list[1].pid):find "\nworker\n")
local far = zproc.state(ctx.server_address, { transport = "network" })
zproc.atomic(function(snapshot) snapshot.x = 1 end)(far)
if arg[1] == "process" then
  local pipe <close> = io.popen("env -u LD_PRELOAD ps -o comm= --ppid " .. server)
  assert(pipe:read "l" == "zproc-runner")
end
assert(names(zproc.getpid()):match "^\n(%g+)\n" == arg[2])
LUA
  for backend in process thread; do
    "$ZPROC" run "$script" $backend zproc
    "$SRCDIR/tests/run-lua" "$script" $backend lua5.4
  done
}
