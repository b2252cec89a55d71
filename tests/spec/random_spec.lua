-- Random numbers: nobody draws those of another, and what is seeded is repeatable.
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses = support.refuses

-- What travels takes its globals along; those of a script, not the environment that specs run in.
local describe, it, before_each, after_each, assert = describe, it, before_each, after_each, assert
local _ENV <const> = _G

--- Draw, in a while: the other workers come to it, too.
local function draw()
  zproc.sleep(0.01)
  return math.random(0)
end

local function draw_quickly() return math.random(0) end

local function count_distinct(values)
  local seen, count = {}, 0
  for i = 1, values.n or #values do
    if not seen[values[i]] then seen[values[i]], count = true, count + 1 end
  end
  return count
end

describe("random numbers", function()
  local ctx

  before_each(function() ctx = zproc.context() end)
  after_each(function() ctx:close() end)

  local function in_threads() return zproc.context(ctx.server_address, { process = { backend = "thread" } }) end

  it("are each process's own", function()
    ctx:process_factory(draw_quickly, { count = 6 })
    assert.equal(6, count_distinct(ctx:wait_all()))
    math.randomseed(7)
    ctx:process_factory(draw_quickly, { count = 6 })
    local all = ctx:wait_all()
    all.n = nil
    math.randomseed(7)
    all[#all + 1] = math.random(0)
    assert.equal(#all, count_distinct(all))
  end)

  it("are each worker's own", function()
    assert.equal(16, count_distinct(ctx:process_map(draw, zproc.range(1, 16), { count = 4 }):collect()))
    assert.equal(16, count_distinct(ctx:process_map(draw, zproc.range(1, 16), { count = 4, new = true }):collect()))
    local random = math.random
    assert.equal(16, count_distinct(ctx:process_map(function()
      zproc.sleep(0.01)
      return random(0)
    end, zproc.range(1, 16), { count = 4, chunk_size = 1 }):collect()))
  end)

  it("are each thread's own", function()
    ctx:process_factory(draw_quickly, { count = 6, backend = "thread" })
    assert.equal(6, count_distinct(ctx:wait_all()))
    local threads <close> = in_threads()
    assert.equal(16, count_distinct(threads:process_map(draw, zproc.range(1, 16), { count = 4 }):collect()))
  end)

  it("of processes that processes start are their own, and those of another try go on", function()
    local p = ctx:process(function(inner)
      local own = math.random(0)
      inner:process_factory(draw_quickly, draw_quickly)
      local all = inner:wait_all()
      return own, all[1], all[2]
    end, { pass_context = true })
    assert.equal(3, count_distinct(table.pack(p:wait())))
    local tries = ctx:process(function(state)
      state:setdefault("drawn", math.random(0))
      if state:get "again" then return state.drawn, math.random(0) end
      state.again = true
      error "again"
    end, { retry_for = { zproc.AnyError }, retry_delay = 0 })
    assert.equal(2, count_distinct(table.pack(tries:wait())))
  end)

  it("that the script has seeded stay the script's", function()
    math.randomseed(42)
    local first, second = math.random(0), math.random(0)
    math.randomseed(42)
    assert.equal(first, math.random(0))
    ctx:process(draw_quickly):wait()
    ctx:process(draw_quickly, { backend = "thread" }):wait()
    ctx:process_map(draw_quickly, { 1, 2, 3 }, { seed = 1 }):collect()
    assert.equal(second, math.random(0))
  end)

  it("that a target seeds are those of its seed", function()
    math.randomseed(5)
    local expected = math.random(0)
    local function seeded()
      math.randomseed(5)
      return math.random(0)
    end
    assert.equal(expected, ctx:process(seeded):wait())
    assert.equal(expected, ctx:process(seeded, { backend = "thread" }):wait())
    assert.same({ expected, expected, n = 2 }, ctx:process_map(seeded, { 1, 2 }):collect())
  end)

  describe("of a map with a seed", function()
    local function three() return { math.random(0), math.random(), math.random(6) } end

    local function take(options, sequence, context)
      local all = (context or ctx):process_map(three, sequence or zproc.range(1, 50), options):collect()
      all.n = nil
      return all
    end

    it("are the same whatever the workers, the chunks and the kind of sequence", function()
      local expected = {}
      for i = 1, 50 do
        math.randomseed(9, i)
        expected[i] = three()
      end
      assert.same(expected, take { seed = 9, count = 1 })
      assert.same(expected, take { seed = 9, count = 4 })
      assert.same(expected, take { seed = 9, count = 3, chunk_size = 1 })
      assert.same(expected, take { seed = 9.0, count = 2, new = true })
      local n = 0
      assert.same(expected, take({ seed = 9, count = 2 }, function()
        n = n + 1
        return n <= 50 and n or nil
      end))
      local threads <close> = in_threads()
      assert.same(expected, take({ seed = 9, count = 2 }, nil, threads))
      local task = ctx:process_map(three, zproc.range(1, 50), { seed = 9, return_task = true })
      local pulled = ctx:pull_results_for_task(task):collect()
      pulled.n = nil
      assert.same(expected, pulled)
    end)

    it("are others with another seed, and nobody's in the map after it", function()
      assert.not_same(take { seed = 1 }, take { seed = 2 })
      local function last_of(seed) return ctx:process_map(draw_quickly, { 1 }, { count = 1, seed = seed }):next() end
      last_of(3)
      local one = last_of()
      last_of(3)
      assert.not_equal(one, last_of())
    end)

    it("stay the same if a worker dies of an item in between", function()
      local mark = os.tmpname()
      local all = ctx:process_map(function(i)
        local drawn = math.random(0)
        if i == 3 and os.remove(mark) then os.execute("kill -9 " .. zproc.getpid()) end
        return drawn
      end, zproc.range(1, 5), { seed = 4, count = 1 }):collect()
      for i = 1, 5 do
        math.randomseed(4, i)
        assert.equal(math.random(0), all[i])
      end
    end)

    it("take an integer", function()
      refuses("option 'seed' must be an integer, not 1.5", ctx.process_map, ctx, three, { 1 }, { seed = 1.5 })
      refuses("option 'seed' must be an integer", ctx.process_map, ctx, three, { 1 }, { seed = "x" })
    end)
  end)
end)
