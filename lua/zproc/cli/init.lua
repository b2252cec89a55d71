--- The command line: `zproc COMMAND ...`. Each command is a module with `usage`, `summary` and `run(arguments) -> status`.

local core = require "zproc.core"

local commands = {
  { name = "run", module = "zproc.cli.run" },
  { name = "server", module = "zproc.cli.server" },
  { name = "ping", module = "zproc.cli.ping" },
  { name = "ps", module = "zproc.cli.ps" },
}

local cli = {}

local USAGE_ERROR <const> = 2

local function help(out)
  out:write("usage: zproc COMMAND [ARGUMENT ...]\n\nCommands:\n")
  for _, command in ipairs(commands) do
    local module = require(command.module)
    out:write(("  %-32s %s\n"):format(module.usage, module.summary))
  end
  out:write(("  %-32s %s\n"):format("help", "show this text"))
  out:write(("  %-32s %s\n"):format("version", "show the version"))
end

--- Run a command line.
---@param arguments string[] without the program's name
---@return integer status the exit status
function cli.main(arguments)
  local name = arguments[1]
  if name == "help" or name == "--help" or name == "-h" then
    help(io.stdout)
    return 0
  elseif name == "version" or name == "--version" then
    print("zproc " .. core.version .. " (" .. _VERSION .. ")")
    return 0
  elseif name == nil then
    help(io.stderr)
    return USAGE_ERROR
  end
  for _, command in ipairs(commands) do
    if command.name == name then return require(command.module).run(table.move(arguments, 2, #arguments, 1, {})) end
  end
  io.stderr:write(("zproc: there is no command '%s'; see zproc help\n"):format(name))
  return USAGE_ERROR
end

return cli
