# The rock: what `luarocks make` installs works. Takes as long as compiling everything does, so it is one test.

setup() {
  command -v luarocks >/dev/null || skip "luarocks is not installed"
  [ -d "$SRCDIR/lmdb-source" ] || skip "the source of LMDB is elsewhere, and without a network it stays there"
  dir=$(mktemp -d)
  export ZPROC_RUNTIME_DIR=$dir/runtime
  mkdir "$ZPROC_RUNTIME_DIR"
}

teardown() {
  [ -n "${dir-}" ] || return 0
  left=$(ls -A "$ZPROC_RUNTIME_DIR")
  rm -rf "$dir"
  [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}

@test "luarocks make, without a network, installs a module and an executable that find each other" {
  mkdir "$dir/source"
  # All but builds. What autoreconf has made is taken along, since it takes long.
  for entry in "$SRCDIR"/*; do
    [ -e "$entry/config.status" ] || [ "${entry##*/}" = config.status ] || cp -a "$entry" "$dir/source"
  done
  cd "$dir/source"
  # Nothing is tested here that an optimiser would change, and it would take its time. A proxy that is not there: nothing is fetched.
  env CFLAGS=-O0 MAKEFLAGS="-j$(nproc)" http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 HOME="$dir" \
    luarocks --lua-version=5.4 --tree="$dir/tree" make zproc-scm-1.rockspec >"$dir/log" 2>&1 || { tail -n 50 "$dir/log"; return 1; }
  cd "$dir"
  rm -rf "$dir/source"
  cat >"$dir/script.lua" <<'LUA'
local zproc = require "zproc"
local ctx = zproc.context()
ctx:process(function(state) state.x = "from a process" end):wait()
print(ctx.state.x, ctx:ping() ~= nil)
LUA
  path=$(env -u LUA_CPATH -u LUA_PATH HOME="$dir" luarocks --lua-version=5.4 --tree="$dir/tree" path --lr-cpath)
  run env -u ZPROC LUA_CPATH="$path" timeout 120 lua5.4 "$dir/script.lua"
  echo "$output"
  [ "$status" -eq 0 ]
  [ "$output" = $'from a process\ttrue' ]
  run "$dir/tree/bin/zproc" run "$dir/script.lua"
  [ "$status" -eq 0 ]
  [ "$output" = $'from a process\ttrue' ]
}
