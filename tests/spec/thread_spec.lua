-- Threads: processes with backend = "thread", and servers with server_backend = "thread".
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses, eventually = support.refuses, support.eventually

-- What travels to a thread takes its globals along; those of a script, not the environment that specs run in.
local describe, it, before_each, after_each, assert = describe, it, before_each, after_each, assert
local _ENV <const> = _G

local THREAD <const> = { backend = "thread" }

--- Options for a thread, with others.
local function with(opts)
  opts.backend = "thread"
  return opts
end

--- Run the code in a program of its own: what it writes, stderr included, and how it ends.
local function run(source)
  local pipe = support.run_script(source)
  local text = pipe:read "a"
  pipe:close()
  return text
end

local FACTOR = 7
function spec_global(x) return x * FACTOR end

describe("a thread", function()
  local ctx, state

  before_each(function()
    ctx = zproc.context()
    state = ctx.state
  end)
  after_each(function() ctx:close() end)

  it("runs its target in this process, with the state", function()
    local p = ctx:process(function(own)
      own.seen = 5
      return zproc.getpid(), own.namespace
    end, THREAD)
    assert.same({ zproc.getpid(), "default" }, { p:wait() })
    assert.equal(5, state.seen)
    assert.equal(zproc.getpid(), p.pid)
    assert.equal(0, p.exitcode)
    assert.is_false(p.is_alive)
  end)

  it("gets args and kwargs, and what its target uses of the script, by value", function()
    local count = { n = 1 }
    local p = ctx:process(function(_, a, kwargs)
      count.n = count.n + 1
      return spec_global(a) + kwargs.b, count.n
    end, with { args = { 6 }, kwargs = { b = 1 } })
    assert.same({ 43, 2 }, { p:wait() })
    assert.equal(1, count.n)
  end)

  it("finds the modules of the script", function()
    local p = ctx:process(function()
      local own = require "zproc"
      return own == zproc, arg ~= nil, package.path
    end, THREAD)
    assert.same({ true, true, package.path }, { p:wait() })
  end)

  it("returns any number of results of any kind", function()
    local p = ctx:process(function() return nil, { 1, { 2 } }, "x", nil end, THREAD)
    assert.same({ n = 4, nil, { 1, { 2 } }, "x", nil }, table.pack(p:wait()))
    assert.equal(0, select("#", ctx:process(function() end, THREAD):wait()))
  end)

  it("sends its error home, with the traceback", function()
    local p = ctx:process(function() error("went wrong") end, THREAD)
    local err = refuses("went wrong", p.wait, p)
    assert.equal("ProcessWaitError", err.name)
    assert.equal(1, err.exitcode)
    assert.is_truthy(err.traceback:find("thread_spec.lua", 1, true))
  end)

  it("ends with zproc.exit, and with os.exit, without ending the process", function()
    for _, leave in ipairs { "zproc", "os" } do
      local p = ctx:process(function(_, which)
        if which == "zproc" then zproc.exit(3) end
        os.exit(3)
      end, with { args = { leave } })
      assert.equal(3, refuses("exited with code 3", p.wait, p).exitcode)
    end
  end)

  it("is stopped while it computes, sleeps, or waits for the state #computes", function()
    local targets = {
      function(own)
        own.ready = true
        while true do end
      end,
      function(own)
        own.ready = true
        zproc.sleep(1000)
      end,
      function(own)
        own.ready = true
        own:get_when_equal("never", 1)
      end,
    }
    for _, target in ipairs(targets) do
      state.ready = nil
      local p = ctx:process(target, THREAD)
      state:get_when_available "ready"
      assert.is_true(p.is_alive)
      assert.equal(-15, p:stop())
      assert.equal(-15, p:stop())
      assert.is_truthy(tostring(p):find("killed by SIGTERM", 1, true))
    end
  end)

  it("is stopped although it catches all errors #computes", function()
    local p = ctx:process(function(own)
      own.ready = true
      while true do
        pcall(function() while true do zproc.sleep(1000) end end)
        pcall(function() while true do end end)
      end
    end, THREAD)
    state:get_when_available "ready"
    assert.equal(-15, p:stop())
  end)

  it("tries again what fails", function()
    local p = ctx:process(function(own)
      own.tries = (own.tries or 0) + 1
      if own.tries < 3 then error "not yet" end
      return own.tries
    end, with { retry_for = { zproc.AnyError }, retry_delay = 0 })
    assert.equal(3, p:wait())
    p = ctx:process(function() error "never" end, with { retry_for = { "RemoteError", function() return true end },
      retry_delay = 0, max_retries = 2 })
    assert.equal(3, refuses("never", p.wait, p).cause.tries)
  end)

  it("takes updates and watches beside others, and none is lost", function()
    -- AddressSanitizer's allocator does not stand that a process is made beside a thread that allocates: there threads come last.
    local function is_thread(i)
      if os.getenv "ASAN_OPTIONS" then return i > 3 end
      return i % 2 == 0
    end
    local add = zproc.atomic(function(snapshot) snapshot.n = snapshot.n + 1 end)
    state.n = 0
    local all = {}
    for i = 1, 6 do
      all[i] = ctx:process(function(own)
        for _ = 1, 500 do add(own) end
        own:get_when(function(snapshot) return snapshot.n == 3000 end)
      end, is_thread(i) and THREAD or nil)
    end
    for _, one in ipairs(all) do one:wait(support.GENEROUS) end
    assert.equal(3000, state.n)
  end)

  it("sees every update after its start", function()
    local p = ctx:process(function(own)
      local seen = {}
      for snapshot in own:when_change("n", { count = 100 }) do seen[#seen + 1] = snapshot.n end
      return seen
    end, THREAD)
    local expected = {}
    for i = 1, 100 do
      state.n = i
      expected[i] = i
    end
    assert.same(expected, p:wait(support.GENEROUS))
  end)

  it("has processes and threads of its own", function()
    local p = ctx:process(function(inner)
      local process = inner:process(function() return zproc.getpid() end)
      local thread = inner:process(function() return zproc.getpid() end, { backend = "thread" })
      local other <close> = zproc.context()
      other.state.x = 1
      return process:wait(), thread:wait(), other.state.x
    end, with { pass_context = true })
    local process, thread, x = p:wait(support.GENEROUS)
    assert.not_equal(zproc.getpid(), process)
    assert.equal(zproc.getpid(), thread)
    assert.equal(1, x)
  end)

  it("starts processes that are like any other", function()
    local p = ctx:process(function(inner)
      local process = inner:process(function(own)
        zproc.signal_to_error "SIGUSR1"
        own.pid = zproc.getpid()
        zproc.sleep(1000)
      end, { retry_for = { zproc.signal.SIGUSR2 } })
      inner.state:get_when_available "pid"
      os.execute("kill -USR1 " .. process.pid)
      local ok, err = pcall(process.wait, process, 60)
      return ok, err.cause.name
    end, with { pass_context = true })
    assert.same({ false, "SignalError" }, { p:wait(support.GENEROUS) })
  end)

  it("is stopped when its Context is closed, or waited for", function()
    local waiting = zproc.context { wait = true }
    waiting:process(function(own)
      own:get_when_equal("go", 1)
      own.done = 1
    end, THREAD)
    local observer = waiting.state:fork()
    observer.go = 1
    waiting:close()
    local p
    do
      local brief <close> = zproc.context()
      p = brief:process(function() zproc.sleep(1000) end, THREAD)
    end
    assert.equal(-15, p.exitcode)
  end)

  it("may be started later, but not twice", function()
    local p = ctx:process(function() return 1 end, with { start = false })
    assert.is_nil(p.pid)
    refuses("never started", p.wait, p)
    p:start()
    refuses("was started already", p.start, p)
    assert.equal(1, p:wait())
    assert.equal(1, p:wait())
  end)

  it("handles changes as a watcher", function()
    ctx:call_when_change("z", function(snapshot, own) own.seen = snapshot.z end, THREAD)
    state.z = 5
    assert.equal(5, state:get_when_equal("seen", 5, { timeout = support.GENEROUS }).seen)
  end)

  it("works by an address alone, and ends with the script", function()
    local p = zproc.process(function(own) return own.namespace end, ctx.server_address, THREAD)
    assert.equal("default", p:wait())
    assert.is_truthy(run([[
      local zproc = require "zproc"
      local ctx = zproc.context()
      zproc.process(function(own)
        own.ready = true
        zproc.sleep(1000)
      end, ctx.server_address, { backend = "thread" })
      ctx.state:get_when_available "ready"
      print "the end"
    ]]):find "^the end\n$")
  end)

  it("cannot have what belongs to the first thread", function()
    local p = ctx:process(function()
      local ok, err = pcall(zproc.signal_to_error, zproc.signal.SIGUSR1)
      return ok, err.message
    end, THREAD)
    local ok, message = p:wait()
    assert.is_false(ok)
    assert.is_truthy(message:find("signals come to the first thread", 1, true))
    refuses("SIGTERM comes to the first thread", ctx.process, ctx, function() end, with { retry_for = { zproc.signal.SIGTERM } })
    refuses("cleanup = false", ctx.process, ctx, function() end, with { cleanup = false })
  end)

  it("is refused what does not travel, with words on what to do", function()
    refuses("cannot send a Context", ctx.process, ctx, function() return ctx end, THREAD)
    refuses("cannot send a State", ctx.process, ctx, function() return state end, THREAD)
    local other = ctx:process(function() end)
    refuses("cannot send a Process", ctx.process, ctx, function() return other end, THREAD)
    refuses("cannot send a userdata (FILE*)", ctx.process, ctx, function() return io.stdout, FACTOR end,
      with { args = { io.stdout } })
    refuses("'process' or 'thread'", ctx.process, ctx, function() end, { backend = "fibre" })
    refuses("within an atomic function", zproc.atomic(function() ctx:process(function() end, THREAD) end), state)
    assert.equal(1, #ctx.process_list)
  end)

  it("gives results that cannot travel as an error", function()
    local p = ctx:process(function() return coroutine.create(print) end, THREAD)
    refuses("cannot send a coroutine", p.wait, p)
  end)

  it("is one of many", function()
    local all = {}
    for i = 1, 50 do all[i] = ctx:process(function(_, n) return n * n end, with { args = { i } }) end
    for i = 1, 50 do assert.equal(i * i, all[i]:wait(support.GENEROUS)) end
  end)

  it("leaves signals to the script", function()
    assert.is_truthy(run([[
      local zproc = require "zproc"
      zproc.signal_to_error "SIGUSR1"
      local ctx = zproc.context()
      local p = ctx:process(function(own)
        own.ready = true
        own:get_when_available "go"
        return "undisturbed"
      end, { backend = "thread" })
      ctx.state:get_when_available "ready"
      local ok, err = pcall(function()
        os.execute("kill -USR1 " .. zproc.getpid())
        zproc.sleep(60)
      end)
      ctx.state.go = true
      print(ok, err.name, p:wait())
    ]]):find("false\tSignalError\tundisturbed", 1, true))
  end)
end)

describe("a server in a thread", function()
  it("serves as a process does", function()
    local ctx <close> = zproc.context { server_backend = "thread" }
    assert.equal(zproc.getpid(), ctx:ping())
    assert.equal(zproc.getpid(), ctx.server_process.pid)
    local p = ctx:process(function(own)
      own.x = 1
      return own:ping { payload = "word" }
    end)
    assert.equal(zproc.getpid(), p:wait())
    assert.equal(1, ctx.state.x)
    assert.is_truthy(tostring(ctx.server_process):find("pid " .. zproc.getpid(), 1, true))
  end)

  it("ends with its Context, and leaves nothing", function()
    local ctx = zproc.context { server_backend = "thread" }
    local state = zproc.state(ctx.server_address)
    local directory = ctx.server_process.directory
    ctx:close()
    refuses("ended", state.get, state, "x")
    assert.is_nil(io.open(directory .. "/data.mdb"))
    assert.equal(0, ctx.server_process.exitcode)
    refuses("ServerLost", zproc.ping, ctx.server_address)
  end)

  it("may have an address of its own", function()
    local path = os.tmpname()
    os.remove(path)
    local server, address = zproc.start_server("ipc://" .. path, { backend = "thread" })
    assert.equal(zproc.getpid(), zproc.ping(address))
    local state = zproc.state(address)
    state.x = 2
    assert.equal(2, zproc.state("ipc://" .. path).x)
    assert.equal(0, server:stop())
    assert.is_nil(io.open(path))
  end)

  it("may be one of several, of processes and threads alike", function()
    local all = {}
    for i = 1, 6 do all[i] = zproc.context { server_backend = i % 2 == 0 and "thread" or "process" } end
    for i, ctx in ipairs(all) do ctx.state.i = i end
    support.kill(all[1].server_process.pid)
    support.kill(all[3].server_process.pid)
    for i, ctx in ipairs(all) do
      assert.is_truthy(ctx:ping { timeout = support.GENEROUS })
      assert.equal(i, ctx.state.i)
      ctx:close()
    end
  end)

  it("is swept up later if its process was killed", function()
    local pipe = support.run_script [[
      local zproc = require "zproc"
      local ctx = zproc.context { server_backend = "thread" }
      print(zproc.getpid(), ctx.server_process.directory)
      io.stdout:flush()
      zproc.sleep(1000)
    ]]
    local pid, directory = pipe:read():match "(%d+)%s+(.*)"
    support.kill(pid)
    eventually("the end of the script", function() return not support.is_running(pid) end)
    pipe:close()
    zproc.context():close()
    assert.is_nil(io.open(directory .. "/data.mdb"))
  end)

  it("refuses another backend", function()
    refuses("'process' or 'thread'", zproc.context, { server_backend = "fibre" })
    refuses("'process' or 'thread'", zproc.start_server, { backend = 1 })
  end)
end)

describe("the memory of threads", function()
  -- Sanitizers keep what was freed.
  if os.getenv "ASAN_OPTIONS" or os.getenv "TSAN_OPTIONS" then return end

  it("is the system's again when they have ended, of however many processes and servers", function()
    local output = run [[
      local zproc = require "zproc"
      local function resident()
        collectgarbage()
        for line in io.lines "/proc/self/status" do
          local kilobytes = line:match "RssAnon:%s*(%d+)"
          if kilobytes then return kilobytes // 1024 end
        end
      end
      local before = resident()
      local ctx = zproc.context()
      for round = 1, 3 do
        for _ = 1, 16 do
          ctx:process(function(state) -- all at the same time, each in an arena of its own
            local rows = {}
            for i = 1, 30000 do rows[i] = { i, tostring(i) } end
            state:get_when_equal("go", round)
          end, { backend = "thread" })
        end
        ctx.state.go = round
        ctx:wait_all()
      end
      local after_processes = resident()
      local after_some
      for n = 1, 30 do -- each has 2 MB, and as much again in what is on its way; what some take is taken again by the next ones
        if n == 6 then after_some = resident() end
        local server, address = zproc.start_server { backend = "thread" }
        local state = zproc.state(address, { transport = "network" })
        for k = 1, 10 do state["k" .. k] = ("x"):rep(200000) end
        for k = 1, 10 do assert(#state["k" .. k] == 200000) end
        server:stop()
      end
      print(after_processes - before < 16 and resident() - after_some < 20 or table.concat({ before, after_processes, after_some, resident() }, ", "))
    ]]
    assert.equal("true\n", output)
  end)
end)

describe("a module in a thread", function()
  it("is the same in every thread, the lines of its tracebacks included", function()
    local output = run [[
      local zproc = require "zproc"
      local ctx = zproc.context()
      local seen = {}
      for i = 1, 4 do
        local _, err = pcall(function()
          ctx:process(function() require "zproc".sleep "long" end, { backend = "thread", name = "one" }):wait()
        end)
        seen[i] = tostring(err)
      end
      print(seen[1] == seen[2] and seen[2] == seen[4], seen[1]:match "UsageError")
    ]]
    assert.is_truthy(output:find "true\tUsageError", output)
  end)
end)
