-- State: every dict method, operator and metamethod of the API.
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses = support.refuses

describe("State", function()
  local ctx, state

  before_each(function()
    ctx = zproc.context()
    state = ctx.state
  end)
  after_each(function() ctx:close() end)

  describe("reading and writing", function()
    it("gives back what was assigned, under keys of every type", function()
      local values = { text = "some text", [1] = "one", [-3] = "minus three", [1.5] = "float", [true] = "yes", [false] = "no",
        [""] = "empty", ["a\0b"] = "zero byte", [math.maxinteger] = "max", [math.mininteger] = "min", [math.huge] = "inf" }
      for key, value in pairs(values) do state[key] = value end
      for key, value in pairs(values) do assert.equal(value, state[key]) end
    end)

    it("may be written to by finalisers, which run while a value is on its way", function()
      local runs = 0
      local function leave_garbage()
        setmetatable({}, { __gc = function()
          runs = runs + 1
          state.runs = runs
          state:update { a = -1, half = runs }
          leave_garbage()
        end })
      end
      leave_garbage()
      local mode = collectgarbage "generational" -- often
      for i = 1, 3000 do
        local value = { function() return i end, setmetatable({ i }, { __index = {} }), ("x"):rep(i % 300) }
        state.value = value
        assert.equal(i, state.value[1]())
        state:update { b = value, c = i }
        assert.equal(i, state.c)
      end
      collectgarbage(mode)
      assert.is_true(runs > 20)
      leave_garbage = function() end
      collectgarbage() -- and none of them writes to the state of another test
    end)

    it("takes a float with an integral value for the integer", function()
      state[1.0] = "one"
      assert.equal("one", state[1])
      assert.same({ 1 }, state:keys())
      assert.equal("integer", math.type(state:keys()[1]))
    end)

    it("keeps the kinds of number apart in values", function()
      state.integer, state.float = 3, 3.0
      assert.equal("integer", math.type(state.integer))
      assert.equal("float", math.type(state.float))
    end)

    it("reads an absent key as nil", function()
      assert.is_nil(state.nothing)
      assert.is_nil(state[42])
    end)

    it("deletes a key that is assigned nil", function()
      state.apples = 5
      state.apples = nil
      assert.is_nil(state.apples)
      assert.is_false(state:contains "apples")
      assert.equal(0, #state)
    end)

    it("hands out copies: changing them changes nothing", function()
      state.list = { 1, 2, 3 }
      table.insert(state.list, 4)
      state.list[1] = "changed"
      assert.same({ 1, 2, 3 }, state.list)
    end)

    it("keeps null, which is present but none", function()
      state.gone = zproc.null
      assert.equal(zproc.null, state.gone)
      assert.is_true(state:contains "gone")
    end)

    it("keeps false apart from absent", function()
      state.flag = false
      assert.is_false(state.flag)
      assert.is_false(state:get("flag", true))
      assert.equal(1, #state)
    end)

    it("keeps large values whole", function()
      local text = ("0123456789abcdef"):rep(1 << 16)
      state.text = text
      assert.is_true(state.text == text)
    end)
  end)

  describe("methods", function()
    it("get gives the value or the default", function()
      state.apples = 5
      assert.equal(5, state:get "apples")
      assert.equal(5, state:get("apples", 9))
      assert.equal(9, state:get("pears", 9))
      assert.is_nil(state:get "pears")
    end)

    it("set replaces the whole state", function()
      state:update { a = 1, b = 2 }
      state:set { b = 3, c = 4 }
      assert.same({ b = 3, c = 4 }, state:copy())
      state:set {}
      assert.equal(0, #state)
    end)

    it("update sets the keys it is given and leaves the others", function()
      state:update { a = 1, b = 2 }
      state:update { b = 3 }
      assert.same({ a = 1, b = 3 }, state:copy())
    end)

    it("update and set take another State for its content", function()
      local other = state:fork { namespace = "other" }
      other:update { x = 1 }
      state.y = 2
      state:update(other)
      assert.same({ x = 1, y = 2 }, state:copy())
      state:set(other)
      assert.same({ x = 1 }, state:copy())
    end)

    it("setdefault keeps what is there and gives back what is there now", function()
      assert.equal(10, state:setdefault("apples", 10))
      assert.equal(10, state:setdefault("apples", 20))
      assert.equal(10, state.apples)
    end)

    it("setdefault keeps false", function()
      state.flag = false
      assert.is_false(state:setdefault("flag", true))
    end)

    it("pop removes and returns, or gives the default", function()
      state.apples = { 1, 2 }
      assert.same({ 1, 2 }, state:pop "apples")
      assert.is_nil(state.apples)
      assert.equal("none", state:pop("apples", "none"))
      assert.is_nil(state:pop "apples")
    end)

    it("pop and popitem give each value to one of those that take it out, tables as well", function()
      local N <const> = 60
      for i = 1, N do state[i] = i % 2 == 0 and i or { i } end
      local function take_out(own, first)
        local sum = 0
        while first do
          local value = own:pop(first)
          sum = sum + (type(value) == "table" and value[1] or value or 0)
          first = first < N and first + 1 or nil
        end
        while true do
          local key, value = own:popitem()
          if key == nil then return sum end
          sum = sum + (type(value) == "table" and value[1] or value)
        end
      end
      local processes, sum = {}, 0
      for i = 1, 4 do processes[i] = ctx:process(take_out, { args = { i % 2 == 0 and 1 or nil, n = 1 } }) end
      for i = 1, 4 do sum = sum + processes[i]:wait() end
      assert.equal(N * (N + 1) // 2, sum)
      assert.equal(0, #state)
    end)

    it("popitem removes the last pair in key order until nothing is left", function()
      state:update { b = 2, a = 1, [7] = "seven" }
      assert.same({ "b", 2 }, { state:popitem() })
      assert.same({ "a", 1 }, { state:popitem() })
      assert.same({ 7, "seven" }, { state:popitem() })
      assert.equal(0, select("#", state:popitem()))
    end)

    it("clear empties the namespace", function()
      for i = 1, 1000 do state[i] = i end
      state:clear()
      assert.equal(0, #state)
      assert.same({}, state:copy())
    end)

    it("keys, values and items are lists in key order: booleans, numbers, strings", function()
      state:update { b = 2, a = 1, [10] = "ten", [2] = "two", [2.5] = "between", [true] = "yes", [false] = "no" }
      assert.same({ false, true, 2, 2.5, 10, "a", "b" }, state:keys())
      assert.same({ "no", "yes", "two", "between", "ten", 1, 2 }, state:values())
      assert.same({ { false, "no" }, { true, "yes" }, { 2, "two" } }, { table.unpack(state:items(), 1, 3) })
    end)

    it("contains tells whether the key is there", function()
      state.a = zproc.null
      assert.is_true(state:contains "a")
      assert.is_false(state:contains "b")
    end)

    it("copy is a plain table of its own", function()
      state:update { a = 1, list = { 1 } }
      local copy = state:copy()
      assert.is_nil(getmetatable(copy))
      copy.a = 2
      copy.list[1] = 2
      assert.same({ a = 1, list = { 1 } }, state:copy())
    end)

    it("fork is another State on the same namespace, or on another", function()
      local twin, other = state:fork(), state:fork { namespace = "other" }
      state.a = 1
      assert.equal(1, twin.a)
      assert.is_nil(other.a)
      other.a = 2
      assert.equal(1, state.a)
      assert.equal("other", other.namespace)
      assert.equal(state.server_address, twin.server_address)
    end)

    it("close ends it; what others hold goes on", function()
      local twin = state:fork()
      twin:close()
      twin:close()
      refuses("this State is closed", function() return twin.a end)
      refuses("this State is closed", function() twin.a = 1 end)
      refuses("this State is closed", function() return #twin end)
      refuses("this State is closed", twin.get, twin, "a")
      refuses("this State is closed", function() return twin.namespace end)
      refuses("this State is closed", twin.fork, twin)
      refuses("this State is closed", twin.fork, twin, { namespace = "other" })
      refuses("this State is closed", twin.ping, twin)
      state.a = 1
      assert.equal(1, state.a)
    end)

    it("closes at the end of its block if it was declared so", function()
      local kept
      do
        local scoped <close> = state:fork()
        scoped.a = 1
        kept = scoped
      end
      refuses("closed", function() return kept.a end)
    end)
  end)

  describe("operators", function()
    it("# counts the keys", function()
      assert.equal(0, #state)
      state:update { a = 1, b = 2, [3] = 3 }
      assert.equal(3, #state)
      state.a = nil
      assert.equal(2, #state)
    end)

    it("pairs walks a consistent snapshot in key order", function()
      state:update { c = 3, a = 1, b = 2 }
      local seen = {}
      for key, value in pairs(state) do
        seen[#seen + 1] = key .. value
        state:clear() -- what is walked is the state as it was
      end
      assert.same({ "a1", "b2", "c3" }, seen)
    end)

    it("== compares by content", function()
      state:update { a = 1, list = { 1, { 2 } } }
      assert.is_true(state == { a = 1, list = { 1, { 2 } } })
      assert.is_true({ a = 1, list = { 1, { 2 } } } == state)
      assert.is_true(state == state:fork())
      assert.is_false(state == { a = 1 })
      assert.is_false(state == { a = 1, list = { 1, { 3 } } })
      assert.is_false(state == { a = 1, list = { 1, { 2 } }, more = 1 })
      assert.is_true(state ~= {})
    end)

    it("tostring shows the content", function()
      state:update { apples = 5, list = { 1, "two" }, ["a b"] = true, [3] = zproc.null, ["end"] = 1 }
      assert.equal('{[3] = null, ["a b"] = true, apples = 5, ["end"] = 1, list = {1, "two"}}', tostring(state))
    end)
  end)

  describe("names of methods as keys", function()
    it("refuses to assign to them, and says what to do", function()
      refuses("'get' is a method or field of State: to set a key of that name, use state:update({get = ...})",
        function() state.get = 1 end)
      refuses("'namespace' is a method", function() state.namespace = "x" end)
      assert.equal(0, #state)
    end)

    it("stores them by update and reads them by get", function()
      state:update { get = 1, namespace = 2 }
      assert.equal(1, state:get "get")
      assert.equal(2, state:get "namespace")
      assert.equal("default", state.namespace)
      assert.equal("function", type(state.get))
    end)
  end)

  describe("the past", function()
    it("counts every change", function()
      local before = state:revision()
      state.a = 1
      state:update { b = 2, c = 3 }
      assert.equal(before + 2, state:revision())
    end)

    it("can be read at every revision", function()
      local revisions = {}
      for i = 1, 100 do
        state:update { n = i, list = { i }, ["k" .. i % 7] = i % 3 ~= 0 and i or nil }
        if i % 5 == 0 then state["k" .. i % 7] = nil end
        revisions[state:revision()] = state:copy()
      end
      for revision, expected in pairs(revisions) do assert.same(expected, state:at(revision)) end
      assert.same({}, state:at(0))
    end)

    it("refuses revisions that are yet to come, and what is none", function()
      assert.equal("HistoryLost", refuses("revision", state.at, state, state:revision() + 1).name)
      refuses("state:at(revision) takes a revision number", state.at, state, -1)
      refuses("state:at(revision) takes a revision number", state.at, state, "1")
      refuses("state:at(revision) takes a revision number", state.at, state)
    end)
  end)

  describe("bad input", function()
    it("names the key of a value that cannot be sent, and what it is", function()
      local err = refuses("state.jobs[3].file: cannot send a userdata (FILE*)", function()
        state.jobs = { 1, 2, { file = io.stdout } }
      end)
      assert.equal("EncodeError", err.name)
      refuses("state.co: cannot send a coroutine", function() state.co = coroutine.create(print) end)
      refuses('state["a b"]', function() state["a b"] = io.stdout end)
      refuses("state[7].x", state.update, state, { [7] = { x = io.stdout } })
      refuses("state.x", state.set, state, { x = io.stdout })
      refuses("state.x", state.setdefault, state, "x", io.stdout)
      assert.equal(0, #state)
    end)

    it("leaves the state as it was when one of many values cannot be sent", function()
      state:update { a = 1, b = 2 }
      refuses("cannot send", state.update, state, { a = 10, c = io.stdout })
      refuses("cannot send", state.set, state, { a = 10, c = io.stdout })
      assert.same({ a = 1, b = 2 }, state:copy())
    end)

    it("refuses keys that are none", function()
      for _, key in ipairs { {}, print, io.stdout } do
        refuses("cannot be a key", function() state[key] = 1 end)
        refuses("cannot be a key", function() return state[key] end)
        refuses("cannot be a key", state.get, state, key)
        refuses("cannot be a key", state.update, state, { [key] = 1 })
      end
      refuses("NaN", function() state[0 / 0] = 1 end)
      refuses("nil", function() return state[nil] end)
      assert.equal(0, #state)
    end)

    it("refuses keys that are too long, and takes the longest", function()
      local longest = ("k"):rep(490)
      state[longest] = 1
      assert.equal(1, state[longest])
      local err = refuses("too long", function() state[("k"):rep(600)] = 1 end)
      assert.is_truthy(err.message:find "600")
      refuses("too long", function() return state[("k"):rep(600)] end)
    end)

    it("refuses wrong arguments of methods, and says which method", function()
      refuses("state:update takes a table", state.update, state, 5)
      refuses("state:set takes a table", state.set, state)
      refuses("state:setdefault(key, value) needs a value", state.setdefault, state, "a")
      refuses("with a colon", state.get, "apples")
      refuses("with a colon", state.keys)
      refuses("unknown option 'namspace' (did you mean 'namespace'?)", state.fork, state, { namspace = "x" })
      refuses("'namespace' must be a string, not 5", state.fork, state, { namespace = 5 })
      refuses("1 to 255 bytes", state.fork, state, { namespace = "" })
      refuses("1 to 255 bytes", state.fork, state, { namespace = ("x"):rep(256) })
    end)

    it("refuses addresses that are none, or that lead nowhere", function()
      refuses("is no server address: expected ipc://<path> or tcp://<host>:<port>", zproc.state, "nonsense")
      refuses("a server address is a string", zproc.state, 5)
      refuses("absolute", zproc.state, "ipc://relative")
      local err = refuses("/nowhere", zproc.state, "ipc:///nowhere/at/all")
      assert.equal("ServerLost", err.name)
      refuses("unknown option", zproc.state, ctx.server_address, { nonsense = true })
    end)

    it("points at the line of the script", function()
      local line = debug.getinfo(1, "l").currentline + 1
      local _, err = pcall(function() state.x = io.stdout end)
      assert.is_truthy(err.where:find("state_spec.lua:" .. line, 1, true), err.where)
    end)
  end)

  it("is the same state through a second handle by address", function()
    local second <close> = zproc.state(ctx.server_address)
    state.a = { 1, 2 }
    assert.same({ 1, 2 }, second.a)
    second.a = nil
    assert.is_nil(state.a)
  end)

  it("keeps namespaces apart", function()
    local a = zproc.state(ctx.server_address, { namespace = "a" })
    local b = zproc.state(ctx.server_address, { namespace = "b" })
    a.x, b.x = 1, 2
    assert.equal(1, a.x)
    assert.equal(2, b.x)
    a:clear()
    assert.equal(0, #a)
    assert.equal(1, #b)
  end)
end)
