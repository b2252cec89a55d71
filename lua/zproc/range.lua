--- zproc.range: numbers at equal distances, as a sequence that takes no memory.

local errors = require "zproc.errors"
local options = require "zproc.options"

---@class zproc.Range
---@field first number
---@field step number
---@field n integer how many numbers it has
local Range = { __name = "Range" }

local range = {}

function range.is(value) return getmetatable(value) == Range end

function Range.__len(self) return self.n end

--- range[i]: the i-th number.
function Range.__index(self, i)
  if math.type(i) == "integer" and i >= 1 and i <= self.n then return self.first + (i - 1) * self.step end
  return nil
end

function Range.__newindex(_, i)
  errors.usage("a zproc.range cannot be changed: [%s] cannot be assigned to; a table can", tostring(i))
end

function Range.__tostring(self)
  return ("range of %d numbers from %s, step %s"):format(self.n, self.first, self.step)
end

local function check_number(name, value)
  if type(value) ~= "number" or value ~= value or value == math.huge or value == -math.huge then
    errors.usage("zproc.range: %s must be a number, not %s", name, options.describe(value))
  end
end

--- How many steps fit between two integers; they may be further apart than an integer counts, so all is done without sign.
---@return integer? nil if they are too many
local function count_steps(first, last, step)
  if step > 0 and last < first or step < 0 and last > first then return -1 end
  local span, size = last - first, step
  if step < 0 then span, size = first - last, -step end
  local steps
  if size < 0 then steps = math.ult(span, size) and 0 or 1 -- the smallest integer, which has no positive counterpart
  elseif span >= 0 then steps = span // size
  else
    steps = (span >> 1) // size << 1
    if not math.ult(span - steps * size, size) then steps = steps + 1 end
  end
  return steps >= 0 and steps < math.maxinteger and steps or nil
end

--- zproc.range(first, last, [step]): both ends are part of it.
---@param first number
---@param last number
---@param step number? 1 by default
---@return zproc.Range
function range.new(first, last, step)
  if step == nil then step = 1 end
  check_number("first", first)
  check_number("last", last)
  check_number("step", step)
  if step == 0 then errors.usage "zproc.range: the step must not be 0" end
  local steps
  if math.type(first) == "integer" and math.type(last) == "integer" and math.type(step) == "integer" then
    steps = count_steps(first, last, step)
  else
    steps = math.tointeger(math.max(-1, math.floor((last - first) / step + 1e-9)))
  end
  if not steps then errors.usage("zproc.range: there are too many numbers from %s to %s", first, last) end
  return setmetatable({ first = first, step = step, n = steps + 1 }, Range)
end

return range
