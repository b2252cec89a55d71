-- kill_any -- any process is killed with -9 while all work, round after round: each update that was acknowledged is there, none came twice,
-- watchers see every number, maps are whole, and all go on.
--
--   zproc run tests/fault/kill_any.lua [ROUNDS [SEED [any | server | network]]]
--
-- Who works, all of them at one static address:
--
--   owner ── server (── the process that runs atomic functions)
--   host ─┬─ 3 writers     each counts a number of its own up, and notes every number in a file after the commit
--         ├─ 2 watchers    see each number of a writer, one by one
--         ├─ mapper        maps ── workers
--         └─ pinger        pings, and starts processes that return something
--
-- A victim is one of them at random, or all at once, or, with `server`, always the server. Those who lost somebody start another. With
-- the owner the state ends, or, every other time, goes on from its data directory; what the writers have noted says what must be in it.
--
-- With `network` all of them go through the network. There a change whose server is killed may have happened or not, which is a ServerLost:
-- then the state must have one of both, and whoever lost the answer goes on from there. And what a writer has asked for when it is killed
-- may still happen while the next one is at work: once for each writer that was killed.

local core = require "zproc.core"
local zproc = require "zproc"

local ROUNDS <const>, SEED <const> = tonumber(arg[1]) or 10, tonumber(arg[2]) or math.floor(core.time())
local ONLY_SERVER <const> = arg[3] == "server"
local NETWORK <const> = arg[3] == "network" and { transport = "network" } or nil
local GENEROUS <const> = 120 -- seconds; a limit, not an expectation
local WRITERS <const>, WATCHERS <const> = 3, 2
math.randomseed(SEED)
print(("# seed %d"):format(SEED))

local pipe <close> = assert(io.popen "mktemp -d")
local directory = pipe:read "l"
local address = "ipc://" .. directory .. "/place"

-- ---- what outlives those who are killed: a number in a file each ----

local function known(name)
  local file <close> = io.open(directory .. "/" .. name)
  return file and file:read "n" or 0
end

--- A function that replaces the number. The bytes are the system's when it returns.
local function noter(name)
  local path = directory .. "/" .. name
  local file = io.open(path, "r+") or assert(io.open(path, "w+"))
  return function(number)
    file:seek "set"
    file:write(("%20d\n"):format(number))
    file:flush()
  end
end

--- For those whose failure somebody may not be there to see.
local function expect(holds, what, ...)
  if holds then return end
  local file <close> = assert(io.open(directory .. "/wrong", "a"))
  file:write(what:format(...), "\n")
  file:close()
  error(what:format(...), 0)
end

local function is_running(pid)
  local file <close> = io.open(("/proc/%d/stat"):format(pid))
  local text = file and file:read "a" -- nothing if it ends just now
  local state = text and text:match "%) (%a)"
  return state ~= nil and state ~= "Z"
end

local function eventually(what, fn)
  local limit = core.clock() + GENEROUS
  while not fn() do
    local file <close> = io.open(directory .. "/wrong")
    if file then error("it was noted: " .. file:read "a") end
    if core.clock() > limit then error("never: " .. what) end
    zproc.sleep(0.001)
  end
end

-- ---- who works ----

--- Whether that was raised because a server was killed in the middle of a change, by which the state is not lost.
local function is_open_question(err)
  return NETWORK ~= nil and zproc.is_error(err, "ServerLost") and pcall(zproc.ping, address)
end

local function write(state, i)
  local own, twice = "n" .. i, "twice" .. i
  local step = zproc.atomic(function(snapshot)
    local n = (snapshot[own] or 0) + 1
    snapshot[own], snapshot[twice], snapshot.total = n, 2 * n, (snapshot.total or 0) + 1
    return n
  end)
  -- The writer before may be about to die of its parent's death.
  local before = known("writer" .. i)
  if before > 0 then eventually("the end of writer " .. before, function() return not is_running(before) end) end
  noter("writer" .. i)(zproc.getpid())
  local note, n = noter("acknowledged" .. i), known("acknowledged" .. i)
  local late = NETWORK and known("deaths" .. i) or 0
  noter("deaths" .. i)(known("deaths" .. i) + 1)
  --- The number must be from `least` to `most`, or more by what comes late.
  local function accept(now, least, most)
    expect(now >= least and now <= most + late, "%s goes on with %d after %d", own, now, n)
    late = math.min(late, most + late - now)
    return now
  end
  --- After a step that nobody has acknowledged: killed between the commit and the note, there is one more than was noted.
  local function look() return accept(state[own] or 0, n, n + 1) end
  n = look()
  while true do
    local ok, more = pcall(step, state)
    if ok then
      accept(more, n + 1, n + 1)
    elseif NETWORK and zproc.is_error(more, "SystemError") and more.message:find("nothing has changed", 1, true) then
      more = accept(state[own] or 0, n, n)
    elseif is_open_question(more) then
      more = look()
    else
      error(more, 0)
    end
    n = more
    note(n)
  end
end

local function check_snapshot(snapshot)
  local sum = 0
  for i = 1, WRITERS do
    local n = snapshot["n" .. i] or 0
    expect((snapshot["twice" .. i] or 0) == 2 * n, "half an update of n%d: %s", i, snapshot)
    sum = sum + n
  end
  expect((snapshot.total or 0) == sum, "the total is %s where the numbers come to %d", snapshot.total, sum)
end

local function watch(state, i)
  local own, note, seen, last = "n" .. i, noter("seen" .. i), known("seen" .. i), nil
  while true do
    local ok, snapshot = pcall(state.get_when_change, state, own)
    if ok then
      check_snapshot(snapshot)
      expect(not last or snapshot[own] == last + 1, "%s: %d was seen after %s", own, snapshot[own], last)
      last, seen = snapshot[own], seen + 1
      note(seen)
    elseif zproc.is_error(snapshot, "HistoryLost") then -- so slow may a machine be; it is told, and begins anew
      state:go_live()
      last = nil
    else
      error(snapshot, 0)
    end
  end
end

--- The numbers from 1 to 300, with something that makes them many blocks.
local function numbers()
  local n, padding = 0, ("."):rep(2000)
  return function()
    n = n + 1
    if n <= 300 then return { n, padding } end
  end
end

local function map(ctx)
  local note, done = noter "maps", known "maps"
  local function square(item)
    local n = type(item) == "table" and item[1] or item
    return n * n
  end
  while true do
    local sequence = done % 2 == 0 and zproc.range(1, 300) or numbers()
    local ok, all = pcall(function() return ctx:process_map(square, sequence, { count = 2, max_attempts = 1000 }):collect() end)
    if ok then
      expect(all.n == 300, "a map has %d results", all.n)
      for i = 1, 300 do expect(all[i] == i * i, "result %d of a map is %s", i, all[i]) end
      done = done + 1
      note(done)
    elseif not is_open_question(all) then
      error(all, 0)
    end
  end
end

local function ping(ctx)
  local note, done = noter "pings", known "pings"
  while true do
    expect(math.type(ctx:ping()) == "integer", "a ping without an answer")
    local child = ctx:process(function() return 7 end, { stateful = false })
    local ok, result = pcall(child.wait, child)
    expect(ok and result == 7 or zproc.is_error(result, "ProcessWaitError") and result.exitcode == -9, "a process gave %s", result)
    done = done + 1
    note(done)
  end
end

--- The work, until there is no state any more; what tells of that is returned.
local function until_lost(work)
  return function(...)
    local _, err = pcall(work, ...)
    if not zproc.is_error(err, "ServerLost") then error(err, 0) end
    return err.message
  end
end

--- Starts all of them, and again whoever was killed.
local host = until_lost(function()
  local ctx <close> = zproc.context(address, NETWORK)
  local starts = {}
  for i = 1, WRITERS do starts[#starts + 1] = function() return ctx:process(until_lost(write), { args = { i } }) end end
  for i = 1, WATCHERS do starts[#starts + 1] = function() return ctx:process(until_lost(watch), { args = { i } }) end end
  starts[#starts + 1] = function() return ctx:process(until_lost(map), { pass_context = true }) end
  starts[#starts + 1] = function() return ctx:process(until_lost(ping), { pass_context = true }) end
  local running = {}
  for k, start in ipairs(starts) do running[k] = start() end
  while true do
    for k, one in ipairs(running) do
      local exitcode = one.exitcode
      if exitcode == -9 then
        running[k] = starts[k]()
      elseif exitcode then
        local told = one:wait() -- which raises what it has failed with
        return zproc.ping(address) and error("one has lost a state that is there: " .. told)
      end
    end
    zproc.sleep(0.002)
  end
end)

local function own(data_dir)
  local server = zproc.start_server(address, { data_dir = data_dir, sync = data_dir and "never" or nil })
  noter "server"(server.pid)
  server:wait()
end

-- ---- who kills ----

local ctx <close> = zproc.context()
local is_kept = false
local owner, hosting
local kills = { owner = 0, server = 0, runner = 0, host = 0, all = 0, others = 0 }
local acknowledged = 0

local function start_hosting() hosting = ctx:process(host, { stateful = false, name = "host" }) end

local function is_up()
  local ok, state = pcall(zproc.state, address)
  if ok then state:close() end
  return ok
end

local function forget(name) os.remove(directory .. "/" .. name) end

--- Another owner, on the same data or with an empty state; what must be there is there before anybody works.
local function start_era()
  for i = 1, WRITERS do
    local pid = known("writer" .. i)
    if pid > 0 then eventually("the end of a writer without a state", function() return not is_running(pid) end) end
  end
  if is_kept and math.random(2) == 1 then
    os.execute("rm -rf " .. directory .. "/data")
    is_kept = false
  end
  local is_fresh = not is_kept
  if is_fresh then
    for i = 1, WRITERS do
      acknowledged = acknowledged + known("acknowledged" .. i)
      forget("acknowledged" .. i)
      forget("writer" .. i)
      forget("deaths" .. i)
    end
    is_kept = math.random(2) == 1
  end
  forget "server"
  owner = ctx:process(own, { args = { is_kept and directory .. "/data" or nil }, stateful = false, name = "owner" })
  eventually("a server", function()
    if owner.exitcode then owner:wait() end
    return known "server" > 0 and is_up()
  end)
  if not is_fresh then
    local state <close> = zproc.state(address)
    local snapshot = state:copy()
    check_snapshot(snapshot)
    for i = 1, WRITERS do
      local n, told = snapshot["n" .. i] or 0, known("acknowledged" .. i)
      local late = NETWORK and known("deaths" .. i) or 0
      expect(n >= told and n <= told + 1 + late, "n%d is %d in the data directory; %d was acknowledged", i, n, told)
    end
  end
  start_hosting()
end

--- The processes below one, itself first.
local function tree(root)
  local children = {}
  local list <close> = assert(io.popen "exec ps -e -o ppid=,pid=")
  for parent, pid in list:read("a"):gmatch "(%d+)%s+(%d+)" do
    parent, pid = math.tointeger(parent), math.tointeger(pid)
    children[parent] = children[parent] or {}
    table.insert(children[parent], pid)
  end
  local all, i = { root }, 1
  while i <= #all do
    table.move(children[all[i]] or {}, 1, #(children[all[i]] or {}), #all + 1, all)
    i = i + 1
  end
  return all
end

local function kill(pids) os.execute("kill -9 " .. table.concat(pids, " ") .. " 2>/dev/null") end

local PROGRESS = { "maps", "pings" }
for i = 1, WRITERS do table.insert(PROGRESS, "acknowledged" .. i) end
for i = 1, WATCHERS do table.insert(PROGRESS, "seen" .. i) end

local function play()
  zproc.sleep(math.random() ^ 3 * 0.2)
  local servers, hosted = tree(owner.pid), tree(hosting.pid)
  table.remove(servers, 1)
  local dice = ONLY_SERVER and 3 or math.random(20)
  local kind
  if dice == 1 then
    kind = "owner"
    kill { owner.pid }
  elseif dice == 2 then
    kind = "all"
    kill { owner.pid, table.concat(servers, " "), table.concat(hosted, " ") }
  elseif dice == 5 and NETWORK and #servers > 1 then
    kind = "runner"
    kill { servers[#servers] }
  elseif dice <= 5 then
    kind = "server"
    kill(servers)
  elseif dice == 6 then
    kind = "host"
    kill { hosting.pid }
  else
    kind = "others"
    if #hosted > 1 then kill { hosted[math.random(2, #hosted)] } end
  end
  kills[kind] = kills[kind] + 1

  if kind == "owner" or kind == "all" then
    eventually("the owner's end", function() return owner.exitcode end)
    eventually("the host's end without a state", function() return hosting.exitcode end)
    local ended = hosting.exitcode
    expect(ended == 0 or kind == "all" and ended == -9, "without a state the host has ended with %d", ended)
    start_era()
  elseif kind == "host" then
    eventually("the host's end", function() return hosting.exitcode end)
    start_hosting()
  end
  local before = {}
  for _, name in ipairs(PROGRESS) do before[name] = known(name) end
  for _, name in ipairs(PROGRESS) do
    eventually(kind .. " was killed, then more of " .. name, function() return known(name) > before[name] end)
  end
  local told = {}
  for i = 1, WRITERS do told[i] = known("acknowledged" .. i) end
  local state <close> = zproc.state(address)
  local snapshot = state:copy()
  check_snapshot(snapshot)
  for i = 1, WRITERS do
    expect((snapshot["n" .. i] or 0) >= told[i], "n%d is %s; %d was acknowledged", i, snapshot["n" .. i], told[i])
  end
  expect(not hosting.exitcode and not owner.exitcode, "the host or the owner has ended: %s, %s", hosting, owner)
end

start_era()
for round = 1, ROUNDS do
  local ok, err = xpcall(play, function(err) return err end)
  if not ok then
    io.stderr:write(("round %d, in %s: %s\n"):format(round, directory, err))
    os.execute "ps -e -o ppid=,pid=,stat=,wchan=,args= | grep 'zproc ' >&2"
    os.exit(1)
  end
  if round % 50 == 0 then
    print(round .. " rounds")
    io.stdout:flush()
  end
end
for i = 1, WRITERS do acknowledged = acknowledged + known("acknowledged" .. i) end
hosting:stop()
owner:stop()
os.execute("rm -rf " .. directory)
print(("# %d rounds; killed: the owner %d, the server %d, its runner %d, the host %d, others %d, all at once %d; %d updates acknowledged, none lost")
  :format(ROUNDS, kills.owner, kills.server, kills.runner, kills.host, kills.others, kills.all, acknowledged))
