--- zproc ps: the processes of a server.

local failure = require "zproc.cli.failure"
local json = require "zproc.cli.json"
local listing = require "zproc.cli.listing"
local open = require "zproc.cli.open"
local text = require "zproc.cli.text"

local command = {
  usage = "ps ADDRESS [--json]",
  summary = "list the processes of a server",
  arguments = { options = open.with(open.OPTIONS, { ["--json"] = {} }), operands = { "address" }, wanted = "which server?" },
}

command.help = [[
usage: zproc ps ADDRESS [--json] [--transport auto|network] [--secret-key-file FILE]

List the processes of the server at the address in the order of their starts: the script, the server, and all that was started.
Those that have ended are listed until their place is needed. STATE is running, retrying (it waits before the next try), exited,
or gone (it is there no more, and nobody saw how it ended). EXIT is the exit status, or -N after signal N. A last line names a process
that has held the lock of the state's writers for a second or more, and the atomic function that it runs (not of a server elsewhere).

With --json the list is an array of objects with pid, parent, state, tries, started (seconds since the epoch), name, and exitcode
once it has exited; one that holds the lock has lock: an object with pid, name, since, seconds, stopped, and place if there is
one. Bytes of a name that are not UTF-8 are shown as U+FFFD.
]]

--- For programs. An empty table would be an object.
local function encode(rows, holder)
  for _, row in ipairs(rows) do
    row.name = text.of(row.name)
    if holder and row.pid == holder.pid then row.lock = listing.lock_fields(holder) end
  end
  return #rows > 0 and json.encode(rows, "the list") or "[]"
end

--- List.
---@param given { address: string, json: boolean? }
---@return integer status
function command.run(given)
  local ok, shown = pcall(function()
    local way = open.link("ps", given)
    local rows, holder = way:list_processes(), way:lock_holder()
    if given.json then return encode(rows, holder) end
    local lines, lock = listing.table(rows), listing.lock(holder)
    if lock then lines[#lines + 1] = "The lock of the state's writers is " .. lock .. "." end
    return table.concat(lines, "\n")
  end)
  if not ok then return failure.of(shown) end
  print(shown)
  return 0
end

return command
