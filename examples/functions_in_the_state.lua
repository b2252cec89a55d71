-- Functions are values of the state, too: with their upvalues, and with the script's globals that they use.
--
-- Output:
--   in another process: 5050
--   the state has its own copy of the upvalue: 5050

local zproc = require "zproc"

local ctx = zproc.context()
local state = ctx.state

function add(a, b) return a + b end -- a global of this script: travels with the functions that use it

local limit = 100

local function sum_up()
  local sum = 0
  for i = 1, limit do sum = add(sum, i) end
  return sum
end

state.sum = sum_up
limit = 3

print("in another process: " .. ctx:process(function(own) return own.sum() end):wait())
print("the state has its own copy of the upvalue: " .. state.sum())
