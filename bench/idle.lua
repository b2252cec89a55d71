-- What waiting watchers use: their CPU time while nothing changes, and while one writer updates others as fast as it can;
-- and how fast that is.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path
local measure = require "measure"
local procfs = require "procfs"
local core = require "zproc.core"
local zproc = require "zproc"

local WATCHERS <const>, IDLE <const> = 100, 2 -- seconds
local UPDATES <const> = arg[1] == "--quick" and 200000 or 500000

local ctx <close> = zproc.context()
local state = ctx.state

local pids = {}
for i = 1, WATCHERS do
  local watcher = ctx:process(function(own)
    own["ready" .. i] = true
    own:get_when_equal("key" .. i, "never")
  end)
  pids[i] = watcher.pid
end
for i = 1, WATCHERS do
  while not state["ready" .. i] do zproc.sleep(0.001) end
end
procfs.settle(pids, zproc.sleep)

--- What they all have used so far.
local function total(of)
  local sum = 0
  for _, pid in ipairs(pids) do sum = sum + of(pid) end
  return sum
end

local ticks = total(procfs.ticks)
zproc.sleep(IDLE)
measure.report("idle_ticks", total(procfs.ticks) - ticks)

local cpu = total(procfs.cpu)
local begin = core.clock()
for i = 1, UPDATES do state.other = i end
measure.report("unwatched_rate", UPDATES / (core.clock() - begin))
procfs.settle(pids, zproc.sleep)
measure.report("unwatched_cpu", (total(procfs.cpu) - cpu) / WATCHERS)
