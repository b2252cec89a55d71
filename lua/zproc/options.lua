--- Checking of arguments and option tables: an unknown option, or one of the wrong type, is an error that names the option
--- and the call.

local errors = require "zproc.errors"

local options = {}

--- The most arguments that a call of a target can have, the most processes that the system can, and the longest delay, some thirty years.
local ARGUMENTS_MAX <const>, PROCESSES_MAX <const>, DELAY_MAX <const> = 100000, 1 << 22, 1e9

--- Whether it is what a predicate may use: { seconds =, bytes = }, each of which may be left out.
local function is_budget(value)
  if type(value) ~= "table" then return false end
  for name, limit in pairs(value) do
    local is_known = name == "seconds" or name == "bytes" and math.tointeger(limit)
    if not is_known or type(limit) ~= "number" or not (limit > 0) then return false end
  end
  return true
end

local function is_seconds(value)
  return type(value) == "number" and value >= 0 -- false for NaN
end

--- What an option may be: a test, which may give other words for what is wrong, and the words for it.
local kinds = {
  boolean = { function(value) return type(value) == "boolean" end, "true or false" },
  string = { function(value) return type(value) == "string" end, "a string" },
  table = { function(value) return type(value) == "table" end, "a table" },
  list = { function(value) return type(value) == "table" and options.name_in(value) == nil end, "a list" },
  seconds = { is_seconds, "a number of seconds, 0 or more" },
  limit = { function(value) return type(value) == "number" and value > 0 end, "a number of seconds, more than 0" },
  budget = { is_budget, "a table with seconds, a number above 0, or bytes, an integer above 0, or both" },
  delay = {
    function(value)
      if is_seconds(value) and value > DELAY_MAX then return false, "a number of seconds from 0 to 1e9" end
      return is_seconds(value)
    end,
    "a number of seconds, 0 or more",
  },
  arguments = {
    function(value)
      if type(value) ~= "table" or options.name_in(value) ~= nil then return false end
      if options.count_arguments(value) then return true end
      return false, ("a list of at most %d arguments"):format(ARGUMENTS_MAX)
    end,
    "a list",
  },
  processes = {
    function(value)
      if math.type(value) == "integer" and value > PROCESSES_MAX then
        return false, ("an integer of at least 1 and at most %d"):format(PROCESSES_MAX)
      end
      return math.type(value) == "integer" and value >= 1
    end,
    "an integer of at least 1",
  },
  revision = {
    function(value) return math.type(value) == "integer" and value >= 0 end, "a revision number, an integer of at least 0",
  },
  retries = {
    function(value) return math.type(value) == "integer" and value >= 0 end, "a number of retries, an integer of at least 0",
  },
  sequence = {
    function(value) return options.is_sequence(value) end, "an array, a zproc.range or an iterator function",
  },
  on_error = {
    function(value) return value == "raise" or value == "return" end, "'raise' or 'return'",
  },
  progress = {
    function(value) return type(value) == "boolean" or type(value) == "function" end, "true, false or a function",
  },
  sync = {
    function(value) return value == "never" or value == "interval" or value == "always" end, "'never', 'interval' or 'always'",
  },
  restore = {
    function(value) return value == "data" or value == "snapshot" end, "'data' or 'snapshot'",
  },
  secret = {
    function(value) return type(value) == "string" and value ~= "" end, "a string that is not empty",
  },
  users = {
    function(value)
      if type(value) ~= "table" then return type(value) == "string" and value ~= "" or math.type(value) == "integer" end
      for _, name in ipairs(value) do
        if type(name) ~= "string" and math.type(name) ~= "integer" then return false end
      end
      return options.name_in(value) == nil
    end,
    "the name of a user, or a list of such",
  },
  transport = {
    function(value) return value == "auto" or value == "network" end, "'auto' or 'network'",
  },
  backend = {
    function(value) return value == "process" or value == "thread" end, "'process' or 'thread'",
  },
  workers = { -- as many as the queue of tasks has slots
    function(value) return math.type(value) == "integer" and value >= 1 and value <= 4096 end, "an integer of at least 1 and at most 4096",
  },
  seed = {
    function(value) return type(value) == "number" and math.tointeger(value) ~= nil end, "an integer",
  },
  count = {
    function(value) return math.type(value) == "integer" and value >= 1 end, "an integer of at least 1",
  },
}

--- How many single-letter changes make b of a; cut off at 3, more is no typing error.
local function distance(a, b)
  if math.abs(#a - #b) > 2 then return 3 end
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local change = diagonal + (a:byte(i) == b:byte(j) and 0 or 1)
      diagonal = row[j]
      row[j] = math.min(change, row[j] + 1, row[j - 1] + 1)
    end
  end
  return row[#b]
end

local function closest(name, spec)
  local best, least = nil, 3
  for candidate in pairs(spec) do
    local d = distance(name, candidate)
    if d < least or d == least and best and candidate < best then best, least = candidate, d end
  end
  return best
end

--- How a value reads in a message.
function options.describe(value)
  if type(value) == "string" then return ("the string %q"):format(value) end
  if type(value) == "number" or type(value) == "boolean" then return tostring(value) end
  return (value == nil and "" or "a ") .. type(value)
end

--- What a name may have been meant to be: " (did you mean 'count'?)", or nothing.
---@param name any
---@param spec table<string, string> option name -> kind
---@return string
function options.hint(name, spec)
  local hint = type(name) == "string" and closest(name, spec)
  return hint and (" (did you mean '%s'?)"):format(hint) or ""
end

--- What else to say of an option that is no list: a table with names in it is one, perhaps, that another option takes.
local function hint_of_list(name, value, spec)
  local inner = (kinds[spec[name]] == kinds.list or kinds[spec[name]] == kinds.arguments) and type(value) == "table" and options.name_in(value)
  if not inner then return "" end
  local other = name:gsub("args$", "kwargs")
  local hint = other ~= name and spec[other] and (" (did you mean '%s'?)"):format(other) or ""
  return (" with the key %q%s"):format(tostring(inner), hint)
end

--- Check a table of options; returns it, or an empty one for nil.
---@param call string the function's name, for messages
---@param given table?
---@param spec table<string, string> option name -> kind
---@return table
function options.check(call, given, spec)
  if given == nil then return {} end
  if type(given) ~= "table" then
    local example = spec.timeout and "timeout" or spec.args and "args" or next(spec)
    errors.usage("%s: options come in a table, as in { %s = ... }; this is %s", call, example, options.describe(given))
  end
  for name, value in pairs(given) do
    local kind = spec[name]
    if not kind then
      errors.usage("%s: unknown option %s%s", call, type(name) == "string" and "'" .. name .. "'" or options.describe(name),
        options.hint(name, spec))
    end
    local test, words = kinds[kind][1], kinds[kind][2]
    local is_right, other_words = test(value)
    if not is_right then
      errors.usage("%s: option '%s' must be %s, not %s%s", call, name, other_words or words, options.describe(value), hint_of_list(name, value, spec))
    end
  end
  return given
end

--- How many arguments a list of them has, by its `n` or its length; nil if they are too many, or `n` is no number of arguments.
---@param list table
---@return integer?
function options.count_arguments(list)
  local count = list.n
  if count == nil then count = #list end
  if math.type(count) == "integer" and count >= 0 and count <= ARGUMENTS_MAX then return count end
end

--- A name among the keys of what is to be a list; nil if it has none. `n`, of table.pack, is none; nor do objects have any.
---@param list table
---@return any
function options.name_in(list)
  if getmetatable(list) then return nil end
  for key in next, list do
    if math.type(key) ~= "integer" and key ~= "n" then return key end
  end
end

--- Whether a value can be gone through: an array (an empty table is one), what says by a metatable that it is like one, a
--- zproc.range, or something to call.
function options.is_sequence(value)
  if options.is_callable(value) then return true end
  if type(value) ~= "table" then return false end
  if next(value) == nil or rawget(value, 1) ~= nil or math.type(rawget(value, "n")) == "integer" then return true end
  local meta = getmetatable(value)
  return type(meta) == "table" and rawget(meta, "__len") ~= nil
end

--- Check one optional timeout.
---@param call string
---@param timeout number?
function options.check_timeout(call, timeout)
  if timeout ~= nil and not is_seconds(timeout) then
    errors.usage("%s: the timeout must be %s, not %s", call, kinds.seconds[2], options.describe(timeout))
  end
end

--- Refuse what is no target.
---@param call string
---@param target any
function options.check_target(call, target)
  if options.is_callable(target) then return end
  if target == nil then
    errors.usage("%s: the target is nil; is its name spelt right, and is it defined above this line?", call)
  end
  errors.usage("%s: the target must be a function, not %s", call, options.describe(target))
end

--- An EncodeError of a value that holds an open file, with what to do about that.
---@param err any what was raised
---@param advice string
---@return any err
function options.advise(err, advice)
  if errors.is(err, "EncodeError") and err.message:find("(FILE*)", 1, true) then err.message = ("%s; %s"):format(err.message, advice) end
  return err
end

--- An error, or anything that was raised, in words: tostring that cannot fail, whatever __tostring does.
---@param value any
---@return string
function options.words_of(value)
  local ok, text = pcall(tostring, value)
  return ok and text or ("(a %s whose __tostring fails)"):format(type(value))
end

--- Whether a value can be called.
function options.is_callable(value)
  if type(value) == "function" then return true end
  local meta = getmetatable(value)
  return type(meta) == "table" and type(rawget(meta, "__call")) == "function"
end

return options
