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

  it("of a predicate that took too long has no traceback of that", function()
    local text = report_of(function() ctx.state:get_when(function() while true do end end) end)
    has_no_line_of_zproc(text)
    assert.is_nil(text:find "remote", text)
  end)
end)
