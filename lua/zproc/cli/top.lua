--- zproc top: what a server does, as it does it.

local core = require "zproc.core"
local errors = require "zproc.errors"
local failure = require "zproc.cli.failure"
local json = require "zproc.cli.json"
local listing = require "zproc.cli.listing"
local open = require "zproc.cli.open"
local out = require "zproc.cli.out"
local signal = require "zproc.signal"
local text = require "zproc.cli.text"

local DEFAULT_INTERVAL <const> = 1 -- seconds

local function interval(words)
  local seconds = tonumber(words)
  if seconds and seconds > 0 and seconds < math.huge then return seconds end
end

local command = {
  usage = "top ADDRESS [--once] [--json]",
  summary = "show what a server does, as it does it",
  arguments = {
    options = open.with(open.STATE_OPTIONS, {
      ["--once"] = {},
      ["--json"] = {},
      ["--interval"] = { takes = "a number of seconds above 0", read = interval },
    }),
    operands = { "address" },
    wanted = "which server?",
  },
}

command.help = [[
usage: zproc top ADDRESS [--once] [--json] [--interval SECONDS] [--namespace NAME] [--transport auto|network] [--secret-key-file FILE]

Show what a server does, anew every second (or at that interval), until ^C: updates per second, the newest revision and the oldest one that
can be read, the keys of a namespace (default: default), its processes, and its tasks of process_map. On a terminal the processes that
run follow, as many as fit on it.

WAITING are the watchers that sleep until something changes, and workers that have nothing to do; those on other machines included, as they
wait in the server. Where the kernel of the server's machine does not tell, it is left out.

  --once   look for one interval, show that, and end
  --json   print an object in one line for each interval: time, address, interval, revision, oldest, updates_per_second, namespace, keys,
           processes (running, retrying, exited, gone), waiting, lock (if a process has held that of the writers for a second:
           pid, name, since, seconds, stopped, place), tasks (count, items, finished, finished_per_second, claims)
]]

-- ---- looking ----

--- How things stand now.
local function look(state, way)
  core.set_cursor(state, 0)
  local rows = way:list_processes()
  local processes = { running = 0, retrying = 0, exited = 0, gone = 0 }
  for _, row in ipairs(rows) do processes[row.state] = processes[row.state] + 1 end
  return {
    clock = core.clock(),
    revision = state:revision(),
    oldest = core.cursor(state),
    keys = #state,
    rows = rows,
    processes = processes,
    summary = way:summarize(),
    holder = way:lock_holder(),
  }
end

--- What is to be shown of the time between two looks.
local function compare(before, now, state)
  local seconds = now.clock - before.clock
  local summary = now.summary
  return {
    time = core.time(),
    address = text.of(state.server_address),
    interval = seconds,
    revision = now.revision,
    oldest = now.oldest,
    updates_per_second = (now.revision - before.revision) / seconds,
    namespace = text.of(state.namespace),
    keys = now.keys,
    processes = now.processes,
    waiting = summary.waiting,
    lock = listing.lock_fields(now.holder),
    lock_line = listing.lock(now.holder),
    tasks = {
      count = summary.tasks,
      items = summary.put,
      finished = summary.finished,
      -- Tasks that are taken to their end are there no more, and their items with them.
      finished_per_second = math.max(0, summary.finished - before.summary.finished) / seconds,
      claims = summary.claims,
    },
  }
end

-- ---- showing ----

local function lines_of(shown)
  local processes, tasks = shown.processes, shown.tasks
  local lines = {
    ("zproc top: %s, %s"):format(text.shown(shown.address), os.date "%H:%M:%S"),
    ("updates    %.1f/s, revision %d, kept since %d"):format(shown.updates_per_second, shown.revision, shown.oldest),
    ("keys       %d in %s"):format(shown.keys, text.shown(shown.namespace)),
    ("processes  %d running%s, %d retrying, %d exited, %d gone"):format(processes.running,
      shown.waiting and (" (%d waiting)"):format(shown.waiting) or "", processes.retrying, processes.exited, processes.gone),
    ("tasks      %d with %d items, %d finished (%.1f/s), %d chunks at work"):format(tasks.count, tasks.items, tasks.finished,
      tasks.finished_per_second, tasks.claims),
  }
  if shown.lock_line then lines[#lines + 1] = "lock       " .. shown.lock_line end
  return lines
end

local CLEAR_LINE <const>, CLEAR_REST <const>, HOME <const> = "\27[K", "\27[J", "\27[H"

--- Draw over what is on the terminal.
local function draw(lines, rows)
  local height, width = core.terminal_size(1)
  local running = {}
  for _, row in ipairs(rows) do
    if row.state == "running" or row.state == "retrying" then running[#running + 1] = row end
  end
  lines[#lines + 1] = ""
  table.move(listing.table(running), 1, #running + 1, #lines + 1, lines)
  local out = {}
  for i = 1, math.min(#lines, height - 1) do out[i] = text.cut(lines[i], width - 1) .. CLEAR_LINE .. "\n" end
  io.write(HOME, table.concat(out), CLEAR_REST)
end

--- Look and show, until there is no more to show, nobody takes it, or something raises.
---@return integer status
local function show(given)
  local way = open.link("top", given)
  local state = open.state("top", given)
  local on_terminal = not given.json and not given.once and core.terminal_size(1) ~= nil
  local before = look(state, way)
  repeat
    core.sleep(given.interval or DEFAULT_INTERVAL)
    local now = look(state, way)
    local shown = compare(before, now, state)
    if given.json then
      shown.lock_line = nil
      print(json.encode(shown, "what is shown"))
    elseif on_terminal then
      draw(lines_of(shown), now.rows)
    else
      print(table.concat(lines_of(shown), "\n") .. (given.once and "" or "\n"))
    end
    if not out.is_taken() then return failure.FAILED end
    before = now
  until given.once
  return 0
end

--- Show it.
---@param given { address: string, once: boolean?, json: boolean?, interval: number?, namespace: string?, transport: string? }
---@return integer status
function command.run(given)
  signal.end_by("SIGINT", "SIGTERM")
  local ok, result = pcall(show, given)
  if ok then return result end
  return errors.is(result, "SignalError") and 0 or failure.of(result)
end

return command
