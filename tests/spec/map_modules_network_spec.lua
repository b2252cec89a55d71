-- What map_modules_spec.lua says holds for a server that is reached by the network as well.
assert(loadfile(os.getenv "SRCDIR" .. "/tests/network.lua"))(_ENV, "map_modules")
