-- damage -- files of a data directory are cut, filled with garbage, removed and mixed up at random. A server then starts with the right state, or
-- does not start and names what is wrong; what it offers to restore is the state of some revision. Nothing crashes.
--
--   zproc run tests/fault/damage.lua ROUNDS SEED
--
-- Each update sets `n` to its number and one of KEYS keys to a value made of that number: so what a state of any revision has to be is known.

local zproc = require "zproc"

local KEYS <const>, PROGRAM <const> = 60, os.getenv "ZPROC" or "./zproc"

--- The value that update `n` gives to its key.
local function value_of(n) return ("%d:"):format(n) .. ("v"):rep(n * 7919 % 9000) end

--- What is wrong with a state that has had `n` updates; nil: nothing. `may_differ`: bytes within values may.
local function check(state, may_differ)
  local all = state:copy()
  local n = all.n or 0
  local count = 0
  for _ in pairs(all) do count = count + 1 end
  if count ~= (n == 0 and 0 or 1 + math.min(n, KEYS)) then return ("%d keys after %s updates"):format(count, n) end
  for i = math.max(1, n - KEYS + 1), n do
    local value, expected = all[i % KEYS], value_of(i)
    if value ~= expected and not (may_differ and type(value) == "string" and #value == #expected) then return ("key %d is not of update %d"):format(i % KEYS, i) end
  end
  return nil, n
end

-- ---- the parts that run in processes of their own ----

local parts = {}

--- Make updates from where the state is up to `last`, then close the server or be killed.
function parts.fill(directory, sync, last, ending)
  local server, address = zproc.start_server { data_dir = directory, sync = sync }
  local state = zproc.state(address)
  for n = (state.n or 0) + 1, tonumber(last) do state:update { n = n, [n % KEYS] = value_of(n) } end
  if ending == "kill" then os.execute("kill -9 " .. zproc.getpid()) end
  server:stop()
end

--- Start a server and look: "good N", "bad ...", or "refused ...".
function parts.look(directory, restore, may_differ)
  local ok, server, address = pcall(zproc.start_server, { data_dir = directory, sync = "never", restore = restore ~= "nothing" and restore or nil })
  if not ok then
    print("refused " .. tostring(server))
    return
  end
  local done, wrong, n = pcall(function() return check(zproc.state(address), may_differ == "yes") end)
  if not done then print("raised " .. tostring(wrong)) else print(wrong and "bad " .. wrong or "good " .. n) end
  server:stop()
end

if parts[arg[1]] then
  parts[arg[1]](table.unpack(arg, 2))
  return
end

-- ---- rounds ----

local rounds, seed = tonumber(arg[1] or 10), tonumber(arg[2] or 1)
math.randomseed(seed)
print(("damage: %d rounds, seed %d"):format(rounds, seed))

local function sh(command, ...)
  local ok = os.execute(command:format(...))
  assert(ok, command:format(...))
end

--- Run a part; what it prints, and whether a signal has ended it.
local function run(part, ...)
  local words = { PROGRAM, "run", arg[0], part, ... }
  local pipe = assert(io.popen("exec " .. table.concat(words, " ") .. " 2>&1"))
  local output = pipe:read "a"
  local _, kind, number = pipe:close()
  return output, kind == "signal" or number >= 128
end

local function size_of(path)
  local file <close> = io.open(path, "rb")
  return file and file:seek "end" or 0
end

local function overwrite(path, offset, bytes)
  local file <close> = assert(io.open(path, "r+b"))
  file:seek("set", offset)
  file:write(bytes)
end

local function garbage(size)
  local bytes = {}
  for i = 1, size do bytes[i] = string.char(math.random(0, 255)) end
  return table.concat(bytes)
end

--- What is done to a file; each says whether bytes within it were changed and nothing else.
local ways = {
  remove = function(path) sh("rm %q", path) end,
  empty = function(path) sh(": >%q", path) end,
  cut = function(path) sh("truncate -s %d %q", math.random(0, math.max(0, size_of(path) - 1)), path) end,
  directory = function(path) sh("rm %q && mkdir -m 700 %q", path, path) end,
  garbage = function(path)
    local size = size_of(path)
    overwrite(path, math.random(0, size - 1), garbage(math.random(1, 20000)))
    return true
  end,
  head = function(path)
    overwrite(path, math.random(0, 8200) % size_of(path), garbage(math.random(1, 64)))
    return true
  end,
  zeros = function(path)
    overwrite(path, math.random(0, size_of(path) - 1) // 4096 * 4096, ("\0"):rep(4096 * math.random(1, 8)))
    return true
  end,
  bit = function(path)
    local offset = math.random(0, size_of(path) - 1)
    local file <close> = assert(io.open(path, "rb"))
    file:seek("set", offset)
    local byte = file:read(1):byte()
    file:close()
    overwrite(path, offset, string.char(byte ~ 1 << math.random(0, 7)))
    return true
  end,
  older = function(path, older, name) sh("[ ! -e %q/%s ] || cat %q/%s >%q", older, name, older, name, path) end,
  other = function(path, _, _, directory) sh("cat %q/snapshot.mdb >%q 2>/dev/null || cat %q/status >%q", directory, path, directory, path) end,
}

local names, files = {}, { "data.mdb", "data.mdb", "snapshot.mdb", "status", "lock" }
for name in pairs(ways) do names[#names + 1] = name end
table.sort(names)

local place = os.tmpname()
os.remove(place)
local counts = { good = 0, refused = 0, restored = 0 }

local function fail(round, history, output)
  print(("damage: round %d, seed %d: %s\n%s\nthe directory is %s"):format(round, seed, history, output, place))
  os.exit(1)
end

for round = 1, rounds do
  local directory, older = place .. "/data", place .. "/older"
  sh("rm -rf %q && mkdir -p %q", place, place)
  local sync = ({ "never", "interval", "always" })[math.random(3)]
  local ending = math.random(2) == 1 and "kill" or "close"
  local first, last = math.random(1, 100), math.random(120, 300)
  run("fill", directory, "interval", first, "close")
  sh("cp -a %q %q", directory, older)
  run("fill", directory, sync, last, ending)

  local name, way = files[math.random(#files)], names[math.random(#names)]
  local path = directory .. "/" .. name
  local is_there = io.open(path)
  if is_there then is_there:close() end
  local history = ("%s after %s with --sync %s, %d updates"):format(way .. " " .. name, ending, sync, last)
  local is_within = false
  if is_there and (size_of(path) > 0 or way == "remove" or way == "directory") then is_within = ways[way](path, older, name, directory) end
  local may_differ = is_within and ending == "kill" and name == "data.mdb" and "yes" or "no"

  local output, crashed = run("look", directory, "nothing", may_differ)
  if crashed then fail(round, history, "it crashed: " .. output) end
  local n = output:match "^good (%d+)\n$"
  if n then
    -- What was the whole content of the file when the server started on it is not told from what it has become, after a kill.
    local is_of_start = way == "older" and name == "data.mdb" and ending == "kill" and tonumber(n) == first
    if tonumber(n) ~= last and not is_of_start then fail(round, history, output) end
    counts.good = counts.good + 1
  else
    if not output:find "^refused" or not output:find(directory, 1, true) then fail(round, history, output) end
    counts.refused = counts.refused + 1
    sh("cp -a %q %q/again", directory, place)
    for _, restore in ipairs { "snapshot", "data" } do
      -- As one would do: what is no file gives way.
      sh("[ ! -d %q/lock ] || rmdir %q/lock; [ ! -d %q/status ] || rmdir %q/status", directory, directory, directory, directory)
      output, crashed = run("look", directory, restore, may_differ)
      local restored = output:match "^good (%d+)\n$"
      if crashed or not (restored or output:find "^refused") then fail(round, history .. ", restoring " .. restore, output) end
      if restored then
        counts.restored = counts.restored + 1
        output, crashed = run("look", directory, "nothing", may_differ)
        if crashed or output ~= ("good %s\n"):format(restored) then fail(round, history .. ", after restoring " .. restore, output) end
        break
      end
    end
  end
end
sh("rm -rf %q", place)
print(("damage: the right state %d times; refused %d times, and a state of some revision restored after %d of these"):format(counts.good,
  counts.refused, counts.restored))
