-- Chain reaction: each process waits for the one before it, and sets off the next.
--
-- Output:
--   1 knocked over by the first push
--   2 knocked over by 1
--   3 knocked over by 2
--   4 knocked over by 3
--   5 knocked over by 4
--   all dominoes have fallen

local zproc = require "zproc"

local ctx = zproc.context()
local state = ctx.state

local DOMINOES <const> = 5

local function domino(own, number)
  own:get_when_equal("fallen", number - 1)
  own["story" .. number] = ("%d knocked over by %s"):format(number, number == 1 and "the first push" or number - 1)
  own.fallen = number
end

for number = 1, DOMINOES do ctx:process(domino, { args = { number } }) end

state.fallen = 0
local snapshot = state:get_when_equal("fallen", DOMINOES)
for number = 1, DOMINOES do print(snapshot["story" .. number]) end
print "all dominoes have fallen"
