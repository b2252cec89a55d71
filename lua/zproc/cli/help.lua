--- zproc help: which commands there are, and what one of them takes.

local cli = require "zproc.cli"
local failure = require "zproc.cli.failure"
local text = require "zproc.cli.text"

local command = {
  usage = "help [COMMAND]",
  summary = "show this text, or what a command takes",
  arguments = { options = {}, operands = { "command", "topic" } },
}

command.help = [[
usage: zproc help [COMMAND]
       zproc help state ACTION

Show which commands there are, or what one of them takes: the same as zproc COMMAND --help.
]]

--- Show it.
---@param given { command: string?, topic: string? }
---@return integer status
function command.run(given)
  if not given.command then
    io.write(cli.overview())
    return 0
  end
  local about = cli.find(given.command)
  if not about then return failure.of_usage(("there is no command '%s'"):format(text.brief(given.command))) end
  if given.topic and not (about.topics and about.topics[given.topic]) then
    return failure.of_usage(("there is no '%s' of %s to be told of"):format(text.brief(given.topic), given.command))
  end
  io.write(cli.help_of(about, { given.topic }))
  return 0
end

return command
