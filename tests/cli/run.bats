# zproc run, help, version: what a shell sees.

setup() {
  dir=$(mktemp -d)
  script=$dir/script.lua
  export ZPROC_RUNTIME_DIR=$dir/runtime
  mkdir "$ZPROC_RUNTIME_DIR"
}

teardown() {
  # Whatever a script did, nothing of it may be left.
  left=$(ls -A "$ZPROC_RUNTIME_DIR")
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

@test "a script runs, with its arguments in arg and ..." {
  echo 'print(arg[0] == ..., #arg, arg[1], arg[2], select("#", ...), ...)' > "$script"
  run "$ZPROC" run "$script" one "two three"
  [ "$status" -eq 0 ]
  [ "$output" = $'false\t2\tone\ttwo three\t2\tone\ttwo three' ]
}

@test "a script may begin with a #! line" {
  printf '#!/usr/bin/env -S zproc run\nprint "ran"\n' > "$script"
  run "$ZPROC" run "$script"
  [ "$status" -eq 0 ]
  [ "$output" = "ran" ]
}

@test "a script that is marked executable runs by its #! line" {
  mkdir "$dir/bin"
  ln -s "$ZPROC" "$dir/bin/zproc"
  printf '#!/usr/bin/env -S zproc run\nprint(...)\n' > "$script"
  chmod +x "$script"
  PATH=$dir/bin:$PATH run "$script" a b
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$output" = $'a\tb' ]
}

@test "- is a script from standard input" {
  printf '#!/usr/bin/env -S zproc run\nprint(arg[0], #arg, ...)\nerror "boom"' > "$script"
  run bash -c '"$ZPROC" run - a -- -b < "$0"' "$script"
  echo "$output"
  [ "$status" -eq 1 ]
  [[ "${lines[0]}" == $'-\t3\ta\t--\t-b' ]]
  [[ "$output" == *"stdin:3: boom"* ]]
}

@test "a script in place of a command is told what to do" {
  echo 'print "ran"' > "$dir/script"
  for word in nothing.lua "$dir/script"; do
    run "$ZPROC" "$word"
    [ "$status" -eq 2 ]
    [[ "$output" == *"there is no command '$word'. To run a script: zproc run $word; or let it begin with #!/usr/bin/env -S zproc run" ]]
  done
  run "$ZPROC" "$dir"
  [ "$status" -eq 2 ]
  [[ "$output" == *"see zproc help" ]]
}

@test "a script that does not exist is an error that names it" {
  run "$ZPROC" run "$dir/nothing.lua"
  [ "$status" -eq 1 ]
  [[ "$output" == *"nothing.lua"*"No such file"* ]]
}

@test "a script that does not compile is an error with its line" {
  printf 'local a = 1\nlocal b = = 2\n' > "$script"
  run "$ZPROC" run "$script"
  [ "$status" -eq 1 ]
  [[ "$output" == *"script.lua:2:"* ]]
}

@test "an error in the script ends it with status 1 and a traceback" {
  printf 'local function f() error "boom" end\nf()\n' > "$script"
  run "$ZPROC" run "$script"
  [ "$status" -eq 1 ]
  [[ "$output" == *"script.lua:1: boom"* ]]
  [[ "$output" == *"stack traceback"*"script.lua:2"* ]]
}

@test "an error of zproc that ends the script names its class, its place and what to do" {
  printf 'local zproc = require "zproc"\nzproc.context { wiat = true }\n' > "$script"
  run "$ZPROC" run "$script"
  [ "$status" -eq 1 ]
  [[ "$output" == *"script.lua:2: UsageError: zproc.context: unknown option 'wiat' (did you mean 'wait'?)"* ]]
}

@test "an error in a process that the script waits for ends it with both tracebacks" {
  cat > "$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
local function target() error "remote boom" end
ctx:process(target):wait()
LUA
  run "$ZPROC" run "$script"
  [ "$status" -eq 1 ]
  [[ "$output" == *"ProcessWaitError"*"script.lua:3: remote boom"* ]]
  [[ "$output" == *"stack traceback"*"script.lua:4"* ]]
  [[ "$output" == *"remote stack traceback"*"script.lua:3"* ]]
}

@test "an error object that is a plain table ends the script too" {
  echo 'error { code = 5 }' > "$script"
  run "$ZPROC" run "$script"
  [ "$status" -eq 1 ]
  [[ "$output" == *"(error object is a table value)"* ]]
}

@test "a State used within an atomic function is an error, not a deadlock" {
  cat > "$script" <<'LUA'
local zproc = require "zproc"
local state = zproc.context().state
zproc.atomic(function() return state.x end)(state)
LUA
  run timeout 60 "$ZPROC" run "$script"
  [ "$status" -eq 1 ]
  [[ "$output" == *"script.lua:3: UsageError: "*"atomic function"* ]]
}

@test "a script may end within an atomic function, which then changes nothing" {
  for code in 'os.exit(3)' 'require "zproc".exit(3)' 'os.exit(3, true)'; do
    cat >"$script" <<LUA
local zproc = require "zproc"
local ctx = zproc.context()
local watcher = ctx:process(function(state)
  local ok, err = pcall(state.get_when_available, state, "key")
  print(ok)
end)
zproc.atomic(function(snapshot)
  snapshot.key = 1
  $code
end)(ctx.state)
LUA
    run "$ZPROC" run "$script"
    echo "$output"
    [ "$status" -eq 3 ]
    [ -z "$output" ] || [ "$output" = false ]
  done
}

@test "exit statuses of os.exit and zproc.exit arrive, and nothing is left" {
  for code in 'os.exit(3)' 'require "zproc".exit(3)' 'os.exit(3, true)'; do
    printf 'local zproc = require "zproc"\nlocal ctx = zproc.context()\nctx:process(function() zproc.sleep(1000) end)\n%s\n' \
      "$code" > "$script"
    run timeout 60 "$ZPROC" run "$script"
    [ "$status" -eq 3 ]
    [ "$output" = "" ]
  done
}

@test "the processes of a script end with it" {
  cat > "$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
print(ctx:process(function() zproc.sleep(1000) end).pid)
LUA
  run timeout 60 "$ZPROC" run "$script"
  [ "$status" -eq 0 ]
  run kill -0 "$output"
  [ "$status" -ne 0 ]
}

@test "a script that raises takes its processes with it" {
  cat > "$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
print(ctx:process(function() zproc.sleep(1000) end).pid)
io.stdout:flush()
error "end"
LUA
  pid=$("$ZPROC" run "$script" 2>/dev/null) || true
  [ -n "$pid" ]
  run kill -0 "$pid"
  [ "$status" -ne 0 ]
}

@test "with wait, a script ends after its processes, and fails if one of them failed" {
  cat > "$script" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context { wait = true }
ctx:process(function() zproc.sleep(0.05) print "finished" end)
LUA
  run timeout 60 "$ZPROC" run "$script"
  [ "$status" -eq 0 ]
  [ "$output" = "finished" ]
  echo 'ctx = require "zproc".context { wait = true } ctx:process(function() os.exit(4) end)' > "$script"
  run timeout 60 "$ZPROC" run "$script"
  [ "$status" -eq 1 ]
  [[ "$output" == *"exited with code 4"* ]]
}

@test "with cleanup = false, processes outlive their script, and the state ends with the last of them" {
  for code in '' 'ctx:close()' 'error "end"' 'os.exit(3)' 'require "zproc".exit(3)'; do
    cat > "$script" <<LUA
local zproc = require "zproc"
local ctx = zproc.context { cleanup = false }
ctx:process(function(state)
  state:get_when_equal("go", true)
  io.open("$dir/outlived", "w"):write("it has"):close()
end)
print(ctx.server_address)
io.stdout:flush()
$code
LUA
    "$ZPROC" run "$script" >"$dir/out" 2>/dev/null || true
    [ ! -e "$dir/outlived" ]
    echo 'local state = require "zproc".state(...) state:ping() state.go = true' > "$script"
    "$ZPROC" run "$script" "$(cat "$dir/out")"
    timeout 60 sh -c 'while [ -n "$(ls -A "$ZPROC_RUNTIME_DIR")" ]; do sleep 0.01; done'
    [ "$(cat "$dir/outlived")" = "it has" ]
    rm "$dir/outlived"
  done
}

@test "output that cannot be written is a failure" {
  [ -e /dev/full ] || skip "no /dev/full"
  echo 'print "lost"' > "$script"
  run bash -c '"$ZPROC" run "$1" > /dev/full' _ "$script"
  [ "$status" -eq 1 ]
  [[ "$output" == *"No space left on device"* ]]
}

@test "Lua's C modules can be required" {
  echo 'local cjson = require "cjson" print(cjson.null == require "zproc".null, cjson.encode { 1 })' > "$script"
  run "$ZPROC" run "$script"
  [ "$status" -eq 0 ]
  [ "$output" = $'true\t[1]' ]
}

@test "a runtime directory that cannot be used is an error that says so" {
  echo 'require "zproc".context()' > "$script"
  ZPROC_RUNTIME_DIR=$dir/nowhere run "$ZPROC" run "$script"
  [ "$status" -eq 1 ]
  [[ "$output" == *"nowhere"* ]]
}

@test "help names the commands; a command that there is not is an error with status 2" {
  run "$ZPROC" help
  [ "$status" -eq 0 ]
  [[ "$output" == *"run [--prefix] SCRIPT"* ]]
  run "$ZPROC"
  [ "$status" -eq 2 ]
  run "$ZPROC" nonsense
  [ "$status" -eq 2 ]
  [[ "$output" == *"no command 'nonsense'"* ]]
  run "$ZPROC" run
  [ "$status" -eq 2 ]
  [ "$output" = 'zproc: run: which script?; see zproc run --help' ]
}

@test "help of a command is what it says of itself" {
  run "$ZPROC" help run
  [ "$status" -eq 0 ]
  [ "$output" = "$("$ZPROC" run --help)" ]
  [ "$("$ZPROC" --help ping)" = "$("$ZPROC" ping --help)" ]
  [ "$("$ZPROC" --help)" = "$("$ZPROC" help)" ]
  run "$ZPROC" help nosuch
  [ "$status" -eq 2 ]
  [[ "$output" == "zproc: help: there is no command 'nosuch'; see zproc help --help" ]]
  run "$ZPROC" help state nosuch
  [ "$status" -eq 2 ]
  run "$ZPROC" help run run
  [ "$status" -eq 2 ]
}

@test "version prints one line" {
  run "$ZPROC" version
  [ "$status" -eq 0 ]
  [[ "$output" =~ ^zproc\ [0-9]+\.[0-9]+\.[0-9]+\ \(Lua\ 5\.4\)$ ]]
}

# Runs the script of standard input by a command and checks the status and how often a line is on standard error.
check_end() { # COMMAND STATUS COUNT PATTERN
  local status=0
  timeout 60 $1 "$script" >"$dir/out" 2>"$dir/err" || status=$?
  cat "$dir/out" "$dir/err"
  [ "$status" -eq "$2" ]
  [ "$(grep -c "$4" "$dir/err")" -eq "$3" ]
}

write_dying() { # THE REST
  # A sanitizer leaves the signal to the system.
  [ -z "${ASAN_OPTIONS-}" ] || export ASAN_OPTIONS="$ASAN_OPTIONS:handle_segv=0"
  cat >"$script" <<LUA
local zproc = require "zproc"
local function die() os.execute "kill -SEGV \$PPID" zproc.sleep(1000) end
local function wait_for(pid) while io.open("/proc/" .. pid .. "/stat") do zproc.sleep(0.01) end end
local ctx = zproc.context()
$1
LUA
}

@test "a process that is killed by a signal is reported, and the script does not end as if nothing had been" {
  dead="was killed by signal 11 (SIGSEGV)"
  for code in \
    'local p = ctx:process(die) wait_for(p.pid)' \
    'local p = ctx:process(die) wait_for(p.pid) ctx:close() os.exit()' \
    'local p = zproc.process(die, ctx.server_address) wait_for(p.pid) p = nil collectgarbage()' \
    'ctx:process(die) pcall(ctx.wait_all, ctx, 60) ctx = zproc.context() wait_for(ctx:process(die).pid)' \
    'print(ctx:process(function(inner) wait_for(inner:process(die).pid) return 5 end, { pass_context = true }):wait())' \
    'ctx:process(function(inner) wait_for(inner:process(die).pid) end, { pass_context = true }):wait()' \
    'print(ctx:process(function(address) wait_for(zproc.process(die, address).pid) return 5 end, { args = { ctx.server_address }, stateful = false }):wait())' \
    'print(ctx:process(function(inner) wait_for(inner:process(die).pid) return 5 end, { pass_context = true, backend = "thread" }):wait())'; do
    write_dying "$code"
    count=1
    [[ "$code" != *pcall* ]] || count=2
    check_end "$ZPROC run" 1 $count "process .*script.lua:2 (pid [0-9]*) $dead"
    status_there=0 # at the last line it is that of the host
    [[ "$code" != *os.exit* ]] || status_there=1
    check_end "$SRCDIR/tests/run-lua" $status_there $count "process .*script.lua:2 (pid [0-9]*) $dead"
  done
}

@test "a process that has raised is no success of the script, either, unless the script has asked how it ended" {
  for code in \
    'wait_for(ctx:process(function() error "failed here" end).pid)' \
    'ctx:process(function() error "failed here" end, { backend = "thread" }) while ctx.process_list[1].is_alive do zproc.sleep(0.01) end'; do
    write_dying "$code"
    check_end "$ZPROC run" 1 1 "failed here"
  done
  for code in \
    'local p = ctx:process(function() error "failed here" end) pcall(p.wait, p)' \
    'ctx:process(function() error "failed here" end) ctx:wait_all { safe = true }' \
    'local p = ctx:process(function() error "failed here" end) repeat zproc.sleep(0.01) until p.exitcode' \
    'local p = ctx:process(function() error "failed here" end) wait_for(p.pid) p:stop()' \
    'local p = ctx:process(function() error "failed here" end) wait_for(p.pid) os.exit(0)' \
    'local p = ctx:process(function() error "failed here" end) wait_for(p.pid) zproc.exit(0)'; do
    write_dying "$code"
    check_end "$ZPROC run" 0 1 "failed here"
  done
  write_dying 'wait_for(ctx:process(function() zproc.exit(3) end).pid)'
  check_end "$ZPROC run" 0 0 .
}

@test "a process that its parent ends, or that ends with a worker of a map, is not reported" {
  write_dying 'ctx:process(function() zproc.sleep(1000) end):stop() ctx:process(function() zproc.sleep(1000) end)
ctx:process(function(state)
  zproc.signal_to_error "SIGTERM"
  pcall(function() state.ready = true zproc.sleep(1000) end)
  while true do zproc.sleep(1000) end
end)
ctx.state:get_when_available "ready"
ctx.process_list[2]:stop(0)
for i, x in ctx:process_map(function(x) if x == 2 and not io.open(arg[0] .. x) then io.open(arg[0] .. x, "w"):close() die() end return x end, { 1, 2, 3 }) do assert(i == x) end'
  check_end "$ZPROC run" 0 0 .
}
