--- Atomic functions on the state of a server elsewhere: the function and its arguments travel there, and what it returns or raises comes
--- back. One message each way. The other end is zproc.runner.

local core = require "zproc.core"
local runtime = require "zproc.runtime"
local traceback = require "zproc.traceback"

local remote = {}

--- The bytes of a value and a list of others, as one whole: what they share stays shared. Raises an EncodeError that says which of them
--- it is that cannot travel.
---@param value any
---@param list table with .n
---@param what string one of the list, with %d for its number
---@param limit number? what goes with them
---@return string
function remote.encode(value, list, what, limit)
  local ok, bytes = pcall(core.encode, { value, list, limit })
  if ok then return bytes end
  core.encode(value, "the atomic function")
  for i = 1, list.n do core.encode(list[i], what:format(i)) end
  error(bytes, 0)
end

--- Run fn(snapshot, ...) as one indivisible step, on the server. What the function captures goes as a copy; what it assigns to that stays
--- there.
---@param state zproc.State
---@param limit number? seconds that it may take
---@param fn function
---@return any ...
local function atomic(state, limit, fn, ...)
  local call = remote.encode(fn, table.pack(...), "argument %d of the atomic function", limit)
  local outcome = core.decode(core.send_atomic(state, call))
  if outcome[1] then return table.unpack(outcome[2], 1, outcome[2].n) end
  local bytes, where, words = table.unpack(outcome, 2, 4)
  local ok, raised = pcall(core.decode, bytes)
  if not ok then raised = runtime.read_error(bytes, words) end
  if where then traceback.note_remote(raised, where) end
  error(raised, 0)
end

core.set_remote_atomic(atomic)

return remote
