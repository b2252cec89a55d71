# A data directory on a disk that is full: clear errors, nothing lost that was acknowledged, and it goes on when there is room again.
# The disk is a small tmpfs in a mount namespace of its own.

setup() {
  dir=$(mktemp -d)
  mkdir "$dir/disk"
  unshare -Urm mount -t tmpfs -o size=1m zproc-test "$dir/disk" 2>/dev/null || skip "no tmpfs can be mounted in a namespace of one's own here"
  cat >"$dir/common.lua" <<'LUA'
zproc = require "zproc"
disk, mode = arg[1], arg[2]

function serve()
  local server, address = zproc.start_server { data_dir = disk .. "/data", sync = mode }
  return server, zproc.state(address)
end

block = ("0123456789"):rep(3000)

--- Write keys until there is no room; the last that was acknowledged. The error must say what is wrong.
function fill(state, from)
  local n = from
  while true do
    local ok, err = pcall(function() state[n + 1] = block end)
    if not ok then
      assert(zproc.is_error(err, "StateFull"), tostring(err))
      assert(err.message:find("no space left in " .. disk, 1, true), err.message)
      return n
    end
    n = n + 1
    assert(n < 10000, "it is never full")
  end
end

function check(state, n)
  for i = 1, n do assert(state[i] == block, i) end
  assert(state[n + 1] == nil)
end

--- What somebody else takes: all there is.
function take_the_rest()
  local file = assert(io.open(disk .. "/foreign", "w"))
  file:setvbuf "no"
  while file:write(("x"):rep(4096)) do end
  while file:write "x" do end
  file:close()
end

function give_it_back() assert(os.remove(disk .. "/foreign")) end

--- A larger disk.
function enlarge(size) assert(os.execute(("mount -t tmpfs -o remount,size=%s zproc-test %s"):format(size, disk))) end
LUA
}

teardown() { rm -rf "$dir"; }

# Run a script with a disk of 16 MB, for each mode.
on_a_small_disk() {
  { cat "$dir/common.lua"; cat; } >"$dir/script.lua"
  for mode in never interval always; do
    # The inner shell is to expand it.
    # shellcheck disable=SC2016
    run timeout 120 unshare -Urm sh -c 'mount -t tmpfs -o size=16m zproc-test "$1" && exec "$2" run "$3" "$1" "$4"' _ \
      "$dir/disk" "$ZPROC" "$dir/script.lua" $mode
    echo "$mode: $output"
    [ "$status" -eq 0 ]
    [[ "$output" == *"as it should be" ]]
  done
}

@test "a data directory that has filled its disk has lost nothing, and goes on when keys are deleted" {
  on_a_small_disk <<'LUA'
local server, state = serve()
local n = fill(state, 0)
assert(n > 50, n)
check(state, n)
server:stop()
if mode == "interval" then
  -- It is to have a snapshot of what it begins with, for which there is no room, nor may half of one take any.
  local ok, err = pcall(serve)
  assert(not ok and zproc.is_error(err, "StateFull"), tostring(err))
  assert(not io.open(disk .. "/data/snapshot.new"))
  enlarge "64m"
end
server, state = serve() -- on the full disk
check(state, n)
for i = 1, n do state[i] = nil end
assert(#state == 0)
local again = fill(state, 0)
assert(again > n // 2, again)
check(state, again)
server:stop()
if mode == "interval" then enlarge "256m" end
server, state = serve()
check(state, again)
print "as it should be"
LUA
}

@test "while somebody else fills the disk nothing that was acknowledged is lost, and it goes on when there is room again" {
  on_a_small_disk <<'LUA'
local server, state = serve()
for i = 1, 20 do state[i] = block end
take_the_rest()
local n = fill(state, 20)
check(state, n)
os.execute("kill -9 " .. server.pid) -- another takes over, on the full disk
assert(state:ping { timeout = 60 })
check(state, n)
give_it_back()
for i = n + 1, n + 50 do state[i] = block end
check(state, n + 50)
take_the_rest()
n = fill(state, n + 50)
server:stop()
give_it_back()
if mode == "interval" then enlarge "64m" end -- for a snapshot beside the last one, which may have been small
server, state = serve()
check(state, n)
state[n + 1] = block
print "as it should be"
LUA
}

@test "a data directory that finds no room at all is an error that says so, and is made when there is some" {
  on_a_small_disk <<'LUA'
take_the_rest()
local ok, err = pcall(serve)
assert(not ok and zproc.is_error(err), tostring(err))
assert(tostring(err):lower():find("no space left", 1, true), tostring(err))
give_it_back()
local server, state = serve()
state[1] = block
server:stop()
server, state = serve()
check(state, 1)
print "as it should be"
LUA
}

@test "a state that is new has no room on a full disk, and it is the disk that is named" {
  on_a_small_disk <<'LUA'
take_the_rest()
assert(os.execute("truncate --size=-300K " .. disk .. "/foreign")) -- enough for the directory
local ok, err = pcall(serve)
assert(not ok and zproc.is_error(err, "StateFull"), tostring(err))
assert(err.message:find("no space left in " .. disk .. "/data", 1, true), err.message)
give_it_back()
local server, state = serve()
check(state, 0)
server:stop()
print "as it should be"
LUA
}
