-- Luck test: one process throws numbers, others wait for their lucky one. A buffered watcher considers every throw, so nobody
-- misses his number however fast it is thrown.
--
-- Output:
--   num: 8 -> lucky
--   num: 13 -> unlucky
--   num: 42 -> the answer
--   20 of 100 throws were a multiple of 5

local zproc = require "zproc"

local ctx = zproc.context()
local state = ctx.state

local function wait_for(number, words)
  return ctx:process(function(own)
    local snapshot = own:get_when_equal("num", number)
    return ("num: %d -> %s"):format(snapshot.num, words)
  end)
end

local lucky, unlucky, answer = wait_for(8, "lucky"), wait_for(13, "unlucky"), wait_for(42, "the answer")

local fives = ctx:process(function(own)
  local count = 0
  while count < 20 do
    own:get_when(function(snapshot) return snapshot.num % 5 == 0 end)
    count = count + 1
  end
  return count
end)

for num = 1, 100 do state.num = num end

print(lucky:wait())
print(unlucky:wait())
print(answer:wait())
print(fives:wait() .. " of 100 throws were a multiple of 5")
