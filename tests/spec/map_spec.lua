-- process_map: results, order, errors, laziness, deaths, and tasks.
local core = require "zproc.core"
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses, eventually, kill = support.refuses, support.eventually, support.kill

-- What travels takes its globals along; those of a script, not the environment that specs run in.
local describe, it, before_each, after_each, assert = describe, it, before_each, after_each, assert
local _ENV <const> = _G

local function square(n) return n * n end

local function numbers(count)
  local all = {}
  for i = 1, count do all[i] = i end
  return all
end

--- The results as a list without `.n`, which must be their number.
local function list(result)
  local all = result:collect()
  local n = all.n
  all.n = nil
  assert.equal(#all, n)
  return all
end

--- An iterator over 1, 2, ..., count, and how often it was called.
local function counter(count)
  local calls = { n = 0 }
  return function()
    calls.n = calls.n + 1
    return calls.n <= count and calls.n or nil
  end, calls
end

describe("process_map", function()
  local ctx, state

  before_each(function()
    ctx = zproc.context()
    state = ctx.state
  end)
  after_each(function() ctx:close() end)

  describe("calls the target", function()
    it("with every item of an array, a range or an iterator, in order", function()
      assert.same({ 1, 4, 9, 16 }, list(ctx:process_map(square, { 1, 2, 3, 4 })))
      assert.same({ 1, 4, 9, 16 }, list(ctx:process_map(square, zproc.range(1, 4))))
      assert.same({ 1, 4, 9, 16 }, list(ctx:process_map(square, (counter(4)))))
      assert.same({ 1, 4, 9, 16 }, list(ctx:process_map(square, { map_iter = { 1, 2, 3, 4 } })))
      local expected = {}
      for i = 1, 5000 do expected[i] = i * i end
      assert.same(expected, list(ctx:process_map(square, numbers(5000))))
      assert.same(expected, list(ctx:process_map(square, (counter(5000)))))
    end)

    it("with args and kwargs behind it", function()
      assert.same({ 0, 1, 8, 27 }, list(ctx:process_map(function(n, e) return math.tointeger(n ^ e) end, zproc.range(0, 3),
        { args = { 3 }, count = 10 })))
      assert.same({ "1 a nil z" }, list(ctx:process_map(function(...)
        local n, a, b, kwargs = ...
        return ("%d %s %s %s"):format(n, a, b, kwargs.last)
      end, { 1 }, { args = { n = 2, "a" }, kwargs = { last = "z" } })))
    end)

    it("with what stands beside the item, kwargs being laid over each other", function()
      assert.same({ 4, 9, 36, 256 }, list(ctx:process_map(function(a, b) return math.tointeger(a ^ b) end,
        { map_args = { { 2, 2 }, { 3, 2 }, { 6, 2 }, { 2, 8 } } })))
      assert.same({ "7 10 x y", "7 5 own y" }, list(ctx:process_map(function(seed, kwargs)
        return ("%d %d %s %s"):format(seed, kwargs.num, kwargs.a, kwargs.b)
      end, { args = { 7 }, kwargs = { a = "x", b = "y" }, map_kwargs = { { num = 10 }, { num = 5, a = "own" } } })))
      assert.same({ "1 a p q 1", "2 b c p q 2" }, list(ctx:process_map(function(...)
        local arguments = { ... }
        arguments[#arguments] = arguments[#arguments].k
        return table.concat(arguments, " ")
      end, { 1, 2 }, { map_args = { { "a" }, { "b", "c" } }, map_kwargs = { { k = 1 }, { k = 2 } }, args = { "p", "q" } })))
    end)

    it("as often as the shortest sequence has items", function()
      local function both(a, b) return a .. b end
      assert.same({ "1x", "2y" }, list(ctx:process_map(both, zproc.range(1, 100), { map_args = { { "x" }, { "y" } } })))
      assert.same({ "1x" }, list(ctx:process_map(both, { 1 }, { map_args = { { "x" }, { "y" } } })))
      local letters = function() return { "z" } end
      assert.same({ "1z", "2z", "3z" }, list(ctx:process_map(both, (counter(3)), { map_args = letters })))
    end)

    it("never for a sequence without items", function()
      for _, empty in ipairs { {}, { n = 0 }, zproc.range(1, 0), (counter(0)) } do
        local result = ctx:process_map(error, empty)
        assert.equal(0, result:collect().n)
        assert.is_nil(result:next())
      end
      assert.same({}, list(ctx:process_map(error, { map_args = {} })))
    end)

    it("with the state, if it is stateful, in its namespace", function()
      local add = zproc.atomic(function(snapshot, n) snapshot.sum = (snapshot.sum or 0) + n end)
      ctx:process_map(function(own, n) add(own, n) end, zproc.range(1, 100), { stateful = true }):collect()
      assert.equal(5050, state.sum)
      ctx:process_map(function(own, n) add(own, n) end, { 1, 2 }, { stateful = true, namespace = "other" }):collect()
      assert.equal(3, state:fork({ namespace = "other" }).sum)
    end)

    it("which may have been defined after the workers were started, and use what it likes", function()
      assert.same({ 1 }, list(ctx:process_map(square, { 1 })))
      local factor = 3
      local function times(n) return n * factor end
      assert.same({ 3, 6 }, list(ctx:process_map(times, { 1, 2 })))
      local function factorial(n) return n < 2 and 1 or n * factorial(n - 1) end
      assert.same({ 1, 2, 6, 24 }, list(ctx:process_map(factorial, { 1, 2, 3, 4 })))
      local callable = setmetatable({ plus = 5 }, { __call = function(self, n) return n + self.plus end })
      assert.same({ 6 }, list(ctx:process_map(callable, { 1 })))
      assert.same({ 3 }, list(ctx:process_map(math.abs, { -3 })))
    end)
  end)

  describe("gives", function()
    it("results one by one, with their numbers, also of those that are nil or false", function()
      local result = ctx:process_map(function(n) if n == 2 then return nil end return n ~= 3 and n end, { 1, 2, 3, 4 })
      assert.same({ n = 2, 1, 1 }, table.pack(result:next()))
      assert.same({ n = 2, nil, 2 }, table.pack(result:next()))
      assert.same({ n = 2, false, 3 }, table.pack(result:next()))
      assert.same({ n = 2, 4, 4 }, table.pack(result:next()))
      assert.same({ n = 2 }, table.pack(result:next()))
      assert.same({ n = 2 }, table.pack(result:next()))
      local seen = {}
      for i, value in ctx:process_map(function(n) return n % 2 == 0 and n or nil end, { 5, 6 }) do
        seen[#seen + 1] = { i, value }
      end
      assert.same({ { 1 }, { 2, 6 } }, seen)
      assert.same({ n = 3, nil, 2 }, ctx:process_map(function(n) return n == 2 and 2 or nil end, { 1, 2, 3 }):collect())
    end)

    it("what is left, after some were taken", function()
      local result = ctx:process_map(square, zproc.range(1, 100))
      for _ = 1, 40 do result:next() end
      local rest = result:collect()
      assert.equal(60, rest.n)
      assert.equal(41 * 41, rest[1])
      assert.equal(10000, rest[60])
    end)

    it("numbers and everything else to the bit", function()
      local values = { 0, -1, 127, 128, -128, -129, 32767, 32768, -32768, -32769, 2147483647, 2147483648, -2147483648, -2147483649,
        math.maxinteger, math.mininteger }
      local function same(v) return v end
      for i = 1, #values do assert.same({ values[i] }, list(ctx:process_map(same, { values[i] }))) end
      assert.same(values, list(ctx:process_map(same, values)))
      local floats = list(ctx:process_map(same, { 1.5, -0.0, math.huge, -math.huge, 0 / 0, 1e300 }))
      assert.same({ "1.5", "-0.0", "inf", "-inf", "1e+300" },
        { tostring(floats[1]), tostring(floats[2]), tostring(floats[3]), tostring(floats[4]), tostring(floats[6]) })
      assert.is_true(floats[5] ~= floats[5])
      local mixed = { 1, 1.5, "x", { y = { 1, 2 } }, true, false, zproc.null, math.pi, ("z"):rep(100000) }
      assert.same(mixed, list(ctx:process_map(same, mixed)))
      assert.equal("float", math.type(list(ctx:process_map(same, { 1, 2.0 }))[2]))
    end)

    it("large results", function()
      local sum = 0
      for _, text in ctx:process_map(function(n) return ("x"):rep(n) end, { 10 << 20, 5 << 20, 1 }) do sum = sum + #text end
      assert.equal((15 << 20) + 1, sum)
    end)
  end)

  describe("works", function()
    it("in other processes, which are kept, and as many as it is told", function()
      local rounds = 0
      local join = zproc.atomic(function(snapshot, round, me)
        local all = snapshot[round] or {}
        all[me] = true
        snapshot[round] = all
      end)
      local function pids(count, opts)
        opts = opts or {}
        opts.count, opts.stateful = count, true
        rounds = rounds + 1
        local round = "round " .. rounds
        local function pid(own) -- none goes on before all have begun
          join(own, round, zproc.getpid())
          own:get_when(function(view)
            local n = 0
            for _ in pairs(view[round] or {}) do n = n + 1 end
            return n >= count
          end, { timeout = support.GENEROUS })
          return zproc.getpid()
        end
        local seen, n = {}, 0
        for _, one in ctx:process_map(pid, zproc.range(1, 20 * count), opts) do
          if not seen[one] then n = n + 1 end
          seen[one] = true
        end
        assert.is_nil(seen[zproc.getpid()])
        return seen, n
      end
      local first, n = pids(3)
      assert.equal(3, n)
      assert.equal(3, #ctx.worker_list)
      local second
      second, n = pids(2)
      assert.equal(2, n)
      for one in pairs(second) do assert.is_true(first[one]) end
      local third = pids(2, { new = true })
      for one in pairs(third) do assert.is_nil(first[one]) end
      -- Those were for that map alone.
      eventually("new workers end", function()
        ctx:process_map(square, { 1 }):collect()
        return #ctx.worker_list <= 3
      end)
    end)

    it("while its caller does something else", function()
      local result = ctx:process_map(function(own, n)
        own["done" .. n] = true
        return n
      end, zproc.range(1, 10), { stateful = true })
      for n = 1, 10 do state:get_when_available("done" .. n, { timeout = support.GENEROUS }) end
      assert.equal(10, result:collect().n)
    end)

    it("with maps within maps", function()
      local address = ctx.server_address
      local sums = list(ctx:process_map(function(n)
        local inner <close> = zproc.context(address)
        local sum = 0
        for _, value in inner:process_map(function(k)
          local innermost <close> = zproc.context(address)
          local product = 1
          for _, factor in innermost:process_map(function(m) return m + 1 end, { k, n }, { count = 1 }) do
            product = product * factor
          end
          return product
        end, { 1, 2, 3 }, { count = 2 }) do
          sum = sum + value
        end
        return sum
      end, { 1, 2, 3, 4 }, { count = 2 }))
      assert.same({ 18, 27, 36, 45 }, sums)
    end)

    it("with several maps at once, and two Contexts on one server", function()
      local other <close> = zproc.context(ctx.server_address)
      local results = {}
      for k = 1, 6 do
        results[k] = (k % 2 == 0 and ctx or other):process_map(function(n) return n * k end, zproc.range(1, 200))
      end
      for i = 1, 200 do
        for k = 1, 6 do assert.equal(i * k, (results[k]:next())) end
      end
    end)

    it("with chunks of a size", function()
      for _, size in ipairs { 1, 7, 1000 } do
        local all = ctx:process_map(square, numbers(500), { chunk_size = size }):collect()
        assert.equal(500, all.n)
        assert.equal(250000, all[500])
      end
    end)

    it("in chunks as small as slow items need", function()
      local most = 0
      local last, run = nil, 0
      local count = zproc.atomic(function(snapshot, me)
        local done = snapshot.done or { all = 0 }
        done.all, done[me] = done.all + 1, (done[me] or 0) + 1
        snapshot.done = done
        return done[me]
      end)
      -- Neither worker gets ahead of the other, whoever is given the processor.
      for _, stamp in ctx:process_map(function(own)
        zproc.sleep(0.01)
        local me = ("%d"):format(zproc.getpid())
        local mine = count(own, me)
        own:get_when(function(view)
          return view.done.all > 34 or view.done.all - (view.done[me] or 0) >= mine - 2
        end, { timeout = support.GENEROUS })
        return me
      end, zproc.range(1, 40), { count = 2, stateful = true }) do
        run = stamp == last and run + 1 or 1
        last = stamp
        most = math.max(most, run)
      end
      assert.is_true(most < 10, most .. " in a row by one worker")
    end)
  end)

  describe("reads an iterator", function()
    it("only so far ahead", function()
      local next_item, calls = counter(math.huge)
      local result = ctx:process_map(function(n) return n end, next_item)
      for i = 1, 1000 do assert.equal(i, (result:next())) end
      assert.is_true(calls.n < 3000000, calls.n .. " items were read")
      local before = calls.n
      state:get_when_available("never", { timeout = 0.05 })
      assert.equal(before, calls.n)
      result:close()
    end)

    it("only so far that large items do not fill the memory", function()
      local next_item, calls = counter(math.huge)
      local result = ctx:process_map(function(text) return #text end, function()
        return ("x"):rep(1 << 20) .. next_item()
      end)
      for _ = 1, 20 do result:next() end
      assert.is_true(calls.n < 200, calls.n .. " items of a megabyte were read")
      result:close()
    end)

    it("and gives results while it is being read, however slow it is", function()
      local next_item, calls = counter(50)
      local result = ctx:process_map(square, function()
        zproc.sleep(0.01)
        return next_item()
      end)
      assert.equal(1, (result:next()))
      assert.is_true(calls.n < 40, calls.n .. " items were read before the first result was given")
      assert.equal(49, result:collect().n)
    end)

    it("that raises: what came before is there, and then the error", function()
      local calls = 0
      local result = ctx:process_map(square, function()
        calls = calls + 1
        if calls == 4 then error("the source broke") end
        return calls
      end)
      for i = 1, 3 do assert.equal(i * i, (result:next())) end
      local ok, err = pcall(result.next, result)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find("the source broke", 1, true))
      assert.is_nil(result:next())
      assert.same({ 1 }, list(ctx:process_map(square, { 1 })))
    end)
  end)

  it("stops when nobody takes its results", function()
    local result = ctx:process_map(function(own, n)
      own[n] = true
      return ("x"):rep(1 << 20)
    end, zproc.range(1, 1000), { stateful = true })
    -- Until the limit is reached, and no further.
    local queue, task = core.queue(ctx.server_process.directory), result._task
    eventually("the work stops", function()
      local info = queue:describe(task)
      return info.active == 0 and info.finished >= 30
    end)
    local done = #state
    assert.is_true(done < 100, done .. " were worked on")
    for _ = 1, 20 do assert.equal(1 << 20, #result:next()) end
    eventually("it goes on", function() return #state > done end)
    queue:close()
    result:close()
  end)

  describe("raises", function()
    it("what the target has raised, at its item, with the traceback from there", function()
      local result = ctx:process_map(function(n)
        if n == 3 then error("three is bad") end
        return n
      end, { 1, 2, 3, 4 })
      assert.equal(1, (result:next()))
      assert.equal(2, (result:next()))
      local err = refuses("three is bad", result.next, result)
      assert.equal("RemoteError", err.name)
      assert.is_truthy(err.traceback:find("map_spec.lua", 1, true))
      assert.is_nil(err.traceback:find("zproc.worker", 1, true))
      assert.equal(4, (result:next()))
      local Refused = zproc.error_class "ConnectionError"
      err = refuses("no answer", function() ctx:process_map(function() error(Refused "no answer") end, { 1 }):collect() end)
      assert.equal("ConnectionError", err.name)
    end)

    it("or gives it as the result, if that is wanted", function()
      local all = ctx:process_map(function(n)
        if n % 2 == 0 then error { code = n } end
        return n
      end, zproc.range(1, 6), { on_error = "return" }):collect()
      assert.equal(6, all.n)
      assert.equal(5, all[5])
      assert.is_true(zproc.is_error(all[4], "RemoteError"))
      assert.equal(4, all[4].cause.code)
    end)

    it("at the item whose result cannot travel", function()
      local result = ctx:process_map(function(n) return n == 2 and io.stdout or n end, { 1, 2, 3 })
      assert.equal(1, (result:next()))
      refuses("result: cannot send a userdata (FILE*)", result.next, result)
      assert.equal(3, (result:next()))
      result = ctx:process_map(function(n) return n == 2 and { a = coroutine.create(print) } or n end, { 1, 2, 3 })
      assert.equal(1, (result:next()))
      local err = refuses("result.a: cannot send a coroutine", result.next, result)
      assert.equal("EncodeError", err.name)
      assert.equal(3, (result:next()))
    end)

    it("if the target calls for the end of its process, and the worker goes on", function()
      for _, way in ipairs { "os", "zproc" } do
        local result = ctx:process_map(function(n, how)
          if n == 2 then (how == "os" and os.exit or zproc.exit)(3) end
          return zproc.getpid()
        end, { 1, 2, 3 }, { args = { way }, count = 1 })
        local pid = result:next()
        refuses("called for the end of its process (status 3)", result.next, result)
        assert.equal(pid, (result:next()))
      end
    end)

    it("when nobody survives an item, and names it", function()
      local result = ctx:process_map(function(n)
        if n == 3 then os.execute("kill -9 $PPID") end
        return n
      end, { 1, 2, 3, 4 }, { max_attempts = 2 })
      assert.equal(1, (result:next()))
      assert.equal(2, (result:next()))
      refuses("item 3: each of 2 workers died", result.next, result)
      assert.equal(4, (result:next()))
      assert.is_nil(result:next())
      assert.same({ 1, 4 }, list(ctx:process_map(square, { 1, 2 })))
    end)
  end)

  describe("refuses", function()
    local cases = {
      ["a target that is no function"] = { "the target must be a function", 5, { 1 } },
      ["no sequence"] = { "a sequence is needed", square },
      ["a sequence that is none"] = { "a sequence is an array", square, 5 },
      ["a string as a sequence"] = { "a sequence is an array", square, "abc" },
      ["a count of 0"] = { "option 'count' must be an integer of at least 1", square, { 1 }, { count = 0 } },
      ["a count of 1.5"] = { "option 'count' must be an integer of at least 1", square, { 1 }, { count = 1.5 } },
      ["a chunk size of 0"] = { "option 'chunk_size'", square, { 1 }, { chunk_size = 0 } },
      ["no attempts"] = { "option 'max_attempts'", square, { 1 }, { max_attempts = 0 } },
      ["another way with errors"] = { "'raise' or 'return'", square, { 1 }, { on_error = "ignore" } },
      ["progress that is neither"] = { "option 'progress'", square, { 1 }, { progress = 5 } },
      ["an unknown option"] = { "unknown option 'cuont' (did you mean 'count'?)", square, { 1 }, { cuont = 1 } },
      ["map_args that are no tables"] = { "item 2 of map_args must be a table", square, { 1, 2 }, { map_args = { {}, 5 } } },
      ["a hole in an array"] = { "nil", square, { n = 3, 1, nil, 3 } },
      ["args that are none"] = { "option 'args'", square, { 1 }, { args = 5 } },
    }
    for what, case in pairs(cases) do
      it(what, function()
        refuses(case[1], function() return ctx:process_map(table.unpack(case, 2, 4)):collect() end)
        assert.same({ 1 }, list(ctx:process_map(square, { 1 })))
      end)
    end

    it("a target that cannot travel, and items that cannot, by name", function()
      local file <close> = io.open("/dev/null")
      refuses("upvalue file", ctx.process_map, ctx, function() return file end, { 1 })
      refuses("cannot send a Context", ctx.process_map, ctx, function() return ctx end, { 1 })
      refuses("item 3.x: cannot send a userdata (FILE*)", ctx.process_map, ctx, square, { 1, 2, { x = file } })
      refuses("cannot send a userdata (FILE*)", ctx.process_map, ctx, square, { 1 }, { args = { file } })
      assert.same({ 1 }, list(ctx:process_map(square, { 1 })))
    end)

    it("to be used when it is closed, or in another process", function()
      local result = ctx:process_map(square, { 1, 2, 3 })
      result:next()
      local words = ctx:process(function()
        local _, err = pcall(result.next, result)
        return tostring(err)
      end):wait()
      assert.is_truthy(words:find("belongs to process", 1, true))
      result:close()
      result:close()
      refuses("this MapResult is closed", result.next, result)
      local brief = zproc.context()
      local late = brief:process_map(square, { 1, 2, 3 })
      brief:close()
      refuses("the Context of this MapResult is closed", late.next, late)
      refuses("this Context is closed", brief.process_map, brief, square, { 1 })
      refuses("belongs to process", function()
        error(ctx:process(function() return (select(2, pcall(ctx.process_map, ctx, square, { 1 }))) end):wait())
      end)
    end)
  end)

  it("leaves nothing when its result is closed, or forgotten #local", function()
    local queue = core.queue(ctx.server_process.directory)
    local closed = ctx:process_map(square, zproc.range(1, 1000000))
    local task = closed._task
    assert.is_truthy(queue:describe(task))
    closed:close()
    assert.is_nil(queue:describe(task))
    local forgotten = ctx:process_map(square, numbers(1000))
    task = forgotten._task
    forgotten = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_nil(queue:describe(task))
    assert.equal(100, ctx:process_map(square, zproc.range(1, 100)):collect().n)
    queue:close()
  end)

  describe("whose workers are killed", function()
    it("loses no item and does not hang", function()
      local result = ctx:process_map(function(n)
        zproc.sleep(0.0005)
        return n * n
      end, numbers(400), { count = 3, max_attempts = 1000 })
      math.randomseed(1)
      local expected = 0
      for i, value in result do
        expected = expected + 1
        assert.same({ expected, expected * expected }, { i, value })
        if i % 20 == 0 then
          local victim = ctx.worker_list[math.random(#ctx.worker_list)]
          if victim.is_alive then kill(victim.pid) end
        end
      end
      assert.equal(400, expected)
    end)

    it("at random, has each item once and in order", function()
      local pipe = io.popen(("%s run %s 3 2>&1"):format(support.quote(os.getenv "ZPROC"),
        support.quote(os.getenv "SRCDIR" .. "/tests/fault/map_kill.lua")))
      local text = pipe:read "a"
      pipe:close()
      assert.is_truthy(text:find("# 3 rounds, each item once and in order", 1, true), text)
    end)

    it("all at once, goes on with others", function()
      local result = ctx:process_map(square, zproc.range(1, 100), { count = 2 })
      for _, worker in ipairs(ctx.worker_list) do kill(worker.pid) end
      assert.equal(100, result:collect().n)
    end)
  end)

  describe("with a task", function()
    it("that is pulled later, by itself or another Context, as JSON", function()
      local cjson = require "cjson"
      local task = ctx:process_map(square, zproc.range(1, 50), { return_task = true })
      local travelled = cjson.decode(cjson.encode(task))
      local other <close> = zproc.context(ctx.server_address)
      local result = other:pull_results_for_task(travelled)
      assert.equal(1, (result:next()))
      assert.equal(2500, result:collect()[49])
      refuses("TaskLost", ctx.pull_results_for_task, ctx, task)
    end)

    it("that another process pulls", function()
      for _, sequence in ipairs { zproc.range(1, 200), numbers(200), (counter(200)) } do
        local task = ctx:process_map(square, sequence, { return_task = true })
        local p = ctx:process(function(inner) return inner:pull_results_for_task(task):collect().n end, { pass_context = true })
        assert.equal(200, p:wait(support.GENEROUS))
      end
    end)

    it("whose maker is dead", function()
      local maker = ctx:process(function(inner)
        inner.state.task = inner:process_map(function(n)
          zproc.sleep(0.001)
          return n * n
        end, zproc.range(1, 300), { return_task = true, count = 2 })
        zproc.sleep(1000)
      end, { pass_context = true })
      local task = state:get_when_available("task").task
      kill(maker.pid)
      pcall(maker.wait, maker)
      local all = ctx:pull_results_for_task(task):collect()
      assert.equal(300, all.n)
      assert.equal(90000, all[300])
    end)

    it("whose first puller is dead: from where he was", function()
      local task = ctx:process_map(function(n) return n end, zproc.range(1, 300), { return_task = true, chunk_size = 1 })
      local puller = ctx:process(function(inner)
        local result = inner:pull_results_for_task(task)
        for _ = 1, 100 do inner.state.got = result:next() end
        zproc.sleep(1000)
      end, { pass_context = true })
      state:get_when_equal("got", 100)
      kill(puller.pid)
      pcall(puller.wait, puller)
      local result = ctx:pull_results_for_task(task)
      local first, i = result:next()
      assert.equal(first, i)
      assert.is_true(i <= 101)
      assert.equal(300 - i, result:collect().n)
    end)

    it("whose items end with its maker #local", function()
      local maker = ctx:process(function(inner)
        local queue_task
        local n = 0
        local result = inner:process_map(square, function()
          n = n + 1
          if n == 11 then
            inner.state.ready = true
            zproc.sleep(1000)
          end
          return n
        end, { chunk_size = 1 })
        queue_task = result._task
        inner.state.id = queue_task
        result:collect()
      end, { pass_context = true })
      -- The block that was begun is lost with its maker; no more than what was put can be there.
      state:get_when_available("ready", { timeout = support.GENEROUS })
      kill(maker.pid)
      pcall(maker.wait, maker)
      local queue = core.queue(ctx.server_process.directory)
      local id = state.id or 1
      local info = queue:describe(id)
      queue:close()
      assert.is_false(info ~= nil and info.is_produced)
      local _, err = pcall(function()
        local result = ctx:pull_results_for_task { task = id, server_address = ctx.server_address, count = 2 }
        for _ = 1, 12 do result:next() end
      end)
      assert.equal("TaskLost", err.name)
      -- The server drops it, as it was private, and may have done so at any point of this.
      local is_dropped = err.message:find("there is no task", 1, true) or err.message:find("not there any more", 1, true)
      assert.is_truthy(is_dropped or err.message:find("is dead", 1, true), err.message)
    end)

    it("that is none, or another server's", function()
      refuses("takes what ctx:process_map gives", ctx.pull_results_for_task, ctx, 5)
      refuses("takes what ctx:process_map gives", ctx.pull_results_for_task, ctx, { task = 1.5 })
      refuses("TaskLost", ctx.pull_results_for_task, ctx, { task = 99, server_address = ctx.server_address, count = 1 })
      local other <close> = zproc.context()
      local task = other:process_map(square, { 1 }, { return_task = true })
      refuses("one of the server", ctx.pull_results_for_task, ctx, task)
    end)
  end)

  describe("tells its progress", function()
    it("to a function", function()
      local seen = {}
      ctx:process_map(function() zproc.sleep(0.01) end, zproc.range(1, 40), {
        progress = function(now) seen[#seen + 1] = now end,
      }):collect()
      assert.is_true(#seen >= 2, #seen .. " calls")
      local last = seen[#seen]
      assert.same({ 40, 40 }, { last.done, last.total })
      for i = 2, #seen do assert.is_true(seen[i].done >= seen[i - 1].done) end
      assert.is_true(last.rate > 0 and last.remaining == 0)
      local unknown = {}
      ctx:process_map(square, (counter(10)), { progress = function(now) unknown[#unknown + 1] = now end }):collect()
      assert.equal(10, unknown[#unknown].done)
    end)

    it("as a line for a terminal, and not at all to a file", function()
      local progress = require "zproc.progress"
      assert.equal("[###############...............]  50% 5/10 items, 2.5/s, 2 s left",
        progress.line { done = 5, total = 10, rate = 2.5, remaining = 2 })
      assert.equal("5 items, 2.5/s", progress.line { done = 5, rate = 2.5 })
      assert.is_truthy(progress.line { done = 1, total = 100, rate = 0.01, remaining = 9900 }:find("2:45 h left", 1, true))
      local pipe = support.run_script [[
        local zproc = require "zproc"
        zproc.context():process_map(math.abs, zproc.range(1, 10), { progress = true }):collect()
      ]]
      assert.equal("", pipe:read "a")
      pipe:close()
    end)
  end)

  it("leaves nothing behind when its script is killed", function()
    local pipe = support.run_script [[
      local zproc = require "zproc"
      local ctx = zproc.context()
      local result = ctx:process_map(function() while true do end end, zproc.range(1, 10), { count = 2 })
      print(zproc.getpid(), ctx.worker_list[1].pid, ctx.worker_list[2].pid, ctx.server_process.directory)
      io.stdout:flush()
      result:next()
    ]]
    local pid, one, two, directory = pipe:read():match "(%d+)%s+(%d+)%s+(%d+)%s+(.*)"
    kill(pid)
    for _, worker in ipairs { one, two } do
      eventually("the workers end", function() return not support.is_running(worker) end)
    end
    eventually("the directory goes", function() return not io.open(directory .. "/owner") end)
    pipe:close()
  end)
end)

describe("a range", function()
  it("has its numbers, both ends included", function()
    local function all(...)
      local range, found = zproc.range(...), {}
      for i = 1, #range do found[i] = range[i] end
      return found
    end
    assert.same({ 1, 2, 3 }, all(1, 3))
    assert.same({ 1, 3, 5 }, all(1, 6, 2))
    assert.same({ 3, 1, -1 }, all(3, -1, -2))
    assert.same({}, all(3, 1))
    assert.same({}, all(1, 3, -1))
    assert.same({ 5 }, all(5, 5))
    assert.same({ 0.0, 0.5, 1.0 }, all(0, 1, 0.5))
    assert.equal(11, #zproc.range(0, 1, 0.1))
    assert.is_nil(zproc.range(1, 3)[4])
    assert.is_nil(zproc.range(1, 3)[0])
    assert.equal("range of 3 numbers from 1, step 1", tostring(zproc.range(1, 3)))
    assert.equal(math.maxinteger, #zproc.range(1, math.maxinteger))
  end)

  it("is of numbers", function()
    refuses("first must be a number", zproc.range, "1", 3)
    refuses("last must be a number", zproc.range, 1)
    refuses("must not be 0", zproc.range, 1, 3, 0)
    refuses("last must be a number", zproc.range, 1, math.huge)
  end)
end)
