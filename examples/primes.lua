-- Prime search: the numbers up to 200,000 in stretches of 1,000, each looked through by a worker. Later stretches take longer; the
-- chunks that workers claim follow that by themselves.
--
-- Output:
--   17984 primes up to 200000
--   the last three: 199961 199967 199999
--   most in a row without one: 85 numbers

local zproc = require "zproc"

local LAST <const>, STRETCH <const> = 200000, 1000

local function is_prime(n)
  if n < 2 then return false end
  for divisor = 2, math.floor(math.sqrt(n)) do
    if n % divisor == 0 then return false end
  end
  return true
end

--- The primes of one stretch.
local function search(first, length)
  local found = {}
  for n = first, first + length - 1 do
    if is_prime(n) then found[#found + 1] = n end
  end
  return found
end

local ctx = zproc.context()

local primes = {}
for _, found in ctx:process_map(search, zproc.range(1, LAST, STRETCH), { args = { STRETCH } }) do
  table.move(found, 1, #found, #primes + 1, primes)
end

local gap = 0
for i = 2, #primes do gap = math.max(gap, primes[i] - primes[i - 1]) end
print(("%d primes up to %d"):format(#primes, LAST))
print("the last three: " .. table.concat(primes, " ", #primes - 2))
print(("most in a row without one: %d numbers"):format(gap - 1))
