-- The same through the network, over TCP on this machine: one client that reads and assigns, without and with a key; and many at once.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path
local measure = require "measure"
local core = require "zproc.core"
local zproc = require "zproc"

local CLIENTS <const>, CALLS <const> = tonumber(arg[1]), tonumber(arg[2])
local BATCHES <const>, SIZE <const>, WARM <const> = 5000, 1, 200
local KEY <const> = "a key for measuring"

--- Median microseconds of a read and of an assignment.
local function measure_calls(suffix, secret_key)
  local server <close>, address = zproc.start_server("tcp://127.0.0.1:*", { secret_key = secret_key })
  local state <close> = zproc.state(address, { transport = "network", secret_key = secret_key })
  state.count = 0
  for _ = 1, WARM do local _ = state.count end
  measure.report("network_get" .. suffix, measure.each(function() return state.count end, BATCHES, SIZE))
  measure.report("network_set" .. suffix, measure.each(function(i) state.count = i end, BATCHES, SIZE))
  local increment = zproc.atomic(function(snapshot) snapshot.count = snapshot.count + 1 end)
  measure.report("network_atomic" .. suffix, measure.each(function() increment(state) end, BATCHES // 5, SIZE))
  assert(server.is_alive)
end

measure_calls("", nil)
measure_calls("_keyed", KEY)

local server <close>, address = zproc.start_server "tcp://127.0.0.1:*"
local ctx <close> = zproc.context(address, { transport = "network" })
ctx.state.count = 0
local begin = core.clock()
ctx:process_factory(function(state)
  for i = 1, CALLS do
    if i % 2 == 0 then state.count = i else local _ = state.count end
  end
end, { count = CLIENTS })
ctx:wait_all()
measure.report("network_many", core.clock() - begin)
assert(server.is_alive)
