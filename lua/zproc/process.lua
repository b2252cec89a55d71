--- Process: one forked process, or one thread, that runs one target.

local core = require "zproc.core"
local class = require "zproc.class"
local errors = require "zproc.errors"
local link = require "zproc.link"
local options = require "zproc.options"
local retry = require "zproc.retry"
local runtime = require "zproc.runtime"
local thread = require "zproc.thread"

local GRACE <const> = 2 -- seconds that a process has between SIGTERM and SIGKILL

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
  args = "list",
  kwargs = "table",
  stateful = "boolean",
  pass_context = "boolean",
  start = "boolean",
  namespace = "string",
  name = "string",
  backend = "backend",
  cleanup = "boolean", -- set by the Context
  secret_key = "secret",
  transport = "transport",
  allow_user = "users",
}
for name, kind in pairs(retry.OPTIONS) do OPTIONS[name] = kind end

local process = { OPTIONS = OPTIONS }

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

function getters.exitcode(self)
  return self._child and await(self, 0)
end

function getters.is_alive(self)
  return self._child ~= nil and getters.exitcode(self) == nil
end

class.seal(Process, {
  name = true, target = true, namespace = true, server_address = true,
  pool = true, notepad = true, -- of workers
}, getters)

function Process.__tostring(self)
  local now
  if not self._child then
    now = "not started"
  elseif self.exitcode == nil then
    now = "running"
  elseif self.exitcode < 0 then
    now = "killed by " .. (core.signal_name(-self.exitcode) or "signal " .. -self.exitcode)
  else
    now = "exited with " .. self.exitcode
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
---@param notepad? userdata of a worker
---@return zproc.Process
function process.new(call, target, server_address, opts, context, notepad)
  options.check_target(call, target)
  opts = options.check(call, opts, OPTIONS)
  local self = setmetatable({
    target = target,
    name = opts.name or process.name_of(target),
    server_address = server_address,
    namespace = opts.namespace or "default",
    _options = opts,
    _retry = retry.plan(call, opts),
    _is_thread = opts.backend == "thread",
    _is_alone = context == nil, -- no Context will stop it
    notepad = notepad,
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
  self._child = core.start(self._table, self._options.cleanup ~= false, coroutine.create(target), self.name, runtime.finish,
    table.unpack(arguments, 1, arguments.n))
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
  runtime.on_open()
  return self._child:pid()
end

local function need_start(self, call)
  class.check_self(self, Process, call)
  if not self._child then
    errors.usage("%s: process %s was never started: call start(), or leave out start = false", call, self.name)
  end
end

--- After it was asked to end: wait a while, and kill it if it does not.
---@return integer exitcode
function Process:_await_stop()
  if self.exitcode == nil then
    if not await(self, GRACE) then
      self._child:kill()
      -- Nothing but a C function that does not return keeps a thread from ending now, and nothing can end that.
      if not await(self, self._is_thread and GRACE or nil) then
        error(errors.new("SystemError", ("process %s, a thread, does not end: it is in a C function"):format(self.name)))
      end
    end
  end
  return self._exitcode
end

--- Ask the process to end, wait a while, and kill it if it does not.
---@return integer exitcode
function Process:stop()
  need_start(self, "process:stop")
  self:_terminate()
  return self:_await_stop()
end

--- So that what is open may be a process.
Process.close = Process.stop

--- Let a worker look at its Notepad.
function Process:_urge()
  if self.is_alive then self._child:urge() end
end

--- Ask it to end without waiting; for ending many at once. That is done once: a second signal would hit what it does to end in order.
function Process:_terminate()
  if self.is_alive then self._child:stop() end
end

local function raise_wait_error(self, exitcode, cause)
  local how
  if exitcode < 0 then
    how = ("was killed by signal %d (%s)"):format(-exitcode, core.signal_name(-exitcode) or "unknown")
  else
    how = ("exited with code %d"):format(exitcode)
  end
  local message = ("process %s (pid %d) %s"):format(self.name, self.pid, how)
  if cause ~= nil then message = message .. ": " .. tostring(cause) end
  error(errors.new("ProcessWaitError", message, {
    exitcode = exitcode,
    process = self,
    cause = cause,
    traceback = errors.is(cause) and cause.traceback or nil,
  }))
end

--- Wait for the end, and return all that the target returned. Raises a ProcessWaitError if the exit code is not 0 or
--- the target raised. With a timeout (seconds): nil and a TimeoutError when the time is up.
---@param timeout number?
---@return any ...
function Process:wait(timeout)
  need_start(self, "process:wait")
  options.check_timeout("process:wait", timeout)
  local exitcode = await(self, timeout)
  if not exitcode then return errors.timeout("waiting for process " .. self.name, timeout) end
  if not self._outcome then
    local ok, values = runtime.read_outcome(self._child)
    self._outcome = { ok = ok, values = values }
  end
  local ok, values = self._outcome.ok, self._outcome.values
  if exitcode ~= 0 or ok == false then raise_wait_error(self, exitcode, ok == false and values or nil) end
  if ok then return table.unpack(values, 1, values.n) end
end

return process
