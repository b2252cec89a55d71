-- predicates -- predicates that run without end, in all that they can call, beside writers for which the state has to grow: all others get on.
--
--   zproc run tests/fault/predicates.lua [ROUNDS [SEED]]
--
-- Two writers, one of them over the network, count up and write large values; two watchers must see every number; one process pings. A round starts some processes with nasty predicates: local ones, threads of one process, clients of the server;
-- now and then it kills the server meanwhile. Then everybody must have got on, and each nasty one must end as its budget says or, if that is endless, when it is told to.

local core = require "zproc.core"
local zproc = require "zproc"

local ROUNDS <const>, SEED <const> = tonumber(arg[1]) or 10, tonumber(arg[2]) or math.floor(core.time())
local GENEROUS <const> = 200 -- seconds; a limit, not an expectation
local FRESH <const> = 5      -- rounds that a state lasts: a new one is small, and has to grow
local BYTES <const>, KEYS <const> = 300000, 40
math.randomseed(SEED)
print(("# seed %d"):format(SEED))

local function eventually(what, fn)
  local limit = core.clock() + GENEROUS
  while not fn() do
    assert(core.clock() < limit, "never: " .. what)
    core.sleep(0.002)
  end
end

--- Predicates that never end by themselves.
local NASTY <const> = {
  loop = function() while true do end end,
  find = function() return (("a"):rep(30000)):find ".-.-.-b" end,
  match = function() return (("ab"):rep(20000)):match "(a*b*)(a*b*)(a*b*)c" or (("a"):rep(30000)):match "a*a*a*a*b" end,
  gsub = function() return (("a"):rep(30000)):gsub(".-.-.-b", "") end,
  gmatch = function() for _ in (("a"):rep(30000)):gmatch "%w-%w-%w-b" do end end,
  balanced = function() return (("("):rep(200000)):gsub("%b()", "") end,
  move = function() return table.move({}, 1, 1 << 60, 2) end,
  insert = function() return table.insert(setmetatable({}, { __len = function() return 1 << 60 end }), 1, 2) end,
  concat = function() return table.concat(setmetatable({}, { __index = function() return "" end }), "", 1, 1 << 60) end,
  sort = function() return table.sort(setmetatable({}, { __len = function() return 1 << 30 end, __index = rawlen }), rawequal) end,
  pcall = function() while true do pcall(string.find, ("a"):rep(30000), ".-.-.-b") end end,
  coroutine = function() return coroutine.wrap(function() while true do end end)() end,
  large = function() local s = ("x"):rep(1e7) while true do s = s:upper() end end,
  walk = function(s) while true do for _ in pairs(s) do end end end,
  copy = function(s) while true do s:copy() end end,
  read = function(s) while true do local _ = s.n1 end end,
  memory = function() local t = {} while true do t[#t + 1] = ("x"):rep(1000) .. #t end end,
}
local names = {}
for name in pairs(NASTY) do names[#names + 1] = name end
table.sort(names)

local function write(own, which)
  for n = 1, math.huge do
    local change = { ["n" .. which] = n, ["bulk" .. which .. n % KEYS] = n .. ("x"):rep(math.random(BYTES)) }
    while true do -- until it is known to have happened
      local ok, err = pcall(own.update, own, change)
      if ok then break end
      if not zproc.is_error(err, "ServerLost") then error(err, 0) end
    end
    zproc.sleep(0.001)
  end
end

local function watch(own, which, notes)
  local seen = 0
  while true do
    local n = own:get_when(function(s) return s["n" .. which] > seen end)["n" .. which]
    assert(n > seen, "a watcher goes back")
    seen = n
    notes["seen" .. which] = n
  end
end

local function ping(own, notes)
  for n = 1, math.huge do
    assert(own:ping { timeout = GENEROUS })
    notes.pings = n
    zproc.sleep(0.005)
  end
end

local PROGRESS <const> = { "n1", "n2", "seen1", "seen2", "pings" }

--- A state with all who use it well.
local function open()
  local ctx, notes = zproc.context(), zproc.context() -- notes of progress are elsewhere, so that they do not count as changes
  local address, elsewhere = ctx.server_address, notes.server_address
  for which = 1, 2 do
    local opts = { transport = which == 2 and "network" or nil }
    ctx:process(function() write(zproc.state(address, opts), which) end, { stateful = false })
    ctx:process(function() watch(zproc.state(address, opts), which, zproc.state(elsewhere)) end, { stateful = false })
  end
  ctx:process(function() ping(zproc.state(address), zproc.state(elsewhere)) end, { stateful = false })
  local function progress()
    local now = {}
    for i, name in ipairs(PROGRESS) do now[i] = (i <= 2 and ctx.state or notes.state)[name] or 0 end
    return now
  end
  return ctx, notes, progress
end

local counts = { budget = 0, endless = 0, killed = 0 }

--- Start one with a predicate that never ends, and say how it has to end.
local function start(ctx)
  local name, address = names[math.random(#names)], ctx.server_address
  local test, is_endless = NASTY[name], math.random(3) == 1
  local seconds = is_endless and math.huge or math.random() * 0.3 + 0.001
  local opts = { transport = math.random(2) == 1 and "network" or nil }
  local process = ctx:process(function()
    local ok, err = pcall(function() zproc.state(address, opts):get_when(test, { budget = { seconds = seconds } }) end)
    return not ok and tostring(err)
  end, { stateful = false, backend = math.random(3) == 1 and "thread" or "process" })
  return { name = name, process = process, is_endless = is_endless }
end

local function finish(one)
  if one.is_endless then
    one.process:stop()
    assert(not one.process.is_alive, one.name .. " was not stopped")
    counts.endless = counts.endless + 1
    return
  end
  local err = one.process:wait(GENEROUS)
  assert(err and err:find("it took more", 1, true), ("%s ends with %s"):format(one.name, err))
  counts.budget = counts.budget + 1
end

local ctx, notes, progress
for round = 1, ROUNDS do
  if round % FRESH == 1 then
    if ctx then
      ctx:close()
      notes:close()
    end
    ctx, notes, progress = open()
  end
  local nasty = {}
  for i = 1, math.random(4) do nasty[i] = start(ctx) end
  if math.random(4) == 1 then
    os.execute("kill -9 " .. ctx.server_process.pid)
    counts.killed = counts.killed + 1
  end
  local before = progress()
  for i, name in ipairs(PROGRESS) do
    eventually(("round %d: %s gets on"):format(round, name), function() return progress()[i] >= before[i] + 3 end)
  end
  for _, one in ipairs(nasty) do finish(one) end
end
ctx:close()
notes:close()
print(("# %d rounds: %d predicates ended by their budget, %d told to end, the server killed %d times; all others got on"):format(
  ROUNDS, counts.budget, counts.endless, counts.killed))
