--- What a thread runs: the target of a process with the backend "thread", in a VM of its own. The target and its arguments travel as
--- bytes, as they do to another machine; what they do not name is not there.

local core = require "zproc.core"
local runtime = require "zproc.runtime"

local thread = {}

--- What the thread is given: the ways to the script's modules come first, since the job may name some of these.
---@param job table of process.lua
---@return string bytes
function thread.pack(job)
  local bytes = runtime.encode_job("process " .. job.name, job)
  return core.encode { path = package.path, cpath = package.cpath, arg = arg, job = bytes }
end

--- In the thread.
---@param bytes string of thread.pack
---@return integer exitcode
---@return string? message the outcome
function thread.run(bytes)
  require "zproc" -- what arrives may name anything of it
  local packed = core.decode(bytes)
  package.path, package.cpath, arg = packed.path, packed.cpath, packed.arg
  local message
  local place = { leave = function(_, outcome) message = outcome end }
  local name = "a thread"
  -- In a coroutine, so that a traceback ends where the target was called.
  local coroutine_of_job = coroutine.create(function()
    local job = core.decode(packed.job)
    name = job.name
    core.name_thread(name)
    return require "zproc.process".run_job(job)
  end)
  local results = table.pack(coroutine.resume(coroutine_of_job))
  local ended = not results[1] and "raised" or coroutine.status(coroutine_of_job) == "dead" and "returned" or "yielded"
  return runtime.finish(place, name, ended, coroutine_of_job, table.unpack(results, 2, results.n)), message
end

return thread
