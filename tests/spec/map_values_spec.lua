-- What travels between a map and its workers: each item and result for itself, as it was, or an error of its own.
local core = require "zproc.core"
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses = support.refuses

-- What travels takes its globals along; those of a script, not the environment that specs run in.
local describe, it, before_each, after_each, assert = describe, it, before_each, after_each, assert
local _ENV <const> = _G

--- A table that is nested so deep, itself included.
local function nest(depth)
  local value = {}
  for _ = 2, depth do value = { value } end
  return value
end

local function depth_of(value)
  local depth = 0
  while type(value) == "table" do depth, value = depth + 1, value[1] end
  return depth
end

--- A module that is there in this process alone; a function of it.
local function private_module(name, source)
  local loaded = assert(load(source or "return { f = function() return 'here' end }", "=" .. name))()
  package.loaded[name] = loaded
  return loaded
end

local LIMIT <const> = 4000 -- levels that travel

describe("the values of a map", function()
  local ctx, threads

  before_each(function()
    ctx = zproc.context()
    threads = zproc.context(ctx.server_address, { process = { backend = "thread" } })
  end)
  after_each(function()
    threads:close()
    ctx:close()
  end)

  --- The results, errors among them.
  local function take(context, target, sequence, options)
    options = options or {}
    options.on_error, options.count = "return", options.count or 2
    return context:process_map(target, sequence, options):collect()
  end

  --- All is well but what is expected to be an error: of this class, with these words.
  local function expect(all, n, bad, class, words)
    assert.equal(n, all.n)
    for i = 1, n do
      if bad[i] then
        assert.is_true(zproc.is_error(all[i], class), i .. ": " .. tostring(all[i]))
        assert.is_truthy(tostring(all[i]):find(words, 1, true), tostring(all[i]))
      else
        assert.equal(i, all[i])
      end
    end
  end

  describe("are what they were", function()
    local function first(t) return t[1] end

    it("when the iterator gives the same table again", function()
      for _, context in ipairs { ctx, threads } do
        local t, i = {}, 0
        local function again()
          i = i + 1
          t[1] = i
          return i <= 12 and t or nil
        end
        expect(take(context, first, again), 12, {})
        i = 0
        expect(take(context, function(a) return a.deep[1] end, function()
          local item = again()
          return item and { deep = item }
        end), 12, {})
      end
    end)

    it("when something like an array gives the same table again", function()
      local t = {}
      expect(take(ctx, first, setmetatable({}, {
        __len = function() return 12 end,
        __index = function(_, i)
          t[1] = i
          return t
        end,
      })), 12, {})
    end)

    it("when further arguments are the same table again", function()
      local t, i = {}, 0
      local function again()
        i = i + 1
        t[1] = i
        return i <= 12 and t or nil
      end
      expect(take(ctx, function(_, n) return n end, zproc.range(1, 12), { map_args = again }), 12, {})
      i = 0
      expect(take(ctx, function(_, kwargs) return kwargs[1] end, zproc.range(1, 12), { map_kwargs = again }), 12, {})
      i = 0
      local all = take(ctx, function(a, b) return { a[1], b } end, again, { map_args = again })
      for k = 1, all.n do assert.same({ 2 * k - 1, 2 * k }, all[k]) end
    end)

    it("when an iterator changes an upvalue in a function that it gives", function()
      local i = 0
      local function value() return i end
      expect(take(ctx, function(fn) return fn() end, function()
        i = i + 1
        return i <= 12 and value or nil
      end), 12, {})
    end)

    it("when the target returns the same table again", function()
      for _, context in ipairs { ctx, threads } do
        local t = {}
        local all = take(context, function(i)
          t[1] = i
          return i % 2 == 0 and t or i
        end, zproc.range(1, 200), { count = 1, chunk_size = 50 })
        for i = 1, 200 do assert.equal(i, type(all[i]) == "table" and all[i][1] or all[i]) end
      end
    end)

    it("when an array holds the same table again, for each call", function()
      local t = { 0 }
      for _, context in ipairs { ctx, threads } do
        local all = take(context, function(own)
          own[1] = own[1] + 1
          return own[1]
        end, { t, t, t, t, t, t }, { count = 1, chunk_size = 6 })
        assert.same({ 1, 1, 1, 1, 1, 1, n = 6 }, all)
      end
      assert.same({ 0 }, t)
    end)

    it("when args and kwargs hold tables, for each call", function()
      local t, kw = { 0 }, { list = {}, same = nil }
      kw.same = t
      for _, context in ipairs { ctx, threads } do
        for _, sequence in ipairs { zproc.range(1, 6), { 1, 2, 3, 4, 5, 6 } } do
          local all = take(context, function(i, own, again, text, kwargs)
            own[1] = own[1] + 1
            kwargs.list[#kwargs.list + 1] = i
            kwargs.new = i
            return { own[1], rawequal(own, again), rawequal(own, kwargs.same), #kwargs.list, text, kwargs.before == nil }
          end, sequence, { count = 1, chunk_size = 6, args = { t, t, "text" }, kwargs = kw })
          for i = 1, 6 do assert.same({ 1, true, true, 1, "text", true }, all[i]) end
        end
        local all = take(context, function(state, i, own, kwargs)
          own[#own + 1] = i
          kwargs[#kwargs + 1] = i
          return { #own, #kwargs, state ~= nil }
        end, zproc.range(1, 6), { count = 1, args = { {} }, kwargs = {}, stateful = true })
        for i = 1, 6 do assert.same({ 1, 1, true }, all[i]) end
        all = take(context, function(mapped, own, kwargs)
          own.n = own.n + mapped
          kwargs.own.n = kwargs.own.n + mapped
          return { own.n, kwargs.own.n, kwargs.mapped }
        end, nil, { map_args = { { 1 }, { 2 }, { 3 } }, map_kwargs = { { mapped = 1 }, { mapped = 2 }, { mapped = 3 } }, args = { { n = 0 } },
          kwargs = { own = { n = 10 } }, count = 1, chunk_size = 3 })
        for i = 1, 3 do assert.same({ i, 10 + i, i }, all[i]) end
      end
      local task = ctx:process_map(function(i, own)
        own[1] = own[1] + i
        return own[1]
      end, { 1, 2, 3 }, { args = { t }, count = 1, return_task = true })
      assert.same({ 1, 2, 3, n = 3 }, threads:pull_results_for_task(task):collect())
      assert.same({ { 0 }, {} }, { t, kw.list })
    end)

    it("when args hold what is nested, cyclic, a key, an object or a function", function()
      local Counter = { __name = "Counter" }
      Counter.__index = Counter
      function Counter:add() self.n = self.n + 1 return self.n end
      local cyclic, key = { n = 0 }, { "key" }
      cyclic.self, cyclic[key] = cyclic, key
      local variable, deep = 0, nest(LIMIT - 10)
      local function count()
        variable = variable + 1
        return variable
      end
      local object = {}
      function object.count() object.n = (object.n or 0) + count() return object.n end
      for _, context in ipairs { ctx, threads } do
        local all = take(context, function(i, counter, ring, k, counts, look, self, far)
          ring.self.self.n = ring.n + 1
          local last = far
          while last[1] do last = last[1] end
          last.n = (last.n or 0) + 1
          k[#k + 1] = i
          Counter.calls = (Counter.calls or 0) + 1 -- the target's own
          return { counter:add(), ring.n, rawequal(ring[k], k), #k, counts(), look(), self.count(), self.n, last.n,
            getmetatable(counter) == Counter }
        end, zproc.range(1, 5), { count = 1, chunk_size = 5, args = { setmetatable({ n = 0 }, Counter), cyclic, key, count,
          function() return variable end, object, deep } })
        for i = 1, 5 do assert.same({ 1, 1, true, 2, 1, 1, 2, 2, 1, true }, all[i]) end
      end
    end)

    it("but what the target tells values by is the same for args, and so are the variables that it has in common with functions in them", function()
      local NONE, MARK, Class = {}, setmetatable({ "mark" }, {}), { __name = "Class" }
      local calls = 0
      local function note() calls = calls + 1 end
      local plain = { n = 0 }
      for _, context in ipairs { ctx, threads } do
        local all = take(context, function(_, none, mark, object, tell, data, m, f)
          tell()
          data.n = data.n + 1
          return { rawequal(none, NONE), rawequal(mark, MARK), getmetatable(object) == Class, calls, data.n, m == string, f == string.format,
            plain.n }
        end, zproc.range(1, 4), { count = 1, chunk_size = 4, args = { NONE, MARK, setmetatable({}, Class), note, plain, string,
          string.format } })
        for i = 1, 4 do assert.same({ true, true, true, i, 1, true, true, 0 }, all[i]) end
      end
    end)

    it("when results share a table", function()
      local all = take(ctx, function() return { "shared" } end, zproc.range(1, 4), { count = 1, chunk_size = 4 })
      local common = {}
      local same = take(ctx, function() return common end, zproc.range(1, 4), { count = 1, chunk_size = 4 })
      for i = 1, 3 do
        assert.same({ "shared" }, all[i])
        assert.not_equal(same[i], same[i + 1])
      end
    end)

    it("of whatever kind, in any order", function()
      local values = { 1, 2.5, "text", true, false, { 1, x = "y" }, -7, 1 << 40, "", 0.0, ("long"):rep(1000), zproc.null, "end" }
      local function same(value) return value end
      assert.same({ n = #values, table.unpack(values) }, take(ctx, same, values))
      local i = 0
      assert.same({ n = #values, table.unpack(values) }, take(ctx, same, function()
        i = i + 1
        return values[i]
      end))
      for k = 1, #values do
        local one = { values[k], values[k], values[k] }
        assert.same({ n = 3, table.unpack(one) }, take(ctx, same, one))
      end
      local all = take(ctx, function(n) return n % 3 == 0 and n or nil end, zproc.range(1, 100))
      for n = 1, 100 do assert.equal(n % 3 == 0 and n or nil, all[n]) end
      all = take(ctx, function(n) return n % 3 == 0 and tostring(n) or n end, zproc.range(1, 100))
      for n = 1, 100 do assert.equal(n % 3 == 0 and tostring(n) or n, all[n]) end
      all = take(ctx, function(n) return n % 50 == 0 and n + 0.5 or n end, zproc.range(1, 100))
      for n = 1, 100 do assert.equal(n % 50 == 0 and n + 0.5 or n, all[n]) end
    end)
  end)

  it("and targets are forgotten by workers when their maps are over", function()
    local MEGABYTES <const>, MAPS <const> = 8, 12
    for _, context in ipairs { ctx, threads } do
      --- What the VM of a worker holds, in megabytes, after a map with a large upvalue.
      local function use(i)
        local text = ("x"):rep(MEGABYTES << 20) .. i
        return context:process_map(function()
          local size = #text
          return collectgarbage "count" / 1024, size
        end, { 1 }, { count = 1 }):next()
      end
      local first, last = use(0), nil
      for i = 1, MAPS do last = use(i) end
      assert.is_true(last - first < 5 * MEGABYTES, ("%.0f MB, and at first %.0f MB"):format(last, first))
    end
  end)

  it("may belong to many maps at a time", function()
    local results = {}
    for k = 1, 10 do
      results[k] = ctx:process_map(function(i) return i * k end, zproc.range(1, 50), { count = 2, chunk_size = 5 })
    end
    for i = 1, 50 do
      for k = 1, 10 do assert.same({ i * k, i }, { results[k]:next() }) end
    end
  end)

  it("are waited for as long as one says", function()
    for _, context in ipairs { ctx, threads } do
      local result <close> = context:process_map(function(i, address)
        if i == 2 then zproc.state(address):get_when_equal("proceed", true) end
        return i
      end, { 1, 2, 3 }, { count = 1, chunk_size = 1, args = { ctx.server_address } })
      assert.same({ 1, 1 }, { result:next(support.GENEROUS) })
      for _, timeout in ipairs { 0, 0.01, 0.25 } do
        local value, err = result:next(timeout)
        assert.is_nil(value)
        assert.is_true(zproc.is_error(err, "TimeoutError"))
        assert.is_truthy(err.message:find("waiting for result 2", 1, true))
      end
      ctx.state.proceed = true
      assert.same({ 2, 2 }, { result:next(support.GENEROUS) })
      assert.same({ 3, 3 }, { result:next(support.GENEROUS) })
      assert.same({ n = 2 }, table.pack(result:next(support.GENEROUS)))
      refuses("the timeout must be", result.next, result, -1)
      refuses("the timeout must be", result.next, result, "soon")
      ctx.state.proceed = nil
    end
    local n = 0
    local slow <close> = ctx:process_map(function(i) return i end, function()
      n = n + 1
      zproc.sleep(n > 1 and 0.01 or 0)
      return n
    end)
    for i = 1, 20 do
      local value, err
      repeat value, err = slow:next(0) until value or not zproc.is_error(err, "TimeoutError")
      assert.same({ i, i }, { value, err })
    end
  end)

  it("are the same tables everywhere if they are modules, or fields of these", function()
    local Class = { __name = "Class" }
    Class.__index = Class
    package.loaded.zp_private = { NONE = setmetatable({}, {}), Class = Class }
    local m = require "zp_private"
    local none = m.NONE
    local all = take(ctx, function(item)
      if rawequal(item, none) and item == require "zp_private".NONE then return none end
      return getmetatable(item) == Class and setmetatable({ rawequal(item.none, none) }, Class) or "other"
    end, { none, setmetatable({ none = none }, Class), {} })
    package.loaded.zp_private = nil
    assert.is_true(rawequal(none, all[1]))
    assert.equal(Class, getmetatable(all[2]))
    assert.is_true(all[2][1])
    assert.equal("other", all[3])
  end)

  describe("that cannot be read", function()
    after_each(function()
      for _, name in ipairs { "zp_private", "zp_raising", "zp_table_raising" } do package.loaded[name], package.preload[name] = nil, nil end
    end)

    it("by a worker are errors of their items", function()
      local function same(value) return value end
      for _, context in ipairs { ctx, threads } do
        local n = 0
        expect(take(context, same, function() -- workers have begun without the module
          n = n + 1
          if n == 3 then return private_module "zp_private".f end
          return n == 17 and { package.loaded.zp_private } or n <= 20 and n or nil
        end), 20, { [3] = true, [17] = true }, "DecodeError", "cannot be read by a worker: it uses the module 'zp_private'")
      end
      local items = {}
      for i = 1, 20 do items[i] = i end
      items[3], items[17] = package.loaded.zp_private.f, { package.loaded.zp_private }
      expect(take(threads, same, items), 20, { [3] = true, [17] = true }, "DecodeError", "item ")
    end)

    it("by a worker since the target cannot are errors of all items, and the next map is as good as any", function()
      local m = private_module "zp_private"
      expect(take(threads, function() return m.f() end, zproc.range(1, 5)), 5, { true, true, true, true, true }, "DecodeError", "zp_private")
      expect(take(threads, function(i) return i end, zproc.range(1, 5)), 5, {})
    end)

    it("by the consumer are errors of their items, and the next call goes on", function()
      for _, context in ipairs { ctx, threads } do
        local function target(i)
          if i % 4 ~= 0 then return i end
          package.loaded.zp_private = package.loaded.zp_private or { f = function() end }
          return i % 8 == 0 and { package.loaded.zp_private } or package.loaded.zp_private.f
        end
        local bad = { [4] = true, [8] = true, [12] = true }
        expect(take(context, target, zproc.range(1, 14), { chunk_size = 7 }), 14, bad, "DecodeError", "the result of item ")
        local result <close> = context:process_map(target, zproc.range(1, 14), { chunk_size = 14 })
        for i = 1, 14 do
          if bad[i] then
            refuses(("the result of item %d cannot be read here"):format(i), result.next, result)
          else
            assert.same({ i, i }, { result:next() })
          end
        end
        assert.is_nil((result:next()))
      end
    end)

    it("in an error leave its words", function()
      for _, context in ipairs { ctx, threads } do
        local all = take(context, function(i)
          package.loaded.zp_private = package.loaded.zp_private or { f = function() end }
          if i == 2 then error { "what happened", package.loaded.zp_private } end
          if i == 3 then error(zproc.error_class "MyError" { message = "in my words", detail = package.loaded.zp_private.f }) end
          return i
        end, zproc.range(1, 4))
        expect({ n = 4, 1, 2, 3, all[4] }, 4, {})
        assert.is_true(zproc.is_error(all[2]))
        assert.is_true(zproc.is_error(all[3]))
        assert.is_truthy(tostring(all[3]):find("in my words", 1, true))
      end
    end)

    it("for what their module raises are errors with these words", function()
      local directory = os.tmpname()
      os.remove(directory)
      os.execute("mkdir " .. directory)
      local path = package.path
      package.path = directory .. "/?.lua;" .. path
      for name, source in pairs { zp_raising = "error 'not today'", zp_table_raising = "error { code = 5 }" } do
        local file <close> = assert(io.open(("%s/%s.lua"):format(directory, name), "w"))
        file:write(source)
        private_module(name)
      end
      local all = take(threads, function(value) return value end, { 1, package.loaded.zp_raising, 3, package.loaded.zp_table_raising })
      os.execute("rm -r " .. directory)
      package.path = path
      expect(all, 4, { [2] = true, [4] = true }, "DecodeError", "cannot be loaded here")
      assert.is_truthy(all[2].message:find("not today", 1, true))
    end)

    it("from a process are an error object", function()
      for _, options in ipairs { {}, { backend = "thread" } } do
        local p = ctx:process(function()
          package.loaded.zp_private = { f = function() end }
          return package.loaded.zp_private.f
        end, options)
        local err
        for _ = 1, 2 do
          err = refuses("it uses the module 'zp_private', which cannot be loaded here", p.wait, p)
          assert.equal("DecodeError", err.name)
        end
        local m = private_module "zp_private" -- now it can be read, and so it is
        assert.equal(m.f, p:wait())
        package.loaded.zp_private = nil
        assert.equal(m.f, p:wait())
        p = ctx:process(function()
          package.loaded.zp_private = { f = function() end }
          error(zproc.error_class "MyError" { message = "in my words", detail = package.loaded.zp_private.f })
        end, options)
        err = refuses("in my words", p.wait, p)
        assert.equal("ProcessWaitError", err.name)
        assert.equal(1, err.exitcode)
      end
    end)

    it("in the state are an error object", function()
      local p = ctx:process(function(state)
        package.loaded.zp_private = { f = function() end }
        state.value = package.loaded.zp_private.f
      end)
      p:wait()
      for _, read in ipairs {
        function() return ctx.state.value end, function() return ctx.state:get "value" end, function() return ctx.state:copy() end,
        function() return ctx.state:values() end, function() return ctx.state:items() end,
        function() return zproc.atomic(function(snapshot) return snapshot.value end)(ctx.state) end,
        function() return ctx.state:get_when_not_none "value" end, function() return ctx.state:pop "value" end,
        function() return ctx.state:popitem() end, function() return ctx.state:setdefault("value", 1) end,
      } do
        assert.equal("DecodeError", refuses("it uses the module 'zp_private', which cannot be loaded here", read).name)
      end
    end)

    it("in the state are there still after an attempt to take them out", function()
      for _, take_out in ipairs {
        function(state) return state:pop "value" end, function(state) return select(2, state:popitem()) end,
        zproc.atomic(function(snapshot)
          local value = snapshot.value
          snapshot.value = nil
          return value
        end),
      } do
        for _, kind in ipairs { "function", "table" } do
          ctx:process(function(state, is_table)
            local f = function() return "here" end
            package.loaded.zp_private = { f = f }
            state.value = is_table and { f } or f
          end, { args = { kind == "table" } }):wait()
          for _ = 1, 2 do
            refuses("it uses the module 'zp_private', which cannot be loaded here", take_out, ctx.state)
            assert.is_true(ctx.state:contains "value")
          end
          local other = kind == "table" and { 5 } or 5
          ctx.state.value = other -- that can be read, and is removed
          assert.same(other, take_out(ctx.state))
          assert.is_false(ctx.state:contains "value")
        end
      end
      ctx:process(function(state)
        package.loaded.zp_private = { f = function() end }
        state.value = package.loaded.zp_private.f
      end):wait()
      refuses("zp_private", ctx.state.pop, ctx.state, "value")
      local m = private_module "zp_private"
      assert.equal(m.f, ctx.state:pop "value")
      assert.equal(0, #ctx.state)
    end)
  end)

  describe("that are nested as deep as can be", function()
    it("arrive, or are an error of their item if they are deeper", function()
      for _, context in ipairs { ctx, threads } do
        expect(take(context, function(value)
          if type(value) == "number" then return value end
          return depth_of(value) == LIMIT and 2
        end, { 1, nest(LIMIT), 3 }), 3, {})
        local all = take(context, function(i) return i == 2 and nest(LIMIT) or i end, { 1, 2, 3 })
        assert.equal(LIMIT, depth_of(all[2]))
        expect(take(context, function(i) return i == 2 and nest(LIMIT + 1) or i end, { 1, 2, 3 }), 3, { [2] = true }, "EncodeError",
          "nested deeper than 4000 levels")
      end
      assert.equal(0, ctx._worker_failures or 0)
    end)

    it("as items end the sequence there if they are deeper", function()
      local n = 0
      local result = ctx:process_map(function(value) return type(value) end, function()
        n = n + 1
        return n == 3 and nest(LIMIT + 1) or n
      end)
      assert.same({ "number", 1 }, { result:next() })
      assert.same({ "number", 2 }, { result:next() })
      assert.equal("EncodeError", refuses("item 3", result.next, result).name)
    end)

    it("travel in errors, or their words do", function()
      for _, depth in ipairs { LIMIT - 2, LIMIT - 1, LIMIT, LIMIT + 1 } do
        for _, context in ipairs { ctx, threads } do
          local all = take(context, function(i)
            if i == 2 then error { nest(depth) } end
            if i == 3 then error(zproc.error_class "MyError" { message = "deep", detail = nest(depth) }) end
            return i
          end, zproc.range(1, 4))
          expect(all, 4, { [2] = true, [3] = true }, nil, "")
          assert.is_truthy(tostring(all[3]):find("deep", 1, true))
        end
      end
    end)

    it("travel from processes, or are an error object", function()
      for _, options in ipairs { {}, { backend = "thread" } } do
        for _, depth in ipairs { LIMIT - 1, LIMIT, LIMIT + 1 } do
          options.args = { depth, nest }
          local p = ctx:process(function(_, d, make) return make(d) end, options)
          local ok, value = pcall(p.wait, p)
          if ok then assert.equal(depth, depth_of(value)) else assert.is_truthy(tostring(value):find("nested deeper", 1, true)) end
          assert.equal(depth < LIMIT, ok)
          p = ctx:process(function(_, d, make) error(zproc.error_class "MyError" { message = "deep", detail = make(d) }) end, options)
          assert.equal("ProcessWaitError", refuses("deep", p.wait, p).name)
        end
      end
    end)

    it("travel from atomic functions, or are an error object", function()
      for _, depth in ipairs { LIMIT - 2, LIMIT - 1, LIMIT, LIMIT + 1 } do
        local err = refuses("deep", zproc.atomic(function(_, d, make)
          error(zproc.error_class "MyError" { message = "deep", detail = make(d) })
        end), ctx.state, depth, nest)
        assert.equal("MyError", err.name)
        pcall(zproc.atomic(function(_, d, make) error(make(d)) end), ctx.state, depth, nest)
        local ok, value = pcall(zproc.atomic(function(_, d, make) return make(d) end), ctx.state, depth, nest)
        if not ok then assert.equal("EncodeError", value.name) end
        assert.equal(7, zproc.atomic(function() return 7 end)(ctx.state))
      end
    end)
  end)
end)
