-- Process and Context: the plain case.
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses, eventually = support.refuses, support.eventually

--- Everything that `fn` makes processes write to stderr goes to a file; returns that text.
local function quietly(fn)
  local path = os.tmpname()
  local ok, err = pcall(fn, path)
  local file <close> = assert(io.open(path))
  local text = file:read "a"
  os.remove(path)
  if not ok then error(err, 0) end
  return text
end

--- In a child: send stderr to a file.
local function redirect(path)
  io.stderr = assert(io.open(path, "a"))
  io.stderr:setvbuf "no"
end

describe("a process", function()
  local ctx, state

  before_each(function()
    ctx = zproc.context()
    state = ctx.state
  end)
  after_each(function() ctx:close() end)

  it("runs its target with the state", function()
    ctx:process(function(own) own.seen = 5 end):wait()
    assert.equal(5, state.seen)
  end)

  it("is another process", function()
    local pid = ctx:process(function() return zproc.getpid() end)
    assert.not_equal(zproc.getpid(), pid:wait())
    assert.equal(pid.pid, pid:wait())
  end)

  it("gets args, then kwargs as one table, and that only if it was given", function()
    local count = ctx:process(function(...) return select("#", ...), select(2, ...) end, { args = { 2, 3 }, kwargs = { exp = 4 } })
    local n, a, b, kwargs = count:wait()
    assert.same({ 4, 2, 3, { exp = 4 } }, { n, a, b, kwargs })
    assert.equal(3, (ctx:process(function(...) return select("#", ...) end, { args = { 2, 3 } }):wait()))
    assert.equal(1, (ctx:process(function(...) return select("#", ...) end):wait()))
  end)

  it("keeps nil among its args where n says so", function()
    local p = ctx:process(function(...) return select("#", ...), ... end,
      { stateful = false, args = { n = 3, 1, nil, 3 } })
    assert.same({ 3, 1, nil, 3, n = 4 }, table.pack(p:wait()))
  end)

  it("gets no state if it is not stateful", function()
    assert.same({ 1, 2 }, { ctx:process(function(...) return ... end, { stateful = false, args = { 1, 2 } }):wait() })
  end)

  it("gets a Context if it asks for one, and can start processes of its own", function()
    local p = ctx:process(function(inner, n)
      assert(inner.server_address == ctx.server_address)
      local deeper = inner:process(function(own)
        own.deep = n
        return "from below"
      end)
      return deeper:wait()
    end, { pass_context = true, args = { 7 } })
    assert.equal("from below", p:wait())
    assert.equal(7, state.deep)
  end)

  it("works in the namespace that it is given", function()
    ctx:process(function(own) own.x = own.namespace end, { namespace = "other" }):wait()
    assert.is_nil(state.x)
    assert.equal("other", state:fork({ namespace = "other" }).x)
  end)

  it("inherits every upvalue and global of the script, sendable or not", function()
    local file = io.tmpfile()
    local co = coroutine.wrap(function() coroutine.yield "from a coroutine" end)
    _G.some_global = { inherited = true }
    local p = ctx:process(function()
      return io.type(file), co(), some_global.inherited -- luacheck: ignore
    end)
    assert.same({ "file", "from a coroutine", true }, { p:wait() })
    file:close()
    _G.some_global = nil
  end)

  it("may use the State that it inherited", function()
    ctx:process(function() state.inherited = true end):wait()
    assert.is_true(state.inherited)
  end)

  it("returns values of any number and kind", function()
    local cyclic = {}
    cyclic.self = cyclic
    local p = ctx:process(function()
      return nil, true, 1, 1.5, "text\0", zproc.null, { 1, { 2 } }, cyclic, function(x) return x + 1 end, nil
    end)
    local r = table.pack(p:wait())
    assert.equal(10, r.n)
    assert.same({ nil, true, 1, 1.5, "text\0", zproc.null, { 1, { 2 } } }, { table.unpack(r, 1, 7) })
    assert.is_true(rawequal(r[8].self, r[8]))
    assert.equal(42, r[9](41))
    assert.equal(0, select("#", ctx:process(function() end):wait()))
    assert.equal(1, select("#", ctx:process(function() return nil end):wait()))
  end)

  it("takes no descriptor once it has ended, whether it was waited for or not", function()
    local function count()
      local pipe <close> = assert(io.popen(("ls -l /proc/%d/fd | grep -c zproc-message"):format(zproc.getpid())))
      return pipe:read "n"
    end
    local before = count()
    for i = 1, 100 do assert.equal(i, ctx:process(function() return i end):wait()) end
    assert.equal(before, count())
    for i = 1, 100 do
      local one = ctx:process(function() return -i end)
      eventually("its end", function() return not support.is_running(one.pid) end)
    end
    assert.is_true(count() < before + 70)
    for i, one in ipairs(ctx.process_list) do assert.equal(-i, one:wait()) end
    assert.equal(before, count())
  end)

  it("returns more than fits a pipe", function()
    local p = ctx:process(function() return ("x"):rep(5000000) end)
    assert.equal(5000000, #p:wait())
  end)

  it("gives its result as often as it is asked", function()
    local p = ctx:process(function() return { 1 } end)
    assert.same({ 1 }, p:wait())
    assert.same({ 1 }, p:wait(0))
  end)

  it("shows whether it lives, its pid and its exit code", function()
    local p = ctx:process(function(own)
      while not own.go do zproc.sleep(0.001) end
    end, { start = false })
    assert.is_nil(p.pid)
    assert.is_nil(p.exitcode)
    assert.is_false(p.is_alive)
    assert.is_truthy(tostring(p):find("not started", 1, true))
    local pid = p:start()
    assert.equal(pid, p.pid)
    assert.is_true(p.is_alive)
    assert.is_nil(p.exitcode)
    assert.is_truthy(tostring(p):find("running", 1, true))
    state.go = true
    p:wait()
    assert.is_false(p.is_alive)
    assert.equal(0, p.exitcode)
    assert.is_truthy(tostring(p):find("exited with 0", 1, true))
    assert.equal("default", p.namespace)
    assert.equal(ctx.server_address, p.server_address)
    assert.equal("function", type(p.target))
  end)

  it("cannot be started twice, nor waited for before its start", function()
    local p = ctx:process(function() end, { start = false })
    refuses("was never started", p.wait, p)
    refuses("was never started", p.stop, p)
    p:start()
    refuses("was started already", p.start, p)
    p:wait()
    refuses("was started already", p.start, p)
  end)

  it("waits no longer than the timeout: nil and a TimeoutError", function()
    local p = ctx:process(function() zproc.sleep(1000) end)
    local before = zproc.time()
    local result, err = p:wait(0.05)
    assert.is_nil(result)
    assert.is_true(zproc.is_error(err, "TimeoutError"))
    assert.is_true(zproc.time() - before >= 0.05)
    assert.is_true(p.is_alive)
    assert.is_nil((p:wait(0)))
  end)

  it("refuses timeouts that are none", function()
    local p = ctx:process(function() end)
    for _, timeout in ipairs { -1, 0 / 0, "1", {}, true } do
      refuses("the timeout must be a number of seconds, 0 or more", p.wait, p, timeout)
    end
    p:wait(math.huge)
  end)

  it("is stopped, with the exit code as result", function()
    local p = ctx:process(function() zproc.sleep(1000) end)
    assert.equal(-15, p:stop())
    assert.equal(-15, p:stop())
    assert.equal(-15, p.exitcode)
    local err = refuses("was killed by signal 15 (SIGTERM)", p.wait, p)
    assert.equal("ProcessWaitError", err.name)
    assert.equal(-15, err.exitcode)
    assert.equal(p, err.process)
    assert.is_truthy(tostring(p):find("killed by SIGTERM", 1, true))
  end)

  it("tells its exit code when it calls os.exit or zproc.exit", function()
    for status, expected in pairs { [3] = 3, [true] = 0, [false] = 1 } do
      local p = ctx:process(function() os.exit(status) end)
      local ok, err = pcall(p.wait, p)
      assert.equal(expected == 0, ok)
      assert.equal(expected, p.exitcode)
      if not ok then assert.equal(expected, err.exitcode) end
      local q = ctx:process(function() zproc.exit(status) end)
      pcall(q.wait, q)
      assert.equal(expected, q.exitcode)
    end
  end)

  it("brings the error of its target home, with the traceback of the place", function()
    local p
    local report = quietly(function(path)
      p = ctx:process(function()
        redirect(path)
        local function deep() error "boom" end
        deep()
      end)
      local err = refuses("boom", p.wait, p)
      assert.equal("ProcessWaitError", err.name)
      assert.equal(1, err.exitcode)
      assert.equal(p, err.process)
      assert.is_truthy(err.traceback:find("process_spec.lua", 1, true), err.traceback)
      assert.is_truthy(err.traceback:find("deep", 1, true), err.traceback)
      assert.is_truthy(err.message:find("process_spec.lua:%d+: boom"), err.message)
      assert.is_nil(err.traceback:find("busted", 1, true), "the traceback goes on into the parent's history")
    end)
    assert.is_truthy(report:find("boom", 1, true), "the failure was not reported on stderr")
    assert.is_truthy(report:find("stack traceback", 1, true))
  end)

  it("brings error objects and error tables home as they were", function()
    quietly(function(path)
      local Refused = zproc.error_class "ConnectionError"
      local p = ctx:process(function()
        redirect(path)
        error(Refused { message = "refused", port = 80 })
      end)
      local err = refuses("refused", p.wait, p)
      assert.is_true(zproc.is_error(err.cause, "ConnectionError"))
      assert.is_true(zproc.is_error(err.cause, Refused))
      assert.equal(80, err.cause.port)
      local q = ctx:process(function()
        redirect(path)
        error { code = 7 }
      end)
      assert.equal(7, refuses("", q.wait, q).cause.code)
    end)
  end)

  it("brings an error home that cannot be sent as it is, as words", function()
    quietly(function(path)
      local p = ctx:process(function()
        redirect(path)
        error(setmetatable({ file = io.stdout }, { __tostring = function() return "unsendable words" end }))
      end)
      refuses("unsendable words", p.wait, p)
    end)
  end)

  it("keeps of an error object that cannot be sent as a whole what can be", function()
    quietly(function(path)
      local p = ctx:process(function(inner)
        redirect(path)
        inner:process(function() os.exit(7) end):wait() -- an error that has the process in it
      end, { pass_context = true })
      local err = refuses("exited with code 7", p.wait, p)
      assert.equal(1, err.exitcode)
      assert.is_true(zproc.is_error(err.cause, "ProcessWaitError"))
      assert.equal(7, err.cause.exitcode)
      assert.is_nil(err.cause.process)
    end)
  end)

  it("says which result cannot be sent", function()
    quietly(function(path)
      local p = ctx:process(function()
        redirect(path)
        return 1, { io.stdout }
      end)
      refuses("result[2][1]: cannot send a userdata (FILE*)", p.wait, p)
    end)
  end)

  it("survives a target that overflows the stack, or yields", function()
    quietly(function(path)
      local p = ctx:process(function()
        redirect(path)
        local function forever() return 1 + forever() end
        return forever()
      end)
      refuses("stack overflow", p.wait, p)
      local q = ctx:process(function()
        redirect(path)
        coroutine.yield()
      end)
      refuses("yield", q.wait, q)
    end)
  end)

  it("runs the closes of its target's variables when that fails", function()
    quietly(function(path)
      local p = ctx:process(function(own)
        redirect(path)
        local guard <close> = setmetatable({}, { __close = function() own.closed = true end }) -- luacheck: ignore
        error "after all"
      end)
      refuses("after all", p.wait, p)
      assert.is_true(state.closed)
    end)
  end)

  it("takes any callable as target", function()
    local callable = setmetatable({}, { __call = function(_, own, x) own.called = x end })
    ctx:process(callable, { args = { 3 } }):wait()
    assert.equal(3, state.called)
  end)

  it("is there without a Context, on an address", function()
    local p = zproc.process(function(own) own.alone = true end, ctx.server_address)
    p:wait()
    assert.is_true(state.alone)
  end)

  it("refuses a target that is none, and options that are unknown or of the wrong type", function()
    refuses("ctx:process: the target must be a function, not 5", ctx.process, ctx, 5)
    refuses("zproc.process: the target is nil", zproc.process, nil, ctx.server_address)
    refuses("unknown option 'arg' (did you mean 'args'?)", ctx.process, ctx, print, { arg = {} })
    refuses("option 'args' must be a list, not 5", ctx.process, ctx, print, { args = 5 })
    refuses("option 'stateful' must be true or false", ctx.process, ctx, print, { stateful = "yes" })
    refuses("options come in a table", ctx.process, ctx, print, 5)
    refuses("is no server address", zproc.process, print, "nonsense")
    assert.equal(0, #ctx.process_list)
  end)

  it("takes its options first, like a decorator", function()
    local p = ctx:process { args = { 4 } } (function(_, x) return x end)
    local q = ctx:process {} (function() return "no options" end)
    assert.same({ p, q }, ctx.process_list)
    assert.equal(4, p:wait())
    assert.equal("no options", q:wait())
  end)
end)

describe("a Context", function()
  it("lists its processes, makes many, starts, waits for and stops all", function()
    local ctx = zproc.context()
    local made = ctx:process_factory(function() return "a" end, function() return "b" end, { count = 2, start = false })
    assert.equal(4, #made)
    assert.same(made, ctx.process_list)
    ctx:start_all()
    ctx:start_all()
    assert.same({ "a", "a", "b", "b", n = 4 }, ctx:wait_all())
    assert.same({}, ctx:stop_all()) -- they were waited for
    ctx:process(function() zproc.sleep(1000) end)
    local last = ctx:process(function() end, { start = false })
    assert.same({ -15, false }, ctx:stop_all())
    assert.same({ last }, ctx.process_list)
    ctx:close()
  end)

  it("waits for all with one timeout", function()
    local ctx = zproc.context()
    ctx:process_factory(function() zproc.sleep(1000) end, { count = 3 })
    local before = zproc.time()
    local results, err = ctx:wait_all(0.05)
    assert.is_nil(results)
    assert.is_true(zproc.is_error(err, "TimeoutError"))
    results = ctx:wait_all { timeout = 0.05, safe = true }
    for i = 1, 3 do assert.is_true(zproc.is_error(results[i], "TimeoutError")) end
    assert.is_true(zproc.time() - before < 60)
    refuses("seconds", ctx.wait_all, ctx, -1)
    refuses("unknown option", ctx.wait_all, ctx, { timout = 1 })
    ctx:close()
  end)

  it("raises the first error of its processes, or with safe puts errors in their places", function()
    quietly(function(path)
      local ctx = zproc.context()
      ctx:process(function() return 1 end)
      ctx:process(function()
        redirect(path)
        error "boom"
      end)
      ctx:process(function() return 3 end)
      refuses("boom", ctx.wait_all, ctx)
      local results = ctx:wait_all { safe = true }
      assert.equal(1, results[1])
      assert.is_true(zproc.is_error(results[2], "ProcessWaitError"))
      assert.equal(3, results[3])
      ctx:close()
    end)
  end)

  it("has default options for its processes, which a call overrides", function()
    local ctx = zproc.context { process = { args = { 1 }, stateful = false } }
    assert.equal(1, ctx:process(function(x) return x end):wait())
    assert.equal(2, ctx:process(function(x) return x end, { args = { 2 } }):wait())
    ctx:close()
  end)

  it("works in its namespace", function()
    local ctx = zproc.context { namespace = "mine" }
    assert.equal("mine", ctx.namespace)
    assert.equal("mine", ctx.state.namespace)
    ctx:process(function(own) own.where = own.namespace end):wait()
    assert.equal("mine", ctx.state.where)
    ctx:close()
  end)

  it("shares the state of another one by its address", function()
    local one = zproc.context()
    local two = zproc.context(one.server_address)
    local three = zproc.context { server_address = one.server_address, namespace = "third" }
    one.state.x = 1
    assert.equal(1, two.state.x)
    assert.is_nil(three.state.x)
    three:close()
    two:close()
    assert.equal(1, one.state.x)
    one:close()
  end)

  it("stops its processes and removes its directory when it is closed", function()
    local ctx = zproc.context()
    local directory = ctx.server_address:match "^ipc://(.*)/"
    local p = ctx:process(function() zproc.sleep(1000) end)
    assert.is_truthy(io.open(directory .. "/data.mdb"))
    ctx:close()
    ctx:close()
    assert.equal(-15, p.exitcode)
    assert.is_nil(io.open(directory .. "/data.mdb"))
    refuses("this Context is closed", ctx.process, ctx, print)
    refuses("closed", function() return ctx.state.x end)
    assert.equal("ServerLost", refuses("", zproc.state, ctx.server_address).name)
  end)

  it("waits for its processes before it closes, if it was made so", function()
    local ctx = zproc.context { wait = true }
    local p = ctx:process(function()
      zproc.sleep(0.02)
      return "finished"
    end)
    ctx:close()
    assert.equal("finished", p:wait())
  end)

  it("closes at the end of its block if it was declared so", function()
    local p
    do
      local ctx <close> = zproc.context()
      p = ctx:process(function() zproc.sleep(1000) end)
    end
    assert.equal(-15, p.exitcode)
  end)

  it("refuses options that are unknown or of the wrong type", function()
    refuses("zproc.context: unknown option 'wiat' (did you mean 'wait'?)", zproc.context, { wiat = true })
    refuses("zproc.context: option 'wait' must be true or false, not 1", zproc.context, { wait = 1 })
    refuses("option 'process': unknown option 'arg'", zproc.context, { process = { arg = {} } })
    refuses("is no server address", zproc.context, "nonsense")
    refuses("a server address is a string", zproc.context, 5)
    refuses("nobody can be reached", zproc.context, "tcp://127.0.0.1:5000")
    assert.equal("ServerLost", refuses("/nowhere", zproc.context, "ipc:///nowhere/server").name)
    local ctx <close> = zproc.context()
    refuses("count' must be an integer of at least 1, not 0", ctx.process_factory, ctx, print, { count = 0 })
    refuses("count' must be an integer of at least 1, not 1.5", ctx.process_factory, ctx, print, { count = 1.5 })
    refuses("at least one target", ctx.process_factory, ctx, { count = 2 })
  end)

  it("of the parent is refused in a child, with a way out", function()
    local ctx <close> = zproc.context()
    local p = ctx:process(function()
      local ok, err = pcall(ctx.process, ctx, print)
      return ok, tostring(err)
    end)
    local ok, text = p:wait()
    assert.is_false(ok)
    assert.is_truthy(text:find("pass_context = true", 1, true), text)
  end)
end)

describe("the small functions", function()
  it("sleep, and refuse what is no time", function()
    local before = zproc.time()
    zproc.sleep(0.02)
    assert.is_true(zproc.time() - before >= 0.02)
    zproc.sleep(0)
    for _, seconds in ipairs { -1, 0 / 0, "1" } do refuses("seconds", zproc.sleep, seconds) end
    refuses("seconds", zproc.sleep)
  end)

  it("tell the time, the processors and the pid", function()
    assert.is_true(math.abs(zproc.time() - os.time()) < 2)
    assert.equal("integer", math.type(zproc.cpu_count()))
    assert.is_true(zproc.cpu_count() >= 1)
    assert.equal("integer", math.type(zproc.getpid()))
  end)

  it("make and recognise errors", function()
    local Refused = zproc.error_class "ConnectionError"
    local err = Refused "refused"
    assert.equal("ConnectionError", err.name)
    assert.equal("refused", err.message)
    assert.is_truthy(tostring(err):find("process_spec.lua:%d+: ConnectionError: refused"))
    assert.is_true(zproc.is_error(err))
    assert.is_true(zproc.is_error(err, "ConnectionError"))
    assert.is_true(zproc.is_error(err, Refused))
    assert.is_false(zproc.is_error(err, "TimeoutError"))
    assert.is_false(zproc.is_error "ConnectionError")
    assert.is_false(zproc.is_error { name = "ConnectionError" })
    assert.equal("error: " .. tostring(err), "error: " .. err)
    refuses("takes a name", zproc.error_class, 5)
    refuses("class or a name", zproc.is_error, err, 5)
  end)
end)

-- A process that is asked to end and does not, once it has said that it is there.
local function stubborn(state, name)
  zproc.signal_to_error "SIGTERM"
  pcall(function()
    state[name] = true
    zproc.sleep(1000)
  end)
  while true do zproc.sleep(1000) end -- it is asked only once
end

describe("the end of processes", function()
  it("has one deadline for all, however many do not end", function()
    local ctx = zproc.context { process = { stop = { timeout = 1 } } }
    local other = zproc.context { process = { stop = { timeout = 1 } } }
    for i = 1, 15 do
      ctx:process(stubborn, { args = { i } })
      other:process(stubborn, { args = { i } })
    end
    for i = 1, 15 do
      ctx.state:get_when_available(i)
      other.state:get_when_available(i)
    end
    local begun = zproc.time()
    for _, exitcode in ipairs(ctx:stop_all()) do assert.equal(-9, exitcode) end
    other:close()
    assert.is_true(zproc.time() - begun < 15) -- one after the other they would take 30 seconds
    ctx:close()
  end)

  it("comes when the time that stop was given is up, and not before", function()
    local ctx = zproc.context()
    local function slow(state, name)
      zproc.signal_to_error "SIGTERM"
      pcall(function()
        state[name] = true
        zproc.sleep(1000)
      end)
      zproc.sleep(2.5) -- longer than it would have by default
      zproc.exit(7)
    end
    local function start(name, stop)
      local p = ctx:process(slow, { args = { name }, stop = stop })
      ctx.state:get_when_available(name)
      return p
    end
    assert.equal(7, start("first"):stop(support.GENEROUS))
    assert.equal(7, start("second", { timeout = support.GENEROUS }):stop())
    start "third"
    assert.same({ 7 }, ctx:stop_all(support.GENEROUS))
    local never = ctx:process(stubborn, { args = { "never" } })
    ctx.state:get_when_available "never"
    assert.equal(-9, never:stop(0))
    local lasting = ctx:process(stubborn, { args = { "lasting" }, stop = { timeout = math.huge } })
    ctx.state:get_when_available "lasting"
    assert.equal(-9, lasting:stop(0.01))
    assert.equal(-9, lasting:stop(math.huge)) -- it has ended
    ctx:close()
  end)

  it("refuses times that are none", function()
    local ctx <close> = zproc.context()
    local p = ctx:process(function() end)
    refuses("process:stop: the timeout must be a number of seconds", p.stop, p, -1)
    refuses("process:stop: the timeout must be a number of seconds", p.stop, p, "5")
    refuses("ctx:stop_all: the timeout must be a number of seconds", ctx.stop_all, ctx, 0 / 0)
    refuses("ctx:process: option 'stop': unknown option 'timout' (did you mean 'timeout'?)", ctx.process, ctx, print, { stop = { timout = 1 } })
    refuses("option 'stop': option 'timeout' must be a number of seconds", ctx.process, ctx, print, { stop = { timeout = -1 } })
    refuses("zproc.context: option 'process': option 'stop': option 'timeout' must be", zproc.context, { process = { stop = { timeout = "1" } } })
    p:wait()
  end)
end)

describe("wait_all", function()
  for _, backend in ipairs { "process", "thread" } do
    it("raises as soon as one has failed, beside others that never end: a " .. backend, function()
      quietly(function(path)
        local io, error = io, error -- what a thread uses travels to it, and all globals of a test cannot
        local ctx = zproc.context { process = { backend = backend } }
        ctx:process(function(state) return state:get_when_available("go").go end)
        ctx:process(function()
          io.stderr = io.open(path, "a")
          error { code = 5 }
        end)
        ctx:process(function() return 3 end)
        local err = refuses("exited with code 1", ctx.wait_all, ctx, support.GENEROUS)
        assert.equal(5, err.cause.code)
        assert.is_nil(select(1, ctx:wait_all { timeout = 0, safe = true })[1].exitcode)
        ctx.state.go = "went"
        local results = ctx:wait_all { safe = true, timeout = support.GENEROUS }
        assert.equal("went", results[1])
        ctx:close()
      end)
    end)
  end

  it("raises when one is killed, too", function()
    quietly(function()
      local ctx = zproc.context()
      ctx:process(function() zproc.sleep(1000) end)
      local victim = ctx:process(function() zproc.sleep(1000) end)
      support.kill(victim.pid)
      local err = refuses("was killed by signal 9", ctx.wait_all, ctx, support.GENEROUS)
      assert.equal(victim, err.process)
      ctx:close()
    end)
  end)

  it("names a process that was never started", function()
    local ctx <close> = zproc.context()
    ctx:process(function() zproc.sleep(1000) end)
    ctx:process(function() end, { start = false, name = "later" })
    refuses("ctx:wait_all: process later was never started", ctx.wait_all, ctx)
    assert.equal("UsageError", ctx:wait_all({ safe = true, timeout = 0 })[2].name)
  end)
end)

describe("what was waited for", function()
  it("leaves its Context, and is freed when nobody has it any more", function()
    local ctx <close> = zproc.context()
    local kept = setmetatable({}, { __mode = "k" })
    for i = 1, 10 do
      for _, backend in ipairs { "process", "thread" } do
        local p = ctx:process(function() return ("x"):rep(1000), i end, { backend = backend })
        assert.equal(1000, #p:wait())
        kept[p] = true
        kept[ctx:process(function() zproc.sleep(1000) end, { backend = backend })] = true
        assert.equal(1, #ctx.process_list)
        ctx.process_list[1]:stop()
        assert.same({}, ctx.process_list)
      end
    end
    ctx:process_factory(function() return "a" end, { count = 5 })
    assert.same({ n = 5, "a", "a", "a", "a", "a" }, ctx:wait_all())
    assert.same({}, ctx.process_list)
    collectgarbage()
    collectgarbage()
    local left = 0
    for _ in pairs(kept) do left = left + 1 end
    assert.is_true(left <= 1) -- what a register of this function still has
  end)

  it("can be waited for again, for as long as somebody has it", function()
    local ctx <close> = zproc.context()
    local p = ctx:process(function() return 1, { 2 } end)
    assert.same({ 1, { 2 } }, { p:wait() })
    assert.same({ 1, { 2 } }, { p:wait() })
    local list = {}
    for i = 1, 5 do list[i] = ctx:process(function() return i end) end
    local seen = {}
    for _, one in ipairs(ctx.process_list) do seen[#seen + 1] = one:wait() end
    assert.same({ 1, 2, 3, 4, 5 }, seen)
  end)

  it("takes no memory", function()
    if os.getenv "ASAN_OPTIONS" then return end -- a sanitizer keeps what was freed
    local function resident()
      for line in io.lines "/proc/self/status" do
        local kilobytes = line:match "^VmRSS:%s*(%d+)"
        if kilobytes then return tonumber(kilobytes) end
      end
    end
    local ctx <close> = zproc.context()
    local function run(count)
      for _ = 1, count do ctx:process(function() return ("x"):rep(1 << 20) end):wait() end
      collectgarbage()
      collectgarbage()
    end
    run(5)
    local before = resident()
    run(60)
    assert.is_true(resident() < before + 30000) -- 60 results and their copies would be 120 MB
  end)
end)

describe("what a call is given", function()
  local ctx

  before_each(function() ctx = zproc.context() end)
  after_each(function() ctx:close() end)

  it("is refused where a process would fail of it later", function()
    local any = { zproc.AnyError }
    for _, delay in ipairs { math.huge, 1e300, math.maxinteger } do
      refuses("ctx:process: option 'retry_delay' must be a number of seconds from 0 to 1e9", ctx.process, ctx, print, {
        retry_for = any, retry_delay = delay,
      })
    end
    refuses("option 'process': option 'retry_delay' must be", zproc.context, { process = { retry_delay = 1e300 } })
    refuses("option 'process': option 'retry_for': there is no error class", zproc.context, { process = { retry_for = { "Nonsense" } } })
    refuses("option 'retry_delay' must be", zproc.process, print, ctx.server_address, { retry_delay = 0 / 0 })
    refuses("ctx:call_when_change: option 'retry_delay' must be", ctx.call_when_change, ctx, print, { retry_delay = 1e300 })
    for _, n in ipairs { -1, 1 << 40, 1.5 } do
      refuses("ctx:process: option 'args' must be a list of at most 100000 arguments", ctx.process, ctx, print, { args = { n = n } })
      refuses("option 'retry_args' must be a list of at most", ctx.process, ctx, print, { retry_for = any, retry_args = { n = n } })
      refuses("ctx:process_map: option 'args' must be a list of at most", ctx.process_map, ctx, print, { 1 }, { args = { n = n } })
      refuses("item 1 of map_args has too many arguments", ctx.process_map, ctx, print, { map_args = { { n = n } } })
    end
    refuses("option 'count' must be an integer of at least 1 and at most 4194304", ctx.process_factory, ctx, print, { count = math.maxinteger })
    for _, status in ipairs { 1 << 32, 256, -129, math.mininteger } do
      refuses("zproc.exit: an exit status is from 0 to 255", zproc.exit, status)
    end
    assert.same({}, ctx.process_list)
  end)

  it("may be as large as it makes sense", function()
    local failing = { retry_for = { zproc.AnyError }, retry_delay = 1e9, max_retries = math.maxinteger }
    local reports = quietly(function(path)
      local p = ctx:process(function(state)
        redirect(path)
        state.began = true
        error "again"
      end, failing)
      ctx.state:get_when_available "began"
      -- By its report: the table of processes has those of the server's machine alone.
      eventually("the pause", function()
        local file <close> = assert(io.open(path))
        return file:read "a":find("next try in 1e+09 s", 1, true)
      end)
      assert.is_nil(p:wait(0.3)) -- time enough to fail of the delay, or to try again at once
      assert.equal(-15, p:stop())
    end)
    assert.is_nil(reports:find("try 2", 1, true), reports)
    local sleeper = ctx:process(function() zproc.sleep(math.huge) end)
    for _, seconds in ipairs { 0, 1e-300 } do
      assert.is_true(zproc.is_error(select(2, sleeper:wait(seconds)), "TimeoutError"))
      assert.is_true(zproc.is_error(select(2, ctx:wait_all(seconds)), "TimeoutError"))
    end
    for _, seconds in ipairs { 1e300, math.huge, math.maxinteger } do
      assert.equal(5, ctx:process(function() return 5 end):wait(seconds))
      assert.equal(5, ctx:process(function(state) return state:setdefault("five", 5) end, { stop = { timeout = seconds } }):wait())
    end
    assert.equal(-15, sleeper:stop(math.maxinteger))
  end)

  it("is refused where it is too much", function()
    local p = ctx:process(function() return 1 end)
    local result = ctx:process_map(function(x) return x end, { 1 })
    for call, try in pairs {
      ["process:wait"] = function() p:wait(1, 5) end,
      ["process:stop"] = function() p:stop(1, 5) end,
      ["ctx:wait_all"] = function() ctx:wait_all({}, 5) end,
      ["ctx:stop_all"] = function() ctx:stop_all(1, 5) end,
      ["ctx:start_all"] = function() ctx:start_all(5) end,
      ["ctx:process"] = function() ctx:process(print, {}, 5) end,
      ["ctx:process_map"] = function() ctx:process_map(print, { 1 }, {}, 5) end,
      ["ctx:processes"] = function() ctx:processes(5) end,
      ["ctx:close"] = function() ctx:close(5) end,
      ["result:collect"] = function() result:collect(5) end,
      ["server:stop"] = function() ctx.server_process:stop(5) end,
      ["zproc.context"] = function() zproc.context(nil, {}, 5) end,
      ["zproc.process"] = function() zproc.process(print, ctx.server_address, {}, 5) end,
      ["zproc.ping"] = function() zproc.ping(ctx.server_address, {}, 5) end,
      ["zproc.start_server"] = function() zproc.start_server(nil, {}, 5) end,
      ["zproc.state"] = function() zproc.state(ctx.server_address, {}, 5) end,
      ["zproc.sleep"] = function() zproc.sleep(0, 5) end,
      ["zproc.time"] = function() zproc.time(5) end,
      ["zproc.range"] = function() zproc.range(1, 2, 1, 5) end,
    } do
      refuses(call .. ": there is an argument too many, 5", try)
    end
    assert.equal(1, p:wait(nil, nil, nil))
    assert.same({ 1, n = 1 }, result:collect())
  end)

  it("is not given by assignments", function()
    local p = ctx:process(function() return 1 end)
    for name, object in pairs {
      worker_list = ctx, process_list = ctx, server_process = ctx, secret_key = ctx, server_address = ctx, namespace = ctx,
      pid = p, name = p, target = p, exitcode = p, is_alive = p, wait = p,
      server_addresses = ctx.server_process, directory = ctx.server_process,
    } do
      refuses(("'%s' of a "):format(name), function() object[name] = nil end)
      refuses("cannot be assigned to", function() object[name] = 5 end)
    end
    table.insert(ctx.process_list, "mine") -- into a copy
    assert.same({ p }, ctx.process_list)
    p:wait()
  end)
end)

describe("what a target raises", function()
  it("is the cause, whatever it is and wherever it was raised", function()
    quietly(function(path)
      local ctx = zproc.context()
      local io, error, zproc = io, error, zproc
      local function cause(value, opts)
        local p = ctx:process(function(_, raised)
          io.stderr = io.open(path, "a")
          error(raised, 0)
        end, { args = { value }, backend = opts and opts.backend, retry_for = opts and opts.retry_for, retry_delay = 0, max_retries = 1 })
        local err = refuses("exited with code 1", p.wait, p)
        return err.cause, err.tries
      end
      for _, opts in ipairs { {}, { backend = "thread" } } do
        assert.same({ code = 5 }, (cause({ code = 5 }, opts)))
        assert.equal(42, (cause(42, opts)))
        assert.is_false((cause(false, opts)))
        local words = cause("words", opts)
        assert.same({ "RemoteError", "words" }, { words.name, words.message })
        assert.is_nil(words.where)
      end
      assert.same({ { code = 5 }, 2 }, { cause({ code = 5 }, { retry_for = { function() return true end } }) })
      local far = zproc.state(ctx.server_address, { transport = "network" })
      local ok, raised = pcall(zproc.atomic(function() error { code = 6 } end), far)
      assert.same({ false, 6 }, { ok, raised.code })
      local all = ctx:process_map(function(x) error { code = x } end, { 7 }, { on_error = "return" }):collect()
      assert.equal(7, all[1].cause.code)
      assert.is_nil(all[1].where)
      ctx:close()
    end)
  end)
end)
