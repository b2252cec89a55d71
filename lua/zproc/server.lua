--- Server: the process that stands behind an address. It answers those who ask for a sign of life, and cleans up when its owner,
--- the process that started it, has died; the owner starts it again if it dies itself. Nothing is lost by that: the state is
--- not in it.

local core = require "zproc.core"
local address = require "zproc.address"
local class = require "zproc.class"
local errors = require "zproc.errors"
local link = require "zproc.link"
local options = require "zproc.options"
local runtime = require "zproc.runtime"

---@class zproc.Server
---@field server_address string the first of its addresses
---@field server_addresses string[]
---@field secret_key string?
---@field pid integer? nil while it is being started again, and once it was stopped
---@field is_alive boolean
---@field exitcode integer? nil until it was stopped; -N after signal N
local Server = {
  __name = "Server",
  __unsendable = "a Server, which belongs to the process that started it: send its server_address",
}

local server = {}

local getters = {}

function getters.pid(self) return self._handle:pid() end

function getters.is_alive(self) return self._handle:pid() ~= nil end

--- As it was given; nil if it came from a file or the environment.
function getters.secret_key(self) return link.shown_secret(self._secret_key) end

class.seal(Server, { server_address = true, server_addresses = true, secret_key = true, exitcode = true, directory = true }, getters)

function Server.__tostring(self)
  local pid = self.pid
  return ("Server %s (%s)"):format(self.server_address,
    pid and "pid " .. pid or self.exitcode and "stopped" or "being started again")
end

--- Listen at the addresses that a server is to have: the path of the one ipc address (nil: none), the TCP sockets, and the addresses as
--- they are then, since a port may be any that is free.
local function listen(call, addresses, is_keyed, insecure)
  local alias, listeners, bound = nil, {}, {}
  for i, server_address in ipairs(addresses) do
    local transport, place = address.parse(call, server_address)
    if transport == "ipc" then
      if alias then errors.usage("%s: one ipc:// address is all that a server can have besides its random one", call) end
      alias, bound[i] = place, server_address
    else
      local listener, name, is_loopback = link.name_call(call, core.listen, place)
      if not (is_loopback or is_keyed or insecure) then
        errors.usage("%s: without a secret_key a server listens at addresses of this machine alone, such as tcp://127.0.0.1:*; at %s "
          .. "anybody could run code here (insecure = true if that is wanted)", call, server_address)
      end
      listeners[#listeners + 1], bound[i] = listener, "tcp://" .. name
    end
  end
  return alias, listeners, bound
end

--- Start a server, owned by this process: with an empty state, or with that of a data directory.
---@param call string the function's name, for messages
---@param addresses string[] none: a random one
---@param opts? { backend: string?, data_dir: string?, sync: string?, restore: string?, secret_key: string?, insecure: boolean?,
--- allow_user: string|string[]|nil }
---@return zproc.Server
function server.start(call, addresses, opts)
  opts = opts or {}
  link.trust(call, opts)
  local secret_key = link.secret_of(opts)
  local alias, listeners, bound = listen(call, addresses, secret_key ~= nil, opts.insecure)
  if opts.sync and not opts.data_dir then errors.usage("%s: 'sync' is about a data directory, and there is none", call) end
  if opts.restore and not opts.data_dir then errors.usage("%s: 'restore' is about a data directory, and there is none", call) end
  core.sweep_directories() -- what processes that were killed have left
  local keep = opts.data_dir and link.name_call(call, core.open_keep, opts.data_dir, opts.sync or "interval", opts.restore) or nil
  local store = core.plan_directory()
  -- First of all the server: should this process be killed, it removes what there is by then.
  local handle = core.start_server(store:path(), alias, opts.backend == "thread", listeners)
  for _, listener in ipairs(listeners) do listener:close() end -- the server has its own
  local ok, err = pcall(link.name_call, call, function()
    store:make()
    if secret_key then core.write_keys(store:path(), secret_key) end
    core.create_store(store:path(), keep)
    handle:listen()
  end)
  if not ok then
    if keep then keep:close() end
    store:remove()
    handle:stop()
    error(err)
  end
  return setmetatable({
    _server_address = bound[1] or address.of_directory(store:path()),
    _server_addresses = #bound > 0 and bound or { address.of_directory(store:path()) },
    _secret_key = secret_key,
    _directory = store:path(),
    _store = store,
    _handle = handle,
    _keep = keep,
    _pid = core.getpid(),
  }, Server)
end

--- End the server. The state is gone with it, unless it has a data directory: whoever uses it, or waits at it, gets a ServerLost error.
---@return integer exitcode
function Server:stop()
  class.check_self(self, Server, "server:stop")
  if self._pid ~= core.getpid() then
    errors.usage("server:stop: the server at %s was started by process %d; only that one can stop it", self.server_address,
      self._pid)
  end
  if not self.exitcode then
    runtime.remove(self)
    -- First the state: if this process is killed in between, the server does the rest.
    core.retire_store(self.directory)
    if self._keep then self._keep:close() end
    self._store:remove()
    self._exitcode = self._handle:stop()
  end
  return self.exitcode
end

Server.close = Server.stop

function Server:__close() self:close() end

--- Wait until the server was stopped; with a timeout (seconds): nil and a TimeoutError when the time is up. It ends only by
--- stop(), so this is for a script that has nothing else to do than to keep it.
---@param timeout number?
---@return integer? exitcode
---@return zproc.Error?
function Server:wait(timeout)
  class.check_self(self, Server, "server:wait")
  options.check_timeout("server:wait", timeout)
  if not self.exitcode then
    core.sleep(timeout or math.huge)
    return errors.timeout("waiting for the server at " .. self.server_address, timeout)
  end
  return self.exitcode
end

class.limit_methods(Server, "server", { stop = 0, close = 0, wait = 1 })

local OPTIONS <const> = {
  backend = "backend",
  data_dir = "string",
  sync = "sync",
  restore = "restore",
  secret_key = "secret",
  allow_user = "users",
  insecure = "boolean",
  bind = "list",
}

--- zproc.start_server([server_address,] [options]): start a server that runs until it is stopped, or this process ends.
---@param server_address? string
---@param opts? { backend: string?, data_dir: string?, sync: "never"|"interval"|"always"|nil, restore: "data"|"snapshot"|nil,
--- secret_key: string?, insecure: boolean?, bind: string[]? } bind: further addresses
---@return zproc.Server server_process
---@return string server_address
function server.start_server(server_address, opts)
  if type(server_address) == "table" and opts == nil and not address.holder(server_address) then
    server_address, opts = nil, server_address
  end
  opts = options.check("zproc.start_server", opts, OPTIONS)
  local addresses = { server_address }
  for _, further in ipairs(opts.bind or {}) do addresses[#addresses + 1] = further end
  local fresh = server.start("zproc.start_server", addresses, opts)
  runtime.add(fresh)
  return fresh, fresh.server_address
end

--- zproc.ping(server_address, [options]): the server's pid; nil and a TimeoutError when the time is up.
---@param call string the function's name, for messages
---@param server_address string
---@param opts? { timeout: number?, payload: string?, secret_key: string?, transport: string? }
---@return integer? pid
---@return zproc.Error?
function server.ping(call, server_address, opts)
  opts = options.check(call, opts, { timeout = "seconds", payload = "string", secret_key = "secret", transport = "transport",
    allow_user = "users" })
  local begin = core.clock()
  local way = link.reach(call, server_address, opts)
  local left = opts.timeout and math.max(0, opts.timeout - (core.clock() - begin))
  local pid = way and way:ping(call, { timeout = left, payload = opts.payload })
  if pid then return pid end
  return errors.timeout(call .. ": the server at " .. server_address, opts.timeout)
end

return server
