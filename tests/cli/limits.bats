# At the limits that the system sets: no more processes, no more descriptors. The errors name the cause, nothing is left behind, and
# it goes on when there is room again.

setup() {
  # Another user has to reach it, so it is not in the private $TMPDIR of the tests.
  dir=$(mktemp -d /tmp/zproc-test.XXXXXX)
  script=$dir/script.lua
  export ZPROC_RUNTIME_DIR=$dir/runtime
  mkdir "$ZPROC_RUNTIME_DIR"
  user=
}

teardown() {
  left=$(ls -A "$ZPROC_RUNTIME_DIR")
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
  [ -z "$user" ] || ! pgrep -u "$user" -a
}

# Run the script where the user may have so many processes. For root there is no such limit, so it is a user whom nobody else is.
with_processes() {
  # A sanitizer that looks for leaks starts a process, too.
  [ -z "${ASAN_OPTIONS-}" ] || export ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0:log_path=stderr"
  if [ "$(id -u)" != 0 ]; then
    run timeout 120 bash -c 'ulimit -u "$1"; exec "$2" run "$3"' _ "$1" "$ZPROC" "$script"
    return
  fi
  user=$((300000 + $$))
  cp "$ZPROC" "$dir/zproc"
  chmod 755 "$dir" "$dir/zproc"
  chmod 777 "$ZPROC_RUNTIME_DIR"
  run timeout 120 setpriv --reuid="$user" --regid="$user" --clear-groups \
    bash -c 'ulimit -u "$1"; exec "$2" run "$3"' _ "$1" "$dir/zproc" "$script"
}

@test "where no process can be started, a Context is an error that says so" {
  echo 'require "zproc".context()' >"$script"
  with_processes 1
  echo "$output"
  [ "$status" -eq 1 ]
  [[ "$output" == *"script.lua:1: SystemError: cannot start a server: there are as many processes as "*"(ulimit -u)"* ]]
}

@test "a process too many is an error; the others go on, and when one has ended there is room again" {
  [ "$(id -u)" = 0 ] || skip "the other processes of this user count too"
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local function start() return ctx:process(function(state) state:get_when_equal("go", true) return "went" end) end
local ok, err
repeat ok, err = pcall(start) until not ok
print(zproc.is_error(err, "SystemError"), #ctx.process_list, err.message)

-- What could not be started is as it was.
local later = ctx:process(function() return "later" end, { start = false })
print(pcall(later.start, later) == false, later.pid, later.is_alive)

ctx.process_list[1]:stop()
print(later:start() == later.pid, later:wait())

-- Below it is the same, and the error comes home.
local p = ctx:process(function(inner) inner:process(function() end) end, { pass_context = true })
local _, failure = pcall(p.wait, p)
print(failure.cause.name, failure.cause.message)

ctx.state.go = true
print(pcall(ctx.process_list[1].wait, ctx.process_list[1]))
LUA
  with_processes 6
  echo "$output"
  [ "$status" -eq 0 ]
  words='cannot start a process: there are as many processes as this user, or this container, may have (ulimit -u)'
  [[ "$output" == *"true"$'\t4\t'"$words"* ]]
  [[ "$output" == *$'true\tnil\tfalse\ntrue\tlater\n'* ]]
  [[ "$output" == *"SystemError"$'\t'"$words"* ]]
  [[ "$output" == *$'true\twent' ]]
}

@test "without descriptors everything works or is an error that says so, and it works again when there are some" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local address = ...

local held = {}
local function free(count)
  for _ = 1, count do table.remove(held):close() end
end
--- Take all descriptors but so many.
local function fill(spare)
  for file in function() return (io.open "/dev/null") end do held[#held + 1] = file end
  free(spare)
end
local function descriptors()
  for _ = 1, 3 do collectgarbage() end -- what is finalised may have held something that is
  -- Not by io.popen, which has the other end of its pipe open for a moment.
  local path = os.tmpname()
  os.execute(("ls /proc/%d/fd | wc -l >%s"):format(zproc.getpid(), path))
  local file <close> = assert(io.open(path))
  os.remove(path)
  return tonumber(file:read "a")
end

--- With ever more descriptors, until it works; it has to fail at least so often.
local function attempt(what, least, fn)
  local failures = 0
  for spare = 0, 30 do
    fill(spare)
    local result = table.pack(pcall(fn))
    free(#held)
    if result[1] then
      assert(failures >= least, what .. " failed only " .. failures .. " times")
      return table.unpack(result, 2, result.n)
    end
    local err = result[2]
    if zproc.is_error(err, "ProcessWaitError") then err = err.cause end
    assert(zproc.is_error(err, "SystemError"), what .. ": " .. tostring(err))
    assert(err.message:find "Too many open files", what .. ": " .. tostring(err))
    failures = failures + 1
  end
  error(what .. " never works")
end

zproc.context():close()
local before = descriptors()

attempt("a Context", 5, function()
  local ctx <close> = zproc.context()
  assert(ctx:process(function(state) return state:ping() end):wait() == ctx:ping())
end)
attempt("a server", 5, function()
  local server = zproc.start_server(address)
  assert(zproc.ping(address) == server.pid)
  server:stop()
end)
attempt("a server in a thread", 5, function() zproc.context({ server_backend = "thread" }):close() end)

local ctx = zproc.context()
attempt("a process", 1, function()
  assert(ctx:process(function(state)
    state.x = 1
    return state:get_when_equal("x", 1).x
  end):wait() == 1)
end)
attempt("a thread", 1, function() assert(ctx:process(function() return 1 end, { backend = "thread" }):wait() == 1) end)
attempt("a map", 1, function()
  assert(ctx:process_map(function(n) return n end, { 1, 2, 3 }, { count = 1 }):collect().n == 3)
end)
attempt("a watching process", 1, function() ctx:call_when_change("x", print) end)
attempt("a ping", 1, function() ctx:ping() end)
attempt("a State and a watcher", 0, function()
  local state = zproc.state(ctx.server_address)
  assert(state:get_when_equal("x", 1).x == 1)
  assert(state:get_when(function(snapshot) return snapshot.x end).x == 1)
  state:close()
end)

-- A server that dies while there is no descriptor to start another is started when there are some.
local pid = ctx.server_process.pid
fill(0)
os.execute("kill -9 " .. pid)
while ctx.server_process.pid do zproc.sleep(0.001) end
free(#held)
assert(ctx:ping { timeout = 60 } ~= pid)
-- Its pipe takes two; it has to make do with these.
local again = ctx.server_process.pid
fill(2)
os.execute("kill -9 " .. again)
while ctx.server_process.pid == again do zproc.sleep(0.001) end
free(#held)
assert(ctx:ping { timeout = 60 } ~= again)

ctx:close()
ctx = nil -- luacheck: ignore
print(descriptors() - before)
LUA
  run timeout 120 bash -c 'ulimit -n 64; exec "$ZPROC" run "$1" "ipc://$2/place" 2>/dev/null' _ "$script" "$dir"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$output" = 0 ]
  [ ! -e "$dir/place" ]
}

@test "with far too few descriptors the commands fail and leave nothing" {
  echo 'require "zproc".context()' >"$script"
  for limit in 6 7 8 9 10; do
    run timeout 120 bash -c 'ulimit -n "$1"; exec "$ZPROC" run "$2"' _ "$limit" "$script"
    [ "$status" -eq 1 ]
    [[ "$output" == *"Too many open files"* ]]
    run timeout 120 bash -c 'ulimit -n "$1"; exec "$ZPROC" server --bind "ipc://$2/place"' _ "$limit" "$dir"
    [ "$status" -eq 1 ]
    [[ "$output" == *"Too many open files"* ]]
    [ -z "$(ls -A "$ZPROC_RUNTIME_DIR")" ]
    [ ! -e "$dir/place" ]
  done
}
