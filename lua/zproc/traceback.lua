--- Tracebacks as the user of zproc wants them: with the lines of the script, and without those of zproc itself.

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

--- The traceback of a coroutine in which something was raised; nil if nothing of it is the script's.
---@param thread thread
---@param raised any
---@return string?
function traceback.of(thread, raised)
  local text = traceback.clean(debug.traceback(thread), raised)
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
