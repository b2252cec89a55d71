-- An atomic function returns what the wrapped function returns, and leaves the state unaffected if that raises.
--
-- Output:
--   increment gave 1
--   withdraw gave false: only 1 left
--   the state is as it was: {count = 1}

local zproc = require "zproc"

local increment = zproc.atomic(function(snapshot)
  snapshot.count = snapshot.count + 1
  return snapshot.count
end)

local withdraw = zproc.atomic(function(snapshot, amount)
  local before = snapshot.count
  snapshot.count = before - amount
  if snapshot.count < 0 then error(("only %d left"):format(before), 0) end
end)

local ctx = zproc.context()
ctx.state.count = 0

print("increment gave " .. increment(ctx.state))

local ok, err = pcall(withdraw, ctx.state, 5)
print(("withdraw gave %s: %s"):format(ok, err))
print("the state is as it was: " .. tostring(ctx.state))
