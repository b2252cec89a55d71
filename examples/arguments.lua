-- Providing arguments to a process: `args` come one by one behind the state, `kwargs` as one table at the end.
--
-- Output:
--   2 ^ 4 = 16
--   the state has the result too: 16

local zproc = require "zproc"

local ctx = zproc.context()

local power = ctx:process(function(state, num, kwargs)
  state.result = num ^ kwargs.exp // 1 | 0
  return num, kwargs.exp, state.result
end, { args = { 2 }, kwargs = { exp = 4 } })

print(("%d ^ %d = %d"):format(power:wait()))
print("the state has the result too: " .. ctx.state.result)
