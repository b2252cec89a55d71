-- Functions that are called when something happens to the state, each in a process of its own.
--
-- Output:
--   gold changed: 1 2 3
--   there were 5 trees
--   oranges became 5
--   apples are 6, not 5
--   the last guest has left
--   somebody knocked

local zproc = require "zproc"

local ctx = zproc.context()
local state = ctx.state
state:update { apples = 5, guest = "Ada" }

--- What a handler has to say is left in a state of its own.
local said = state:fork { namespace = "said" }
local function say(key, words) said:update { [key] = words } end

ctx:call_when_change("gold", function(snapshot, own)
  own.history = (own.history or "") .. " " .. snapshot.gold
  say("gold", "gold changed:" .. own.history)
end)

ctx:call_when(function(snapshot) return snapshot.trees == 5 end, function(snapshot)
  say("trees", ("there were %d trees"):format(snapshot.trees))
end)

-- Without a function they return a function that takes it, so the condition can stand alone.
ctx:call_when_equal("oranges", 5)(function(snapshot)
  say("oranges", ("oranges became %d"):format(snapshot.oranges))
end)

ctx:call_when_not_equal("apples", 5, function(snapshot)
  say("apples", ("apples are %d, not 5"):format(snapshot.apples))
end)

ctx:call_when_none("guest", function() say("guest", "the last guest has left") end)

ctx:call_when_available("knock", function() say("knock", "somebody knocked") end)

for i = 1, 3 do state.gold = i end
for i = 3, 7 do state.trees = i end
state.oranges = 5
state.apples = 6
state.guest = nil
state.knock = true

print(said:get_when_equal("gold", "gold changed: 1 2 3").gold)
for _, key in ipairs { "trees", "oranges", "apples", "guest", "knock" } do
  print(said:get_when_available(key)[key])
end
