--- Keys and values as lines of JSON, without loss: what `zproc state` dumps, loads, and prints of updates.
---
---   {"key":"apples","value":5}
---   {"key":"apples","deleted":true}
---
--- What JSON cannot carry to the bit (functions, infinities, bytes that are not UTF-8, tables with other keys than strings, shared or with
--- a metatable) is written as zproc's codec has it, in hexadecimal digits: "value_bytes" instead of "value", "key_bytes" instead of "key".

---
--- A dump has a line before and one behind those of its keys: {"dump":1}, and {"end":2,"sum":"..."} with how many there are in between and a sum
--- over them. So whoever gets it can tell that it is whole: what writes it may fail in the middle. Lines without either are somebody's own.

local core = require "zproc.core"
local errors = require "zproc.errors"
local json = require "zproc.cli.json"

local records = {}

--- `"name":JSON`, or `"name_bytes":"..."`.
local function field(name, value)
  local bytes = core.encode(value)
  local ok, text = pcall(json.encode, value, name)
  local again = ok and json.decode("[" .. text .. "]") -- as deep as it will be in the record
  if again and core.encode(again[1]) == bytes then return ('"%s":%s'):format(name, text) end
  if not ok and not errors.is(text, "EncodeError") then error(text, 0) end
  return ('"%s_bytes":"%s"'):format(name, bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

--- The record of a key; a value of nil stands for its deletion.
---@param key any
---@param value any
---@return string
function records.write(key, value)
  return ("{%s,%s}"):format(field("key", key), value == nil and '"deleted":true' or field("value", value))
end

--- The value of a field that `field` has written; nil if there is none.
local function value_of(record, name)
  local value, hex = record[name], record[name .. "_bytes"]
  if hex == nil then return value end
  if value ~= nil then error(("it has both %s and %s_bytes"):format(name, name), 0) end
  if type(hex) ~= "string" or #hex % 2 == 1 or hex:find "%X" then error(name .. "_bytes is no string of hexadecimal digits", 0) end
  return core.decode((hex:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end)))
end

local FIELDS <const> = { key = true, key_bytes = true, value = true, value_bytes = true }

--- The key and the value of a line.
---@param line string
---@return any key nil if it is no such record
---@return any value or what is wrong
function records.read(line)
  local record, wrong = json.decode(line)
  if wrong then return nil, "it cannot be read as JSON: " .. wrong end
  if type(record) ~= "table" then return nil, "it is no object" end
  for name in pairs(record) do
    if not FIELDS[name] then return nil, ("there is no field '%s' in a dump"):format(tostring(name)) end
  end
  local ok, key, value = pcall(function() return value_of(record, "key"), value_of(record, "value") end)
  if not ok then return nil, tostring(key) end
  if key == nil or value == nil then return nil, "it has to have a key and a value" end
  ok, wrong = pcall(core.check_key, key)
  if not ok then return nil, wrong.message end
  return key, value
end

-- ---- dumps ----

local BEGIN <const> = '{"dump":1}'

--- Write a dump.
---@param snapshot table
---@param put fun(line: string)
function records.dump(snapshot, put)
  local count, sum = 0, 0
  put(BEGIN)
  for _, key in ipairs(records.keys(snapshot)) do
    local line = records.write(key, snapshot[key])
    count, sum = count + 1, core.add_sum(sum, line)
    put(line)
  end
  put(('{"end":%d,"sum":"%016x"}'):format(count, sum))
end

--- What a dump, or lines of the same kind, hold.
---@param dump string
---@return table? content nil if it is not whole, or has a line that is no record
---@return string? wrong what is wrong
function records.load(dump)
  local content, number, count, sum = {}, 0, 0, 0
  local has_begun, has_ended = false, false
  for line in dump:gmatch "[^\n]*" do
    number = number + 1
    local stated, stated_sum = line:match '^{"end":(%d+),"sum":"(%x+)"}%s*$'
    local version = line:match '^{"dump":(%d+)}%s*$'
    if not line:find "%S" then
      goto continue
    elseif has_ended then
      return nil, ("line %d of the dump is behind its end"):format(number)
    elseif version then
      if has_begun or count > 0 then return nil, ("line %d of the dump begins another one"):format(number) end
      if version ~= "1" then return nil, ("it is of version %s, and this program knows version 1"):format(version) end
      has_begun = true
    elseif stated then
      if not has_begun then return nil, "the beginning of the dump is missing" end
      if tonumber(stated) ~= count then return nil, ("the dump is not whole: it has %d keys, and had %s"):format(count, stated) end
      if stated_sum ~= ("%016x"):format(sum) then
        return nil, "the dump is not as it was written: its sum is another (without its first and its last line it is loaded as it is)"
      end
      has_ended = true
    else
      local key, value = records.read(line)
      if key == nil then return nil, ("line %d of the dump: %s"):format(number, value) end
      content[key] = value
      count, sum = count + 1, core.add_sum(sum, line)
    end
    ::continue::
  end
  if has_begun and not has_ended then return nil, ("the dump is not whole: it ends after %d keys"):format(count) end
  if not has_begun and count == 0 then return nil, "there is no dump: it is empty" end
  return content
end

local RANK <const> = { boolean = 1, number = 2, string = 3 }

--- Whether one key comes before another, as in state:keys().
local function before(a, b)
  if RANK[type(a)] ~= RANK[type(b)] then return RANK[type(a)] < RANK[type(b)] end
  if type(a) == "boolean" then return not a and b end
  return a < b
end

--- The keys of a snapshot in order.
---@param snapshot table
---@return any[]
function records.keys(snapshot)
  local keys = {}
  for key in next, snapshot do keys[#keys + 1] = key end
  table.sort(keys, before)
  return keys
end

--- Whether two values are the same to the bit.
local function same(a, b)
  if type(a) ~= type(b) then return false end
  if type(a) == "string" or a == nil then return a == b end
  return core.encode(a) == core.encode(b)
end

--- The record of an update: its revision, and what it changed; nil if that is nothing.
---@param revision integer
---@param keys any[] that have changed
---@param values table what they are set to; those that it does not have were deleted
---@param is_wanted table<any, boolean>? keys; nil: all
---@return string?
function records.changes(revision, keys, values, is_wanted)
  local changes = {}
  for _, key in ipairs(keys) do
    if not is_wanted or is_wanted[key] then changes[#changes + 1] = records.write(key, values[key]) end
  end
  if #changes == 0 then return nil end
  return ('{"revision":%d,"changes":[%s]}'):format(revision, table.concat(changes, ","))
end

--- The same from the snapshots before and after it: what differs.
---@param revision integer
---@param old table
---@param new table
---@param wanted any[]? keys; nil: all
---@return string?
function records.update(revision, old, new, wanted)
  if not wanted then
    local all = {}
    for key in next, old do all[key] = true end
    for key in next, new do all[key] = true end
    wanted = records.keys(all)
  end
  local changed = {}
  for _, key in ipairs(wanted) do
    if not same(old[key], new[key]) then changed[#changed + 1] = key end
  end
  return records.changes(revision, changed, new)
end

return records
