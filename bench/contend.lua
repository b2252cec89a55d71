-- 4 processes increment one counter at the same time: seconds in all, and whether the sum is exact.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path
local measure = require "measure"
local core = require "zproc.core"
local zproc = require "zproc"

local PROCESSES <const>, INCREMENTS <const> = tonumber(arg[1]), tonumber(arg[2])

local increment = zproc.atomic(function(snapshot) snapshot.count = snapshot.count + 1 end)

local ctx = zproc.context()
ctx.state.count = 0
local begin = core.clock()
ctx:process_factory(function(state)
  for _ = 1, INCREMENTS do increment(state) end
end, { count = PROCESSES })
ctx:wait_all()
measure.report("contend", core.clock() - begin)
measure.report("exact", ctx.state.count == PROCESSES * INCREMENTS and 1 or 0)
