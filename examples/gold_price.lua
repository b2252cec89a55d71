-- The price of gold: print a message whenever it is below 40. The predicate sees every price, and there need not be one at first.
--
-- Output:
--   "gold_price" is below 40!!: 39
--   "gold_price" is below 40!!: 12
--   "gold_price" is below 40!!: 38

local zproc = require "zproc"

local ctx = zproc.context()
local state = ctx.state

local watcher = ctx:process(function(own)
  for snapshot in own:when(function(s) return s.gold_price < 40 end, { count = 3 }) do
    print('"gold_price" is below 40!!: ' .. snapshot.gold_price)
  end
end)

for _, price in ipairs { 57, 39, 44, 12, 99, 38 } do state.gold_price = price end

watcher:wait()
