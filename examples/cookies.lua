-- Cookies: wait for the state to be as one wants it, instead of looking again and again. The condition is a value, or a function.
--
-- Output:
--   done with zproc, cookies = 5
--   more than 6 cookies: 7
--   waited too long

local zproc = require "zproc"

local ctx = zproc.context()
local state = ctx.state

local equal = ctx:process(function(own)
  return "done with zproc, cookies = " .. own:get_when_equal("cookies", 5).cookies
end)

local more = ctx:process(function(own)
  return "more than 6 cookies: " .. own:get_when(function(snapshot) return snapshot.cookies > 6 end).cookies
end)

for i = 1, 10 do state.cookies = i end

print(equal:wait())
print(more:wait())

-- Nothing changes any more, so the time will be up. That is a result, no error.
local watcher = state:fork()
local snapshot, err = watcher:get_when_change { timeout = 0.01 }
if not snapshot and err.name == "TimeoutError" then print "waited too long" end
