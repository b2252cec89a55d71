--- zproc state: a state, from a shell.

local arguments = require "zproc.cli.arguments"
local core = require "zproc.core"
local errors = require "zproc.errors"
local failure = require "zproc.cli.failure"
local json = require "zproc.cli.json"
local open = require "zproc.cli.open"
local records = require "zproc.cli.records"
local zproc = require "zproc"

local REVISION <const> = { takes = "a revision number", read = arguments.integer(0, math.maxinteger) }
local COUNT <const> = { takes = "a number of at least 1", read = arguments.integer(1, math.maxinteger) }
local HISTORY_LIMIT <const> = 20

local command = {
  usage = "state ADDRESS ACTION [...]",
  summary = "read, change and watch a state",
  arguments = {
    options = open.with(open.STATE_OPTIONS, {
      ["--at"] = REVISION,
      ["--since"] = REVISION,
      ["--count"] = COUNT,
      ["--limit"] = COUNT,
      ["--timeout"] = { takes = "a number of seconds, 0 or more", read = arguments.seconds },
      ["--json-keys"] = {},
      ["--string"] = {},
      ["--replace"] = {},
    }),
    operands = { "address", "action" },
    wanted = "which server?",
    rest = "words",
  },
}

command.help = [=[
usage: zproc state ADDRESS get [KEY] [--at REVISION]
       zproc state ADDRESS set KEY VALUE [KEY VALUE ...] [--string]
       zproc state ADDRESS del KEY [KEY ...]
       zproc state ADDRESS dump [--at REVISION]
       zproc state ADDRESS load [FILE] [--replace]
       zproc state ADDRESS watch [KEY ...] [--since REVISION] [--count N] [--timeout SECONDS]
       zproc state ADDRESS history [--since REVISION] [--limit N]

  get      print the value of a key as JSON, or the whole state as an object. Status 1 if there is no such key
  set      set keys to values, which are JSON ('"text"', 5, '[1, 2]'), in one step; a value - is read from standard input
  del      delete keys, in one step. Status 1 if one of them was not there; the others are deleted all the same
  dump     print a line for each key: {"key":"apples","value":5}
  load     set the keys of a dump, from a file or from standard input, in one step
  watch    print a line for each update as it comes: {"revision":7,"changes":[...]}, where the changes are lines as in a dump, or
           {"key":"apples","deleted":true}. With keys: what changes these
  history  print the same for the updates of the past: the newest 20, the oldest of them first

  --namespace NAME   which of the server's states (default: default)
  --at REVISION      as it was at that revision
  --since REVISION   begin after that revision (0: as far back as is kept)
  --count N          end after N updates
  --limit N          at most N: the newest ones or, with --since, the first ones after that revision
  --timeout SECONDS  end with status 1 when no update has come for so long
  --json-keys        keys are JSON as well: '"text"', 5, true. Without it they are strings as they are given
  --string           values are strings as they are given, and not JSON
  --replace          make the dump the whole state: other keys are deleted
  --transport auto|network, --secret-key-file FILE
                     how to reach the server, as for all commands

Integers, floats and strings stay what they are, to the bit. What JSON does not have (functions, infinities, strings that are not UTF-8,
keys within a value that are no strings) is an error of get. A dump, and the lines of updates, have it as value_bytes or key_bytes: the
bytes of zproc's own encoding, in hexadecimal digits; so load restores everything. Functions and metatables are part of that: load only
dumps that you trust.
]=]

--- A wrong command line, to be raised.
local function usage(format, ...) error(errors.new("UsageError", "state: " .. format:format(...))) end

--- A key from the command line.
local function key_of(text, given)
  if not given.json_keys then return text end
  local key, wrong = json.decode(text)
  if wrong then usage("the key %s is not JSON: %s", text, wrong) end
  if type(key) == "table" or key == core.null then usage("the key %s is neither a string nor a number nor a boolean", text) end
  return key
end

local function keys_of(given)
  local keys = {}
  for i, word in ipairs(given.words) do keys[i] = key_of(word, given) end
  return keys
end

--- A value from the command line.
local function value_of(text, given)
  if text == "-" then text = io.read "a" end
  if given.string then return text end
  local value, wrong = json.decode(text)
  if wrong then usage([[the value %s is not JSON: %s (text takes quotes, '"like this"', or --string)]], text, wrong) end
  return value
end

--- The whole state, now or at a revision.
local function snapshot_of(state, given)
  return given.at and state:at(given.at) or state:copy()
end

--- Print one line that somebody may be waiting for.
local function put(line)
  print(line)
  io.stdout:flush()
end

--- Each action: how many words it takes, which options go with it, and what it does, which gives an exit status.
local actions = {}

actions.get = {
  most = 1,
  options = { at = true },
  run = function(state, given)
    local text = given.words[1]
    local value
    if not text then
      value = snapshot_of(state, given)
    elseif given.at then
      value = state:at(given.at)[key_of(text, given)]
    else
      value = state:get(key_of(text, given))
    end
    if value == nil then return failure.of(("state: there is no key %s"):format(text)) end
    print(json.encode(value, text or "state"))
    return 0
  end,
}

actions.set = {
  least = 2,
  options = { string = true },
  run = function(state, given)
    if #given.words % 2 == 1 then usage("the key %s has no value", given.words[#given.words]) end
    local changes = {}
    for i = 1, #given.words, 2 do changes[key_of(given.words[i], given)] = value_of(given.words[i + 1], given) end
    state:update(changes)
    return 0
  end,
}

--- Without a look at the values, which may need modules that are not here.
local delete = zproc.atomic(function(snapshot, keys)
  for _, key in ipairs(keys) do snapshot[key] = nil end
end)

actions.del = {
  least = 1,
  options = {},
  run = function(state, given)
    local keys, status = keys_of(given), 0
    for i, key in ipairs(keys) do
      if not state:contains(key) then status = failure.of(("state: there is no key %s"):format(given.words[i])) end
    end
    delete(state, keys)
    return status
  end,
}

actions.dump = {
  most = 0,
  options = { at = true },
  run = function(state, given)
    local snapshot = snapshot_of(state, given)
    for _, key in ipairs(records.keys(snapshot)) do print(records.write(key, snapshot[key])) end
    return 0
  end,
}

--- All of a file, or of standard input; or nil and the reason.
local function read_all(name)
  if not name or name == "-" then return io.read "a" end
  local file, wrong = io.open(name, "rb")
  if not file then return nil, wrong end
  local text
  text, wrong = file:read "a"
  file:close()
  return text, wrong
end

actions.load = {
  most = 1,
  options = { replace = true },
  run = function(state, given)
    local text, wrong = read_all(given.words[1])
    if not text then return failure.of("state: cannot read the dump: " .. wrong) end
    local content, number = {}, 0
    for line in text:gmatch "[^\n]*" do
      number = number + 1
      if line:find "%S" then
        local key, value = records.read(line)
        if key == nil then return failure.of(("state: line %d of the dump: %s"):format(number, value)) end
        content[key] = value
      end
    end
    if given.replace then state:set(content) else state:update(content) end
    return 0
  end,
}

actions.watch = {
  options = { since = true, count = true, timeout = true },
  run = function(state, given)
    local wanted = #given.words > 0 and keys_of(given) or nil
    local since = given.since or state:revision()
    local words = table.move(wanted or {}, 1, #given.words, 1, {})
    words[#words + 1] = { since = since, timeout = given.timeout, count = given.count }
    local updates = state:when_change(table.unpack(words))
    local old, seen = state:at(core.cursor(state)), 0
    for new in updates do
      local line = records.update(core.cursor(state), old, new, wanted)
      if line then put(line) end
      old, seen = new, seen + 1
    end
    if seen == given.count then return 0 end
    return failure.of(("state: no update for %g seconds"):format(given.timeout))
  end,
}

--- The records of the updates after a revision, up to `last`; at most `most` of them.
local function updates_since(state, since, last, most)
  local lines = {}
  local updates = state:when_change { since = since, timeout = 0 }
  local old = state:at(core.cursor(state))
  for new in updates do
    local revision = core.cursor(state)
    if revision > last then break end
    lines[#lines + 1] = records.update(revision, old, new)
    if #lines == most then break end
    old = new
  end
  if #lines ~= most and core.cursor(state) < last then
    error(errors.new("ServerLost", ("state: the server at %s could not be reached in the middle"):format(state.server_address)))
  end
  return lines
end

--- The oldest revision that can be read.
local function oldest_of(state)
  core.set_cursor(state, 0)
  return core.cursor(state)
end

actions.history = {
  most = 0,
  options = { since = true, limit = true },
  run = function(state, given)
    local last, limit = state:revision(), given.limit
    local lines
    if given.since then
      lines = updates_since(state, given.since, last, limit)
    else
      -- Revisions count for all states of the server, so how far back the newest ones of this one are is found out by trying.
      limit = limit or HISTORY_LIMIT
      local oldest, reach = oldest_of(state), limit
      repeat
        local since = math.max(oldest, last - reach)
        lines = updates_since(state, since, last)
        reach = reach * 8
      until #lines >= limit or since == oldest
      lines = table.move(lines, math.max(1, #lines - limit + 1), #lines, 1, {})
    end
    for _, line in ipairs(lines) do print(line) end
    return 0
  end,
}

local ALWAYS <const> = { address = true, action = true, words = true, namespace = true, transport = true, json_keys = true,
  secret_key_file = true }

--- What is wrong with the command line, as far as that depends on the action.
local function check(given)
  local action = actions[given.action]
  if not given.action then return "what is to be done? get, set, del, dump, load, watch or history" end
  if not action then return ("there is no '%s', but get, set, del, dump, load, watch and history"):format(given.action) end
  for name in pairs(given) do
    if not ALWAYS[name] and not action.options[name] then
      return ("--%s does not go with %s"):format(name:gsub("_", "-"), given.action)
    end
  end
  local count = #given.words
  if count < (action.least or 0) then return given.action .. (given.action == "set" and " takes a key and a value" or " takes a key") end
  if count > (action.most or math.huge) then return ("unknown argument '%s'"):format(given.words[action.most + 1]) end
end

--- Do it.
---@param given table
---@return integer status
function command.run(given)
  local wrong = check(given)
  if wrong then return failure.of_usage("state", wrong) end
  local ok, status = pcall(function() return actions[given.action].run(open.state("state", given), given) end)
  return ok and status or failure.of(status)
end

return command
