-- Peanut processor: live, buffered and hybrid consumers of the same events. Ten peanuts are made while nobody looks.
--
-- A buffered consumer gets each of them, in order. A live one gets none of them, only what comes from now on. A hybrid one is
-- buffered, but skips to the present with go_live() when it wants to.
--
-- Output:
--   buffered: 1 2 3 4 5 6 7 8 9 10
--   live: nothing, TimeoutError
--   live: 11
--   hybrid: 1, then go_live, then 12

local zproc = require "zproc"

local ctx = zproc.context()
local state = ctx.state
state.peanuts = 0

local inc_peanuts = zproc.atomic(function(snapshot)
  snapshot.peanuts = snapshot.peanuts + 1
end)

-- Each State has its own place among the events; it begins when the State is made.
local buffered, live, hybrid = state:fork(), state:fork(), state:fork()

ctx:process(function(own)
  for _ = 1, 10 do inc_peanuts(own) end
end):wait()

local seen = {}
for snapshot in buffered:when_change("peanuts", { count = 10 }) do seen[#seen + 1] = snapshot.peanuts end
print("buffered: " .. table.concat(seen, " "))

local nothing, err = live:get_when_change("peanuts", { live = true, timeout = 0.01 })
assert(nothing == nil)
print("live: nothing, " .. err.name)

local waiting = ctx:process(function(own)
  local late = own:fork()
  own.ready = true
  return late:get_when_change("peanuts").peanuts
end)
state:get_when_available "ready"
inc_peanuts(state)
print("live: " .. waiting:wait())

local first = hybrid:get_when_change("peanuts").peanuts
hybrid:go_live()
inc_peanuts(state)
print(("hybrid: %d, then go_live, then %d"):format(first, hybrid:get_when_change("peanuts").peanuts))
