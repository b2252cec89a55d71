-- A watcher that is slower than the writer, by the work that it has with each revision: whether it sees every one, in order
-- and once, and how fast.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path
local measure = require "measure"
local core = require "zproc.core"
local zproc = require "zproc"

local REVISIONS <const>, WORK <const> = 100000, 5e-6 -- seconds

local ctx <close> = zproc.context()
local state = ctx.state

local watcher = ctx:process(function(own)
  local count, in_order = 0, true
  for snapshot in own:when_change "n" do
    count = count + 1
    in_order = in_order and snapshot.n == count
    if snapshot.n == REVISIONS then break end
    local done = core.clock() + WORK
    while core.clock() < done do end
  end
  return count, in_order, core.clock()
end)

local begin = core.clock()
for i = 1, REVISIONS do state.n = i end
local written = core.clock()
local count, in_order, seen = watcher:wait()
measure.report("buffered_writer", REVISIONS / (written - begin))
measure.report("buffered", REVISIONS / (seen - begin))
measure.report("buffered_exact", count == REVISIONS and in_order and 1 or 0)
