--- The process in which a server runs the atomic functions of clients elsewhere (src/net/runner.h), one after the other.

local core = require "zproc.core"
local errors = require "zproc.errors"
local options = require "zproc.options"
local remote = require "zproc.remote"
local runtime = require "zproc.runtime"
local traceback = require "zproc.traceback"
require "zproc" -- functions may name anything of it

local STATES_MAX <const> = 64

local runner = {}

local place -- the traceback of what was raised last, if it is no error object, which has its own

--- What a function has raised, fit to travel; an error object with the place where that was.
local function describe(raised)
  local where = traceback.within(raised, xpcall):gsub("^stack traceback", "%0 of the function on the server")
  if where == "" then where = nil end
  if errors.is(raised) then
    raised.traceback = raised.traceback or where
    return runtime.sendable(raised)
  end
  if pcall(core.encode, raised) then
    place = place or where -- it is raised anew further out
    return raised
  end
  return runtime.sendable(runtime.describe(raised, where))
end

--- Serve until the server is gone.
---@param directory string of its state
---@return integer status
function runner.run(directory)
  local states, count = {}, 0

  local function state_of(namespace)
    local state = states[namespace]
    if not state then
      if count == STATES_MAX then states, count = {}, 0 end
      state = core.state(directory, namespace, { server_address = "" })
      states[namespace], count = state, count + 1
    end
    return state
  end

  core.serve_atomics(function(author, cursor, namespace, call)
    local state, position = nil, cursor
    place = nil
    local ok, outcome = xpcall(function()
      local fn, arguments, limit = table.unpack(core.decode(call), 1, 3)
      state = state_of(namespace)
      core.act_as(state, author, cursor)
      -- What it returns is encoded while nothing is done yet: if that cannot travel, nothing happens.
      local bytes = core.atomic(state, limit, function(snapshot)
        local results = table.pack(xpcall(fn, describe, snapshot, table.unpack(arguments, 1, arguments.n)))
        if not results[1] then error(results[2], 0) end
        return remote.encode(true, table.pack(table.unpack(results, 2, results.n)), "result %d of the atomic function")
      end)
      position = core.cursor(state)
      return bytes
    end, describe)
    if not ok then outcome = core.encode { false, core.encode(outcome), place, options.words_of(outcome) } end
    return position, outcome
  end)
  return 0
end

return runner
