--- How a command ends when something is wrong: words on stderr, and the exit status.

local errors = require "zproc.errors"
local runtime = require "zproc.runtime"

local USAGE_ERROR <const> = 2

local failure = {}

--- The command line is wrong.
---@param command string
---@param words string what is wrong with it
---@return integer status
function failure.of_usage(command, words)
  runtime.say(("%s: %s; see zproc %s --help"):format(command, words, command))
  return USAGE_ERROR
end

--- The command itself has failed.
---@param err any what was raised, or given as an error
---@return integer status
function failure.of(err)
  runtime.say(tostring(err))
  return errors.is(err, "UsageError") and USAGE_ERROR or 1
end

return failure
