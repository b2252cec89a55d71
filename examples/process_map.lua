-- process_map: a function over all items of a sequence, by worker processes, with the results in order.
--
-- Output:
--   1 4 9 16
--   0 1 8 27 64 ... 941192 970299
--   4 9 36 256
--   1007 3132 32 736 132 65543 8
--   the first result: 0
--   the others: 1 4 9 16 25 36 49 64 81
--   item 3 failed: cannot work with 3

local zproc = require "zproc"

local ctx = zproc.context()

local function square(num) return num * num end
print(table.concat(ctx:process_map(square, { 1, 2, 3, 4 }):collect(), " "))

-- What all calls have in common comes behind the item.
local function power(num, exp) return math.tointeger(num ^ exp) end
local cubes = ctx:process_map(power, zproc.range(0, 99), { args = { 3 }, count = 10 }):collect()
print(table.concat(cubes, " ", 1, 5) .. " ... " .. table.concat(cubes, " ", 99))

-- Arguments of its own for each call.
print(table.concat(ctx:process_map(power, { map_args = { { 2, 2 }, { 3, 2 }, { 6, 2 }, { 2, 8 } } }):collect(), " "))

local function my_thingy(seed, kwargs) return seed + math.tointeger(kwargs.num ^ kwargs.exp) end
print(table.concat(ctx:process_map(my_thingy, {
  args = { 7 },
  map_kwargs = {
    { num = 10, exp = 3 }, { num = 5, exp = 5 }, { num = 5, exp = 2 }, { num = 9, exp = 3 },
    { num = 5, exp = 3 }, { num = 4, exp = 8 }, { num = 1, exp = 4 },
  },
  count = 5,
}):collect(), " "))

-- It returns at once; the work goes on in the background, and results are waited for as they are asked for.
local function slow_square(num)
  zproc.sleep(0.02)
  return num * num
end
local result = ctx:process_map(slow_square, zproc.range(0, 9))
print("the first result: " .. result:next())
print("the others: " .. table.concat(result:collect(), " "))

-- A failure comes at its item, with the traceback of the worker.
local function picky(num)
  if num == 3 then error("cannot work with " .. num, 0) end
  return num
end
for i, value in ctx:process_map(picky, { 1, 2, 3, 4 }, { on_error = "return" }) do
  if zproc.is_error(value) then print(("item %d failed: %s"):format(i, value.message)) end
end
