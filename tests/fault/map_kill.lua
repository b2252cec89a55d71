-- map_kill -- maps whose workers are killed with -9 at random instants, round after round: no item is lost or doubled, and nothing hangs.
--
--   zproc run tests/fault/map_kill.lua [ROUNDS [SEED]]
--
-- Each round has a sequence of another kind and length, items that cost nothing or something, chunks that follow their cost or are fixed,
-- and results that are small, or so large that they stop the work until they are taken; every other one is pulled by a second process
-- after the first puller was killed.

local core = require "zproc.core"
local zproc = require "zproc"

local ROUNDS <const>, SEED <const> = tonumber(arg[1]) or 10, tonumber(arg[2]) or math.floor(core.time())
local LIMIT <const> = 120 -- seconds for one round; generous, not an expectation
math.randomseed(SEED)
print(("# seed %d"):format(SEED))

local function triple(n, cost, size)
  if cost > 0 then
    local over = core.clock() + cost
    while core.clock() < over do end
  end
  return size > 0 and { n * 3, ("x"):rep(size) } or n * 3
end

--- One that kills the workers of a Context, of which `pids` gives those that there are, until it is stopped.
local function start_killer(ctx, mean)
  return ctx:process(function(state, seed, pause)
    math.randomseed(seed)
    while true do
      zproc.sleep(math.random() * 2 * pause)
      local pids = state.pids or {}
      if #pids > 0 then os.execute("kill -9 " .. pids[math.random(#pids)] .. " 2>/dev/null") end
    end
  end, { args = { math.random(1 << 30), mean } })
end

local function sequence_of(kind, length)
  if kind == "range" then return zproc.range(1, length) end
  local items, i = {}, 0
  for k = 1, length do items[k] = k end
  if kind == "array" then return items end
  return function()
    i = i + 1
    return items[i]
  end
end

--- How much slower than usual a process of this build is started: those who are killed must get somewhere before.
local function slowness(ctx)
  local USUAL <const> = 0.005 -- seconds
  local begun = core.clock()
  ctx:process(function() end):wait()
  return math.max(1, (core.clock() - begun) / USUAL)
end

local killed = 0

local function play(round)
  local ctx <close> = zproc.context()
  local kind = ({ "range", "array", "iterator" })[math.random(3)]
  local cost = ({ 0, 0, 1e-4, 1e-3 })[math.random(4)]
  local length = cost == 0 and math.random(200000) or cost < 1e-3 and math.random(3000) or math.random(300)
  local size = math.random(4) == 1 and 200000 or 0
  if size > 0 then length = math.min(length, 500) end
  local opts = {
    args = { cost, size },
    count = math.random(4),
    chunk_size = math.random(2) == 1 and math.random(50) or nil,
    max_attempts = 1000, -- whoever is killed here is not killed by his item
  }
  local is_task = kind ~= "iterator" and round % 2 == 0
  opts.return_task = is_task
  local words = ("round %d: %s of %d, cost %g, size %d, count %d, chunk size %s%s"):format(round, kind, length, cost, size,
    opts.count, opts.chunk_size, is_task and ", as a task" or "")
  local begun = core.clock()
  local expected = 0

  local function tell_killer(own)
    local pids = {}
    for k, worker in ipairs(own.worker_list) do pids[k] = worker.pid end
    own.state.pids = pids
  end

  --- Take results until there are no more, or so many; tells the killer whom there is.
  local function consume(own, result, most)
    tell_killer(own)
    if size > 0 then zproc.sleep(math.random() * 0.2) end -- until nothing more is worked on
    for i, value in result do
      assert(expected == 0 or i == expected + 1, ("%s: item %d follows on %d"):format(words, i, expected))
      if size > 0 then value = value[1] end
      assert(value == i * 3, ("%s: item %d is %s"):format(words, i, value))
      expected = i
      if i % 64 == 1 then
        tell_killer(own)
        assert(core.clock() - begun < LIMIT, words .. ": it takes too long")
      end
      if i == most then return end
    end
  end

  local killer = start_killer(ctx, (0.002 + math.random() * 0.02) * slowness(ctx))
  local result = ctx:process_map(triple, sequence_of(kind, length), opts)
  if is_task then
    local puller = ctx:process(function(inner)
      consume(inner, inner:pull_results_for_task(result), length // 2)
      inner.state.half = true
      zproc.sleep(1000)
    end, { pass_context = true })
    if length // 2 > 0 then ctx.state:get_when_available("half", { timeout = LIMIT }) end
    os.execute("kill -9 " .. puller.pid)
    pcall(puller.wait, puller)
    result = ctx:pull_results_for_task(result)
  end
  consume(ctx, result)
  killer:stop()
  assert(expected == length, ("%s: %d items came"):format(words, expected))
  killed = killed + 1
end

for round = 1, ROUNDS do
  play(round)
  if round % 50 == 0 then print(round .. " rounds") end
end
print(("# %d rounds, each item once and in order"):format(killed))
