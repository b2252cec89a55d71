--- How far a map is: a bar on stderr for a person, or a function that is told.

local core = require "zproc.core"

local INTERVAL <const> = 0.1 -- seconds
local WIDTH <const> = 30 -- of the bar
local STDERR <const> = 2

---@class zproc.Progress
---@field done integer items that have a result
---@field total integer? nil while it is not known
---@field rate number items per second
---@field remaining number? seconds, as it looks; nil while that is not known

local progress = {}

--- Seconds as a person reads them.
local function duration(seconds)
  if seconds < 60 then return ("%.0f s"):format(seconds) end
  if seconds < 3600 then return ("%d:%02d min"):format(seconds // 60, seconds % 60 // 1) end
  return ("%d:%02d h"):format(seconds // 3600, seconds % 3600 // 60)
end

--- One line for a terminal.
---@param now zproc.Progress
---@return string
function progress.line(now)
  if not now.total then return ("%d items, %.1f/s"):format(now.done, now.rate) end
  local share = now.total > 0 and now.done / now.total or 1
  local filled = math.floor(share * WIDTH)
  local line = ("[%s%s] %3.0f%% %d/%d items, %.1f/s"):format(("#"):rep(filled), ("."):rep(WIDTH - filled), share * 100 // 1,
    now.done, now.total, now.rate)
  return now.remaining and ("%s, %s left"):format(line, duration(now.remaining)) or line
end

local function draw(now, is_last)
  io.stderr:write("\r", progress.line(now), "\27[K", is_last and "\n" or "")
  io.stderr:flush()
end

--- What is to be called with done, total and whether that is the end, or with nothing if the map is given up; nil if nobody wants
--- to know.
---@param option boolean|function|nil
---@return fun(done: integer?, total: integer?, is_last: boolean?)?
function progress.new(option)
  local show
  if type(option) == "function" then
    show = option
  elseif option and core.is_terminal(STDERR) then
    show = draw
  else
    return nil
  end
  local begun, due, has_ended = core.clock(), 0, false
  return function(done, total, is_last)
    if not done then
      if show == draw and due > 0 and not has_ended then io.stderr:write "\n" end
      has_ended = true
    end
    local now = core.clock()
    if has_ended or (now < due and not is_last) then return end
    due, has_ended = now + INTERVAL, is_last
    local passed = now - begun
    local rate = passed > 0 and done / passed or 0
    show({
      done = done,
      total = total,
      rate = rate,
      remaining = total and rate > 0 and (total - done) / rate or nil,
    }, is_last)
  end
end

return progress
