-- Mutating objects inside the state.
--
-- What is read from the state is a copy, so changing it changes nothing. The way to change a table within the state is an atomic
-- function: the table that it gets holds the state itself.
--
-- Output:
--   after table.insert on a copy: {1, 2, 3}
--   after add_a_number: {1, 2, 3, 4}

local zproc = require "zproc"

local ctx = zproc.context()
local state = ctx.state

state.numbers = { 1, 2, 3 }

table.insert(state.numbers, 4) -- inserts into a copy, which is dropped at once
print("after table.insert on a copy: {" .. table.concat(state.numbers, ", ") .. "}")

local add_a_number = zproc.atomic(function(snapshot, to_add)
  table.insert(snapshot.numbers, to_add)
end)

ctx:process(function(own) add_a_number(own, 4) end):wait()
print("after add_a_number: {" .. table.concat(state.numbers, ", ") .. "}")
