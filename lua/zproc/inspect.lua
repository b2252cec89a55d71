--- Values as readable text, in Lua's own notation, tables in key order: what tostring(state) shows.

local core = require "zproc.core"

local LIMIT <const> = 16 * 1024 -- characters; what is longer is of no use on a screen

local keywords = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true
  until while]]):gmatch "%a+" do
  keywords[word] = true
end

local rank = { boolean = 1, number = 2, string = 3 }

local function before(a, b)
  local ra, rb = rank[type(a)] or 4, rank[type(b)] or 4
  if ra ~= rb then return ra < rb end
  if ra == 1 then return not a and b end
  if ra == 4 then return tostring(a) < tostring(b) end
  return a < b
end

local function scalar(value)
  if type(value) == "string" then return (("%q"):format(value):gsub("\\\n", "\\n")) end
  if value == core.null then return "null" end
  return tostring(value)
end

local function write(out, value, ancestors)
  if out.size > LIMIT then return end
  local function put(text)
    out[#out + 1] = text
    out.size = out.size + #text
  end
  if type(value) ~= "table" then return put(scalar(value)) end
  if ancestors[value] then return put "<cycle>" end
  ancestors[value] = true
  put "{"
  local first, length = true, 0
  local function separate()
    if not first then put ", " end
    first = false
  end
  while rawget(value, length + 1) ~= nil do
    length = length + 1
    separate()
    write(out, rawget(value, length), ancestors)
    if out.size > LIMIT then return end
  end
  local keys = {}
  for key in next, value do
    if not (math.type(key) == "integer" and key >= 1 and key <= length) then keys[#keys + 1] = key end
  end
  table.sort(keys, before)
  for _, key in ipairs(keys) do
    separate()
    if type(key) == "string" and key:find "^[%a_][%w_]*$" and not keywords[key] then
      put(key .. " = ")
    else
      put("[" .. scalar(key) .. "] = ")
    end
    write(out, rawget(value, key), ancestors)
    if out.size > LIMIT then return end
  end
  put "}"
  ancestors[value] = nil
end

--- The text of a value.
---@param value any
---@return string
return function(value)
  local out = { size = 0 }
  write(out, value, {})
  local text = table.concat(out)
  return #text > LIMIT and text:sub(1, LIMIT) .. " ..." or text
end
