-- Retry: a process tries again when it fails for one of the reasons that it is given: errors, by class or by name, and
-- signals.
--
-- Output:
--   it worked at try 4
--   given up after 3 tries: ConnectionError
--   not tried again: 1 try
--
-- (Each failed try reports itself on stderr.)

local zproc = require "zproc"

local ctx = zproc.context()
local ConnectionError, ValueError = zproc.error_class "ConnectionError", zproc.error_class "ValueError"

local function my_process(state)
  state.try = (state.try or 0) + 1
  if state.try == 1 then error(ConnectionError "nobody answers") end
  if state.try == 2 then error(ValueError "that is no number") end
  if state.try == 3 then os.execute("kill -TERM " .. zproc.getpid()) end -- raised here, as a SignalError
  return state.try
end

local p = ctx:process(my_process, { retry_for = { ConnectionError, "ValueError", zproc.signal.SIGTERM }, retry_delay = 0.01 })
print("it worked at try " .. p:wait())

-- For any error, but not for ever.
local stubborn = ctx:process(function() error(ConnectionError "still nobody") end,
  { retry_for = { zproc.AnyError }, retry_delay = 0.01, max_retries = 2 })
local _, err = pcall(stubborn.wait, stubborn)
print(("given up after %d tries: %s"):format(err.cause.tries, err.cause.name))

-- Other errors are failures at once.
local other = ctx:process(function(state)
  state.others = (state.others or 0) + 1
  error(ValueError "nothing that trying again would help")
end, { retry_for = { ConnectionError } })
pcall(other.wait, other)
print(("not tried again: %d try"):format(ctx.state.others))
