--- Link: how this process reaches a server: by shared memory, or by the network.
---
--- A server on this machine that is this user's is reached by its directory, whatever its address: the state is there. Others, those
--- whose processes are in another PID namespace (of a container, say), and those for which `transport = "network"` is asked, by a
--- connection. Everything else in zproc goes through a Link, and does not know which it is.

local core = require "zproc.core"
local address = require "zproc.address"
local errors = require "zproc.errors"
local options = require "zproc.options"
local processes = require "zproc.processes"

---@class zproc.Link
---@field server_address string
---@field secret_key string?
---@field transport "auto"|"network"
---@field directory string? of the server's state, if it is reached by that
---@field connection userdata? otherwise
---@field identity integer? of the state at the other end of the connection
local Link = { __name = "Link" }
Link.__index = Link

local link = {}

--- What each call that takes an address takes besides.
link.OPTIONS = { secret_key = "secret", transport = "transport", allow_user = "users" }

--- Connections of this VM by endpoint and key, for as long as somebody uses them.
local connections = setmetatable({}, { __mode = "v" })

local function connect(endpoint, secret_key)
  local name = endpoint .. "\0" .. (secret_key or "")
  local connection = connections[name]
  if not connection then
    connection = core.connect(endpoint, secret_key)
    connections[name] = connection
  end
  return connection
end

--- The secret of calls that name none, or a token that stands for it; nil: that of the environment.
---@type string?
link.default_secret = nil

--- That is taken out of the environment: programs that are started do not inherit it.
local of_environment <const> = core.take_secret "ZPROC_SECRET_KEY"

--- A secret as it was given; nil if it came from a file or the environment, and is known to nobody any more.
---@param secret_key string?
---@return string?
function link.shown_secret(secret_key)
  return not core.is_held_secret(secret_key) and secret_key or nil
end

--- The secret that a call is to use.
---@param opts { secret_key: string? }
---@return string?
function link.secret_of(opts)
  if opts.secret_key then return opts.secret_key end
  return link.default_secret or of_environment
end

local function attach(fields)
  return setmetatable(fields, Link)
end

local function pass_on(call, ok, ...)
  if ok then return ... end
  local raised = ...
  if errors.is(raised) and raised.name ~= "SignalError" and raised.name ~= "ProcessExit" then
    raised.message = ("%s: %s"):format(call, raised.message)
  end
  error(raised, 0)
end

--- Trust the users that a call names: this process, and what it starts, uses from now on what belongs to them.
---@param call string the function's name, for messages
---@param opts { allow_user: string|string[]|nil }
function link.trust(call, opts)
  local users = opts.allow_user
  for _, name in ipairs(type(users) == "table" and users or { users }) do link.name_call(call, core.trust_user, tostring(name)) end
end

--- Call a function on behalf of a call of the script's, whose name comes before the message of what it raises.
---@param call string
---@param fn function
---@return any ... what it returns
function link.name_call(call, fn, ...) return pass_on(call, pcall(fn, ...)) end
local name_call <const> = link.name_call

--- Find the way to a server. Raises a UsageError if that is no address, ServerLost if there is no server, AuthError if the secret key is
--- not its own.
---@param call string the function's name, for messages
---@param server_address string
---@param opts { secret_key: string?, transport: string? }
---@return zproc.Link
function link.open(call, server_address, opts)
  local self = link.reach(call, server_address, opts)
  if self.directory then return self end
  local directory = name_call(call, self.connection.server, self.connection)
  self.identity = self.connection:identity()
  if directory and self.transport ~= "network" then self.directory, self.connection = directory, nil end
  return self
end

--- The same without asking the server anything.
---@param call string the function's name, for messages
---@param server_address string
---@param opts { secret_key: string?, transport: string?, timeout: number? } timeout: seconds
---@return zproc.Link? nil if the time is up
function link.reach(call, server_address, opts)
  local transport, place = address.parse(call, server_address)
  link.trust(call, opts)
  local self = attach {
    server_address = server_address,
    secret_key = link.secret_of(opts),
    transport = opts.transport or "auto",
  }
  if transport == "ipc" then
    local directory = address.directory(call, server_address)
    name_call(call, core.check_keys, directory, self.secret_key)
    if self.transport ~= "network" and not core.is_elsewhere(directory) then
      self.directory = directory
      return self
    end
    local endpoint = name_call(call, core.network_endpoint, address.path(call, address.of_directory(directory)), opts.timeout)
    if not endpoint then return nil end
    self.connection = connect(endpoint, self.secret_key)
  else
    self.connection = connect("tcp://" .. place, self.secret_key)
  end
  return self
end

--- A Link for the server whose directory this process has made.
---@param server_address string
---@param directory string
---@param secret_key string?
---@return zproc.Link
function link.of_directory(server_address, directory, secret_key)
  return attach { server_address = server_address, directory = directory, secret_key = secret_key, transport = "auto" }
end

--- What another thread, or a process of this one, needs to have the same Link: a plain table.
---@return table
function Link:pack()
  return {
    server_address = self.server_address,
    secret_key = self.secret_key,
    transport = self.transport,
    directory = self.directory,
    identity = self.identity,
  }
end

--- The Link that was packed. Nobody is asked.
---@param packed table
---@return zproc.Link
function link.unpack(packed)
  local self = attach(packed)
  if not self.directory then
    local transport, place = address.parse("a process", self.server_address)
    local endpoint = transport == "tcp" and "tcp://" .. place
      or core.network_endpoint(address.path("a process", address.of_directory(address.directory("a process", self.server_address))))
    self.connection = connect(endpoint, self.secret_key)
  end
  return self
end

--- A State of a namespace, with its cursor at the newest revision.
---@param namespace string
---@return zproc.State
function Link:state(namespace)
  if namespace == "" or #namespace > 255 then errors.usage("a namespace's name has 1 to 255 bytes, not %d", #namespace) end
  if namespace:find("\0", 1, true) then errors.usage "a namespace's name has no zero bytes" end
  if self.directory then return core.state(self.directory, namespace, self) end
  return core.remote_state(self.connection, namespace, self)
end

--- The queue of tasks. A worker gives its Notepad, if it has one.
---@param notepad userdata?
---@return userdata
function Link:queue(notepad)
  if self.directory then return core.queue(self.directory) end
  return core.remote_queue(self.connection, self.identity, notepad)
end

--- The table of the server's processes, with this one in it; nil if they are on another machine.
---@return userdata?
function Link:join_processes()
  return self.directory and processes.join(self.directory) or nil
end

--- The server's processes, as in zproc.processes.
---@return zproc.ProcessRow[]
function Link:list_processes()
  return self.directory and core.open_table(self.directory):list() or self.connection:processes()
end

--- Who holds the lock of the state's writers: nil if nobody does, or the server is on another machine.
---@return { pid: integer, name: string, since: number, seconds: number, stopped: boolean, place: string? }?
function Link:lock_holder()
  return self.directory and core.lock_holder(self.directory) or nil
end

--- What the server does: tasks, items that were put and are finished, chunks at work, and how many threads of the processes on its machine
--- wait for a change (nil if its kernel does not tell).
---@return { tasks: integer, put: integer, finished: integer, claims: integer, waiting: integer? }
function Link:summarize()
  if self.directory then return core.summarize(self.directory) end
  return self.connection:summarize()
end

--- Ask the server for a sign of life: its pid; nil and a TimeoutError when the time is up. A server that is being started again is
--- waited for; ServerLost if there is none.
---@param call string the function's name, for messages
---@param opts? { timeout: number?, payload: string? }
---@return integer? pid
---@return zproc.Error?
function Link:ping(call, opts)
  opts = options.check(call, opts, { timeout = "seconds", payload = "string" })
  local payload = opts.payload or "zproc"
  local pid, echo
  if self.connection then
    pid, echo = name_call(call, self.connection.ping, self.connection, payload, opts.timeout)
  else
    pid, echo = name_call(call, core.ping, address.of_directory(self.directory):sub(#"ipc://" + 1), opts.timeout, payload)
  end
  if not pid then return errors.timeout(call .. ": the server at " .. self.server_address, opts.timeout) end
  if echo ~= payload then
    error(errors.new("SystemError", ("%s: the server at %s sent back another payload"):format(call, self.server_address)))
  end
  return pid
end

--- Whether a task that says it is of some server is of this one.
---@param task { server: string?, server_address: string }
---@return boolean
function Link:is_server_of(task)
  return task.server_address == self.server_address or task.server ~= nil and task.server == self:server_name()
end

--- What tells this server from all others.
---@return string
function Link:server_name()
  local directory = self.directory or self.connection:directory()
  return (directory:match "[^/]*$")
end

return link
