-- What a predicate may do, and what ends it: wherever it runs, it hurts nobody else.
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses = support.refuses

-- What travels takes its globals along; those of a script, not the environment that specs run in.
local describe, it, before_each, after_each, assert = describe, it, before_each, after_each, assert
local _ENV <const> = _G

local GENEROUS <const> = 60 -- seconds; a limit, not an expectation

describe("a predicate", function()
  local ctx, state, other

  before_each(function()
    ctx = zproc.context()
    state = ctx.state
    other = state:fork()
  end)
  after_each(function() ctx:close() end)

  --- What the predicate raises is raised here.
  local function holds(test, opts)
    opts = opts or {}
    opts.timeout = GENEROUS
    return (state:get_when(test, opts)) ~= nil
  end

  describe("has Lua's library: it", function()
    --- What a function of the library gives for arguments, or that it raises, as one string: computed here and there, and compared. (The
    --- words of errors change from one Lua to the next.)
    local function outcome(library, name, arguments)
      local given = {} -- they may be changed
      for i = 1, arguments.n do given[i] = type(arguments[i]) == "table" and table.move(arguments[i], 1, #arguments[i], 1, {}) or arguments[i] end
      local results = table.pack(pcall(_G[library][name], table.unpack(given, 1, arguments.n)))
      if not results[1] then return "an error" end
      for i = 1, results.n do results[i] = ("%s %s"):format(math.type(results[i]) or type(results[i]), tostring(results[i])) end
      return table.concat(results, ", ")
    end

    --- Compare many calls; each is { library, name, arguments... }.
    local function agrees(calls)
      local expected = {}
      for i, call in ipairs(calls) do
        call.arguments = table.pack(table.unpack(call, 3, call.n))
        expected[i] = outcome(call[1], call[2], call.arguments)
      end
      assert.is_true(holds(function()
        for i, call in ipairs(calls) do
          local got = outcome(call[1], call[2], call.arguments)
          if got ~= expected[i] then
            local words = {}
            for k = 1, call.arguments.n do words[k] = tostring(call.arguments[k]) end
            error(("%s.%s(%s) gives %s, not %s"):format(call[1], call[2], table.concat(words, ", "), got, expected[i]), 0)
          end
        end
        return true
      end, { budget = { seconds = 60 } }))
    end

    local function calls_of(library, list)
      for _, call in ipairs(list) do
        table.insert(call, 1, library)
        call.n = #call
      end
      return list
    end

    it("finds, matches and replaces patterns as Lua does, whatever they are", function()
      local pieces <const> = {
        "a", "b", "c", ".", "%a", "%d", "%s", "%W", "%.", "[abc]", "[^ab]", "[a-c]", "[]]", "[^]]", "[%w_]", "[%a-]", "[a%]b]", "[a-]", "(", ")",
        "()", "%1", "%2", "%b()", "%bxy", "%f[%w]", "%f[^a]", "$", "^", "*", "+", "-", "?", "%", "[", "]", "\0", "%b", "%f", "%0", "[%", "[a", "%9",
      }
      local letters <const> = { "a", "b", "c", "ab", "x", "y", "(", ")", "]", "-", "1", "_", " ", "\0", "$", "^", "." }
      local x <const> = { 5 } -- the same patterns each time
      local function random(n)
        x[1] = x[1] * 6364136223846793005 + 1442695040888963407
        return (x[1] >> 33) % n + 1
      end
      local function some(list, most)
        local words = {}
        for i = 1, random(most + 1) - 1 do words[i] = list[random(#list)] end
        return table.concat(words)
      end
      local calls = {}
      for i = 1, 6000 do
        local subject, pattern = some(letters, 8), some(pieces, 6)
        if i % 3 == 0 then pattern = "(" .. some(pieces, 2) .. ")" .. some(pieces, 3) end
        local kind = i % 4
        if kind == 0 then calls[i] = { "string", "find", subject, pattern, random(12) - 6 }
        elseif kind == 1 then calls[i] = { "string", "match", subject, pattern, random(12) - 6 }
        elseif kind == 2 then calls[i] = { "string", "gsub", subject, pattern, some({ "x", "%0", "%1", "%2", "%%", "%", "%z" }, 3), random(4) }
        else calls[i] = { "string", "find", subject, some(letters, 2), random(12) - 6, true } end
        calls[i].n = #calls[i]
      end
      agrees(calls)
    end)

    it("goes through matches, and replaces by functions and tables, as Lua does", function()
      local cases = { { "", "" }, { "abc", "" }, { "abc", "b*" }, { "one two  three", "%a+" }, { "k=v, x=y", "(%w+)=(%w+)" }, { "aXb", "()" },
        { "hello", "l", 4 }, { "hello", ".", -2 }, { "hello", ".", 9 }, { "^a^a", "^a" }, { "THE (quick) fox", "%((%a+)%)" } }
      local function walk(case)
        local found = {}
        for a, b in string.gmatch(case[1], case[2], case[3]) do found[#found + 1] = tostring(a) .. ":" .. tostring(b) end
        found[#found + 1] = string.gsub(case[1], case[2], function(a, b)
          if a == "two" then return nil end
          return "<" .. tostring(a) .. tostring(b) .. ">"
        end, case[3])
        found[#found + 1] = string.gsub(case[1], case[2], { a = "A", one = 1, two = false, [1] = "first" })
        found[#found + 1] = tostring(select(2, pcall(string.gsub, case[1], case[2], function() return {} end)))
        return table.concat(found, " ")
      end
      local expected = {}
      for i, case in ipairs(cases) do expected[i] = walk(case) end
      assert.is_true(holds(function()
        for i, case in ipairs(cases) do
          local got = walk(case)
          if got ~= expected[i] then error(("%s, not %s"):format(got, expected[i])) end
        end
        return true
      end))
    end)

    it("matches patterns of any depth, and long ones", function()
      assert.is_true(holds(function()
        local deep = ("(a"):rep(30) .. (")"):rep(30)
        local long = ("a?"):rep(100) .. ("a"):rep(100)
        return ("a"):rep(30):match(deep) == ("a"):rep(30) and ("a"):rep(100):find(("a*"):rep(50)) == 1 and ("x"):rep(3):find(long) == nil
      end))
    end)

    it("has the functions of string and table that give the same as Lua's", function()
      agrees(calls_of("string", {
        { "rep", "ab", 0 }, { "rep", "ab", -1 }, { "rep", "ab", 1, "," }, { "rep", "ab", 7, ", " }, { "rep", "", 5 }, { "rep", "", 5, "x" },
        { "rep", "ab", math.maxinteger, "x" }, { "rep" }, { "rep", {} , 1 }, { "rep", "a", "b" }, { "rep", 12, 3 }, { "rep", "a", 1000 },
        { "find", "abc" }, { "find", "abc", {} }, { "gsub", "abc", "b" }, { "gsub", "abc", "b", true }, { "gmatch", "abc" }, { "find", "a\0b", "\0" },
      }))
      agrees(calls_of("table", {
        { "concat", { 1, 2.5, "x" } }, { "concat", { 1, 2, 3 }, ", " }, { "concat", { 1, 2, 3 }, "-", 2 }, { "concat", { 1, 2, 3 }, "-", 2, 2 },
        { "concat", { 1, {}, 3 } }, { "concat", {}, "x", 1, 2 }, { "concat", {} }, { "concat", { 1 }, "x", math.maxinteger, math.maxinteger }, { "concat", 5 },
        { "unpack", { 1, 2, 3 } }, { "unpack", { 1, 2, 3 }, 2 }, { "unpack", { 1, 2, 3 }, -1, 1 }, { "unpack", {}, 1, 1 << 40 }, { "unpack", { 1 }, 2, 1 },
        { "insert", { 1 }, 3, 5 }, { "insert", { 1 } }, { "insert", { 1 }, 1, 2, 3 }, { "insert", 5, 5 }, { "remove", {} }, { "remove", { 1 }, 5 },
        { "remove", { 1, 2, 3 } }, { "remove", { 1, 2, 3 }, 1 }, { "remove", { 1, 2, 3 }, 4 }, { "move", { 1 }, 1, math.maxinteger, 2 }, { "move", { 1 }, 0, math.maxinteger, 2 },
        { "sort", { 3, "x" } }, { "sort", { 1, 2 }, 5 }, { "sort", {} },
      }))
    end)

    it("changes tables as Lua does", function()
      local function work()
        local words = {}
        local function note(t) words[#words + 1] = table.concat(t, " ", 1, t.n or #t) end
        local t = { 1, 2, 3 }
        table.insert(t, 4)
        table.insert(t, 1, 0)
        note(t)
        table.remove(t, 2)
        table.remove(t)
        note(t)
        note(table.move({ 1, 2, 3, 4, 5 }, 2, 5, 1))
        note(table.move({ 1, 2, 3, 4, 5 }, 1, 4, 2))
        note(table.move({ 1, 2, 3 }, 1, 3, 3, { 7, 8 }))
        local numbers = {}
        for i = 1, 1000 do numbers[i] = i * 7919 % 1009 end
        table.sort(numbers)
        note(numbers)
        table.sort(numbers, function(a, b) return a > b end)
        note(numbers)
        local seen = {}
        local proxy = setmetatable({}, {
          __index = function(_, i) return i <= 4 and i * 10 or nil end, __len = function() return 4 end,
          __newindex = function(_, i, v) seen[#seen + 1] = i .. "=" .. tostring(v) end,
        })
        table.insert(proxy, 2, "new")
        note(seen)
        note { table.concat(proxy, ","), table.unpack(proxy) }
        return table.concat(words, "\n")
      end
      local expected = work()
      assert.is_true(holds(function()
        local got = work()
        if got ~= expected then error(got .. "\nand not\n" .. expected) end
        return true
      end))
    end)

    it("may hold functions of it in local variables", function()
      local find, rep, sort = string.find, string.rep, table.sort
      assert.is_true(holds(function()
        local t = { 2, 1 }
        sort(t)
        return find(rep("a", 3), "a+$") == 1 and t[1] == 1
      end))
      refuses("it took more time than", holds, function() return find(rep("a", 30000), ".-.-.-b") end)
    end)
  end)

  describe("is stopped", function()
    --- A predicate that would never end.
    local function stops(test)
      other.x = (other.x or 0) + 1
      local err = refuses("it took more time than the 0.05 seconds that it may", holds, test, { budget = { seconds = 0.05 } })
      assert.equal("RemoteError", err.name)
      assert.is_true(holds(function(s) return s.x > 0 end))
    end

    it("in a pattern that goes back and forth", function()
      stops(function() return (("a"):rep(30000)):find ".-.-.-b" end)
      stops(function() return (("a"):rep(30000)):match "a*a*a*a*a*b" end)
      stops(function() return (("a"):rep(30000)):gsub(".-.-.-b", "") end)
      stops(function()
        for _ in (("a"):rep(30000)):gmatch "%w-%w-%w-b" do end
      end)
      stops(function() return ("x"):rep(3000):find(("[^a-z%d]?"):rep(20) .. ("[" .. ("b"):rep(1000) .. "]*x*"):rep(1000) .. "y") end)
      stops(function() return (("("):rep(100000)):gsub("%b()", "") end)
    end)

    it("in a function of the library that does nothing for ever", function()
      stops(function() return table.move({}, 1, 1 << 60, 2) end)
      stops(function() return table.move({}, 1, 1 << 60, 2, setmetatable({}, { __newindex = rawequal })) end)
      stops(function() return table.insert(setmetatable({}, { __len = function() return 1 << 60 end }), 1, 2) end)
      stops(function() return table.remove(setmetatable({}, { __len = function() return 1 << 60 end }), 1) end)
      stops(function() return table.sort(setmetatable({}, { __len = function() return 1 << 30 end, __index = rawlen }), rawequal) end)
      stops(function() return table.concat(setmetatable({}, { __index = function() return "" end }), "", 1, 1 << 60) end)
      assert.is_true(holds(function() return (""):rep(1 << 60) == "" end))
    end)

    it("in code, also within pcall, coroutines, metamethods and closing variables", function()
      stops(function() while true do end end)
      stops(function() while true do pcall(string.find, ("a"):rep(30000), ".-.-.-b") end end)
      stops(function() return coroutine.wrap(function() while true do end end)() end)
      stops(function() return #setmetatable({}, { __len = function() while true do end end }) end)
      stops(function() error(setmetatable({}, { __tostring = function() while true do end end })) end)
      stops(function()
        local _ <close> = setmetatable({}, { __close = function() while true do end end })
        error "x"
      end)
      stops(function() return xpcall(error, function() while true do end end) end)
    end)

    it("in many calls that take long each", function()
      stops(function()
        local text = ("x"):rep(1e7)
        while true do text:upper() end
      end)
      stops(function()
        local text = (" "):rep(1e7)
        while true do tonumber(text) end
      end)
      stops(function()
        local a, b = ("x"):rep(1e7) .. "a", ("x"):rep(1e7) .. "b"
        while true do local _ = a == b end
      end)
      stops(function()
        local t = {}
        for i = 1, 100000 do t[i] = i end
        while true do select("#", table.unpack(t)) end
      end)
    end)

    it("where it walks over the state again and again", function()
      local content = {}
      for i = 1, 2000 do content[i] = i end
      other:update(content)
      stops(function(s) while true do s:copy() end end)
      stops(function(s) while true do for _ in pairs(s) do end end end)
      stops(function(s) while true do pcall(s.keys, s) end end)
    end)

    it("when it takes more memory than it may", function()
      local opts = { budget = { bytes = 1000000 } }
      refuses("it took more memory than the 1000000 bytes that it may", holds, function() return ("x"):rep(2000000) end, opts)
      refuses("it took more memory than the 1000000 bytes that it may", holds, function()
        local t = {}
        while true do t[#t + 1] = #t end
      end, opts)
      refuses("it took more memory than the 64 MiB that it may", holds, function() return ("x"):rep(1 << 27) end)
      refuses("it took more memory than the 2 MiB that it may", holds, function() return ("x"):rep(1 << 22) end, { budget = { bytes = 2 << 20 } })
      assert.is_true(holds(function() return #("x"):rep(100 << 20) > 0 end, { budget = { bytes = 256 << 20 } }))
    end)
  end)

  describe("has a budget", function()
    --- How many additions take a tenth of a second of processor time, about.
    local function tenth()
      local n, begin, sum = 0, os.clock(), 0
      while os.clock() - begin < 0.1 do
        for i = 1, 10000 do sum = sum + i end
        n = n + 10000
      end
      return n
    end

    it("of its own processor time: being stopped costs it nothing", function()
      local rounds, limits = tenth(), { seconds = 1.5 }
      local waiter = ctx:process(function(own)
        return own:get_when(function(s)
          local sum = 0
          for i = 1, rounds do sum = sum + i end
          return s.x == 20 and sum > 0
        end, { budget = limits }).x
      end)
      for i = 1, 20 do
        other.x = i
        assert.is_true(os.execute(("kill -STOP %d && sleep 0.1 && kill -CONT %d"):format(waiter.pid, waiter.pid)))
      end
      assert.equal(20, waiter:wait())
    end)

    it("of its own processor time: sharing the processors with others costs it nothing", function()
      local rounds, limits = tenth() // 10, { seconds = 0.2 }
      local waiters = ctx:process_factory(function(own)
        return own:get_when(function(s)
          local sum = 0
          for i = 1, rounds do sum = sum + i end
          return s.go and sum > 0
        end, { budget = limits }).go
      end, { count = 40 })
      other.go = true
      for _, waiter in ipairs(waiters) do assert.is_true(waiter:wait()) end
    end)

    it("that is enough for a walk over 300,000 keys", function()
      for first = 1, 300000, 50000 do
        local content = {}
        for i = first, first + 49999 do content[i] = i end
        other:update(content)
      end
      assert.is_true((holds(function(s)
        local n, sum = 0, 0
        for _, value in pairs(s) do n, sum = n + 1, sum + value end
        return n == 300000 and sum == 300000 * 300001 // 2
      end, { budget = { seconds = 10 } })))
    end)

    it("that every watcher takes as an option", function()
      local opts <const> = { timeout = 0, budget = { seconds = 0.05, bytes = 1 << 20 } }
      for _, call in ipairs {
        function() return state:get_when(function() return false end, opts) end, function() return state:get_when_change("a", opts) end,
        function() return state:get_when_equal("a", 1, opts) end, function() return state:get_when_not_none("a", opts) end,
        function() return state:get_raw_update(opts) end,
      } do
        assert.is_nil((call()))
      end
      refuses("it took more time than the 0.05 seconds", function()
        for _ in state:when(function() while true do end end, { budget = { seconds = 0.05 } }) do end
      end)
      local caller = ctx:call_when(function() while true do end end, function() end, { budget = { seconds = 0.05 } })
      refuses("it took more time than the 0.05 seconds", caller.wait, caller)
    end)

    it("that is a table of what it limits, each of them above 0", function()
      local words <const> = "option 'budget' must be a table with seconds, a number above 0, or bytes, an integer above 0, or both"
      for _, wrong in ipairs { 5, { seconds = 0 }, { seconds = -1 }, { seconds = 0 / 0 }, { seconds = "1" }, { bytes = 0 }, { bytes = 1.5 }, { second = 1 }, { 1 } } do
        refuses(words, holds, function() return true end, { budget = wrong })
      end
      assert.is_true(holds(function() return true end, { budget = {} }))
      assert.is_true(holds(function() return true end, { budget = { seconds = math.huge, bytes = math.maxinteger } }))
    end)
  end)

  describe("that never ends", function()
    local ENDLESS <const> = { budget = { seconds = math.huge } }

    --- Start a process with such a predicate, which has begun, or is about to.
    local function start(test, opts)
      local started = "started" .. #ctx.process_list
      local process = ctx:process(function(own)
        own[started] = true
        own:get_when(test, ENDLESS)
      end, opts)
      other:get_when_available(started, { timeout = GENEROUS })
      return process
    end

    --- Everybody else reads, waits and writes, more than fits into the file as it is.
    local function others_get_on()
      local waiter = ctx:process(function(own) return own:get_when_equal("n", 30, { timeout = GENEROUS }).n end)
      for i = 1, 30 do other:update { n = i, ["big" .. i % 10] = ("x"):rep(1 << 20) } end
      assert.equal(30, waiter:wait())
      assert.equal(30, other.n)
      assert.is_truthy(other:ping { timeout = GENEROUS })
    end

    it("keeps nobody from writing, growing, reading and waiting", function()
      local stuck = {
        start(function() while true do end end), start(function() return (("a"):rep(30000)):find ".-.-.-b" end),
        start(function() return table.move({}, 1, 1 << 60, 2) end), start(function(s) while true do s:copy() end end),
      }
      others_get_on()
      for _, process in ipairs(stuck) do process:stop() end
    end)

    it("keeps no other thread from that", function()
      local stuck = start(function() return (("a"):rep(30000)):find ".-.-.-b" end, { backend = "thread" })
      others_get_on()
      stuck:stop()
      assert.is_false(stuck.is_alive)
    end)

    it("ends for a signal that is an error, and the process goes on #local", function()
      local waiter = ctx:process(function(own)
        zproc.signal_to_error(zproc.signal.SIGUSR1)
        local seen = {}
        for i = 1, 3 do
          local ok, err = pcall(function()
            own.round = i
            own:get_when(function() return (("a"):rep(30000)):find ".-.-.-b" end, ENDLESS)
          end)
          seen[i] = ok or err.name
        end
        own:get_when(function(s) return s.over end, ENDLESS)
        return table.concat(seen, " ")
      end)
      for i = 1, 3 do
        other:get_when_equal("round", i, { timeout = GENEROUS })
        os.execute("kill -USR1 " .. waiter.pid)
      end
      other.over = true
      assert.equal("SignalError SignalError SignalError", waiter:wait())
    end)
  end)
end)
