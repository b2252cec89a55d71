-- Watching: the model of API.md, rule by rule. Other processes and other handles make the changes; a second State of this
-- process is another author as well.
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses = support.refuses

-- What travels takes its globals along; those of a script, not the environment that specs run in.
local describe, it, before_each, after_each, assert = describe, it, before_each, after_each, assert
local _ENV <const> = _G

local GENEROUS <const> = 60 -- seconds; a limit, not an expectation

describe("a watcher", function()
  local ctx, state, other

  before_each(function()
    ctx = zproc.context()
    state = ctx.state
    other = state:fork()
  end)
  after_each(function() ctx:close() end)

  --- The watcher's result must be a timeout.
  local function nothing_comes(method, ...)
    local arguments = table.pack(...)
    arguments[arguments.n + 1] = { timeout = 0 }
    local result, err = state[method](state, table.unpack(arguments, 1, arguments.n + 1))
    assert.is_nil(result)
    assert.is_true(zproc.is_error(err, "TimeoutError"))
  end

  --- Make more changes, of the key "big", than are kept.
  local function lose_history()
    for i = 1, 20 do other.big = ("x"):rep(4000000) .. i end
    other.big = nil
  end

  describe("for changes", function()
    it("gives a snapshot of exactly the revision that matched, one after the other, missing none", function()
      for i = 1, 100 do other.n = i end
      for i = 1, 100 do assert.same({ n = i }, state:get_when_change()) end
      nothing_comes "get_when_change"
    end)

    it("looks only at the keys that it is given", function()
      other.a = 1
      other.b = 2
      other.c = 3
      assert.same({ a = 1, b = 2 }, state:get_when_change "b")
      nothing_comes("get_when_change", "a", "b")
      other.b = 4
      assert.equal(4, state:get_when_change("a", "b").b)
    end)

    it("looks at all keys but those that it is given, with exclude", function()
      other.a = 1
      other.b = 2
      assert.same({ a = 1, b = 2 }, state:get_when_change("a", { exclude = true }))
      other.a = 3
      assert.is_nil((state:get_when_change("a", { exclude = true, timeout = 0 })))
      other:update { a = 4, b = 5 }
      assert.equal(5, state:get_when_change("a", { exclude = true }).b)
    end)

    it("sees deletions, and changes of several keys as one", function()
      other:update { a = 1, b = 2 }
      assert.same({ a = 1, b = 2 }, state:get_when_change("a", "b"))
      other:clear()
      assert.same({}, state:get_when_change "b")
      nothing_comes "get_when_change"
    end)

    it("is not woken by the changes of its own handle", function()
      state.a = 1
      nothing_comes "get_when_change"
      other.b = 2
      state.c = 3
      assert.same({ a = 1, b = 2 }, state:get_when_change())
      nothing_comes "get_when_change"
    end)

    it("is not woken by an update that leaves all as it was, unless that is wanted", function()
      other.a = 1
      state:get_when_change()
      other.a = 1
      nothing_comes "get_when_change"
      other.a = 1
      assert.same({ a = 1 }, state:get_when_change { duplicate_okay = true, timeout = GENEROUS })
    end)

    it("does not see other namespaces", function()
      state:fork({ namespace = "other" }).a = 1
      nothing_comes "get_when_change"
    end)

    it("starts at the time when its handle was made", function()
      other.a = 1
      local late = state:fork()
      assert.is_nil((late:get_when_change { timeout = 0 }))
      assert.same({ a = 1 }, state:get_when_change())
    end)

    it("misses nothing that happened between the start of its process and its first wait", function()
      local p = ctx:process(function(own)
        local seen = {}
        for i = 1, 3 do seen[i] = own:get_when_change("n", { timeout = GENEROUS }).n end
        return seen
      end)
      for i = 1, 3 do state.n = i end
      assert.same({ 1, 2, 3 }, p:wait())
    end)
  end)

  describe("in live mode", function()
    it("counts only what happens from the call on", function()
      other.a = 1
      assert.is_nil((state:get_when_change { live = true, timeout = 0 }))
      local p = ctx:process(function(own)
        own.waiting = true
        return own:get_when_change("a", { live = true, timeout = GENEROUS }).a
      end)
      -- It may not wait yet when this sees `waiting`; so change until it has ended.
      state:get_when_available("waiting", { timeout = GENEROUS })
      local n = 1
      while p.is_alive do
        n = n + 1
        other.a = n
      end
      assert.is_true(p:wait() > 1)
    end)

    it("forgets nothing of what was before if it raises", function()
      other.a = 1
      refuses("boom", state.get_when, state, function() error "boom" end, { live = true })
      assert.same({ a = 1 }, state:get_when_change { timeout = 0 })
    end)

    it("after go_live, buffered watchers start anew", function()
      other.a = 1
      state:go_live()
      nothing_comes "get_when_change"
      other.a = 2
      assert.same({ a = 2 }, state:get_when_change())
    end)
  end)

  describe("for a condition", function()
    it("returns at once if it holds already", function()
      state.x = 5
      assert.same({ x = 5 }, state:get_when_equal("x", 5))
    end)

    it("does not return one revision twice", function()
      state.x = 5
      state:get_when_equal("x", 5)
      nothing_comes("get_when_equal", "x", 5)
      other.y = 1
      assert.same({ x = 5, y = 1 }, state:get_when_equal("x", 5))
      nothing_comes("get_when_equal", "x", 5)
    end)

    it("returns one revision for each of several conditions that hold at it, and then no more", function()
      state:update { x = 5, y = 6 }
      assert.is_not_nil(state:get_when_equal("x", 5))
      assert.is_not_nil(state:get_when_equal("y", 6))
      assert.is_not_nil(state:get_when_not_equal("y", 7))
      assert.is_not_nil(state:get_when(function(s) return s.x == 5 end))
      nothing_comes("get_when_equal", "x", 5)
      nothing_comes("get_when_equal", "y", 6)
      nothing_comes("get_when_not_equal", "y", 7)
    end)

    it("considers every revision, also those that are past", function()
      for i = 1, 10 do other.x = i end
      assert.same({ x = 3 }, state:get_when_equal("x", 3))
      assert.same({ x = 7 }, state:get_when_equal("x", 7))
      nothing_comes("get_when_equal", "x", 3)
    end)

    it("compares values of any kind by content, numbers as Lua does", function()
      for _, value in ipairs { true, "text", 5, 5.0, 0.5, { 1, { a = 2 } }, zproc.null, 0 } do
        state.x = value
        assert.same(value, state:get_when_equal("x", value).x)
      end
      state.x = 5
      assert.is_not_nil(state:get_when_equal("x", 5.0))
      state.x = 6.0
      assert.is_not_nil(state:get_when_equal("x", 6))
      state.x = -0.0
      assert.is_not_nil(state:get_when_equal("x", 0))
      state.x = 0 / 0
      nothing_comes("get_when_equal", "x", 0 / 0)
    end)

    it("not_equal needs the key present", function()
      nothing_comes("get_when_not_equal", "x", 5)
      other.x = 5
      nothing_comes("get_when_not_equal", "x", 5)
      other.x = 6
      assert.same({ x = 6 }, state:get_when_not_equal("x", 5))
    end)

    it("none holds for absent and null, not_none for the others, available for all that are there", function()
      assert.same({}, state:get_when_none "x")
      nothing_comes("get_when_not_none", "x")
      nothing_comes("get_when_available", "x")
      other.x = zproc.null
      assert.same({ x = zproc.null }, state:get_when_none "x")
      nothing_comes("get_when_not_none", "x")
      assert.same({ x = zproc.null }, state:fork():get_when_available "x")
      other.x = false
      assert.same({ x = false }, state:get_when_not_none "x")
      other.x = nil
      assert.same({}, state:get_when_none "x")
    end)

    it("wakes a process that waits for it", function()
      local p = ctx:process(function(own) return own:get_when_equal("cookies", 5, { timeout = GENEROUS }).cookies end)
      for i = 1, 5 do other.cookies = i end
      assert.equal(5, p:wait())
    end)

    it("consumes nothing when its time is up", function()
      other.a = 1
      other.b = 2
      nothing_comes("get_when_equal", "x", 2)
      nothing_comes("get_when_change", "x")
      nothing_comes("get_when", function(s) return s.x end)
      assert.is_nil((state:get_when_change { live = true, timeout = 0 }))
      assert.is_nil((state:get_raw_update { live = true, timeout = 0 }))
      for _ in state:when_change("x", "y", { timeout = 0 }) do error "there was none" end
      assert.same({ a = 1 }, state:get_when_change { timeout = 0 })
      assert.same({ a = 1, b = 2 }, state:get_when_change("b", { timeout = 0 }))
      nothing_comes "get_when_change"
    end)

    it("considers a duplicate after it was asked in vain for what is none", function()
      other.a = 1
      state:get_when_change()
      other.a = 1
      nothing_comes "get_when_change"
      nothing_comes "get_raw_update"
      assert.same({ a = 1 }, state:get_when_change { duplicate_okay = true, timeout = 0 })
    end)

    it("finds what it was asked for in vain once it is asked to look further back", function()
      local begin = state:revision()
      for i = 1, 3 do other.x = i end
      state:go_live()
      nothing_comes("get_when_equal", "x", 1)
      for snapshot in state:when_equal("x", 1, { since = begin, count = 1 }) do assert.equal(1, snapshot.x) end
      assert.equal(2, state:get_when_change("x", { timeout = 0 }).x)
    end)
  end)

  describe("whose cursor is behind what is kept", function()
    local function is_finished(s) return s.finished end

    it("returns what holds now", function()
      local states = {}
      for i = 1, 9 do states[i] = state:fork() end
      other:update { finished = true, none = zproc.null, x = 1 }
      lose_history()
      for i, arguments in ipairs {
        { "equal", "finished", true }, { "not_equal", "finished", 5 }, { "none", "none" }, { "not_none", "finished" },
        { "available", "finished" }, { "none", "absent" },
      } do
        local one, kind = states[i], arguments[1]
        local snapshot = one["get_when_" .. kind](one, table.unpack(arguments, 2))
        assert.same({ finished = true, none = zproc.null, x = 1 }, snapshot)
        assert.equal("TimeoutError", select(2, one:get_when_change { timeout = 0 }).name)
      end
      assert.is_true(states[7]:get_when(is_finished).finished)
      assert.is_true(states[8]:when(is_finished)().finished)
      -- What has changed in between, and does not hold now, may have held.
      assert.equal("HistoryLost", refuses("may have held", states[9].get_when_equal, states[9], "x", 2, { timeout = 0 }).name)
    end)

    it("waits for what has not changed since, and returns it then", function()
      local one, two, three = state:fork(), state:fork(), state:fork()
      lose_history()
      assert.is_nil((one:get_when_equal("finished", true, { timeout = 0 })))
      assert.is_nil((two:get_when(is_finished, { timeout = 0 })))
      local p = ctx:process(function() return three:get_when_equal("finished", true, { timeout = GENEROUS }).finished end)
      other.finished = true
      assert.is_true(one:get_when_equal("finished", true, { timeout = 0 }).finished)
      assert.is_true(two:get_when(is_finished, { timeout = 0 }).finished)
      assert.is_true(p:wait())
    end)

    it("does not pretend to have seen every match, where that is promised", function()
      other.finished = true
      local next_match, past = state:when_equal("finished", true), state:fork()
      assert.is_true(next_match().finished)
      local since = state:revision()
      lose_history()
      assert.equal("HistoryLost", refuses("", next_match).name)
      assert.equal("HistoryLost", refuses("", past:when_equal("finished", true, { since = since })).name)
      assert.is_true(state:get_when_equal("finished", true).finished)
    end)

    it("is as any other if only other namespaces have changed", function()
      local function quiet() return state:fork { namespace = "quiet" } end
      local writer, never = quiet(), quiet()
      writer.finished = true
      local holds, waits, change, every, raw = quiet(), quiet(), quiet(), quiet(), quiet()
      local next_match = every:when(is_finished)
      assert.is_true(next_match().finished)
      lose_history()
      assert.is_true(never:get_when_equal("finished", true, { timeout = 0 }).finished)
      assert.is_true(holds:get_when(is_finished, { timeout = 0 }).finished)
      assert.is_nil((waits:get_when_equal("x", 1, { timeout = 0 })))
      assert.is_nil((waits:get_when(function(s) return s.x == 1 end, { timeout = 0 })))
      writer.x = 1
      assert.same({ finished = true, x = 1 }, waits:get_when_equal("x", 1, { timeout = 0 }))
      assert.same({ finished = true, x = 1 }, change:get_when_change { timeout = 0 })
      assert.same({ finished = true, x = 1 }, next_match())
      assert.same({ { finished = true }, { finished = true, x = 1 }, false }, { raw:get_raw_update { timeout = 0 } })
      writer.y = 1
      lose_history()
      assert.same({ finished = true, x = 1, y = 1 }, waits:get_when_equal("y", 1, { timeout = 0 }))
    end)

    it("is not, after it has looked in vain now and then", function()
      for i = 1, 20 do
        other.big = ("x"):rep(4000000) .. i
        other.gone = i -- deleted keys are forgotten
        other.gone = nil
        assert.is_nil((state:get_when_change("absent", { timeout = 0 })))
      end
      other.absent = 1
      assert.equal(1, state:get_when_change("absent", { timeout = 0 }).absent)
    end)
  end)

  describe("with a predicate", function()
    it("calls it on the revisions in order, and gives the first that holds", function()
      for i = 1, 10 do other.gold = i * 10 end
      assert.same({ gold = 40 }, state:get_when(function(s) return s.gold > 30 end))
      assert.same({ gold = 50 }, state:get_when(function(s) return s.gold > 30 end))
    end)

    it("returns at once if it holds already", function()
      state.x = 1
      local function is_one(s) return s.x == 1 end
      assert.same({ x = 1 }, state:get_when(is_one))
      assert.is_nil((state:get_when(is_one, { timeout = 0 })))
    end)

    it("may use upvalues, get, pairs and #", function()
      local limit = 3
      other:update { a = 1, b = 2 }
      other.c = 3
      assert.same({ a = 1, b = 2, c = 3 }, state:get_when(function(s)
        local sum = 0
        for _, value in pairs(s) do sum = sum + value end
        return #s == limit and sum == 6 and s:get("d", "none") == "none"
      end))
    end)

    --- assert, as a predicate can have it: that of busted cannot travel.
    local function must(holds)
      if not holds then error "it does not hold" end
    end

    it("walks over all keys of a large state, in any number of walks at a time", function()
      local content = {}
      for i = 1, 3000 do content[i] = i end
      content.text = ("x"):rep(200000) -- more than is fetched at once
      content.zebra = true
      other:update(content)
      assert.equal(3002, #state)
      local function holds(test) assert.is_truthy(state:get_when(test, { timeout = 0 })) end
      holds(function(s)
        local n, last = 0, 0
        for key, value in pairs(s) do
          n = n + 1
          if n <= 3000 then must(key == n and value == n) end
          last = key
        end
        return n == 3002 and last == "zebra" and #s == 3002
      end)
      holds(function(s)
        local inner, outer = pairs(s), pairs(s)
        for i = 1, 3000 do
          must(inner() == i)
          must(outer() == i)
          must(s[i] == i)
        end
        must(inner() == "text" and inner() == "zebra" and inner() == nil and inner() == nil)
        return outer() == "text"
      end)
      holds(function(s)
        for key in pairs(s) do return key == 1 end
      end)
      holds(function(s)
        local keys, values, items, copy = s:keys(), s:values(), s:items(), s:copy()
        must(#keys == 3002 and #values == 3002 and #items == 3002)
        for i, key in ipairs(keys) do must(items[i][1] == key and items[i][2] == values[i] and copy[key] == values[i]) end
        return true
      end)
    end)

    it("walks over as many keys as there happen to be", function()
      for _, size in ipairs { 0, 1, 15, 16, 17, 47, 48, 49, 512, 513, 1024 } do
        local content = {}
        for i = 1, size do content[i] = i end
        other:set(content)
        assert.is_truthy(state:get_when(function(s)
          local n = 0
          for key in pairs(s) do
            n = n + 1
            must(key == n)
          end
          return n == size and #s:keys() == size and #s == size
        end, { timeout = 0 }))
      end
    end)

    it("sees one revision, whatever happens while it looks", function()
      local ready <const>, rounds <const> = 600, 300
      local function content_of(n)
        local content = {}
        for i = 1, ready do content[i] = n end
        return content
      end
      other:set(content_of(0))
      local writer = ctx:process(function(own)
        for n = 1, rounds do own:update(content_of(n)) end
      end)
      assert.is_truthy(state:get_when(function(s)
        local first = s[1]
        for _, value in pairs(s) do
          if value ~= first then error(("torn: %d and %d"):format(first, value)) end
        end
        must(s[ready] == first)
        return first == rounds
      end, { timeout = GENEROUS }))
      writer:wait()
    end)

    it("treats an absent key as one that does not hold yet, whatever it does with it", function()
      assert.is_nil((state:get_when(function(s) return s.gold_price < 40 end, { timeout = 0 })))
      other.gold_price = 30
      assert.same({ gold_price = 30 }, state:get_when(function(s) return s.gold_price < 40 end))
    end)

    it("wakes a process that waits for it", function()
      local p = ctx:process(function(own)
        return own:get_when(function(s) return s.a and s.b and s.a + s.b == 7 end, { timeout = GENEROUS })
      end)
      other.unrelated = true
      other.a = 3
      other.b = 4
      assert.same({ a = 3, b = 4, unrelated = true }, p:wait())
    end)

    it("raises its error to the caller, and goes on working", function()
      other.x = 1
      local err = refuses("boom", state.get_when, state, function(s) return s.x == 1 and error "boom" end)
      assert.equal("RemoteError", err.name)
      assert.is_truthy(err.traceback:find("watch_spec.lua", 1, true), err.traceback)
      assert.same({ x = 1 }, state:get_when(function(s) return s.x == 1 end))
    end)

    it("stops a predicate that runs for ever, also within pcall", function()
      other.x = 1
      refuses("", state.get_when, state, function() while true do end end)
      refuses("", state.get_when, state, function() while true do pcall(function() while true do end end) end end)
      assert.same({ x = 1 }, state:get_when(function(s) return s.x == 1 end))
    end)

    it("stops a predicate that allocates without end", function()
      refuses("", state.get_when, state, function()
        local t = {}
        while true do t[#t + 1] = ("x"):rep(100000) .. #t end
      end)
      refuses("", state.get_when, state, function() return ("x"):rep(1 << 40) end)
    end)

    it("refuses to change the state", function()
      refuses("", state.get_when, state, function(s)
        s.x = 1
        return true
      end)
      assert.is_nil(state.x)
    end)

    it("cannot reach outside: os.exit, files, modules", function()
      refuses("", state.get_when, state, function() os.exit(3) end)
      refuses("", state.get_when, state, function() return io.open "/etc/passwd" end)
      local exit = os.exit
      refuses("", state.get_when, state, function() exit(3) end)
      state.alive = true
      assert.is_true(state.alive)
    end)

    it("refuses what is no function, and captures that cannot be sent", function()
      refuses("the predicate must be a function of a snapshot, not 5", state.get_when, state, 5)
      local file = io.stdout
      refuses("cannot send a userdata (FILE*)", state.get_when, state, function() return file end)
    end)
  end)

  describe("compares by content", function()
    local row = { 1 }
    local ring = { v = 1 }
    ring.next = ring
    local function made(upvalue) return function() return upvalue end end
    local nan <const> = 0 / 0

    --- Pairs of values, whether they are equal, and whether one that is written over the other changes nothing all the same.
    local CASES <const> = {
      { { x = 1 }, { x = 1.0 }, true }, { 1, 1.0, true }, { 0, -0.0, true }, { { -0.0 }, { 0 }, true }, { { 2 ^ 53 }, { (1 << 53) + 1 }, false },
      { { row, row }, { { 1 }, { 1.0 } }, true }, { { row, row }, { { 1 }, { 2 } }, false },
      { ring, { v = 1.0, next = ring }, true }, { ring, { v = 1, next = { v = 2, next = ring } }, false },
      { setmetatable({ 1 }, { __eq = error, __index = { x = 2 } }), { 1 }, true }, { setmetatable({}, { __index = { x = 2 } }), { x = 2 }, false },
      { nan, nan, false, true }, { { n = nan }, { n = nan }, false, true }, { { [{ 1 }] = 2 }, { [{ 1.0 }] = 2.0 }, true },
      { { [1.5] = 1, [2.0] = 2, x = {} }, { [1.5] = 1.0, [2] = 2, x = {} }, true }, { "1", 1, false }, { true, 1, false }, { {}, zproc.null, false },
      { print, print, true }, { print, type, false }, { made(1), made(1.0), true }, { { made(row) }, { made { 1 } }, true }, { made(1), made(2), false },
    }

    local function differ(i, what) error(("case %d: %s"):format(i, what)) end

    it("with ==, get_when_equal and get_when_not_equal alike", function()
      for i, case in ipairs(CASES) do
        state:set { value = case[1] }
        local expected = case[3]
        if (state == { value = case[2] }) ~= expected then differ(i, "==") end
        if ({ value = case[2] } == state) ~= expected then differ(i, "== the other way round") end
        if (state:get_when_equal("value", case[2], { timeout = 0 }) ~= nil) ~= expected then differ(i, "get_when_equal") end
        if (state:get_when_not_equal("value", case[2], { timeout = 0 }) == nil) ~= expected then differ(i, "get_when_not_equal") end
      end
      local elsewhere = state:fork { namespace = "elsewhere" }
      elsewhere:set { a = { x = 1 }, b = 2 }
      state:set { a = { x = 1.0 }, b = 2 }
      assert.is_true(state == elsewhere and state ~= { a = { x = 1 } } and state ~= { a = { x = 1 }, b = 2, c = 3 })
      assert.is_true(state ~= { a = { x = 1 }, b = 2, c = io.stdout } and state ~= { a = { x = 1 }, b = 2, [{}] = 3 })
    end)

    it("so that an update that leaves the content as it was wakes nobody, though it is there", function()
      for i, case in ipairs(CASES) do
        local before, after = case[1], case[2]
        other:set { value = before, more = 1 }
        local key, all, excluding, while_it_holds, raw = state:fork(), state:fork(), state:fork(), state:fork(), state:fork()
        while_it_holds:get_when_equal("more", 1)
        other.value = after
        for _, snapshot in pairs { key:get_when_change("value", { timeout = 0 }) or false, all:get_when_change { timeout = 0 } or false,
          excluding:get_when_change("more", { exclude = true, timeout = 0 }) or false,
          while_it_holds:get_when_equal("more", 1, { timeout = 0 }) or false } do
          if (snapshot == false) ~= (case[3] or case[4] or false) then differ(i, "a change") end
        end
        local _, _, identical = raw:get_raw_update { timeout = 0, duplicate_okay = true }
        if identical ~= (case[3] or case[4] or false) then differ(i, "identical") end
      end
      other.value = 1
      other.value = 1.0
      assert.equal("float", math.type(state.value))
      assert.equal("float", math.type(state:at(state:revision()).value))
    end)

    it("unless a predicate tells them apart", function()
      local p = ctx:process(function(own)
        own.ready = true
        return math.type(own:get_when(function(s) return math.type(s.n) == "float" end, { timeout = GENEROUS }).n)
      end)
      other.n = 1
      state:get_when_available("ready", { timeout = GENEROUS })
      other.n = 1.0
      assert.equal("float", p:wait())
    end)
  end)

  describe("as an iterator", function()
    it("gives the snapshots, count of them", function()
      for i = 1, 5 do other.gold = i end
      local seen = {}
      for snapshot in state:when_change("gold", { count = 3 }) do seen[#seen + 1] = snapshot.gold end
      assert.same({ 1, 2, 3 }, seen)
      assert.same({ gold = 4 }, state:get_when_change())
    end)

    it("ends when nothing has come for the timeout", function()
      other.a = 1
      local seen = 0
      for _ in state:when_change { timeout = 0 } do seen = seen + 1 end
      assert.equal(1, seen)
    end)

    it("starts in the past with since, as far back as is kept with 0", function()
      state:set { n = 0 }
      local start = state:revision()
      for i = 1, 5 do other.n = i end
      state:go_live()
      local seen = {}
      for snapshot in state:when_change("n", { since = start, timeout = 0 }) do seen[#seen + 1] = snapshot.n end
      assert.same({ 1, 2, 3, 4, 5 }, seen)
      seen = {}
      for snapshot in other:when_change("n", { since = 0, timeout = 0 }) do seen[#seen + 1] = snapshot.n end
      assert.same({ 0 }, seen) -- what it made itself is no news to it
    end)

    it("does not run on its own when its body changes the state", function()
      state.ready = true
      local rounds = 0
      for _ in state:when_equal("ready", true, { timeout = 0 }) do
        rounds = rounds + 1
        state.rounds = rounds
        assert.is_true(rounds < 10)
      end
      assert.equal(1, rounds)
    end)

    it("is there for every watcher", function()
      other:update { x = 1, none = zproc.null }
      for _, loop in ipairs {
        { state:fork():when_equal("x", 1, { count = 1 }) },
        { state:fork():when_not_equal("x", 2, { count = 1 }) },
        { state:fork():when_none("none", { count = 1 }) },
        { state:fork():when_not_none("x", { count = 1 }) },
        { state:fork():when_available("x", { count = 1 }) },
        { state:fork():when(function(s) return s.x end, { count = 1 }) },
      } do
        assert.equal(1, loop[1]().x)
        assert.is_nil(loop[1]())
      end
    end)
  end)

  describe("as an iterator whose body raises", function()
    local function numbers(iterator_of, from)
      local seen = {}
      for snapshot in iterator_of(from) do seen[#seen + 1] = snapshot.n end
      return seen
    end
    local function changes(from) return from:when_change("n", { timeout = 0 }) end

    it("leaves what it has raised over, and what comes after it, to the next one", function()
      for i = 1, 4 do other.n = i end
      refuses("boom", function()
        for snapshot in changes(state) do
          if snapshot.n == 2 then error(zproc.error_class "Boom" "boom") end
        end
      end)
      assert.same({ 2, 3, 4 }, numbers(changes, state))
    end)

    it("leaves it after it has waited for something else, and changed something, too", function()
      for i = 1, 3 do other.n = i end
      local ok = pcall(function()
        for _ in changes(state) do
          state.own = 1
          other.x = 1
          assert.equal(1, state:get_when_equal("x", 1).x)
          error "boom"
        end
      end)
      assert.is_false(ok)
      assert.same({ 1, 2, 3 }, numbers(changes, state))
    end)

    it("leaves a condition that held already, once more", function()
      state.n = 1
      local function loop(from) return from:when_equal("n", 1, { timeout = 0 }) end
      for _ = 1, 3 do
        pcall(function()
          for _ in loop(state) do error "boom" end
        end)
      end
      assert.same({ 1 }, numbers(loop, state))
      assert.same({}, numbers(loop, state))
    end)

    it("leaves it for the outer loop as well, and within a coroutine that is closed", function()
      for i = 1, 3 do other.n = i end
      other.x = 1
      local thread = coroutine.create(function()
        for _ in changes(state) do
          for _ in state:when_change("x", { timeout = 0 }) do error "boom" end
        end
      end)
      assert.is_false(coroutine.resume(thread))
      coroutine.close(thread)
      assert.same({ 1, 2, 3 }, numbers(changes, state))
    end)

    it("does not give again what was left by break, return or goto", function()
      for i = 1, 5 do other.n = i end
      for _ in changes(state) do break end
      assert.equal(2, (function()
        for snapshot in changes(state) do return snapshot.n end
      end)())
      for _ in changes(state) do goto out end
      ::out::
      assert.same({ 4, 5 }, numbers(changes, state))
    end)
  end)

  describe("for raw updates", function()
    it("gives before, after and whether they are the same", function()
      other.a = 1
      other.a = 2
      assert.same({ {}, { a = 1 }, false }, { state:get_raw_update() })
      assert.same({ { a = 1 }, { a = 2 }, false }, { state:get_raw_update() })
      other.a = 2
      assert.is_nil((state:get_raw_update { timeout = 0 }))
      other.a = 2
      assert.same({ { a = 2 }, { a = 2 }, true }, { state:get_raw_update { duplicate_okay = true, timeout = GENEROUS } })
    end)
  end)

  describe("from a Context", function()
    it("calls a function in a process at every match, with snapshot, state and arguments", function()
      local p = ctx:call_when_change("cookies", function(snapshot, own, a, kwargs)
        own.log = { snapshot.cookies, a, kwargs.b }
      end, { args = { 1 }, kwargs = { b = 2 } })
      other.cookies = 7
      assert.same({ 7, 1, 2 }, state:get_when_available("log", { timeout = GENEROUS }).log)
      p:stop()
    end)

    it("misses no change, and may change what it watches", function()
      ctx:call_when_change("cookies", function(snapshot, own)
        own.cookies = snapshot.cookies -- its own change does not call it again
        zproc.atomic(function(s)
          s.eaten = s.eaten or {}
          table.insert(s.eaten, snapshot.cookies)
        end)(own)
      end)
      for i = 1, 20 do other.cookies = i end
      local eaten = state:get_when(function(s) return s.eaten and #s.eaten == 20 end, { timeout = GENEROUS }).eaten
      for i = 1, 20 do assert.equal(i, eaten[i]) end
    end)

    it("has one for every watcher, also as a decorator", function()
      -- They note their calls elsewhere, or each would call all the others again and again.
      local calls = state:fork { namespace = "calls" }
      local function counter(name)
        return function() calls["by_" .. name] = true end
      end
      ctx:call_when_equal("x", 1, counter "equal")
      ctx:call_when_not_equal("x", 2, counter "not_equal")
      ctx:call_when_none("y", counter "none")
      ctx:call_when_not_none "x" (counter "not_none")
      ctx:call_when_available("x", { live = true })(counter "available")
      ctx:call_when(function(s) return s.x == 1 end)(counter "when")
      ctx:call_when_change("x", "z", { live = false })(counter "change")
      other.x = 1
      for _, name in ipairs { "equal", "not_equal", "none", "not_none", "available", "when", "change" } do
        assert.is_not_nil(calls:get_when_available("by_" .. name, { timeout = GENEROUS }), name)
      end
    end)

    it("ends with the error of the function", function()
      local path = os.tmpname()
      local p = ctx:call_when_change("x", function()
        io.stderr = io.open(path, "w")
        error "handler failed"
      end)
      other.x = 1
      refuses("handler failed", p.wait, p)
      os.remove(path)
    end)

    it("refuses wrong arguments", function()
      refuses("must be a function", ctx.call_when_equal, ctx, "x", 5, "no function")
      refuses("unknown option 'liv'", ctx.call_when_change, ctx, "x", print, { liv = true })
      refuses("do not apply", ctx.call_when_change, ctx, "x", print, { stateful = false })
      assert.equal(0, #ctx.process_list)
    end)
  end)

  describe("whose handler raises, and is tried again", function()
    local AGAIN <const> = { retry_for = { zproc.AnyError }, retry_delay = 0 }

    --- Deal with an order; what is not in the list of those that fail is noted.
    local function deal(own, n)
      io.stderr = io.open("/dev/null", "w")
      zproc.atomic(function(snapshot)
        if snapshot.failures > 0 and n == 2 then
          snapshot.failures = snapshot.failures - 1
          return true
        end
        table.insert(snapshot.seen, n)
      end)(own)
      if own.failures ~= own.failed and n == 2 then
        own.failed = own.failures
        own:get_when_equal("order", 4, { timeout = 60 })
        error "not yet"
      end
    end

    --- Orders 1 to 4 are made; each is dealt with once, in order, though the second one has failed twice.
    local function expect_all(p)
      for i = 1, 4 do other.order = i end
      local snapshot = state:get_when(function(s) return #s.seen > 3 end, { timeout = GENEROUS })
      assert.same({ 1, 2, 3, 4 }, snapshot and snapshot.seen)
      assert.equal(0, state.failures)
      p:stop()
    end

    before_each(function() state:set { failures = 2, failed = 2, seen = {}, order = 0 } end)

    it("gets the same change again", function()
      expect_all(ctx:call_when_change("order", function(snapshot, own) deal(own, snapshot.order) end, AGAIN))
    end)

    it("gets the same change again in a thread", function()
      expect_all(ctx:call_when_change("order", function(snapshot, own) deal(own, snapshot.order) end,
        { retry_for = { zproc.AnyError }, retry_delay = 0, backend = "thread" }))
    end)

    it("gets the same match of a predicate again", function()
      local last = 0
      expect_all(ctx:call_when(function(s) return s.order > 0 end, function(snapshot, own)
        if snapshot.order == last then return end
        deal(own, snapshot.order)
        last = snapshot.order
      end, AGAIN))
    end)

    it("begins its loop where the last one has failed", function()
      expect_all(ctx:process(function(own)
        for snapshot in own:when_change "order" do deal(own, snapshot.order) end
      end, AGAIN))
    end)

    it("fails over the same change until it gives up", function()
      local p = ctx:call_when_change("order", function(snapshot)
        io.stderr = io.open("/dev/null", "w")
        error("cannot do " .. snapshot.order)
      end, { retry_for = { zproc.AnyError }, retry_delay = 0, max_retries = 2 })
      other.order = 1
      other.order = 2
      refuses("cannot do 1", p.wait, p, GENEROUS)
    end)
  end)

  describe("given bad input", function()
    it("refuses timeouts that are none", function()
      for _, timeout in ipairs { -1, 0 / 0, "1", {} } do
        refuses("'timeout' must be a number of seconds, 0 or more", state.get_when_change, state, { timeout = timeout })
        refuses("'timeout' must be a number of seconds, 0 or more", state.get_when_equal, state, "x", 1, { timeout = timeout })
      end
      assert.is_nil((state:get_when_change { timeout = 0 }))
    end)

    it("refuses arguments too many, with the name of the call", function()
      state.a = 1
      for call, arguments in pairs {
        get = { "a", 1 }, set = { {} }, update = { {} }, setdefault = { "a", 1 }, pop = { "a", 1 }, popitem = {}, clear = {}, copy = {},
        keys = {}, values = {}, items = {}, contains = { "a" }, revision = {}, at = { 1 }, fork = { {} }, ping = { {} }, go_live = {},
        get_raw_update = { {} }, get_when = { print, {} }, get_when_equal = { "a", 1, {} }, get_when_not_equal = { "a", 2, {} },
        get_when_none = { "b", {} }, get_when_not_none = { "a", {} }, get_when_available = { "a", {} }, when = { print, {} },
        when_equal = { "a", 1, {} }, when_available = { "a", {} },
      } do
        local surplus = table.move(arguments, 1, #arguments, 1, {})
        surplus[#surplus + 1] = "surplus"
        refuses(("state:%s: there is an argument too many"):format(call), state[call], state, table.unpack(surplus))
      end
      refuses("ctx:call_when_equal: ", ctx.call_when_equal, ctx, "a", 1, "surplus", print, {})
      assert.is_true(state == { a = 1 })
      assert.equal(1, state:get("a", nil, nil))
    end)

    it("takes numbers at their extremes as they are, or refuses them by option and call", function()
      other.a = 1
      for _, timeout in ipairs { math.huge, 1e300, 1e18, math.maxinteger } do
        assert.equal(1, state:fork():get_when_equal("a", 1, { timeout = timeout }).a)
        local own = state:fork()
        local p = ctx:process(function() return own:get_when_change("b", { timeout = timeout }).b end)
        other.b = timeout
        assert.equal(timeout, p:wait())
      end
      for _, count in ipairs { math.huge, 0 / 0, -1, 1.5, 1e300 } do
        refuses("state:when_equal: option 'count' must be", state.when_equal, state, "a", 1, { count = count })
      end
      for _, since in ipairs { math.huge, 0 / 0, -1, 1.5, 1e300 } do
        refuses("state:when_change: option 'since' must be", state.when_change, state, { since = since })
      end
      for _, since in ipairs { math.maxinteger, 1 << 40 } do
        refuses("state:when_change: the option 'since' is", state.when_change, state, { since = since })
      end
    end)

    it("refuses unknown options, missing keys and values, and keys that are none", function()
      refuses("state:get_when_change: unknown option 'excude' (did you mean 'exclude'?)", state.get_when_change, state, "x",
        { excude = true })
      refuses("a key is needed", state.get_when_available, state)
      refuses("a value is needed; for an absent key there is get_when_none", state.get_when_equal, state, "x")
      refuses("cannot be a key", state.get_when_available, state, print)
      refuses("'since'", state.when_change, state, { since = state:revision() + 1 })
      refuses("'count'", state.when_change, state, { count = 0 })
    end)

    it("raises HistoryLost for a cursor behind what is kept, until go_live", function()
      local far_behind = state:fork()
      other.x = 0
      lose_history()
      local err = refuses("not kept", far_behind.get_when_change, far_behind, "x")
      assert.equal("HistoryLost", err.name)
      assert.equal("HistoryLost", refuses("", far_behind.get_when_equal, far_behind, "x", 9, { timeout = 0 }).name)
      far_behind:go_live()
      other.x = 1
      assert.equal(1, far_behind:get_when_change("x").x)
    end)

    it("lets a handle that only writes watch afterwards, however much it wrote", function()
      for i = 1, 30 do state.big = ("x"):rep(5000000) .. i end
      assert.is_nil((state:get_when_change { timeout = 0 }))
      other.x = 1
      assert.equal(1, state:get_when_change("x").x)
    end)

    it("loses nothing while it sleeps through more than is kept", function()
      local p = ctx:process(function(own)
        own.waiting = true
        return own:get_when_change("x", { timeout = GENEROUS }).x
      end)
      state:get_when_available("waiting", { timeout = GENEROUS })
      for i = 1, 20 do other.big = ("x"):rep(4000000) .. i end
      other.x = "seen"
      assert.equal("seen", p:wait())
    end)

    it("goes on when a watcher is killed while it waits", function()
      local p = ctx:process(function(own)
        own.waiting = true
        own:get_when_equal("never", true)
      end)
      state:get_when_available("waiting", { timeout = GENEROUS })
      os.execute("kill -9 " .. p.pid)
      pcall(p.wait, p)
      other.never = true
      assert.is_true(state:get_when_equal("never", true).never)
    end)
  end)

  it("sees every one of many revisions, in order, exactly once, though it is slower than the writer", function()
    local p = ctx:process(function(own)
      for i = 1, 3000 do
        local n = own:get_when_change("n", { timeout = GENEROUS }).n
        if n ~= i then error(("%d instead of %d"):format(n, i)) end
      end
      return "all"
    end)
    for i = 1, 3000 do other.n = i end
    assert.equal("all", p:wait())
  end)

  it("is woken whenever several processes hand turns to each other", function()
    state.turn = 0
    for me = 0, 2 do
      ctx:process(function(own)
        for i = me, 599, 3 do
          assert(own:get_when_equal("turn", i, { timeout = GENEROUS }))
          own.turn = i + 1
        end
      end)
    end
    assert.equal(600, state:get_when_equal("turn", 600, { timeout = GENEROUS }).turn)
  end)

  it("ends a program in order that leaves predicates behind", function()
    local out <close> = support.run_script [[
      local zproc = require "zproc"
      collectgarbage "stop"
      local state = zproc.context().state
      print(select(2, pcall(state.get_when, state, function() error "bad" end)).name)
      print(state:get_when(function(s) return s.a == nil end) ~= nil)
    ]]
    assert.equal("RemoteError\ntrue\n", out:read "a")
  end)
end)
