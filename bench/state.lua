-- Read, assignment and atomic increment of a small value, alone, beside 100,000 keys and beside a 10 MB value.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path
local measure = require "measure"
local zproc = require "zproc"

local QUICK <const> = arg[1] == "--quick"
local BATCHES <const>, SIZE <const> = QUICK and 50 or 400, 100

local increment = zproc.atomic(function(snapshot) snapshot.count = snapshot.count + 1 end)

local function report(state, suffix)
  state.count = 1
  measure.report("read" .. suffix, measure.each(function() return state.count end, BATCHES, SIZE))
  measure.report("write" .. suffix, measure.each(function(i) state.count = i end, BATCHES, SIZE))
  measure.report("increment" .. suffix, measure.each(function() increment(state) end, BATCHES, SIZE))
end

local small = zproc.context()
report(small.state, "")
small:close()

local many = zproc.context()
for first = 1, 100000, 1000 do
  local keys = {}
  for i = first, first + 999 do keys["key" .. i] = i end
  many.state:update(keys)
end
report(many.state, "_100k")
many:close()

local large = zproc.context()
large.state.large = ("x"):rep(10000000)
report(large.state, "_10mb")
large:close()
