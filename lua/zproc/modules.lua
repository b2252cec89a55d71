--- What a process that is forked now would find in the modules, and whether that is still what workers have found that were forked before.
---
--- A target names what modules have, and workers look it up in theirs. So a worker is stale once a module was loaded or replaced, or one of its
--- fields, or those of the tables in it, was set: package.path and package.preload are such fields, and so is string.format. Of a module's
--- functions the variables that hold no tables and functions count as well, so that a setting that is made by a call is seen. Globals do not
--- count: they travel with the functions that use them.

local getupvalue <const> = debug.getupvalue

local DEPTH <const> = 3 -- tables in tables, a module being the first
local MOST <const> = 20000 -- fields and variables; what is beyond them is not looked at

---@class zproc.Snapshot
---@field tables table<table, table> each with what it had
---@field functions table<function, any[]> each with the values of its variables

local modules = {}

local NOTHING <const> = {}
local own_loaded <const> = package.loaded

--- Whether a field is looked at: modules of zproc itself change all the time, and the globals are no module.
local function counts(t, key)
  return t ~= own_loaded or key ~= "_G" and not (type(key) == "string" and key:find "^zproc%f[.\0]")
end

--- What is weak comes and goes, and must not be held.
local function is_weak(t)
  local meta = debug.getmetatable(t)
  return meta and rawget(meta, "__mode") ~= nil
end

--- The value of a variable as far as it counts.
local function value_of(value)
  local kind = type(value)
  if kind == "table" or kind == "function" or kind == "userdata" or kind == "thread" then return NOTHING end
  return value
end

local function is_other(before, now)
  return not rawequal(before, now) and (before == before or now == now) -- NaN is as it was
end

--- What the modules are like now.
---@return zproc.Snapshot
function modules.take()
  local tables, functions = {}, {}
  local left = MOST

  local function take_function(fn)
    if functions[fn] or left <= 0 then return end
    local values, i = {}, 1
    local name, value = getupvalue(fn, i)
    while name do
      values[i], left, i = value_of(value), left - 1, i + 1
      name, value = getupvalue(fn, i)
    end
    functions[fn] = values
  end

  local function take_table(t, depth)
    if tables[t] or left <= 0 or t == _G or is_weak(t) then return end
    local copy, inner = {}, {}
    tables[t] = copy
    for key, value in next, t do
      left = left - 1
      if left <= 0 then
        tables[t] = nil
        return
      end
      if counts(t, key) then
        copy[key] = value
        if type(value) == "function" then take_function(value)
        elseif type(value) == "table" and depth < DEPTH then inner[#inner + 1] = value end
      end
    end
    local meta = debug.getmetatable(t)
    if meta and depth < DEPTH then inner[#inner + 1] = meta end
    for _, one in ipairs(inner) do take_table(one, depth + 1) end
  end

  take_table(own_loaded, 0)
  take_table(debug.getmetatable "", 1)
  return { tables = tables, functions = functions }
end

local function has_table_changed(t, copy)
  local n = 0
  for key, value in next, t do
    if counts(t, key) then
      if is_other(copy[key], value) then return true end
      n = n + 1
    end
  end
  for _ in next, copy do n = n - 1 end
  return n ~= 0
end

local function has_function_changed(fn, values)
  local i = 1
  local name, value = getupvalue(fn, i)
  while name do
    if is_other(values[i], value_of(value)) then return true end
    i = i + 1
    name, value = getupvalue(fn, i)
  end
  return false
end

--- Whether anything is not as it was.
---@param snapshot zproc.Snapshot
---@return boolean
function modules.have_changed(snapshot)
  for t, copy in next, snapshot.tables do
    if has_table_changed(t, copy) then return true end
  end
  for fn, values in next, snapshot.functions do
    if has_function_changed(fn, values) then return true end
  end
  return false
end

return modules
