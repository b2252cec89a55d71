--- zproc: processes that share one state. The module that scripts require.

local core = require "zproc.core"
local class = require "zproc.class"
local context = require "zproc.context"
local errors = require "zproc.errors"
local options = require "zproc.options"
local process = require "zproc.process"
local runtime = require "zproc.runtime"
local server = require "zproc.server"
local signal = require "zproc.signal"
local state = require "zproc.state"
local range = require "zproc.range"
require "zproc.watch" -- adds the watchers to State and Context
require "zproc.map" -- adds process_map to Context
require "zproc.remote" -- atomic functions elsewhere

local zproc = {}

zproc.null = core.null

zproc.context = context.new
zproc.state = state.new
zproc.atomic = state.atomic
zproc.backup = state.backup
zproc.start_server = server.start_server
zproc.exit = runtime.exit
zproc.error_class = errors.class
zproc.is_error = errors.is
zproc.AnyError = errors.any
zproc.signal = signal.by_name
zproc.signal_to_error = signal.to_error
zproc.signals = signal.queue
zproc.time = core.time
zproc.getpid = core.getpid
zproc.cpu_count = core.cpu_count
zproc.range = range.new

--- zproc.process(target, server_address, [options])
---@param target function
---@param server_address string
---@param opts? table
---@return zproc.Process
function zproc.process(target, server_address, opts)
  return process.new("zproc.process", target, server_address, opts)
end

--- zproc.ping(server_address, [options]): the server's pid; nil and a TimeoutError when the time is up.
---@param server_address string
---@param opts? { timeout: number?, payload: string? }
---@return integer? pid
---@return zproc.Error?
function zproc.ping(server_address, opts)
  return server.ping("zproc.ping", server_address, opts)
end

--- Sleep, in seconds.
---@param seconds number
function zproc.sleep(seconds)
  if seconds == nil then errors.usage "zproc.sleep takes a number of seconds" end
  options.check_timeout("zproc.sleep", seconds)
  core.sleep(seconds)
end

--- How many arguments each takes. Who writes ctx:process(...) may write zproc:context(...) as well.
for name, most in pairs {
  atomic = 2, backup = 2, context = 2, cpu_count = 0, error_class = 1, exit = 1, getpid = 0, is_error = 2, ping = 2, process = 3, range = 3,
  signal_to_error = 1, signals = math.huge, sleep = 1, start_server = 2, state = 2, time = 0,
} do
  local call, fn = "zproc." .. name, zproc[name]
  zproc[name] = function(...)
    if rawequal((...), zproc) then errors.usage("%s is a function and no method: %s(...), with a dot", call, call) end
    if select("#", ...) > most then class.refuse_surplus(call, most, ...) end
    return fn(...)
  end
end

return zproc
