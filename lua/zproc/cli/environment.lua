--- What code finds that was typed rather than written into a script: `zproc`, `ctx` and `state`. What `zproc eval` and `zproc repl` have in
--- common.

local inspect = require "zproc.inspect"
local zproc = require "zproc"

local environment = {}

--- Set the globals. A Context of its own is made when `ctx` or `state` is used for the first time: much code needs none. That of a server
--- is made now, which raises if there is none.
---@param given { address: string?, namespace: string?, transport: string? }
function environment.install(given)
  _G.zproc = zproc
  setmetatable(_G, {
    __index = function(globals, name)
      if name ~= "ctx" and name ~= "state" then return nil end
      setmetatable(globals, nil)
      globals.ctx = zproc.context { server_address = given.address, namespace = given.namespace, transport = given.transport }
      globals.state = globals.ctx.state
      return globals[name]
    end,
  })
  if given.address then local _ = ctx end
end

--- Compile code: an expression, whose values it returns, or statements.
---@param code string
---@param name string what it is called in messages
---@param line integer? the number of its first line there
---@return function?
---@return string? wrong
function environment.compile(code, name, line)
  local above = ("\n"):rep((line or 1) - 1)
  local chunk = load(above .. "return " .. code, "=" .. name, "t")
  if chunk then return chunk end
  return load(above .. code, "=" .. name, "t")
end

--- A value as a person wants to see it: tables with their content, everything else as print has it.
---@param value any
---@return string
function environment.describe(value)
  local meta = getmetatable(value)
  if type(value) == "table" and not (type(meta) == "table" and (meta.__tostring or meta.__name)) then return inspect(value) end
  return tostring(value)
end

return environment
