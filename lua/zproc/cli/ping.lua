--- zproc ping: whether a server answers.

local core = require "zproc.core"
local arguments = require "zproc.cli.arguments"
local errors = require "zproc.errors"
local failure = require "zproc.cli.failure"
local link = require "zproc.link"
local open = require "zproc.cli.open"

local DEFAULT_TIMEOUT <const> = 5

local command = {
  usage = "ping ADDRESS [--timeout SECONDS]",
  summary = "ask a server for a sign of life",
  arguments = {
    options = open.with(open.OPTIONS, {
      ["--timeout"] = { takes = "a number of seconds, 0 or more", read = arguments.seconds },
    }),
    operands = { "address" },
    wanted = "which server?",
  },
}

command.help = [[
usage: zproc ping ADDRESS [--timeout SECONDS] [--transport auto|network] [--secret-key-file FILE]

Print the pid of the server at the address, and how long its answer took. The exit status is 1 if there is none, or none that
answers in time (default: 5 seconds).
]]

--- Ask.
---@param given { address: string, timeout: number?, transport: string? }
---@return integer status
function command.run(given)
  local timeout = given.timeout or DEFAULT_TIMEOUT
  local deadline = core.clock() + timeout
  local begin
  local function ask(way)
    begin = core.clock()
    return way:ping("ping", { timeout = math.max(0, deadline - begin) })
  end
  local ok, pid, err = pcall(function()
    -- A key takes time to be made of a secret, and a connection by the network to be made: neither is the server's answer.
    local way = link.reach("ping", given.address, { timeout = timeout, transport = given.transport })
    if way and way.connection and not ask(way) then way = nil end
    if way then
      local pid = ask(way)
      if pid then return pid end
    end
    return errors.timeout("ping: the server at " .. given.address, timeout)
  end)
  if not ok or not pid then return failure.of(err or pid) end
  print(("pid %d, %.2f ms"):format(pid, (core.clock() - begin) * 1000))
  return 0
end

return command
