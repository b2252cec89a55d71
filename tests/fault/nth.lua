-- nth -- the n-th allocation fails, or the n-th call that makes a descriptor, for n = 1, 2, ... and each of the things that scripts do.
--
--   LD_PRELOAD=inject.so zproc run tests/fault/nth.lua inject.so memory|descriptors [COUNT [SEED]]
--
-- Each time a process of its own does the thing, with either that one failure or with nothing to be had from there on. It must succeed
-- or raise an error that says what is missing. Then, with nothing failing any more, it must do it once more, and another process
-- must be able to change the state: no lock has stayed. COUNT: so many of all values of n, picked at random; 0: all of them.

local core = require "zproc.core"
local zproc = require "zproc"

local LIBRARY <const>, KIND <const> = arg[1], arg[2]
local COUNT <const>, SEED <const> = tonumber(arg[3]) or 100, tonumber(arg[4]) or math.floor(core.time())
local GENEROUS <const> = 60 -- seconds; a limit, not an expectation
-- What the C library says of a thread for whose stack there is no memory is the last of these.
local WORDS <const> = KIND == "memory" and { "memory", "Cannot allocate", "cannot start a thread: Resource temporarily unavailable" }
  or { "Too many open files" }
math.randomseed(SEED)
print(("# seed %d"):format(SEED))

local inject = assert(package.loadlib(LIBRARY, "inject_open"))()
local ctx <close> = zproc.context()
local address = ctx.server_address
ctx.state:set { n = 0, twice = 0, list = { 1, 2, 3 } }

local count = zproc.atomic(function(snapshot)
  local n = snapshot.n + 1
  snapshot.n, snapshot.twice = n, 2 * n
  return n
end)

--- What scripts do. Each gets a State of its process, and must not care what others have done before.
local things = {
  {
    "a state",
    function(state)
      state.text, state[1], state.list = ("x"):rep(3000), { a = { 1, 2 } }, nil
      state.list = { 1, 2, 3 }
      assert(state.text and state[1].a[2] == 2 and #state > 3 and state:contains "list")
      state:update { a = 1, b = 2 }
      assert(state:pop "a" == 1 and state:setdefault("b", 3) and state:copy().list[3] == 3 and #state:keys() == #state:items())
      for _ in pairs(state) do end
      assert(tostring(state) and state:at(state:revision()).list[1] == 1)
    end,
  },
  { "an atomic function", function(state) count(state) end },
  {
    "a State of one's own",
    function()
      local state <close> = zproc.state(address, { namespace = "another" })
      state.x = 1
      state:clear()
    end,
  },
  {
    "watchers",
    function(state)
      local other <close> = state:fork()
      state.seen = (state.seen or 0) + 1
      other:get_when_change "seen"
      other:get_when_equal("seen", state.seen)
      other:get_when(function(snapshot) return snapshot.seen > 0 end)
      local nothing, err = other:get_when_equal("seen", -1, { timeout = 0 })
      assert(nothing == nil and zproc.is_error(err, "TimeoutError"), err)
    end,
  },
  { "a ping", function(state) state:ping() end },
  {
    "a process",
    function()
      local own <close> = zproc.context(address)
      local p = own:process(function(inner, n)
        inner.x = n
        return n, { n }
      end, { args = { 5 } })
      local n, list = p:wait(GENEROUS)
      assert(n == 5 and list[1] == 5)
    end,
  },
  {
    "a thread",
    function()
      local own <close> = zproc.context(address)
      assert(own:process(function(inner, n) inner.x = n return n end, { args = { 5 }, backend = "thread" }):wait(GENEROUS) == 5)
    end,
  },
  {
    "a map",
    function()
      local own <close> = zproc.context(address)
      local all = own:process_map(function(n) return n * n end, zproc.range(1, 5), { count = 1 }):collect()
      assert(all.n == 5 and all[5] == 25)
    end,
  },
  {
    "a state that grows, by its own process and by another",
    function()
      local own <close> = zproc.context()
      own.state.text = ("x"):rep(2000000)
      assert(#own.state.text == 2000000)
      own:process(function(inner) inner.more = ("y"):rep(3000000) end):wait(GENEROUS)
      assert(#own.state.more == 3000000 and #own.state.text == 2000000)
      own.state:clear()
    end,
  },
  {
    "a Context",
    function()
      local own <close> = zproc.context()
      own.state.x = 1
      assert(own.state.x == 1)
    end,
  },
}

--- Whether an error says that it is about what was missing; it may have come from another process.
local function is_clear(err)
  local text = tostring(err)
  for _, words in ipairs(WORDS) do
    if text:find(words, 1, true) then return true end
  end
  if zproc.is_error(err) and err.cause ~= nil then return is_clear(err.cause) end
  -- A process that has no memory to tell its parent says on stderr that it could not report.
  return KIND == "memory" and zproc.is_error(err, "ProcessWaitError") and err.exitcode == 1
end

--- In a process of its own: do it with a failure, then without. Returns whether there was one, and what it has led to.
local function attempt(state, fn, n, failures)
  inject.arm(KIND, n, failures)
  local ok, err = pcall(fn, state)
  local failed = inject.disarm()
  if not ok and not is_clear(err) then error("the error is not clear: " .. tostring(err), 0) end
  if not ok and not failed then error("an error without a failure: " .. tostring(err), 0) end
  collectgarbage()
  fn(state)
  return failed, ok
end

local tried, raised = 0, 0

--- False if there was no n-th any more.
local function try(thing, n, failures)
  local what = ("%s, with %s from the %dth on failing"):format(thing[1], failures == 1 and "one" or "all", n)
  local p = ctx:process(attempt, { args = { thing[2], n, failures }, name = what })
  local result = table.pack(pcall(p.wait, p, GENEROUS))
  local ok, failed, succeeded = table.unpack(result)
  if not ok then error(what .. ": " .. tostring(failed), 0) end
  if failed == nil then error(what .. ": it does not end", 0) end
  local now = ctx.state:copy()
  assert(now.twice == 2 * now.n, what .. ": half an atomic function")
  count(ctx.state) -- for which nobody may hold the lock
  tried = tried + 1
  if not succeeded then raised = raised + 1 end
  return failed
end

-- How many there are: the first n that is not reached any more, by doubling and halving.
for _, thing in ipairs(things) do
  local low, high = 0, 1
  while try(thing, high, 1) do low, high = high, high * 2 end
  while high - low > 1 do
    local middle = (low + high) // 2
    if try(thing, middle, 1) then low = middle else high = middle end
  end
  thing.calls = low
end

for _, thing in ipairs(things) do
  local share = COUNT == 0 and thing.calls or math.min(thing.calls, math.max(1, COUNT // #things // 2))
  for k = 1, share do
    local n = share == thing.calls and k or math.random(thing.calls)
    try(thing, n, 1)
    try(thing, n, 1 << 30)
  end
  print(("# %s: %d calls; %d of them failed, alone and with all that follow"):format(thing[1], thing.calls, share))
  io.stdout:flush()
end
print(("# %d times something failed or might have; %d times that was raised; all went on"):format(tried, raised))
