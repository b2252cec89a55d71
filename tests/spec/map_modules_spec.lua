-- What workers find in modules: what a process that is started now finds there.
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local eventually, is_running = support.eventually, support.is_running

-- What travels takes its globals along; those of a script, not the environment that specs run in.
local describe, it, before_each, after_each, assert = describe, it, before_each, after_each, assert
local _ENV <const> = _G

describe("workers that are kept", function()
  local ctx

  before_each(function()
    ctx = zproc.context()
    package.preload.zp_m = function()
      local level = 1
      return {
        f = function() return "v1" end,
        options = { depth = 1 },
        set = function(new) level = new end,
        get = function() return level end,
      }
    end
  end)
  after_each(function()
    ctx:close()
    for _, name in ipairs { "zp_m", "zp_n" } do package.loaded[name], package.preload[name] = nil, nil end
  end)

  local function ask(target, options)
    options = options or { count = 2 }
    local all = ctx:process_map(target, { 1, 2, 3, 4 }, options):collect()
    for i = 2, 4 do assert.equal(all[1], all[i]) end
    return all[1]
  end

  --- What a map answers is what a process answers.
  local function expect(expected, target)
    assert.equal(expected, ctx:process(function() return target() end):wait())
    assert.equal(expected, ask(target))
  end

  local function pids()
    local all = {}
    for i, one in ipairs(ctx.worker_list) do all[i] = one.pid end
    table.sort(all)
    return all
  end

  it("are kept as long as the modules are what they were", function()
    require "zp_m"
    ask(function() return 1 end)
    local before = pids()
    GLOBAL_OF_SPEC = { "globals travel" }
    assert.equal("globals travel", ask(function() return GLOBAL_OF_SPEC[1] end))
    GLOBAL_OF_SPEC = nil
    assert.same(before, pids())
  end)

  local changes = {
    { "a field of a module", function(m) m.f = function() return "new" end end, function() return require "zp_m".f() end },
    { "a module", function() package.loaded.zp_m = { f = function() return "new" end } end, function() return require "zp_m".f() end },
    { "a value in a module", function(m) m.setting = "new" end, function() return require "zp_m".setting end },
    { "a table in a module", function(m) m.options.depth = "new" end, function() return require "zp_m".options.depth end },
    { "a variable of a module", function(m) m.set "new" end, function() return require "zp_m".get() end },
    { "package.path", function() package.path = "new" end, function() return package.path end },
    { "package.cpath", function() package.cpath = "new" end, function() return package.cpath end },
    { "package.preload", function() package.preload.zp_n = function() return "new" end end, function() return (require "zp_n") end },
    { "package.searchers", function()
      table.insert(package.searchers, 2, function(name) return name == "zp_n" and function() return "new" end or nil end)
    end, function() return (require "zp_n") end },
    { "a field of string", function() string.zp_trim = function() return "new" end end, function() return ("x"):zp_trim() end },
    { "a function of Lua", function() os.getenv = function() return "new" end end, function() return os.getenv "HOME" end },
    { "how strings are indexed", function() getmetatable("").__call = function() return "new" end end, function() return ("x")() end },
    { "a module that is forgotten", function()
      package.loaded.zp_m = nil
      package.preload.zp_m = function() return { f = function() return "new" end } end
    end, function() return require "zp_m".f() end },
  }
  for _, change in ipairs(changes) do
    local what, make, target = table.unpack(change)
    it("are replaced when there is another value of " .. what, function()
      local m = require "zp_m"
      ask(function() return 1 end)
      local path, cpath, getenv, searchers = package.path, package.cpath, os.getenv, #package.searchers
      local old = pids()
      make(m)
      local ok, err = pcall(expect, "new", target)
      local kept = pids()
      if ok then ok, err = pcall(expect, "new", target) end
      package.path, package.cpath, os.getenv, string.zp_trim, getmetatable("").__call = path, cpath, getenv, nil, nil
      if #package.searchers > searchers then table.remove(package.searchers, 2) end
      assert.is_true(ok, tostring(err))
      for _, pid in ipairs(old) do eventually("it has ended", function() return not is_running(pid) end) end
      assert.is_true(#kept >= 2)
    end)
  end

  it("finish what they were started for", function()
    local m = require "zp_m"
    local slow = ctx:process_map(function(i)
      zproc.sleep(0.01)
      return { i, require "zp_m".f(), zproc.getpid() }
    end, zproc.range(1, 100), { count = 2 })
    assert.equal("v1", slow:next()[2])
    local old = pids()
    m.f = function() return "v2" end
    assert.equal("v2", ask(function() return require "zp_m".f() end))
    local count = 1
    for i, result in slow do
      count = count + 1
      assert.same({ i, "v1" }, { result[1], result[2] })
    end
    assert.equal(100, count)
    for _, pid in ipairs(old) do eventually("it has ended", function() return not is_running(pid) end) end
    slow:close()
    assert.equal("v2", ask(function() return require "zp_m".f() end))
  end)

  it("finish an iterator that is read after the change, be it by others", function()
    local m, n = require "zp_m", 0
    local result = ctx:process_map(function(i) return i end, function()
      n = n + 1
      return n <= 20 and n or nil
    end, { count = 2 })
    assert.equal(1, (result:next()))
    m.f = function() return "v2" end
    ask(function() return 1 end)
    for _, pid in ipairs(pids()) do support.kill(pid) end
    for i = 2, 20 do assert.equal(i, (result:next())) end
    assert.equal("v2", ask(function() return require "zp_m".f() end))
  end)

  it("are replaced in threads as well, and find the new path", function()
    local threads <close> = zproc.context(ctx.server_address, { process = { backend = "thread" } })
    local path = package.path
    local function path_there() return threads:process_map(function() return package.path end, { 1 }, { count = 1 }):next() end
    assert.equal(path, path_there())
    package.path = "another/?.lua;" .. path
    local there = path_there()
    package.path = path
    assert.equal("another/?.lua;" .. path, there)
    assert.equal(path, path_there())
  end)

  it("are found anew for a task that is pulled", function()
    local m = require "zp_m"
    ask(function() return 1 end)
    local task = ctx:process_map(function() return require "zp_m".f() end, { 1, 2 }, { return_task = true })
    ctx:pull_results_for_task(task):collect()
    m.f = function() return "v2" end
    task = ctx:process_map(function() return require "zp_m".f() end, { 1, 2 }, { return_task = true })
    assert.same({ "v2", "v2", n = 2 }, ctx:pull_results_for_task(task):collect())
  end)
end)
