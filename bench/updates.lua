-- Updates a second that `zproc state watch` and `zproc state history` print, of a state of 5,000 keys, on the machine and over the network.

package.path = arg[0]:match "^(.*/)" .. "?.lua;" .. package.path
local measure = require "measure"
local core = require "zproc.core"
local zproc = require "zproc"

local UPDATES <const>, KEYS <const> = arg[1] == "--quick" and 200 or 2000, 5000

local ctx <close> = zproc.context()
local keys = {}
for i = 1, KEYS do keys["key" .. i] = { number = i, text = "value " .. i } end
ctx.state:update(keys)
local since = ctx.state:revision()
for i = 1, UPDATES do ctx.state["key" .. i % KEYS + 1] = { number = -i, text = "another value" } end

local function run(name, words)
  local begin = core.clock()
  local output <close> = io.popen(("%s state %s %s"):format(os.getenv "ZPROC" or "zproc", ctx.server_address, words))
  local lines = 0
  for _ in output:lines() do lines = lines + 1 end
  assert(lines == UPDATES)
  measure.report(name, UPDATES / (core.clock() - begin))
end

for _, way in ipairs { { "", "" }, { "_network", " --transport network" } } do
  run("watch" .. way[1], ("watch --since %d --count %d%s"):format(since, UPDATES, way[2]))
  run("history" .. way[1], ("history --since %d%s"):format(since, way[2]))
end
