-- What becomes of the items of a map that is closed: workers are free for the next one.
local core = require "zproc.core"
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local eventually, is_running = support.eventually, support.is_running

-- What travels takes its globals along; those of a script, not the environment that specs run in.
local describe, it, before_each, after_each, assert = describe, it, before_each, after_each, assert
local _ENV <const> = _G

local function forever() while true do end end

--- A pattern that does not come to an end in anybody's lifetime.
local function search(_, size) return ("a"):rep(size):find ".-.-.-b" end

describe("a map that is closed", function()
  local ctx, state

  before_each(function()
    ctx = zproc.context()
    state = ctx.state
  end)
  after_each(function() ctx:close() end)

  --- Begin a map of two items on all of its two workers; returns the result when both have begun, and the pids.
  local function begin(context, target, options)
    options = options or {}
    options.count, options.stateful, options.chunk_size = 2, true, 1
    local count = state:get("begun", 0)
    local result = context:process_map(function(own, ...)
      zproc.atomic(function(snapshot) snapshot.begun = (snapshot.begun or 0) + 1 end)(own)
      return target(...)
    end, zproc.range(1, 2), options)
    eventually("both have begun", function() return state:get("begun", 0) >= count + 2 end)
    return result
  end

  local function pids_of(context)
    local pids = {}
    for i, one in ipairs(context.worker_list) do pids[i] = one.pid end
    table.sort(pids)
    return pids
  end

  local function expect_free(context)
    assert.equal(10, context:process_map(function(i) return i end, zproc.range(1, 10), { count = 2 }):collect().n)
  end

  --- Close a map of this target; the next one must come to its end. `stay`: with the same workers.
  local function expect_closable(context, target, stay, options)
    local result <close> = begin(context, target, options)
    local before = pids_of(context)
    result:close()
    expect_free(context)
    if stay then assert.same(before, pids_of(context)) end
  end

  local in_lua = {
    ["loops"] = forever,
    ["sleeps"] = function() zproc.sleep(1000) end,
    ["loops in a coroutine"] = function() coroutine.wrap(forever)() end,
    ["waits for a state"] = function()
      local inner <close> = zproc.context()
      inner.state:get_when_equal("never", true)
    end,
    ["maps itself"] = function()
      local inner <close> = zproc.context()
      inner:process_map(forever, { 1, 2 }, { count = 2 }):collect()
    end,
    ["waits for a process"] = function()
      local inner <close> = zproc.context()
      inner:process(forever):wait()
    end,
    ["loops in an atomic function"] = function()
      local inner <close> = zproc.context()
      zproc.atomic(forever)(inner.state)
    end,
  }
  for what, target in pairs(in_lua) do
    it("ends an item that " .. what .. ", and its worker stays", function() expect_closable(ctx, target, true) end)
  end

  it("ends an item that swallows errors", function()
    expect_closable(ctx, function()
      while true do pcall(forever) end
    end)
  end)

  it("ends an item that is in a function in C, with its worker", function()
    expect_closable(ctx, search, false, { args = { 300000 } })
  end)

  it("ends workers of its own", function()
    local result <close> = begin(ctx, forever, { new = true })
    local pids = pids_of(ctx)
    result:close()
    for _, pid in ipairs(pids) do eventually("it is gone", function() return not is_running(pid) end) end
    expect_free(ctx)
  end)

  it("lets items close what they have open", function()
    do
      local result <close> = begin(ctx, function(_, address)
        local own <const> = zproc.state(address)
        local _ <close> = setmetatable({}, { __close = function() own.closed = true end })
        own.open = true
        forever()
      end, { args = { ctx.server_address } })
      eventually("one has something open", function() return state:get "open" end)
    end
    eventually("it was closed", function() return state:get "closed" end)
  end)

  it("is an error for the items", function()
    do
      local result <close> = begin(ctx, function(_, address)
        local own <const> = zproc.state(address)
        local _, err = pcall(function()
          own.inside = true
          forever()
        end)
        own.err = err
        error(err)
      end, { args = { ctx.server_address } })
      eventually("one is inside", function() return state:get "inside" end)
    end
    local err = eventually("it was told", function() return state:get "err" end)
    assert.is_true(zproc.is_error(err, "TaskLost"))
    assert.is_truthy(tostring(err):find("the map that this item is one of is closed", 1, true))
  end)

  it("may be one that nobody has any more", function()
    begin(ctx, forever)
    collectgarbage()
    collectgarbage()
    expect_free(ctx)
  end)

  it("may be one that nobody has any more while another one is waited for", function()
    local first = begin(ctx, forever)
    local second = ctx:process_map(function(i) return i end, zproc.range(1, 10), { count = 2 })
    assert.is_not_nil(first)
    first = nil
    collectgarbage()
    collectgarbage()
    assert.equal(10, second:collect().n)
  end)

  it("may be worked on by another Context, whose workers are free as well", function()
    local other <close> = zproc.context(ctx.server_address)
    local task = ctx:process_map(function(own)
      zproc.atomic(function(snapshot) snapshot.begun = (snapshot.begun or 0) + 1 end)(own)
      forever()
    end, zproc.range(1, 2), { return_task = true, count = 2, stateful = true })
    eventually("both have begun", function() return state:get("begun", 0) == 2 end)
    other:pull_results_for_task(task):close()
    expect_free(ctx)
    expect_free(other)
  end)

  it("ends its items in threads, too", function()
    local threads <close> = zproc.context(ctx.server_address, { process = { backend = "thread" } })
    for _, target in pairs(in_lua) do expect_closable(threads, target) end
    expect_closable(threads, function()
      while true do pcall(forever) end
    end)
  end)

  it("leaves the items of other maps alone", function()
    local slow = ctx:process_map(function(i)
      zproc.sleep(0.05)
      return i
    end, zproc.range(1, 20), { count = 4 })
    for _ = 1, 5 do ctx:process_map(forever, { 1, 2 }, { count = 2 }):close() end
    local all = slow:collect()
    for i = 1, 20 do assert.equal(i, all[i]) end
  end)
end)
