--- Arguments that every call of a target has for itself, so that calls of one worker are independent of each other.
---
--- The arguments of all calls are decoded once, together with the target, and are kept as they came. Each call gets a copy of their tables and
--- functions. Within one copy the sharing is that of the original: tables that are one table there are one table in the copy, and so are the
--- variables that functions share.
---
--- What travels by name (modules, their fields) is not copied, and neither is what the target has itself, as far as it tells values apart or
--- is code: its functions and their variables, and its tables that have a metatable, are one, or are empty (sentinels).

local core = require "zproc.core"

local getmetatable <const>, setmetatable <const> = debug.getmetatable, debug.setmetatable
local getupvalue <const>, setupvalue <const> = debug.getupvalue, debug.setupvalue
local upvalueid <const>, upvaluejoin <const> = debug.upvalueid, debug.upvaluejoin
local dump <const>, getinfo <const>, load <const>, has_name <const> = string.dump, debug.getinfo, load, core.has_name
local next <const>, rawget <const>, rawset <const>, type <const> = next, rawget, rawset, type

local fresh = {}

--- All tables and functions that can be reached from a value.
---@class zproc.Reach
---@field objects table<table|function, boolean>
---@field metatables table<table, boolean> those of the tables
---@field cells table<userdata, boolean> the variables of the functions

---@param values any[] array with `n`
---@param is_apart fun(value: table|function): boolean whether the search ends there, without it
---@return zproc.Reach
local function reach_of(values, is_apart)
  local objects, metatables, cells = {}, {}, {}
  local work, n = {}, 0

  local function meet(value)
    local kind = type(value)
    if kind ~= "table" and kind ~= "function" or objects[value] or is_apart(value) then return end
    objects[value] = true
    n = n + 1
    work[n] = value
  end

  for i = 1, values.n do meet(values[i]) end
  while n > 0 do -- no recursion: values may be nested deeper than calls
    local value = work[n]
    work[n], n = nil, n - 1
    if type(value) == "table" then
      for key, element in next, value do
        meet(key)
        meet(element)
      end
      local meta = getmetatable(value)
      if meta then
        metatables[meta] = true
        meet(meta)
      end
    else
      local i = 1
      local name, variable = getupvalue(value, i)
      while name do
        cells[upvalueid(value, i)] = true
        meet(variable)
        i = i + 1
        name, variable = getupvalue(value, i)
      end
    end
  end
  return { objects = objects, metatables = metatables, cells = cells }
end

--- A function that says whether a value is the same for all calls, and the target's variables.
---@param target function
---@param values any[] array with `n`
local function judge_of(target, values)
  local own = reach_of({ n = 1, target }, has_name)
  local metatables = reach_of(values, has_name).metatables

  --- Whether all that a function can change is the target's. Those in C travel by name only.
  local function is_code(fn, is_kept)
    if getinfo(fn, "S").what == "C" then return true end
    local i = 1
    local name, variable = getupvalue(fn, i)
    while name do
      if not own.cells[upvalueid(fn, i)] and not (name == "_ENV" and type(variable) == "table" and is_kept(variable)) then return false end
      i = i + 1
      name, variable = getupvalue(fn, i)
    end
    return true
  end

  --- Whether a table is a class, an object or a sentinel, and not just data.
  local function is_telling(t)
    return getmetatable(t) ~= nil or own.metatables[t] or metatables[t] or rawget(t, "__index") ~= nil or next(t) == nil
  end

  local function is_kept(value)
    if has_name(value) then return true end
    if type(value) == "function" then return own.objects[value] or is_code(value, is_kept) end
    return own.objects[value] and is_telling(value) or false
  end

  return is_kept, own.cells
end

--- What each call's copies are made of: the values to copy, and the target's variables, which functions keep.
---@param target function
---@param values any[] array with `n`
---@return (fun(): fun(value: any): any)? begin nil if there is nothing to copy; else, for each call, a function that gives its copy of a value
function fresh.copier(target, values)
  local has_object = false
  for i = 1, values.n do has_object = has_object or type(values[i]) == "table" or type(values[i]) == "function" end
  if not has_object then return nil end
  core.look_at_modules() -- the decoding of these may have brought some
  local is_kept, kept_cells = judge_of(target, values)
  local objects = reach_of(values, is_kept).objects
  if next(objects) == nil then return nil end
  local code = {} -- of the functions among them
  for value in next, objects do
    if type(value) == "function" then code[value] = dump(value) end
  end

  return function()
    local copies, variables = {}, {} -- variables: by cell, the copied function that has it, and its place there
    local work, n = {}, 0

    --- The copy of a value, which is filled later.
    local function begin(value)
      if not objects[value] then return value end
      local copy = copies[value]
      if copy then return copy end
      copy = code[value] and load(code[value], "=function", "b") or {}
      copies[value] = copy
      n = n + 1
      work[n] = value
      return copy
    end

    local function fill_function(original, copy)
      local i = 1
      local name, variable = getupvalue(original, i)
      while name do
        local cell = upvalueid(original, i)
        local first = variables[cell]
        if kept_cells[cell] then
          upvaluejoin(copy, i, original, i)
        elseif first then
          upvaluejoin(copy, i, first.fn, first.place)
        else
          variables[cell] = { fn = copy, place = i }
          setupvalue(copy, i, begin(variable))
        end
        i = i + 1
        name, variable = getupvalue(original, i)
      end
    end

    return function(value)
      local copy = begin(value)
      local with_meta, metas = {}, 0
      while n > 0 do
        local original = work[n]
        work[n], n = nil, n - 1
        local made = copies[original]
        if code[original] then
          fill_function(original, made)
        else
          for key, element in next, original do rawset(made, begin(key), begin(element)) end
          local meta = getmetatable(original)
          if meta then
            metas = metas + 1
            with_meta[metas] = { made, begin(meta) }
          end
        end
      end
      for i = metas, 1, -1 do setmetatable(with_meta[i][1], with_meta[i][2]) end -- now that these have all their fields, __gc among them
      return copy
    end
  end
end

return fresh
