-- What an update costs its writer while many processes wait, each for a key of its own: of a key that one of them waits for,
-- and of one that nobody does, in short bursts and at a stretch. The first argument is how many wait; fewer do where the
-- memory is not enough.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path
local measure = require "measure"
local procfs = require "procfs"
local core = require "zproc.core"
local zproc = require "zproc"

local FEW <const>, MANY <const> = 10, tonumber(arg[1])
local UPDATES <const> = 300000 -- more than history keeps
local GROUP <const> = 100 -- started by a process of their own: a child inherits more the more elder siblings it has
local LARGEST <const> = 1024 -- kilobytes; what a waiting process costs is about half of that

-- Whether another group would leave a quarter of the memory free. Beyond that the kernel would choose whom to kill.
local function is_room()
  local available, total = procfs.memory()
  return available - GROUP * LARGEST > total / 4
end

-- Start watchers for key1, key2, ... in groups, one group after the other; returns the pids of those that wait.
local function start(ctx, control, wanted)
  local pids = {}
  for first = 1, wanted, GROUP do
    if not is_room() then break end
    local last = math.min(first + GROUP - 1, wanted)
    local starter = ctx:process(function(own)
      for i = first, last do
        own:process(function(state)
          state["pid" .. i] = core.getpid()
          pcall(state.get_when_equal, state, "key" .. i, "never") -- who is lost is counted, not reported by thousands
        end)
      end
      control.state:get_when_available "over"
    end, { pass_context = true })
    for i = first, last do
      while not ctx.state["pid" .. i] do
        if not starter.is_alive then starter:wait() end -- raises what it has raised
        zproc.sleep(0.001)
      end
      pids[i] = ctx.state["pid" .. i]
    end
  end
  procfs.settle(pids, zproc.sleep)
  return pids
end

local function run(suffix, wanted)
  local ctx <close> = zproc.context()
  local control <close> = zproc.context() -- another state for the starters, which must not lose their place in history
  local state = ctx.state
  local pids = start(ctx, control, wanted)
  measure.report("waiting" .. suffix, #pids)

  local n = 0
  local function update(name, keys)
    n = n + 1
    local key = name .. n % keys + 1
    local begin = core.clock()
    state[key] = n
    return (core.clock() - begin) * 1e6
  end
  -- The watched keys take turns, with a pause, so that a watcher that was woken is asleep again. The pause is work:
  -- where the writer sleeps too the kernel puts both now on one processor and now on two, at half the cost or twice.
  local function pause()
    local over = core.clock() + 0.0002
    while core.clock() < over do end
  end
  local took = {}
  for i = 1, 2000 do
    pause()
    took[i] = update("key", FEW)
  end
  measure.report("watched" .. suffix, measure.median(took))

  -- Unwatched keys are many, because some share a bucket of the bell with a watched one; the mean shows what those cost.
  local sum = 0
  for i = 1, 20000 do
    took[i] = update("other", 1000)
    sum = sum + took[i]
  end
  measure.report("unwatched" .. suffix, measure.median(took))
  measure.report("unwatched_mean" .. suffix, sum / #took)

  -- Long enough for history to be full, and to have given up all that was there when the watchers began.
  local begin = core.clock()
  for _ = 1, UPDATES do update("other", 1000) end
  measure.report("sustained" .. suffix, UPDATES / (core.clock() - begin))
  zproc.sleep(0.5) -- those that have fallen too far behind find out
  local lost = 0
  for _, pid in ipairs(pids) do
    local now = procfs.stat(pid)
    if not now or now == "Z" then lost = lost + 1 end
  end
  measure.report("lost" .. suffix, lost)

  control.state.over = true
  ctx:wait_all()
end

run("_few", FEW)
run("_many", MANY)
