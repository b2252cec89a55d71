--- The command line: `zproc COMMAND ...`. Each command is a module that says how it is used (`usage`, `summary`, `help`, `arguments`) and
--- has `run(given) -> status`, where `given` is what its arguments give.
---
--- Exit statuses, of all commands that do not run a script of somebody else's: 0: it is done; 1: it has failed; 2: the command line
--- is wrong.

local arguments = require "zproc.cli.arguments"
local failure = require "zproc.cli.failure"

---@class zproc.cli.Command
---@field usage string the command line in short
---@field summary string what it does, in one line
---@field help string the text of --help
---@field arguments zproc.cli.Spec
---@field run fun(given: table): integer

local cli = {}

--- The commands, in the order in which help shows them: the module of `x` is zproc.cli.x.
cli.names = { "run", "eval", "repl", "server", "worker", "ping", "ps", "top", "state", "version" }

local function help(out)
  out:write("usage: zproc COMMAND [ARGUMENT ...]\n\nCommands:\n")
  for _, name in ipairs(cli.names) do
    local command = require("zproc.cli." .. name)
    out:write(("  %-40s %s\n"):format(command.usage, command.summary))
  end
  out:write(("  %-40s %s\n"):format("help", "show this text"))
  out:write [[

zproc COMMAND --help tells more. Each takes --secret-key-file FILE, for servers that have a secret key; or there is $ZPROC_SECRET_KEY.
The exit status is 0 if all went well, 1 if the command has failed, 2 if the command line is wrong.
]]
end

--- Words for a command that have one of their own.
local ALIASES <const> = { ["--version"] = "version", ["--help"] = "help", ["-h"] = "help" }

--- Run a command line.
---@param words string[] without the program's name
---@return integer status the exit status
function cli.main(words)
  local name = ALIASES[words[1]] or words[1]
  if name == "help" then
    help(io.stdout)
    return 0
  elseif name == nil then
    help(io.stderr)
    return failure.USAGE
  end
  for _, known in ipairs(cli.names) do
    if known == name then
      local command = require("zproc.cli." .. name)
      local given, wrong = arguments.parse(command.arguments, table.move(words, 2, #words, 1, {}))
      if not given then return failure.of_usage(name, wrong) end
      if given.help then
        io.write(command.help)
        return 0
      end
      require "zproc.link".default_secret = given.secret_key_file
      return command.run(given)
    end
  end
  io.stderr:write(("zproc: there is no command '%s'; see zproc help\n"):format(name))
  return failure.USAGE
end

return cli
