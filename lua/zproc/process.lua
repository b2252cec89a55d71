--- Process: one forked process, or one thread, that runs one target.

local core = require "zproc.core"
local class = require "zproc.class"
local errors = require "zproc.errors"
local link = require "zproc.link"
local options = require "zproc.options"
local retry = require "zproc.retry"
local runtime = require "zproc.runtime"
local signal = require "zproc.signal"
local thread = require "zproc.thread"

local GRACE <const> = 2 -- seconds that a process has between SIGTERM and SIGKILL, if nobody says otherwise
local ALONE_MAX <const> = 64 -- processes without a Context, between looks at which of them have ended

---@class zproc.Process
---@field name string what it is called in messages; by default where its target is defined
---@field target function
---@field namespace string
---@field server_address string
---@field pid integer? nil before the start; of a thread that of the process that it is in
---@field exitcode integer? nil while it runs; -N after signal N
---@field is_alive boolean
local Process = {
  __name = "Process",
  __unsendable = "a Process, which belongs to the process that started it: let that one wait for it",
}

local OPTIONS = {
  args = "arguments",
  kwargs = "table",
  stateful = "boolean",
  pass_context = "boolean",
  start = "boolean",
  namespace = "string",
  name = "string",
  backend = "backend",
  stop = "table",
  cleanup = "boolean", -- set by the Context
  secret_key = "secret",
  transport = "transport",
  allow_user = "users",
}
for name, kind in pairs(retry.OPTIONS) do OPTIONS[name] = kind end

local STOP_OPTIONS <const> = { timeout = "seconds" }

local SIGTERM <const>, SIGKILL <const> = signal.by_name.SIGTERM.number, signal.by_name.SIGKILL.number

local process = { OPTIONS = OPTIONS }

--- Check options of a process, all that can be said of them before it is made.
---@param call string the function's name, for messages
---@param opts table?
---@return table opts
---@return table? plan of zproc.retry
function process.check(call, opts)
  opts = options.check(call, opts, OPTIONS)
  options.check(call .. ": option 'stop'", opts.stop, STOP_OPTIONS)
  return opts, retry.plan(call, opts)
end

local getters = {}

function getters.pid(self)
  return self._child and self._child:pid()
end

--- Wait for the end, and take note of it.
---@param timeout number?
---@return integer? exitcode
local function await(self, timeout)
  if not self._exitcode then
    self._exitcode = self._child:wait(timeout)
    if self._exitcode then runtime.remove(self) end
  end
  return self._exitcode
end

--- Somebody has asked how it ended: so whatever that is, it is no news at the end of the script, and it is no matter of its Context any more.
local function leave(self)
  self._is_seen = true
  local list = self._list
  if not list then return end
  self._list = nil
  for i, one in ipairs(list) do
    if rawequal(one, self) then return table.remove(list, i) end
  end
end

function getters.exitcode(self)
  local exitcode = self._child and await(self, 0)
  if exitcode then self._is_seen = true end
  return exitcode
end

function getters.is_alive(self)
  return self._child ~= nil and await(self, 0) == nil
end

class.seal(Process, {
  name = true, target = true, namespace = true, server_address = true,
  pool = true, notepad = true, -- of workers
}, getters)

function Process.__tostring(self)
  local now
  local exitcode = self._child and await(self, 0)
  if not self._child then
    now = "not started"
  elseif exitcode == nil then
    now = "running"
  elseif exitcode < 0 then
    now = "killed by " .. (core.signal_name(-exitcode) or "signal " .. -exitcode)
  else
    now = "exited with " .. exitcode
  end
  local where = ""
  if self._child then where = ("%spid %d, "):format(self._is_thread and "a thread of " or "", self.pid) end
  return ("Process %s (%s%s)"):format(self.name, where, now)
end

--- What a function is called in messages: where it is defined; an atomic one, where that is which it was made of.
---@return string
function process.name_of(target)
  if type(target) ~= "function" then target = getmetatable(target).__call end
  local info = debug.getinfo(target, "Su")
  if info.source == "=zproc.state" then -- zproc.atomic has made it
    for i = 1, info.nups do
      local name, fn = debug.getupvalue(target, i)
      if name == "fn" then return process.name_of(fn) end
    end
  end
  return info.what == "C" and "a C function" or ("%s:%d"):format(info.short_src, info.linedefined)
end

--- Threads have no signals of their own, and none outlives its process.
local function check_thread(call, self)
  local one = self._retry and next(self._retry.signals)
  if one then
    errors.usage("%s: option 'retry_for': %s comes to the first thread of a process, not to one with backend = 'thread'", call,
      one.name)
  end
  if self._options.cleanup == false then
    errors.usage("%s: a thread ends with its process: it cannot have both backend = 'thread' and cleanup = false", call)
  end
end

--- Make a process and, unless told otherwise, start it.
---@param call string the function's name, for messages
---@param target function
---@param server_address string
---@param opts table?
---@param context? zproc.Context that it is one of
---@param notepad? userdata of a worker; who looks after one does that in silence
---@return zproc.Process
function process.new(call, target, server_address, opts, context, notepad)
  options.check_target(call, target)
  local checked, plan = process.check(call, opts)
  opts = checked
  local self = setmetatable({
    _target = target,
    _name = opts.name or process.name_of(target),
    _server_address = server_address,
    _namespace = opts.namespace or "default",
    _options = opts,
    _retry = plan,
    _is_thread = opts.backend == "thread",
    _is_alone = context == nil, -- no Context will stop it
    _notepad = notepad,
  }, Process)
  if self._is_thread then check_thread(call, self) end
  if context then
    self._link, self._state_for, self._table = context._link, context._state_for, context._table
  else
    local way = link.open(call, server_address, opts)
    self._link, self._table = way, way:join_processes()
    self._state_for = function(namespace) return way:state(namespace) end
  end
  if opts.start ~= false then self:start() end
  return self
end

--- The arguments of a target: `first` if there is one, args one by one, kwargs as one table.
local function arguments_of(first, args, kwargs)
  local arguments = { n = 0 }
  local function add(value)
    arguments.n = arguments.n + 1
    arguments[arguments.n] = value
  end
  if first ~= nil then add(first) end
  args = args or {}
  for i = 1, args.n or #args do add(args[i]) end
  if kwargs then add(kwargs) end
  return arguments
end

--- What is to be run: the target with all that is around it, and its packed arguments.
local function prepare(self)
  local opts, target = self._options, self.target
  if type(target) ~= "function" then
    local callable = target
    target = function(...) return callable(...) end
  end
  local first
  if opts.pass_context then -- made by the child: a Context belongs to the process that makes it
    local plain, given = target, {
      server_address = self.server_address,
      namespace = self.namespace,
      secret_key = self._link.secret_key,
      transport = self._link.transport,
    }
    target = function(...) return plain(require "zproc.context".new(given), ...) end
  elseif opts.stateful ~= false then
    first = self._state_for(self.namespace)
  end
  if self._retry then
    target = retry.wrap(self._retry, self.name, target, function()
      local arguments = arguments_of(first, opts.retry_args or opts.args, opts.retry_kwargs or opts.kwargs)
      return table.unpack(arguments, 1, arguments.n)
    end)
  end
  return target, arguments_of(first, opts.args, opts.kwargs)
end

--- Fork. All is made before that, because what a child makes costs a page fault for every page that it touches.
local function start_process(self)
  local target, arguments = prepare(self)
  -- In a coroutine of its own, so that a traceback ends where the target was called, not in the parent's history.
  self._child = core.start(self._table, self._options.cleanup ~= false, self.notepad ~= nil, coroutine.create(target), self.name, runtime.finish,
    table.unpack(arguments, 1, arguments.n))
  if not self.notepad then self._child:tell_death(self.name) end
end

--- What a thread needs to know of the options.
local TRAVELLING <const> = {
  "args", "kwargs", "stateful", "pass_context", "retry_for", "retry_delay", "max_retries", "retry_args", "retry_kwargs",
}

local function start_thread(self)
  local opts = {}
  for _, name in ipairs(TRAVELLING) do opts[name] = self._options[name] end
  self._child = core.start_thread(thread.pack {
    name = self.name,
    target = self.target,
    server_address = self.server_address,
    link = self._link:pack(),
    namespace = self.namespace,
    options = opts,
    revision = self._state_for(self.namespace):revision(),
  }, self.notepad)
  if self._is_alone then
    self._pid = core.getpid()
    runtime.add(self)
  end
end

--- What it has left: nil if nothing; else true and its packed results, or false and its error. Raises if that cannot be read; it is kept then,
--- and may be readable the next time: the module that it names is there by then, or no signal interrupts the reading.
local function outcome_of(self)
  local outcome = self._outcome
  if not outcome then
    local ok, values, has_trouble = link.name_call(("process %s (pid %d)"):format(self.name, self.pid), function()
      self._message = self._message or self._child:message() -- which is given once
      return runtime.read_outcome(self._message)
    end)
    outcome = { ok = ok, values = values }
    self._outcome, self._message = outcome, nil
    if has_trouble then runtime.note_failure() end
  end
  return outcome.ok, outcome.values
end

--- What has gone wrong and nobody has asked for is still a failure of the script.
local function note_unseen(self)
  local exitcode = self._child and not self._is_seen and await(self, 0)
  if not exitcode then return end
  local is_read, ok = pcall(outcome_of, self)
  local is_killed = exitcode < 0 and not (self._is_asked and (exitcode == -SIGTERM or exitcode == -SIGKILL))
  if not is_read or ok == false or is_killed then runtime.note_failure() end
  self._is_seen = true
end

--- Of these processes: take note of failures that nobody has asked for.
---@param list zproc.Process[]
function process.note_unseen(list)
  for _, one in ipairs(list) do note_unseen(one) end
end

--- Those that have no Context, were started by this process, and are not known to have ended.
local alone = {}

local function look_at_alone()
  local left = {}
  for _, one in ipairs(alone) do
    if one._pid == core.getpid() then
      note_unseen(one)
      if not one._is_seen then left[#left + 1] = one end
    end
  end
  alone = left
end

runtime.before_the_end(look_at_alone)

--- In a thread: run the target of a process.
---@param job table of start_thread
---@return any ... what it returned
function process.run_job(job)
  local way = link.unpack(job.link)
  local self = {
    target = job.target,
    name = job.name,
    server_address = job.server_address,
    namespace = job.namespace,
    _options = job.options,
    _link = way,
    _retry = retry.plan(job.name, job.options),
    _state_for = function(namespace)
      local own = way:state(namespace)
      core.set_cursor(own, job.revision)
      return own
    end,
  }
  local target, arguments = prepare(self)
  return target(table.unpack(arguments, 1, arguments.n))
end

--- Start the process; a second start is an error.
---@return integer pid
function Process:start()
  class.check_self(self, Process, "process:start")
  if self._child then errors.usage("process %s was started already (pid %d)", self.name, self.pid) end
  core.check_fork()
  if self._is_thread then start_thread(self) else start_process(self) end
  if self._is_alone then
    self._pid = core.getpid()
    if #alone % ALONE_MAX == ALONE_MAX - 1 then look_at_alone() end
    alone[#alone + 1] = self
    core.note_closable() -- there is something to look at before the end
  end
  runtime.on_open()
  return self._child:pid()
end

local function need_start(self, call)
  class.check_self(self, Process, call)
  if not self._child then
    errors.usage("%s: process %s was never started: call start(), or leave out start = false", call, self.name)
  end
end

--- Ask it to end without waiting. That is done once: a second signal would hit what it does to end in order.
---@param timeout number? seconds that it has for that
function Process:_ask_to_end(timeout)
  if self._is_asked or not self._child or await(self, 0) then return end
  self._is_asked = true
  self._child:stop()
  self._due = core.clock() + (timeout or (self._options.stop or {}).timeout or GRACE)
end

--- Ask processes to end, all at once, and kill those that have not when the time is up: so many together take no longer than one.
---@param list zproc.Process[] those among them that were never started are left alone
---@param timeout number? seconds that they have, whatever their options say
function process.end_all(list, timeout)
  local begun, stubborn = core.clock(), {}
  for _, one in ipairs(list) do one:_ask_to_end(timeout) end
  for _, one in ipairs(list) do
    if one._child and not one._exitcode then
      local due = timeout and begun + timeout or one._due
      if not await(one, math.max(0, due - core.clock())) then stubborn[#stubborn + 1] = one end
    end
  end
  for _, one in ipairs(stubborn) do one._child:kill() end
  -- Nothing but a C function that does not return keeps a thread from ending now, and nothing can end that.
  local due, endless = core.clock() + GRACE, nil
  for _, one in ipairs(stubborn) do
    if not await(one, one._is_thread and math.max(0, due - core.clock()) or nil) then endless = endless or one end
  end
  if endless then
    error(errors.new("SystemError", ("process %s, a thread, does not end: it is in a C function"):format(endless.name)))
  end
end

--- Called when it is to be closed soon.
---@return boolean
function Process:_prepare_close()
  self:_ask_to_end()
  return true
end

--- Ask the process to end, wait a while, and kill it if it does not.
---@param timeout number? seconds
---@return integer exitcode
function Process:stop(timeout)
  need_start(self, "process:stop")
  options.check_timeout("process:stop", timeout)
  process.end_all({ self }, timeout)
  leave(self)
  return self._exitcode
end

--- So that what is open may be a process.
function Process:close() return self:stop() end

--- Let a worker look at its Notepad.
function Process:_urge()
  if not self:_has_ended() then self._child:urge() end
end

--- What the target has raised: what runtime.describe has made an error object of, unless that was words.
local function cause_of(failure)
  local is_made = errors.is(failure, "RemoteError") and failure.where == nil and failure.cause ~= nil
  if not is_made or type(failure.cause) == "string" then return failure, nil end
  local tries = failure.tries
  failure.tries = nil -- it is that of the whole
  return failure.cause, tries
end

local function raise_wait_error(self, exitcode, failure)
  local how
  if exitcode < 0 then
    how = ("was killed by signal %d (%s)"):format(-exitcode, core.signal_name(-exitcode) or "unknown")
  else
    how = ("exited with code %d"):format(exitcode)
  end
  local cause, tries = cause_of(failure)
  local message = ("process %s (pid %d) %s"):format(self.name, self.pid, how)
  if failure ~= nil then message = message .. ": " .. tostring(failure) end
  error(errors.new("ProcessWaitError", message, {
    exitcode = exitcode,
    process = self,
    cause = cause,
    tries = tries,
    traceback = errors.is(failure) and failure.traceback or nil,
  }))
end

--- After the end: what wait gives, or raises.
function Process:_give()
  local exitcode = self._exitcode
  self._is_seen = true
  local ok, values = outcome_of(self)
  if exitcode ~= 0 or ok == false then raise_wait_error(self, exitcode, ok == false and values or nil) end
  if ok then return table.unpack(values, 1, values.n) end
end

--- Wait for the end, and return all that the target returned. Raises a ProcessWaitError if the exit code is not 0 or
--- the target raised. With a timeout (seconds): nil and a TimeoutError when the time is up.
---@param timeout number?
---@return any ...
function Process:wait(timeout)
  need_start(self, "process:wait")
  options.check_timeout("process:wait", timeout)
  if not await(self, timeout) then return self:_say_time_is_up(timeout) end
  leave(self)
  return self:_give()
end

function Process:_say_time_is_up(timeout) return errors.timeout("waiting for process " .. self.name, timeout) end

--- Wait until at least one of these processes, which were started, has ended.
---@param list zproc.Process[]
---@param timeout number? seconds
---@return boolean? true; nil when the time is up
function process.await_first(list, timeout)
  local children = {}
  for i, one in ipairs(list) do children[i] = one._child end
  return core.await_first(children, timeout)
end

--- Whether it was started and has ended; without a word on how.
function Process:_has_ended() return self._child ~= nil and await(self, 0) ~= nil end

--- It is one of this list for as long as nobody has waited for it.
---@param list zproc.Process[]
function Process:_join(list)
  list[#list + 1] = self
  self._list = list
end

--- It was waited for, as one of all.
function Process:_leave() leave(self) end

class.limit_methods(Process, "process", { start = 0, stop = 1, close = 0, wait = 1 })

return process
