-- Namespaces: several states on one server, under one address.
--
-- Output:
--   default: {apples = 1}
--   kitchen: {apples = 2}
--   garden: {apples = 3, grown_by = "a process"}

local zproc = require "zproc"

local ctx = zproc.context()

local default = ctx.state
local kitchen = default:fork { namespace = "kitchen" }
local garden = zproc.state(ctx.server_address, { namespace = "garden" })

default.apples, kitchen.apples, garden.apples = 1, 2, 3

ctx:process(function(state) state.grown_by = "a process" end, { namespace = "garden" }):wait()

print("default: " .. tostring(default))
print("kitchen: " .. tostring(kitchen))
print("garden: " .. tostring(garden))
