--- JSON, to the bit: what is read is what was written. lua-cjson, which scripts may use, makes floats of integers and cuts floats to 14
--- digits; a state that went through it would have changed. Objects are written in the order of their keys, so that equal values have
--- equal texts.
---
--- A table is an array if it has the keys 1 to n and no others, else an object; an empty one is {}. null is zproc.null. Arrays and objects
--- are nested 1000 deep at most.

local core = require "zproc.core"
local errors = require "zproc.errors"
local shown = require "zproc.cli.text".shown

local json = {}

local DEPTH_MAX <const> = 1000 -- of nested arrays and objects

-- ---- writing ----

local NAMES <const> = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local PATH_MAX <const> = 200 -- bytes of a path that are shown

--- Raise what cannot be written, with the path to it; of a very long one, its beginning and its end.
local function refuse(path, words)
  if #path > PATH_MAX then path = path:sub(1, PATH_MAX // 2) .. "..." .. path:sub(-PATH_MAX // 2) end
  error(errors.new("EncodeError", ("%s: %s"):format(shown(path), words)))
end

local function write_string(text, path)
  if not utf8.len(text) then refuse(path, "JSON has no strings of bytes that are not UTF-8") end
  text = text:gsub('[%c"\\]', function(c) return NAMES[c] or ("\\u%04x"):format(c:byte()) end)
  return '"' .. text:gsub("\xc2([\x80-\x9f])", function(c) return ("\\u%04x"):format(c:byte()) end) .. '"' -- terminals may obey these, too
end

local function write_number(number, path)
  if math.type(number) == "integer" then return ("%d"):format(number) end
  if number ~= number then refuse(path, "JSON has no nan") end
  if number == math.huge or number == -math.huge then refuse(path, "JSON has no " .. tostring(number)) end
  local text
  for digits = 15, 17 do
    text = ("%%.%dg"):format(digits):format(number)
    if tonumber(text) == number then break end
  end
  return text:find "[.e]" and text or text .. ".0"
end

local write

--- How many elements the array has that a table is; nil if it is none.
local function array_length(value)
  local n, count = rawlen(value), 0
  for _ in next, value do count = count + 1 end
  return n > 0 and count == n and n or nil
end

--- Why a table is neither an array nor an object.
local function refuse_keys(value, path)
  local other, last = nil, 0
  for key in next, value do
    if math.type(key) ~= "integer" or key < 1 then other = other or key else last = math.max(last, key) end
  end
  if other == nil then
    local hole = 1
    while rawget(value, hole) ~= nil do hole = hole + 1 end
    refuse(path, ("JSON has no arrays with holes: there is [%d], but not [%d]"):format(last, hole))
  end
  for key in next, value do
    if type(key) ~= "string" then refuse(path, ("JSON has no keys that are no strings, such as %s"):format(tostring(key))) end
  end
end

local function write_table(value, path, ancestors)
  if ancestors[value] then refuse(path, "JSON has no tables that contain themselves") end
  if ancestors.depth == DEPTH_MAX then refuse(path, ("it is nested more than %d deep, the most that is written as JSON"):format(DEPTH_MAX)) end
  ancestors[value], ancestors.depth = true, ancestors.depth + 1
  local parts, n = {}, array_length(value)
  if n then
    for i = 1, n do parts[i] = write(rawget(value, i), ("%s[%d]"):format(path, i), ancestors) end
  else
    local keys = {}
    for key in next, value do
      if type(key) ~= "string" then refuse_keys(value, path) end
      keys[#keys + 1] = key
    end
    table.sort(keys)
    for i, key in ipairs(keys) do
      local inner = key:find "^[%a_][%w_]*$" and path .. "." .. key or ("%s[%q]"):format(path, key)
      parts[i] = write_string(key, inner) .. ":" .. write(rawget(value, key), inner, ancestors)
    end
  end
  ancestors[value], ancestors.depth = nil, ancestors.depth - 1
  local text = table.concat(parts, ",")
  return n and "[" .. text .. "]" or "{" .. text .. "}"
end

function write(value, path, ancestors)
  local kind = type(value)
  if value == core.null then return "null" end
  if kind == "boolean" then return tostring(value) end
  if kind == "number" then return write_number(value, path) end
  if kind == "string" then return write_string(value, path) end
  if kind == "table" then return write_table(value, path, ancestors) end
  return refuse(path, ("JSON has no %s"):format(kind == "nil" and "nil" or kind .. "s"))
end

--- The JSON of a value. Raises an EncodeError that says where in the value is what JSON does not have.
---@param value any
---@param name string what the value is called in errors
---@return string
function json.encode(value, name)
  return write(value, name, { depth = 0 })
end

-- ---- reading ----

local CHARACTERS <const> = {
  ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
}
local WORDS <const> = { ["true"] = true, ["false"] = false, ["null"] = core.null }

--- What is wrong with the text, and where.
local function fail(at, words) error({ wrong = ("%s at byte %d"):format(words, at) }, 0) end

--- The place of the next character that is no space, and that character.
local function skip(text, at)
  at = text:find("[^ \t\r\n]", at) or #text + 1
  return at, text:sub(at, at)
end

--- \uXXXX, and its other half.
local function read_unicode(text, at)
  local code = tonumber(text:match("^%x%x%x%x", at) or fail(at, "\\u takes four hexadecimal digits"), 16)
  at = at + 4
  if code < 0xD800 or code > 0xDFFF then return utf8.char(code), at end
  local low = tonumber(text:match("^\\u(%x%x%x%x)", at) or "", 16)
  if code > 0xDBFF or not low or low < 0xDC00 or low > 0xDFFF then fail(at, "half of a surrogate pair") end
  return utf8.char(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)), at + 6
end

--- The string whose first character, after the quote, is at `at`, and what is behind it.
local function read_string(text, at)
  local parts = {}
  while true do
    local stop = text:find('[%c"\\]', at)
    if not stop then fail(#text + 1, "a string without an end") end
    parts[#parts + 1] = text:sub(at, stop - 1)
    local c = text:sub(stop, stop)
    at = stop + 1
    if c == '"' then return table.concat(parts), at end
    if c == "\\" then
      local escape = text:sub(at, at)
      at = at + 1
      if escape == "u" then
        parts[#parts + 1], at = read_unicode(text, at)
      else
        parts[#parts + 1] = CHARACTERS[escape] or fail(at - 1, "an unknown escape in a string")
      end
    elseif c == "\127" then
      parts[#parts + 1] = c
    else
      fail(stop, "a control character in a string")
    end
  end
end

local function read_number(text, at)
  local digits = text:match("^-?%d+", at)
  if not digits or digits:find "^-?0%d" then fail(at, "no value") end
  local fraction = text:match("^%.%d+", at + #digits) or ""
  local exponent = text:match("^[eE][+-]?%d+", at + #digits + #fraction) or ""
  local number = tonumber(digits .. fraction .. exponent)
  if number == math.huge or number == -math.huge then fail(at, "a number that is too large") end
  -- Lua would make a float of it, which is another number.
  if fraction == "" and math.type(tonumber(digits)) ~= "integer" then fail(at, "an integer that takes more than 64 bits") end
  if number == 0 and (digits .. fraction):find "[1-9]" then fail(at, "a number that is too small") end
  return number, at + #digits + #fraction + #exponent
end

local read

local function read_array(text, at, depth)
  local array, c = {}, nil
  at, c = skip(text, at)
  if c == "]" then return array, at + 1 end
  while true do
    array[#array + 1], at = read(text, at, depth)
    at, c = skip(text, at)
    if c == "]" then return array, at + 1 end
    if c ~= "," then fail(at, "neither , nor ] in an array") end
    at = at + 1
  end
end

local function read_object(text, at, depth)
  local object, c, key = {}, nil, nil
  at, c = skip(text, at)
  if c == "}" then return object, at + 1 end
  while true do
    at, c = skip(text, at)
    if c ~= '"' then fail(at, "no key, which is a string,") end
    key, at = read_string(text, at + 1)
    at, c = skip(text, at)
    if c ~= ":" then fail(at, "no : behind a key") end
    object[key], at = read(text, at + 1, depth)
    at, c = skip(text, at)
    if c == "}" then return object, at + 1 end
    if c ~= "," then fail(at, "neither , nor } in an object") end
    at = at + 1
  end
end

--- The value at a place, and what is behind it.
function read(text, at, depth)
  local c
  at, c = skip(text, at)
  if depth > DEPTH_MAX then fail(at, ("more than %d arrays and objects within each other, the most that is read,"):format(DEPTH_MAX)) end
  if c == '"' then return read_string(text, at + 1) end
  if c == "[" then return read_array(text, at + 1, depth + 1) end
  if c == "{" then return read_object(text, at + 1, depth + 1) end
  local word = text:match("^%a+", at)
  if word and WORDS[word] ~= nil then return WORDS[word], at + #word end
  return read_number(text, at)
end

--- The value of a JSON text; or nil and what is wrong with it.
---@param text string
---@return any value never nil if the text is right
---@return string? wrong
function json.decode(text)
  local _, bad = utf8.len(text)
  if bad then return nil, ("no UTF-8 at byte %d"):format(bad) end
  local ok, value, at = pcall(read, text, 1, 0)
  if not ok then
    if type(value) == "table" and value.wrong then return nil, value.wrong end
    error(value, 0)
  end
  at = skip(text, at)
  if at <= #text then return nil, ("something behind the value at byte %d"):format(at) end
  return value
end

return json
