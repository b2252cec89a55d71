--- zproc worker: lend this machine's processors to the maps of a server.

local core = require "zproc.core"
local arguments = require "zproc.cli.arguments"
local errors = require "zproc.errors"
local failure = require "zproc.cli.failure"
local open = require "zproc.cli.open"
local out = require "zproc.cli.out"
local process = require "zproc.process"
local runtime = require "zproc.runtime"
local signal = require "zproc.signal"
local worker = require "zproc.worker"

local command = {
  usage = "worker ADDRESS [--count N]",
  summary = "work on the maps of a server, from this or another machine",
  arguments = {
    options = open.with(open.OPTIONS, {
      ["--count"] = { takes = "a number of workers from 1 to 4096", read = arguments.integer(1, 4096) },
    }),
    operands = { "address" },
    wanted = "which server?",
  },
}

command.help = [=[
usage: zproc worker ADDRESS [--count N] [--transport auto|network] [--secret-key-file FILE]

Start N workers (default: one for each processor) that work on every task of process_map at the server, besides the workers that
its Contexts have started, until SIGTERM, SIGINT or SIGHUP, or until the server is gone for good. A worker that dies is replaced.
Modules that targets require must be installed here, too; functions travel by themselves. On the server's own machine they use shared
memory, unless --transport network says otherwise.
]=]

local LOOK <const> = 0.1 -- seconds between looks at the workers
local LOOK_DROPPED <const> = 0.5 -- seconds between looks whether what they work on is still wanted
local PAUSE <const> = 1 -- seconds at least between two failures of a worker and the one that replaces it
local FAILURES_MAX <const> = 10 -- in a row, of one worker and those that replace it
local SETTLED <const> = 5 -- seconds after which a worker does not fail because it cannot work at all

--- Start a worker of the server.
local function start(way)
  local notepad = core.notepad()
  return process.new("worker", worker.main, way.server_address, {
    name = "worker",
    stateful = false,
    args = { n = 4, way:pack(), worker.EVERYWHERE, nil, notepad },
  }, {
    _link = way,
    _table = way:join_processes(),
  }, notepad)
end

--- A worker with its place among the others, for what is counted of it and those that replace it.
local function seat(way)
  return { worker = start(way), started = core.clock(), failures = 0, resume_at = 0 }
end

--- A worker has ended: what there is to do before it is replaced. Raises if it is no use to go on.
local function bury(way, one)
  local dead = one.worker
  if way.connection and (dead.exitcode < 0 or dead.notepad:task()) then
    local client, item, span = dead.notepad:read()
    if client then way.connection:bury(client, item, span) end
  end
  if dead.exitcode > 0 then
    one.failures = core.clock() - one.started < SETTLED and one.failures + 1 or 1
    way:ping("worker") -- it raises if the server is gone
    if one.failures > FAILURES_MAX then dead:wait() end
    one.resume_at = core.clock() + PAUSE
  end
end

--- Look after the workers until something raises.
local function supervise(way, seats)
  local queue, look_at = nil, 0
  while true do
    if core.clock() >= look_at then
      queue = queue or way:queue()
      local workers = {}
      for i, one in ipairs(seats) do workers[i] = one.worker end
      worker.call_off_dropped(queue, workers)
      look_at = core.clock() + LOOK_DROPPED
    end
    for _, one in ipairs(seats) do
      if not one.worker.is_alive and core.clock() >= one.resume_at then
        bury(way, one)
        one.worker, one.started = start(way), core.clock()
      end
    end
    core.sleep(LOOK)
  end
end

--- Work until a signal comes.
---@param given { address: string, count: integer?, transport: string? }
---@return integer status
function command.run(given)
  local address, count = given.address, given.count or core.cpu_count()
  arg = { [0] = "zproc worker" } -- its name among the processes of the server
  signal.end_by("SIGTERM", "SIGINT", "SIGHUP")
  local seats = {}
  local ok, err = pcall(function()
    local way = open.link("worker", given)
    for i = 1, count do seats[i] = seat(way) end
    if out.put(("%d workers for %s"):format(count, address)) then supervise(way, seats) end
  end)
  local workers = {}
  for i, one in ipairs(seats) do workers[i] = one.worker end
  pcall(process.end_all, workers)
  local trouble = runtime.shutdown()
  if errors.is(err, "SignalError") and trouble == nil then return 0 end
  return ok and failure.FAILED or failure.of(err)
end

return command
