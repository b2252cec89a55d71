--- Running somebody else's Lua as the program that this process is: what `zproc run` and `zproc eval` have in common.

local core = require "zproc.core"
local errors = require "zproc.errors"
local runtime = require "zproc.runtime"
local signal = require "zproc.signal"
local traceback = require "zproc.traceback"

local program = {}

local say = runtime.say

--- A message handler: what a person needs of an error that ended a program: words, place, tracebacks here and there.
---@param raised any
---@return { text: string, raised: any }
function program.report(raised)
  local words = tostring(raised)
  if type(raised) == "table" and not errors.is(raised) and not (debug.getmetatable(raised) or {}).__tostring then
    words = ("(error object is a %s value)"):format(type(raised))
  end
  return { text = traceback.here(words, 2, raised), raised = raised }
end

--- Close all that is open: the exit status, which was `status` so far.
---@param status integer
---@return integer status
function program.finish(status)
  local failure = runtime.shutdown()
  if failure ~= nil then
    say(tostring(failure))
    status = status == 0 and 1 or status
  end
  return status == 0 and runtime.has_failed() and 1 or status
end

--- Run a program to its end, and that of its processes.
---@param main function its errors are reported
---@return integer status
function program.run(main, ...)
  -- ^C ends the program and its processes in order; a second one does it at once.
  signal.end_by "SIGINT"
  local ok, result = xpcall(function(...)
    main(...)
    core.raise_signal() -- that came when no instruction of the program was left
  end, program.report, ...)
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
  status = program.finish(status)
  if interrupted then core.die_of(signal.by_name.SIGINT.number) end -- so that whoever started us knows
  return status
end

return program
