-- The server: its address, its life, and what its death does to the others.
local core = require "zproc.core"
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses, eventually, kill, is_running = support.refuses, support.eventually, support.kill, support.is_running
local run_script, GENEROUS = support.run_script, support.GENEROUS

local function exists(path)
  local file <close> = io.open(path)
  return file ~= nil
end

local function directory_of(address) return core.real_path((address:gsub("^ipc://", ""))):match "^(.*)/" end

--- The output of a script of its own, stderr included: a server that was started again says so there.
local function output_of(source)
  local pipe <close> = run_script([[
    local zproc = require "zproc"
    local core = require "zproc.core"
    local function kill(pid) os.execute("kill -9 " .. pid) end
    local function eventually(fn)
      local limit = core.clock() + 60
      while not fn() do
        if core.clock() > limit then error "never" end
        core.sleep(0.001)
      end
    end
  ]] .. source)
  return pipe:read "a"
end

describe("a server", function()
  it("is started by a Context without an address, and is not one of its processes", function()
    local ctx <close> = zproc.context()
    local server = ctx.server_process
    assert.equal("integer", math.type(server.pid))
    assert.not_equal(zproc.getpid(), server.pid)
    assert.is_true(server.is_alive)
    assert.is_nil(server.exitcode)
    assert.equal(0, #ctx.process_list)
    assert.is_truthy(tostring(server):find(("Server %s (pid %d)"):format(ctx.server_address, server.pid), 1, true))
  end)

  it("answers a ping with its pid, from anywhere", function()
    local ctx <close> = zproc.context()
    local pid = ctx.server_process.pid
    assert.equal(pid, zproc.ping(ctx.server_address))
    assert.equal(pid, zproc.ping(ctx.server_address, { timeout = GENEROUS, payload = ("\0\255"):rep(10000) }))
    assert.equal(pid, ctx:ping())
    assert.equal(pid, ctx.state:ping { timeout = GENEROUS })
    assert.equal(pid, ctx:process(function(state) return state:ping() end):wait())
  end)

  it("that does not answer in time is a TimeoutError", function()
    local ctx <close> = zproc.context()
    local pid = ctx:ping()
    kill(pid, "STOP")
    local nothing, err = ctx:ping { timeout = 0.02 }
    kill(pid, "CONT")
    assert.is_nil(nothing)
    assert.equal("TimeoutError", err.name)
    assert.equal(pid, ctx:ping())
  end)

  it("that is not there is a ServerLost error", function()
    assert.equal("ServerLost", refuses("/nowhere/server", zproc.ping, "ipc:///nowhere/server").name)
    assert.equal("ServerLost", refuses("/nowhere/server", zproc.state, "ipc:///nowhere/server").name)
    assert.equal("ServerLost", refuses("/nowhere/server", zproc.process, print, "ipc:///nowhere/server").name)
  end)

  it("ping takes no strange options", function()
    local ctx <close> = zproc.context()
    refuses("zproc.ping: unknown option 'timeot'", zproc.ping, ctx.server_address, { timeot = 1 })
    refuses("option 'timeout'", ctx.ping, ctx, { timeout = -1 })
    refuses("option 'timeout'", ctx.state.ping, ctx.state, { timeout = 0 / 0 })
    refuses("option 'payload' must be a string", zproc.ping, ctx.server_address, { payload = 5 })
    refuses("at most 32768 bytes", zproc.ping, ctx.server_address, { payload = ("x"):rep(40000) })
    refuses("is no server address", zproc.ping, "nonsense")
  end)

  it("is gone, and its directory with it, when its Context is closed", function()
    local ctx = zproc.context()
    local pid, directory = ctx:ping(), directory_of(ctx.server_address)
    ctx:close()
    assert.is_false(is_running(pid))
    assert.is_false(exists(directory .. "/control"))
    assert.is_false(ctx.server_process.is_alive)
    assert.equal("integer", math.type(ctx.server_process.exitcode))
    refuses("this Context is closed", ctx.ping, ctx)
  end)

  it("may be stopped, which ends the state for all who use it", function()
    local ctx <close> = zproc.context()
    ctx.state.x = 1
    local waiting = ctx:process(function(state)
      state.waiting = true
      local ok, err = pcall(state.get_when_equal, state, "x", 2)
      return ok, err.name
    end)
    ctx.state:get_when_available("waiting")
    assert.equal("integer", math.type(ctx.server_process:stop()))
    assert.equal(ctx.server_process.exitcode, ctx.server_process:stop())
    assert.same({ false, "ServerLost" }, { waiting:wait() })
    assert.equal("ServerLost", refuses("has ended", function() return ctx.state.x end).name)
    assert.equal("ServerLost", refuses("has ended", function() ctx.state.x = 1 end).name)
    assert.equal("ServerLost", refuses("has ended", zproc.atomic(print), ctx.state).name)
    assert.equal("ServerLost", refuses("has ended", ctx.state.get_when_equal, ctx.state, "x", 5).name)
  end)

  it("belongs to the process that started it", function()
    local ctx <close> = zproc.context()
    local server = ctx.server_process
    local ok, text = ctx:process(function()
      local ok, err = pcall(server.stop, server)
      return ok, tostring(err)
    end):wait()
    assert.is_false(ok)
    assert.is_truthy(text:find("only that one can stop it", 1, true), text)
    assert.equal(server.pid, ctx:ping())
  end)

  it("is waited for until it was stopped", function()
    local ctx <close> = zproc.context()
    local nothing, err = ctx.server_process:wait(0.01)
    assert.is_nil(nothing)
    assert.equal("TimeoutError", err.name)
    refuses("seconds", ctx.server_process.wait, ctx.server_process, -1)
    local exitcode = ctx.server_process:stop()
    assert.equal(exitcode, ctx.server_process:wait())
  end)

  it("leaves no descriptor behind, nor a process, however many Contexts there are", function()
    local function descriptors()
      collectgarbage()
      local path, count = os.tmpname(), 0 -- a pipe would have a second end for a moment
      os.execute(("ls /proc/%d/fd >%s"):format(zproc.getpid(), path))
      for _ in io.lines(path) do count = count + 1 end
      os.remove(path)
      return count
    end
    zproc.context():close()
    local before = descriptors()
    for _ = 1, 50 do zproc.context():close() end
    assert.equal(before, descriptors())
    local children <close> = assert(io.open(("/proc/self/task/%d/children"):format(zproc.getpid())))
    assert.is_nil(children:read("a"):find "%d+ %d+")
  end)

  it("does not inherit what the script has open", function()
    local ctx <close> = zproc.context()
    local file <close> = io.tmpfile()
    assert(file)
    local pid = ctx:ping()
    for name in io.popen("readlink /proc/" .. pid .. "/fd/*"):lines() do
      assert.is_nil(name:find("(deleted)", 1, true), name) -- as a temporary file is
      assert.is_nil(name:find("data.mdb", 1, true), name)
    end
  end)
end)

describe("a server that is killed", function()
  it("is started again while its owner computes, sleeps, waits or is in somebody else's hands", function()
    local output = output_of [[
      io.stderr:setvbuf "no"
      local ctx = zproc.context()
      ctx.state.n = 0
      local function while_owner(what, work)
        local before = ctx:ping()
        local killer = ctx:process(function(state)
          kill(before)
          eventually(function() local now = state:ping() return now and now ~= before end)
          state:update { [what] = true }
        end)
        work()
        killer:wait()
        assert(ctx:ping() ~= before, what)
        assert(ctx.state.n == 0)
      end
      while_owner("computes", function() while not ctx.state.computes do local _ = ("x"):rep(10) end end)
      while_owner("sleeps", function() while not ctx.state.sleeps do zproc.sleep(0.05) end end)
      while_owner("watches", function() ctx.state:get_when_equal("watches", true) end)
      while_owner("waits", function() ctx.process_list[#ctx.process_list]:wait() end)
      while_owner("shells", function() os.execute "sleep 0.3" end)
      ctx:close()
      print "done"
    ]]
    local _, times = output:gsub("it is running again", "")
    assert.equal(5, times, output)
    assert.is_truthy(output:find "done", output)
  end)

  it("is started again as often as it is killed, and leaves no zombie", function()
    local output = output_of [[
      local ctx = zproc.context()
      for _ = 1, 6 do -- the last one has to wait
        local before = ctx:ping()
        kill(before)
        eventually(function() local now = ctx:ping() return now ~= before end)
      end
      local children <close> = assert(io.open(("/proc/self/task/%d/children"):format(zproc.getpid())))
      local text = children:read "a"
      assert(text:match "^%d+ $", text)
      assert(tonumber(text) == ctx:ping())
      ctx:close()
      print "done"
    ]]
    assert.is_truthy(output:find "done", output)
  end)

  it("costs a watcher nothing: it misses no revision and sees none twice", function()
    local output = output_of [[
      local ctx = zproc.context()
      local last <const> = 3000
      local watcher = ctx:process(function(state)
        state.ready = true
        local seen = 0
        for snapshot in state:when_change("n") do
          if snapshot.n ~= seen + 1 then return false, seen, snapshot.n end
          seen = snapshot.n
          if seen == last then return true, seen end
        end
      end)
      ctx.state:get_when_available "ready"
      local pids = {}
      for i = 1, last do
        ctx.state.n = i
        if i % 1000 == 0 then
          local before = ctx:ping()
          kill(before)
          eventually(function() return ctx:ping() ~= before end)
        end
      end
      print(watcher:wait())
      -- And one that sleeps all the while.
      local sleeper = ctx:process(function(state)
        state.asleep = true
        return state:get_when_equal("wake", 1).wake
      end)
      ctx.state:get_when_available "asleep"
      local before = ctx:ping()
      kill(before)
      eventually(function() return ctx:ping() ~= before end)
      ctx.state.wake = 1
      print("woken", sleeper:wait())
    ]]
    assert.is_truthy(output:find("true\t3000", 1, true), output)
    assert.is_truthy(output:find("woken\t1", 1, true), output)
  end)
end)

describe("a static address", function()
  local root, address

  before_each(function()
    root = os.tmpname()
    os.remove(root)
    assert(os.execute("mkdir -m 700 " .. root))
    address = "ipc://" .. root .. "/place"
  end)
  after_each(function()
    assert(os.execute("rmdir " .. root), "something was left in " .. root) -- rmdir, for nothing may be left
  end)

  it("is shared by several Contexts and States", function()
    local server, given = zproc.start_server(address)
    assert.equal(address, given)
    assert.equal(server.pid, zproc.ping(address))
    local one <close> = zproc.context(address)
    local two <close> = zproc.context { server_address = address, namespace = "other" }
    assert.is_nil(one.server_process)
    one.state.x = 5
    assert.equal(5, zproc.state(address).x)
    assert.is_nil(two.state.x)
    assert.equal(6, one:process(function(state) return state.x + 1 end):wait())
    assert.equal(7, zproc.process(function(state) return state.x + 2 end, address):wait())
    one:close()
    assert.equal(5, zproc.state(address).x)
    server:stop()
  end)

  it("is known to unrelated processes", function()
    local server = zproc.start_server(address)
    zproc.state(address).x = "from here"
    local pipe <close> = run_script([[
      local zproc = require "zproc"
      local state = zproc.state(...)
      print(state.x)
      state.y = "from there"
    ]], address)
    assert.equal("from here\n", pipe:read "a")
    assert.equal("from there", zproc.state(address).y)
    server:stop()
    assert.equal("ServerLost", refuses(address, zproc.state, address).name)
  end)

  it("in use is refused with the pid of the user", function()
    local server = zproc.start_server(address)
    local err = refuses("in use", zproc.start_server, address)
    assert.is_truthy(tostring(err):find("process " .. zproc.getpid(), 1, true), tostring(err))
    assert.equal(server.pid, zproc.ping(address))
    server:stop()
    zproc.start_server(address):stop()
  end)

  it("is free again after everything that used it was killed", function()
    local pipe <close> = run_script([[
      local zproc = require "zproc"
      local server, address = zproc.start_server(...)
      local core = require "zproc.core"
      print(zproc.getpid(), zproc.ping(address), core.real_path(address:match "^ipc://(.*)"))
      io.stdout:flush()
      zproc.sleep(1000)
    ]], address)
    local owner, pid, socket = pipe:read("l"):match "^(%d+)\t(%d+)\t(.*)$"
    kill(pid, "STOP") -- it cannot clean up any more
    kill(owner)
    kill(pid)
    assert.is_not_nil(pipe:read "a")
    local directory = socket:match "^(.*)/"
    eventually("nobody owns it", function() return core.is_abandoned(directory) end)
    assert.equal("ServerLost", refuses("was killed", zproc.state, address).name)
    local server = zproc.start_server(address)
    assert.is_false(exists(directory .. "/control"))
    assert.equal(server.pid, zproc.ping(address))
    server:stop()
  end)

  it("may be as long as a path", function()
    local long = root .. "/" .. ("d"):rep(150)
    assert(os.execute("mkdir " .. long))
    local server = zproc.start_server("ipc://" .. long .. "/place")
    assert.equal(server.pid, zproc.ping("ipc://" .. long .. "/place"))
    server:stop()
    assert(os.execute("rmdir " .. long))
  end)

  it("must be one, at a place where one can be", function()
    refuses("must be absolute", zproc.start_server, "ipc://relative/path")
    refuses("must be absolute", zproc.start_server, "ipc:///ends/with/")
    refuses("is no server address", zproc.start_server, "nonsense")
    refuses("a server address is a string", zproc.start_server, 5)
    refuses("is no host and port", zproc.start_server, "tcp://127.0.0.1")
    refuses("/nowhere/at/all", zproc.start_server, "ipc:///nowhere/at/all")
    refuses("zproc.start_server: unknown option 'sekret_key'", zproc.start_server, address, { sekret_key = "x" })
    local file = assert(io.open(root .. "/file", "w"))
    file:close()
    refuses("no socket", zproc.start_server, "ipc://" .. root .. "/file")
    os.remove(root .. "/file")
  end)
end)

describe("when the owner of a server ends", function()
  --- Start a script that owns a server and never ends by itself; returns its pipe, pid, the server's pid and the directory.
  local function start_owner(options, tail)
    local pipe = run_script(([[
      local zproc = require "zproc"
      local ctx = zproc.context(%s)
      %s
      print(zproc.getpid(), ctx:ping(), ctx.server_address)
      io.stdout:flush()
      zproc.sleep(1000)
    ]]):format(options or "", tail or ""))
    local owner, server, address = pipe:read("l"):match "^(%d+)\t(%d+)\t(.*)$"
    return pipe, math.tointeger(owner), math.tointeger(server), address
  end

  for _, signal in ipairs { "KILL", "TERM", "INT" } do
    it("by SIG" .. signal .. ", server and directory are gone, and who waits is told", function()
      local pipe <close>, owner, server, address = start_owner()
      local directory = directory_of(address)
      local waiting = zproc.process(function(state)
        state.waiting = true
        local ok, err = pcall(state.get_when_equal, state, "x", 1)
        return ok, err.name
      end, address)
      zproc.state(address):get_when_available "waiting"
      kill(owner, signal)
      assert.same({ false, "ServerLost" }, { waiting:wait(GENEROUS) })
      eventually("the server is gone", function() return not is_running(server) end)
      assert.is_false(exists(directory .. "/control"))
    end)
  end

  it("processes that were to outlive it keep the state until they have ended", function()
    local pipe <close>, owner, server, address = start_owner("{ cleanup = false }", [[
      ctx:process(function(state)
        state.ready = zproc.getpid()
        state:get_when_equal("go", true)
        state.done = true
        state:get_when_equal("go", "on")
      end)
      ctx.state:get_when_available "ready"
    ]])
    local state = zproc.state(address)
    kill(owner)
    eventually("the owner is gone", function() return not is_running(owner) end)
    state.go = true
    assert.is_true(state:get_when_available("done", { timeout = GENEROUS }).done)
    assert.equal(server, state:ping())
    assert.is_true(is_running(state.ready))
    state.go = "on"
    eventually("the server is gone", function() return not is_running(server) end)
  end)
end)
