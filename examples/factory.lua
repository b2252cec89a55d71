-- Process factory: several processes for each of several targets, waited for together.
--
-- Output:
--   6 processes
--   a worker, a worker, a worker, a manager, a manager, a manager

local zproc = require "zproc"

local ctx = zproc.context()

local function worker() return "a worker" end
local function manager() return "a manager" end

ctx:process_factory(worker, manager, { count = 3 })

print(#ctx.process_list .. " processes")
print(table.concat(ctx:wait_all(), ", "))
