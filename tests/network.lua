--- Run another spec with servers that are reached by the network alone: assert(loadfile(...))(_ENV, "state"). What is tagged #local in it is
--- about how things are done on one machine, and left out.

local zproc = require "zproc"

local env, name = ...
local context, state = zproc.context, zproc.state

--- The options with the transport, unless they name one.
local function over_network(opts)
  local all = { transport = "network" }
  for key, value in pairs(opts or {}) do all[key] = value end
  return all
end

local inner = setmetatable({}, { __index = env })

function inner.describe(title, body)
  env.describe(title .. ", over the network", function()
    env.setup(function()
      -- What is given beyond these is passed on: that it is refused is the functions' own matter.
      zproc.context = function(address, opts, ...)
        if type(address) == "table" and opts == nil then address, opts = nil, address end
        if address ~= nil and type(address) ~= "string" or opts ~= nil and type(opts) ~= "table" then return context(address, opts, ...) end
        return context(address, over_network(opts), ...)
      end
      zproc.state = function(address, opts, ...) return state(address, over_network(opts), ...) end
    end)
    env.teardown(function() zproc.context, zproc.state = context, state end)
    inner.describe = env.describe
    body()
  end)
end

function inner.it(title, body)
  if not title:find("#local", 1, true) then env.it(title, body) end
end

assert(loadfile(("%s/tests/spec/%s_spec.lua"):format(os.getenv "SRCDIR", name), "t", inner))()
