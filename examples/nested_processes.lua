-- Nested processes: a target that asks for a Context can start processes that share the same state.
--
-- Output:
--   level 1 level 2 level 3
--   and back: deepest

local zproc = require "zproc"

local enter = zproc.atomic(function(snapshot, level)
  table.insert(snapshot.levels, "level " .. level)
end)

local function nest(ctx, level)
  enter(ctx.state, level)
  if level == 3 then return "deepest" end
  return ctx:process(nest, { pass_context = true, args = { level + 1 } }):wait()
end

local ctx = zproc.context()
ctx.state.levels = {}

local result = ctx:process(nest, { pass_context = true, args = { 1 } }):wait()
print(table.concat(ctx.state.levels, " "))
print("and back: " .. result)
