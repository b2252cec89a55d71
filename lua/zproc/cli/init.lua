--- The command line: `zproc COMMAND ...`. Each command is a module that says how it is used (`usage`, `summary`, `help`, `arguments`) and
--- has `run(given) -> status`, where `given` is what its arguments give.
---
--- Exit statuses, of all commands that do not run a script of somebody else's: 0: it is done; 1: it has failed; 2: the command line
--- is wrong.

local arguments = require "zproc.cli.arguments"
local core = require "zproc.core"
local failure = require "zproc.cli.failure"
local runtime = require "zproc.runtime"
local text = require "zproc.cli.text"

---@class zproc.cli.Command
---@field usage string the command line in short
---@field summary string what it does, in one line
---@field help string the text of --help
---@field topics table<string, string>? the same for parts of it, by the operand that names them
---@field arguments zproc.cli.Spec
---@field run fun(given: table): integer

local cli = {}

--- The commands, in the order in which help shows them: the module of `x` is zproc.cli.x.
cli.names = { "run", "eval", "repl", "server", "worker", "ping", "ps", "top", "state", "version", "help" }

--- A command, if there is one of that name.
---@param name string
---@return zproc.cli.Command?
function cli.find(name)
  for _, known in ipairs(cli.names) do
    if known == name then return require("zproc.cli." .. name) end
  end
end

--- The list of all commands.
---@return string
function cli.overview()
  local lines = { "usage: zproc COMMAND [ARGUMENT ...]\n\nCommands:" }
  for _, name in ipairs(cli.names) do
    local command = cli.find(name)
    lines[#lines + 1] = ("  %-40s %s"):format(command.usage, command.summary)
  end
  lines[#lines + 1] = [[

zproc COMMAND --help tells more. Each takes --secret-key-file FILE, for servers that have a secret key; or there is $ZPROC_SECRET_KEY.
And each takes --allow-user NAME, to use servers and files of that user; code of that user can run as you then.
The exit status is 0 if all went well, 1 if the command has failed, 2 if the command line is wrong.
]]
  return table.concat(lines, "\n")
end

--- The help of a command, or of a part of it that one of the words names.
---@param command zproc.cli.Command
---@param words string[]
---@return string
function cli.help_of(command, words)
  for _, word in ipairs(words) do
    if command.topics and command.topics[word] then return command.topics[word] end
  end
  return command.help
end

--- Words for a command that have one of their own.
local ALIASES <const> = { ["--version"] = "version", ["--help"] = "help", ["-h"] = "help" }

--- There is no such command; perhaps it was meant as a script.
---@param word string
---@return integer status
local function fail_of(word)
  local is_file = core.real_path(word) and not core.real_path(word .. "/.") -- not opened: that of a FIFO may take for ever
  local shown = text.brief(word)
  if is_file or word:find "%.lua$" then
    runtime.say(("there is no command '%s'. To run a script: zproc run %s; or let it begin with #!/usr/bin/env -S zproc run"):format(shown,
      shown))
  else
    runtime.say(("there is no command '%s'; see zproc help"):format(shown))
  end
  return failure.USAGE
end

--- Run a command line.
---@param words string[] without the program's name
---@return integer status the exit status
function cli.main(words)
  if not words[1] then
    io.stderr:write(cli.overview())
    return failure.USAGE
  end
  local name = ALIASES[words[1]] or words[1]
  local command = cli.find(name)
  if not command then return fail_of(name) end
  failure.command = name
  local given, wrong = arguments.parse(command.arguments, table.move(words, 2, #words, 1, {}))
  if not given then return failure.of_usage(wrong) end
  if given.help then
    io.write(cli.help_of(command, given.about))
    return 0
  end
  local link = require "zproc.link"
  link.default_secret = given.secret_key_file
  local ok, err = pcall(link.trust, name, given)
  if not ok then return failure.of(err) end
  return command.run(given)
end

return cli
