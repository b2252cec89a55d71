-- The table of processes: who is in it, and what it says about them.
local core = require "zproc.core"
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses, quote = support.refuses, support.quote

local GENEROUS <const>, eventually <const> = support.GENEROUS, support.eventually

--- The newest row for which the fields are these; nil if there is none.
local function find(rows, fields)
  for i = #rows, 1, -1 do
    local matches = true
    for name, value in pairs(fields) do matches = matches and rows[i][name] == value end
    if matches then return rows[i] end
  end
end

--- Run a script as a program of its own; returns the open pipe with its output.
local function run_script(source, ...)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(source)
  file:close()
  local words = { quote(os.getenv "ZPROC"), "run", path }
  for _, word in ipairs { ... } do words[#words + 1] = quote(word) end
  return assert(io.popen(table.concat(words, " ") .. " 2>&1; rm -f " .. path)), path
end

describe("the table of processes", function()
  local ctx

  before_each(function() ctx = zproc.context() end)
  after_each(function() ctx:close() end)

  it("has the script and the server", function()
    local server_pid = ctx:ping()
    local rows = ctx:processes()
    assert.equal(2, #rows)
    local script, server = rows[1], rows[2]
    assert.equal(zproc.getpid(), script.pid)
    assert.equal(arg[0], script.name)
    assert.equal("running", script.state)
    assert.equal("server", server.name)
    assert.equal(server_pid, server.pid)
    assert.equal(script.pid, server.parent)
    assert.equal("running", server.state)
    assert.is_true(script.started <= server.started and server.started <= zproc.time())
  end)

  it("has the server from the beginning", function()
    for _ = 1, 20 do
      local fresh <close> = zproc.context()
      local rows = fresh:processes()
      assert.equal(2, #rows)
      assert.equal(fresh.server_process.pid, rows[2].pid)
    end
  end)

  it("has a process from its start to its end, and beyond", function()
    local before = zproc.time()
    local line = debug.getinfo(1, "l").currentline + 1
    local process = ctx:process(function(state) state:get_when_equal("go", true) return 5 end)
    local row = find(ctx:processes(), { pid = process.pid })
    assert.is_truthy(row.name:find(("ps_spec.lua:%d$"):format(line)), row.name)
    assert.equal(zproc.getpid(), row.parent)
    assert.equal("running", row.state)
    assert.equal(1, row.tries)
    assert.is_nil(row.exitcode)
    assert.equal("float", math.type(row.started))
    assert.is_true(before <= row.started and row.started <= zproc.time())
    ctx.state.go = true
    process:wait()
    row = find(ctx:processes(), { pid = process.pid })
    assert.equal("exited", row.state)
    assert.equal(0, row.exitcode)
  end)

  it("tells exit statuses and signals", function()
    local exits = ctx:process(function() zproc.exit(7) end)
    local killed = ctx:process(function() zproc.sleep(GENEROUS) end)
    pcall(exits.wait, exits)
    killed:stop()
    assert.equal(7, find(ctx:processes(), { pid = exits.pid }).exitcode)
    assert.equal(-15, find(ctx:processes(), { pid = killed.pid }).exitcode)
  end)

  it("knows how a process has ended before anybody has waited for it", function()
    local process = ctx:process(function() zproc.exit(9) end)
    local row = eventually("the process ends", function()
      return find(ctx:processes(), { pid = process.pid, state = "exited" })
    end)
    assert.equal(9, row.exitcode)
  end)

  it("lists processes in the order of their starts, by their names", function()
    for i = 1, 20 do ctx:process(function() end, { name = "worker " .. i }) end
    ctx:wait_all()
    local names = {}
    for _, row in ipairs(ctx:processes()) do names[#names + 1] = row.name:match "^worker (%d+)$" end
    local expected = {}
    for i = 1, 20 do expected[i] = tostring(i) end
    assert.same(expected, names)
  end)

  it("has the processes that processes start, with their parents", function()
    local outer = ctx:process(function(inner)
      local one = inner:process(function() return zproc.getpid() end, { name = "by a Context of its own" })
      local two = zproc.process(function() return zproc.getpid() end, inner.server_address, { name = "by the address" })
      return one:wait(), two:wait()
    end, { pass_context = true })
    local one, two = outer:wait()
    local rows = ctx:processes()
    assert.equal(outer.pid, find(rows, { pid = one, name = "by a Context of its own" }).parent)
    assert.equal(outer.pid, find(rows, { pid = two, name = "by the address" }).parent)
    local times = 0
    for _, row in ipairs(rows) do
      if row.pid == outer.pid then times = times + 1 end
    end
    assert.equal(1, times)
  end)

  it("has a process before it can look itself", function()
    for _ = 1, 200 do
      local mine = ctx:process(function(inner)
        local row = find(inner:processes(), { pid = zproc.getpid() })
        return row and row.state, row and row.name
      end, { pass_context = true, name = "curious" })
      assert.same({ "running", "curious" }, { mine:wait() })
    end
  end)

  it("counts tries, and tells who waits for the next one", function()
    local process = ctx:process(function(state)
      core.note_try(2, true)
      state.tried = 2
      state:get_when_equal("go", true)
      core.note_try(3, false)
    end)
    ctx.state:get_when_equal("tried", 2)
    local row = find(ctx:processes(), { pid = process.pid })
    assert.same({ "retrying", 2 }, { row.state, row.tries })
    ctx.state.go = true
    process:wait()
    row = find(ctx:processes(), { pid = process.pid })
    assert.same({ "exited", 3, 0 }, { row.state, row.tries, row.exitcode })
  end)

  it("tells who waits for the next try", function()
    local process = ctx:process(function() error "once more" end,
      { retry_for = { zproc.AnyError }, retry_delay = 1000, name = "tries" })
    local row = eventually("it waits", function() return find(ctx:processes(), { pid = process.pid, state = "retrying" }) end)
    assert.equal(1, row.tries)
    process:stop()
    assert.equal(-15, find(ctx:processes(), { pid = process.pid }).exitcode)
  end)

  it("has a server that was started again, and the one before", function()
    local script <close> = run_script [[
      local zproc = require "zproc"
      local ctx = zproc.context()
      local before = ctx:ping()
      os.execute("kill -KILL " .. before)
      local now
      repeat now = ctx:ping() until now ~= before
      local states = {}
      for _, row in ipairs(ctx:processes()) do
        if row.name == "server" then states[#states + 1] = row.state .. (row.pid == now and " now" or " before") end
      end
      print(table.concat(states, ", "))
    ]]
    assert.is_truthy(script:read "a":find("gone before, running now\n", 1, true))
  end)

  it("has the programs that use the state by its address, and how they ended", function()
    local pipe <close>, path = run_script([[
      local zproc = require "zproc"
      local ctx = zproc.context(...)
      zproc.context(...):close() -- one program, one row
      ctx:process(function() end, { name = "a stranger's" }):wait()
      ctx.state.stranger = zproc.getpid()
      ctx.state:get_when_equal("go", true)
      os.exit(6)
    ]], ctx.server_address)
    local pid = ctx.state:get_when_available("stranger").stranger
    local row = find(ctx:processes(), { pid = pid })
    assert.equal(path, row.name)
    assert.equal("running", row.state)
    assert.equal(pid, find(ctx:processes(), { name = "a stranger's" }).parent)
    ctx.state.go = true
    assert.equal("", pipe:read "a")
    row = eventually("the program ends", function() return find(ctx:processes(), { pid = pid, state = "exited" }) end)
    assert.equal(6, row.exitcode)
  end)

  it("has a program that was killed as gone, and so its processes", function()
    local pipe <close> = run_script([[
      local zproc = require "zproc"
      local ctx = zproc.context(...)
      ctx:process(function(state) zproc.sleep(1000) end, { name = "killed with it" })
      ctx.state.stranger = zproc.getpid()
      zproc.sleep(1000)
    ]], ctx.server_address)
    local pid = ctx.state:get_when_available("stranger").stranger
    os.execute("kill -KILL " .. pid)
    pipe:read "a"
    eventually("the program is gone", function() return find(ctx:processes(), { pid = pid, state = "gone" }) end)
    -- Whoever adopts it reaps it, now or later.
    eventually("its process is gone", function()
      return not find(ctx:processes(), { name = "killed with it", state = "running" })
    end)
  end)

  it("belongs to one server", function()
    local other <close> = zproc.context()
    ctx:process(function() end, { name = "here" }):wait()
    other:process(function() end, { name = "there" }):wait()
    assert.is_nil(find(ctx:processes(), { name = "there" }))
    assert.is_nil(find(other:processes(), { name = "here" }))
    assert.is_truthy(find(other:processes(), { pid = zproc.getpid(), state = "running" }))
  end)

  it("has, of a process with a Context on another server, a row in each", function()
    local other <close> = zproc.context()
    local process = ctx:process(function() zproc.context(other.server_address) end)
    process:wait()
    assert.equal(0, find(ctx:processes(), { pid = process.pid }).exitcode)
    assert.same({ "exited", 0 }, { find(other:processes(), { pid = process.pid }).state,
      find(other:processes(), { pid = process.pid }).exitcode })
  end)

  it("is read by the owner of a Context that is open", function()
    local words = ctx:process(function() return tostring(select(2, pcall(ctx.processes, ctx))) end):wait()
    assert.is_truthy(words:find("this Context belongs to process " .. zproc.getpid(), 1, true), words)
    local closed = zproc.context()
    closed:close()
    refuses("this Context is closed", closed.processes, closed)
  end)

  it("has the end of a process that its parent has forgotten", function()
    local function start()
      zproc.process(function(state)
        state:get_when_equal("go", true)
        zproc.exit(3)
      end, ctx.server_address, { name = "forgotten" })
    end
    start()
    collectgarbage()
    collectgarbage()
    assert.equal("running", find(ctx:processes(), { name = "forgotten" }).state)
    ctx.state.go = true
    local row = eventually("it ends", function()
      local now = find(ctx:processes(), { name = "forgotten" })
      return now.state ~= "running" and now
    end)
    assert.same({ "exited", 3 }, { row.state, row.exitcode })
  end)

  it("survives its Context for those that still run", function()
    local own = zproc.context { cleanup = false }
    local process = own:process(function() zproc.sleep(GENEROUS) end)
    own:close()
    own = nil
    collectgarbage()
    collectgarbage()
    assert.equal(-15, process:stop())
  end)

  it("forgets the oldest ends when its places are needed", function()
    local script <close> = run_script [[
      local zproc = require "zproc"
      local ctx = zproc.context()
      local stays = ctx:process(function() zproc.sleep(1000) end, { name = "stays" })
      for i = 1, 5000 do ctx:process(function() end, { name = tostring(i) }):wait() end
      local rows, names = ctx:processes(), {}
      for i, row in ipairs(rows) do names[i] = row.name end
      print(#rows, names[2] == "stays" or names[3] == "stays", names[4], names[#names])
    ]]
    assert.equal("4096\ttrue\t908\t5000\n", script:read "a")
  end)
end)
