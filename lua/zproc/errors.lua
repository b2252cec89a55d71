--- Error objects: what every error of zproc is, and what scripts may raise themselves.
---
--- All error objects share one metatable; an error's class is its `name`. So an error that crossed a process boundary is
--- still recognised on the other side, whether or not the class was made there.

local core = require "zproc.core"

---@class zproc.Error
---@field name string what kind of error it is, "TimeoutError"
---@field message string one clear sentence, without name and place
---@field where string? "script.lua:12:", the line of the script that led to it
---@field traceback string? the traceback of the place where it was raised, in whichever process that was
---@field exitcode integer? of a ProcessWaitError
---@field process zproc.Process? of a ProcessWaitError
---@field cause any? of a ProcessWaitError: what the target raised
---@field status integer? of a ProcessExit
---@field signal zproc.Signal? of a SignalError
---@field tries integer? how often a process was tried, if more than once

local errors = {}

local Error = { __name = "Error" }

function Error.__tostring(err)
  local text = ("%s: %s"):format(err.name, err.message)
  if err.tries then text = ("%s (after %d tries)"):format(text, err.tries) end
  return err.where and err.where .. " " .. text or text
end

function Error.__concat(a, b)
  return tostring(a) .. tostring(b)
end

core.set_error_metatable(Error)

--- The line of the innermost function that is not one of zproc's own.
local function where()
  local level = 2
  while true do
    local info = debug.getinfo(level, "Sl")
    if not info then return nil end
    if info.currentline > 0 and not info.source:find("^=zproc") then
      return ("%s:%d:"):format(info.short_src, info.currentline)
    end
    level = level + 1
  end
end

--- Make an error object.
---@param name string
---@param message string
---@param fields table? further fields
---@return zproc.Error
function errors.new(name, message, fields)
  local err = {}
  for key, value in pairs(fields or {}) do err[key] = value end
  err.name, err.message = name, message
  if err.where == nil then err.where = where() elseif err.where == false then err.where = nil end -- false: there is no such place
  return setmetatable(err, Error)
end

--- Raise a UsageError: the caller of zproc did something that it should not.
---@param format string
function errors.usage(format, ...)
  error(errors.new("UsageError", format:format(...)))
end

--- The error of a call whose time is up: returned as a second result, not raised.
---@param what string what was waited for
---@param seconds number
---@return nil, zproc.Error
function errors.timeout(what, seconds)
  return nil, errors.new("TimeoutError", ("%s: the time is up after %g seconds"):format(what, seconds))
end

local ErrorClass = { __name = "ErrorClass" }
core.register("zproc:ErrorClass", ErrorClass)

function ErrorClass.__call(class, message)
  if type(message) == "table" then
    return errors.new(class.name, tostring(message.message or message[1] or ""), message)
  end
  return errors.new(class.name, message == nil and "" or tostring(message))
end

function ErrorClass.__tostring(class)
  return "error class " .. class.name
end

--- The names of errors that there are: those of zproc, and those that classes were made for.
local known = {}
for _, name in ipairs {
  "AuthError", "DecodeError", "EncodeError", "HistoryLost", "MemoryError", "ProcessExit", "ProcessWaitError", "RemoteError",
  "ServerLost", "SignalError", "StateFull", "SystemError", "TaskLost", "TimeoutError", "UsageError",
} do
  known[name] = true
end

---@param name string
function errors.is_known(name) return known[name] == true end

function errors.is_class(value) return getmetatable(value) == ErrorClass end

--- A class of errors: call it with a message to make one, `error(ConnectionError "refused")`.
---@param name string
---@return fun(message: string|table): zproc.Error
function errors.class(name)
  if type(name) ~= "string" or name == "" then
    errors.usage("zproc.error_class takes a name, not %s", name == "" and "the empty string" or "a " .. type(name))
  end
  known[name] = true
  return setmetatable({ name = name }, ErrorClass)
end

--- Stands for errors of any kind, where a class is asked for.
errors.any = errors.class "AnyError"
core.register("zproc:AnyError", errors.any)

--- Whether a value is an error object, and if a class or name is given, one of that name.
---@param value any
---@param class? string|table
---@return boolean
function errors.is(value, class)
  if getmetatable(value) ~= Error then return false end
  if class == nil then return true end
  if class == errors.any then return true end
  if errors.is_class(class) then class = class.name end
  if type(class) ~= "string" then errors.usage("zproc.is_error takes an error class or a name, not a %s", type(class)) end
  return value.name == class
end

return errors
