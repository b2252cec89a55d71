--- Standard output of a command that goes on: what is put there is on its way at once, since somebody may be waiting for it; and when nothing
--- can be put there any more, that is the command's end.

local core = require "zproc.core"

local out = {}

--- Whether all that was written so far has been taken. Why not is told at the end of the program (src/cli/main.c), which then is a failure.
---@return boolean
function out.is_taken()
  io.stdout:flush()
  return core.output_failure() == nil
end

--- Print a line: whether it was taken.
---@param line string
---@return boolean
function out.put(line)
  print(line)
  return out.is_taken()
end

return out
