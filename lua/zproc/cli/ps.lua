--- zproc ps: the processes of a server.

local failure = require "zproc.cli.failure"
local json = require "zproc.cli.json"
local open = require "zproc.cli.open"

local command = {
  usage = "ps ADDRESS [--json]",
  summary = "list the processes of a server",
  arguments = { options = open.with(open.OPTIONS, { ["--json"] = {} }), operands = { "address" }, wanted = "which server?" },
}

command.help = [[
usage: zproc ps ADDRESS [--json] [--transport auto|network] [--secret-key-file FILE]

List the processes of the server at the address in the order of their starts: the script, the server, and all that was started.
Those that have ended are listed until their place is needed. STATE is running, retrying (it waits before the next try), exited,
or gone (it is there no more, and nobody saw how it ended). EXIT is the exit status, or -N after signal N.

With --json the list is an array of objects with pid, parent, state, tries, started (seconds since the epoch), name, and exitcode
once it has exited.
]]

local COLUMNS <const> = { "PID", "PARENT", "STATE", "TRIES", "START", "EXIT", "NAME" }

--- The cells of one line, whatever there is in a name.
local function cells(row)
  return {
    tostring(row.pid), tostring(row.parent), row.state, tostring(row.tries),
    os.date("%Y-%m-%d %H:%M:%S", math.floor(row.started)), row.exitcode and tostring(row.exitcode) or "-",
    (row.name:gsub("%c", "?")),
  }
end

--- A table for a person: columns as wide as they have to be, the last one as it is.
local function format(rows)
  local lines = { COLUMNS }
  for _, row in ipairs(rows) do lines[#lines + 1] = cells(row) end
  local widths = {}
  for _, line in ipairs(lines) do
    for i, cell in ipairs(line) do widths[i] = math.max(widths[i] or 0, #cell) end
  end
  for k, line in ipairs(lines) do
    local padded = {}
    for i, cell in ipairs(line) do padded[i] = i < #line and cell .. (" "):rep(widths[i] - #cell) or cell end
    lines[k] = table.concat(padded, "  ")
  end
  return table.concat(lines, "\n") .. "\n"
end

--- For programs. An empty table would be an object.
local function encode(rows) return (#rows > 0 and json.encode(rows, "the list") or "[]") .. "\n" end

--- List.
---@param given { address: string, json: boolean? }
---@return integer status
function command.run(given)
  local ok, rows = pcall(function() return open.link("ps", given):list_processes() end)
  if not ok then return failure.of(rows) end
  io.write(given.json and encode(rows) or format(rows))
  return 0
end

return command
