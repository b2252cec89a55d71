--- zproc version: which zproc this is.

local core = require "zproc.core"

local command = {
  usage = "version",
  summary = "show the version",
  arguments = { options = {} },
}

command.help = [[
usage: zproc version

Print the version of zproc, and that of the Lua within it. zproc --version does the same.
]]

--- Print it.
---@return integer status
function command.run()
  print("zproc " .. core.version .. " (" .. _VERSION .. ")")
  return 0
end

return command
