-- Launching a process, and getting what it returns.
--
-- Output:
--   waiting ...
--   Hello There!

local zproc = require "zproc"

local ctx = zproc.context()

local greeter = ctx:process(function()
  zproc.sleep(0.1)
  return "Hello There!"
end)

print "waiting ..."
print(greeter:wait())
