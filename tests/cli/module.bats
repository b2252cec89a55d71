# The module: zproc in a program that has a Lua of its own. What scripts can do there the specs say, too (scripts/test --module).

setup() {
  dir=$(mktemp -d)
  script=$dir/script.lua
  build=$(dirname "$ZPROC")
  export ZPROC_RUNTIME_DIR=$dir/runtime
  mkdir "$ZPROC_RUNTIME_DIR"
}

teardown() {
  # Whatever a script did, nothing of it may be left.
  left=$(ls -A "$ZPROC_RUNTIME_DIR")
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

# lua5.4 with the module, which has to find the program without being told.
lua() { env ZP_TEST_FINDS=1 timeout -k 5 120 "$SRCDIR/tests/run-lua" "$@"; }

@test "a script in lua5.4 has all that zproc has" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
ctx.state.count = 0
local increment = zproc.atomic(function(snapshot, step) snapshot.count = snapshot.count + step end)
ctx:process_factory(function(state)
  for _ = 1, 100 do increment(state, 1) end
end, { count = 4 })
ctx:wait_all()
print(ctx.state.count)
print(table.concat(ctx:process_map(function(x) return x * x end, { 1, 2, 3 }, { count = 2 }):collect(), " "))
print(ctx:process(function(state, a) return state.count + a end, { backend = "thread", args = { 2 } }):wait())
local handler = ctx:call_when_equal("button", "pressed", function(snapshot, state) state.seen = snapshot.button end)
ctx.state.button = "pressed"
print(ctx.state:get_when_not_none("seen").seen, handler:stop())
local server, address = zproc.start_server { backend = "thread" }
print(zproc.ping(address) == zproc.getpid(), server:stop())
LUA
  run lua "$script"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$output" = $'400\n1 4 9\n402\npressed\t-15\ntrue\t0' ]
}

@test "no Lua is linked to the module" {
  run ldd "$build/.libs/zproc.so"
  [ "$status" -eq 0 ]
  [[ "$output" == *libevent* ]]
  [[ "$output" != *liblua* ]]
}

@test "module and executable carry the LMDB that scripts/lmdb has made, and show it to nobody" {
  for file in "$build/.libs/zproc.so" "$ZPROC"; do
    run ldd "$file"
    [ "$status" -eq 0 ]
    [[ "$output" != *liblmdb* ]] || skip 'configured with --with-system-lmdb'
    run nm -D --defined-only "$file"
    [ "$status" -eq 0 ]
    [[ "$output" != *mdb_* ]]
  done
}

@test "however a script ends, its processes are told, and nothing is left when it has ended" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
ctx:process(function(state)
  zproc.signal_to_error "SIGTERM"
  local _, err = pcall(function()
    state.ready = true
    zproc.sleep(1000)
  end)
  print(err.signal)
end)
ctx.state:get_when_available "ready"
local ways = {
  error = function() error "boom" end,
  exit = function() os.exit(3) end,
  exit_and_close = function() os.exit(4, true) end,
  zproc_exit = function() zproc.exit(5) end,
  coroutine = function() coroutine.wrap(function() os.exit(6) end)() end,
  ends = function() end,
}
ways[arg[1]]()
LUA
  for way in error:1 exit:3 exit_and_close:4 zproc_exit:5 coroutine:6 ends:0; do
    run lua "$script" "${way%:*}"
    echo "$way: $status: $output"
    [ "$status" -eq "${way#*:}" ]
    [[ "$output" == *SIGTERM* ]]
    [ -z "$(ls -A "$ZPROC_RUNTIME_DIR")" ]
  done
}

@test "a Context with wait = true is waited for at the end, and what has failed there is told" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context { wait = true }
for _ = 1, 3 do
  ctx:process(function(state)
    state:get_when_equal("go", true)
    print "done"
  end)
end
ctx:process(function() error "failed, too" end)
ctx.state.go = true
LUA
  run lua "$script"
  echo "$output"
  [ "$(grep -c '^done$' <<<"$output")" -eq 3 ]
  [[ "$output" == *"zproc: ProcessWaitError"*"failed, too"* ]]
}

@test "kill -9 of the host leaves nothing behind" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
ctx:process_factory(function() zproc.sleep(1000) end, { count = 3 })
ctx:process_map(function(x) return x end, zproc.range(1, 1000), { count = 2 }):collect()
print(zproc.getpid(), ctx.server_process.pid, ctx.process_list[1].pid, ctx.worker_list[1].pid)
io.stdout:flush()
zproc.sleep(1000)
LUA
  mkfifo "$dir/out"
  lua "$script" >"$dir/out" &
  read -r -t 60 host others <"$dir/out"
  [ -n "$(ls -A "$ZPROC_RUNTIME_DIR")" ]
  kill -KILL "$host"
  for pid in $host $others; do timeout 60 tail --pid="$pid" -f /dev/null; done
  [ -z "$(ls -A "$ZPROC_RUNTIME_DIR")" ]
}

@test "a killed server is started again" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
ctx.state.kept = "kept"
local first = ctx:ping()
os.execute("kill -9 " .. first)
local second
repeat second = ctx:ping { timeout = 60 } until second ~= first
print(second ~= nil, ctx.state.kept)
LUA
  run lua "$script"
  [ "$status" -eq 0 ]
  [[ "$output" == *$'true\tkept' ]]
}

@test "a second require gives the same, or after it was forgotten one that works with the first" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
print(require "zproc" == zproc)
package.loaded.zproc = nil
local again = require "zproc"
print(again == zproc, again.null == zproc.null)
package.loaded.zproc, package.preload.zproc = nil, nil
local anew = require "zproc"
local ctx = zproc.context()
ctx.state.x = 1
print(again.state(ctx.server_address).x, anew.state(ctx.server_address).x)
ctx:process(function() print "a process" end):wait()
LUA
  run lua "$script"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$output" = $'true\nfalse\ttrue\n1\t1\na process' ]
}

@test "it may be required and used in a coroutine" {
  cat >"$script" <<'LUA'
local worker = coroutine.wrap(function()
  local zproc = require "zproc"
  local ctx = zproc.context()
  ctx:process(function(state) coroutine.wrap(function() state.x = coroutine.isyieldable() end)() end):wait()
  coroutine.yield(ctx.state.x)
  error(zproc.error_class "LateError" "from a coroutine")
end)
print(worker())
collectgarbage()
print(pcall(worker))
require("zproc").signal_to_error "SIGUSR1"
print(pcall(coroutine.wrap(function()
  os.execute "kill -USR1 $PPID"
  for _ = 1, 1e9 do end
end)))
LUA
  run lua "$script"
  echo "$output"
  [ "$status" -eq 0 ]
  [[ "${lines[0]}" == true ]]
  [[ "${lines[1]}" == *"LateError: from a coroutine" ]]
  [[ "${lines[2]}" == *"SignalError: SIGUSR1" ]]
}

@test "what a script has done before the require is the script's, and travels as such" {
  cat >"$script" <<'LUA'
local real_print = print
function helper(x) return x + 1 end
function print(...) real_print("mine:", ...) end
string.twice = function(text) return text .. text end
package.loaded.own = { call = helper }
local own = require "own"
local zproc = require "zproc"
local ctx = zproc.context()
local function target(_, x)
  print(helper(x), string.format("%d", x))
  return own.call(x)
end
real_print(ctx:process(target, { args = { 1 }, backend = "thread" }):wait())
LUA
  run lua "$script"
  echo "$output"
  [ "$status" -eq 1 ] # own is no file, so a thread cannot have it: it was taken for a module, as it should
  [[ "$output" == *"module 'own' not found"* ]]
  sed -i 's/^package.loaded.own = .*/own = { call = helper }/; s/^local own = .*//' "$script"
  run lua "$script"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$output" = $'mine:\t2\t1\n2' ]
}

@test "^C ends a script in order; whoever catches it goes on" {
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local function wait()
  print(zproc.getpid())
  io.stdout:flush()
  ctx:process(function() zproc.sleep(1000) end):wait()
end
if arg[1] == "die" then wait() end
local _, err = pcall(wait)
print("caught", err.signal)
LUA
  mkfifo "$dir/out"
  for way in catch:0 die:1; do
    # bash starts background processes with SIGINT ignored, which would stay so.
    env --default-signal=INT ZP_TEST_FINDS=1 timeout -k 5 120 "$SRCDIR/tests/run-lua" "$script" "${way%:*}" >"$dir/out" 2>&1 &
    exec 6<"$dir/out"
    read -r -t 60 host <&6
    kill -INT "$host"
    status=0
    wait $! || status=$?
    words=$(cat <&6)
    exec 6<&-
    echo "$way: $status: $words"
    [ "$status" -eq "${way#*:}" ]
    [[ "$words" == *SIGINT* ]]
    [ -z "$(ls -A "$ZPROC_RUNTIME_DIR")" ]
  done
}

@test "the output of all goes out in whole lines, and in order" {
  cat >"$script" <<'LUA'
io.write "before"
local zproc = require "zproc"
io.write "; after; "
print "printed"
io.write "held back"
local ctx = zproc.context()
ctx:process_factory(function()
  for _ = 1, 200 do io.write(("x"):rep(30)) io.stderr:write "e" io.write(("y"):rep(30), "\n") end
end, { count = 4 })
ctx:wait_all()
print "; let go"
LUA
  run bash -c "exec '$SRCDIR/tests/run-lua' '$script' 2>/dev/null"
  [ "$status" -eq 0 ]
  [ "${lines[0]}" = "before; after; printed" ]
  [ "${lines[-1]}" = "held back; let go" ]
  [ "$(grep -c -x 'x\{30\}y\{30\}' <<<"$output")" -eq 800 ]
  [ "${#lines[@]}" -eq 802 ]
}

@test "any other host keeps its signals and its output, may have several VMs, and goes on after them" {
  cat >"$dir/host.c" <<'C'
#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

static volatile sig_atomic_t interrupts;
static void on_sigint(int number) { (void)number; interrupts++; }

static int run(const char *script) {
  lua_State *L = luaL_newstate();
  luaL_openlibs(L);
  int failed = luaL_dofile(L, script);
  if (failed) fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
  lua_close(L);
  return failed;
}

int main(int argc, char **argv) {
  FILE *out = stdout;
  (void)argc;
  signal(SIGINT, on_sigint);
  if (run(argv[1]) || run(argv[1])) return 1;
  raise(SIGCHLD);
  raise(SIGINT);
  printf("%d %d %d\n", out == stdout, (int)interrupts, waitpid(-1, NULL, WNOHANG) < 0);
  return 0;
}
C
  cat >"$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local t = ctx:process(function() return "thread" end, { backend = "thread" })
ctx:process(function(state) state.x = "process" end)
ctx:process(function(state) zproc.sleep(1000) end)
print(t:wait(), ctx.state:get_when_available("x").x)
LUA
  # shellcheck disable=SC2046
  ${CC:-cc} -o "$dir/host" "$dir/host.c" $(pkg-config --cflags --libs lua5.4) || skip "no library of Lua to build a host with"
  run env ZP_TEST_LUA="$dir/host" ZP_TEST_FINDS=1 timeout 120 "$SRCDIR/tests/run-lua" "$script"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$output" = $'thread\tprocess\nthread\tprocess\n1 1 1' ]
}

@test "a module without its program says so, and ZPROC says where that is" {
  mkdir -p "$dir/lib/lua/5.4" "$dir/bin"
  cp "$build/.libs/zproc.so" "$dir/lib/lua/5.4"
  echo 'local ctx = require "zproc".context() ctx.state.x = 1 print(ctx.state.x, ctx:ping() ~= nil)' >"$script"
  moved() { env ZP_TEST_MODULES="$dir/lib/lua/5.4" ZP_TEST_FINDS=1 "$@" timeout 120 "$SRCDIR/tests/run-lua" "$script"; }

  printf '#!/bin/sh\necho "zproc 0.0.1 (Lua 5.4)"\n' >"$dir/bin/zproc"
  chmod +x "$dir/bin/zproc"
  run moved
  echo "$output"
  [ "$status" -eq 1 ]
  [[ "$output" == *"script.lua:1:"*"no server can be started: this module is of zproc "*"$dir/bin/zproc says that it is 'zproc 0.0.1 (Lua 5.4)'"* ]]

  # Whoever else has the pipe that it writes to is not waited for.
  printf '#!/bin/sh\nsleep 600 2>&- 3>&- & echo $! >"%s/sleeper"\necho "zproc 0.0.1 (Lua 5.4)"\n' "$dir" >"$dir/bin/zproc"
  run moved
  kill "$(cat "$dir/sleeper")"
  echo "$output"
  [ "$status" -eq 1 ]
  [[ "$output" == *"$dir/bin/zproc says that it is 'zproc 0.0.1 (Lua 5.4)'"* ]]

  echo nonsense >"$dir/bin/zproc"
  run moved
  echo "$output"
  [ "$status" -eq 1 ]
  [[ "$output" == *"$dir/bin/zproc cannot be executed, or is not zproc"* ]]

  run moved ZP_TEST_PROGRAM="$dir/nothing"
  echo "$output"
  [ "$status" -eq 1 ]
  [[ "$output" == *"ZPROC is $dir/nothing, which is no program"* ]]

  run moved ZP_TEST_PROGRAM="$ZPROC"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$output" = $'1\ttrue' ]

  rm "$dir/bin/zproc"
  ln -s "$ZPROC" "$dir/bin/zproc"
  run moved
  [ "$status" -eq 0 ]
  [ "$output" = $'1\ttrue' ]
}

@test "make install puts both where they find each other, and make uninstall takes both away" {
  make -s -C "$build" install DESTDIR="$dir/root" >"$dir/log" 2>&1 || { cat "$dir/log"; return 1; }
  module=$(find "$dir/root" -name zproc.so)
  [[ "$module" == */lua/5.4/zproc.so ]]
  [ -z "$(find "$dir/root" -name '*.la')" ]
  echo 'print(require("zproc").context():ping() ~= nil)' >"$script"
  run env ZP_TEST_MODULES="$(dirname "$module")" ZP_TEST_FINDS=1 timeout 120 "$SRCDIR/tests/run-lua" "$script"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$output" = true ]
  make -s -C "$build" uninstall DESTDIR="$dir/root" >"$dir/log" 2>&1 || { cat "$dir/log"; return 1; }
  [ -z "$(find "$dir/root" -type f)" ]
}
