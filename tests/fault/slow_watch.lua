-- slow_watch -- a watcher that is behind: by less than history is kept, it sees every single change; by more, it is told so.
--
--   zproc run tests/fault/slow_watch.lua [ROUNDS [SEED]]
--
-- The writer counts up as far as it is allowed, with so large a value beside the number that a few hundred changes are all that is kept.
-- Each round allows some, waits until they are written, and only then looks.

local core = require "zproc.core"
local zproc = require "zproc"

local ROUNDS <const>, SEED <const> = tonumber(arg[1]) or 20, tonumber(arg[2]) or math.floor(core.time())
local GENEROUS <const> = 120 -- seconds; a limit, not an expectation
local BYTES <const> = 100000 -- of 64 MiB of history
local KEPT <const>, LOST <const> = 500, 1000 -- so many changes are certainly kept, so many are not
math.randomseed(SEED)
print(("# seed %d"):format(SEED))

local ctx <close> = zproc.context()
local state, watcher = ctx.state, ctx.state:fork()
state.allowed, state.n = 0, 0
watcher:go_live()

ctx:process(function(own)
  local n = 0
  while true do
    local allowed = own:get_when(function(snapshot) return snapshot.allowed > snapshot.n end).allowed
    while n < allowed do
      n = n + 1
      own:update { n = n, bulk = n .. ("x"):rep(BYTES) }
    end
  end
end)

local seen, exact, told = 0, 0, 0

--- Let the writer make so many changes.
local function advance(count)
  state.allowed = seen + count
  assert(state:get_when_equal("n", seen + count, { timeout = GENEROUS }), "the writer does not get on")
end

for round = 1, ROUNDS do
  if math.random(3) > 1 then
    local count = math.random(KEPT)
    advance(count)
    for _ = 1, count do
      local snapshot = watcher:get_when_change("n", { timeout = 0 })
      assert(snapshot and snapshot.n == seen + 1, ("round %d: %s came after %d"):format(round, snapshot and snapshot.n, seen))
      assert(#snapshot.bulk == #tostring(snapshot.n) + BYTES and snapshot.bulk:sub(1, #tostring(snapshot.n)) == tostring(snapshot.n))
      seen = snapshot.n
    end
    assert(not watcher:get_when_change("n", { timeout = 0 }), "there was one too many")
    exact = exact + count
  else
    local count = LOST + math.random(LOST)
    advance(count)
    local ok, err = pcall(watcher.get_when_change, watcher, "n", { timeout = 0 })
    assert(not ok and zproc.is_error(err, "HistoryLost"), ("round %d: %d behind, and it is not told: %s"):format(round, count, err))
    seen = seen + count
    watcher:go_live()
    told = told + 1
  end
end
print(("# %d rounds: %d changes seen, each once and in order; %d times too far behind, and told so"):format(ROUNDS, exact, told))
