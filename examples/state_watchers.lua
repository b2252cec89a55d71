-- The state watchers, one after the other. Each waits, in a process of its own, until its condition holds, and returns a snapshot of
-- exactly that moment.
--
-- Output:
--   get_when_change("foobar"): 1
--   get_when_change("foobar", exclude): other = 1
--   get_when(foobar > 3): 4
--   get_when_equal("foobar", 3): 3
--   get_when_not_equal("foobar", 1): 2
--   get_when_none("gone"): absent at foobar = 5
--   get_when_not_none("other"): 1
--   get_when_available("other"): 1
--   get_raw_update(): from nil to 1

local zproc = require "zproc"

local ctx = zproc.context()
local state = ctx.state
state.gone = "still there"

local waiting = {}
local function in_a_process(fn) waiting[#waiting + 1] = ctx:process(fn) end

in_a_process(function(own)
  return 'get_when_change("foobar"): ' .. own:get_when_change("foobar").foobar
end)
in_a_process(function(own)
  return 'get_when_change("foobar", exclude): other = ' .. own:get_when_change("foobar", { exclude = true }).other
end)
in_a_process(function(own)
  return "get_when(foobar > 3): " .. own:get_when(function(snapshot) return snapshot.foobar > 3 end).foobar
end)
in_a_process(function(own)
  return 'get_when_equal("foobar", 3): ' .. own:get_when_equal("foobar", 3).foobar
end)
in_a_process(function(own)
  return 'get_when_not_equal("foobar", 1): ' .. own:get_when_not_equal("foobar", 1).foobar
end)
in_a_process(function(own)
  return 'get_when_none("gone"): absent at foobar = ' .. own:get_when_none("gone").foobar
end)
in_a_process(function(own)
  return 'get_when_not_none("other"): ' .. own:get_when_not_none("other").other
end)
in_a_process(function(own)
  return 'get_when_available("other"): ' .. own:get_when_available("other").other
end)
in_a_process(function(own)
  local before, after = own:get_raw_update()
  return ("get_raw_update(): from %s to %d"):format(before.foobar, after.foobar)
end)

for i = 1, 5 do
  state.foobar = i
end
state.other = 1
state.gone = nil

for _, line in ipairs(ctx:wait_all()) do print(line) end
