# Two machines: two network namespaces with a cable between them, which is pulled out in the middle of things. The second has processes and
# files of its own as well, so nothing there is taken for the same machine. Takes the right to make namespaces.

load helpers

setup() {
  [ "$(id -u)" -eq 0 ] || skip "only root can make network namespaces"
  command -v ip >/dev/null || skip "there is no ip (Debian: iproute2)"
  dir=$(mktemp -d)
  a=zpa$$ b=zpb$$
  subnet=10.$((RANDOM % 250 + 1)).$((RANDOM % 250 + 1))
  if ! ip netns add "$a" 2>/dev/null || ! ip netns add "$b" 2>/dev/null ||
    ! ip link add "$a" netns "$a" type veth peer name "$b" netns "$b" 2>/dev/null ||
    ! ip netns exec "$b" unshare -m -p -f --mount-proc true 2>/dev/null; then
    clean
    skip "cannot make network namespaces here"
  fi
  ip -n "$a" addr add $subnet.1/24 dev "$a"
  ip -n "$b" addr add $subnet.2/24 dev "$b"
  ip -n "$a" link set lo up
  ip -n "$b" link set lo up
  plug
  printf 'a key for the tests' >"$dir/key"
  mkfifo "$dir/out"
  ip netns exec "$a" "$ZPROC" server --bind "tcp://$subnet.1:*" --secret-key-file "$dir/key" >"$dir/out" 2>"$dir/server" 3>&- &
  server=$!
  read -r address <"$dir/out"
}

clean() {
  ip netns del "$a" 2>/dev/null || true
  ip netns del "$b" 2>/dev/null || true
  rm -rf "$dir"
}

teardown() {
  [ -n "${server-}" ] || return 0
  for pid in "$server" ${other-}; do kill "$pid" 2>/dev/null || true; done
  ip netns pids "$b" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
  wait 2>/dev/null || true
  clean
}

plug() { ip -n "$a" link set "$a" up && ip -n "$b" link set "$b" up; }
pull() { ip -n "$a" link set "$a" down; }

# The cable is out for so many seconds.
cut() {
  pull
  sleep "$1"
  ip -n "$a" link set lo up
  ip -n "$b" link set lo up
  plug
}

# Run something on the first machine, or on the second.
here() { ip netns exec "$a" env ZPROC_SECRET_KEY="$(cat "$dir/key")" timeout 100 "$@" 3>&-; }
there() {
  # The words are for the inner shell.
  # shellcheck disable=SC2016
  ip netns exec "$b" env ZPROC_SECRET_KEY="$(cat "$dir/key")" unshare -m -p -f --mount-proc --kill-child sh -c \
    'mount -t tmpfs zproc-test /dev/shm && exec timeout 100 "$@"' sh "$@" 3>&-
}

@test "the same script runs on another machine: only the address is another" {
  script all <<'LUA'
local zproc = require "zproc"
local ctx <close> = zproc.context(ADDRESS)
ctx.state.count = 0
local increment = zproc.atomic(function(snapshot) snapshot.count = snapshot.count + 1 end)
ctx:process_factory(function(state)
  for _ = 1, 100 do increment(state) end
end, { count = 2 })
local watcher = ctx:process(function(state) return state:get_when_equal("count", 200).count end)
print(watcher:wait(), ctx:wait_all().n, ctx.state.count)
print(table.concat(ctx:process_map(function(n) return n * n end, { 1, 2, 3 }):collect(), " "))
print(select(2, pcall(zproc.state, ADDRESS, { secret_key = "another" })).name)
ctx.state.count = nil
LUA
  expected=$(printf '200\t2\t200\n1 4 9\nAuthError')
  run there "$ZPROC" run "$dir/all.lua"
  echo "$output"
  [ "$output" = "$expected" ]
  run here "$ZPROC" run "$dir/all.lua"
  echo "$output"
  [ "$output" = "$expected" ]
}

@test "no update is lost or doubled when the cable is pulled in the middle of writes" {
  script writer <<'LUA'
local zproc = require "zproc"
local state = zproc.state(ADDRESS)
local increment = zproc.atomic(function(snapshot) snapshot.count = (snapshot.count or 0) + 1 end)
local done, unknown = 0, 0
print "begun"
io.stdout:flush()
repeat
  local ok, err = pcall(increment, state)
  if ok then done = done + 1
  elseif zproc.is_error(err, "ServerLost") then unknown = unknown + 1
  else error(err) end
  state["writer wrote"] = done
until ok and state.stop
local count = state.count
print(count >= done and count <= done + unknown, unknown)
LUA
  there "$ZPROC" run "$dir/writer.lua" >"$dir/written" 2>&1 &
  other=$!
  await "$dir/written" begun
  cut 1
  cut 2
  echo 'require("zproc").state(ADDRESS).stop = true' | script stop
  here "$ZPROC" run "$dir/stop.lua"
  wait $other
  other=
  cat "$dir/written"
  [ "$(tail -n 1 "$dir/written")" = "true	0" ]
}

@test "a watcher misses nothing while the cable is out" {
  script watcher <<'LUA'
local zproc = require "zproc"
local state = zproc.state(ADDRESS)
print "begun"
io.stdout:flush()
local expected = 1
for snapshot in state:when_change("news") do
  assert(snapshot.news == expected, snapshot.news)
  expected = expected + 1
  if expected > 300 then break end
end
print "all"
LUA
  script writer <<'LUA'
local zproc = require "zproc"
local state = zproc.state(ADDRESS)
for i = 1, 300 do
  state.news = i
  zproc.sleep(0.01)
end
LUA
  there "$ZPROC" run "$dir/watcher.lua" >"$dir/watched" 2>&1 &
  other=$!
  await "$dir/watched" begun
  here "$ZPROC" run "$dir/writer.lua" &
  cut 1
  cut 1
  wait $other
  other=
  cat "$dir/watched"
  [ "$(tail -n 1 "$dir/watched")" = all ]
}

@test "a map goes on with workers of both machines, and without those whose cable is out" {
  there "$ZPROC" worker "$address" --count 2 >"$dir/workers" 2>&1 &
  other=$!
  await "$dir/workers" "workers for"
  script map <<'LUA'
local zproc = require "zproc"
local ctx <close> = zproc.context(ADDRESS)
local result = ctx:process_map(function(n)
  zproc.sleep(0.01)
  return { n, os.getenv "WHERE" or "there" }
end, zproc.range(1, 600), { count = 1 })
local sides = {}
for i, value in result do
  assert(value[1] == i)
  sides[value[2]] = true
  if i == 100 or i == 400 then
    print(i)
    io.stdout:flush()
  end
end
print(sides.here and sides.there and "both")
LUA
  WHERE=here here "$ZPROC" run "$dir/map.lua" >"$dir/mapped" 2>&1 &
  mapping=$!
  await "$dir/mapped" 100
  cut 1
  await "$dir/mapped" 400
  pull
  wait $mapping
  cat "$dir/mapped"
  [ "$(tail -n 1 "$dir/mapped")" = both ]
}

@test "who is cut off for good is told that the server is lost" {
  script reader <<'LUA'
local zproc = require "zproc"
local state = zproc.state(ADDRESS)
state.ready = true
print "begun"
io.stdout:flush()
local ok, err = pcall(state.get_when_equal, state, "never", 1)
print(ok, err.name)
LUA
  there "$ZPROC" run "$dir/reader.lua" >"$dir/read" 2>&1 &
  other=$!
  await "$dir/read" begun
  pull
  wait $other
  other=
  cat "$dir/read"
  [ "$(tail -n 1 "$dir/read")" = "false	ServerLost" ]
}

@test "on a slow line large values arrive, in both directions" {
  for n in "$a" "$b"; do
    ip netns exec "$n" tc qdisc replace dev "$n" root tbf rate 1mbit burst 32kb latency 300ms 2>/dev/null || skip "cannot make a line slow here"
  done
  script large <<'LUA'
local zproc = require "zproc"
local state = zproc.state(ADDRESS)
local large = ("0123456789"):rep(90000) -- seven seconds: longer than the silence that makes a connection count as dead
state.large = large
print(state.large == large)
LUA
  run there "$ZPROC" run "$dir/large.lua"
  echo "$output"
  [ "$output" = true ]
}

@test "of the addresses of a name the one is taken at which the server is" {
  printf '127.0.0.1 localhost\n::1 localhost\n%s.2 many\n%s.1 many\n' $subnet $subnet >"$dir/hosts"
  echo "print(require('zproc').ping('tcp://many:${address##*:}', { timeout = 60 }) ~= nil)" >"$dir/many.lua"
  # shellcheck disable=SC2016
  run there sh -c 'mount --bind "$1" /etc/hosts && exec "$2" run "$3"' sh "$dir/hosts" "$ZPROC" "$dir/many.lua"
  echo "$output"
  [ "$output" = true ]
}

@test "a name that nobody answers for takes no longer than the timeout" {
  echo "nameserver $subnet.9" >"$dir/resolv.conf"
  echo 'hosts: dns' >"$dir/nsswitch.conf"
  cat >"$dir/nobody.lua" <<'LUA'
local pid, err = require("zproc").ping("tcp://example.org:7000", { timeout = 0.5 })
print(pid, err.name)
LUA
  # shellcheck disable=SC2016
  run there sh -c 'mount --bind "$1" /etc/resolv.conf && mount --bind "$2" /etc/nsswitch.conf && exec "$3" run "$4"' sh \
    "$dir/resolv.conf" "$dir/nsswitch.conf" "$ZPROC" "$dir/nobody.lua"
  echo "$output"
  [ "$output" = "nil	TimeoutError" ]
}
