--- Server addresses: `ipc://<path>` and `tcp://<host>:<port>`.
---
--- A local server's state is in the directory of its ipc path; every process of this user that knows the address opens it
--- there.

local errors = require "zproc.errors"

local address = {}

local ENDPOINT <const> = "/server"

--- The address of the server whose state is in a directory.
---@param directory string
---@return string
function address.of_directory(directory)
  return "ipc://" .. directory .. ENDPOINT
end

--- The directory of the state behind an address; raises a UsageError if it is none.
---@param call string the function's name, for messages
---@param server_address string
---@return string directory
function address.directory(call, server_address)
  if type(server_address) ~= "string" then
    errors.usage("%s: a server address is a string such as \"ipc:///run/user/1000/my-server\", not a %s", call,
      type(server_address))
  end
  local transport, path = server_address:match "^(%a+)://(.+)$"
  if transport == "ipc" then
    local directory = path:match "^(/.*)/[^/]+$"
    if directory then return directory end
    errors.usage("%s: the path of %q must be absolute and name a file", call, server_address)
  elseif transport == "tcp" then
    errors.usage("%s: %q: this version of zproc has no network transport; use an ipc:// address", call, server_address)
  end
  errors.usage("%s: %q is no server address: expected ipc://<path> or tcp://<host>:<port>", call, server_address)
  return ""
end

return address
