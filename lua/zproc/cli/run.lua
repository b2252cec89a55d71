--- zproc run: run a script.

local core = require "zproc.core"
local errors = require "zproc.errors"
local runtime = require "zproc.runtime"
local signal = require "zproc.signal"

local run = {
  usage = "run [--prefix] SCRIPT [ARGUMENT ...]",
  summary = "run a Lua script; its arguments are in `arg` and `...`",
}

local USAGE_ERROR <const> = 2

local help = [[
usage: zproc run [--prefix] SCRIPT [ARGUMENT ...]

Run a Lua script; its arguments are in `arg` and `...`. The exit status is 0 if it ends well, 1 if it raises, or what it gives to
zproc.exit or os.exit.

With --prefix each line of output of the script and all its processes begins with [NAME PID], of the process that has written it.
]]

local say = runtime.say

--- What a person needs of an error that ended the script: words, place, tracebacks here and there.
local function report(raised)
  if type(raised) == "table" and not errors.is(raised) and not (getmetatable(raised) or {}).__tostring then
    raised = ("(error object is a %s value)"):format(type(raised))
  end
  local text = debug.traceback(tostring(raised), 2)
  if errors.is(raised) and raised.traceback then text = text .. "\nremote " .. raised.traceback end
  return { text = text, raised = raised }
end

--- Run the script that the first argument names.
---@param arguments string[]
---@return integer status
function run.run(arguments)
  local first, prefix = 1, false
  while arguments[first] and arguments[first]:find "^%-." do
    local option = arguments[first]
    if option == "--help" then
      io.write(help)
      return 0
    elseif option == "--prefix" then
      prefix = true
    else
      say(("run: unknown option '%s'; see zproc run --help"):format(option))
      return USAGE_ERROR
    end
    first = first + 1
  end
  local script = arguments[first]
  if not script then
    say "run: which script? usage: zproc run [--prefix] SCRIPT [ARGUMENT ...]"
    return USAGE_ERROR
  end
  arguments = table.move(arguments, first, #arguments, 1, {})
  local chunk, failure = loadfile(script)
  if not chunk then
    say(failure)
    return 1
  end
  if prefix then core.label_output(script:match "[^/]*$") end
  arg = table.move(arguments, 2, #arguments, 1, { [0] = script })
  -- ^C ends the script and its processes in order; a second one does it at once.
  core.catch_signal(signal.by_name.SIGINT.number, true)
  local ok, result = xpcall(chunk, report, table.unpack(arguments, 2))
  local status, interrupted = 0, false
  if not ok then
    if errors.is(result.raised, "ProcessExit") then
      status = result.raised.status
    elseif errors.is(result.raised, "SignalError") and result.raised.signal == signal.by_name.SIGINT then
      interrupted = true
      say(tostring(result.raised))
    else
      say(result.text)
      status = 1
    end
  end
  failure = runtime.shutdown()
  if failure ~= nil then
    say(tostring(failure))
    status = status == 0 and 1 or status
  end
  if interrupted then core.die_of(signal.by_name.SIGINT.number) end -- so that whoever started us knows
  return status
end

return run
