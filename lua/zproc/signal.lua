--- Signals by name, and signals as errors.

local core = require "zproc.core"
local errors = require "zproc.errors"
local options = require "zproc.options"

---@class zproc.Signal
---@field name string "SIGTERM"
---@field number integer
local Signal = { __name = "Signal" }
Signal.__index = Signal

function Signal.__tostring(self) return self.name end

--- signal.SIGTERM, ...
---@type table<string, zproc.Signal>
local by_name = {}
local by_number = {}

local LAST <const> = 64

for number = 1, LAST do
  local name = core.signal_name(number)
  if name then
    local one = setmetatable({ name = name, number = number }, Signal)
    by_name[name], by_number[number] = one, one
    core.register("zproc:signal." .. name, one)
  end
end
core.set_signals(by_number)

setmetatable(by_name, {
  __index = function(_, name) errors.usage("there is no signal %s", tostring(name)) end,
})

--- Why some signals cannot become errors.
local impossible = {
  SIGKILL = "cannot be caught by any program",
  SIGSTOP = "cannot be caught by any program",
  SIGCHLD = "is used by zproc itself",
  SIGIO = "is used by zproc itself",
  SIGPOLL = "is used by zproc itself",
  SIGURG = "is used by zproc itself",
  SIGSEGV = "says that the program is damaged",
  SIGBUS = "says that the program is damaged",
  SIGILL = "says that the program is damaged",
  SIGFPE = "says that the program is damaged",
}

local signal = { by_name = by_name }

--- The signals that the script has asked to be errors.
local wanted = {}

--- Whether a value is a signal.
function signal.is(value) return getmetatable(value) == Signal end

--- The signal that a value means: a signal, its name or its number; raises a UsageError if it is none.
---@param call string the function's name, for messages
---@param value zproc.Signal|string|integer
---@return zproc.Signal
function signal.find(call, value)
  local found
  if signal.is(value) then
    found = value
  elseif type(value) == "string" then
    found = rawget(by_name, value)
  elseif math.type(value) == "integer" then
    found = by_number[value]
  else
    errors.usage("%s takes a signal such as zproc.signal.SIGTERM, not %s", call, options.describe(value))
  end
  if not found then errors.usage("%s: there is no signal %s", call, tostring(value)) end
  return found
end

--- Refuse what cannot become an error.
---@param call string
---@param one zproc.Signal
function signal.check(call, one)
  local reason = impossible[one.name]
  if reason then errors.usage("%s: %s %s", call, one.name, reason) end
end

--- From now on the signal raises a SignalError in the running Lua code, blocking calls included.
---@param value zproc.Signal|string|integer
function signal.to_error(value)
  local one = signal.find("zproc.signal_to_error", value)
  signal.check("zproc.signal_to_error", one)
  if core.is_thread() then
    errors.usage 'zproc.signal_to_error: signals come to the first thread of a process, and this is another one (backend = "thread")'
  end
  core.catch_signal(one.number, false)
  wanted[one] = true
end

--- For a program that signals ask to end: each of these is raised as an error, and the next one after it ends the program at once. One that is
--- ignored stays ignored, as whoever has started the program wished: nohup, or a shell for what it puts into the background.
---@param ... string the names of signals
function signal.end_by(...)
  for _, name in ipairs { ... } do
    local number = by_name[name].number
    if not core.is_ignored(number) then core.catch_signal(number, true) end
  end
end

--- As to_error for the time of a call, and only where the script has not asked for it anyway.
---@param one zproc.Signal
function signal.borrow(one)
  if not wanted[one] then core.catch_signal(one.number, false) end
end

--- If the signal was only borrowed: end this process by it, as it would have without.
---@param one zproc.Signal
function signal.give_back(one)
  if not wanted[one] then core.die_of(one.number) end
end

return signal
