--- zproc server: a state server in the foreground.

local core = require "zproc.core"
local failure = require "zproc.cli.failure"
local server = require "zproc.server"

local command = {
  usage = "server [--bind ADDRESS] [--data-dir DIR [--sync MODE]]",
  summary = "keep a state at an address until a signal ends it",
}

local help = [=[
usage: zproc server [--bind ADDRESS] [--data-dir DIR [--sync never|interval|always]]

Start a server, print its address, and keep it until SIGTERM, SIGINT or SIGHUP. Its state begins empty and is gone with it, unless
there is a data directory.

  --bind ADDRESS   ipc:///path/of/a/socket; without it a random address
  --data-dir DIR   keep the state in this directory, and go on with what is in it: it survives the end of the server, however it ends,
                   with every update that was acknowledged
  --sync MODE      what a power failure may cost: always: nothing, and each update waits for the disk; interval (the default): what
                   came after the last snapshot, which is taken every second or, if it is large, less often; never: everything
]=]

--- The options that take a value, and where it goes.
local TAKES_VALUE <const> = { ["--bind"] = "address", ["--data-dir"] = "data_dir", ["--sync"] = "sync" }
local SYNC <const> = { never = true, interval = true, always = true }

--- Read the arguments: a table of them, or nil and what is wrong with them.
local function parse(arguments)
  local given = {}
  for i = 1, #arguments, 2 do
    local option, value = arguments[i], arguments[i + 1]
    local name = TAKES_VALUE[option]
    if not name then return nil, ("unknown argument '%s'"):format(option) end
    if given[name] then return nil, ("one %s is enough"):format(option) end
    if not value then return nil, ("%s takes %s"):format(option, option == "--bind" and "an address" or "a value") end
    given[name] = value
  end
  if given.sync and not SYNC[given.sync] then return nil, "--sync is never, interval or always" end
  if given.sync and not given.data_dir then return nil, "--sync goes with --data-dir" end
  return given
end

--- Keep a server until a signal ends it.
---@param arguments string[]
---@return integer status
function command.run(arguments)
  if arguments[1] == "--help" then
    io.write(help)
    return 0
  end
  local given, wrong = parse(arguments)
  if not given then
    return failure.of_usage("server", wrong)
  end
  local ok, kept = pcall(server.start, "server", given.address, { data_dir = given.data_dir, sync = given.sync })
  if not ok then return failure.of(kept) end
  print(kept.server_address)
  io.stdout:flush()
  core.await_termination()
  kept:stop()
  return 0
end

return command
