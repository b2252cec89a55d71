--- Tracebacks as the user of zproc wants them: with the lines of the script, and without those of zproc itself.

local core = require "zproc.core"
local errors = require "zproc.errors"

local traceback = {}

local HEADER <const> = "^stack traceback"
local MOST_CALLS <const> = 22 -- as Lua's own tracebacks, about
local NAMED <const> = { ["local"] = true, upvalue = true, field = true } -- kinds of names that a caller has for what it calls

--- Whether a line is of a function of zproc's own: the chunks of its modules are called zproc.x, and no file is.
local function is_own(line)
  local chunk = line:match "^\t(zproc[%w_.]*):%d+: in "
  return chunk ~= nil and not chunk:find "%.lua$" or line:find "^\t%[C%]: in [%w ]+'zproc%.[%w_.]+'$" ~= nil
end

--- Leave out the lines of zproc itself, and of the functions in C that it calls or that are called by it.
---@param lines string[] what is below the header
---@return string[]
local function without_own(lines)
  local kept = {}
  local is_dropped = false -- whether the line below is
  for i = #lines, 1, -1 do
    local line, was_dropped = lines[i], is_dropped
    if line:find "^\t%[C%]" then -- as the one that has called it; the one that has called all is not of interest either
      is_dropped = is_dropped or is_own(line) or line == "\t[C]: in function 'error'" or i == #lines and i > 1 and is_own(lines[i - 1])
    elseif line == "\t(...tail calls...)" then
      is_dropped = i > 1 and is_own(lines[i - 1])
    else
      is_dropped = is_own(line)
    end
    if not is_dropped then
      -- The name that a worker has for the target says nothing to others.
      if was_dropped and lines[i + 1]:find "^\tzproc%.worker:" then
        line = line:gsub(": in (%l+) '[%w_]+'$", function(kind) return NAMED[kind] and ": in function" end)
      end
      table.insert(kept, 1, line)
    end
  end
  return kept
end

--- A traceback, or words with one below, without what is zproc's own; only the words if that is all. A fault of zproc itself, which is
--- none of its error objects and was not called by a script, keeps its lines.
---@param text string
---@param raised any what was raised
---@return string
function traceback.clean(text, raised)
  local words, below = {}, nil
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do
    if line:find(HEADER) and not below then
      below = { header = line }
    else
      table.insert(below or words, line)
    end
  end
  if not below then return text end
  local kept = without_own(below)
  if #kept == 0 and not errors.is(raised) then kept = below end
  if #kept > 0 then
    words[#words + 1] = below.header
    table.move(kept, 1, #kept, #words + 1, words)
  end
  return table.concat(words, "\n")
end

local function lines_of(text)
  local lines = {}
  for line in text:gmatch "[^\n]+" do lines[#lines + 1] = line end
  return lines
end

local library_names = setmetatable({}, { __mode = "k" }) -- of functions that were looked for; false: none

local function find_library_name(fn)
  for module, content in next, package.loaded do
    if rawequal(content, fn) then return module end
    if type(content) == "table" then
      for name, value in next, content do
        if rawequal(value, fn) and type(name) == "string" then return module == "_G" and name or ("%s.%s"):format(module, name) end
      end
    end
  end
end

--- What a function of a library is called, or false: as Lua's own tracebacks find it.
local function library_name(fn)
  local name = library_names[fn]
  if name == nil then
    name = find_library_name(fn) or false
    library_names[fn] = name
  end
  return name
end

--- A line of a traceback, as Lua writes it.
---@param call table what core.take_raised tells of it
---@return string
local function line_of(call)
  local place = call.currentline > 0 and ("%s:%d"):format(call.short_src, call.currentline) or call.short_src
  local name = library_name(call.func)
  if name then
    name = ("function '%s'"):format(name)
  elseif call.namewhat ~= "" then
    name = ("%s '%s'"):format(call.namewhat, call.name)
  elseif call.what == "main" then
    name = "main chunk"
  else
    name = call.what == "C" and "?" or ("function <%s:%d>"):format(call.short_src, call.linedefined)
  end
  return ("\t%s: in %s"):format(place, name)
end

--- A traceback with the lines of an atomic function that has raised something, too. It has run in a protected call of its own, which
--- a traceback from outside does not look into; that of the place was noted there.
---@param text string maybe with words above
---@param raised any
---@return string
local function with_atomic(text, raised)
  local noted, calls = core.take_raised()
  local words, below = text:match "^(.-)stack traceback:(\n.*)$"
  if not below or noted == nil or not rawequal(noted, raised) then return text end
  local outer = lines_of(below)
  if not outer[1]:find "^\t%[C%]: in function 'zproc%.core%.atomic'$" then return text end -- this one was raised elsewhere
  local inner = {}
  for _, call in ipairs(calls) do
    inner[#inner + 1] = line_of(call)
    if call.istailcall then inner[#inner + 1] = "\t(...tail calls...)" end
  end
  if calls.is_cut then inner[#inner + 1] = "\t..." end
  if #inner == 0 then return text end
  return ("%sstack traceback:\n%s%s"):format(words, table.concat(inner, "\n"), below)
end

--- For a message handler: the calls from where something was raised to the protected call that the handler is of.
---@param raised any
---@param protected function that call
---@return string "" if none of them is the script's
function traceback.within(raised, protected)
  local lines = { "stack traceback:" }
  for level = 3, 3 + MOST_CALLS do -- behind this function and the handler
    local call = debug.getinfo(level, "Slntf")
    if not call or call.func == protected then break end
    lines[#lines + 1] = line_of(call)
    if call.istailcall then lines[#lines + 1] = "\t(...tail calls...)" end
  end
  return (traceback.clean(table.concat(lines, "\n"), raised):gsub("^stack traceback:$", ""))
end

local remote_raised, remote_where

--- Something that is raised now, and is no error object, comes from another process; this is its traceback there.
---@param raised any
---@param where string
function traceback.note_remote(raised, where) remote_raised, remote_where = raised, where end

--- What was noted of that, if it is what was raised.
local function take_remote(raised)
  local noted, where = remote_raised, remote_where
  remote_raised, remote_where = nil, nil
  return noted ~= nil and rawequal(noted, raised) and where or ""
end

--- A traceback with that of another process, or "", below.
local function with_remote(text, remote)
  if remote == "" then return text end
  return text ~= "" and ("%s\nremote %s"):format(text, remote) or remote
end

--- The traceback of who calls this from a message handler, which is `level` calls away, below words: for a person.
---@param words string
---@param level integer as for debug.traceback
---@param raised any
---@return string
function traceback.here(words, level, raised)
  local text = traceback.clean(with_atomic(debug.traceback(words, level + 1), raised), raised)
  return with_remote(text, errors.is(raised) and raised.traceback or take_remote(raised))
end

--- The traceback of a coroutine in which something was raised; nil if nothing of it is the script's.
---@param thread thread
---@param raised any
---@return string?
function traceback.of(thread, raised)
  local text = traceback.clean(with_atomic(debug.traceback(thread), raised), raised)
  text = with_remote(text, take_remote(raised))
  return text ~= "" and text or nil
end

--- An error with its traceback, if there is one, below.
---@param err zproc.Error
---@return string
function traceback.tell(err)
  return err.traceback and ("%s\n%s"):format(tostring(err), err.traceback) or tostring(err)
end

--- What was raised by a function that zproc has called. coroutine.wrap puts the place of its caller before the words.
---@param raised any
---@return any
function traceback.without_place(raised)
  return type(raised) == "string" and raised:gsub("^zproc[%w_.]*:%d+: ", "") or raised
end

return traceback
