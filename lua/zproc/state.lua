--- The State's methods that are policy; the others are C (zproc.core).

local core = require "zproc.core"
local class = require "zproc.class"
local errors = require "zproc.errors"
local inspect = require "zproc.inspect"
local link = require "zproc.link"
local options = require "zproc.options"

---@class zproc.State
---@field namespace string
---@field server_address string
---@field get fun(self, key: any, default: any?): any
---@field set fun(self, content: table) replace the whole state
---@field update fun(self, content: table) set these keys in one step
---@field setdefault fun(self, key: any, value: any): any the value that the key has now
---@field pop fun(self, key: any, default: any?): any
---@field popitem fun(self): any, any the last key in key order, and its value
---@field clear fun(self)
---@field copy fun(self): table
---@field keys fun(self): any[]
---@field values fun(self): any[]
---@field items fun(self): any[][]
---@field contains fun(self, key: any): boolean
---@field revision fun(self): integer
---@field at fun(self, revision: integer): table the namespace as it was
---@field close fun(self)

local state = {}

local OPTIONS <const> = { namespace = "string", secret_key = "secret", transport = "transport", allow_user = "users" }

local Public <const> = { __name = "State" } -- what getmetatable gives: what is in the real metatable must not be lost
core.state_metamethods.__metatable = Public

--- Refuse what is no State as the first argument of a method.
---@param self any
---@param call string the method as one calls it, "state:fork", for messages
function state.check_self(self, call) class.check_self(self, Public, call) end

--- zproc.state(server_address, [options])
---@param server_address string
---@param opts? { namespace: string?, secret_key: string?, transport: "auto"|"network"|nil, allow_user: string|string[]|nil }
---@return zproc.State
function state.new(server_address, opts)
  opts = options.check("zproc.state", opts, OPTIONS)
  local fresh = link.open("zproc.state", server_address, opts):state(opts.namespace or "default")
  core.state_check(fresh)
  return fresh
end

--- state:fork([options]): another State on the same server, by default on the same namespace.
---@param opts? { namespace: string?, server_address: string?, secret_key: string?, transport: "auto"|"network"|nil }
---@return zproc.State
function core.state_methods.fork(self, opts, ...)
  state.check_self(self, "state:fork")
  class.refuse_surplus("state:fork", 0, ...)
  opts = options.check("state:fork", opts,
    { namespace = "string", server_address = "string", secret_key = "secret", transport = "transport", allow_user = "users" })
  local own = core.link_of(self)
  if opts.server_address or opts.secret_key or opts.transport then
    own = link.open("state:fork", opts.server_address or own.server_address, {
      secret_key = opts.secret_key or own.secret_key,
      transport = opts.transport or own.transport,
      allow_user = opts.allow_user,
    })
  end
  local fresh = own:state(opts.namespace or self.namespace)
  core.state_check(fresh)
  return fresh
end

--- state:ping([options]): ask the server for a sign of life: its pid; nil and a TimeoutError when the time is up.
---@param opts? { timeout: number?, payload: string? }
---@return integer? pid
---@return zproc.Error?
function core.state_methods.ping(self, opts, ...)
  state.check_self(self, "state:ping")
  class.refuse_surplus("state:ping", 0, ...)
  return core.link_of(self):ping("state:ping", opts)
end

--- By content, as all of zproc compares values.
core.state_metamethods.__eq = core.same_content

core.state_metamethods.__unsendable = "a State: a stateful target gets one as its first argument, and zproc.state(server_address) "
  .. "makes another"

function core.state_metamethods.__tostring(self)
  return inspect(self:copy())
end

--- Wait for other writers no longer than for so many seconds while `fn` runs.
---@return boolean ok
---@return any ... what it returns; or what it raises, and whether that is since the time is up
local function wait_within(call, self, seconds, fn, ...)
  if not core.set_lock_timeout(self, seconds) then
    errors.usage("%s: 'timeout' is for States that are reached by shared memory", call)
  end
  local results = table.pack(pcall(fn, ...))
  local is_late = not results[1] and core.has_waited_in_vain()
  core.set_lock_timeout(self, nil)
  if not results[1] then return false, results[2], is_late end
  return table.unpack(results, 1, results.n)
end

--- For commands: change a state, and wait for other writers no longer than that; nil: as long as it takes.
---@param self zproc.State
---@param seconds number?
---@param fn function
function state.change_within(self, seconds, fn, ...)
  if not seconds then return fn(...) end
  local ok, err = wait_within("--timeout", self, seconds, fn, ...)
  if not ok then error(err, 0) end
end

--- What zproc.atomic gives: nil and a TimeoutError when others have not ended in time.
local function end_within(ok, ...)
  if ok then return ... end
  local err, is_late = ...
  if is_late then return nil, err end
  error(err, 0)
end

--- zproc.atomic(fn, [options]): `fn(snapshot, ...)` as one indivisible step on the state that it is called with.
---@param fn fun(snapshot: table, ...): ...
---@return fun(state: zproc.State, ...): ...
---@param opts? { timeout: number?, limit: number? } timeout: seconds that it waits for other writers; limit: seconds that fn may take
function state.atomic(fn, opts)
  if type(fn) ~= "function" then errors.usage("zproc.atomic takes a function, not a %s", type(fn)) end
  opts = options.check("zproc.atomic", opts, { timeout = "seconds", limit = "limit" })
  local run, timeout, limit = core.atomic, opts.timeout, opts.limit
  if timeout then
    return function(self, ...)
      if not core.is_state(self) then return run(self, limit, fn, ...) end -- which says what is wrong
      return end_within(wait_within("zproc.atomic", self, timeout, run, self, limit, fn, ...))
    end
  end
  return function(self, ...)
    return run(self, limit, fn, ...)
  end
end

--- zproc.backup(state, directory): a copy of all that the server of a State keeps, as it is at one instant, in a directory of its own, on which
--- a server can be started. It is made while everybody goes on.
---@param self zproc.State
---@param directory string one that is not there yet, or is empty
---@return integer revision of the copy
function state.backup(self, directory)
  if not core.is_state(self) then errors.usage("zproc.backup takes a State and a directory, not a %s", type(self)) end
  if type(directory) ~= "string" or directory == "" or directory:find("\0", 1, true) then
    errors.usage "zproc.backup takes a State and the name of a directory"
  end
  local own = core.link_of(self)
  if not own.directory then
    errors.usage("zproc.backup: a backup is made by shared memory, on the machine of the server; %s is reached by the network",
      own.server_address)
  end
  return link.name_call("zproc.backup", core.backup, own.directory, directory)
end

return state
