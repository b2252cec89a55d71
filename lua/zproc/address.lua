--- Server addresses: `ipc://<path>` and `tcp://<host>:<port>`.
---
--- The path of an ipc address is that of the server's socket, or of a symbolic link to it; the state is in the directory of
--- the socket. So every process of this user that knows the address finds both, without asking anybody.

local core = require "zproc.core"
local errors = require "zproc.errors"

local address = {}

local ENDPOINT <const> = "/server"

--- The address of the server whose state is in a directory.
---@param directory string
---@return string
function address.of_directory(directory)
  return "ipc://" .. directory .. ENDPOINT
end

local HOLDERS <const> = { Context = "ctx", Process = "process", Server = "server", State = "state" }

--- What one calls a value that has an address, but is none; nil if it is something else.
---@param value any
---@return string?
function address.holder(value)
  local meta = getmetatable(value)
  return type(meta) == "table" and HOLDERS[rawget(meta, "__name")] or nil
end

--- The parts of an address; raises a UsageError if it is none.
---@param call string the function's name, for messages
---@param server_address string
---@return "ipc"|"tcp" transport
---@return string place the path, or host and port
function address.parse(call, server_address)
  if type(server_address) ~= "string" then
    local holder = address.holder(server_address)
    if holder then errors.usage("%s: this is no server address, but has one: it is %s.server_address", call, holder) end
    errors.usage("%s: a server address is a string such as \"ipc:///run/user/1000/my-server\" or \"tcp://127.0.0.1:7000\", not a %s",
      call, type(server_address))
  end
  local transport, place = server_address:match "^(%a+)://(.+)$"
  if transport == "ipc" then
    if place:find "^/.*[^/]$" and not place:find("\0", 1, true) then return transport, place end
    errors.usage("%s: the path of %q must be absolute and name a file", call, server_address)
  elseif transport == "tcp" then
    local ok, err = pcall(core.check_inet, place)
    if ok and not place:find("\0", 1, true) then return transport, place end
    errors.usage("%s: %q is no server address: %s", call, server_address, ok and "it has a zero byte" or err.message)
  end
  local meant = server_address:find "^/" and "ipc://" or pcall(core.check_inet, server_address) and "tcp://"
  errors.usage("%s: %q is no server address: expected ipc://<path> or tcp://<host>:<port>%s", call, server_address,
    meant and (" (did you mean %q?)"):format(meant .. server_address) or "")
  return "ipc", ""
end

--- The path in an address, which has to be an ipc address.
---@param call string the function's name, for messages
---@param server_address string
---@return string path
function address.path(call, server_address)
  local transport, path = address.parse(call, server_address)
  if transport ~= "ipc" then errors.usage("%s: %q: an ipc:// address is needed here", call, server_address) end
  return path
end

--- The directory of the state behind an ipc address. Raises a UsageError if it is none, ServerLost if there is no server, and AuthError if the
--- server is one of a user that this process does not trust.
---@param call string the function's name, for messages
---@param server_address string
---@return string directory
function address.directory(call, server_address)
  local ok, directory = pcall(core.find_server, address.path(call, server_address))
  if not ok then
    if errors.is(directory, "AuthError") then
      directory.message = ("%s: the server at %s: %s"):format(call, server_address, directory.message)
    end
    error(directory, 0)
  end
  if directory == false then
    error(errors.new("ServerLost", ("%s: there is no server at %s: what is there is something else"):format(call, server_address)))
  elseif not directory then
    error(errors.new("ServerLost", ("%s: there is no server at %s; zproc.start_server(%q) starts one, or zproc server --bind %s"):format(
      call, server_address, server_address, server_address)))
  elseif core.is_abandoned(directory) then
    error(errors.new("ServerLost", ("%s: the server at %s was killed, and all of its processes with it"):format(call,
      server_address)))
  end
  return directory
end

return address
