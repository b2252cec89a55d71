--- zproc server: a state server in the foreground.

local core = require "zproc.core"
local errors = require "zproc.errors"
local runtime = require "zproc.runtime"
local server = require "zproc.server"

local command = {
  usage = "server [--bind ADDRESS]",
  summary = "keep a state at an address until a signal ends it",
}

local USAGE_ERROR <const> = 2

local help = [[
usage: zproc server [--bind ADDRESS]

Start a server with an empty state, print its address, and keep it until SIGTERM, SIGINT or SIGHUP. Then the state is gone.

  --bind ADDRESS   ipc:///path/of/a/socket; without it a random address
]]

--- Read the arguments: the address, or nil and what is wrong with them.
local function parse(arguments)
  local address
  local i = 1
  while arguments[i] do
    if arguments[i] ~= "--bind" then return nil, ("server: unknown argument '%s'"):format(arguments[i]) end
    if address then return nil, "server: one --bind is enough" end
    address = arguments[i + 1]
    if not address then return nil, "server: --bind takes an address" end
    i = i + 2
  end
  return address or false
end

--- Keep a server until a signal ends it.
---@param arguments string[]
---@return integer status
function command.run(arguments)
  if arguments[1] == "--help" then
    io.write(help)
    return 0
  end
  local address, wrong = parse(arguments)
  if address == nil then
    runtime.say(wrong .. "; see zproc server --help")
    return USAGE_ERROR
  end
  local ok, kept = pcall(server.start, "server", address or nil)
  if not ok then
    runtime.say(tostring(kept))
    return errors.is(kept, "UsageError") and USAGE_ERROR or 1
  end
  print(kept.server_address)
  io.stdout:flush()
  core.await_termination()
  kept:stop()
  return 0
end

return command
