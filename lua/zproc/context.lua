--- Context: a State and the processes that share it.

local core = require "zproc.core"
local address = require "zproc.address"
local class = require "zproc.class"
local errors = require "zproc.errors"
local options = require "zproc.options"
local link = require "zproc.link"
local process = require "zproc.process"
local runtime = require "zproc.runtime"
local server = require "zproc.server"

---@class zproc.Context
---@field state zproc.State
---@field process_list zproc.Process[]
---@field server_address string
---@field server_process zproc.Server? the server, if the Context has started it
---@field namespace string
---@field secret_key string?
local Context = {
  __name = "Context",
  __unsendable = "a Context, which belongs to the process that made it: use pass_context = true, or make one there with "
    .. "zproc.context(server_address)",
}

--- A copy: whoever goes through the list may wait for those in it, which changes it.
local function copy(list) return table.move(list, 1, #list, 1, {}) end

class.seal(Context, { server_process = true, secret_key = true, namespace = true, server_address = true }, {
  secret_key = function(self) return link.shown_secret(self._secret_key) end,
  -- Kept where assigning does not reach: ctx.state = {} would replace the State, and not what it holds.
  state = function(self) return self._state end,
  process_list = function(self) return copy(self._process_list) end,
  worker_list = function(self) return copy(self._worker_list) end,
}, function(name)
  if name == "state" then return ": it is the State; ctx.state:set{...} replaces what is in it, ctx.state:update{...} sets some keys" end
  if name == "namespace" or name == "server_address" then return (": zproc.context { %s = ... } makes a Context of another one"):format(name) end
  return type(name) == "string" and ("; what is in the state is ctx.state.%s"):format(name) or ""
end)

local LOOK_EVERY <const> = 64 -- processes that were started, between looks at which of all have ended

local WORKER_GRACE <const>, WORKER_GRACE_LEAST <const> = 2, 0.1 -- seconds that workers have to end, those of the processes included

local SERVER_PATIENCE <const> = 5 -- seconds in which a server that has just been started is to be heard of

local OPTIONS = {
  server_address = "string",
  wait = "boolean",
  cleanup = "boolean",
  namespace = "string",
  server_backend = "backend",
  secret_key = "secret",
  transport = "transport",
  allow_user = "users",
  process = "table",
}

local context = { Context = Context }

--- The State that the next process gets, with its cursor at the newest revision. One for all processes of a namespace: each has its
--- own copy by fork, and what need not be made for each start is not faulted in by each child.
local function state_for(self, namespace)
  local own = self._states[namespace]
  if not own then
    own = self._link:state(namespace)
    self._states[namespace] = own
  end
  core.go_live(own)
  return own
end

--- zproc.context([server_address,] [options])
---@param server_address? string|table
---@param opts? { server_address: string?, wait: boolean?, cleanup: boolean?, namespace: string?, server_backend: string?, process: table?,
--- secret_key: string?, transport: "auto"|"network"|nil }
---@return zproc.Context
function context.new(server_address, opts)
  if type(server_address) == "table" and opts == nil and not address.holder(server_address) then
    server_address, opts = nil, server_address
  end
  opts = options.check("zproc.context", opts, OPTIONS)
  process.check("zproc.context: option 'process'", opts.process)
  if server_address ~= nil and opts.server_address ~= nil and server_address ~= opts.server_address then
    errors.usage("zproc.context: the Context of which server? %s is given, and as the option server_address %s", options.describe(server_address),
      options.describe(opts.server_address))
  end
  server_address = server_address or opts.server_address
  link.trust("zproc.context", opts)
  local namespace = opts.namespace or "default"
  local own, way
  if server_address then
    way = link.open("zproc.context", server_address, opts)
  else
    own = server.start("zproc.context", {}, { backend = opts.server_backend, secret_key = opts.secret_key })
    server_address = own.server_address
  end
  local self = setmetatable({
    _worker_list = {},
    _server_process = own,
    _namespace = namespace,
    _process_list = {},
    _server_address = server_address,
    _closed = false,
    _options = opts,
    _pid = core.getpid(),
    _states = {},
  }, Context)
  self._state_for = function(name) return state_for(self, name) end
  local ok, err = pcall(function()
    if own then -- by the network only if that is wished
      way = opts.transport == "network" and link.open("zproc.context", server_address, opts)
        or link.of_directory(server_address, own.directory, own._secret_key)
    end
    self._link = way
    self._secret_key = way.secret_key
    self._state = way:state(namespace)
    core.state_check(self._state)
    self._table = way:join_processes()
  end)
  if not ok then
    if own then own:stop() end
    error(err)
  end
  runtime.add(self)
  return self
end

---@param call string the function's name, for messages
function context.check_open(self, call)
  class.check_self(self, Context, call)
  if self._closed then errors.usage("%s: this Context is closed", call) end
  if self._pid ~= core.getpid() then
    errors.usage("%s: this Context belongs to process %d; start with pass_context = true, or make a new one with "
      .. "zproc.context(server_address)", call, self._pid)
  end
end

local check_open = context.check_open

--- The options of a process: those of the call over those of the Context.
local function process_options(self, call, opts)
  local merged = { namespace = self.namespace, cleanup = self._options.cleanup }
  for name, value in pairs(self._options.process or {}) do merged[name] = value end
  for name, value in pairs(options.check(call, opts, process.OPTIONS)) do merged[name] = value end
  return merged
end

--- ctx:process(target, [options]), or ctx:process(options) which returns a function that takes the target.
---@param target function|table
---@param opts? table
---@return zproc.Process|fun(target: function): zproc.Process
function Context:process(target, opts, ...)
  check_open(self, "ctx:process")
  if opts == nil and type(target) == "table" and not options.is_callable(target) then
    local given = process_options(self, "ctx:process", target)
    return function(decorated) return self:process(decorated, given) end
  end
  opts = process_options(self, "ctx:process", opts)
  class.refuse_surplus("ctx:process", 0, ...) -- when all that it takes is right
  local fresh = process.new("ctx:process", target, self.server_address, opts, self)
  local list = self._process_list
  fresh:_join(list)
  if #list % LOOK_EVERY == 0 then -- what has ended, and was looked at, takes no descriptor
    for _, one in ipairs(list) do one:_has_ended() end
  end
  return fresh
end

--- ctx:process_factory(target, ..., [{count = n, ...}]): n processes for each target.
---@return zproc.Process[]
function Context:process_factory(...)
  check_open(self, "ctx:process_factory")
  local targets, opts = table.pack(...), {}
  local last = targets[targets.n]
  if type(last) == "table" and not options.is_callable(last) then
    targets.n = targets.n - 1
    for name, value in pairs(last) do opts[name] = value end
  end
  if targets.n == 0 then errors.usage("ctx:process_factory: at least one target is needed") end
  for i = 1, targets.n do options.check_target("ctx:process_factory", targets[i]) end
  local count = opts.count
  options.check("ctx:process_factory", { count = count }, { count = "processes" })
  opts.count = nil
  local made = {}
  for i = 1, targets.n do
    for _ = 1, count or 1 do made[#made + 1] = self:process(targets[i], opts) end
  end
  return made
end

--- What one of them gives, its first value, and whether that is an error.
local function take_result(one, call)
  if not one.pid then
    return errors.new("UsageError", ("%s: process %s was never started: call start(), or leave out start = false"):format(call, one.name)), true
  end
  local ok, result = pcall(one._give, one)
  return result, not ok
end

--- ctx:wait_all([timeout] or {timeout =, safe =}): what each process returned (its first value), in the order of process_list; `.n` is
--- set. As soon as one has failed that is raised; the others go on, and stay in the list. The timeout is for all together; when it is up: nil
--- and a TimeoutError. With `safe`, errors (a TimeoutError too) take the place of the results that they prevented.
---@param opts? number|{ timeout: number?, safe: boolean? }
---@return any[]?, zproc.Error?
function Context:wait_all(opts)
  check_open(self, "ctx:wait_all")
  if type(opts) ~= "table" then
    options.check_timeout("ctx:wait_all", opts)
    opts = { timeout = opts }
  end
  opts = options.check("ctx:wait_all", opts, { timeout = "seconds", safe = "boolean" })
  local deadline = opts.timeout and core.clock() + opts.timeout
  local list = copy(self._process_list)
  local results, is_known = { n = #list }, {}
  while true do
    local running = {}
    for i, one in ipairs(list) do
      if not is_known[i] and one.pid and not one:_has_ended() then
        running[#running + 1] = one
      elseif not is_known[i] then
        local result, has_failed = take_result(one, "ctx:wait_all")
        if has_failed and not opts.safe then error(result, 0) end
        results[i], is_known[i] = result, true
      end
    end
    if #running == 0 then break end
    if not process.await_first(running, deadline and math.max(0, deadline - core.clock())) then
      if not opts.safe then return errors.timeout("waiting for all processes", opts.timeout) end
      break
    end
  end
  for i, one in ipairs(list) do
    if is_known[i] and one.pid then
      one:_leave()
    elseif not is_known[i] then
      results[i] = select(2, one:_say_time_is_up(opts.timeout))
    end
  end
  return results
end

--- Start every process that was not started yet.
function Context:start_all()
  check_open(self, "ctx:start_all")
  for _, one in ipairs(copy(self._process_list)) do
    if not one.pid then one:start() end
  end
end

--- Stop every process that was started; returns the exit codes, in the order of process_list (false: never started). They are asked
--- all at once, and those that have not ended when the time is up are killed.
---@param timeout? number seconds that they have
---@return (integer|false)[]
function Context:stop_all(timeout)
  check_open(self, "ctx:stop_all")
  options.check_timeout("ctx:stop_all", timeout)
  local list = copy(self._process_list)
  process.end_all(list, timeout)
  local exitcodes = {}
  for i, one in ipairs(list) do
    exitcodes[i] = one.exitcode or false
    if one.pid then one:_leave() end
  end
  return exitcodes
end

--- The processes of the server, this one and those of other Contexts included, in the order in which they were started. What
--- has ended stays in the list until its place is needed.
---@return zproc.ProcessRow[]
function Context:processes()
  check_open(self, "ctx:processes")
  local rows, own = self._link:list_processes(), self._server_process
  if not own then return rows end
  local pid = own.pid
  for _, row in ipairs(rows) do
    if row.pid == pid then return rows end
  end
  self._link:ping("ctx:processes", { timeout = SERVER_PATIENCE }) -- it has only just been started, and answers once it is listed
  return self._link:list_processes()
end

--- Ask the server for a sign of life: its pid; nil and a TimeoutError when the time is up.
---@param opts? { timeout: number?, payload: string? }
---@return integer? pid
---@return zproc.Error?
function Context:ping(opts)
  check_open(self, "ctx:ping")
  return self._link:ping("ctx:ping", opts)
end

--- Workers have nothing to lose: what they have claimed is given back. What only this Context could ask for is dropped, since
--- others may go on with the server.
---@param timeout number seconds that they have
local function stop_workers(self, timeout)
  for result in pairs(self._results or {}) do result:_abandon() end
  local is_lost = false -- that nothing is heard of the server takes its time, and is found out once
  local function tell(method, ...)
    if is_lost then return end
    local ok, err = pcall(method, self._queue, ...)
    is_lost = not ok and errors.is(err, "ServerLost")
  end
  if self._link.connection then -- which that was left to
    for _, task in ipairs(self._garbage or {}) do tell(self._queue.drop, task) end
  end
  process.end_all(self._worker_list, timeout)
  self._worker_list = {}
  if self._queue then
    tell(self._queue.disband, self._pool)
    self._queue:close()
  end
end

--- Ask the processes to end, since the Context is to be closed soon: so all that are to be closed together have the same time.
---@return boolean whether that could be done: not if they are to be waited for first
function Context:_prepare_close()
  if self._options.wait then return false end
  if self._closed or self._options.cleanup == false then return true end
  for _, one in ipairs(self._process_list) do one:_ask_to_end() end
  return true
end

--- Wait for the processes if the Context was made with `wait`, stop them unless with `cleanup = false`, and let go of the
--- state. Afterwards the Context is not to be used. May be called twice.
function Context:close()
  class.check_self(self, Context, "ctx:close")
  if self._closed then return end
  if self._pid ~= core.getpid() then return end -- inherited by fork: its owner will
  local ok, err = true, nil
  if self._options.wait then
    for _, one in ipairs(self.process_list) do
      if one.pid then
        local waited, failure = pcall(one.wait, one)
        if ok and not waited then ok, err = false, failure end
      end
    end
  end
  local begun = core.clock()
  local stopped, stop_error = true, nil
  if self._options.cleanup ~= false then stopped, stop_error = pcall(process.end_all, self._process_list) end
  process.note_unseen(self._process_list)
  stop_workers(self, math.max(WORKER_GRACE_LEAST, WORKER_GRACE - (core.clock() - begun)))
  self._closed = true
  runtime.remove(self)
  self._state:close()
  for _, own in pairs(self._states) do own:close() end
  if self._server_process then
    local running = false
    for _, one in ipairs(self._process_list) do running = running or one.is_alive end
    if not running then -- else it is theirs; the server cleans up once they have ended
      self._server_process:stop()
      if self._table then self._table:detach() end
    end
  end
  if not ok then error(err, 0) end
  if not stopped then error(stop_error, 0) end
end

function Context:__close() self:close() end

class.limit_methods(Context, "ctx", { wait_all = 1, start_all = 0, stop_all = 1, processes = 0, ping = 1, close = 0 })

function Context:__tostring()
  return ("Context (%s, namespace %q, %d processes%s)"):format(self.server_address, self.namespace, #self._process_list,
    self._closed and ", closed" or "")
end

return context
