-- Atomicity and race conditions.
--
-- `state.count = state.count + 1` is two operations, a read and a write; another process can come in between, and an update is
-- lost. An atomic function is one operation. Here four processes count to 1000 each, at the same time.
--
-- Output:
--   atomic: 4000
--   not atomic: some updates were lost, or luckily none

local zproc = require "zproc"

local ctx = zproc.context()
local state = ctx.state

local increment = zproc.atomic(function(snapshot, step)
  snapshot.count = snapshot.count + step
end)

state.count, state.careless = 0, 0

ctx:process_factory(function(own)
  for _ = 1, 1000 do
    increment(own, 1)
    own.careless = own.careless + 1
  end
end, { count = 4 })

ctx:wait_all()

print("atomic: " .. state.count)
assert(state.careless <= 4000)
print "not atomic: some updates were lost, or luckily none"
