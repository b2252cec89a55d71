--- Tracebacks as the user of zproc wants them: with the lines of the script, and without those of zproc itself.

local core = require "zproc.core"
local errors = require "zproc.errors"

local traceback = {}

local HEADER <const> = "^stack traceback"
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

local function is_gap(line) return line ~= nil and line:find("^\t%.%.%.\t") ~= nil end

--- How many lines of a traceback come before those of another one, from further out in the same stack. Of a deep stack both leave out
--- lines in the middle.
---@param inner string[]
---@param outer string[]
---@return integer
local function count_before(inner, outer)
  for i, line in ipairs(inner) do
    if is_gap(line) then return i end
    local next_line = inner[i + 1]
    if line == outer[1] and (next_line == outer[2] or is_gap(next_line) or is_gap(outer[2])) then return i - 1 end
  end
  return 0
end

--- A traceback with the lines of an atomic function that has raised something, too. It has run in a protected call of its own, which
--- a traceback from outside does not look into; that of the place was noted there.
---@param text string maybe with words above
---@param raised any
---@return string
local function with_atomic(text, raised)
  local noted, place = core.take_raised()
  local words, below = text:match "^(.-)stack traceback:(\n.*)$"
  if not below or noted == nil or not rawequal(noted, raised) then return text end
  local inner, outer = lines_of(place:gsub(HEADER .. ":", "")), lines_of(below)
  if not outer[1]:find "^\t%[C%]: in function 'zproc%.core%.atomic'$" then return text end -- this one was raised elsewhere
  local count = count_before(inner, outer)
  if count == 0 then return text end
  return ("%sstack traceback:\n%s%s"):format(words, table.concat(inner, "\n", 1, count), below)
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
