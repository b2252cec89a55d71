--- How a command gets at a server, from an address on its command line. The secret key is noted before the command runs (zproc.cli).

local arguments = require "zproc.cli.arguments"
local core = require "zproc.core"
local link = require "zproc.link"

local open = {}

--- What every command takes that opens an address; its help has to say so.
---@type table<string, zproc.cli.Option>
open.OPTIONS = {
  ["--transport"] = { takes = "auto or network", read = arguments.choice("auto", "network") },
}

--- The same for commands that open a state.
---@type table<string, zproc.cli.Option>
open.STATE_OPTIONS = {
  ["--transport"] = open.OPTIONS["--transport"],
  ["--namespace"] = { takes = "a name" },
}

--- A copy of such a table with more options.
---@param common table<string, zproc.cli.Option>
---@param more table<string, zproc.cli.Option>
---@return table<string, zproc.cli.Option>
function open.with(common, more)
  local all = {}
  for word, option in pairs(common) do all[word] = option end
  for word, option in pairs(more) do all[word] = option end
  return all
end

--- Find the way to a server. Raises what link.open raises.
---@param command string its name, for messages
---@param given { address: string, transport: string? }
---@return zproc.Link
function open.link(command, given)
  return link.open(command, given.address, { transport = given.transport })
end

--- Open a state.
---@param command string its name, for messages
---@param given { address: string, transport: string?, namespace: string? }
---@return zproc.State
function open.state(command, given)
  local state = open.link(command, given):state(given.namespace or "default")
  core.state_check(state)
  return state
end

return open
