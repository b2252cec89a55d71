--- zproc eval: run a piece of code from the command line.

local address = require "zproc.address"
local environment = require "zproc.cli.environment"
local failure = require "zproc.cli.failure"
local json = require "zproc.cli.json"
local open = require "zproc.cli.open"
local program = require "zproc.cli.program"
local runtime = require "zproc.runtime"

local command = {
  usage = "eval CODE [ARGUMENT ...]",
  summary = "run a piece of Lua code, and print what it returns",
  arguments = {
    options = open.with(open.STATE_OPTIONS, {
      ["--address"] = { takes = "an address" },
      ["--json"] = {},
    }),
    operands = { "code" },
    wanted = "which code?",
    rest = "arguments",
    is_program = true,
  },
}

command.help = [=[
usage: zproc eval [--address ADDRESS] [--namespace NAME] [--json] [--transport auto|network] [--secret-key-file FILE] CODE [ARGUMENT ...]

Run Lua code, and print what it returns, or the value of an expression: zproc eval '1 + 1'. The arguments are in `arg` and `...`. With -
for CODE it is read from standard input. `zproc` is at hand, as are `ctx`, a Context, and `state`, its State: of the server at the address
or, without one, with a server of their own, which ends with the code.

  --address ADDRESS  the server whose state it is
  --namespace NAME   which of its states (default: default)
  --json             print each value as JSON, in a line of its own

The exit status is 0 if the code ends well, 1 if it raises, or what it gives to zproc.exit or os.exit.
]=]

--- A State stands for what is in it.
local function content(value)
  return address.holder(value) == "state" and value:copy() or value
end

--- Print what the code has returned.
local function show(as_json, ...)
  local parts = {}
  for i = 1, select("#", ...) do
    local value = (select(i, ...))
    parts[i] = as_json and json.encode(content(value), "the result") or environment.describe(value)
  end
  if #parts > 0 then print(table.concat(parts, as_json and "\n" or "\t")) end
end

--- Run the code.
---@param given table
---@return integer status
function command.run(given)
  local code, unread = given.code, nil
  if code == "-" then code, unread = io.read "a" end
  if not code then
    runtime.say(("cannot read stdin: %s"):format(unread))
    return failure.FAILED
  end
  local chunk, wrong = environment.compile(code, "eval")
  if not chunk then
    runtime.say(wrong)
    return failure.FAILED
  end
  arg = table.move(given.arguments, 1, #given.arguments, 1, { [0] = "eval" }) -- its name among the processes of the server, too
  local ok, err = pcall(environment.install, given)
  if not ok then return failure.of(err) end
  return program.run(function(...) show(given.json, chunk(...)) end, table.unpack(given.arguments))
end

return command
