--- Host: where zproc is a module of another program, what `zproc run` does around a script.
---
--- When the VM of the host is closed, what the script has open is closed in order, as at the end of `zproc run`; a script that ends in an
--- error ends so, too, and os.exit has its own way (zproc.runtime). Should the host be killed, or not close its VM, the servers clean up.
---
--- The interpreter lua5.4 does nothing but run the script, so the rest is as under `zproc run` as well: output goes out in whole lines, and
--- ^C is a SignalError. Any other host may have plans of its own for its standard output and its signals, and keeps both as they are.

local core = require "zproc.core"
local runtime = require "zproc.runtime"
local signal = require "zproc.signal"

local host = {}

--- When a VM is closed, finalisers run in the reverse order in which their objects were made. So whenever there is something new
--- that the closing of a Context will need, a new guard is made, whose finaliser comes before all of that. Only the newest counts; that it
--- is finalised though it is in use here says that the VM is being closed.
local guard

local Guard = {}

function Guard.__gc(self)
  if not rawequal(self, guard) then return end
  local failure = runtime.shutdown()
  if failure ~= nil then runtime.say(tostring(failure)) end
  local lost = core.output_failure(true) -- the host does not look
  if lost then runtime.say(lost) end
end

local function stand_guard()
  guard = setmetatable({}, Guard)
end

--- Whether the host is the interpreter.
local function is_interpreter()
  local program = core.real_path "/proc/self/exe"
  return program ~= nil and program:find "/lua[%d.%-]*$" ~= nil
end

--- In the VM of the host, once.
---@param open_output fun() makes standard output and standard error streams of whole lines
function host.attach(open_output)
  runtime.on_open = stand_guard
  stand_guard()
  if not is_interpreter() then return end
  open_output()
  signal.end_by "SIGINT"
end

return host
