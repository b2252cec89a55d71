--- zproc ping: whether a server answers.

local core = require "zproc.core"
local failure = require "zproc.cli.failure"
local server = require "zproc.server"

local command = {
  usage = "ping ADDRESS [--timeout SECONDS]",
  summary = "ask a server for a sign of life",
}

local help = [[
usage: zproc ping ADDRESS [--timeout SECONDS]

Print the pid of the server at the address, and how long its answer took. The exit status is 1 if there is none, or none that
answers in time (default: 5 seconds).
]]

local DEFAULT_TIMEOUT <const> = 5

--- Read the arguments: address and timeout, or nil and what is wrong with them.
local function parse(arguments)
  local address, timeout = nil, DEFAULT_TIMEOUT
  local i = 1
  while arguments[i] do
    if arguments[i] == "--timeout" then
      timeout = tonumber(arguments[i + 1])
      if not timeout or not (timeout >= 0) then return nil, "--timeout takes a number of seconds, 0 or more" end
      i = i + 2
    elseif address or arguments[i]:find "^%-" then
      return nil, ("unknown argument '%s'"):format(arguments[i])
    else
      address = arguments[i]
      i = i + 1
    end
  end
  if not address then return nil, "which server?" end
  return address, timeout
end

--- Ask.
---@param arguments string[]
---@return integer status
function command.run(arguments)
  if arguments[1] == "--help" then
    io.write(help)
    return 0
  end
  local address, timeout = parse(arguments)
  if not address then
    return failure.of_usage("ping", timeout)
  end
  local begin = core.clock()
  local ok, pid, err = pcall(server.ping, "ping", address, { timeout = timeout })
  if not ok or not pid then return failure.of(err or pid) end
  print(("pid %d, %.2f ms"):format(pid, (core.clock() - begin) * 1000))
  return 0
end

return command
