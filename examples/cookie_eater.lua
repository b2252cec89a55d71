-- The cookie eater: a function that is called at every change of a key, in a process of its own, and changes that key itself. Its own
-- changes do not call it again; those of others are never missed.
--
-- Output:
--   baked 5 cookies
--   nom nom nom, 5 times
--   cookies left: 0

local zproc = require "zproc"

local ctx = zproc.context()
local state = ctx.state

state:update { cookies = 0, eaten = 0 }

local eat_cookie = zproc.atomic(function(snapshot)
  snapshot.cookies = snapshot.cookies - 1
  snapshot.eaten = snapshot.eaten + 1
end)

local bake_cookie = zproc.atomic(function(snapshot)
  snapshot.cookies = snapshot.cookies + 1
end)

ctx:call_when_change("cookies", function(_, own)
  eat_cookie(own)
end)

ctx:process(function(own)
  for _ = 1, 5 do bake_cookie(own) end
end):wait()
print "baked 5 cookies"

local snapshot = state:get_when_equal("eaten", 5)
print("nom nom nom, " .. snapshot.eaten .. " times")
print("cookies left: " .. state.cookies)
