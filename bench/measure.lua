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

--- Print one figure as "name value", for scripts/bench.
function measure.report(name, value)
  io.write(("%s %.6f\n"):format(name, value))
  io.stdout:flush()
end

return measure
