-- The state is like a table that all processes share, and has the methods of a dict.
--
-- Output:
--   apples: 5
--   pears: nil, or 0 by default
--   setdefault keeps what is there: 5
--   setdefault sets what is not: 3
--   keys: apples pears plums
--   3 keys, is apples one? true
--   popped: 5
--   {pears = 3, plums = 7}
--   equal by content: true
--   after clear: {}

local zproc = require "zproc"

local ctx = zproc.context()
local state = ctx.state

state.apples = 5
print("apples: " .. state.apples)
print(("pears: %s, or %d by default"):format(state:get "pears", state:get("pears", 0)))

print("setdefault keeps what is there: " .. state:setdefault("apples", 10))
print("setdefault sets what is not: " .. state:setdefault("pears", 3))

state:update { plums = 7 }
print("keys: " .. table.concat(state:keys(), " "))
print(("%d keys, is apples one? %s"):format(#state, state:contains "apples"))

print("popped: " .. state:pop "apples")
print(state)
print("equal by content: " .. tostring(state == { pears = 3, plums = 7 }))

state:clear()
print("after clear: " .. tostring(state))
