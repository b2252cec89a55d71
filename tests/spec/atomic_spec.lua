-- zproc.atomic: one indivisible step.
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses = support.refuses
local describe, it, before_each, after_each, assert = describe, it, before_each, after_each, assert
local _ENV <const> = _G -- functions that travel take their environment with them

describe("an atomic function", function()
  local ctx, state

  before_each(function()
    ctx = zproc.context()
    state = ctx.state
  end)
  after_each(function() ctx:close() end)

  --- Run fn once as an atomic function.
  local function atomically(fn, ...)
    return zproc.atomic(fn)(state, ...)
  end

  it("gets the arguments and gives back all results", function()
    state.count = 1
    local results = table.pack(atomically(function(snapshot, step, none, last)
      snapshot.count = snapshot.count + step
      return snapshot.count, none, last, nil
    end, 5, nil, "last"))
    assert.same({ 6, nil, "last", nil, n = 4 }, results)
    assert.equal(6, state.count)
  end)

  it("changes tables at any depth", function()
    state.numbers = { 1, 2, 3 }
    state.deep = { a = { b = { c = {} } } }
    atomically(function(snapshot)
      table.insert(snapshot.numbers, 4)
      snapshot.deep.a.b.c.d = true
      snapshot.fresh = { list = {} }
      snapshot.fresh.list[1] = "added after the assignment"
    end)
    assert.same({ 1, 2, 3, 4 }, state.numbers)
    assert.same({ a = { b = { c = { d = true } } } }, state.deep)
    assert.same({ list = { "added after the assignment" } }, state.fresh)
  end)

  it("gives the same table each time it is read", function()
    state.list = {}
    atomically(function(snapshot) assert(rawequal(snapshot.list, snapshot.list)) end)
  end)

  it("sees its own changes", function()
    state:update { a = 1, b = 2 }
    local seen = atomically(function(snapshot)
      snapshot.a = nil
      snapshot.c = 3
      local keys = {}
      for key, value in pairs(snapshot) do keys[key] = value end
      return { a = snapshot.a == nil, count = #snapshot, keys = keys }
    end)
    assert.same({ a = true, count = 2, keys = { b = 2, c = 3 } }, seen)
  end)

  it("deletes keys, and may set them again", function()
    state:update { a = 1, b = 2, c = 3 }
    atomically(function(snapshot)
      snapshot.a, snapshot.b = nil, nil
      snapshot.b = "back"
    end)
    assert.same({ b = "back", c = 3 }, state:copy())
  end)

  it("may delete while it walks", function()
    for i = 1, 100 do state[i] = i end
    atomically(function(snapshot)
      for key, value in pairs(snapshot) do
        if value % 2 == 0 then snapshot[key] = nil end
      end
    end)
    assert.equal(50, #state)
  end)

  it("changes tables that it meets by walking", function()
    state:update { a = { n = 1 }, b = { n = 2 } }
    atomically(function(snapshot)
      for _, value in pairs(snapshot) do value.n = value.n * 10 end
    end)
    assert.same({ a = { n = 10 }, b = { n = 20 } }, state:copy())
  end)

  it("is one revision, whatever it changes; none if it only reads", function()
    state.list = { 1 }
    local before = state:revision()
    atomically(function(snapshot)
      snapshot.a, snapshot.b = 1, 2
      snapshot.list[2] = 2
    end)
    assert.equal(before + 1, state:revision())
    atomically(function(snapshot) return snapshot.a, snapshot.list end)
    assert.equal(before + 1, state:revision())
  end)

  it("changes nothing if it raises, and passes the error on as it was #local", function()
    state:update { a = 1, list = { 1 } }
    local mine = { code = 5 }
    local ok, err = pcall(atomically, function(snapshot)
      snapshot.a = 2
      snapshot.list[1] = 2
      snapshot.b = 3
      error(mine)
    end)
    assert.is_false(ok)
    assert.is_true(rawequal(err, mine))
    assert.same({ a = 1, list = { 1 } }, state:copy())
    assert.equal(7, atomically(function() return 7 end))
  end)

  it("changes nothing if it writes past its table, and says so", function()
    state.a = 1
    local function refused(words, fn) refuses(words, atomically, fn) end
    refused("the key 'b' past", function(snapshot)
      snapshot.a = 2
      rawset(snapshot, "b", 2)
    end)
    refused("the key '1' past", function(snapshot)
      snapshot.a = 2
      rawset(snapshot, 1, "x")
      table.insert(snapshot, "y")
    end)
    refused("the key 'a' past", function(snapshot)
      for key, value in pairs(snapshot) do rawset(snapshot, key, value) end
      snapshot.a = 2
    end)
    local ok, err = pcall(atomically, function(snapshot)
      snapshot.a = 2
      setmetatable(snapshot, nil).a = 3
    end)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find "protected metatable")
    assert.is_true(state == { a = 1 })
  end)

  it("may use the functions of the table library on its table, and rawset on tables within", function()
    state.row = { 3, 1, 2 }
    atomically(function(snapshot)
      for i = 1, 3 do table.insert(snapshot, i, 10 * i) end
      rawset(snapshot.row, "n", 3)
      table.sort(snapshot.row)
      table.move(snapshot.row, 1, 3, 2, snapshot)
      snapshot.unpacked = { table.unpack(snapshot, 1, 4) }
    end)
    assert.is_true(state == { row = { 1, 2, 3, n = 3 }, [1] = 10, [2] = 1, [3] = 2, [4] = 3, unpacked = { 10, 1, 2, 3 } })
  end)

  it("costs about as much whether it returns or raises: only who asks gets the traceback #local", function()
    local refuse = zproc.atomic(function(snapshot) error { code = snapshot.code } end)
    local function garbage(fn)
      fn()
      collectgarbage "stop"
      local before = collectgarbage "count"
      for _ = 1, 100 do fn() end
      local made = collectgarbage "count" - before
      collectgarbage "restart"
      return made / 100 * 1024
    end
    assert.is_true(garbage(function() pcall(refuse, state) end) < 500)
  end)

  it("changes nothing if a value cannot be sent, and names it", function()
    state.a = 1
    refuses("state.jobs[1].file: cannot send a userdata (FILE*)", atomically, function(snapshot)
      snapshot.a = 2
      snapshot.jobs = { { file = io.stdout } }
    end)
    refuses("state.own: cannot send the snapshot of an atomic function", atomically, function(snapshot) snapshot.own = snapshot end)
    assert.same({ a = 1 }, state:copy())
  end)

  it("changes nothing if its process dies in the middle, and others go on #local", function()
    state.a = 1
    local victim = ctx:process(function(own)
      zproc.atomic(function(snapshot)
        snapshot.a = 2
        os.exit(9)
      end)(own)
    end)
    local ok, err = pcall(victim.wait, victim)
    assert.is_false(ok)
    assert.equal(9, err.exitcode)
    assert.equal(1, state.a)
    atomically(function(snapshot) snapshot.a = snapshot.a + 1 end)
    assert.equal(2, state.a)
  end)

  it("survives the death of its process by SIGKILL while it holds the state #local", function()
    state.a = 1
    local reader_gone = ctx:process(function(own)
      local target = own:fork()
      zproc.atomic(function(snapshot)
        snapshot.a = 2
        os.execute("kill -9 " .. zproc.getpid())
      end)(target)
    end)
    local ok, err = pcall(reader_gone.wait, reader_gone)
    assert.is_false(ok)
    assert.equal(-9, err.exitcode)
    assert.equal(1, atomically(function(snapshot) return snapshot.a end))
  end)

  it("refuses the State itself within, instead of waiting for ever #local", function()
    local other = state:fork { namespace = "other" }
    for name, use in pairs {
      read = function() return state.a end,
      write = function() state.a = 1 end,
      get = function() return state:get "a" end,
      clear = function() state:clear() end,
      length = function() return #state end,
      walk = function() return pairs(state) end,
      nested = function() atomically(function() end) end,
      close = function() state:close() end,
      ["another namespace"] = function() return other.a end,
      ["another namespace, written"] = function() other.a = 1 end,
    } do
      local err = refuses("atomic function", atomically, use)
      assert.is_true(zproc.is_error(err, "UsageError"), name)
    end
    state.a = "usable afterwards"
    assert.equal("usable afterwards", state.a)
  end)

  it("refuses to start a process within #local", function()
    refuses("a process cannot be started within an atomic function", atomically, function()
      ctx:process(function() end)
    end)
  end)

  it("refuses its snapshot after it has returned #local", function()
    local kept
    atomically(function(snapshot) kept = snapshot end)
    refuses("after that function has returned", function() return kept.a end)
    refuses("after that function has returned", function() kept.a = 1 end)
    refuses("after that function has returned", function() return #kept end)
    refuses("after that function has returned", function() return pairs(kept) end)
    atomically(function()
      refuses("after that function has returned", function() return kept.a end)
    end)
  end)

  it("refuses keys that are none at the line that uses them", function()
    refuses("cannot be a key", atomically, function(snapshot) snapshot[{}] = 1 end)
    refuses("too long", atomically, function(snapshot) snapshot[("k"):rep(600)] = 1 end)
  end)

  it("needs a function, and a State to run on", function()
    refuses("zproc.atomic takes a function, not a number", zproc.atomic, 5)
    refuses("is called with a State as its first argument", zproc.atomic(function() end), {})
    refuses("is called with a State as its first argument", zproc.atomic(function() end))
  end)

  it("cannot be left by yielding #local", function()
    local co = coroutine.wrap(function() atomically(function() coroutine.yield() end) end)
    local ok, err = pcall(co)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find("yield", 1, true))
    state.a = 1
    assert.equal(1, state.a)
  end)

  --- Run fn with a limit that it exceeds; nothing has changed, and who comes next has the lock.
  local function is_ended(fn, ...)
    state.a = 1
    local before = state:revision()
    local ok, err = pcall(zproc.atomic(fn, { limit = 0.05 }), state, ...)
    assert.is_false(ok)
    assert.is_true(zproc.is_error(err, "RemoteError"), tostring(err))
    assert.equal("the atomic function was stopped, since it took more than 0.05 seconds; nothing has changed", err.message)
    assert.equal(before, state:revision())
    assert.equal(2, atomically(function(snapshot) return snapshot.a + 1 end))
  end

  it("is ended when it takes longer than its limit, whatever it does about that", function()
    is_ended(function(snapshot)
      snapshot.a = 2
      while true do end
    end)
    is_ended(function(snapshot)
      snapshot.a = 2
      while true do pcall(function() while true do end end) end
    end)
    is_ended(function(snapshot)
      snapshot.a = 2
      while true do xpcall(function() while true do end end, function(raised) return raised end) end
    end)
    is_ended(function(snapshot)
      local guard <close> = setmetatable({}, { __close = function() while true do end end })
      snapshot.a = 2
      while true do pcall(error, {}) end
    end)
    is_ended(function(snapshot) -- in a loop that is C code, and in a metamethod
      local mirror = setmetatable({}, { __index = function(_, n) return pcall(function() while n do end end) end })
      snapshot.a = 2
      while true do
        table.sort({ 1, 2, 3 }, function() return mirror[1] end)
        ("x"):rep(100):gsub(".", function() return mirror[1] end)
      end
    end)
    is_ended(function(snapshot, wait)
      snapshot.a = 2
      while true do pcall(wait, 60) end
    end, zproc.sleep)
  end)

  it("is ended in its coroutines, too", function()
    is_ended(function(snapshot)
      local idle = coroutine.create(function() while true do coroutine.yield() end end)
      coroutine.resume(idle)
      snapshot.a = 2
      while true do
        coroutine.resume(coroutine.create(function() while true do end end))
        pcall(coroutine.wrap(function() while true do coroutine.resume(idle) end end))
      end
    end)
    is_ended(function(snapshot)
      local endless = coroutine.create(function()
        coroutine.yield()
        while true do pcall(function() while true do end end) end
      end)
      coroutine.resume(endless)
      snapshot.a = 2
      while true do coroutine.resume(endless) end
    end)
  end)

  it("is ended though it takes hooks away", function()
    is_ended(function(snapshot)
      snapshot.a = 2
      while true do pcall(function() while true do debug.sethook() end end) end
    end)
    is_ended(function(snapshot)
      snapshot.a = 2
      debug.sethook(function() end, "", 1)
      while true do pcall(function() while true do end end) end
    end)
    debug.sethook()
  end)

  it("is ended when the C function returns that has taken too long", function()
    is_ended(function(snapshot)
      snapshot.a = 2;
      ("a"):rep(1000):find ".-.-b"
    end)
  end)

  it("leaves nothing behind of its limit", function()
    local step = zproc.atomic(function(snapshot, n)
      snapshot.a = (snapshot.a or 0) + n
      return snapshot.a, nil, "third"
    end, { limit = 0.2 })
    assert.same({ 1, nil, "third", n = 3 }, table.pack(step(state, 1)))
    assert.equal("mine", select(2, pcall(zproc.atomic(function() error("mine", 0) end, { limit = 0.2 }), state)))
    local begun = os.clock()
    while os.clock() - begun < 0.4 do end -- on its own it may take as long as it likes
    assert.equal(3, atomically(function(snapshot)
      local from = os.clock()
      while os.clock() - from < 0.4 do end
      return snapshot.a + 2
    end))
    assert.equal(2, (step(state, 1)))
    assert.equal(3, (zproc.atomic(function(snapshot) return snapshot.a + 1 end, { limit = math.huge })(state)))
  end)

  it("does not count as its time that it waits for others", function()
    state.a = 1
    local holder = ctx:process(function(own)
      zproc.atomic(function(snapshot)
        snapshot.a = 2
        local from = os.time()
        while os.time() - from < 2 do end
      end)(own)
    end)
    local step = zproc.atomic(function(snapshot) snapshot.a = snapshot.a + 1 end, { limit = 0.9 })
    while holder.is_alive do step(state) end
    holder:wait()
    assert.is_true(state.a >= 2)
  end)

  it("has a limit within another one's #local", function()
    local other <close> = zproc.context()
    local inner = zproc.atomic(function(snapshot, seconds)
      snapshot.a = 2
      local from = os.clock()
      while os.clock() - from < seconds do end
    end, { limit = 0.05 })
    local function outer(limit, seconds)
      return pcall(zproc.atomic(function(snapshot)
        snapshot.a = "outer"
        snapshot.inner = pcall(inner, other.state, seconds)
        local from = os.clock()
        while os.clock() - from < seconds do end
      end, { limit = limit }), ctx.state)
    end
    assert.is_true((outer(30, 0.2)))
    assert.same({ a = "outer", inner = false }, ctx.state:copy())
    ctx.state:clear()
    local ok, err = outer(0.02, 30)
    assert.is_false(ok)
    assert.is_truthy(err.message:find("it took more than 0.02 seconds", 1, true))
    assert.same({}, ctx.state:copy())
    assert.same({}, other.state:copy())
  end)

  it("takes as its limit seconds, more than 0", function()
    for _, wrong in ipairs { 0, -1, 0 / 0, "1", true, {} } do
      refuses("zproc.atomic: option 'limit' must be a number of seconds, more than 0, not", zproc.atomic, print, { limit = wrong })
    end
    refuses("unknown option 'limits' (did you mean 'limit'?)", zproc.atomic, print, { limits = 1 })
  end)

  it("works on functions in the state, whose upvalues it may change", function()
    local count = 0
    state.counter = function()
      count = count + 1
      return count
    end
    assert.equal(1, atomically(function(snapshot) return snapshot.counter() end))
    assert.equal(2, atomically(function(snapshot) return snapshot.counter() end))
    assert.equal(0, count)
  end)

  it("loses no update among several processes", function()
    state.count = 0
    local increment = zproc.atomic(function(snapshot) snapshot.count = snapshot.count + 1 end)
    ctx:process_factory(function(own)
      for _ = 1, 2000 do increment(own) end
    end, { count = 4 })
    ctx:wait_all()
    assert.equal(8000, state.count)
  end)

  it("keeps an invariant over several keys visible to readers at every instant", function()
    state:set { a = 500, b = 500 }
    local transfer = zproc.atomic(function(snapshot, amount)
      snapshot.a = snapshot.a - amount
      snapshot.b = snapshot.b + amount
    end)
    ctx:process_factory(function(own)
      for i = 1, 1000 do transfer(own, i % 7 - 3) end
    end, { count = 2 })
    local reader = ctx:process(function(own)
      for _ = 1, 1000 do
        local copy = own:copy()
        if copy.a + copy.b ~= 1000 then error(("torn: %d + %d"):format(copy.a, copy.b)) end
      end
      return "consistent"
    end)
    ctx:wait_all()
    assert.equal("consistent", reader:wait())
  end)
end)
