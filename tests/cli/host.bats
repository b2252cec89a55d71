# The module in a program that has handlers, masks and children of its own (host.c): they go on as if zproc were not there.

bats_require_minimum_version 1.5.0

setup_file() {
  export HOST_DIR
  HOST_DIR=$(mktemp -d)
  # shellcheck disable=SC2046
  "${CC:-cc}" -D_GNU_SOURCE -o "$HOST_DIR/host" "$SRCDIR/tests/cli/host.c" $(pkg-config --cflags --libs lua5.4) ||
    skip "no library of Lua to build a host with"
}

teardown_file() { rm -rf "$HOST_DIR"; }

setup() {
  dir=$(mktemp -d)
  script=$dir/script.lua
  export ZPROC_RUNTIME_DIR=$dir/runtime
  mkdir "$ZPROC_RUNTIME_DIR"
  # What scripts begin with: zproc is there, and has used all that it has handlers for.
  cat >"$dir/use.lua" <<'LUA'
zproc = require "zproc"
function await(condition)
  local limit = os.time() + 60
  while not condition() do
    assert(os.time() < limit, "it does not happen")
    zproc.sleep(0.005)
  end
end
function use()
  ctx = zproc.context()
  assert(ctx:process(function() return "forked" end):wait() == "forked")
  assert(ctx:process(function() return "thread" end, { backend = "thread" }):wait() == "thread")
  local first = ctx:ping()
  os.execute("kill -9 " .. first)
  await(function() return ctx:ping { timeout = 60 } ~= first end)
end
LUA
}

teardown() {
  left=$(ls -A "$ZPROC_RUNTIME_DIR")
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

host() { env USE="$dir/use.lua" ZP_TEST_LUA="$HOST_DIR/host" ZP_TEST_FINDS=1 timeout -k 5 120 "$SRCDIR/tests/run-lua" "$@"; }

# SIGCHLD and the others, by number, for what a script does before it has zproc.
CHLD=$(kill -l CHLD) URG=$(kill -l URG) IO=$(kill -l IO) USR1=$(kill -l USR1) TERM=$(kill -l TERM)

@test "all that a host has of signals, streams, limits, mask and locale is as before when its VM is closed, and in the next one" {
  cat >"$script" <<LUA
for signal in ("$CHLD $URG $IO $USR1"):gmatch "%d+" do host.handle(tonumber(signal), "count") end
host.handle($TERM, "ignore")
host.block($IO)
host.note()
dofile(os.getenv "USE")
use()
zproc.signal_to_error "SIGUSR1"
zproc.signal_to_error "SIGTERM"
print(pcall(function()
  os.execute("kill -USR1 " .. zproc.getpid())
  zproc.sleep(60)
end))
LUA
  run --separate-stderr host "$script" "$script"
  echo "$output" "$stderr"
  [ "$status" -eq 0 ]
  [ "${#lines[@]}" -eq 3 ]
  [[ "${lines[0]}" == "false"*"SIGUSR1"* ]]
  [[ "${lines[1]}" == "false"*"SIGUSR1"* ]]
  [ "${lines[2]}" = "as before" ]
}

@test "a host without any handler has none afterwards, and is not ended by what is late" {
  cat >"$script" <<LUA
dofile(os.getenv "USE")
for _ = 1, 4 do
  use()
  ctx:close()
end
LUA
  run --separate-stderr host "$script" "$script"
  echo "$output" "$stderr"
  [ "$status" -eq 0 ]
  [ "$output" = "as before" ]
}

@test "the host's handlers are called beside ours, while zproc is in use" {
  cat >"$script" <<LUA
for signal in ("$CHLD $URG $IO"):gmatch "%d+" do host.handle(tonumber(signal), "count") end
dofile(os.getenv "USE")
use()
for number in ("$CHLD $URG $IO"):gmatch "%d+" do
  number = tonumber(number)
  local before = host.count(number)
  os.execute("kill -" .. number .. " " .. zproc.getpid())
  await(function() return host.count(number) > before end)
end
print "called"
LUA
  run --separate-stderr host "$script"
  echo "$output" "$stderr"
  [ "$status" -eq 0 ]
  [ "${lines[0]}" = called ]
}

@test "a host's children are reported to it, and zproc's are not taken for them" {
  cat >"$script" <<LUA
host.handle($CHLD, "reap")
dofile(os.getenv "USE")
use()
local pids = {}
for i = 1, 20 do
  pids[i] = host.fork(i)
  ctx:process(function() zproc.exit(3) end, { name = "ours" })
end
for i, pid in ipairs(pids) do
  await(function() return host.status(pid) end)
  assert(host.status(pid) == i)
end
for _, process in ipairs(ctx.process_list) do
  pcall(process.wait, process)
  if process.name == "ours" then assert(process.exitcode == 3, process.exitcode) end
end
print "reported"
LUA
  run --separate-stderr host "$script"
  echo "$output" "$stderr"
  [ "$status" -eq 0 ]
  [ "${lines[0]}" = reported ]
}

@test "a host that waits for whichever child takes no result and no exit code of ours" {
  cat >"$script" <<LUA
host.handle($CHLD, "reap_any")
dofile(os.getenv "USE")
use()
for round = 1, 10 do
  local ours, pids = {}, {}
  for i = 1, 10 do
    pids[i] = host.fork(i)
    ours[i] = ctx:process(function(_, n)
      if n % 2 == 0 then zproc.exit(n) end
      return n
    end, { args = { i } })
  end
  for i = 1, 10 do
    await(function() return host.status(pids[i]) == i end)
    if i % 2 == 0 then
      pcall(ours[i].wait, ours[i])
      assert(ours[i].exitcode == i, ours[i].exitcode)
    else
      assert(ours[i]:wait() == i and ours[i].exitcode == 0)
    end
  end
end
print "all there"
LUA
  run --separate-stderr host "$script"
  echo "$output" "$stderr"
  [ "$status" -eq 0 ]
  [ "${lines[0]}" = "all there" ]
}

@test "a host that ignores SIGCHLD gets no zombies, of its children or ours" {
  cat >"$script" <<LUA
host.handle($CHLD, "ignore")
host.note()
dofile(os.getenv "USE")
use()
for i = 1, 10 do
  local pid = host.fork(i)
  local ours = ctx:process(function() zproc.exit(4) end)
  pcall(ours.wait, ours)
  assert(ours.exitcode == 4, ours.exitcode)
  await(function() return not host.is_child(pid) and not host.is_child(ours.pid) end)
end
LUA
  run --separate-stderr host "$script"
  echo "$output" "$stderr"
  [ "$status" -eq 0 ]
  [ "$output" = "as before" ]
}

@test "a host that has blocked SIGCHLD, to read it elsewhere, still has it blocked and pending; processes are waited for all the same" {
  cat >"$script" <<LUA
host.block($CHLD)
host.note()
dofile(os.getenv "USE")
use()
local pid = host.fork(1)
for i = 1, 20 do assert(ctx:process(function() return i end):wait() == i) end
assert(host.pending($CHLD) and host.is_child(pid))
LUA
  run --separate-stderr host "$script"
  echo "$output" "$stderr"
  [ "$status" -eq 0 ]
  [ "$output" = "as before" ]
}

@test "a host that puts its handler over ours, whether it calls ours or not, leaves ours working" {
  for how in chain reap; do
    cat >"$script" <<LUA
dofile(os.getenv "USE")
use()
for round = 1, 8 do
  if round == 1 or "$how" == "reap" then host.handle($CHLD, "$how") end
  local before = host.count($CHLD)
  for i = 1, 5 do
    local ours = ctx:process(function() zproc.exit(6) end)
    pcall(ours.wait, ours)
    assert(ours.exitcode == 6, ours.exitcode)
  end
  await(function() return host.count($CHLD) > before end)
end
host.handle($CHLD, "default")
print "fine"
LUA
    run --separate-stderr host "$script" "$script"
    echo "$how: $output" "$stderr"
    [ "$status" -eq 0 ]
    [ "${lines[1]}" = fine ]
  done
}

@test "where the host's handler lets system calls go on, or there is none, the end of a process interrupts nothing" {
  for how in restart default; do
    cat >"$script" <<LUA
host.handle($CHLD, "$how")
dofile(os.getenv "USE")
use()
for _ = 1, 5 do
  local pipe = assert(io.popen("read -r line <" .. arg[1] .. "; echo line"))
  local process = ctx:process(function() end) -- it ends while the pipe is read
  ctx:process(function(_, pid)
    while os.execute("kill -0 " .. pid .. " 2>/dev/null") do zproc.sleep(0.001) end
    io.open(arg[1], "w"):write "go\n":close()
  end, { args = { process.pid } })
  assert(pipe:read "l" == "line")
  process:wait()
end
print "fine"
LUA
    rm -f "$dir/fifo"
    mkfifo "$dir/fifo"
    sed -i "s#arg\[1\]#'$dir/fifo'#" "$script"
    run --separate-stderr host "$script"
    echo "$how: $output" "$stderr"
    [ "$status" -eq 0 ]
    [ "${lines[0]}" = fine ]
  done
}
