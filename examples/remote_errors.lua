-- Errors in other processes arrive where the process is waited for, with the traceback of the place where they were raised.
--
-- Output:
--   ProcessWaitError, exit code 1
--   the target raised a ConnectionError: refused
--   its traceback names the function: true
--   a timeout is a result: TimeoutError
--   stopped: -15
--
-- (A process that fails also reports itself on stderr.)

local zproc = require "zproc"

local ConnectionError = zproc.error_class "ConnectionError"
local ctx = zproc.context()

local function connect() error(ConnectionError "refused") end

local failing = ctx:process(function() connect() end)

local ok, err = pcall(failing.wait, failing)
assert(not ok and zproc.is_error(err, "ProcessWaitError"))
print(("%s, exit code %d"):format(err.name, err.exitcode))
print(("the target raised a %s: %s"):format(err.cause.name, err.cause.message))
print("its traceback names the function: " .. tostring(err.traceback:find("connect", 1, true) ~= nil))

local sleeper = ctx:process(function() zproc.sleep(1000) end)
local result, timeout = sleeper:wait(0.01)
assert(result == nil)
print("a timeout is a result: " .. timeout.name)
print("stopped: " .. sleeper:stop())
