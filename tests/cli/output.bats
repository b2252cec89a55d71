#!/usr/bin/env bats
# What processes print: whole lines, whoever prints beside them; and labels.

setup() {
  dir=$(mktemp -d)
  script=$dir/script.lua
}

teardown() {
  rm -rf "$dir"
}

# Every line must be one letter, so many times as it says at its end; and there must be so many lines.
check_lines() { # FILE COUNT
  cat >"$dir/check.lua" <<'LUA'
local count = 0
for line in io.lines(arg[1]) do
  local text, length = line:match "^(%a+):(%d+)$"
  assert(text and #text == tonumber(length) and text == text:sub(1, 1):rep(#text), "a mixed line: " .. line:sub(1, 100))
  count = count + 1
end
assert(count == tonumber(arg[2]), count .. " lines")
LUA
  lua5.4 "$dir/check.lua" "$1" "$2"
}

# Eight that print at the same time, in pieces, lines of 1 to 100,000 letters.
write_printers() { # BACKEND
  cat >"$script" <<LUA
local zproc = require "zproc"
local ctx = zproc.context()
for i = 1, 8 do
  ctx:process(function(state, k)
    local letter = string.char(96 + k)
    state:get_when_available "go"
    for n = 1, 300 do
      local length = n % 100 == 0 and 100000 or n % 10 == 0 and 5000 or n % 77 + 1
      local out = n % 3 == 0 and io.stderr or io.stdout
      if n % 7 == 0 then
        print(letter:rep(length) .. ":" .. length)
      else
        out:write(letter:rep(length // 2), letter:rep(length - length // 2))
        out:write(":", length, "\n")
      end
    end
  end, { args = { i }, backend = "$1" })
end
ctx.state.go = true
ctx:wait_all()
LUA
}

# Whoever starts without a standard file must not get the state's own files in its place, and print into them.
@test "a process whose standard files are closed leaves the state alone" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local state = zproc.state(arg[1])
print "out"
io.stderr:write "err\n"
state.runs = state.runs + 1
LUA
  "$ZPROC" server --bind "ipc://$dir/place" --data-dir "$dir/data" --sync never >"$dir/told" &
  server=$!
  timeout 60 sh -c "until grep -q . '$dir/told'; do sleep 0.01; done"
  "$ZPROC" state "ipc://$dir/place" set runs 0
  for command in "$ZPROC run" "$SRCDIR/tests/run-lua"; do
    for closed in '<&-' '>&-' '2>&-' '<&- >&-' '<&- >&- 2>&-'; do
      eval "$command '$script' 'ipc://$dir/place' $closed" >"$dir/out" 2>"$dir/err" || true
    done
  done
  [ "$("$ZPROC" state "ipc://$dir/place" get runs)" = 10 ]
  ! "$ZPROC" state "ipc://$dir/place" get no <&- >&- 2>&-
  run "$ZPROC" state "ipc://$dir/place" get runs >&-
  [ "$("$ZPROC" state "ipc://$dir/place" get runs)" = 10 ]
  kill "$server"
  wait "$server"
  : >"$dir/told" # now, not when the next one has come so far
  "$ZPROC" server --bind "ipc://$dir/place" --data-dir "$dir/data" --sync never <&- 2>&- >"$dir/told" &
  server=$!
  timeout 60 sh -c "until grep -q . '$dir/told'; do sleep 0.01; done"
  [ "$("$ZPROC" state "ipc://$dir/place" get runs)" = 10 ]
  kill "$server"
  wait "$server"
}

@test "what cannot be printed because standard output is closed is an error" {
  echo 'print "text"' >"$script"
  run sh -c "'$ZPROC' run '$script' 2>&1 >&-"
  [ "$status" -eq 1 ]
  [ "$output" = "zproc: standard output: Bad file descriptor" ]
}

@test "lines of processes do not mix in a pipe" {
  write_printers process
  "$ZPROC" run "$script" 2>&1 | cat >"$dir/out"
  check_lines "$dir/out" 2400
}

@test "lines of processes do not mix in a file" {
  write_printers process
  "$ZPROC" run "$script" >>"$dir/out" 2>&1
  check_lines "$dir/out" 2400
}

@test "a line that a thread has begun waits for its end when another thread flushes" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local thread = ctx:process(function(state)
  io.write "begun"
  state.half = true
  while not state.go do end
  io.write " and ended\n"
end, { backend = "thread" })
ctx.state:get_when_available "half"
ctx:process(function() end):wait() -- a fork flushes every stream
print "between"
ctx.state.go = true
thread:wait()
LUA
  "$ZPROC" run "$script" >"$dir/out"
  cat "$dir/out"
  [ "$(cat "$dir/out")" = $'between\nbegun and ended' ]
}

@test "lines of threads do not mix" {
  write_printers thread
  "$ZPROC" run "$script" 2>&1 | cat >"$dir/out"
  check_lines "$dir/out" 2400
}

@test "a line that was begun before a process was started stays one line, and appears once" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
io.write("one ", "line ")
ctx:process(function() io.write("of another\n") end):wait()
ctx:process(function() end):wait()
print "of mine"
io.write "and an end without a newline"
LUA
  run "$ZPROC" run "$script"
  [ "$status" -eq 0 ]
  [ "$output" = $'of another\none line of mine\nand an end without a newline' ]
}

@test "however a process ends, what it has printed is there" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local ways = {
  function() io.write "return;" end,
  function() io.write "exit;" os.exit(3) end,
  function() io.write "zproc.exit;" zproc.exit(3) end,
  function() io.stderr:write "stderr;" end,
  function() io.write "flushed;" io.flush() os.execute("kill -9 $PPID") end,
}
for _, way in ipairs(ways) do ctx:process(way) end
for _, one in ipairs(ctx.process_list) do pcall(one.wait, one) end
io.write "the script;"
os.exit(4)
LUA
  run "$ZPROC" run "$script"
  [ "$status" -eq 4 ]
  for word in return exit zproc.exit stderr flushed 'the script'; do [[ "$output" == *"$word;"* ]]; done
}

@test "a prompt is seen when it is flushed, and what stands on standard error when its process waits" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
ctx:process(function() end):wait()
io.write "prompt> "
io.flush()
io.read()
io.stderr:write "working..."
zproc.sleep(1000)
LUA
  mkfifo "$dir/out" "$dir/in"
  "$ZPROC" run "$script" <"$dir/in" >"$dir/out" 2>&1 &
  pid=$!
  exec 5>"$dir/in" 6<"$dir/out"
  read -r -N 8 -t 60 words <&6
  [ "$words" = "prompt> " ]
  echo >&5
  read -r -N 10 -t 60 words <&6
  [ "$words" = "working..." ]
  kill "$pid"
  exec 5>&- 6<&-
}

@test "who cannot go on printing holds the others up for a moment only" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local stuck = ctx:process(function(state)
  state.begins = true
  io.write(("x"):rep(1 << 20), "\n")
end)
ctx.state:get_when_available "begins"
if arg[1] == "kill" then
  stuck:stop()
else
  os.execute("while ! grep -q ') S ' /proc/" .. stuck.pid .. "/stat; do sleep 0.01; done")
end
ctx:process(function() io.stderr:write "still alive\n" end):wait()
LUA
  mkfifo "$dir/out"
  exec 6<>"$dir/out" # nobody reads
  for how in kill block; do
    timeout 60 "$ZPROC" run "$script" $how >"$dir/out" 2>"$dir/err"
    [ "$(cat "$dir/err")" = "still alive" ]
  done
  exec 6>&-
}

# A line is out when it is complete: its writer may be killed at the next instant.
write_finishers() {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local function written(name)
  local seen = {}
  for line in io.lines(arg[1]) do seen[line] = true end
  return seen[name]
end
local function write_line(state, name)
  io.write("line of ", name, "\n")
  state[name] = true
end
local function run(name, target, how, opts)
  local p = ctx:process(function(state) write_line(state, name) target(state) end, opts)
  ctx.state:get_when_available(name)
  assert(written("line of " .. name), name .. ": it is not there while its process goes on")
  how(p)
  assert(written("line of " .. name), name)
end
local function stop(p) p:stop() end
local function sleep() zproc.sleep(1000) end
local function compute() while true do end end
run("sleeper", sleep, stop)
run("computer", compute, stop)
run("waiter", function(state) state:get_when_available "never" end, stop)
run("killed", sleep, function(p) os.execute("kill -9 " .. p.pid) pcall(p.wait, p) end)
run("thread", sleep, stop, { backend = "thread" })
run("catcher", function() zproc.signal_to_error "SIGTERM" sleep() end, stop)
ctx:process_map(function(x) io.write("item ", x, "\n") return x end, { 1, 2 }):collect()
assert(written "item 1" and written "item 2")
io.write "line of the script\n"
assert(written "line of the script")
assert(io.stdout:setvbuf "full")
io.write "line of a block\n"
assert(not written "line of a block")
LUA
}

@test "a line is out when it is complete, to a file" {
  write_finishers
  for command in "$ZPROC run" "$SRCDIR/tests/run-lua"; do
    $command "$script" "$dir/out" >"$dir/out"
    [ "$(wc -l <"$dir/out")" = 10 ]
  done
}

@test "a line is out when it is complete, to a pipe" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local p = ctx:process(function(state)
  io.write "one\n" state.one = true
  zproc.sleep(1000)
end)
ctx.state:get_when_available "one"
io.write "two\n"
io.read()
p:stop()
LUA
  mkfifo "$dir/out" "$dir/in"
  for command in "$ZPROC run" "$SRCDIR/tests/run-lua"; do
    $command "$script" <"$dir/in" >"$dir/out" &
    exec 5>"$dir/in" 6<"$dir/out"
    read -r -t 60 first <&6
    read -r -t 60 second <&6
    [ "$first $second" = "one two" ]
    echo >&5
    exec 5>&- 6<&-
    wait $!
  done
}

@test "what a process cannot print is an error of the process and of the script, with a word" {
  [ -e /dev/full ] || skip "no /dev/full"
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local ways = {
  line = function() print "x" end,
  held = function() io.write "x" end,
  result = function() print "x" return 1 end,
  exit = function() print "x" os.exit(0) end,
  zexit = function() print "x" zproc.exit(0) end,
  context = function(inner) print "x" inner.state.x = 1 end,
  stop = function(state) print "x" state.x = 1 zproc.sleep(1000) end,
}
local how, backend = arg[1], arg[2]
if how == "script" then print "x" os.exit(0) end
if how == "map" then
  ctx:process_map(function(x) print(x) return x end, { 1, 2, 3 }):collect()
  return
end
local p = ctx:process(ways[how], { pass_context = how == "context", backend = backend })
if how == "stop" then
  ctx.state:get_when_available "x"
  p:stop()
else
  local ok, err = pcall(p.wait, p)
  assert(not ok and err.exitcode == 1, err)
end
LUA
  check() { # COMMAND STATUS ARGUMENT...
    local command=$1 wanted=$2 status=0
    shift 2
    $command "$script" "$@" >/dev/full 2>"$dir/err" || status=$?
    cat "$dir/err"
    [ "$status" -eq "$wanted" ]
    grep -q "standard output: No space left on device" "$dir/err"
  }
  for how in script line held result exit zexit context stop map; do
    check "$ZPROC run" 1 $how
  done
  for how in line held result context; do check "$ZPROC run" 1 $how thread; done
  check "$SRCDIR/tests/run-lua" 1 script # the others end with the status of lua5.4, which does not look
  for how in line stop map; do check "$SRCDIR/tests/run-lua" 0 $how; done
}

@test "run --prefix labels each line with name and pid" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
print "first\nsecond"
io.stderr:write("to ", "stderr\n")
ctx:process(function() print(zproc.getpid()) end, { name = "worker" }):wait()
ctx:process(function() io.write "in a thread\n" end, { name = "thread", backend = "thread" }):wait()
ctx:process(function(inner) inner:process(function() print "deeper" end, { name = "inner" }):wait() end, { pass_context = true }):wait()
local failing = ctx:process(function() error "failed" end, { name = "failing" })
pcall(failing.wait, failing)
print(arg[1])
LUA
  run "$ZPROC" run --prefix "$script" argument
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "${lines[0]}" =~ ^\[script\.lua\ [0-9]+\]\ first$ ]]
  [[ "${lines[1]}" =~ ^\[script\.lua\ [0-9]+\]\ second$ ]]
  [[ "${lines[2]}" =~ ^\[script\.lua\ [0-9]+\]\ to\ stderr$ ]]
  [[ "${lines[3]}" =~ ^\[worker\ ([0-9]+)\]\ ([0-9]+)$ ]]
  [ "${BASH_REMATCH[1]}" = "${BASH_REMATCH[2]}" ]
  [[ "${lines[4]}" =~ ^\[thread\ [0-9]+\]\ in\ a\ thread$ ]]
  [[ "${lines[5]}" =~ ^\[inner\ [0-9]+\]\ deeper$ ]]
  [[ "${lines[6]}" =~ ^\[failing\ [0-9]+\]\ zproc:\ process\ failing ]]
  [[ "${lines[7]}" =~ ^\[failing\ [0-9]+\]\ stack\ traceback: ]]
  [[ "${lines[-1]}" =~ ^\[script\.lua\ [0-9]+\]\ argument$ ]]
}

@test "run refuses options that it does not know" {
  run "$ZPROC" run --prefx x.lua
  [ "$status" -eq 2 ]
  [[ "$output" == *"unknown option '--prefx'"* ]]
  run "$ZPROC" run --prefix
  [ "$status" -eq 2 ]
  [[ "$output" == *"which script"* ]]
  run "$ZPROC" run --help
  [ "$status" -eq 0 ]
  [[ "$output" == *"--prefix"* ]]
}
