--- Atomic functions on the state of a server elsewhere: the function and its arguments travel there, and what it returns or raises comes
--- back. One message each way. The other end is zproc.runner.

local core = require "zproc.core"

local remote = {}

--- Run fn(snapshot, ...) as one indivisible step, on the server. What the function captures goes as a copy; what it assigns to that stays
--- there.
---@param state zproc.State
---@param fn function
---@return any ...
local function atomic(state, fn, ...)
  local call = core.encode({ fn, table.pack(...) }, "the call of an atomic function")
  local outcome = core.decode(core.send_atomic(state, call))
  if outcome[1] then return table.unpack(outcome[2], 1, outcome[2].n) end
  error(outcome[2], 0)
end

core.set_remote_atomic(atomic)

return remote
