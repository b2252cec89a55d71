--- The processes of a server as a table for a person: what `zproc ps` and `zproc top` show.

local text = require "zproc.cli.text"

local listing = {}

--- A lock that was taken just now is no news.
listing.LOCK_SECONDS = 1

local COLUMNS <const> = { "PID", "PARENT", "STATE", "TRIES", "START", "EXIT", "NAME" }

--- The cells of one line, whatever there is in a name.
local function cells(row)
  return {
    tostring(row.pid), tostring(row.parent), row.state, tostring(row.tries),
    os.date("%Y-%m-%d %H:%M:%S", math.floor(row.started)), row.exitcode and tostring(row.exitcode) or "-",
    text.shown(row.name),
  }
end

--- The line that tells who holds the lock of writers; nil if nobody has it for long.
---@param holder table? as Link:lock_holder gives it
---@return string?
function listing.lock(holder)
  if not holder or holder.seconds < listing.LOCK_SECONDS then return nil end
  return ("held for %.0f s by %d (%s)%s%s"):format(holder.seconds, holder.pid, text.shown(holder.name),
    holder.place and ", for the atomic function at " .. text.shown(holder.place) or "", holder.stopped and "; it is stopped" or "")
end

--- The same for programs.
---@param holder table?
---@return table?
function listing.lock_fields(holder)
  if not holder or holder.seconds < listing.LOCK_SECONDS then return nil end
  return {
    pid = holder.pid, name = text.of(holder.name), since = holder.since, seconds = holder.seconds, stopped = holder.stopped,
    place = holder.place and text.of(holder.place),
  }
end

--- The lines of the table, its head first: columns as wide as they have to be, the last one as it is.
---@param rows zproc.ProcessRow[]
---@return string[]
function listing.table(rows)
  local lines, widths = { COLUMNS }, {}
  for _, row in ipairs(rows) do lines[#lines + 1] = cells(row) end
  for _, line in ipairs(lines) do
    for i, cell in ipairs(line) do widths[i] = math.max(widths[i] or 0, #cell) end
  end
  for k, line in ipairs(lines) do
    local padded = {}
    for i, cell in ipairs(line) do padded[i] = i < #line and cell .. (" "):rep(widths[i] - #cell) or cell end
    lines[k] = table.concat(padded, "  ")
  end
  return lines
end

return listing
