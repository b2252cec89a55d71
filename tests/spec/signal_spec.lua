-- Signals as errors.
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses, eventually, kill, run_script = support.refuses, support.eventually, support.kill, support.run_script

--- In a process of its own, with the signal as an error: run `work`, and while it does, send it the signal. Returns what pcall(work)
--- gave: false, and of the error the name, the signal's name and the line.
local function interrupted(ctx, work)
  local p = ctx:process(function(state)
    zproc.signal_to_error(zproc.signal.SIGUSR1)
    local ok, err = pcall(function()
      state.busy = true
      work(state)
    end)
    return ok, zproc.is_error(err) and err.name, zproc.is_error(err) and err.signal.name, tostring(err)
  end)
  ctx.state:get_when_equal("busy", true)
  kill(p.pid, "USR1")
  return p:wait(support.GENEROUS)
end

--- A file that is open for reading, and from which there is never anything to read.
local function open_silence()
  local path = os.tmpname()
  os.remove(path)
  assert(os.execute("mkfifo " .. path))
  local file = assert(io.open(path, "r+"))
  os.remove(path)
  return file
end

describe("a signal that was made an error", function()
  local ctx
  before_each(function() ctx = zproc.context() end)
  after_each(function() ctx:close() end)

  local works = {
    ["a computation"] = function() while true do end end,
    ["a computation in a coroutine"] = function() coroutine.wrap(function() while true do end end)() end,
    ["a computation in a coroutine of a coroutine"] = function()
      local inner = coroutine.create(function() while true do end end)
      local outer = coroutine.create(function() error(select(2, coroutine.resume(inner)), 0) end)
      error(select(2, coroutine.resume(outer)), 0)
    end,
    ["coroutines that take turns"] = function()
      local one = coroutine.wrap(function() while true do coroutine.yield() end end)
      while true do one() end
    end,
    ["a sleep"] = function() zproc.sleep(1000) end,
    ["a watcher"] = function(state) state:get_when_equal("never", 1) end,
    ["a watcher with a predicate"] = function(state) state:get_when(function(s) return s.never end) end,
    ["a wait for a process"] = function(state)
      zproc.process(function() zproc.sleep(1000) end, state.server_address):wait()
    end,
    ["a shell"] = function()
      os.execute "sleep 1"
      while true do end
    end,
    ["a read of a file"] = function() return open_silence():read() end,
    ["a read of the input"] = function()
      io.input(open_silence())
      return io.read("n", "l")
    end,
    ["the lines of a file"] = function() for _ in open_silence():lines() do end end,
    ["the lines of the input"] = function()
      io.input(open_silence())
      for _ in io.lines() do end
    end,
    ["reads and writes of the state"] = function(state) while true do state.n = (state.n or 0) + 1 end end,
  }
  for what, work in pairs(works) do
    it("interrupts " .. what, function()
      assert.same({ false, "SignalError", "SIGUSR1" }, { table.unpack({ interrupted(ctx, work) }, 1, 3) })
    end)
  end

  it("interrupts who waits for a writer that was stopped", function()
    local held, waiting = os.tmpname(), os.tmpname()
    os.remove(held)
    os.remove(waiting)
    local holder = ctx:process(function(state)
      zproc.atomic(function()
        assert(io.open(held, "w")):close()
        while true do end
      end)(state)
    end)
    eventually("the lock to be held", function() return io.open(held) end):close()
    kill(holder.pid, "STOP")
    local p = ctx:process(function(state)
      zproc.signal_to_error(zproc.signal.SIGUSR1)
      local ok, err = pcall(function()
        assert(io.open(waiting, "w")):close()
        state.x = 1
      end)
      return ok, err.name
    end)
    eventually("the wait for the lock", function() return io.open(waiting) end):close()
    kill(p.pid, "USR1")
    assert.same({ false, "SignalError" }, { p:wait(support.GENEROUS) })
    holder:stop(0)
    assert.is_nil(ctx.state.x)
    os.remove(held)
    os.remove(waiting)
  end)

  it("interrupts an atomic function, which then has changed nothing, and holds nothing up", function()
    local spin = zproc.atomic(function(snapshot)
      snapshot.touched = true
      while true do end
    end)
    assert.is_false((interrupted(ctx, function(state) spin(state) end)))
    assert.is_nil(ctx.state.touched)
    ctx.state.touched = "by another"
  end)

  it("interrupts a ping", function()
    kill(ctx:ping(), "STOP")
    local ok, name = interrupted(ctx, function(state) state:ping() end)
    kill(ctx.server_process.pid, "CONT")
    assert.same({ false, "SignalError" }, { ok, name })
  end)

  it("names the line that was running", function()
    local _, _, _, text = interrupted(ctx, function() while true do end end)
    assert.is_truthy(text:find "signal_spec.lua:%d+: SignalError: SIGUSR1", text)
  end)

  it("comes once for each time it was sent, and the script goes on", function()
    local p = ctx:process(function(state)
      zproc.signal_to_error "SIGUSR1"
      for i = 1, 20 do
        local ok, err = pcall(function()
          state.round = i
          zproc.sleep(1000)
        end)
        assert(not ok and err.signal == zproc.signal.SIGUSR1)
      end
      return "through"
    end)
    for i = 1, 20 do
      ctx.state:get_when_equal("round", i)
      kill(p.pid, "USR1")
    end
    assert.equal("through", p:wait(support.GENEROUS))
  end)

  it("leaves a hook of the script in place", function()
    local calls = ctx:process(function(state)
      zproc.signal_to_error "SIGUSR1"
      local calls = 0
      debug.sethook(function() calls = calls + 1 end, "", 1000)
      pcall(function()
        state.busy = true
        while true do end
      end)
      local before = calls
      for _ = 1, 10000 do end
      debug.sethook()
      return calls > before
    end)
    ctx.state:get_when_equal("busy", true)
    kill(calls.pid, "USR1")
    assert.is_true(calls:wait(support.GENEROUS))
  end)

  it("ends a process that does not catch it, as any error", function()
    local p = ctx:process(function(state)
      io.stderr = io.tmpfile()
      zproc.signal_to_error(zproc.signal.SIGUSR1)
      state.busy = true
      zproc.sleep(1000)
    end)
    ctx.state:get_when_equal("busy", true)
    kill(p.pid, "USR1")
    local err = refuses("SIGUSR1", p.wait, p, support.GENEROUS)
    assert.equal("ProcessWaitError", err.name)
    assert.equal("SignalError", err.cause.name)
    assert.equal(zproc.signal.SIGUSR1, err.cause.signal)
    assert.equal(1, p.exitcode)
  end)

  it("is not lost on a target that has come to its end", function()
    local p = ctx:process(function()
      io.stderr = io.tmpfile()
      zproc.signal_to_error "SIGUSR1"
      return os.execute "kill -USR1 $PPID"
    end)
    local err = refuses("SIGUSR1", p.wait, p, support.GENEROUS)
    assert.equal("SignalError", err.cause.name)
  end)

  it("does not keep a process from being stopped", function()
    local p = ctx:process(function(state)
      zproc.signal_to_error "SIGTERM"
      state.busy = true
      zproc.sleep(1000)
    end)
    ctx.state:get_when_equal("busy", true)
    assert.equal(-15, p:stop())
  end)

  it("does not keep a process from being stopped that swallows it", function()
    local p = ctx:process(function(state)
      zproc.signal_to_error "SIGTERM"
      pcall(function()
        state.busy = true
        zproc.sleep(1000)
      end)
      zproc.sleep(1000)
    end)
    ctx.state:get_when_equal("busy", true)
    assert.equal(-9, p:stop())
  end)

  it("may be given by object, name or number", function()
    assert.is_true(ctx:process(function()
      zproc.signal_to_error(zproc.signal.SIGUSR2)
      zproc.signal_to_error "SIGUSR2"
      zproc.signal_to_error(zproc.signal.SIGUSR2.number)
      return true
    end):wait())
  end)

  it("must be one that can be an error", function()
    refuses("there is no signal SIGFOO", function() return zproc.signal.SIGFOO end)
    refuses("there is no signal SIGFOO", zproc.signal_to_error, "SIGFOO")
    refuses("there is no signal 1000", zproc.signal_to_error, 1000)
    refuses("there is no signal -1", zproc.signal_to_error, -1)
    refuses("takes a signal", zproc.signal_to_error)
    refuses("takes a signal", zproc.signal_to_error, 1.5)
    refuses("takes a signal", zproc.signal_to_error, {})
    refuses("SIGKILL cannot be caught", zproc.signal_to_error, zproc.signal.SIGKILL)
    refuses("SIGSTOP cannot be caught", zproc.signal_to_error, "SIGSTOP")
    refuses("SIGCHLD is used by zproc", zproc.signal_to_error, "SIGCHLD")
    refuses("SIGSEGV says that the program is damaged", zproc.signal_to_error, "SIGSEGV")
  end)
end)

describe("signals", function()
  it("have a name and a number, and travel", function()
    assert.equal(15, zproc.signal.SIGTERM.number)
    assert.equal("SIGTERM", zproc.signal.SIGTERM.name)
    assert.equal("SIGTERM", tostring(zproc.signal.SIGTERM))
    local ctx <close> = zproc.context()
    ctx.state.one = zproc.signal.SIGINT
    assert.equal(zproc.signal.SIGINT, ctx.state.one)
  end)
end)

describe("the coroutines of the library", function()
  it("behave as ever", function()
    local co = coroutine.create(function(a, b)
      local c = coroutine.yield(a + b)
      local d, e = coroutine.yield(c * 2)
      return d + e, "end"
    end)
    assert.same({ true, 3 }, { coroutine.resume(co, 1, 2) })
    assert.same({ true, 20 }, { coroutine.resume(co, 10) })
    assert.same({ true, 7, "end" }, { coroutine.resume(co, 3, 4) })
    assert.same({ false, "cannot resume dead coroutine" }, { coroutine.resume(co) })
    local failing = coroutine.create(function() error { code = 5 } end)
    local ok, err = coroutine.resume(failing)
    assert.is_false(ok)
    assert.equal(5, err.code)
    assert.has_error(function() coroutine.resume(5) end)
    assert.has_error(function() coroutine.wrap(5) end)
  end)

  it("wrap passes errors on with their place, and closes what was open", function()
    local closed = false
    local wrapped = coroutine.wrap(function()
      local _ <close> = setmetatable({}, { __close = function() closed = true end })
      error "words"
    end)
    local ok, err = pcall(wrapped)
    assert.is_false(ok)
    assert.is_truthy(err:find "signal_spec.lua:%d+: words", err)
    assert.is_true(closed)
    ok, err = pcall(coroutine.wrap(function() error({ code = 1 }) end))
    assert.equal(1, err.code)
    local values = {}
    for value in coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end) do values[#values + 1] = value end
    assert.same({ 1, 2, 3 }, values)
  end)

  it("go as deep as ever", function()
    local function nest(depth)
      if depth == 0 then return "bottom" end
      return coroutine.wrap(nest)(depth - 1)
    end
    assert.equal("bottom", nest(150))
  end)

  it("are functions of the library, which travel by name", function()
    local ctx <close> = zproc.context()
    ctx.state.fn = coroutine.wrap
    assert.equal(coroutine.wrap, ctx.state.fn)
  end)
end)

describe("the reading of files", function()
  local path
  before_each(function()
    path = os.tmpname()
    local file <close> = assert(io.open(path, "w"))
    file:write "one\n2 0x10\nthree"
  end)
  after_each(function() os.remove(path) end)

  it("is as ever", function()
    local lines = {}
    for line in io.lines(path) do lines[#lines + 1] = line end
    assert.same({ "one", "2 0x10", "three" }, lines)
    local file <close> = assert(io.open(path))
    assert.same({ "one\n", 2, 16, "" }, { file:read("L", "n", "n", "l") })
    assert.same({ "th", "r" }, { file:lines(2, 1)() })
    assert.same({ "ee" }, { file:read "a" })
    assert.same({}, { file:lines()() })
    assert.is_nil(file:read())
    local next_line, _, _, opened = io.lines(path, "a")
    assert.equal("one\n2 0x10\nthree", next_line())
    opened:close()
    assert.has_error(next_line, "file is already closed")
  end)

  it("tells faults as ever", function()
    local file <close> = assert(io.open(path, "a"))
    assert.same({ nil, "Bad file descriptor", 9 }, { file:read() })
    assert.is_truthy(select(2, pcall(function() for _ in file:lines() do end end)):find "signal_spec.lua:%d+: Bad file descriptor")
    assert.is_truthy(select(2, pcall(function() file:read "x" end)):find "signal_spec.lua:%d+: bad argument #1 to 'read' %(invalid format%)")
    assert.is_truthy(select(2, pcall(io.lines, "/nowhere")):find "cannot open file '/nowhere'")
    assert.has_error(function() file:lines(table.unpack({}, 1, 300)) end)
    local ctx <close> = zproc.context()
    ctx.state.fns = { io.read, io.lines }
    assert.same({ io.read, io.lines }, ctx.state.fns)
  end)
end)

describe("SIGINT", function()
  --- Start a script with two processes, whose body calls announce() when it is ready; returns its pipe, and the pids.
  local function start(body, ...)
    local pipe = run_script(([[
      local zproc = require "zproc"
      local ctx = zproc.context()
      local one = ctx:process(function() zproc.sleep(1000) end)
      local two = ctx:process(function() zproc.sleep(1000) end)
      local function announce()
        print(zproc.getpid(), one.pid, two.pid, ctx:ping())
        io.stdout:flush()
      end
      %s
    ]]):format(body), ...)
    return pipe, { pipe:read("l"):match "^(%d+)\t(%d+)\t(%d+)\t(%d+)$" }
  end

  local function all_gone(pids)
    for _, pid in ipairs(pids) do
      eventually("process " .. pid .. " is gone", function() return not support.is_running(pid) end)
    end
  end

  it("ends a script and its processes in order, and the shell knows", function()
    local pipe, pids = start [[
      local _ <close> = setmetatable({}, { __close = function() print "closed" end })
      announce()
      while true do zproc.sleep(1000) end
    ]]
    kill(pids[1], "INT")
    local output = pipe:read "a"
    pipe:close()
    assert.is_truthy(output:find "closed", output)
    assert.is_truthy(output:find("SignalError: SIGINT", 1, true), output)
    assert.is_nil(output:find "traceback")
    all_gone(pids)
  end)

  it("is not lost on a script that ends with a read", function()
    local pipe, pids = start([[
      os.remove(arg[1])
      assert(os.execute("mkfifo " .. arg[1]))
      io.input(assert(io.open(arg[1], "r+")))
      os.remove(arg[1])
      announce()
      return io.read()
    ]], os.tmpname())
    kill(pids[1], "INT")
    local output = pipe:read "a"
    pipe:close()
    assert.is_truthy(output:find("SignalError: SIGINT", 1, true), output)
    all_gone(pids)
  end)

  it("interrupts who prints what nobody reads, and nothing is lost", function()
    local mark = os.tmpname()
    local pipe, pids = start([[
      announce()
      local n = 0
      local ok, err = pcall(function()
        while true do
          n = n + 1
          print(n, ("x"):rep(n % 100))
        end
      end)
      os.remove(arg[1])
      print("end", err.name, n)
    ]], mark)
    eventually("it waits", function()
      local file <close> = assert(io.open(("/proc/%s/stat"):format(pids[1])))
      return file:read "a":find "%) S"
    end)
    kill(pids[1], "INT")
    eventually("it has been interrupted", function()
      local file <close> = io.open(mark)
      return not file
    end)
    local n = 0
    for line in pipe:lines() do
      local number = tonumber(line:match "^(%d+)\tx*$")
      if number then
        assert.equal(n + 1, number)
        n = number
      else
        local last = tonumber(line:match "^end\tSignalError\t(%d+)$")
        assert.is_true(last == n or last == n + 1, line) -- what was begun may have been left out
        break
      end
    end
    pipe:close()
    all_gone(pids)
  end)

  it("ends at once a script that takes no notice of the first", function()
    local pipe, pids = start [[
      local ok, err = pcall(function()
        announce()
        zproc.sleep(1000)
      end)
      print(ok, err.name)
      io.stdout:flush()
      while true do pcall(zproc.sleep, 1000) end
    ]]
    kill(pids[1], "INT")
    assert.equal("false\tSignalError", pipe:read "l")
    kill(pids[1], "INT")
    pipe:read "a"
    pipe:close()
    all_gone(pids)
  end)

  it("is not an error in the processes of a script unless they say so", function()
    local ctx <close> = zproc.context()
    local p = ctx:process(function(state)
      state.busy = true
      zproc.sleep(1000)
    end)
    ctx.state:get_when_equal("busy", true)
    kill(p.pid, "INT")
    eventually("it is gone", function() return p.exitcode end)
    assert.equal(-2, p.exitcode)
  end)
end)

describe("the end of a process", function()
  it("is seen without anybody waiting: there are no zombies", function()
    local ctx <close> = zproc.context()
    local pids = {}
    for i = 1, 20 do pids[i] = ctx:process(function() end).pid end
    for _, pid in ipairs(pids) do
      eventually("process " .. pid .. " is gone", function()
        local file <close> = io.open(("/proc/%d/stat"):format(pid))
        return file == nil
      end)
    end
  end)

  it("is known even of a process whose handle nobody has any more", function()
    local ctx <close> = zproc.context()
    local pid = zproc.process(function() end, ctx.server_address).pid
    collectgarbage()
    collectgarbage()
    eventually("it is reaped", function()
      local file <close> = io.open(("/proc/%d/stat"):format(pid))
      return file == nil
    end)
  end)
end)

describe("signals of workers", function()
  --- Run a script in a process group of its own, with `slow` items that say in the state how far they are; what it prints.
  local function run_group(body)
    local path = os.tmpname()
    local file <close> = io.open(path, "w")
    file:write(([[
      local zproc = require "zproc"
      local ctx = zproc.context()
      local begin = zproc.atomic(function(state) state.begun = (state.begun or 0) + 1 end)
      local go = "%s"
      --- Two workers are at two items until proceed() is called.
      local function target(i, address)
        local own = zproc.state(address)
        begin(own)
        local _ <close> = setmetatable({}, { __close = function() own.closed = true end })
        own:get_when_equal("proceed", true)
        return i
      end
      local function map(fn)
        local result = ctx:process_map(fn or target, { 1, 2 }, { count = 2, args = { ctx.server_address }, chunk_size = 1, on_error = "return" })
        ctx.state:get_when_equal("begun", 2)
        return result
      end
      local function pids()
        local all = {}
        for i, one in ipairs(ctx.worker_list) do all[i] = one.pid end
        return all
      end
      local function signal_all(name) for _, pid in ipairs(pids()) do os.execute(("kill -%%s %%d"):format(name, pid)) end end
      local function expect_all(result)
        local before = table.concat(pids(), " ")
        ctx.state.proceed = true
        local all = result:collect()
        for i = 1, 2 do if all[i] ~= i then print(i, all[i]) end end
        print(before == table.concat(pids(), " ") and "the same workers" or "others")
      end
      %s
    ]]):format(path, body))
    file:close()
    local pipe = assert(io.popen(("exec setsid -w %s %s 2>&1"):format(support.runner(), path)))
    local output = pipe:read "a"
    pipe:close()
    os.remove(path)
    return output
  end

  it("do nothing to these, as SIGINT is the script's matter", function()
    assert.equal("the same workers\n", run_group [[
      local result = map()
      signal_all "INT"
      expect_all(result)
    ]])
  end)

  it("that the script has made errors are errors of the script alone", function()
    assert.equal("SIGINT\nSIGUSR1\nSIGTERM\nthe same workers\n", run_group [[
      for _, name in ipairs { "SIGINT", "SIGUSR1", "SIGTERM" } do zproc.signal_to_error(name) end
      local result = map()
      for _, name in ipairs { "INT", "USR1", "TERM" } do
        -- To the whole group, as a terminal does it, and a service manager.
        local ok, err = pcall(function()
          io.popen("trap '' " .. name .. "; kill -" .. name .. " 0"):close() -- os.execute ignores SIGINT meanwhile
          result:next()
        end)
        print(ok and "no error" or err.signal)
      end
      expect_all(result)
    ]])
  end)

  it("end these if they would end the script, and it does not say otherwise", function()
    assert.equal("1\n2\n", run_group [[
      local result = map()
      signal_all "TERM"
      ctx.state.proceed = true
      for _, value in result do print(value) end
    ]])
  end)

  it("let these end in order when the script ends them", function()
    assert.equal("true\n", run_group [[
      zproc.signal_to_error "SIGTERM"
      map()
      local one = zproc.state(ctx.server_address)
      ctx:process(function(state) state:get_when_equal("closed", true) state.seen = true end)
      for _, worker in ipairs(ctx.worker_list) do worker:stop() end
      ctx.state:get_when_equal("seen", true)
      print "true"
    ]])
  end)

  it("are what they were in what these start", function()
    local output = run_group [[
      zproc.signal_to_error "SIGUSR1"
      local result = map(function(i, address)
        local own = zproc.state(address)
        if i == 1 then
          own.shell = { select(2, os.execute "kill -INT $$") }
          local inner <close> = zproc.context()
          local p = inner:process(function(state)
            local _, err = pcall(function() -- the signal may come before the sleep
              state.ready = true
              zproc.sleep(1000)
            end)
            return err.signal.name
          end)
          inner.state:get_when_equal("ready", true)
          os.execute("kill -USR1 " .. p.pid)
          own.error = p:wait()
          local q = inner:process(function() zproc.sleep(1000) end)
          os.execute("kill -INT " .. q.pid)
          pcall(q.wait, q)
          own.code = q.exitcode
        end
        begin(own)
        own:get_when_equal("proceed", true)
        return i
      end)
      print(table.unpack(ctx.state.shell))
      print(ctx.state.error)
      print(ctx.state.code)
      expect_all(result)
    ]]
    assert.equal("signal\t2\nSIGUSR1\n-2\nthe same workers\n", (output:gsub("^zproc: process [^\n]+ was killed by signal 2 %(SIGINT%)\n", "")))
  end)

  it("that an item makes errors are its own", function()
    assert.equal("SIGUSR2\n", run_group [[
      print((ctx:process_map(function()
        zproc.signal_to_error "SIGUSR2"
        local _, err = pcall(function()
          os.execute("kill -USR2 " .. zproc.getpid())
          zproc.sleep(1000)
        end)
        return err.signal.name
      end, { 1 }):next()))
    ]])
  end)
end)

describe("several signals", function()
  it("that come at once, or while one is dealt with, come one after the other to a loop of protected calls", function()
    local ctx <close> = zproc.context()
    local p = ctx:process(function(state)
      local got = {}
      for _, name in ipairs { "SIGUSR1", "SIGUSR2", "SIGHUP" } do zproc.signal_to_error(name) end
      local function note(ok, err)
        if ok then return end
        got[#got + 1] = err.signal.name
        state.count = #got
      end
      note(pcall(function()
        state.ready = true
        zproc.sleep(1000)
      end))
      while #got < 7 do note(pcall(zproc.sleep, 1000)) end
      table.sort(got)
      return table.concat(got, " ")
    end)
    ctx.state:get_when_available "ready"
    os.execute(("kill -STOP %d; kill -USR1 %d; kill -USR2 %d; kill -HUP %d; kill -CONT %d"):format(p.pid, p.pid, p.pid, p.pid, p.pid))
    for count = 4, 7 do
      ctx.state:get_when_equal("count", count - 1)
      kill(p.pid, "USR1")
    end
    assert.equal("SIGHUP SIGUSR1 SIGUSR1 SIGUSR1 SIGUSR1 SIGUSR1 SIGUSR2", p:wait(support.GENEROUS))
  end)

  it("are all errors of who computes, too", function()
    local ctx <close> = zproc.context()
    local p = ctx:process(function(state)
      for _, name in ipairs { "SIGUSR1", "SIGUSR2" } do zproc.signal_to_error(name) end
      local function compute()
        state.ready = true
        while true do end
      end
      return select(2, pcall(compute)).signal.name, select(2, pcall(function() while true do end end)).signal.name
    end)
    ctx.state:get_when_available "ready"
    os.execute(("kill -STOP %d; kill -USR1 %d; kill -USR2 %d; kill -CONT %d"):format(p.pid, p.pid, p.pid, p.pid))
    assert.same({ "SIGUSR1", "SIGUSR2" }, { p:wait(support.GENEROUS) })
  end)
end)

describe("signals that are waited for", function()
  local ctx

  before_each(function() ctx = zproc.context() end)
  after_each(function() ctx:close() end)

  it("come wherever the script is, and wait for it", function()
    local p = ctx:process(function(state)
      local signals <close> = zproc.signals("SIGUSR1", zproc.signal.SIGHUP, zproc.signal.SIGTERM.number)
      local none, err = signals:next(0)
      assert(none == nil and zproc.is_error(err, "TimeoutError"))
      state.ready = true
      local sum = 0
      while not state.go do sum = sum + 1 end -- no signal disturbs this
      zproc.sleep(0.01)
      local got = {}
      for one in signals do
        got[#got + 1] = one.name
        if #got == 3 then break end -- those that come at once have no order
      end
      assert(signals:next(1e-9) == nil)
      table.sort(got)
      return table.concat(got, " ")
    end)
    ctx.state:get_when_available "ready"
    kill(p.pid, "HUP")
    kill(p.pid, "USR1")
    ctx.state.go = true
    assert.equal(0, p:stop(support.GENEROUS)) -- it ends as it likes
    assert.equal("SIGHUP SIGTERM SIGUSR1", p:wait())
  end)

  it("wake who waits, and belong to those that have asked for them", function()
    local p = ctx:process(function(state)
      local first, second = zproc.signals "SIGUSR1", zproc.signals("SIGUSR2", "SIGUSR2")
      state.ready = true
      local two = second:next()
      state.two = true
      return two.name, first:next().name, first:next(0), tostring(second)
    end)
    ctx.state:get_when_available "ready"
    kill(p.pid, "USR1")
    kill(p.pid, "USR2")
    ctx.state:get_when_available "two"
    assert.same({ "SIGUSR2", "SIGUSR1", [4] = "Signals (SIGUSR2)" }, { p:wait(support.GENEROUS) })
  end)

  it("do what they did before when they are closed", function()
    local p = ctx:process(function(state)
      zproc.signal_to_error "SIGUSR1"
      do
        local signals <close> = zproc.signals("SIGUSR1", "SIGUSR2")
        state.queued = true
        signals:next()
      end
      local ok, err = pcall(function()
        state.closed = true
        zproc.sleep(1000)
      end)
      state.caught = err.name
      zproc.sleep(1000)
    end)
    ctx.state:get_when_available "queued"
    kill(p.pid, "USR1")
    ctx.state:get_when_available "closed"
    kill(p.pid, "USR1")
    ctx.state:get_when_equal("caught", "SignalError")
    kill(p.pid, "USR2")
    assert.equal(-zproc.signal.SIGUSR2.number, refuses("SIGUSR2", p.wait, p, support.GENEROUS).exitcode)
  end)

  it("are those of one process: what it starts is ended by them as ever", function()
    local signals <close> = zproc.signals("SIGTERM", "SIGUSR1")
    local p = ctx:process(function(state)
      state.ready = true
      local ok, err = pcall(signals.next, signals)
      state.refused = err.message
      zproc.sleep(1000)
    end)
    assert.is_truthy(ctx.state:get_when_available("refused").refused:find "these signals are those of process")
    assert.equal(-15, p:stop(support.GENEROUS))
    local q = ctx:process(function()
      local own <close> = zproc.signals "SIGTERM"
      os.execute("kill -TERM " .. zproc.getpid())
      return own:next().name
    end)
    assert.equal("SIGTERM", q:wait(support.GENEROUS))
    assert.is_nil(signals:next(0))
    kill(zproc.getpid(), "USR1")
    assert.equal("SIGUSR1", signals:next(support.GENEROUS).name)
  end)

  it("may be what ^C sends", function()
    local pipe = support.run_script [[
      local zproc = require "zproc"
      local signals = zproc.signals "SIGINT"
      local function interrupt() io.popen("kill -INT " .. zproc.getpid()):close() end
      interrupt()
      io.write(signals:next().name, " ")
      signals:close()
      signals:close()
      print(pcall(signals.next, signals))
      print(select(2, pcall(function() interrupt() zproc.sleep(1000) end)).name)
    ]]
    local text = pipe:read "a"
    pipe:close()
    assert.is_truthy(text:find "^SIGINT false\t.*these signals were closed\nSignalError\n", text)
  end)

  it("must be signals that can be waited for, by one", function()
    refuses("zproc.signals takes at least one signal", zproc.signals)
    refuses("zproc.signals: SIGKILL cannot be caught by any program", zproc.signals, "SIGUSR1", "SIGKILL")
    refuses("zproc.signals: there is no signal SIGNONE", zproc.signals, "SIGNONE")
    refuses("zproc.signals takes a signal such as", zproc.signals, {})
    local signals <close> = zproc.signals("SIGUSR1")
    refuses("zproc.signals: SIGUSR1 comes to what zproc.signals has given", zproc.signals, "SIGUSR1")
    refuses("zproc.signal_to_error: SIGUSR1 comes to what zproc.signals has given", zproc.signal_to_error, "SIGUSR1")
    refuses("signals:next: the timeout must be", signals.next, signals, -1)
    refuses("cannot send what zproc.signals gives", function() ctx.state.signals = signals end)
    local zproc, pcall, select = zproc, pcall, select -- all globals of a test cannot travel to a thread
    local p = ctx:process(function() return select(2, pcall(zproc.signals, "SIGUSR2")).message end, { backend = "thread" })
    assert.is_truthy(p:wait():find("signals come to the first thread", 1, true))
  end)
end)
