--- The life of this process as zproc sees it: what is open in it, what happens when it ends, and, in a child,
--- how the target is run and its outcome left for the parent.

local core = require "zproc.core"
local errors = require "zproc.errors"
local options = require "zproc.options"
local traceback = require "zproc.traceback"

local runtime = {}

--- What this process has to close before it ends, Contexts and servers, in the order in which they were made. Each has `_pid`, that of
--- the process that it belongs to, and close().
local open = {}

local exit_host = os.exit

--- Called when there is something new to close, or that closing will need; nothing is to be done, unless there is a host (zproc.host).
function runtime.on_open() end

function runtime.add(closable)
  core.note_closable()
  open[#open + 1] = closable
  runtime.on_open()
end

function runtime.remove(closable)
  for i, candidate in ipairs(open) do
    if rawequal(candidate, closable) then return table.remove(open, i) end
  end
end

local to_words <const> = options.words_of

-- ---- what has gone wrong ----

local failed_pid -- of the process that noted a failure; those that it forks inherit this, but not the failure
local last_looks = {}

--- A process of this one has failed, and nobody has asked how it ended.
function runtime.note_failure() failed_pid = core.getpid() end

--- Have a function called when this process is about to end, before the last look at what has gone wrong.
---@param look fun()
function runtime.before_the_end(look) last_looks[#last_looks + 1] = look end

--- Whether something has gone wrong that nobody has asked for.
---@return boolean
function runtime.has_failed()
  for _, look in ipairs(last_looks) do look() end
  return failed_pid == core.getpid()
end

-- ---- the end ----

--- How much is open now, for close_from.
---@return integer
function runtime.mark() return #open end

--- Close what was opened after the mark, the newest first; what it inherited by fork is its owner's. All are closed whatever
--- happens.
---@param mark integer
---@return any failure the first error, if any
function runtime.close_from(mark)
  local failure
  for i = #open, mark + 1, -1 do -- each deadline begins now, not when the one before has passed
    local closable = open[i]
    local prepare = closable._pid == core.getpid() and closable._prepare_close
    if prepare and not prepare(closable) then break end
  end
  while #open > mark do
    local closable = table.remove(open)
    if closable._pid == core.getpid() then
      local ok, err = pcall(closable.close, closable)
      if not ok then failure = failure or err end
    end
  end
  return failure
end

--- Close everything that this process has open.
---@return any failure the first error, if any
function runtime.shutdown()
  local failure = runtime.close_from(0)
  core.tell_deaths()
  return failure
end

--- Close everything in place of what called for the end of this process, which may be an atomic function.
---@return any failure the first error, if any
local function leave()
  core.abandon_atomic()
  return runtime.shutdown()
end

--- Report on stderr, which the script may have closed or replaced: reporting must not be a failure of its own.
---@param text string
function runtime.say(text)
  pcall(io.stderr.write, io.stderr, "zproc: " .. text .. "\n")
end

local say = runtime.say

--- A number that the system takes as an exit status, from what os.exit or zproc.exit was given.
local function exit_status(status)
  if status == nil or status == true then return 0 end
  if status == false then return 1 end
  return math.tointeger(tonumber(status)) or 1
end

--- The exit status of a program that exits, after the shutdown: neither a full disk nor, unless the script says itself that all is well, a
--- process that has failed must look like success.
---@param status integer so far
---@param given any what the script has given for it
---@return integer
local function final_status(status, given)
  local lost = core.output_failure(true)
  if lost then say(lost) end
  return (lost or given == nil and runtime.has_failed()) and status == 0 and 1 or status
end

--- End this process: zproc.exit, and os.exit too. In a process that zproc started, ProcessExit unwinds to its start.
---@param status integer|boolean|nil
function runtime.exit(status)
  if status ~= nil and type(status) ~= "boolean" and (type(status) ~= "number" or not math.tointeger(status)) then
    errors.usage("zproc.exit takes an integer, true or false, not %s; to end with an error there is error(...)", options.describe(status))
  end
  local given = status
  status = exit_status(status)
  if status < -128 or status > 255 then errors.usage("zproc.exit: an exit status is from 0 to 255, not %d", status) end
  if core.is_child() then error(errors.new("ProcessExit", ("exit with status %d"):format(status), { status = status })) end
  local failure = leave()
  if failure ~= nil then
    say(to_words(failure))
    status = status == 0 and 1 or status
  end
  exit_host(final_status(status, given), true)
end

--- Whether os.exit is to raise ProcessExit, as zproc.exit does.
local unwinds = core.is_thread()

--- This process has something to do when a target wants to end it: from now on it finds a ProcessExit.
function runtime.unwind_on_exit() unwinds = true end

--- os.exit as scripts see it: as before, but nothing of ours is left behind.
---@diagnostic disable-next-line: duplicate-set-field
os.exit = function(status, close)
  if status ~= nil and type(status) ~= "boolean" and not math.tointeger(tonumber(status)) then
    errors.usage("os.exit takes an integer, true or false, not %s", options.describe(status))
  end
  if unwinds then error(errors.new("ProcessExit", "os.exit", { status = exit_status(status) })) end
  local failure = leave()
  if failure ~= nil then say(to_words(failure)) end
  if core.is_child() then core.child_exit(exit_status(status)) end
  exit_host(final_status(exit_status(status), status), close)
end

--- The error object for whatever a target raised, with the traceback of where that was.
---@param raised any
---@param where string? the traceback
---@return zproc.Error
function runtime.describe(raised, where)
  if errors.is(raised) then
    raised.traceback = raised.traceback or where
    return raised
  end
  local message = to_words(raised)
  return errors.new("RemoteError", message, { traceback = where, cause = raised, where = false })
end

--- An error object that can travel: the same, or if it cannot travel as a whole its words, and what else of it can (an exit code, say).
---@param err zproc.Error
---@return zproc.Error
function runtime.sendable(err)
  if pcall(core.encode, err) then return err end
  local fields = {}
  for name, value in next, err do
    if pcall(core.encode, { [name] = value }) then fields[name] = value end
  end
  fields.where = fields.where or false
  return errors.new(err.name, err.message, fields)
end

--- The bytes of what is to run elsewhere. What of it cannot travel the error calls by its name: target, args[1].
---@param call string what the error begins with
---@param job table with the target, and its arguments there or in `options`
---@return string bytes
function runtime.encode_job(call, job)
  local ok, bytes = pcall(core.encode, job, "job")
  if ok then return bytes end
  if errors.is(bytes, "EncodeError") then
    bytes.message = ("%s: %s"):format(call, (bytes.message:gsub("^job%.", ""):gsub("^options%.", "")))
  end
  error(options.advise(bytes, "open it inside the target"), 0)
end

--- What this process has left for its parent: { true, values } or { false, error }, values and error as bytes of their own. The third is true
--- if processes of its own have failed and it has not asked how they ended. The fourth is the error in words: so the parent has something to
--- say even if it cannot read the error.
local left

local function leave_outcome(child, ok, bytes, words)
  left = { ok, bytes, false, words }
  child:leave(core.encode(left))
end

local function leave_error(child, raised, where)
  local err = runtime.sendable(runtime.describe(raised, where))
  leave_outcome(child, false, core.encode(err), to_words(err))
  return err
end

--- Processes of this one have failed. That is no failure of its own, but the script must not end as if nothing had been.
local function leave_trouble(child)
  if not left then leave_outcome(child, true, core.encode(table.pack())) end
  left[3] = true
  child:leave(core.encode(left))
end

--- What there is to do when a target has ended in a forked child: leave its results, or its error, for the parent.
---@return integer status the process's exit status
local function conclude(child, name, ended, thread, ...)
  local raised, where
  local calm, interrupt = pcall(core.raise_signal) -- that came when no instruction of the target was left
  if ended == "returned" and not calm then
    raised = interrupt
  elseif ended == "returned" then
    if select("#", ...) == 0 then return 0 end
    local sent, bytes = pcall(core.encode, table.pack(...), "result")
    if sent then
      leave_outcome(child, true, bytes)
      return 0
    end
    raised = options.advise(bytes, "return what is in it, or its path")
  elseif ended == "yielded" then
    raised = "the target yielded, but it is not run by a scheduler"
    where = traceback.of(thread, raised)
  else
    raised = ...
    where = traceback.of(thread, raised)
    local closed, failure = coroutine.close(thread)
    if not closed and not rawequal(failure, raised) then say(to_words(failure)) end
  end
  if errors.is(raised, "ProcessExit") then return exit_status(raised.status) end
  if errors.is(raised, "SignalError") and core.is_to_stop() then -- as its parent wished
    runtime.shutdown()
    if core.is_thread() then return -raised.signal.number end
    core.die_of(raised.signal.number)
  end
  local err = leave_error(child, raised, where)
  say(("process %s (pid %d) failed: %s"):format(name, core.getpid(), traceback.tell(err)))
  return 1
end

--- In a forked child, after the target: leave its outcome and close what it has opened. Given to core.start.
---@param child table the Child
---@param name string the process's name, for messages
---@param ended "returned"|"raised"|"yielded"
---@param thread thread
---@return integer status the process's exit status
function runtime.finish(child, name, ended, thread, ...)
  left = nil -- that of whoever has forked it
  local ok, status = pcall(conclude, child, name, ended, thread, ...)
  if not ok then
    say(("process %s (pid %d) could not report how it ended: %s"):format(name, core.getpid(), to_words(status)))
    status = 1
  end
  local failure = runtime.shutdown()
  if failure ~= nil then
    say(("process %s (pid %d): %s"):format(name, core.getpid(), to_words(failure)))
    status = status == 0 and 1 or status
  end
  local lost = status == 0 and core.output_failure()
  if lost then
    pcall(leave_error, child, errors.new("SystemError", lost, { where = false }))
    say(("process %s (pid %d): %s"):format(name, core.getpid(), lost))
    status = 1
  end
  if runtime.has_failed() then pcall(leave_trouble, child) end
  return status
end

--- What a process left behind, from its message, which is nil if it left none: nil if nothing; else true and the packed results, or false and the error. The third: whether processes of
--- its own have failed. Raises a DecodeError if the results cannot be read here.
---@return boolean?, any, boolean?
function runtime.read_outcome(message)
  if not message then return nil end
  local ok, bytes, has_trouble, words = table.unpack(core.decode(message))
  if ok then return true, core.decode(bytes), has_trouble end
  return false, runtime.read_error(bytes, words), has_trouble
end

--- An error that came as bytes; if these cannot be read here, one with its words.
---@param bytes string
---@param words string
---@return zproc.Error
function runtime.read_error(bytes, words)
  local ok, err = pcall(core.decode, bytes)
  if ok and errors.is(err) then return err end
  if not ok and (errors.is(err, "SignalError") or errors.is(err, "ProcessExit")) then error(err, 0) end
  return errors.new("RemoteError", ("%s (the error itself cannot be read here: %s)"):format(words, to_words(err)), { where = false })
end

return runtime
