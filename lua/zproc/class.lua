--- Class: what Contexts, Processes, MapResults and Servers have in common: to ask one for what it does not have, or to assign to that, is
--- an error that says what may have been meant. What begins with _ is zproc's own, and may be there or not.

local errors = require "zproc.errors"
local options = require "zproc.options"

local class = {}

local function is_private(name) return type(name) == "string" and name:find "^_" ~= nil end

--- A name in a message.
local function show(name) return type(name) == "string" and ("'%s'"):format(name) or ("[%s]"):format(tostring(name)) end

--- Make a metatable with methods, those that are still to come included, that of a class.
---@param meta table with __name
---@param fields table<string, boolean> the public fields, which may be nil; an object keeps `x` as `_x`, where assigning to x does not reach
---@param getters? table<string, fun(self): any> fields that are found out when they are read
---@param advice? fun(name: any): string what else to say of a name that none is like
function class.seal(meta, fields, getters, advice)
  getters = getters or {}
  for name in pairs(fields) do
    local kept_as = "_" .. name
    getters[name] = getters[name] or function(self) return rawget(self, kept_as) end
  end

  local function refuse(name, hint)
    errors.usage("a %s has no field or method %s%s", meta.__name, show(name), hint)
  end

  --- What was meant, perhaps.
  local function hint_of(name)
    local known = {}
    for _, names in ipairs { meta, getters } do
      for one in next, names do
        if not is_private(one) then known[one] = true end
      end
    end
    local hint = options.hint(name, known)
    return hint == "" and advice and advice(name) or hint
  end

  meta.__index = meta
  if next(getters) then
    function meta.__index(self, name)
      local getter = getters[name]
      if getter then return getter(self) end
      return meta[name]
    end
  end

  function meta.__newindex(self, name, value)
    if getters[name] or not is_private(name) and rawget(meta, name) ~= nil then
      errors.usage("%s of a %s cannot be assigned to%s", show(name), meta.__name, advice and getters[name] and advice(name) or "")
    elseif not is_private(name) then
      refuse(name, advice and advice(name) or "; keep it in a variable of your own")
    end
    rawset(self, name, value)
  end

  setmetatable(meta, {
    __index = function(_, name)
      if is_private(name) then return nil end
      refuse(name, hint_of(name))
    end,
  })
end

--- Refuse what is no object of the class as the first argument of a method: it was called with a dot, most likely.
---@param self any
---@param meta table the class's metatable, with __name
---@param call string the method as one calls it, "ctx:process", for messages
function class.check_self(self, meta, call)
  if getmetatable(self) ~= meta then
    errors.usage("%s: a %s is expected as the first argument, not %s (is it %s(...), with a colon?)", call, meta.__name,
      options.describe(self), call)
  end
end

--- Refuse what was given to a call behind all that it takes; nils do not count.
---@param call string the function's name, for messages
---@param most integer how many of the following it takes
---@param ... any
function class.refuse_surplus(call, most, ...)
  for i = most + 1, select("#", ...) do
    local value = select(i, ...)
    if value ~= nil then
      errors.usage("%s: there is an argument too many, %s; it takes what the API reference says, and further options in its table", call,
        options.describe(value))
    end
  end
end

--- Have methods refuse what is behind the arguments that they take.
---@param meta table
---@param prefix string what one calls such an object in a script, "ctx"
---@param methods table<string, integer> how many arguments each takes
function class.limit_methods(meta, prefix, methods)
  for name, most in pairs(methods) do
    local fn, call = meta[name], ("%s:%s"):format(prefix, name)
    meta[name] = function(self, ...)
      if select("#", ...) > most then class.refuse_surplus(call, most, ...) end
      return fn(self, ...)
    end
  end
end

return class
