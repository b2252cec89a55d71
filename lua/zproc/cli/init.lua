--- The command line: `zproc COMMAND ...`. Each command is a module with `usage`, `summary` and `run(arguments) -> status`.

local core = require "zproc.core"

local commands = {
  { name = "run", module = "zproc.cli.run" },
  { name = "server", module = "zproc.cli.server" },
  { name = "worker", module = "zproc.cli.worker" },
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
  out:write("\nEach takes --secret-key-file FILE, for servers that have a secret key; or there is $ZPROC_SECRET_KEY.\n")
end

--- Take `--secret-key-file FILE` out of the arguments of a command, any of which may have it, and note the key: what is on a command line
--- everybody can read. Arguments of a script are the script's.
---@return string? wrong
local function take_secret(name, arguments)
  for i, argument in ipairs(arguments) do
    if argument == "--" or name == "run" and not argument:find "^%-" then return nil end
    if argument == "--secret-key-file" then
      local path = arguments[i + 1]
      if not path then return "--secret-key-file takes a file" end
      local file, problem = io.open(path, "rb")
      local content, trouble = nil, nil
      if file then
        content, trouble = file:read "a"
        file:close()
      end
      if not content then return "cannot read the secret key: " .. (problem or trouble or path) end
      content = content:gsub("[\r\n]+$", "")
      if content == "" then return ("the secret key in %s is empty"):format(path) end
      require "zproc.link".default_secret = content
      table.move(arguments, i + 2, #arguments + 2, i)
      return take_secret(name, arguments)
    end
  end
  return nil
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
    if command.name == name then
      local rest = table.move(arguments, 2, #arguments, 1, {})
      local wrong = take_secret(name, rest)
      if wrong then return require "zproc.cli.failure".of_usage(name, wrong) end
      return require(command.module).run(rest)
    end
  end
  io.stderr:write(("zproc: there is no command '%s'; see zproc help\n"):format(name))
  return USAGE_ERROR
end

return cli
