--- How a command ends when something is wrong: words on stderr, and the exit status.

local errors = require "zproc.errors"
local runtime = require "zproc.runtime"

local failure = {}

--- The exit statuses of failures: the command itself has failed; the command line is wrong.
failure.FAILED, failure.USAGE = 1, 2

--- The command line is wrong.
---@param command string
---@param words string what is wrong with it
---@return integer status
function failure.of_usage(command, words)
  runtime.say(("%s: %s; see zproc %s --help"):format(command, words, command))
  return failure.USAGE
end

--- The command itself has failed.
---@param err any what was raised, or given as an error
---@return integer status
function failure.of(err)
  runtime.say(tostring(err))
  return errors.is(err, "UsageError") and failure.USAGE or failure.FAILED
end

return failure
