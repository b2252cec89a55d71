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

function Range.__tostring(self)
  return ("range of %d numbers from %s, step %s"):format(self.n, self.first, self.step)
end

local function check_number(name, value)
  if type(value) ~= "number" or value ~= value or value == math.huge or value == -math.huge then
    errors.usage("zproc.range: %s must be a number, not %s", name, options.describe(value))
  end
end

--- zproc.range(first, last, [step]): both ends are part of it.
---@param first number
---@param last number
---@param step number? 1 by default
---@return zproc.Range
function range.new(first, last, step)
  step = step or 1
  check_number("first", first)
  check_number("last", last)
  check_number("step", step)
  if step == 0 then errors.usage "zproc.range: the step must not be 0" end
  local n
  if math.type(first) == "integer" and math.type(last) == "integer" and math.type(step) == "integer" then
    local span = step > 0 and last - first or first - last
    if (step > 0 and last < first) or (step < 0 and last > first) then span = -1 end
    n = span < 0 and 0 or span // math.abs(step) + 1
  else
    n = math.max(0, math.floor((last - first) / step + 1e-9) + 1)
  end
  return setmetatable({ first = first, step = step, n = n }, Range)
end

return range
