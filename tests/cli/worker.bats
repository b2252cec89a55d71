# zproc worker: workers from elsewhere, and what their deaths cost. Secret keys by a file.

setup() {
  dir=$(mktemp -d)
  printf 'a key for the tests\n' >"$dir/key"
  mkfifo "$dir/out"
  "$ZPROC" server --bind 'tcp://127.0.0.1:*' --secret-key-file "$dir/key" >"$dir/out" 2>"$dir/server" 3>&- &
  server=$!
  read -r address <"$dir/out"
}

teardown() {
  [ -z "${worker-}" ] || kill "$worker" 2>/dev/null || true
  [ -z "${worker-}" ] || wait "$worker" 2>/dev/null || true
  kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  rm -rf "$dir"
}

start_workers() { # COUNT [TRANSPORT]: unless told, they are another machine's, as far as the transport goes
  "$ZPROC" worker "$address" --count "$1" --transport "${2-network}" --secret-key-file "$dir/key" >"$dir/worker" 2>&1 3>&- &
  worker=$!
  for ((i = 0; i < 600; i++)); do
    ! grep -q "workers for" "$dir/worker" || return 0
    kill -0 "$worker"
    sleep 0.1
  done
  return 1
}

script() { # maps, and says who has worked; $1: how
  cat >"$dir/script.lua" <<LUA
local zproc = require "zproc"
local ctx <close> = zproc.context("$address", { transport = "network" })
$1
LUA
  timeout 100 "$ZPROC" run --prefix "$dir/script.lua" 2>&1
  return
}

run_script() {
  ZPROC_SECRET_KEY='a key for the tests' script "$1" | sed 's/^\[[^]]*\] //'
}

@test "workers join in the maps of every Context of the server" {
  start_workers 2
  output=$(run_script '
    local result = ctx:process_map(function(n) zproc.sleep(0.01) return { n * n, zproc.getpid() } end, zproc.range(1, 200), { count = 1 })
    local pids, count = {}, 0
    for i, value in result do
      assert(value[1] == i * i)
      if not pids[value[2]] then pids[value[2]], count = true, count + 1 end
    end
    print(count)')
  echo "$output"
  [ "$output" = 3 ]
}

@test "zproc ps shows workers, and what keeps them" {
  start_workers 1 auto
  run "$ZPROC" ps "$address" --secret-key-file "$dir/key"
  echo "$output"
  [[ "$output" =~ $worker\ .*\ zproc\ worker ]]
  [[ "$output" =~ \ $worker\ .*\ worker ]]
}

@test "workers on the server's machine do, by shared memory" {
  start_workers 2 auto
  output=$(run_script '
    local result = ctx:process_map(function(n) zproc.sleep(0.01) return zproc.getpid() end, zproc.range(1, 200), { count = 1 })
    local pids, count = {}, 0
    for _, pid in result do
      if not pids[pid] then pids[pid], count = true, count + 1 end
    end
    print(count)')
  echo "$output"
  [ "$output" = 3 ]
}

@test "workers that are killed are replaced, and cost no item" {
  start_workers 2
  output=$(run_script "
    local parent = $worker"'
    local result = ctx:process_map(function(n)
      zproc.sleep(0.01)
      return n
    end, zproc.range(1, 300), { count = 1 })
    for i, value in result do
      assert(value == i)
      if i % 50 == 0 then os.execute("pkill -9 -o -P " .. parent) end
    end
    print "all"')
  echo "$output"
  [ "$output" = all ]
  for ((i = 0; i < 600; i++)); do
    [ "$(pgrep -c -P "$worker")" -ne 2 ] || return 0
    sleep 0.1
  done
  return 1
}

@test "workers that fail at once again and again are given up, however many there are" {
  start_workers 8
  cat >"$dir/script.lua" <<LUA
local zproc = require "zproc"
local ctx <close> = zproc.context("$address", { transport = "network" })
local own = zproc.getpid()
ctx:process_map(function()
  local file <close> = io.open "/proc/self/stat"
  if tonumber(file:read "a":match "%) %a (%d+)") == own then zproc.sleep(0.1) else pcall = nil end -- so that the next item ends it
end, zproc.range(1, 1000000), { count = 1, on_error = "return" }):collect()
LUA
  ZPROC_SECRET_KEY='a key for the tests' "$ZPROC" run "$dir/script.lua" 3>&- &
  script=$!
  status=0
  wait "$worker" || status=$?
  worker=
  kill "$script"
  cat "$dir/worker"
  [ "$status" -eq 1 ]
  grep -q "ProcessWaitError: process worker (pid [0-9]*) exited with code 1" "$dir/worker"
}

@test "an item that kills the workers of another machine is given up after some attempts" {
  start_workers 2
  output=$(run_script '
    local task = ctx:process_map(function(n)
      if n == 7 then os.execute "kill -9 $PPID" end
      return n
    end, zproc.range(1, 20), { count = 1, on_error = "return" })
    local bad = {}
    for i, value in task do if value ~= i then bad[#bad + 1] = i .. ": " .. tostring(value) end end
    print(#bad, bad[1])')
  echo "$output"
  [[ "$output" == "1	7: RemoteError: item 7: each of 3 workers died while it ran the target" ]]
}

@test "when a machine with workers vanishes, its chunks are worked on again" {
  start_workers 2
  output=$(run_script "
    local parent = $worker"'
    local done = 0
    local result = ctx:process_map(function(n) zproc.sleep(0.02) return n end, zproc.range(1, 300), { count = 1 })
    for i, value in result do
      assert(value == i)
      if i == 50 then os.execute(("kill -STOP $(pgrep -P %d) %d"):format(parent, parent)) end
    end
    print "all"')
  pkill -KILL -P "$worker"
  kill -KILL "$worker"
  worker=
  echo "$output"
  [ "$output" = all ]
}

@test "workers end when they are told to, and when their server is gone" {
  start_workers 2
  children=$(pgrep -P "$worker")
  kill -TERM "$worker"
  wait "$worker"
  for pid in $children; do [ ! -d "/proc/$pid" ]; done
  start_workers 1
  kill "$server"
  wait "$server" || true
  status=0
  wait "$worker" || status=$?
  worker=
  cat "$dir/worker"
  [ "$status" -eq 1 ]
  grep -q ServerLost "$dir/worker"
}

@test "a worker without the key, without a server, or with wrong arguments says so" {
  run "$ZPROC" worker "$address"
  [ "$status" -eq 1 ]
  [[ "$output" == *"AuthError: worker: "*"secret key"* ]]
  run "$ZPROC" worker tcp://127.0.0.1:1
  [ "$status" -eq 1 ]
  [[ "$output" == *"ServerLost: worker: nobody can be reached"* ]]
  run "$ZPROC" worker "$address" --count 0
  [ "$status" -eq 2 ]
  [[ "$output" == *"--count takes a number of workers"* ]]
  run "$ZPROC" worker "$address" --transport pigeon
  [ "$status" -eq 2 ]
  run "$ZPROC" worker
  [ "$status" -eq 2 ]
  run "$ZPROC" worker --help
  [ "$status" -eq 0 ]
  [[ "$output" == "usage: zproc worker"* ]]
}

@test "a file with the secret key must be there, and not be empty" {
  run "$ZPROC" ping "$address" --secret-key-file "$dir/key"
  [ "$status" -eq 0 ]
  run "$ZPROC" ping "$address" --secret-key-file "$dir/none"
  [ "$status" -eq 2 ]
  [[ "$output" == *"cannot read the secret key"* ]]
  : >"$dir/empty"
  run "$ZPROC" ps "$address" --secret-key-file "$dir/empty"
  [ "$status" -eq 2 ]
  [[ "$output" == *"is empty"* ]]
  run "$ZPROC" server --secret-key-file
  [ "$status" -eq 2 ]
  run "$ZPROC" ps "$address" --secret-key-file "$dir/key"
  [ "$status" -eq 0 ]
  [[ "$output" == *" server"* ]]
}

@test "a server listens at several addresses, and not for everybody without a key unless it must" {
  run timeout 20 "$ZPROC" server --bind 'tcp://*:*'
  [ "$status" -eq 2 ]
  [[ "$output" == *"anybody could run code here"* ]]
  : >"$dir/addresses" # or it may not be there yet
  "$ZPROC" server --bind "ipc://$dir/socket" --bind 'tcp://127.0.0.1:*' --bind 'tcp://*:*' --insecure >"$dir/addresses" 2>&1 3>&- &
  worker=$!
  for ((i = 0; i < 600; i++)); do
    [ "$(wc -l <"$dir/addresses")" -lt 3 ] || break
    sleep 0.1
  done
  while read -r one; do
    run "$ZPROC" ping "${one/0.0.0.0/127.0.0.1}"
    [ "$status" -eq 0 ]
  done <"$dir/addresses"
  [ "$(wc -l <"$dir/addresses")" -eq 3 ]
}

@test "a worker is free when the map is closed, and one that is in C is replaced" {
  for transport in auto network; do
    start_workers 1 "$transport"
    for target in 'while true do end' 'return ("a"):rep(300000):find ".-.-.-b"'; do
      run_script "
        local task = ctx:process_map(function() ctx_state = zproc.state('$address') ctx_state.pid = zproc.getpid() $target end, { 1 },
          { return_task = true })
        local result <close> = ctx:pull_results_for_task(task)
        local own = {}
        for _, one in ipairs(ctx.worker_list) do own[one.pid] = true end
        print(ctx.state:get_when_not_none 'pid')"
      output=$(run_script '
        local pids = {}
        for i, pid in ctx:process_map(function() zproc.sleep(0.01) return zproc.getpid() end, function() return 1 end, { count = 1 }) do
          pids[pid] = true
          local count = 0
          for _ in pairs(pids) do count = count + 1 end
          if count == 2 then print "free" break end
        end')
      echo "$output"
      [ "$output" = free ]
    done
    kill "$worker"
    wait "$worker" || true
    worker=
  done
}
