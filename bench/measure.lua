--- Timing for the benchmarks.
---
--- An operation can be cheaper than reading the clock, so batches are timed; the figure is the median of the batches' means.

local core = require "zproc.core"

local measure = {}

--- The median of a list of numbers, which is sorted in place.
---@param list number[]
---@return number
function measure.median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

--- Microseconds that an operation takes.
---@param operation fun(i: integer)
---@param batches integer
---@param size integer operations a batch
---@return number
function measure.each(operation, batches, size)
  local took = {}
  for batch = 1, batches do
    local begin = core.clock()
    for i = 1, size do operation(i) end
    took[batch] = (core.clock() - begin) / size * 1e6
  end
  return measure.median(took)
end

--- Microseconds from an update of the key `news` to the return of a call that waits for it, asleep, in another process.
---@param ctx zproc.Context
---@param samples integer
---@param wait fun(state: zproc.State, i: integer) waits until `news` is i
---@return number
function measure.wake(ctx, samples, wait)
  local state = ctx.state
  local waiter = ctx:process(function(own)
    local returned = {}
    for i = 1, samples do
      wait(own, i)
      returned[i] = core.clock()
      own.got = i
    end
    return returned
  end)
  local begun = {}
  for i = 1, samples do
    core.sleep(0.0003) -- so that the waiter is asleep
    begun[i] = core.clock()
    state.news = i
    while state.got ~= i do core.sleep(0.00005) end
  end
  local took = {}
  for i, returned in ipairs(waiter:wait()) do took[i] = (returned - begun[i]) * 1e6 end
  return measure.median(took)
end

--- Print one figure as "name value", for scripts/bench.
function measure.report(name, value)
  io.write(("%s %.6f\n"):format(name, value))
  io.stdout:flush()
end

return measure
