--- The tree that kill_tree.c kills in:
---
---   main ─┬─ (its server)
---         ├─ keeper      started with pass_context ─┬─ writer     commits as fast as it can
---         │                                         └─ watcher    waits for a predicate that never holds
---         ├─ restarter   retries for ever, with a Context of its own at the same address ── sleeper
---         └─ waiter      waits for a value that never comes
---
--- What it says on stdout: "up", the server's pid, and those of the six below it, once all have reported themselves in the state, or
--- "down" if a child has ended before; "ready" when it is about to end. In between it is told which pid was killed (0: none), and makes
--- sure that it has noticed. Then it ends as its arguments say:
---
---   zproc run kill_tree.lua return|error|exit|signal sleep|watch|compute|wait [ADDRESS]
---
--- With `signal` it waits for one to end it, in the way of the second argument. ADDRESS: a static one for the server.

local zproc = require "zproc"

local GENEROUS <const> = 60 -- seconds; a limit, not an expectation
local ending, waiting, address = ...

local server = address and zproc.start_server(address)
local ctx = zproc.context(address)
server = server or ctx.server_process
local state = ctx.state

local count = zproc.atomic(function(snapshot)
  snapshot.count = (snapshot.count or 0) + 1
  snapshot.twice = 2 * snapshot.count
end)

local keeper = ctx:process(function(inner)
  inner.state.keeper = zproc.getpid()
  local writer = inner:process(function(own)
    own.writer = zproc.getpid()
    while true do count(own) end
  end)
  local watcher = inner:process(function(own)
    own.watcher = zproc.getpid()
    own:get_when(function(snapshot) return snapshot.never end)
  end)
  while writer.is_alive and watcher.is_alive do zproc.sleep(0.005) end
  return (writer.is_alive and watcher or writer):wait()
end, { pass_context = true })

ctx:process(function(own)
  own.restarter = zproc.getpid()
  local again <close> = zproc.context(ctx.server_address)
  again:process(function(deeper)
    deeper.sleeper = zproc.getpid()
    zproc.sleep(math.huge)
  end):wait()
end, { retry_for = { "ProcessWaitError" }, retry_delay = 0 })

ctx:process(function(own)
  own.waiter = zproc.getpid()
  own:get_when_equal("never", 1)
end)

local function eventually(what, fn)
  local limit = zproc.time() + GENEROUS
  while not fn() do
    if zproc.time() > limit then error("never: " .. what) end
    zproc.sleep(0.001)
  end
end

--- Wait until all are up: what they have reported; or until a child has ended: nil.
local function settle()
  while true do
    for _, one in ipairs(ctx.process_list) do
      if one.exitcode then return nil end
    end
    local up = state:get_when(function(s)
      return s.keeper and s.writer and s.watcher and s.restarter and s.sleeper and s.waiter
    end, { timeout = 0.02 })
    if up then return up end
  end
end

local function check_failure(one, exitcode)
  local ok, err = pcall(one.wait, one, GENEROUS)
  assert(not ok and zproc.is_error(err, "ProcessWaitError"), tostring(err))
  assert(err.exitcode == exitcode, tostring(err))
  return err
end

--- Make sure that the end of the pid was noticed, and that the others go on.
local function check(pid)
  local known = state:copy()
  for _, one in ipairs(ctx.process_list) do
    if one.pid == pid then check_failure(one, -9) end
  end
  if pid == known.writer or pid == known.watcher then
    assert(check_failure(keeper, 1).cause.exitcode == -9)
  elseif keeper.exitcode and keeper.pid ~= pid then -- one of its children, before it could report itself
    assert(check_failure(keeper, 1).cause.exitcode == -9)
  end
  if pid == known.sleeper then eventually("another sleeper", function() return state.sleeper ~= pid end) end
  eventually("a server that answers", function() return ctx:ping { timeout = GENEROUS } ~= pid end)
  if keeper.is_alive then eventually("the writer goes on", function() return state.count ~= known.count end) end
  local now = state:copy()
  assert(now.twice == (now.count and 2 * now.count), "half a change")
end

local function say(...)
  print(...)
  io.stdout:flush()
end

local up = settle()
if up then say("up", server.pid or 0, up.keeper, up.writer, up.watcher, up.restarter, up.sleeper, up.waiter) else say "down" end
local victim = io.read "n"
if victim ~= 0 then check(victim) end
say "ready"

if ending == "error" then error "as it was told" end
if ending == "exit" then os.exit(7) end
if ending == "signal" then
  if waiting == "sleep" then zproc.sleep(math.huge) end
  if waiting == "watch" then state:get_when_equal("never", 1) end
  if waiting == "wait" then
    local one = ctx:process(function() zproc.sleep(math.huge) end)
    local _, err = pcall(one.wait, one)
    if zproc.is_error(err, "SignalError") then error(err, 0) end -- else it is this very one that was killed
  end
  while true do end
end
