--- How a command ends when something is wrong: words on stderr, and the exit status.

local errors = require "zproc.errors"
local runtime = require "zproc.runtime"

local failure = {}

--- The exit statuses of failures: the command itself has failed; the command line is wrong.
failure.FAILED, failure.USAGE = 1, 2

--- The command that runs; zproc.cli notes it.
failure.command = "help"

--- The command line is wrong.
---@param words string what is wrong with it
---@return integer status
function failure.of_usage(words)
  runtime.say(("%s: %s; see zproc %s --help"):format(failure.command, words, failure.command))
  return failure.USAGE
end

--- The command itself has failed, or finds that its command line is wrong after all, which is told like any other such mistake.
---@param err any what was raised, or given as an error
---@return integer status
function failure.of(err)
  if errors.is(err, "UsageError") then
    return failure.of_usage((err.message:gsub("^[%w_.:]+: ", ""))) -- without the function that did not like what it was given
  end
  runtime.say(tostring(err))
  return failure.FAILED
end

return failure
