-- Tracebacks have the lines of the script, and none of zproc's own.
local errors = require "zproc.errors"
local program = require "zproc.cli.program"
local traceback = require "zproc.traceback"
local zproc = require "zproc"

local describe, it, before_each, after_each, assert = describe, it, before_each, after_each, assert
local _ENV <const> = _G

local ERROR <const> = errors.new("UsageError", "words")

local function text_of(...) return table.concat({ "words", "stack traceback:", ... }, "\n") end

describe("a traceback", function()
  it("leaves out what zproc has called, up to what the script did", function()
    assert.equal(text_of("\tscript.lua:3: in local 'inner'", "\tscript.lua:5: in main chunk"), traceback.clean(text_of(
      "\t[C]: in function 'error'",
      "\tzproc.errors:65: in field 'usage'",
      "\t(...tail calls...)",
      "\tzproc.options:110: in function 'zproc.options.check'",
      "\tscript.lua:3: in local 'inner'",
      "\tscript.lua:5: in main chunk",
      "\t[C]: in function 'xpcall'",
      "\tzproc.cli.program:40: in function 'zproc.cli.program.run'",
      "\t(...tail calls...)",
      "\tzproc.cli:62: in function 'zproc.cli.main'",
      "\t[C]: in ?"), ERROR))
  end)

  it("leaves out the lines between those of the script", function()
    assert.equal(text_of("\tscript.lua:3: in upvalue 'fn'", "\t[C]: in function 'pcall'", "\tscript.lua:9: in main chunk", "\t[C]: in ?"),
      traceback.clean(text_of(
        "\tscript.lua:3: in upvalue 'fn'",
        "\t[C]: in function 'zproc.core.atomic'",
        "\tzproc.state:107: in function <zproc.state:106>",
        "\t(...tail calls...)",
        "\t[C]: in function 'pcall'",
        "\tscript.lua:9: in main chunk",
        "\t[C]: in ?"), ERROR))
  end)

  it("keeps the lines of files that are called like zproc", function()
    local text = text_of("\tzproc.lua:3: in local 'f'", "\tmy/zproc.lua:5: in main chunk", "\t[C]: in ?")
    assert.equal(text, traceback.clean(text, "words"))
  end)

  it("is none if no line is the script's", function()
    assert.equal("words", traceback.clean(text_of("\t[C]: in function 'error'", "\tzproc.errors:65: in field 'usage'", "\t[C]: in ?"), ERROR))
  end)

  it("of a fault in zproc itself keeps what there is", function()
    local text = text_of("\tzproc.map:330: in function 'zproc.map.next'", "\t[C]: in ?")
    assert.equal(text, traceback.clean(text, "zproc.map:330: attempt to index a nil value"))
  end)
end)

describe("the report of an error", function()
  local ctx
  before_each(function() ctx = zproc.context() end)
  after_each(function() ctx:close() end)

  --- What `zproc run` says of what a function raises.
  local function report_of(fn)
    local ok, result = xpcall(fn, program.report)
    assert.is_false(ok)
    return result.text
  end

  local function has_no_line_of_zproc(text)
    assert.is_nil(text:find "\tzproc[%w_.]*:%d+:", text)
    assert.is_nil(text:find("in function 'error'", 1, true), text)
    assert.is_nil(text:find "\n\n", text)
    assert.is_nil(text:find "remote $", text)
  end

  it("begins with the script's line", function()
    local text = report_of(function() ctx:process(5) end)
    assert.is_truthy(text:find "UsageError: ctx:process: the target must be a function, not 5\nstack traceback:\n\t[^\n]*traceback_spec.lua:%d+:")
    has_no_line_of_zproc(text)
  end)

  it("that comes from a process, a thread or a map has no line of zproc, either", function()
    local function fail() zproc.range() end
    for _, call in ipairs {
      function() ctx:process(fail):wait() end,
      function() ctx:process(fail, { backend = "thread" }):wait() end,
      function() ctx:process(fail, { retry_for = { zproc.AnyError }, retry_delay = 0, max_retries = 1 }):wait() end,
      function() ctx:process_map(fail, { 1 }):collect() end,
      function() ctx:process_map(fail, { 1 }, { args = { 2 } }):collect() end,
      function()
        local one = ctx:call_when_change("key", fail)
        ctx.state.key = 1
        one:wait()
      end,
    } do
      local text = report_of(call)
      assert.is_truthy(text:find "remote stack traceback:\n\t[^\n]*traceback_spec.lua:%d+:", text)
      has_no_line_of_zproc(text)
    end
  end)

  describe("that an atomic function has raised has the lines of that function,", function()
    local function inner(snapshot) return snapshot.absent.field end
    local fail = zproc.atomic(function(snapshot) return (inner(snapshot)) end)

    local function has_both(text)
      assert.is_truthy(text:find "stack traceback[^\n]*:\n\t[^\n]*traceback_spec.lua:%d+: in upvalue 'inner'\n\t[^\n]*traceback_spec.lua:%d+: in ", text)
      has_no_line_of_zproc(text)
    end

    it("called in the script", function()
      local text = report_of(function() fail(ctx.state) end)
      has_both(text)
      assert.is_truthy(text:find "in upvalue 'inner'.*: in function <.*: in function <.*in function 'xpcall'", text)
    end)

    it("called in a process, or on the server", function()
      local network = zproc.state(ctx.server_address, { transport = "network" })
      has_both(report_of(function() ctx:process(fail):wait() end))
      has_both(report_of(function() fail(network) end))
      has_both(report_of(function() ctx:process(function() fail(network) end):wait() end))
      network:close()
      assert.is_truthy(ctx:process(fail, { start = false }).name:find "traceback_spec.lua:%d+$")
    end)

    it("however deep the stack is within it, and outside", function()
      local function dive(depth, fn) return depth == 0 and fn() or dive(depth - 1, fn) + 1 end
      for _, depths in ipairs { { 0, 40 }, { 40, 0 }, { 40, 40 }, { 3, 9 }, { 9, 3 } } do
        local text = report_of(function()
          dive(depths[1], function()
            zproc.atomic(function(snapshot) dive(depths[2], function() return inner(snapshot) + 1 end) end)(ctx.state)
          end)
        end)
        has_both(text)
        local _, count = text:gsub("in upvalue 'inner'", "")
        assert.equal(1, count)
        assert.is_truthy(text:find("in function 'xpcall'", 1, true))
      end
    end)

    it("and not the lines of what was raised before", function()
      local texts = {}
      for i = 1, 2 do
        texts[i] = report_of(function() error("words", 0) end)
        pcall(zproc.atomic(function() error("words", 0) end), ctx.state)
      end
      assert.equal(texts[1], texts[2])
    end)
  end)

  it("of a predicate that took too long has no traceback of that", function()
    local text = report_of(function() ctx.state:get_when(function() while true do end end) end)
    has_no_line_of_zproc(text)
    assert.is_nil(text:find "remote", text)
  end)
end)
