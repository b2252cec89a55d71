-- process_map in bad times: sequences that break, processes that end at the wrong moment, signals, and whoever has no patience.
local core = require "zproc.core"
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses, eventually, kill = support.refuses, support.eventually, support.kill

-- What travels takes its globals along; those of a script, not the environment that specs run in.
local describe, it, before_each, after_each, assert, pending = describe, it, before_each, after_each, assert, pending
local _ENV <const> = _G

local MEGABYTE <const> = 1 << 20

local function same(value) return value end

--- An iterator over 1, 2, 3, ... which gives something else, or raises, where it is told.
local function counter_until(place, surprise)
  local n = 0
  return function()
    n = n + 1
    if n == place then return surprise() end
    return n
  end
end

--- Take results until one raises: how many there were, and the error.
local function take_all(result)
  local count = 0
  while true do
    local ok, value, i = pcall(result.next, result)
    if not ok then return count, value end
    if not i then return count, nil end
    count = count + 1
    assert.same({ count, count }, { value, i })
  end
end

describe("process_map in trouble:", function()
  local ctx, state

  before_each(function()
    ctx = zproc.context()
    state = ctx.state
  end)
  after_each(function() ctx:close() end)

  --- The Context is as good as new.
  local function expect_usable()
    local all = ctx:process_map(function(n) return n + 1 end, zproc.range(1, 100)):collect()
    assert.same({ 100, 2, 101 }, { all.n, all[1], all[100] })
  end

  local function info_of(task)
    local queue = core.queue(ctx.server_process.directory)
    local info = queue:describe(task)
    queue:close()
    return info
  end

  describe("a sequence", function()
    it("that raises ends there, wherever that is", function()
      for _, place in ipairs { 1, 2, 5, 22, 100, 5000 } do
        local count, err = take_all(ctx:process_map(same, counter_until(place, function() error("gone", 0) end)))
        assert.same({ place - 1, "gone" }, { count, err })
      end
      local result = ctx:process_map(same, counter_until(3, function() error() end))
      local count, err = take_all(result)
      assert.same({ 2 }, { count, err })
      expect_usable()
    end)

    it("with an item that cannot travel ends there, wherever that is", function()
      for _, place in ipairs { 1, 2, 22, 5000 } do
        local result = ctx:process_map(same, counter_until(place, function() return { io.stdout } end))
        local count, err = take_all(result)
        assert.equal(place - 1, count)
        assert.equal("EncodeError", err.name)
        assert.is_truthy(err.message:find(("item %d[1]: cannot send a userdata"):format(place), 1, true), err.message)
        assert.is_nil(result:next())
      end
      expect_usable()
    end)

    it("beside others may end first, be one that raises, or have a hole", function()
      local function both(a, b) return a + b end
      local function lists(place, surprise)
        local next_number = counter_until(place, surprise)
        return function()
          local n = next_number()
          return type(n) == "number" and { n } or n
        end
      end
      local result = ctx:process_map(both, zproc.range(1, 10), { map_args = lists(4, function() error("no list", 0) end) })
      for i = 1, 3 do assert.equal(2 * i, (result:next())) end
      assert.same({ false, "no list" }, { pcall(result.next, result) })
      result = ctx:process_map(both, zproc.range(1, 10), { map_args = lists(4, function() return "five" end) })
      for i = 1, 3 do assert.equal(2 * i, (result:next())) end
      refuses("item 4 of map_args must be a table, not the string \"five\"", result.next, result)
      refuses("item 2 of map_args is nil", ctx.process_map, ctx, both, { 1, 2, 3 }, { map_args = { n = 3, { 1 }, nil, { 3 } } })
      assert.equal(1, ctx:process_map(both, zproc.range(1, 1 << 60), { map_args = { { 1 } } }):collect().n)
      expect_usable()
    end)

    it("may be anything that is like an array", function()
      local proxy = setmetatable({}, { __index = function(_, i) return i * 10 end, __len = function() return 3 end })
      assert.same({ 10, 20, 30, n = 3 }, ctx:process_map(same, proxy):collect())
      local object = setmetatable({ kind = "list" }, getmetatable(proxy))
      assert.same({ 10, 20, 30, n = 3 }, ctx:process_map(same, object):collect())
      local long = setmetatable({}, { __index = function(_, i) return i end, __len = function() return 1 << 40 end })
      local result = ctx:process_map(same, long)
      for i = 1, 1000 do assert.equal(i, (result:next())) end
      result:close()
      assert.same({ 1, 2, n = 2 }, ctx:process_map(same, { 1, 2, n = "two" }):collect())
      local holes = setmetatable({ 1 }, { __len = function() return 2 end })
      refuses("item 2 of the sequence is nil", ctx.process_map, ctx, same, holes)
    end)

    it("of large strings is read ahead by few of them", function()
      local calls = 0
      local result <close> = ctx:process_map(function(text) return #text end, function()
        calls = calls + 1
        return ("x"):rep(10 * MEGABYTE)
      end)
      for _ = 1, 5 do assert.equal(10 * MEGABYTE, (result:next())) end
      assert.is_true(calls <= 12, calls .. " strings of 10 MB were read")
    end)

    it("whose items share a table shares nothing else", function()
      local shared = { n = 0 }
      local items = {}
      for i = 1, 1000 do items[i] = { shared, i } end
      local all = ctx:process_map(function(item) return { item[2], item[1].n } end, items):collect()
      for i = 1, 1000 do assert.same({ i, 0 }, all[i]) end
      assert.equal(0, shared.n)
    end)

    it("can be interrupted by a signal, and goes on where it was", function()
      zproc.signal_to_error "SIGUSR1"
      local n, is_armed, last = 0, false, 300000
      local result = ctx:process_map(same, function()
        if is_armed then
          is_armed = false
          os.execute("kill -USR1 " .. zproc.getpid())
        end
        n = n + 1
        return n <= last and n or nil
      end)
      assert.equal(1, (result:next()))
      assert.is_true(n < last)
      is_armed = true
      local count, signals = 1, 0
      while true do
        local ok, value, i = pcall(result.next, result)
        if not ok then
          assert.equal("SignalError", value.name)
          signals = signals + 1
        elseif not i then
          break
        else
          count = count + 1
          if count ~= value then error(("%d after %d"):format(value, count - 1)) end
        end
      end
      assert.same({ last, 1 }, { count, signals })
    end)
  end)

  describe("a target", function()
    it("may raise anything", function()
      local result = ctx:process_map(function(n)
        if n == 1 then error("text", 0) end
        if n == 2 then error(42) end
        if n == 3 then error() end
        if n == 4 then error { code = 7 } end
        if n == 5 then error(setmetatable({}, { __tostring = function() return "an object" end })) end
        if n == 6 then error { io.stdout } end
        if n == 7 then local function deep() return deep() + 1 end return deep() end
        if n == 8 then coroutine.yield(1) end
        if n == 9 then error(coroutine.create(print)) end
        return n
      end, zproc.range(1, 10), { on_error = "return", count = 1 })
      local all = result:collect()
      assert.equal(10, all.n)
      for i = 1, 9 do assert.equal("RemoteError", all[i].name) end
      assert.equal("text", all[1].message)
      assert.same({ "42", 42 }, { all[2].message, all[2].cause })
      assert.equal("nil", all[3].message)
      assert.equal(7, all[4].cause.code)
      assert.equal("an object", all[5].message)
      assert.is_nil(all[6].cause)
      assert.is_truthy(all[7].message:find("stack overflow", 1, true))
      assert.is_truthy(all[8].message:find("yielded", 1, true))
      assert.equal(10, all[10])
      expect_usable()
    end)

    it("is called in its error what others call it, and not what zproc does", function()
      local all = ctx:process_map(math.sqrt, { "a" }, { on_error = "return" }):collect()
      assert.equal("bad argument #1 to 'math.sqrt' (number expected, got string)", all[1].message)
      assert.equal("stack traceback:\n\t[C]: in function 'math.sqrt'", all[1].traceback)
      all = ctx:process_map(math.sqrt, { "a" }, { on_error = "return", args = { 1 } }):collect()
      assert.equal("bad argument #1 to 'math.sqrt' (number expected, got string)", all[1].message)
      for _, args in ipairs { false, { 1 } } do
        all = ctx:process_map(function() error("mine", 2) end, { 1 }, { on_error = "return", args = args or nil }):collect()
        assert.equal("mine", all[1].message)
        assert.is_nil(all[1].traceback:find("'call'", 1, true) or all[1].traceback:find("'target'", 1, true))
      end
    end)

    it("finds what it waits for in the state, whatever the same worker was given before", function()
      state.go = true
      local all = ctx:process_map(function(own, n)
        own:get_when_available "go"
        return n
      end, zproc.range(1, 20), { stateful = true, count = 1 })
      assert.equal(20, all:collect().n)
    end)

    it("closes what it has open when it raises", function()
      local all = ctx:process_map(function(own, n)
        local guard <close> = setmetatable({}, { __close = function() own[n] = "closed" end })
        if n == 2 then error "no" end
        return guard ~= nil
      end, { 1, 2, 3 }, { stateful = true, on_error = "return" }):collect()
      assert.same({ true, true }, { all[1], all[3] })
      assert.equal("closed", state[2])
    end)

    it("may give thousands of results, or large ones, of any size", function()
      local all = ctx:process_map(function(n) return { n, tostring(n) } end, zproc.range(1, 50000)):collect()
      assert.same({ { 1, "1" }, { 50000, "50000" }, 50000 }, { all[1], all[50000], all.n })
      local total = 0
      for _, text in ctx:process_map(function(n) return ("x"):rep(n) end, zproc.range(1, 10 * MEGABYTE + 1, MEGABYTE)) do
        total = total + #text
      end
      assert.equal(11 + 55 * MEGABYTE, total)
    end)

    it("is refused with a namespace that is none, or too many workers", function()
      refuses("a namespace's name has 1 to 255 bytes", ctx.process_map, ctx, same, { 1 }, { namespace = "" })
      refuses("at most 4096", ctx.process_map, ctx, same, { 1 }, { count = 1 << 32 })
      assert.equal(1, ctx:process_map(same, { 1 }, { chunk_size = 1 << 40, max_attempts = 1 << 40 }):next())
    end)

    it("may run in threads", function()
      local threads <close> = zproc.context { process = { backend = "thread", namespace = "other" } }
      local all = threads:process_map(function(own, n)
        own[n] = true
        return zproc.getpid()
      end, { 1, 2, 3 }, { stateful = true }):collect()
      assert.same({ n = 3, zproc.getpid(), zproc.getpid(), zproc.getpid() }, all)
      assert.equal(3, #threads.state:fork { namespace = "other" })
      local result = threads:process_map(function(n)
        if n == 2 then os.exit(1) end
        return n
      end, { 1, 2, 3 })
      assert.equal(1, (result:next()))
      refuses("called for the end of its process", result.next, result)
      assert.equal(3, (result:next()))
    end)
  end)

  describe("whoever dies,", function()
    it("the first item comes although much is pending behind it", function()
      -- Its worker dies when the other one has filled all the room that there is for results.
      local result = ctx:process_map(function(own, n)
        if n > 1 then return ("x"):rep(MEGABYTE) end
        if not own.is_full then
          own:get_when_available "is_full"
          os.execute("kill -9 $PPID")
        end
        return "first"
      end, zproc.range(1, 60), { stateful = true, count = 2, chunk_size = 1 })
      eventually("there is no room", function() return info_of(result._task).pending_bytes >= 32 * MEGABYTE end)
      state.is_full = true
      assert.equal("first", (result:next()))
      assert.equal(59, result:collect().n)
    end)

    it("threads that end give back what they had claimed", function()
      local server, address = zproc.start_server()
      local own <close> = zproc.context(address)
      local maker = zproc.context { server_address = address, process = { backend = "thread" } }
      local task = maker:process_map(function(_, n)
        if not zproc.state(address).go then zproc.sleep(1000) end
        return n
      end, { 1, 2, 3 }, { return_task = true, stateful = true, count = 1 })
      eventually("it is begun", function()
        local queue = core.queue(server.directory)
        local info = queue:describe(task.task)
        queue:close()
        return info.active == 1
      end)
      maker:close()
      own.state.go = true
      assert.same({ 1, 2, 3, n = 3 }, own:pull_results_for_task(task):collect())
      own:close()
      server:stop()
    end)

    it("the items of a maker that was killed come up to the last one, and then TaskLost", function()
      local maker = ctx:process(function(inner)
        local n = 0
        inner:process_map(same, function()
          n = n + 1
          if n == 5000 then os.execute("kill -9 $PPID") end
          return n
        end, { return_task = true })
      end, { pass_context = true })
      pcall(maker.wait, maker)
      assert.equal(-9, maker.exitcode)
      local info = info_of(1)
      local result = ctx:pull_results_for_task { task = 1, server_address = ctx.server_address, count = 2 }
      local left = info.taken
      local err
      for i = left + 1, info.put do assert.same({ i, i }, { result:next() }) end
      err = refuses("TaskLost", result.next, result)
      assert.is_truthy(err.message:find(("after %d of them is dead"):format(info.put), 1, true))
      expect_usable()
    end)

    it("the results of a consumer that was killed go, although nobody waits, and those of a task stay #local", function()
      local pipe = support.run_script([[
        local zproc = require "zproc"
        local ctx = zproc.context((...))
        local result = ctx:process_map(function(n) return ("x"):rep(n) end, zproc.range(1, 1000))
        local task = ctx:process_map(function(n) return n end, { 1, 2, 3 }, { return_task = true })
        result:next()
        print(zproc.getpid(), result._task, task.task)
        io.stdout:flush()
        zproc.sleep(1000)
      ]], ctx.server_address)
      local pid, private, shared = pipe:read():match "(%d+)%s+(%d+)%s+(%d+)"
      private, shared = math.tointeger(private), math.tointeger(shared)
      assert.is_truthy(info_of(private))
      kill(pid)
      eventually("what it did not take is gone", function() return not info_of(private) end)
      local task = { task = shared, server_address = ctx.server_address, count = 1 }
      assert.same({ 1, 2, 3, n = 3 }, ctx:pull_results_for_task(task):collect())
      pipe:close()
    end)

    it("maps within maps are worked on again, and leave no tasks behind", function()
      local address = ctx.server_address
      local queue = core.queue(ctx.server_process.directory)
      local result = ctx:process_map(function(n)
        local inner <close> = zproc.context(address)
        local sum = 0
        local numbers = inner:process_map(function(k)
          zproc.sleep(0.002)
          return k
        end, zproc.range(1, n), { count = 2 })
        for _, value in numbers do sum = sum + value end
        return sum
      end, zproc.range(1, 40), { count = 3, max_attempts = 1000 })
      for i, value in result do
        assert.equal(i * (i + 1) // 2, value)
        local victim = ctx.worker_list[i % 3 + 1]
        if i % 5 == 0 and victim.is_alive then kill(victim.pid) end
      end
      local function is_empty()
        for task = 1, 200 do
          if queue:describe(task) then return false end
        end
        return true
      end
      eventually("the tasks of the dead are gone", is_empty)
      queue:close()
    end)

    it("a script that is ended by a signal leaves nothing", function()
      for _, signal in ipairs { "TERM", "INT", "KILL" } do
        local pipe = support.run_script [[
          local zproc = require "zproc"
          local ctx = zproc.context()
          local n = 0
          local function slow(x) zproc.sleep(0.001) return x end
          local result = ctx:process_map(slow, function() n = n + 1 return n end, { count = 2 })
          result:next()
          local workers, server = ctx.worker_list, ctx.server_process
          print(zproc.getpid(), workers[1].pid, workers[2].pid, server.pid, server.directory)
          io.stdout:flush()
          for _ in result do end
        ]]
        local pid, one, two, server, directory = pipe:read():match "(%d+)%s+(%d+)%s+(%d+)%s+(%d+)%s+(.*)"
        kill(pid, signal)
        for _, other in ipairs { pid, one, two, server } do
          eventually("all end after SIG" .. signal, function() return not support.is_running(other) end)
        end
        eventually("the directory goes", function() return not os.rename(directory, directory) end)
        pipe:close()
      end
    end)
  end)

  describe("a result", function()
    it("is dropped with its Context, if others keep the server", function()
      local brief = zproc.context(ctx.server_address)
      local result = brief:process_map(same, zproc.range(1, 1 << 40))
      local task = result._task
      local kept = brief:process_map(same, { 1, 2 }, { return_task = true })
      assert.is_truthy(info_of(task))
      brief:close()
      assert.is_nil(info_of(task))
      refuses("the Context of this MapResult is closed", result.next, result)
      assert.equal(2, ctx:pull_results_for_task(kept):collect().n)
    end)

    it("is dropped at the end of its scope", function()
      local task
      do
        local result <close> = ctx:process_map(same, zproc.range(1, 1 << 40))
        task = result._task
        result:next()
      end
      assert.is_nil(info_of(task))
      expect_usable()
    end)

    it("of a task stays for whoever asks next, unless it is closed", function()
      local task = ctx:process_map(same, zproc.range(1, 100), { return_task = true, chunk_size = 1 })
      local result = ctx:pull_results_for_task(task)
      for i = 1, 10 do assert.equal(i, (result:next())) end
      result = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      result = ctx:pull_results_for_task(task)
      local value, i = result:next()
      assert.is_true(value == i and i <= 10)
      assert.equal(100 - i, result:collect().n)
      task = ctx:process_map(same, zproc.range(1, 100), { return_task = true })
      ctx:pull_results_for_task(task):close()
      refuses("TaskLost", ctx.pull_results_for_task, ctx, task)
    end)

    it("of a task is for one at a time: the one who is behind is told so", function()
      local task = ctx:process_map(same, zproc.range(1, 10000), { return_task = true, chunk_size = 10 })
      local other <close> = zproc.context(ctx.server_address)
      local slow, fast = other:pull_results_for_task(task), ctx:pull_results_for_task(task)
      for i = 1, 5000 do assert.equal(i, (fast:next())) end
      local err = select(2, take_all(slow))
      assert.equal("TaskLost", err.name)
      assert.equal(5000, fast:collect().n)
      assert.is_true(pcall(zproc.context, { server_address = ctx.server_address }))
      ctx:process(function() end, { retry_for = { "TaskLost" } }):wait()
    end)

    it("can be waited for again after a signal", function()
      zproc.signal_to_error "SIGUSR1"
      local result = ctx:process_map(function(own, n)
        own:get_when_available "go"
        return n
      end, { 1, 2, 3 }, { stateful = true })
      os.execute(("(sleep 0.05; kill -USR1 %d) &"):format(zproc.getpid()))
      assert.equal("SignalError", select(2, pcall(result.next, result)).name)
      state.go = true
      assert.same({ 1, 2, 3, n = 3 }, result:collect())
    end)

    it("that fails in the middle of collect goes on behind that", function()
      local function picky(n) return n == 5 and error("five", 0) or n end
      local result = ctx:process_map(picky, zproc.range(1, 8), { chunk_size = 8 })
      refuses("five", result.collect, result)
      assert.same({ 6, 7, 8, n = 3 }, result:collect())
    end)
  end)

  describe("progress", function()
    it("that raises does not lose a result", function()
      local result = ctx:process_map(same, zproc.range(1, 50), { progress = function() error("no progress", 0) end })
      local count, errors = 0, 0
      while true do
        local ok, value, i = pcall(result.next, result)
        if not ok then
          assert.equal("no progress", value)
          errors = errors + 1
        elseif not i then
          break
        else
          count = count + 1
        end
      end
      assert.equal(50, count)
      assert.is_true(errors >= 1)
      local function tell(_, is_last) if is_last then error("no progress", 0) end end
      result = ctx:process_map(same, counter_until(2, function() error("no source", 0) end), { progress = tell })
      local came = {}
      for i = 1, 4 do came[i] = tostring(select(2, pcall(result.next, result))) end
      table.sort(came)
      assert.same({ "1", "nil", "no progress", "no source" }, came)
    end)

    -- Not where there is no pseudo-terminal to be had.
    local on_terminal = os.execute "script -qec true /dev/null </dev/null >/dev/null 2>&1" and it or pending
    on_terminal("is a bar on a terminal, which ends with its line", function()
      local path = os.tmpname()
      local file = assert(io.open(path, "w"))
      file:write [[
        local zproc = require "zproc"
        local ctx = zproc.context()
        ctx:process_map(function(n) zproc.sleep(0.02) return n end, zproc.range(1, 20), { progress = true }):collect()
        local result = ctx:process_map(function(n) zproc.sleep(0.02) return n end, zproc.range(1, 1000), { progress = true })
        result:next()
        result:close()
        io.stderr:write "the end\n"
      ]]
      file:close()
      local command = support.quote(os.getenv "ZPROC") .. " run " .. path
      local pipe = assert(io.popen("script -qec " .. support.quote(command) .. " /dev/null </dev/null"))
      local text = pipe:read "a"
      pipe:close()
      os.remove(path)
      assert.is_truthy(text:find("[" .. ("#"):rep(30) .. "] 100% 20/20 items, ", 1, true), text)
      assert.is_truthy(text:find("/1000 items[^\n]*\nthe end\r?\n$"), text)
    end)
  end)
end)

describe("a range of extremes", function()
  it("counts without overflow", function()
    local least, most = math.mininteger, math.maxinteger
    assert.equal(most, #zproc.range(least + 2, most, 2))
    assert.equal(most, #zproc.range(most, 1, -1))
    assert.equal(3, #zproc.range(least, most, most)) -- the last one is most - 1
    assert.equal(2, #zproc.range(0, least, least))
    assert.equal(1, #zproc.range(most, 0, least))
    assert.equal(3.0, zproc.range(1, 3, 1.0)[3])
    refuses("too many", zproc.range, least, most)
    refuses("too many", zproc.range, 0, 1e300)
    refuses("too many", zproc.range, -1e308, 1e308)
    refuses("step must be a number", zproc.range, 1, 2, "3")
    refuses("step must be a number", zproc.range, 1, 2, 0 / 0)
  end)
end)
