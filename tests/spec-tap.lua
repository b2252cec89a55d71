-- spec-tap -- an output handler for busted. Its own handler TAP falls over a file that does not load, without saying why, and is
-- silent about what goes wrong outside of a test (in setup, in describe). Here each failure prints its message and its traceback.

local pretty = require "pl.pretty"

return function()
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()
  local count = 0

  local function comment(text)
    io.write("# ", (text:gsub("\n", "\n# ")), "\n")
  end

  local function result(word, name, directive)
    count = count + 1
    io.write(word, " ", count, " - ", (name:gsub("%s+", " ")), directive or "", "\n")
  end

  local function failure(entry)
    if not entry then return end
    local element, trace = entry.element, entry.trace or {}
    local name = entry.name ~= "" and entry.name or "the file"
    if element.descriptor ~= "it" then name = ("%s (%s)"):format(name, element.descriptor or "?") end
    result("not ok", name)
    local where = element.trace
    if where and where.short_src and where.currentline then comment(where.short_src .. ":" .. where.currentline) end
    local message = entry.message
    if type(message) ~= "string" then message = message == nil and "an error without a message" or pretty.write(message) end
    comment(message)
    if trace.traceback then comment((trace.traceback:gsub("^\n", ""))) end
  end

  -- The next thing that runs may fork, or end the process: nothing may be left in the buffer.
  local function go_on()
    io.flush()
    return nil, true
  end

  busted.subscribe({ "suite", "reset" }, function()
    count = 0
    return nil, true
  end)

  busted.subscribe({ "suite", "end" }, function()
    io.write("1..", count, "\n")
    return go_on()
  end)

  busted.subscribe({ "test", "end" }, function(_, _, status)
    if status == "success" then
      result("ok", handler.successes[#handler.successes].name)
    elseif status == "pending" then
      local entry = handler.pendings[#handler.pendings]
      result("ok", entry.name, " # SKIP " .. (type(entry.message) == "string" and entry.message:gsub("%s+", " ") or "pending"))
    elseif status == "failure" then
      failure(handler.failures[#handler.failures])
    else
      failure(handler.errors[#handler.errors])
    end
    return go_on()
  end)

  -- What fails outside of a test. The base handler, which comes first, keeps failures of both kinds in errors then.
  local function outside(element)
    if element.descriptor ~= "it" then failure(handler.errors[#handler.errors]) end
    return go_on()
  end
  busted.subscribe({ "error" }, outside)
  busted.subscribe({ "failure" }, outside)

  return handler
end
