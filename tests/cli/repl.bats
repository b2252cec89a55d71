#!/usr/bin/env bats
# zproc eval and zproc repl: code that is typed.

setup() {
  dir=$(mktemp -d)
  export ZPROC_RUNTIME_DIR=$dir/runtime ZPROC_HISTORY=$dir/history TERM=xterm
  mkdir "$ZPROC_RUNTIME_DIR"
  repl=
}

teardown() {
  [ -z "$repl" ] || kill -9 "$repl" 2>/dev/null || true
  left=$(ls -A "$ZPROC_RUNTIME_DIR")
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

# STATUS OUTPUT ARGUMENT...: zproc ends with this status, and prints that on standard output.
gives() {
  run bash -c '"$ZPROC" "$@" 2>"$0"' "$dir/err" "${@:3}"
  echo "$output"
  cat "$dir/err"
  [ "$status" -eq "$1" ]
  [ "$output" = "$2" ]
}

complains() { grep -q "$1" "$dir/err"; }

# ---- eval ----

@test "eval prints the values of an expression, or what code returns" {
  gives 0 2 eval '1 + 1'
  gives 0 $'1\tnil\tx' eval 'return 1, nil, "x"'
  gives 0 '' eval 'local x = 1'
  gives 0 '{1, a = {2}}' eval '{ 1, a = { 2 } }'
}

@test "eval has arguments, zproc, a Context and its State" {
  gives 0 $'a\tb' eval '..., arg[2]' a b
  gives 0 '-1' eval '...' -1
  gives 0 $'5\t{n = 5}' eval 'ctx:process(function(state) state.n = 5 end):wait() return state.n, state:copy()'
  gives 0 true eval 'zproc.state(ctx.server_address) == state'
}

@test "eval reads code from standard input" {
  run bash -c 'echo "return arg[1]" | "$ZPROC" eval - x'
  [ "$status" -eq 0 ]
  [ "$output" = x ]
}

@test "eval --json prints values for programs" {
  gives 0 $'{"a":[1,2.5]}\n"x"' eval --json '{ a = { 1, 2.5 } }, "x"'
  gives 0 '{"n":1}' eval --json 'state.n = 1; return state'
  gives 1 '' eval - </tmp
  gives 1 '' eval --json '{ a = { print } }'
  complains 'the result.a\[1\]: JSON has no functions'
}

@test "eval with an address is known by its name among the processes" {
  cat >"$dir/script.lua" <<'LUA'
local zproc = require "zproc"
local _, address = zproc.start_server()
os.execute(('"$ZPROC" eval --address %s "for _, row in ipairs(ctx:processes()) do print(row.name) end"'):format(address))
LUA
  run "$ZPROC" run "$dir/script.lua"
  echo "$output"
  [[ "$output" == *eval* ]]
  [[ "$output" != *program* ]]
}

@test "what is piped into repl has its own lines" {
  run "$ZPROC" repl <<<$'x = 1\ny = {\n}\n\nerror "here"'
  [[ "$output" == *"repl:5: here"* ]]
}

@test "the name of a FIFO is no command" {
  mkfifo "$dir/fifo"
  run timeout 60 "$ZPROC" "$dir/fifo"
  [ "$status" -eq 2 ]
}

@test "an exit status that is none, and an error object that hides its metatable, are told as the user's" {
  gives 1 '' eval 'os.exit(1.5)'
  complains 'os.exit takes an integer, true or false, not 1.5'
  gives 1 '' eval 'error(setmetatable({}, { __metatable = 5 }))'
  complains 'error object is a table value'
}

@test "eval fails as scripts do" {
  gives 1 '' eval 'error "boom"'
  complains 'eval:1: boom'
  gives 1 '' eval 'x ='
  complains 'eval:1: unexpected symbol'
  gives 3 '' eval 'zproc.exit(3)'
  gives 2 '' eval
  complains 'which code?'
  gives 2 '' eval --nonsense 1
  complains "unknown option '--nonsense'"
}

@test "eval and repl use the state of a server" {
  mkfifo "$dir/out"
  "$ZPROC" server --bind "ipc://$dir/place" >"$dir/out" 2>"$dir/server" 3>&- &
  server=$!
  read -r address <"$dir/out"
  gives 0 '' eval --address "$address" 'state.x = 5'
  gives 0 '' eval --address "$address" --namespace other --transport network 'state.x = 6'
  gives 0 5 eval --address "$address" 'state.x'
  gives 0 $'5\n6' repl "$address" <<<$'state.x\nzproc.state(ctx.server_address, { namespace = "other" }).x'
  gives 0 6 repl "$address" --namespace other <<<'state.x'
  kill $server
  wait $server
  gives 1 '' eval --address "$address" 'state.x'
  complains ServerLost
  gives 1 '' repl "$address" <<<'state.x'
  complains ServerLost
  gives 2 '' eval --address nonsense 'state.x'
  complains 'no server address'
  gives 2 '' repl nonsense <<<'state.x'
  complains 'no server address'
}

# ---- repl, without a terminal ----

@test "repl runs what it reads, line by line or in several lines" {
  gives 0 $'6\n1\n2\n{n = 2}\nlast' repl <<'LUA'
x = 5

x + 1
for i = 1, 2 do
  print(i)
  state.n = i
end
state
print [[last]]
LUA
}

@test "repl has processes, and their end is its end" {
  gives 0 $'true\tdone' repl <<'LUA'
p = ctx:process(function(state) state:get_when_equal("go", true) return "done" end)
sleeper = ctx:process(function() zproc.sleep(1000) end)
state.go = true
state.go, p:wait()
LUA
}

@test "repl stops at the first error when nobody is there to correct it" {
  gives 1 1 repl <<<$'1\nerror "x"\n2'
  complains 'repl:2: x'
  gives 1 1 repl <<<$'1\nx = = 2\n2'
  complains 'repl:2: unexpected symbol'
  gives 1 '' repl <<<'for i = 1, 2 do'
  complains 'near <eof>'
  gives 3 '' repl <<<'zproc.exit(3)'
  [ ! -e "$dir/history" ]
}

@test "both have help" {
  run "$ZPROC" eval --help
  [ "$status" -eq 0 ]
  [[ "$output" == "usage: zproc eval"* ]]
  run "$ZPROC" repl --help
  [ "$status" -eq 0 ]
  [[ "$output" == "usage: zproc repl"* ]]
}

# ---- repl, on a terminal ----

# Start it on a terminal of its own: what is written to descriptor 5 is typed, and `sees` reads what it shows.
start() {
  script -qec true /dev/null </dev/null >/dev/null 2>&1 || skip "no pseudo-terminal"
  mkfifo "$dir/keys" "$dir/screen"
  env --default-signal=INT script -qec "exec $ZPROC repl" /dev/null <"$dir/keys" >"$dir/screen" 3>&- &
  repl=$!
  exec 5>"$dir/keys" 4<"$dir/screen"
}

# Wait until it shows these words.
sees() {
  local shown= c
  while [[ "$shown" != *"$1"* ]]; do
    IFS= read -r -t 60 -d '' -n 1 c <&4 || { printf 'not seen: %q; but: %q\n' "$1" "$shown"; return 1; }
    shown+=$c
  done
}

types() { printf '%b' "$1" >&5; }

# End of input; $status is what it ends with.
end() {
  types '\x04'
  cat <&4 >/dev/null
  status=0
  wait "$repl" || status=$?
  repl=
  exec 4<&- 5>&-
  rm "$dir/keys" "$dir/screen"
}

@test "on a terminal it prompts, shows values and errors, and goes on" {
  start
  sees 'at hand'
  sees '> '
  types '12 + 34\n'
  sees 46
  types 'for i = 1, 2 do\n'
  sees '>> '
  types 'print("i" .. i) end\n'
  sees i2
  types 'error "oops"\n'
  sees 'repl:1: oops'
  types 'x = = 1\n'
  sees 'unexpected symbol'
  types 'state.n = 41\n'
  types 'state.n + 1\n'
  sees 42
  end
  [ "$status" -eq 0 ]
}

@test "on a terminal names are completed" {
  start
  sees '> '
  types 'state.apples = 7 * 11\n'
  types 'sta\t.app\t\n'
  sees 77
  types 'zproc.get\t() == zproc.getp\t()\n'
  sees true
  types 'state:contai\t("apples")\n'
  sees true
  end
}

@test "^C gives up the line, or what runs" {
  start
  sees '> '
  types 'this is no'
  sees 'no'
  types '\x03'
  sees $'\n'
  sees '> '
  types '6 * 7\n'
  sees 42
  types 'print("be" .. "gun") while true do end\n'
  sees begun
  types '\x03'
  sees 'SignalError'
  types '5 * 5\n'
  sees 25
  end
  [ "$status" -eq 0 ]
}

@test "what was entered is there the next time, and for its owner alone" {
  start
  sees '> '
  types 'answer = 6 * 7\n'
  types 'answer\n'
  sees 42
  end
  [ "$(cat "$dir/history")" = $'answer = 6 * 7\nanswer' ]
  [ "$(stat -c %a "$dir/history")" = 600 ]
  start
  sees '> '
  types '\x10\x10\n' # up, up
  types 'answer + 1\n'
  sees 43
  end
  for i in $(seq 2500); do echo "line = $i"; done >"$dir/history"
  start
  sees '> '
  types '\x10\n'
  types 'line + 1\n'
  sees 2501
  end
  [ "$(head -n 1 "$dir/history")" = 'line = 1501' ]
  [ "$(wc -l <"$dir/history")" -eq 1002 ]
}
