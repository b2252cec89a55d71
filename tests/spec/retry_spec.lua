-- Retry: processes that try again.
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses, kill = support.refuses, support.kill

local Refused = zproc.error_class "ConnectionError"

describe("a process with retry", function()
  local ctx, state, log

  before_each(function()
    ctx = zproc.context()
    state = ctx.state
    state.tries = 0
    log = os.tmpname()
  end)
  after_each(function()
    ctx:close()
    os.remove(log)
  end)

  --- What the processes wrote to stderr.
  local function report()
    local file <close> = assert(io.open(log))
    return file:read "a"
  end

  local count = zproc.atomic(function(snapshot)
    snapshot.tries = snapshot.tries + 1
    return snapshot.tries
  end)

  --- A target that counts its tries, and calls fn(try, ...) with its arguments.
  local function counting(fn)
    return function(own, ...)
      io.stderr = assert(io.open(log, "a"))
      io.stderr:setvbuf "no"
      return fn(count(own), ...)
    end
  end

  local function failing_until(last, err)
    return counting(function(try)
      if try < last then error(err) end
      return "at last", try
    end)
  end

  it("tries again after an error of a class, and returns what the last try returned", function()
    local p = ctx:process(failing_until(3, Refused "no"), { retry_for = { Refused }, retry_delay = 0 })
    assert.same({ "at last", 3 }, { p:wait(support.GENEROUS) })
    assert.equal(0, p.exitcode)
  end)

  it("tries again after an error of a name", function()
    local p = ctx:process(failing_until(2, Refused "no"), { retry_for = { "ConnectionError" }, retry_delay = 0 })
    assert.equal("at last", p:wait(support.GENEROUS))
  end)

  it("tries again after any error", function()
    local p = ctx:process(failing_until(2, "just words"), { retry_for = { zproc.AnyError }, retry_delay = 0 })
    assert.equal("at last", p:wait(support.GENEROUS))
    p = ctx:process(failing_until(2, { code = 5 }), { retry_for = { zproc.AnyError }, retry_delay = 0 })
    assert.equal("at last", p:wait(support.GENEROUS))
  end)

  it("tries again when a function says so, which sees what was raised", function()
    local function is_five(err) return err.code == 5 end
    local p = ctx:process(failing_until(2, { code = 5 }), { retry_for = { is_five }, retry_delay = 0 })
    assert.equal("at last", p:wait(support.GENEROUS))
    state.tries = 0
    p = ctx:process(failing_until(2, { code = 6 }), { retry_for = { is_five }, retry_delay = 0 })
    refuses("exited with code 1", p.wait, p, support.GENEROUS)
    assert.equal(1, state.tries)
  end)

  it("whose function of retry_for fails itself says so, and gives up", function()
    local p = ctx:process(failing_until(2, "words"), { retry_for = { function() error "oops" end }, retry_delay = 0 })
    refuses("words", p.wait, p, support.GENEROUS)
    assert.is_truthy(report():find "a function of retry_for failed itself: .*oops")
  end)

  it("does not try again after what is not in the list", function()
    local p = ctx:process(failing_until(3, "other"), { retry_for = { Refused }, retry_delay = 0 })
    refuses("other", p.wait, p, support.GENEROUS)
    assert.equal(1, state.tries)
    state.tries = 0
    p = ctx:process(failing_until(3, "other"), { retry_for = {} })
    refuses("other", p.wait, p, support.GENEROUS)
    assert.equal(1, state.tries)
  end)

  it("gives up after max_retries, with the last error", function()
    local p = ctx:process(counting(function(try) error(Refused("try " .. try)) end),
      { retry_for = { Refused }, retry_delay = 0, max_retries = 2 })
    local err = refuses("try 3", p.wait, p, support.GENEROUS)
    assert.equal(3, state.tries)
    assert.equal("ConnectionError", err.cause.name)
    assert.equal(3, err.cause.tries)
    assert.is_truthy(tostring(err):find("after 3 tries", 1, true))
    assert.is_truthy(err.traceback:find "retry_spec.lua")
  end)

  it("does not retry with max_retries = 0", function()
    local p = ctx:process(failing_until(3, "words"), { retry_for = { zproc.AnyError }, max_retries = 0 })
    refuses("words", p.wait, p, support.GENEROUS)
    assert.equal(1, state.tries)
  end)

  it("reports each failure so that a person can use it", function()
    local p = ctx:process(failing_until(3, Refused "no answer"),
      { name = "fetcher", retry_for = { Refused }, retry_delay = 0, max_retries = 4 })
    p:wait(support.GENEROUS)
    local text = report()
    assert.is_truthy(text:find(("process fetcher (pid %d) failed, try 1 of 5: "):format(p.pid), 1, true), text)
    assert.is_truthy(text:find("ConnectionError: no answer", 1, true), text)
    assert.is_truthy(text:find "stack traceback:.*retry_spec.lua:%d+", text)
    assert.is_truthy(text:find "next try in 0 s, at %d%d:%d%d:%d%d", text)
    assert.is_truthy(text:find("try 2 of 5", 1, true), text)
  end)

  it("uses retry_args and retry_kwargs for all further tries", function()
    local p = ctx:process(counting(function(try, a, kwargs)
      if try < 3 then error "again" end
      return a, kwargs.k
    end), {
      args = { "first" }, kwargs = { k = 1 }, retry_args = { "then" }, retry_kwargs = { k = 2 },
      retry_for = { zproc.AnyError }, retry_delay = 0,
    })
    assert.same({ "then", 2 }, { p:wait(support.GENEROUS) })
    state.tries = 0
    p = ctx:process(counting(function(try, a, kwargs)
      if try < 2 then error "again" end
      return a, kwargs.k
    end), { args = { "first" }, kwargs = { k = 1 }, retry_for = { zproc.AnyError }, retry_delay = 0 })
    assert.same({ "first", 1 }, { p:wait(support.GENEROUS) })
  end)

  it("waits retry_delay between tries", function()
    local before = zproc.time()
    local p = ctx:process(failing_until(3, "words"), { retry_for = { zproc.AnyError }, retry_delay = 0.05 })
    p:wait(support.GENEROUS)
    assert.is_true(zproc.time() - before >= 0.1)
  end)

  it("tries again after a signal, and dies of it in the end", function()
    local p = ctx:process(function(own)
      io.stderr = assert(io.open(log, "a"))
      count(own)
      zproc.sleep(1000)
    end, { retry_for = { zproc.signal.SIGUSR1, "SIGUSR2" }, retry_delay = 0, max_retries = 2 })
    for try = 1, 3 do
      state:get_when_equal("tries", try)
      kill(p.pid, try == 2 and "USR2" or "USR1")
    end
    refuses("killed by signal 10", p.wait, p, support.GENEROUS)
    assert.equal(-10, p.exitcode)
    assert.is_truthy(report():find("got SIGUSR1 at try 3 of 3", 1, true), report())
  end)

  it("that retries for SIGTERM can be stopped by its parent, running or asleep before a retry", function()
    for _, delay in ipairs { 0, 1000 } do
      state.tries = 0
      local p = ctx:process(function(own)
        io.stderr = assert(io.open(log, "a"))
        count(own)
        zproc.sleep(1000)
      end, { retry_for = { zproc.signal.SIGTERM, zproc.AnyError }, retry_delay = delay })
      state:get_when_equal("tries", 1)
      kill(p.pid, "TERM")
      if delay == 0 then state:get_when_equal("tries", 2) end
      assert.equal(-15, p:stop())
    end
  end)

  it("does not retry after zproc.exit and os.exit", function()
    local p = ctx:process(counting(function() zproc.exit(3) end), { retry_for = { zproc.AnyError }, retry_delay = 0 })
    refuses("exited with code 3", p.wait, p, support.GENEROUS)
    p = ctx:process(counting(function() os.exit(4) end), { retry_for = { zproc.AnyError }, retry_delay = 0 })
    refuses("exited with code 4", p.wait, p, support.GENEROUS)
    assert.equal(2, state.tries)
  end)

  it("starts each try with a Context of its own, and what the last one started has ended", function()
    local p = ctx:process(function(own)
      io.stderr = assert(io.open(log, "a"))
      local try = count(own.state)
      own:process(function(child_state)
        child_state:update { ["child" .. try] = zproc.getpid() }
        zproc.sleep(1000)
      end)
      own.state:get_when_available("child" .. try)
      if try == 1 then error "again" end
      return support.is_running(own.state.child1), support.is_running(own.state.child2)
    end, { pass_context = true, retry_for = { zproc.AnyError }, retry_delay = 0 })
    assert.same({ false, true }, { p:wait(support.GENEROUS) })
  end)

  it("refuses what makes no sense", function()
    local function start(opts) return function() ctx:process(print, opts) end end
    refuses("there is no signal SIGFOO", start { retry_for = { "SIGFOO" } })
    refuses("there is no error class \"Nonsense\"", start { retry_for = { "Nonsense" } })
    refuses("it has 5", start { retry_for = { 5 } })
    refuses("SIGKILL cannot be caught", start { retry_for = { zproc.signal.SIGKILL } })
    refuses("put error class AnyError in braces", start { retry_for = zproc.AnyError })
    refuses("put SIGTERM in braces", start { retry_for = zproc.signal.SIGTERM })
    refuses("option 'retry_for' must be a list", start { retry_for = "ConnectionError" })
    refuses("option 'retry_delay' must be a number of seconds, 0 or more, not -1", start { retry_delay = -1 })
    refuses("option 'retry_delay'", start { retry_delay = 0 / 0 })
    refuses("option 'max_retries'", start { max_retries = -1 })
    refuses("option 'max_retries'", start { max_retries = 1.5 })
    refuses("option 'retry_args' must be a list", start { retry_args = 1 })
    refuses("option 'retry_kwargs' must be a table", start { retry_kwargs = 1 })
    assert.equal(0, #ctx.process_list)
  end)

  it("takes its options from the Context as well", function()
    local own <close> = zproc.context { process = { retry_for = { Refused }, retry_delay = 0 } }
    own.state.tries = 0
    local p = own:process(failing_until(3, Refused "no"))
    assert.equal("at last", p:wait(support.GENEROUS))
  end)
end)
