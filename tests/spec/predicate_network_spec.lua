-- What predicate_spec.lua says holds for a server that is reached by the network as well.
assert(loadfile(os.getenv "SRCDIR" .. "/tests/network.lua"))(_ENV, "predicate")

local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local describe, it, before_each, after_each, assert = describe, it, before_each, after_each, assert
local _ENV <const> = _G

describe("a process that evaluates predicates for a server", function()
  local ctx, state

  before_each(function()
    ctx = zproc.context(nil, { transport = "network" })
    state = ctx.state
  end)
  after_each(function() ctx:close() end)

  --- The pids of those that there are.
  local function judges()
    local found = {}
    local list <close> = io.popen("ps -o pid= -o args= --ppid " .. ctx.server_process.pid)
    for line in list:lines() do
      if line:find("--judge", 1, true) then found[#found + 1] = math.tointeger(tonumber(line:match "%d+")) end
    end
    return found
  end

  local function start(test, opts)
    return ctx:process(function(own) return own:get_when(test, opts).x end)
  end

  it("is not there until there is a predicate, and serves the next ones as well", function()
    state.x = 1
    assert.same({}, judges())
    assert.is_truthy(state:get_when(function(s) return s.x == 1 end))
    local first = judges()
    assert.equal(1, #first)
    for i = 2, 10 do
      state.x = i
      assert.is_truthy(state:get_when(function(s) return s.x == i end))
    end
    assert.same(first, judges())
  end)

  it("may be killed: what it was evaluating is evaluated again", function()
    local waiter = start(function(s)
      local n = 0
      for i = 1, 3e6 do n = n + i end
      return s.x == 30 and n > 0
    end, { budget = { seconds = 10 } })
    for i = 1, 30 do
      state.x = i
      for _, pid in ipairs(judges()) do support.kill(pid) end
      zproc.sleep(0.02)
    end
    -- One that was killed twice in the middle of an evaluation has failed, and says so.
    local ok, err = pcall(waiter.wait, waiter)
    if not ok then assert.is_truthy(tostring(err):find("the process that evaluated the predicate", 1, true), tostring(err)) end
    state.x = 31
    assert.is_truthy(state:get_when(function(s) return s.x == 31 end))
  end)

  it("ends with its server", function()
    local stuck = start(function() while true do end end, { budget = { seconds = 10 } })
    support.eventually("a judge", function() return #judges() == 1 end)
    local pid = judges()[1]
    support.kill(ctx.server_process.pid)
    support.eventually("the end of the judge", function() return not support.is_running(pid) end)
    stuck:stop()
  end)

  it("keeps nobody waiting who has another predicate, however many are stuck", function()
    local stuck = {}
    for i = 1, 12 do stuck[i] = start(function() return (("a"):rep(30000)):find ".-.-.-b" or i < 0 end, { budget = { seconds = 10 } }) end
    support.eventually("many of them", function() return #judges() >= 12 end)
    state.x = 1
    assert.is_truthy(state:get_when(function(s) return s.x == 1 end))
    for _, process in ipairs(stuck) do process:stop() end
    support.eventually("their end", function() return #judges() <= 4 end)
  end)

  it("grants clients no more than the server does", function()
    local wrong = start(function() return ("x"):rep(600 << 20) end, { budget = { bytes = 1 << 40 } })
    support.refuses("it took more memory than the 512 MiB that it may", wrong.wait, wrong)
  end)
end)
