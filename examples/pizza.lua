-- The pizza: want_pizza is called, in a process of its own, every time the number of pizzas changes.
--
-- Output:
--   pizza be tasty! 1
--   pizza be tasty! 2
--   pizza be tasty! 3

local zproc = require "zproc"

local ctx = zproc.context()

local function want_pizza(snapshot, state)
  print("pizza be tasty! " .. snapshot.num_pizza)
  io.stdout:flush()
  state.tasted = snapshot.num_pizza
end

ctx:call_when_change("num_pizza", want_pizza)

for i = 1, 3 do ctx.state.num_pizza = i end

ctx.state:get_when_equal("tasted", 3)
