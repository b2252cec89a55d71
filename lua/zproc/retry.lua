--- Retry: running a target again after it failed, in the same process.

local core = require "zproc.core"
local errors = require "zproc.errors"
local options = require "zproc.options"
local runtime = require "zproc.runtime"
local signal = require "zproc.signal"
local traceback = require "zproc.traceback"

local DEFAULT_DELAY <const> = 5 -- seconds

local retry = {
  OPTIONS = {
    retry_for = "list",
    retry_delay = "delay",
    max_retries = "retries",
    retry_args = "arguments",
    retry_kwargs = "table",
  },
}

--- What one item of retry_for asks for: a signal, or a test of what was raised.
---@param call string the function's name, for messages
---@return zproc.Signal?
---@return (fun(raised: any): boolean)?
local function read_item(call, item)
  if signal.is(item) or type(item) == "string" and item:find "^SIG%u" then
    local one = signal.find(call .. ": option 'retry_for'", item)
    signal.check(call .. ": option 'retry_for'", one)
    return one
  elseif errors.is_class(item) then
    return nil, function(raised) return item == errors.any or errors.is(raised, item) end
  elseif type(item) == "string" then
    if not errors.is_known(item) then
      errors.usage("%s: option 'retry_for': there is no error class %q; zproc.error_class makes one", call, item)
    end
    return nil, function(raised) return errors.is(raised, item) end
  elseif options.is_callable(item) then
    return nil, item
  end
  errors.usage("%s: option 'retry_for' is a list of signals, error classes, names and functions; it has %s", call,
    options.describe(item))
end

--- Check the options of a process that have to do with retrying.
---@param call string the function's name, for messages
---@param opts table the options, of the right types
---@return table? plan nil if there is to be no retry
function retry.plan(call, opts)
  local items = opts.retry_for
  if not items then return nil end
  if signal.is(items) or errors.is_class(items) then
    errors.usage("%s: option 'retry_for' is a list: put %s in braces", call, tostring(items))
  end
  local plan = {
    signals = {},
    tests = {},
    delay = opts.retry_delay or DEFAULT_DELAY,
    tries = opts.max_retries and opts.max_retries < math.maxinteger and opts.max_retries + 1 or math.huge,
  }
  for _, item in ipairs(items) do
    local one, test = read_item(call, item)
    if one then plan.signals[one] = true else plan.tests[#plan.tests + 1] = test end
  end
  return plan
end

--- Whether what was raised is to be tried again.
local function is_for(plan, raised)
  if errors.is(raised, "ProcessExit") or core.is_to_stop() then return false end
  if errors.is(raised, "SignalError") and plan.signals[raised.signal] then return true end
  for _, test in ipairs(plan.tests) do
    local ok, answer = pcall(test, raised)
    if not ok then
      runtime.say("a function of retry_for failed itself: " .. tostring(answer))
    elseif answer then
      return true
    end
  end
  return false
end

--- Sleep before the next try. The signals that are retried for have nothing to interrupt meanwhile.
local function pause(plan)
  local due = core.clock() + plan.delay
  while true do
    local left = due - core.clock()
    if left <= 0 then return end
    local ok, raised = pcall(core.sleep, left)
    if not ok and not is_for(plan, raised) then error(raised, 0) end
  end
end

local function of(tries)
  return tries == math.huge and "" or (" of %d"):format(tries)
end

--- A failed try, for a person: what, where, which try, and what comes next.
local function report(plan, name, tries, err)
  runtime.say(("process %s (pid %d) failed, try %d%s: %s\nnext try in %g s, at %s"):format(name, core.getpid(), tries,
    of(plan.tries), traceback.tell(err), plan.delay, os.date("%H:%M:%S", math.floor(core.time() + plan.delay))))
end

--- A target that tries again by itself. What the first try gets comes as arguments.
---@param plan table of retry.plan
---@param name string the process's name, for messages
---@param target function
---@param again fun(): ... the arguments of all further tries
---@return function
function retry.wrap(plan, name, target, again)
  local function try(...)
    local mark = runtime.mark()
    local thread = coroutine.create(target)
    local results = table.pack(coroutine.resume(thread, ...))
    local status = coroutine.status(thread)
    if results[1] and status == "dead" then return results end
    local raised = results[1] and "the target yielded, but it is not run by a scheduler" or results[2]
    local where = traceback.of(thread, raised)
    coroutine.close(thread)
    runtime.close_from(mark) -- the next try starts afresh
    return nil, raised, where
  end

  return function(...)
    for one in pairs(plan.signals) do signal.borrow(one) end
    local results, raised, where = try(...)
    local tries = 1
    while not results do
      local err = runtime.describe(raised, where)
      if tries >= plan.tries or not is_for(plan, raised) then
        if errors.is(raised, "SignalError") and plan.signals[raised.signal] then
          runtime.say(("process %s (pid %d) got %s at try %d%s"):format(name, core.getpid(), raised.signal.name, tries,
            of(plan.tries)))
          runtime.shutdown()
          signal.give_back(raised.signal)
        end
        if tries > 1 and not errors.is(raised, "ProcessExit") then err.tries = tries end
        error(err, 0)
      end
      report(plan, name, tries, err)
      core.note_try(tries, true)
      pause(plan)
      tries = tries + 1
      core.note_try(tries, false)
      results, raised, where = try(again())
    end
    return table.unpack(results, 2, results.n)
  end
end

return retry
