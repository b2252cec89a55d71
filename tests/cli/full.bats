# A full file system: clear errors, nothing lost, nothing hung. Needs to mount a small tmpfs.

setup() {
  dir=$(mktemp -d)
  export ZPROC_RUNTIME_DIR=$dir/small
  mkdir "$ZPROC_RUNTIME_DIR"
  mount -t tmpfs -o size=6m zproc-test "$ZPROC_RUNTIME_DIR" 2>/dev/null || skip "cannot mount a tmpfs here"
}

teardown() {
  left=$(ls -A "$ZPROC_RUNTIME_DIR")
  umount "$ZPROC_RUNTIME_DIR" 2>/dev/null || true
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

@test "a state that is full raises StateFull, has lost nothing, and works again after deleting" {
  cat > "$dir/script.lua" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local state = ctx.state
local block, written = ("x"):rep(100000), 0
local ok, err
repeat
  ok, err = pcall(function() state[written + 1] = block end)
  if ok then written = written + 1 end
until not ok or written > 1000
assert(zproc.is_error(err, "StateFull"), tostring(err))
assert(err.message:find("no space left in", 1, true), err.message)
assert(#state == written and written > 10, written)
for i = 1, written do assert(state[i] == block) end

local increment = zproc.atomic(function(snapshot) snapshot.more = block .. block .. block end)
local done, failure = pcall(increment, state)
assert(not done and zproc.is_error(failure, "StateFull"), tostring(failure))
assert(state.more == nil)

for i = 1, written do state[i] = nil end
assert(#state == 0)
state.count = 5
for i = 1, 10 do state[i] = block end
assert(#state == 11 and state.count == 5)
print "recovered"
LUA
  run timeout 120 "$ZPROC" run "$dir/script.lua"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$output" = "recovered" ]
}

@test "a StateFull that nobody catches ends the script with status 1 and says where the space is missing" {
  cat > "$dir/script.lua" <<'LUA'
local state = require "zproc".context().state
for i = 1, 1000 do state[i] = ("x"):rep(100000) end
LUA
  run timeout 120 "$ZPROC" run "$dir/script.lua"
  [ "$status" -eq 1 ]
  [[ "$output" == *"script.lua:2: StateFull: "*"no space left in"* ]]
}

@test "several processes that fill the state at once all get the error, and none is lost" {
  cat > "$dir/script.lua" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
ctx:process_factory(function(state, kwargs)
  for i = 1, 1000 do
    local ok, err = pcall(function() state[zproc.getpid() .. ":" .. i] = ("x"):rep(30000) end)
    if not ok then return err.name end
  end
end, { count = 3 })
print(table.concat(ctx:wait_all(120), " "))
LUA
  run timeout 120 "$ZPROC" run "$dir/script.lua"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$output" = "StateFull StateFull StateFull" ]
}

@test "a Context for which there is no space at all is an error that says so" {
  dd if=/dev/zero of="$ZPROC_RUNTIME_DIR/filler" bs=64k 2>/dev/null || true
  echo 'require "zproc".context()' > "$dir/script.lua"
  run timeout 120 "$ZPROC" run "$dir/script.lua"
  rm "$ZPROC_RUNTIME_DIR/filler"
  echo "$output"
  [ "$status" -eq 1 ]
  [[ "$output" == *"No space left"* || "$output" == *"no space left"* ]]
}

@test "a map whose results find no room raises StateFull at its items, and the rest goes on when there is room again" {
  cat > "$dir/script.lua" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local refused, done = 0, 0
local result = ctx:process_map(function(n) return ("x"):rep(n == 3 and 20000000 or 1000) end, zproc.range(1, 60), { count = 2 })
while true do
  local ok, value, i = pcall(result.next, result)
  if not ok then
    assert(zproc.is_error(value, "StateFull"), tostring(value))
    refused = refused + 1
  elseif not i then
    break
  else
    done = done + 1
  end
end
assert(refused == 1 and done == 59, refused .. " " .. done)
local all = ctx:process_map(math.abs, { -1, -2 }):collect()
assert(all[1] == 1 and all[2] == 2)

-- Items that find no room are refused at once; an iterator goes on.
local items = {}
for i = 1, 20 do items[i] = ("x"):rep(1000000) end
local ok, err = pcall(ctx.process_map, ctx, string.len, items)
assert(not ok and zproc.is_error(err, "StateFull"), tostring(err))
local i = 0
all = ctx:process_map(string.len, function() i = i + 1 return items[i] end):collect()
assert(all.n == 20, all.n)
print "recovered"
LUA
  run timeout 120 "$ZPROC" run "$dir/script.lua"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$output" = "recovered" ]
}
