-- process_map: a million squares by two workers, items one by one, how near it comes to the ideal for items that take 10 ms, and
-- what memory the tree takes while it maps ten million items of an iterator.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path
local measure = require "measure"
local procfs = require "procfs"
local core = require "zproc.core"
local zproc = require "zproc"

local SQUARES <const>, SINGLES <const>, ITERATED <const> = tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3])
local SLOW_ITEMS <const>, SLOW_SECONDS <const> = 200, 0.01

local ctx <close> = zproc.context()

local function square(n) return n * n end

--- Keep a processor busy for so long.
local function spin(_, seconds)
  local clock = os.clock -- processor time
  local over = clock() + seconds
  while clock() < over do end
end

local function seconds(fn)
  local begin = core.clock()
  fn()
  return core.clock() - begin
end

local items = {}
for i = 1, SQUARES do items[i] = i end
ctx:process_map(square, { 1, 2, 3 }, { count = 2 }):collect()
for _ = 1, 3 do
  measure.report("map_squares", seconds(function()
    local all = ctx:process_map(square, items, { count = 2 }):collect()
    assert(all.n == SQUARES and all[SQUARES] == SQUARES * SQUARES)
  end))
end
measure.report("map_range", seconds(function()
  assert(ctx:process_map(square, zproc.range(1, SQUARES), { count = 2 }):collect().n == SQUARES)
end))
local few = table.move(items, 1, SINGLES, 1, {})
items = nil
measure.report("map_singles", seconds(function()
  local sum = 0
  for _, result in ctx:process_map(square, few, { count = 2, chunk_size = 1 }) do sum = sum + result end
  assert(sum > 0)
end))

-- What is ideal: every processor is busy with nothing else.
local workers = zproc.cpu_count()
local took = seconds(function()
  ctx:process_map(spin, zproc.range(1, SLOW_ITEMS), { args = { SLOW_SECONDS }, count = workers }):collect()
end)
measure.report("map_ideal", SLOW_ITEMS * SLOW_SECONDS / workers / took)

-- The memory of the whole tree, and the files of the state; what is mapped of these is counted twice.
local function used()
  local sum = procfs.proportional(zproc.getpid()) + procfs.proportional(ctx.server_process.pid)
  for _, worker in ipairs(ctx.worker_list) do sum = sum + procfs.proportional(worker.pid) end
  return sum + procfs.disk_usage(ctx.server_process.directory)
end
collectgarbage()
local i, most, sum = 0, 0, 0
local begin = core.clock()
for n, result in ctx:process_map(square, function()
  i = i + 1
  return i <= ITERATED and i or nil
end, { count = 2 }) do
  sum = sum + result
  if n % (ITERATED // 20) == 0 then most = math.max(most, used()) end
end
measure.report("map_iterated", ITERATED / (core.clock() - begin))
measure.report("map_memory", most / 1024) -- MB
