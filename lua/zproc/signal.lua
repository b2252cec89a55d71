--- Signals by name, and signals as errors.

local class = require "zproc.class"
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

--- By signal: the Signals that it comes to, of this process or, inherited by fork, of another one.
local owners = {}

local function is_queued(one)
  local owner = owners[one]
  return owner ~= nil and owner._pid == core.getpid()
end

local function check_queued(call, one)
  if is_queued(one) then errors.usage("%s: %s comes to what zproc.signals has given; close that first", call, one.name) end
end

local function check_thread(call)
  if core.is_thread() then
    errors.usage('%s: signals come to the first thread of a process, and this is another one (backend = "thread")', call)
  end
end

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
  check_thread "zproc.signal_to_error"
  check_queued("zproc.signal_to_error", one)
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

-- ---- signals as things to wait for ----

---@class zproc.Signals
local Signals = {
  __name = "Signals",
  __unsendable = "what zproc.signals gives, which belongs to the process that it was called in: call it there",
}
class.seal(Signals, {})

--- What has come goes to those that have asked for it. All of it, since the system's queue is that of the whole process.
local function distribute()
  for number in core.next_signal do
    local one = by_number[number]
    local owner = owners[one]
    if owner then owner._come[#owner._come + 1] = one end
  end
end

--- zproc.signals(signal, ...): from now on these signals are no errors, and do not do what they do by default, but come to the object that it
--- gives, in which they wait for the script.
---@param ... zproc.Signal|string|integer
---@return zproc.Signals
function signal.queue(...)
  local call = "zproc.signals"
  local given = {}
  for i = 1, select("#", ...) do
    given[i] = signal.find(call, (select(i, ...)))
    signal.check(call, given[i])
    check_queued(call, given[i])
  end
  if #given == 0 then errors.usage("%s takes at least one signal", call) end
  check_thread(call)
  local self = setmetatable({ _signals = {}, _come = {}, _pid = core.getpid() }, Signals)
  local ok, err = pcall(function()
    for _, one in ipairs(given) do
      if owners[one] ~= self then
        owners[one] = self
        self._signals[#self._signals + 1] = one
        core.queue_signal(one.number)
      end
    end
  end)
  if not ok then
    self:close()
    error(err, 0)
  end
  return self
end

--- The next one that has come, which is taken out; nil if there is none. It does not wait: whoever waits for several things does that, and is
--- woken whenever a signal comes.
---@return zproc.Signal?
function Signals:_take()
  distribute()
  return table.remove(self._come, 1)
end

--- The next of the signals, in the order in which they come; waits for it. With a timeout (seconds): nil and a TimeoutError when the time is
--- up.
---@param timeout number?
---@return zproc.Signal?
---@return zproc.Error?
function Signals:next(timeout)
  class.check_self(self, Signals, "signals:next")
  options.check_timeout("signals:next", timeout)
  if self._pid ~= core.getpid() then errors.usage("signals:next: these signals are those of process %d", self._pid) end
  local deadline = timeout and core.clock() + timeout
  while not self._is_closed do
    local one = self:_take()
    if one then return one end
    if not core.await_signal(deadline and math.max(0, deadline - core.clock())) then return errors.timeout("waiting for a signal", timeout) end
  end
  errors.usage "signals:next: these signals were closed"
end

--- for one in signals do: until they are closed.
function Signals:__call()
  if self._is_closed then return nil end
  return (self:next())
end

--- The signals do again what they did before. What has come and was not taken is dropped.
function Signals:close()
  class.check_self(self, Signals, "signals:close")
  if self._is_closed or self._pid ~= core.getpid() then return end
  self._is_closed = true
  distribute()
  for _, one in ipairs(self._signals) do
    core.unqueue_signal(one.number)
    owners[one] = nil
  end
end

function Signals:__close() self:close() end

function Signals:__tostring()
  local names = {}
  for i, one in ipairs(self._signals) do names[i] = one.name end
  return ("Signals (%s%s)"):format(table.concat(names, ", "), self._is_closed and ", closed" or "")
end

class.limit_methods(Signals, "signals", { next = 1, close = 0 })

return signal
