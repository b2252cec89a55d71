--- Server: the process that stands behind an address. It answers those who ask for a sign of life, and cleans up when its owner,
--- the process that started it, has died; the owner starts it again if it dies itself. Nothing is lost by that: the state is
--- not in it.

local core = require "zproc.core"
local address = require "zproc.address"
local errors = require "zproc.errors"
local options = require "zproc.options"
local runtime = require "zproc.runtime"

---@class zproc.Server
---@field server_address string
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

function Server.__index(self, key)
  local getter = getters[key]
  if getter then return getter(self) end
  return Server[key]
end

function Server.__tostring(self)
  local pid = self.pid
  return ("Server %s (%s)"):format(self.server_address,
    pid and "pid " .. pid or self.exitcode and "stopped" or "being started again")
end

--- Start a server, owned by this process: with an empty state, or with that of a data directory.
---@param call string the function's name, for messages
---@param server_address string? nil: a random one
---@param opts? { backend: string?, data_dir: string?, sync: string? }
---@return zproc.Server
function server.start(call, server_address, opts)
  opts = opts or {}
  local alias = server_address and address.path(call, server_address)
  if opts.sync and not opts.data_dir then errors.usage("%s: 'sync' is about a data directory, and there is none", call) end
  core.sweep_directories() -- what processes that were killed have left
  local keep = opts.data_dir and core.open_keep(opts.data_dir, opts.sync or "interval") or nil
  local store = core.plan_directory()
  -- First of all the server: should this process be killed, it removes what there is by then.
  local handle = core.start_server(store:path(), alias, opts.backend == "thread")
  local ok, err = pcall(function()
    store:make()
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
    server_address = server_address or address.of_directory(store:path()),
    directory = store:path(),
    _store = store,
    _handle = handle,
    _keep = keep,
    _pid = core.getpid(),
  }, Server)
end

--- End the server. The state is gone with it, unless it has a data directory: whoever uses it, or waits at it, gets a ServerLost error.
---@return integer exitcode
function Server:stop()
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
    self.exitcode = self._handle:stop()
  end
  return self.exitcode
end

Server.close = Server.stop

--- Wait until the server was stopped; with a timeout (seconds): nil and a TimeoutError when the time is up. It ends only by
--- stop(), so this is for a script that has nothing else to do than to keep it.
---@param timeout number?
---@return integer? exitcode
---@return zproc.Error?
function Server:wait(timeout)
  options.check_timeout("server:wait", timeout)
  if not self.exitcode then
    core.sleep(timeout or math.huge)
    return errors.timeout("waiting for the server at " .. self.server_address, timeout)
  end
  return self.exitcode
end

--- zproc.start_server([server_address,] [options]): start a server that runs until it is stopped, or this process ends.
---@param server_address? string
---@param opts? { backend: string?, data_dir: string?, sync: "never"|"interval"|"always"|nil }
---@return zproc.Server server_process
---@return string server_address
function server.start_server(server_address, opts)
  if type(server_address) == "table" and opts == nil then
    server_address, opts = nil, server_address
  end
  opts = options.check("zproc.start_server", opts, { backend = "backend", data_dir = "string", sync = "sync" })
  local fresh = server.start("zproc.start_server", server_address, opts)
  runtime.add(fresh)
  return fresh, fresh.server_address
end

--- Ask a server for a sign of life: its pid; nil and a TimeoutError when the time is up. A server that is being started again is
--- waited for; ServerLost if there is none.
---@param call string the function's name, for messages
---@param server_address string
---@param opts? { timeout: number?, payload: string? }
---@return integer? pid
---@return zproc.Error?
function server.ping(call, server_address, opts)
  opts = options.check(call, opts, { timeout = "seconds", payload = "string" })
  local payload = opts.payload or "zproc"
  local pid, echo = core.ping(address.path(call, server_address), opts.timeout, payload)
  if not pid then return errors.timeout(call .. ": the server at " .. server_address, opts.timeout) end
  if echo ~= payload then
    error(errors.new("SystemError", ("%s: the server at %s sent back another payload"):format(call, server_address)))
  end
  return pid
end

return server
