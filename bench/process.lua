-- Start and wait of an empty process; and how large this process is, for the peer in C.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path
local measure = require "measure"
local core = require "zproc.core"
local zproc = require "zproc"

local ctx = zproc.context()
ctx.state.count = 1

for line in io.lines "/proc/self/status" do
  local name, size = line:match "^(Rss%a+):%s+(%d+)"
  if name then measure.report(name, tonumber(size)) end
end

local took = {}
for i = 1, 400 do
  local begin = core.clock()
  ctx:process(function() end):wait()
  took[i] = (core.clock() - begin) * 1e6
  ctx.process_list[1] = nil
end
measure.report("process", measure.median(took))
