# What becomes of a secret key: who inherits it, and where it is found in memory.

load helpers

KEY='a secret that is looked for 7301'

setup() {
  dir=$(mktemp -d)
  address=none
  printf '%s\n' "$KEY" >"$dir/key"
}

teardown() {
  for pid in ${pids-}; do kill -9 "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$dir"
}

# How often the key is found in the memory of a process that a core dump would have: what is marked as not to be dumped is left out.
in_memory_of() { # PID
  cat >"$dir/look.lua" <<'LUA'
local pid, key = arg[1], io.open(arg[2]):read()
local kept, regions = {}, {}
local first, last
for line in io.lines("/proc/" .. pid .. "/smaps") do
  local a, b, mode = line:match "^(%x+)%-(%x+) (%S+)"
  if a then first, last = tonumber(a, 16), tonumber(b, 16) if not mode:find "^r" or line:find "%[v" then first = nil end end
  local flags = line:match "^VmFlags:(.*)"
  if flags and first then regions[#regions + 1] = { first, last, flags:find " dd" ~= nil } end
end
local memory = io.open("/proc/" .. pid .. "/mem", "rb")
local dumped, others = 0, 0
for _, region in ipairs(regions) do
  memory:seek("set", region[1])
  local bytes = memory:read(region[2] - region[1]) or ""
  local at = 1
  while true do
    at = bytes:find(key, at, true)
    if not at then break end
    if region[3] then others = others + 1 else dumped = dumped + 1 end
    at = at + 1
  end
end
print(dumped, others)
LUA
  lua5.4 "$dir/look.lua" "$1" "$dir/key"
}

@test "programs that a script starts do not inherit the secret, and what is zproc's own knows it" {
  script inherit <<'LUA'
local zproc = require "zproc"
print("env", os.execute "env | grep -c ZPROC_SECRET_KEY" == true, os.getenv "ZPROC_SECRET_KEY")
local server, address = zproc.start_server "tcp://127.0.0.1:*"
local ctx <close> = zproc.context(address, { transport = "network" })
ctx.state.x = 1
print("child", ctx:process(function(state) state.x = 2 return state.x, os.getenv "ZPROC_SECRET_KEY" end):wait())
print("thread", ctx:process(function(state) return state.x end, { backend = "thread" }):wait())
print("map", #ctx:process_map(function(n) return n end, { 1, 2, 3 }):collect())
print("shown", ctx.secret_key, server.secret_key)
print("without", pcall(zproc.state, address, { secret_key = "another" }))
server:stop()
LUA
  for way in "$ZPROC run" "$SRCDIR/tests/run-lua"; do
    # shellcheck disable=SC2086
    run env ZPROC_SECRET_KEY="$KEY" timeout 100 $way "$dir/inherit.lua"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ "$output" == *"env"$'\t'"false"$'\t'"nil"* ]]
    [[ "$output" == *"child"$'\t'"2"* ]]
    [[ "$output" == *"thread"$'\t'"2"* ]]
    [[ "$output" == *"map"$'\t'"3"* ]]
    [[ "$output" == *"shown"$'\t'"nil"$'\t'"nil"* ]]
    [[ "$output" == *"without"$'\t'"false"*"AuthError"* ]]
  done
}

@test "a secret is found neither in a core dump of a process that has used it nor in its environment" {
  [ -z "${ASAN_OPTIONS-}${TSAN_OPTIONS-}" ] || skip "sanitizers have too much memory to be looked through"
  command -v lua5.4 >/dev/null || skip "there is no lua5.4"
  for way in variable file; do
    mkfifo "$dir/out.$way"
    if [ $way = variable ]; then
      ZPROC_SECRET_KEY=$KEY "$ZPROC" server --bind 'tcp://127.0.0.1:*' >"$dir/out.$way" 3>&- &
    else
      "$ZPROC" server --bind 'tcp://127.0.0.1:*' --secret-key-file "$dir/key" >"$dir/out.$way" 3>&- &
    fi
    pid=$!
    pids="${pids-} $pid"
    read -r place <"$dir/out.$way"
    run "$ZPROC" ping "$place" --secret-key-file "$dir/key"
    [ "$status" -eq 0 ]
    for one in "$pid" $(pgrep -P "$pid"); do
      found=$(in_memory_of "$one")
      echo "$way $one: $found"
      [ "$found" = "$(printf '0\t0')" ] # derived, so it is not kept at all
      ! tr '\0' '\n' <"/proc/$one/environ" | grep -q "$KEY"
    done
  done
}

@test "a secret that is not needed yet is in no core dump" {
  [ -z "${ASAN_OPTIONS-}${TSAN_OPTIONS-}" ] || skip "sanitizers have too much memory to be looked through"
  command -v lua5.4 >/dev/null || skip "there is no lua5.4"
  mkfifo "$dir/out"
  echo 'print "here" io.stdout:flush() require "zproc".sleep(1000)' >"$dir/wait.lua"
  ZPROC_SECRET_KEY=$KEY "$ZPROC" run "$dir/wait.lua" >"$dir/out" 3>&- &
  pids=$!
  read -r _ <"$dir/out"
  found=$(in_memory_of "$pids")
  echo "$found"
  [ "$found" = "$(printf '0\t1')" ]
}
