-- The rock: `luarocks make` in a checkout builds the executable and the module with what is installed, and puts both into a tree of rocks,
-- where the module finds the executable. scripts/packages build lists what has to be there.
rockspec_format = "3.0"
package = "zproc"
version = "scm-1"
source = {
  url = "git+file://.", -- the checkout itself
}
description = {
  summary = "Processes that share one state",
  detailed = [[
zproc runs Lua scripts whose processes share one state: they set keys, run atomic functions on it, wait for it to change, start
processes with arguments, and get back what these return or raise.]],
  license = "MIT",
  labels = { "process", "multiprocessing", "state", "linux" },
}
supported_platforms = { "linux" }
dependencies = {
  "lua >= 5.4, < 5.5",
}
build = {
  type = "command",
  -- Beside the source, so that a build of scripts/build in the same checkout goes on. The paths end up in no file but the Makefile: LuaRocks
  -- moves what is installed to its tree afterwards.
  build_command = [[
    set -e
    scripts/lmdb
    if [ ! -x configure ]; then autoreconf -i; fi
    mkdir -p build-rock
    cd build-rock
    ../configure --prefix="$(PREFIX)" --bindir="$(BINDIR)" --with-lua-cmod="$(LIBDIR)"
    make]],
  install_command = "make -C build-rock install",
}
