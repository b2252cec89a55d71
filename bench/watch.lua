-- From an update to the return of a get_when_equal that waits for it, asleep, in another process.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path
local measure = require "measure"
local zproc = require "zproc"

local SAMPLES <const> = arg[1] == "--quick" and 300 or 2000

measure.report("wake", measure.wake(zproc.context(), SAMPLES, function(own, i) own:get_when_equal("news", i) end))
