-- A predicate over one key, in a state of 10 keys and in one of 100,000: to find it false, to find it true (which returns a
-- snapshot), and from an update to the return of a call that waits for it, asleep, in another process.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path
local measure = require "measure"
local zproc = require "zproc"

local SAMPLES <const> = arg[1] == "--quick" and 50 or 100

local function run(suffix, size)
  local ctx <close> = zproc.context()
  local state = ctx.state
  for first = 1, size, 1000 do
    local keys = {}
    for i = first, math.min(first + 999, size) do keys["key" .. i] = i end
    state:update(keys)
  end
  state.news = 0

  -- Each call has a predicate of its own: one that was answered already would wait for the next update.
  measure.report("false" .. suffix, measure.each(function()
    state:get_when(function(snapshot) return snapshot.news > 0 end, { timeout = 0 })
  end, SAMPLES, 1))
  local below = 0
  measure.report("true" .. suffix, measure.each(function()
    below = below - 1
    state:get_when(function(snapshot) return snapshot.news > below end)
  end, SAMPLES, 1))
  measure.report("copy" .. suffix, measure.each(function() return state:copy() end, SAMPLES, 1))

  measure.report("when" .. suffix, measure.wake(ctx, SAMPLES, function(own, i)
    own:get_when(function(snapshot) return snapshot.news >= i end)
  end))
end

run("_10", 10)
run("_100k", 100000)
