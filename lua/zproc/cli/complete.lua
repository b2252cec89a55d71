--- What a word may become that is typed into the repl: the names of globals, of fields and methods, and of keys of a State.

local core = require "zproc.core"

local KEYWORDS <const> = {
  "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local", "nil", "not", "or", "repeat",
  "return", "then", "true", "until", "while",
}

--- Note the names of a table's fields that begin so.
local function add_fields(found, fields, start, wants_functions)
  for name, value in next, fields do
    if type(name) == "string" and name:find "^[%a_][%w_]*$" and name:sub(1, #start) == start and name:sub(1, 2) ~= "__"
      and (not wants_functions or type(value) == "function") then
      found[name] = true
    end
  end
end

--- Note the fields of a value, those that it inherits included.
local function add_members(found, value, start, wants_functions)
  if core.is_state(value) then
    add_fields(found, core.state_methods, start, wants_functions)
    if not wants_functions then add_fields(found, value:copy(), start, false) end
    return
  end
  for _ = 1, 10 do -- however its metatables go in circles
    if type(value) == "table" then add_fields(found, value, start, wants_functions) end
    local meta = debug.getmetatable(value)
    value = type(meta) == "table" and rawget(meta, "__index") or nil
    if type(value) ~= "table" then return end
  end
end

--- All that the word may become, in order.
---@param word string a name, or names with . or : between them
---@return string[]
return function(word)
  local before, names = word:match "^(.*%.%.)(.*)$" -- a concatenation
  before, names = before or "", names or word
  local path, separator, start = names:match "^(.-)([.:]?)([%a_]?[%w_]*)$"
  if path == "" and separator ~= "" or path:find "^[.:]" then return {} end -- fields of what a call or an index gives, which is not done here
  local found = {}
  if separator == "" then
    if path ~= "" then return {} end
    add_fields(found, _G, start, false)
    for _, keyword in ipairs(KEYWORDS) do
      if keyword:sub(1, #start) == start then found[keyword] = true end
    end
  else
    local value = _G
    for name in path:gmatch "[^.:]+" do value = value[name] end
    add_members(found, value, start, separator == ":")
  end
  local words = {}
  for name in pairs(found) do words[#words + 1] = before .. path .. separator .. name end
  table.sort(words)
  return words
end
