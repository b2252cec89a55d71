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
    ["forgets the colon of a Context"] = { "is it ctx:process(...), with a colon?", function() ctx.process(print) end },
    ["forgets the colon of a Process"] = {
      "is it process:wait(...), with a colon?", function() ctx:process(function() end).wait() end },
    ["gives a map a function that holds an open file"] = { "upvalue file of function at", function()
      local file <close> = io.tmpfile()
      ctx:process_map(function(line) file:write(line) end, { "a" })
    end },
    ["stores a file"] = { "state.file: cannot send a userdata (FILE*)", function() state.file = io.stdout end },
    ["stores a coroutine"] = { "cannot send a coroutine", function() state.thread = coroutine.create(print) end },
    ["stores the Context"] = { "use pass_context = true", function() state.ctx = ctx end },
    ["asks for the time in a predicate"] = { "'os' is not there for a predicate", function()
      state:get_when(function() return os.time() > 5 end)
    end },
    ["prints in a predicate"] = { "'print' is not there for a predicate", function()
      state:get_when(function(snapshot) print(snapshot.a) end)
    end },
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
    ["calls an atomic function without the State"] = { "is called with a State as its first argument, as in increment(state, ...), not with nil", function()
      zproc.atomic(function() end)()
    end },
    ["keeps the table of an atomic function"] = { "after that function has returned", function()
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
    ["returns from a process what cannot travel"] = { "result[1]: cannot send a userdata", function()
      ctx:process(function() return io.stdout end):wait()
    end },
    ["closes the Context too early"] = { "this Context is closed", function()
      local brief = zproc.context()
      brief:close()
      brief:process(function() end)
    end },
  } do
    it(name .. " is told what to do", function() told(case[1], case[2]) end)
  end

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
