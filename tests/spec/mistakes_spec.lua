-- What newcomers do, and what they are told: each message says at which line of theirs, what is wrong, and what to do instead.
local zproc = require "zproc"

local describe, it, before_each, after_each, assert = describe, it, before_each, after_each, assert
local _ENV <const> = _G

describe("a newcomer who", function()
  local ctx, state

  before_each(function()
    ctx = zproc.context()
    state = ctx.state
  end)
  after_each(function() ctx:close() end)

  local NIL_TARGET <const> = "the target is nil; is its name spelt right, and is it defined above this line?"
  local NIL_KEY <const> = "a key is needed, and this one is nil; is its name spelt right?"
  local misspelt -- what a name is that is

  local function map() return ctx:process_map(function(x) return 2 * x end, { 1, 2, 3 }) end

  --- The mistake must raise these words, at a line of this file.
  local function told(words, mistake)
    local ok, err = pcall(mistake)
    assert.is_false(ok, "no error was raised")
    local text = tostring(err)
    assert.is_truthy(text:find(words, 1, true), ("%q is not in %q"):format(words, text))
    assert.is_truthy(text:find("mistakes_spec.lua:", 1, true), "it says no line: " .. text)
  end

  it("changes what was read finds the state as it was: reading gives a copy", function()
    state.list = { 1 }
    state.list.field = 5
    table.insert(state.list, 2)
    assert.same({ 1 }, state.list)
    zproc.atomic(function(snapshot) table.insert(snapshot.list, 2) end)(state) -- the way to do it
    assert.same({ 1, 2 }, state.list)
  end)

  for name, case in pairs {
    ["forgets the colon of a State"] = { "is it state:method(...), with a colon?", function() state.get "key" end },
    ["gives a Context two servers"] = {
      "the Context of which server?", function() zproc.context("ipc:///tmp/a", { server_address = "ipc:///tmp/b" }) end },
    ["assigns to a Context's namespace"] = {
      "'namespace' of a Context cannot be assigned to: zproc.context { namespace = ... } makes a Context of another one",
      function() ctx.namespace = "other" end },
    ["assigns to a Context's process_list"] = { "'process_list' of a Context cannot be assigned to", function() ctx.process_list = {} end },
    ["assigns to a zproc.range"] = { "a zproc.range cannot be changed", function() zproc.range(1, 3)[1] = 5 end },
    ["exits with half a status"] = { "os.exit takes an integer, true or false, not 1.5", function() os.exit(1.5) end },
    ["forgets the colon of a watcher"] = {
      "is it state:get_when_change(...), with a colon?", function() state.get_when_change("key") end },
    ["forgets the colon of a predicate's watcher"] = {
      "is it state:get_when(...), with a colon?", function() state.get_when(function(s) return s.key end) end },
    ["forgets the colon of an iterator"] = { "is it state:when_equal(...), with a colon?", function() state.when_equal("key", 1) end },
    ["forgets the colon of get_raw_update"] = { "is it state:get_raw_update(...), with a colon?", function() state.get_raw_update() end },
    ["forgets the colon of fork"] = { "is it state:fork(...), with a colon?", function() state.fork() end },
    ["forgets the colon of ping"] = { "is it state:ping(...), with a colon?", function() state.ping { timeout = 1 } end },
    ["forgets the colon of a State that is to close"] = { "is it state:close(), with a colon?", function() state.close() end },
    ["forgets the colon of a Context"] = { "is it ctx:process(...), with a colon?", function() ctx.process(print) end },
    ["forgets the colon of a Context that watches"] = {
      "is it ctx:call_when_equal(...), with a colon?", function() ctx.call_when_equal("n", 0, print) end },
    ["forgets the colon of a Context that is to close"] = { "is it ctx:close(...), with a colon?", function() ctx.close() end },
    ["forgets the colon of a Process"] = {
      "is it process:wait(...), with a colon?", function() ctx:process(function() end).wait() end },
    ["forgets the colon of a MapResult"] = { "is it result:next(...), with a colon?", function()
      local result <close> = map()
      local _ = result.next()
    end },
    ["forgets the colon of a Server"] = { "is it server:stop(...), with a colon?", function()
      local server <close> = zproc.start_server()
      server.stop()
    end },
    ["forgets the colon of start"] = { "is it process:start(...), with a colon?", function() ctx:process(function() end).start() end },
    ["writes a colon for the dot of zproc.context"] = { "zproc.context(...), with a dot", function() zproc:context() end },
    ["writes a colon for the dot of zproc.sleep"] = { "zproc.sleep(...), with a dot", function() zproc:sleep(1) end },
    ["writes a colon for the dot of zproc.is_error"] = { "zproc.is_error(...), with a dot", function() zproc:is_error(5) end },
    ["gives a map a function that holds an open file"] = {
      "ctx:process_map: target, upvalue file of function at", function()
        local file <close> = io.tmpfile()
        ctx:process_map(function(line) file:write(line) end, { "a" })
      end,
    },
    ["captures an open file for a map"] = { "cannot send a userdata (FILE*); open it inside the target", function()
      local file <close> = io.tmpfile()
      ctx:process_map(function(line) file:write(line) end, { "a" })
    end },
    ["gives an open file to a map"] = { "ctx:process_map: args[1]: cannot send a userdata (FILE*); open it inside the target", function()
      ctx:process_map(function() end, { "a" }, { args = { io.stdout } })
    end },
    ["captures an open file for a thread"] = { "cannot send a userdata (FILE*); open it inside the target", function()
      local file <close> = io.tmpfile()
      ctx:process(function() file:write "a" end, { backend = "thread", name = "writer" })
    end },
    ["gives an open file to a thread"] = {
      "process writer: args[1]: cannot send a userdata (FILE*); open it inside the target", function()
        ctx:process(function() end, { backend = "thread", name = "writer", args = { io.stdout } })
      end,
    },
    ["misspells a target"] = { "ctx:process: " .. NIL_TARGET, function() ctx:process(misspelt) end },
    ["misspells a target with options"] = { "ctx:process: " .. NIL_TARGET, function() ctx:process(misspelt, { args = { 1 } }) end },
    ["forgets the target"] = { "ctx:process: " .. NIL_TARGET, function() ctx:process() end },
    ["calls the target, which gives nothing"] = { "ctx:process: " .. NIL_TARGET, function() ctx:process((function() end)()) end },
    ["misspells a target for a decorator"] = { "ctx:process: " .. NIL_TARGET, function() ctx:process { start = false }(misspelt) end },
    ["misspells one of several targets"] = { "ctx:process_factory: " .. NIL_TARGET, function()
      ctx:process_factory(function() end, misspelt, { count = 2 })
    end },
    ["misspells the target of a map"] = { "ctx:process_map: " .. NIL_TARGET, function() ctx:process_map(misspelt, { 1 }) end },
    ["misspells a handler of changes"] = { "ctx:call_when_change: " .. NIL_TARGET, function()
      ctx:call_when_change("key", misspelt)
    end },
    ["misspells a handler of a value"] = { "ctx:call_when_equal: " .. NIL_TARGET, function()
      ctx:call_when_equal("key", 1, misspelt)
    end },
    ["misspells a handler of a key"] = { "ctx:call_when_none: " .. NIL_TARGET, function()
      ctx:call_when_none("key", misspelt, { start = false })
    end },
    ["misspells a handler of a predicate"] = { "ctx:call_when: " .. NIL_TARGET, function()
      ctx:call_when(function() return true end, misspelt)
    end },
    ["gives the handler before the keys"] = {
      "a function cannot be a key; the target comes last, after the keys: ctx:call_when_change(key, ..., target)", function()
        ctx:call_when_change(function() end, "key")
      end,
    },
    ["misspells a key to watch"] = { "state:get_when_change: " .. NIL_KEY, function() state:get_when_change(misspelt) end },
    ["misspells one of several keys"] = { "state:get_when_change: " .. NIL_KEY, function()
      state:get_when_change("a", misspelt, "b", { timeout = 0 })
    end },
    ["misspells a key to loop on"] = { "state:when_change: " .. NIL_KEY, function() state:when_change(misspelt) end },
    ["misspells the key of a handler"] = { "ctx:call_when_change: " .. NIL_KEY, function()
      ctx:call_when_change(misspelt, function() end)
    end },
    ["misspells a method of a Context"] = { "a Context has no field or method 'proces' (did you mean 'process'?)", function()
      ctx:proces(print)
    end },
    ["misspells a method of a Process"] = { "a Process has no field or method 'wiat' (did you mean 'wait'?)", function()
      ctx:process(function() end):wiat()
    end },
    ["misspells a field of a Process"] = { "a Process has no field or method 'exit_code' (did you mean 'exitcode'?)", function()
      return ctx:process(function() end).exit_code
    end },
    ["misspells a method of a MapResult"] = { "a MapResult has no field or method 'colect' (did you mean 'collect'?)", function()
      local result <close> = map()
      result:colect()
    end },
    ["misspells a field of a Server"] = { "a Server has no field or method 'addresses'", function()
      local server <close> = zproc.start_server()
      return server.addresses
    end },
    ["keeps a value in the Context"] = { "a Context has no field or method 'apples'; what is in the state is ctx.state.apples", function()
      ctx.apples = 5
    end },
    ["reads a value from the Context"] = { "what is in the state is ctx.state.apples", function() return ctx.apples end },
    ["keeps a value in a Process"] = { "a Process has no field or method 'note'; keep it in a variable of your own", function()
      ctx:process(function() end).note = 5
    end },
    ["assigns to the exit code"] = { "'exitcode' of a Process cannot be assigned to", function()
      ctx:process(function() end).exitcode = 5
    end },
    ["counts a MapResult"] = { "a MapResult is no array: r:collect() gives one; or go through it: for i, result in r do", function()
      local result <close> = map()
      return #result
    end },
    ["indexes a MapResult"] = { "r:collect() gives an array of the results", function()
      local result <close> = map()
      return result[1]
    end },
    ["goes through a MapResult with ipairs"] = { "r:collect() gives an array of the results", function()
      local result <close> = map()
      for _ in ipairs(result) do error "it went through" end
    end },
    ["goes through a MapResult with pairs"] = { "a MapResult is no array: r:collect() gives one; or go through it", function()
      local result <close> = map()
      for _ in pairs(result) do error "it went through" end
    end },
    ["maps over ipairs"] = { "an iterator function alone, not all that ipairs or pairs gives; others can be made one: coroutine.wrap(", function()
      ctx:process_map(print, ipairs { 1, 2 })
    end },
    ["maps over pairs"] = { "an iterator function alone, not all that ipairs or pairs gives", function()
      ctx:process_map(print, pairs { apples = 5 })
    end },
    ["gives named arguments as args"] = {
      "option 'args' must be a list, not a table with the key \"apples\" (did you mean 'kwargs'?)", function()
        ctx:process(function() end, { args = { apples = 5 } })
      end,
    },
    ["exits with words"] = { 'zproc.exit takes an integer, true or false, not the string "done"', function() zproc.exit "done" end },
    ["makes an error class without a name"] = { "zproc.error_class takes a name, not the empty string", function() zproc.error_class "" end },
    ["exits with half a status"] = {
      "zproc.exit takes an integer, true or false, not 1.5; to end with an error there is error(...)", function() zproc.exit(1.5) end,
    },
    ["gives a Server for its address"] = { "zproc.state: this is no server address, but has one: it is server.server_address", function()
      local server <close> = zproc.start_server()
      zproc.state(server)
    end },
    ["gives a Server to a Context"] = { "zproc.context: this is no server address, but has one: it is server.server_address", function()
      local server <close> = zproc.start_server()
      zproc.context(server)
    end },
    ["gives a Context for an address"] = { "it is ctx.server_address", function() zproc.ping(ctx) end },
    ["looks for a server that is not there"] = { 'zproc.start_server("ipc:///tmp/nobody") starts one, or zproc server --bind ipc:///tmp/nobody',
      function() zproc.state "ipc:///tmp/nobody" end },
    ["gives a port that is too large"] = { "[::1]:7000; a port is at most 65535", function() zproc.state "tcp://127.0.0.1:99999" end },
    ["gives a State another metatable"] = { "cannot change a protected metatable", function() setmetatable(state, {}) end },
    ["calls for the time in a predicate"] = { "it uses 'os.time', which is not there; for a limit of time give the watcher the option timeout",
      function()
        local time = os.time
        state:get_when(function() return time() > 5 end)
      end },
    ["calls for zproc in a predicate"] = { "it uses 'zproc', which is not there; for a limit of time give the watcher the option timeout",
      function() state:get_when(function() return zproc.time() > 5 end) end },
    ["waits for ever in a predicate"] = { "it took more time than the 1 second that it may", function()
      state:get_when(function() while true do end end)
    end },
    ["hoards in a predicate"] = { "it took more memory than the 64 MiB that it may", function()
      state:get_when(function() return ("x"):rep(1 << 28) end)
    end },
    ["stores a file"] = { "state.file: cannot send a userdata (FILE*)", function() state.file = io.stdout end },
    ["stores a coroutine"] = { "cannot send a coroutine", function() state.thread = coroutine.create(print) end },
    ["stores the Context"] = { "use pass_context = true", function() state.ctx = ctx end },
    ["asks for the time in a predicate"] = {
      "at what it captures; for a limit of time give the watcher the option timeout; put what else it needs into a local variable before",
      function() state:get_when(function() return os.time() > 5 end) end,
    },
    ["prints in a predicate"] = { "'print' is not there for a predicate", function()
      state:get_when(function(snapshot) print(snapshot.a) end)
    end },
    ["prints in a predicate, and is told how to"] = {
      "at what it captures; print what the watcher returns, or what its handler gets; put what else it needs into a local variable before, or into the "
      .. "state; of Lua's library it has the basic functions, string, table, math, utf8 and coroutine",
      function() state:get_when(function(snapshot) print(snapshot.a) end) end,
    },
    ["captures print in a predicate"] = { "it uses 'print', which is not there; print what the watcher returns", function()
      local say = print
      state:get_when(function(snapshot) say(snapshot.a) end)
    end },
    ["writes to a file in a predicate"] = { "'io' is not there for a predicate: it is evaluated apart from the script", function()
      state:get_when(function(snapshot) io.stdout:write(snapshot.a) end)
    end },
    ["captures io in a predicate"] = { "it uses 'io.write', which is not there; print what the watcher returns", function()
      local write = io.write
      state:get_when(function(snapshot) write(snapshot.a) end)
    end },
    ["encodes JSON in a predicate"] = { "it uses 'cjson', which is not there; use it before and after the watcher, on what that returns", function()
      local cjson = require "cjson"
      state:get_when(function(snapshot) return cjson.encode(snapshot:copy()) == "{}" end)
    end },
    ["captures a function of a module in a predicate"] = { "it uses 'cjson.decode', which is not there; use it before and after the watcher",
      function()
        local decode = require "cjson".decode
        state:get_when(function(snapshot) return decode(snapshot.text) end)
      end },
    ["asks for the environment in a predicate"] = { "it uses 'os.getenv', which is not there; put what else it needs into a local variable before",
      function()
        local getenv = os.getenv
        state:get_when(function() return getenv "HOME" end)
      end },
    ["requires a module in a predicate"] = { "'require' is not there for a predicate", function()
      state:get_when(function() return require "cjson" end)
    end },
    ["warns in a predicate"] = { "'warn' is not there for a predicate", function() state:get_when(function() warn "x" end) end },
    ["mistypes an option"] = { "unknown option 'sateful' (did you mean 'stateful'?)", function()
      ctx:process(function() end, { sateful = false })
    end },
    ["mistypes an option of a map"] = { "is no option (did you mean 'chunk_size'?)", function()
      ctx:process_map(print, { chunksize = 5 })
    end },
    ["waits for a process that does not run"] = { "was never started: call start(), or leave out start = false", function()
      ctx:process(function() end, { start = false }):wait()
    end },
    ["starts a process twice"] = { "was started already", function() ctx:process(function() end):start() end },
    ["gives the arguments without a table"] = { "option 'args' must be a list, not 5", function()
      ctx:process(function() end, { args = 5 })
    end },
    ["gives the arguments like those of a function"] = { "options come in a table, as in { args = ... }; this is 5", function()
      ctx:process(function() end, 5)
    end },
    ["gives the timeout without a table"] = { "options come in a table, as in { timeout = ... }; this is 5", function()
      state:get_when_equal("key", 1, 5)
    end },
    ["gives a timeout in the past"] = { "must be a number of seconds, 0 or more, not -1", function()
      state:get_when_equal("key", 1, { timeout = -1 })
    end },
    ["gives a name for a function"] = { 'the target must be a function, not the string "print"', function() ctx:process "print" end },
    ["calls the target"] = { "the target must be a function, not 7", function()
      local function target() return 7 end
      ctx:process(target(), {})
    end },
    ["uses the State within an atomic function"] = { "within it, use the table that it was given", function()
      zproc.atomic(function() return state.key end)(state)
    end },
    ["starts a process within an atomic function"] = { "start it when that has returned", function()
      zproc.atomic(function() ctx:process(function() end) end)(state)
    end },
    ["calls an atomic function without the State"] = { "as in increment(state, ...), not with nil", function()
      zproc.atomic(function() end)()
    end },
    ["calls an atomic function with the table of another one"] = {
      "not with a table; within another one, call the plain function that it was made of", function()
        local inner = zproc.atomic(function() end)
        zproc.atomic(function(snapshot) inner(snapshot) end)(state)
      end,
    },
    ["keeps the table of an atomic function"] = { "has returned: return the values that are needed, or a copy of it", function()
      local kept
      zproc.atomic(function(snapshot) kept = snapshot end)(state)
      return kept.key
    end },
    ["retries for something that is no error"] = { "a list of signals, error classes, names and functions; it has 5", function()
      ctx:process(function() end, { retry_for = { 5 } })
    end },
    ["maps over a number"] = { "a sequence is an array, a zproc.range or an iterator function, not 10", function()
      ctx:process_map(print, 10)
    end },
    ["maps over a dictionary"] = { "this table has no items, and the string \"apples\" is no option", function()
      ctx:process_map(print, { apples = 5 })
    end },
    ["assigns to ctx.state"] = { "ctx.state:set{...} replaces what is in it", function() ctx.state = { key = 1 } end },
    ["uses a table as a key"] = { "a table cannot be a key of the state; use a string", function() state[{}] = 1 end },
    ["names a key like a method"] = { 'use state:update({get = ...}), and state:get("get") to read it', function() state.get = 5 end },
    ["compares a key that is not there"] = { "attempt to compare nil with number", function() return state.nothing < 5 end },
    ["watches a key with the function for predicates"] = { "the predicate must be a function of a snapshot", function()
      state:get_when "gold"
    end },
    ["waits for nil"] = { "for an absent key there is get_when_none", function() state:get_when_equal("gold", nil) end },
    ["gives a path for an address"] = { 'did you mean "ipc:///tmp/place"?', function() zproc.state "/tmp/place" end },
    ["gives a host for an address"] = { 'did you mean "tcp://localhost:7000"?', function() zproc.state "localhost:7000" end },
    ["gives two arguments to update"] = { "state:update takes a table of keys and values, not a string", function()
      state:update("key", 5)
    end },
    ["sleeps for words"] = { "must be a number of seconds", function() zproc.sleep "1s" end },
    ["calls a function that is not there, in a process"] = { "attempt to call a nil value (global 'no_such_function')", function()
      ctx:process(function() no_such_function() end):wait() -- luacheck: ignore
    end },
    ["returns from a process what cannot travel"] = {
      "EncodeError: result[1]: cannot send a userdata (FILE*); return what is in it, or its path", function()
        ctx:process(function() return io.stdout end):wait()
      end,
    },
    ["returns from a map what cannot travel"] = {
      "EncodeError: result: cannot send a userdata (FILE*); return what is in it, or its path", function()
        ctx:process_map(function() return io.stdout end, { 1 }):collect()
      end,
    },
    ["closes the Context too early"] = { "this Context is closed", function()
      local brief = zproc.context()
      brief:close()
      brief:process(function() end)
    end },
  } do
    it(name .. " is told what to do", function() told(case[1], case[2]) end)
  end

  it("raises in a coroutine.wrap is told of that alone", function()
    local result <close> = ctx:process_map(print, coroutine.wrap(function() error "no such file" end))
    local ok, err = pcall(result.collect, result)
    assert.is_false(ok)
    assert.is_truthy(err:find "^[^:]*mistakes_spec.lua:%d+: no such file$", err)
  end)

  it("gives options that are nil gives none", function()
    ctx:process(function() end, misspelt):wait()
    local one = ctx:call_when_equal("key", 1, function() zproc.exit(3) end, misspelt)
    state.key = 1
    local _, err = pcall(one.wait, one)
    assert.equal(3, err.exitcode)
  end)

  it("compares a key that is not there in a predicate just waits", function()
    local snapshot, err = state:get_when(function(s) return s.price < 5 end, { timeout = 0.01 })
    assert.is_nil(snapshot)
    assert.is_true(zproc.is_error(err, "TimeoutError"))
  end)

  it("forgets to wait loses nothing: the Context waits if it was made to", function()
    local patient = zproc.context { wait = true, server_address = ctx.server_address }
    patient:process(function(own) own.done = true end)
    patient:close()
    assert.is_true(state.done)
  end)
end)
