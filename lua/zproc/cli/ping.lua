--- zproc ping: whether a server answers.

local core = require "zproc.core"
local arguments = require "zproc.cli.arguments"
local failure = require "zproc.cli.failure"
local open = require "zproc.cli.open"
local server = require "zproc.server"

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
  local begin = core.clock()
  local ok, pid, err = pcall(server.ping, "ping", given.address, {
    timeout = given.timeout or DEFAULT_TIMEOUT,
    transport = given.transport,
  })
  if not ok or not pid then return failure.of(err or pid) end
  print(("pid %d, %.2f ms"):format(pid, (core.clock() - begin) * 1000))
  return 0
end

return command
