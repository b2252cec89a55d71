-- The annotations for editors name all that a script can use, and nothing else.

local core = require "zproc.core"
local errors = require "zproc.errors"
local process = require "zproc.process"
local zproc = require "zproc"

local path = assert(os.getenv "SRCDIR") .. "/library/zproc.lua"

--- What the file says: class -> set of names, and the names of errors.
local function read_library()
  local classes, error_names, current = {}, {}, nil
  local variables = { zproc = "zproc", State = "zproc.State", Context = "zproc.Context", Process = "zproc.Process",
    MapResult = "zproc.MapResult", Server = "zproc.Server", Signals = "zproc.Signals" }
  for line in io.lines(path) do
    local class = line:match "^%-%-%-@class ([%w_.]+)"
    if class then
      assert(not classes[class], class .. " is there twice")
      current = {}
      classes[class] = current
    end
    local field = line:match "^%-%-%-@field ([%a_][%w_]*)"
    if field then
      assert(current and not current[field], field .. " is there twice")
      current[field] = "field"
    end
    local owner, name = line:match "^function (%w+)[.:]([%w_]+)%("
    if owner then
      local own = assert(classes[variables[owner]], owner)
      assert(not own[name], name .. " is there twice")
      own[name] = "function"
    end
    local error_name = line:match '^%-%-%-| "(%w+)"'
    if error_name then error_names[#error_names + 1] = error_name end
  end
  return classes, error_names
end

local classes, error_names = read_library()

local function sorted(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = name end
  table.sort(names)
  return names
end

--- The public methods among the fields of a metatable, and further names.
local function public(meta, ...)
  local names = {}
  for name in pairs(meta) do
    if not name:find "^_" then names[name] = true end
  end
  for _, name in ipairs { ... } do names[name] = true end
  return sorted(names)
end

describe("library/zproc.lua", function()
  local ctx
  setup(function() ctx = zproc.context() end)
  teardown(function() ctx:close() end)

  it("is what the API reference is made from", function()
    local pipe <close> = io.popen(("lua5.4 '%s/scripts/api' --check 2>&1"):format(os.getenv "SRCDIR"))
    assert.equal("", pipe:read "a")
  end)

  it("is Lua, and does nothing when it is run", function()
    local library = assert(loadfile(path))()
    assert.equal("function", type(library.context))
    assert.is_nil(library.context())
  end)

  it("has every name of the module", function() assert.same(public(zproc), sorted(classes.zproc)) end)

  it("has every method and field of a State", function()
    assert.same(public(core.state_methods), sorted(classes["zproc.State"]))
  end)

  it("has every method and field of a Context", function()
    assert.same(public(getmetatable(ctx), "state", "process_list", "worker_list", "server_process", "server_address", "namespace",
      "secret_key"), sorted(classes["zproc.Context"]))
    for name in pairs(classes["zproc.Context"]) do
      assert.is_true(ctx[name] ~= nil or name == "secret_key", name) -- which this one has not
    end
  end)

  it("has every method and field of a Process", function()
    local one = ctx:process(function() end)
    one:wait()
    assert.same(public(getmetatable(one), "name", "target", "namespace", "server_address", "pid", "exitcode", "is_alive"),
      sorted(classes["zproc.Process"]))
    for name in pairs(classes["zproc.Process"]) do assert.is_not_nil(one[name], name) end
  end)

  it("has every method of a MapResult", function()
    local result = ctx:process_map(function(x) return x end, { 1 })
    assert.same(public(getmetatable(result)), sorted(classes["zproc.MapResult"]))
    result:collect()
  end)

  it("has every method of Signals", function()
    local signals <close> = zproc.signals "SIGUSR2"
    assert.same(public(getmetatable(signals)), sorted(classes["zproc.Signals"]))
  end)

  it("has every method and field of a Server, a Range, a Signal, a row of the table of processes, and a task", function()
    local server <close> = zproc.start_server()
    assert.same(public(getmetatable(server), "server_address", "server_addresses", "secret_key", "pid", "is_alive", "exitcode"),
      sorted(classes["zproc.Server"]))
    for _, name in ipairs { "server_address", "server_addresses", "pid", "is_alive" } do assert.is_not_nil(server[name], name) end
    local range = zproc.range(1, 3)
    for name in pairs(classes["zproc.Range"]) do assert.is_not_nil(range[name], name) end
    assert.same(sorted(zproc.signal.SIGTERM), sorted(classes["zproc.Signal"]))
    ctx:process(function() end):wait()
    for _, row in ipairs(ctx:processes()) do
      if row.exitcode then assert.same(sorted(row), sorted(classes["zproc.ProcessRow"])) end
    end
    local task = ctx:process_map(function(x) return x end, { 1 }, { return_task = true })
    assert.same(sorted(task), sorted(classes["zproc.Task"]))
    ctx:pull_results_for_task(task):collect()
  end)

  it("has the kinds of errors that there are", function()
    local there = {}
    local source <close> = assert(io.open(os.getenv "SRCDIR" .. "/lua/zproc/errors.lua"))
    for name in source:read("a"):match("for _, name in ipairs {(.-)}"):gmatch '"(%w+)"' do there[#there + 1] = name end
    assert.same(there, error_names)
    for _, name in ipairs(error_names) do assert.is_true(errors.is_known(name), name) end
  end)

  it("has every option of a process", function()
    assert.same(sorted(process.OPTIONS), sorted(classes["zproc.ProcessOptions"]))
  end)

  -- A coroutine is of the wrong type for every option, and an option that is not known is told before the others.
  local wrong = coroutine.create(print)
  local function target() end
  local takers = {
    ContextOptions = function(opts) zproc.context(opts) end,
    StateOptions = function(opts) zproc.state(ctx.server_address, opts) end,
    ForkOptions = function(opts) ctx.state:fork(opts) end,
    ProcessOptions = function(opts) ctx:process(target, opts) end,
    FactoryOptions = function(opts) ctx:process_factory(target, opts) end,
    WatchOptions = function(opts) ctx.state:get_when(target, opts) end,
    ChangeOptions = function(opts) ctx.state:get_when_change("x", opts) end,
    IteratorOptions = function(opts) ctx.state:when(target, opts) end,
    ChangeIteratorOptions = function(opts) ctx.state:when_change("x", opts) end,
    CallOptions = function(opts) ctx:call_when(target, target, opts) end,
    ChangeCallOptions = function(opts) ctx:call_when_change("x", target, opts) end,
    MapOptions = function(opts) ctx:process_map(target, { 1 }, opts) end,
    PullOptions = function(opts) ctx:pull_results_for_task({}, opts) end,
    WaitAllOptions = function(opts) ctx:wait_all(opts) end,
    PingOptions = function(opts) ctx:ping(opts) end,
    AddressPingOptions = function(opts) zproc.ping(ctx.server_address, opts) end,
    AtomicOptions = function(opts) zproc.atomic(target, opts) end,
    ServerOptions = function(opts) zproc.start_server(opts) end,
    StopOptions = function(opts) ctx:process(print, { stop = opts }) end,
  }

  for name, call in pairs(takers) do
    it(("has only options that are known: %s"):format(name), function()
      for option in pairs(assert(classes["zproc." .. name])) do
        local ok, err = pcall(call, { [option] = wrong })
        assert.is_false(ok, option)
        assert.is_truthy(tostring(err):find(("option '%s' must be"):format(option), 1, true), tostring(err))
      end
    end)
  end

  it("has no options that nothing takes", function()
    for class in pairs(classes) do
      local name = class:match "^zproc%.(%w+Options)$"
      assert.is_true(not name or takers[name] ~= nil, class)
    end
  end)
end)
