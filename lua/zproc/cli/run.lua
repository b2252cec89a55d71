--- zproc run: run a script.

local core = require "zproc.core"
local failure = require "zproc.cli.failure"
local program = require "zproc.cli.program"
local runtime = require "zproc.runtime"

local command = {
  usage = "run [--prefix] SCRIPT [ARGUMENT ...]",
  summary = "run a Lua script; its arguments are in `arg` and `...`",
  arguments = {
    options = { ["--prefix"] = {} },
    operands = { "script" },
    wanted = "which script?",
    rest = "arguments",
    is_program = true,
  },
}

command.help = [[
usage: zproc run [--prefix] SCRIPT [ARGUMENT ...]

Run a Lua script; its arguments are in `arg` and `...`. The exit status is 0 if it ends well, 1 if it raises, or what it gives to
zproc.exit or os.exit. With - for SCRIPT it is read from standard input. A script whose first line is #!/usr/bin/env -S zproc run can be made
executable, and runs by its own name.

With --prefix each line of output of the script and all its processes begins with [NAME PID], of the process that has written it.
]]

--- Run the script.
---@param given { script: string, prefix: boolean?, arguments: string[] }
---@return integer status
function command.run(given)
  local chunk, wrong = loadfile(given.script ~= "-" and given.script or nil)
  if not chunk then
    runtime.say(wrong)
    return failure.FAILED
  end
  if given.prefix then core.label_output(given.script:match "[^/]*$") end
  arg = table.move(given.arguments, 1, #given.arguments, 1, { [0] = given.script })
  return program.run(chunk, table.unpack(given.arguments))
end

return command
