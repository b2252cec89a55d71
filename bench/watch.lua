-- From an update to the return of a get_when_equal that waits for it, asleep, in another process.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path
local measure = require "measure"
local core = require "zproc.core"
local zproc = require "zproc"

local SAMPLES <const> = arg[1] == "--quick" and 300 or 2000

local ctx = zproc.context()
local state = ctx.state

local waiter = ctx:process(function(own)
  local returned = {}
  for i = 1, SAMPLES do
    own:get_when_equal("news", i)
    returned[i] = core.clock()
    own.got = i
  end
  return returned
end)

local begun = {}
for i = 1, SAMPLES do
  zproc.sleep(0.0003) -- so that the waiter is asleep
  begun[i] = core.clock()
  state.news = i
  while state.got ~= i do zproc.sleep(0.00005) end
end

local took = {}
for i, returned in ipairs(waiter:wait()) do took[i] = (returned - begun[i]) * 1e6 end
measure.report("wake", measure.median(took))
