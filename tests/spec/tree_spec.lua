-- Trees of processes: broad, deep, and what is left of them.
local core = require "zproc.core"
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses, eventually, kill, run_script = support.refuses, support.eventually, support.kill, support.run_script
local is_running = support.is_running

local GENEROUS <const> = support.GENEROUS

describe("five hundred processes", function()
  it("are alive at once, share the state, and end when they are told to", function()
    local many <const> = 500
    local ctx <close> = zproc.context()
    ctx.state.reported = 0
    local report = zproc.atomic(function(snapshot)
      snapshot[zproc.getpid()] = true
      snapshot.reported = snapshot.reported + 1
    end)
    local all = ctx:process_factory(function(state)
      report(state)
      state:get_when_equal("go", true)
      return zproc.getpid()
    end, { count = many })
    assert.is_truthy(ctx.state:get_when_equal("reported", many, { timeout = GENEROUS }))
    for _, one in ipairs(all) do assert.is_true(one.is_alive and ctx.state[one.pid]) end

    -- Half of them by themselves, the other half because they have to.
    for i = 1, many, 2 do assert.equal(-15, all[i]:stop()) end
    ctx.state.go = true
    for i = 2, many, 2 do assert.equal(all[i].pid, all[i]:wait(GENEROUS)) end
    for _, one in ipairs(all) do assert.is_false(is_running(one.pid)) end
  end)

  it("are gone soon after their parent was killed", function()
    local pipe <close> = run_script [[
      local zproc = require "zproc"
      local ctx = zproc.context()
      local pids = {}
      for i, one in ipairs(ctx:process_factory(function(state) state:get_when_equal("go", true) end, { count = 500 })) do
        pids[i] = one.pid
      end
      print(zproc.getpid(), ctx.server_process.pid, ctx.server_address)
      print(table.concat(pids, " "))
      io.stdout:flush()
      zproc.sleep(math.huge)
    ]]
    local owner, server, directory = pipe:read("l"):match "^(%d+)\t(%d+)\tipc://(.*)/"
    local pids = pipe:read "l"
    kill(owner)
    for pid in pids:gmatch "%d+" do
      eventually("process " .. pid .. " is gone", function() return not is_running(pid) end)
    end
    eventually("the server is gone", function() return not is_running(server) end)
    assert.is_nil(core.real_path(directory))
  end)
end)

describe("ten levels of processes", function()
  local deep <const> = 10

  --- A target that starts itself again one level below, until there are ten, and returns the pids of all levels, the lowest first.
  local function below(context_of, options)
    local level
    level = function(given, n)
      local own <close> = context_of(given)
      own.state["level " .. n] = zproc.getpid()
      local pids = {}
      if n < deep then pids = own:process(level, options(n + 1)):wait(GENEROUS) end
      pids[#pids + 1] = zproc.getpid()
      return pids
    end
    return level
  end

  local function expect_all(state, pids)
    assert.equal(deep, #pids)
    local seen = {}
    for i, pid in ipairs(pids) do
      assert.equal(pid, state["level " .. deep + 1 - i])
      assert.is_nil(seen[pid])
      seen[pid] = true
    end
  end

  it("pass their Contexts down and their results up", function()
    local ctx <close> = zproc.context()
    local function options(n) return { pass_context = true, args = { n } } end
    expect_all(ctx.state, ctx:process(below(function(given) return given end, options), options(1)):wait(GENEROUS))
  end)

  it("have Contexts of their own at the same address", function()
    local ctx <close> = zproc.context()
    local function options(n) return { args = { n } } end
    local function context_of(state) return zproc.context { server_address = state.server_address } end
    expect_all(ctx.state, ctx:process(below(context_of, options), options(1)):wait(GENEROUS))
  end)

  it("bring an error up from the lowest one", function()
    local ctx <close> = zproc.context()
    local function level(inner, n)
      io.stderr = assert(io.open("/dev/null", "w")) -- each level reports it
      if n == deep then error "from the deep" end
      inner:process(level, { pass_context = true, args = { n + 1 } }):wait(GENEROUS)
    end
    local top = ctx:process(level, { pass_context = true, args = { 1 } })
    local err = refuses("from the deep", top.wait, top, GENEROUS)
    local depth = 0
    while zproc.is_error(err, "ProcessWaitError") do
      assert.equal(1, err.exitcode)
      err, depth = err.cause, depth + 1
    end
    assert.equal(deep, depth)
    assert.equal("RemoteError", err.name)
  end)

  --- How each level gets to its Context, in the words of a script.
  local ways = {
    ["that pass their Contexts"] = { context = "given", options = "pass_context = true" },
    ["with Contexts of their own"] = { context = "zproc.context(given.server_address)", options = "" },
    ["with servers of their own"] = { context = "zproc.context()", options = "" },
  }
  for name, way in pairs(ways) do
    it(name .. " are all gone when the one at the top is killed", function()
      local pipe <close> = run_script(([[
        local zproc = require "zproc"
        local ctx = zproc.context()
        local function report(own, n)
          print(n, zproc.getpid(), own.server_process and own.server_process.pid or 0, own.server_address)
          io.stdout:flush()
        end
        local level
        level = function(given, n)
          local own = %s
          report(own, n)
          if n == 10 then zproc.sleep(math.huge) end
          own:process(level, { args = { n + 1 }, %s }):wait()
        end
        report(ctx, 0)
        ctx:process(level, { args = { 1 }, %s }):wait()
      ]]):format(way.context, way.options, way.options))
      local pids, directories, top = {}, {}, nil
      for _ = 0, deep do
        local line = pipe:read "l"
        local n, pid, server, directory = line:match "^(%d+)\t(%d+)\t(%d+)\tipc://(.*)/"
        assert.is_truthy(n, line)
        if n == "0" then top = pid end
        pids[#pids + 1] = pid
        if server ~= "0" then pids[#pids + 1] = server end
        directories[directory] = true
      end
      kill(top)
      for _, pid in ipairs(pids) do
        eventually("process " .. pid .. " is gone", function() return not is_running(pid) end)
      end
      for directory in pairs(directories) do assert.is_nil(core.real_path(directory)) end
    end)
  end
end)
