--- The table of the processes of a server.

local core = require "zproc.core"

---@class zproc.ProcessRow
---@field name string source file and line of the target, or the name that was given; of a script its path; "server"
---@field pid integer
---@field parent integer the pid of the process that has started it
---@field state "running"|"retrying"|"exited"|"gone" gone: it is there no more, and nobody saw its end
---@field started number seconds since the epoch
---@field tries integer
---@field exitcode integer? once it has exited: the exit status, or -N after signal N

local processes = {}

--- Open the table of the server whose state is in a directory, with this process in it: by the name of its script, unless it
--- is there already, because another process of the server has started it.
---@param directory string
---@return userdata
function processes.join(directory)
  local opened = core.open_table(directory)
  opened:enlist(arg and arg[0] or "a program")
  return opened
end

return processes
