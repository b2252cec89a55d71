--- zproc state: a state, from a shell.

local arguments = require "zproc.cli.arguments"
local core = require "zproc.core"
local errors = require "zproc.errors"
local failure = require "zproc.cli.failure"
local json = require "zproc.cli.json"
local open = require "zproc.cli.open"
local out = require "zproc.cli.out"
local records = require "zproc.cli.records"
local text = require "zproc.cli.text"
local change_within = require "zproc.state".change_within
local zproc = require "zproc"

local HISTORY_LIMIT <const> = 20

---@class zproc.cli.state.Option : zproc.cli.Option
---@field value string? what help calls its value
---@field help string what it does

---@class zproc.cli.state.Action
---@field operands string its operands, as help shows them
---@field least integer? how many words it takes
---@field wanted string? these, as one says it
---@field most integer? nil: any number
---@field options string[] which options go with it, besides those that go with all
---@field summary string what help says of it in a few lines
---@field details string what its own help says besides
---@field example string how it is used, as seen in a shell
---@field run fun(state: zproc.State, given: table): integer which gives an exit status

--- The options of all actions. Arguments are parsed by them, and help is made of them.
---@type table<string, zproc.cli.state.Option>
local OPTIONS <const> = {
  ["--namespace"] = { takes = "a name", value = "NAME", help = "which of the server's states (default: default)" },
  ["--at"] = {
    takes = "a revision number", read = arguments.integer(0, math.maxinteger), value = "REVISION",
    help = "as it was at that revision",
  },
  ["--since"] = {
    takes = "a revision number", read = arguments.integer(0, math.maxinteger), value = "REVISION",
    help = "begin after that revision (0: as far back as is kept)",
  },
  ["--count"] = { takes = "a number of at least 1", read = arguments.integer(1, math.maxinteger), value = "N", help = "end after N updates" },
  ["--limit"] = {
    takes = "a number of at least 1", read = arguments.integer(1, math.maxinteger), value = "N",
    help = "at most N: the newest ones or, with --since, the first ones after that revision",
  },
  ["--timeout"] = {
    takes = "a number of seconds, 0 or more", read = arguments.seconds, value = "SECONDS",
    help = "end with status 1 when no update has come for so long; or, of what changes the state, when others have held its lock for so long",
  },
  ["--json-keys"] = { help = [[keys are JSON as well: '"text"', 5, true. Without it they are strings as they are given]] },
  ["--string"] = { help = "values are strings as they are given, and not JSON" },
  ["--replace"] = { help = "make the dump the whole state: other keys are deleted" },
  ["--transport"] = {
    takes = open.OPTIONS["--transport"].takes, read = open.OPTIONS["--transport"].read, value = "auto|network",
    help = "how to reach the server, as for all commands",
  },
}

--- A key from the command line.
local function key_of(word, given)
  if not given.json_keys then return word end
  local key, wrong = json.decode(word)
  if wrong then errors.usage("the key %s cannot be read as JSON: %s", text.brief(word), wrong) end
  if type(key) == "table" or key == core.null then errors.usage("the key %s is neither a string nor a number nor a boolean", text.brief(word)) end
  return key
end

local function keys_of(given)
  local keys = {}
  for i, word in ipairs(given.words) do keys[i] = key_of(word, given) end
  return keys
end

--- A value from the command line.
local function value_of(word, given)
  if word == "-" then
    local unread
    word, unread = io.read "a"
    if not word then error(errors.new("SystemError", "cannot read stdin: " .. unread), 0) end
  end
  if given.string then return word end
  local value, wrong = json.decode(word)
  if wrong then errors.usage([[the value %s cannot be read as JSON: %s (text takes quotes, '"like this"', or --string)]], text.brief(word), wrong) end
  return value
end

--- The whole state, now or at a revision.
local function snapshot_of(state, given)
  return given.at and state:at(given.at) or state:copy()
end

--- There is no such key.
local function fail_of_key(word) return failure.of(("state: there is no key %s"):format(text.brief(word))) end

--- The JSON of a value, or an error that says how to see it all the same.
---@param word string? the key; nil: the value is the whole state
local function encode(value, word)
  local ok, result = pcall(json.encode, value, word or "state")
  if ok then return result end
  if errors.is(result, "EncodeError") then
    result.message = result.message .. (word and "; dump prints it" or "; dump prints all keys, and get KEY, or get --json-keys KEY, one of them")
  end
  error(result, 0)
end

-- ---- the actions ----

---@type table<string, zproc.cli.state.Action>
local actions = {}

--- Their names, in the order in which help shows them.
local NAMES <const> = { "get", "set", "del", "dump", "load", "watch", "history", "backup" }

actions.get = {
  operands = "[KEY]",
  most = 1,
  options = { "--at", "--json-keys" },
  summary = "print the value of a key as JSON, or the whole state as an object. Status 1 if there is no such key",
  details = [[
What JSON does not have (functions, infinities, strings that are not UTF-8, keys within a value that are no strings, arrays with holes) is
an error that says where it is; `dump` prints such values all the same. In the whole state a key that is no string is one: such keys are
printed one by one, by `get --json-keys 5`; but a state with the keys 1 to n and no others is an array. An empty table is printed as {}, be
it that it was set as {} or as [].
]],
  example = [[
$ zproc state ipc:///tmp/place get apples
5
$ zproc state ipc:///tmp/place get
{"apples":5,"name":"Ada"}
]],
  run = function(state, given)
    local word = given.words[1]
    local value
    if not word then
      value = snapshot_of(state, given)
    elseif given.at then
      value = state:at(given.at)[key_of(word, given)]
    else
      value = state:get(key_of(word, given))
    end
    if value == nil then return fail_of_key(word) end
    print(encode(value, word))
    return 0
  end,
}

actions.set = {
  operands = "KEY VALUE [KEY VALUE ...]",
  least = 2,
  wanted = "a key and a value",
  options = { "--string", "--json-keys", "--timeout" },
  summary = [[set keys to values, which are JSON ('"text"', 5, '[1, 2]'), in one step; a value - is read from standard input]],
  details = [[
A number is an integer if it has neither a fraction nor an exponent, and null is zproc.null. An array becomes a table with the keys 1 to n.
So an empty one becomes an empty table, which is what an empty object becomes, too.
]],
  example = [[
$ zproc state ipc:///tmp/place set pears 7 list '[1, 2]'
$ echo 'any text' | zproc state ipc:///tmp/place set --string note -
$ zproc state ipc:///tmp/place get
{"apples":5,"list":[1,2],"name":"Ada","note":"any text\n","pears":7}
]],
  run = function(state, given)
    if #given.words % 2 == 1 then errors.usage("the key %s has no value", text.brief(given.words[#given.words])) end
    local changes = {}
    for i = 1, #given.words, 2 do changes[key_of(given.words[i], given)] = value_of(given.words[i + 1], given) end
    change_within(state, given.timeout, state.update, state, changes)
    return 0
  end,
}

--- Without a look at the values, which may need modules that are not here.
local delete = zproc.atomic(function(snapshot, keys)
  for _, key in ipairs(keys) do snapshot[key] = nil end
end)

actions.del = {
  operands = "KEY [KEY ...]",
  least = 1,
  wanted = "a key",
  options = { "--json-keys", "--timeout" },
  summary = "delete keys, in one step. Status 1 if one of them was not there; the others are deleted all the same",
  details = "",
  example = [[
$ zproc state ipc:///tmp/place del name
$ zproc state ipc:///tmp/place get
{"apples":5}
]],
  run = function(state, given)
    local keys, status = keys_of(given), 0
    for i, key in ipairs(keys) do
      if not state:contains(key) then status = fail_of_key(given.words[i]) end
    end
    change_within(state, given.timeout, delete, state, keys)
    return status
  end,
}

actions.dump = {
  operands = "",
  most = 0,
  options = { "--at" },
  summary = [[print a line for each key: {"key":"apples","value":5}]],
  details = [[
What JSON does not have is there as value_bytes or key_bytes, the bytes of zproc's own encoding in hexadecimal digits; so `load` restores
everything. The first line says that it is a dump, and the last one how many keys it has, with a sum; so `load` can tell that it is whole.
]],
  example = [[
$ zproc state ipc:///tmp/place dump | head -n 3
{"dump":1}
{"key":"apples","value":5}
{"key":"name","value":"Ada"}
]],
  run = function(state, given)
    records.dump(snapshot_of(state, given), print)
    return 0
  end,
}

--- All of a file, or of standard input; or nil and the reason.
local function read_all(name)
  if not name or name == "-" then return io.read "a" end
  local file, wrong = io.open(name, "rb")
  if not file then return nil, wrong end
  local content
  content, wrong = file:read "a"
  file:close()
  return content, wrong
end

actions.load = {
  operands = "[FILE]",
  most = 1,
  options = { "--replace", "--timeout" },
  summary = "set the keys of a dump, from a file or from standard input, in one step",
  details = [[
A dump that is empty, or not whole, is an error, and nothing is changed: what has written it may have failed. Lines like those of a dump without
its first and its last line are loaded as they are.

Functions and metatables are part of what a dump can have, and a metatable's __gc runs here as soon as it is loaded: load only dumps that you
trust.
]],
  example = [[
$ zproc state ipc:///tmp/place dump | zproc state ipc:///tmp/place load --namespace copy
$ zproc state ipc:///tmp/place get --namespace copy
{"apples":5,"name":"Ada"}
]],
  run = function(state, given)
    local dump, wrong = read_all(given.words[1])
    if not dump then return failure.of("state: cannot read the dump: " .. wrong) end
    local content
    content, wrong = records.load(dump)
    if not content then return failure.of("state: " .. wrong) end
    change_within(state, given.timeout, given.replace and state.set or state.update, state, content)
    return 0
  end,
}

--- An iterator over the updates after a revision, of these keys, or of all if there are none: the number of each, which keys it changed,
--- and what they are set to. It ends when none has come for `timeout` seconds.
local function updates(state, keys, since, timeout)
  core.set_cursor(state, since)
  local watched = { timeout = timeout, gapless = true, changes = true }
  return function()
    local changed, values = core.watch(state, "change", keys, nil, watched)
    if changed then return core.cursor(state), changed, values end
  end
end

actions.watch = {
  operands = "[KEY ...]",
  options = { "--since", "--count", "--timeout", "--json-keys" },
  summary = [[
print a line for each update as it comes: {"revision":7,"changes":[...]}, where the changes are lines as in a dump, or
{"key":"apples","deleted":true}. With keys: what changes these]],
  details = "",
  example = [[
$ zproc state ipc:///tmp/place watch --since 0 --count 1
{"revision":1,"changes":[{"key":"apples","value":5},{"key":"name","value":"Ada"}]}
]],
  run = function(state, given)
    local wanted, is_wanted = keys_of(given), nil
    for _, key in ipairs(wanted) do
      is_wanted = is_wanted or {}
      is_wanted[key] = true
    end
    local seen = 0
    for revision, keys, values in updates(state, wanted, given.since or state:revision(), given.timeout) do
      local line = records.changes(revision, keys, values, is_wanted)
      if line and not out.put(line) then return failure.FAILED end
      seen = seen + 1
      if seen == given.count then break end
    end
    if seen == given.count then return 0 end
    return failure.of(("state: no update for %g seconds"):format(given.timeout))
  end,
}

--- The records of the updates after a revision, up to `last`; at most `most` of them.
local function updates_since(state, since, last, most)
  local lines = {}
  for revision, keys, values in updates(state, {}, since, 0) do
    if revision > last then break end
    lines[#lines + 1] = records.changes(revision, keys, values)
    if #lines == most then break end
  end
  if #lines ~= most and core.looked(state) < last then
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
  operands = "",
  most = 0,
  options = { "--since", "--limit" },
  summary = ("print a line for each update of the past, as watch does: the newest %d, the oldest of them first"):format(HISTORY_LIMIT),
  details = "",
  example = [[
$ zproc state ipc:///tmp/place del name
$ zproc state ipc:///tmp/place history --limit 1
{"revision":2,"changes":[{"key":"name","deleted":true}]}
]],
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

actions.backup = {
  operands = "DIRECTORY",
  least = 1,
  wanted = "a directory",
  most = 1,
  options = {},
  summary = [[
copy all states of the server, as they are at one instant, to a directory that is not there yet or is empty; print the revision of the
copy. On the machine of the server]],
  details = [[
Everybody goes on meanwhile. It is a data directory: `zproc server --data-dir DIRECTORY` starts a server on it. It does not matter whether the
server has a data directory itself. One in use must not be copied in another way: such a copy may be of several instants, and is refused.
]],
  example = [[
$ zproc state ipc:///tmp/place backup /tmp/place.copy
1
$ ls /tmp/place.copy
data.mdb
lock
status
]],
  run = function(state, given)
    print(zproc.backup(state, given.words[1]))
    return 0
  end,
}

-- ---- help ----

--- What goes with every action.
local ALWAYS <const> = { "--namespace", "--transport" }

--- An option as it is written: "--at REVISION".
local function written(word)
  local value = OPTIONS[word].value
  return value and word .. " " .. value or word
end

--- "zproc state ADDRESS get [KEY] [--at REVISION]".
local function synopsis(name)
  local words = { "zproc state ADDRESS", name }
  if actions[name].operands ~= "" then words[#words + 1] = actions[name].operands end
  for _, word in ipairs(actions[name].options) do words[#words + 1] = "[" .. written(word) .. "]" end
  return table.concat(words, " ")
end

--- Lines with names in a column before what is said of each.
---@param entries [string, string][]
---@return string
local function columns(entries)
  local width = 0
  for _, entry in ipairs(entries) do width = math.max(width, #entry[1]) end
  local lines = {}
  for i, entry in ipairs(entries) do
    local indent = (" "):rep(width + 4)
    lines[i] = ("  %s%s  %s\n"):format(entry[1], (" "):rep(width - #entry[1]), (entry[2]:gsub("\n", "\n" .. indent)))
  end
  return table.concat(lines)
end

--- What is said of options.
local function options_text(words)
  local entries = {}
  for i, word in ipairs(words) do entries[i] = { written(word), OPTIONS[word].help } end
  entries[#entries + 1] = { "--secret-key-file FILE", "the secret key of the server, as for all commands" }
  entries[#entries + 1] = { "--allow-user NAME", "use the state though it is that user's, as for all commands" }
  return columns(entries)
end

--- The help of one action.
local function help_of(name)
  local action, words = actions[name], table.move(actions[name].options, 1, #actions[name].options, 1, {})
  table.move(ALWAYS, 1, #ALWAYS, #words + 1, words)
  local summary = action.summary:gsub("^%l", string.upper)
  return ("usage: %s\n       [--namespace NAME] [--transport auto|network] [--secret-key-file FILE] [--allow-user NAME]\n\n%s.\n%s\n%s\nExample:\n%s"):format(
    synopsis(name), summary, action.details, options_text(words), (action.example:gsub("[^\n]+", "  %0")))
end

--- The help of all.
local function general_help()
  local usages, summaries, topics = {}, {}, {}
  for i, name in ipairs(NAMES) do
    usages[i], summaries[i], topics[name] = synopsis(name), { name, actions[name].summary }, help_of(name)
  end
  return ([=[
usage: %s

%s
%s
Integers, floats and strings stay what they are, to the bit. What JSON does not have (functions, infinities, strings that are not UTF-8, keys
within a value that are no strings, arrays with holes) is an error of get, and [] becomes {}, as Lua has one empty table. A dump, and the lines of
updates, have what JSON does not in an encoding of zproc's own, so load restores everything. Functions and metatables are part of that: load only
dumps that you trust.

zproc state ADDRESS ACTION --help, or zproc help state ACTION, tells more of one action, with an example.
]=]):format(table.concat(usages, "\n       "), columns(summaries), options_text {
    "--at", "--since", "--count", "--limit", "--timeout", "--json-keys", "--string", "--replace", table.unpack(ALWAYS),
  }), topics
end

-- ---- the command ----

local command = {
  usage = "state ADDRESS ACTION [...]",
  summary = "read, change and watch a state",
  arguments = {
    options = OPTIONS,
    operands = { "address", "action" },
    wanted = "which server?",
    rest = "words",
  },
}

command.help, command.topics = general_help()

--- Whether an option goes with an action.
local function goes_with(word, action)
  for _, list in ipairs { ALWAYS, action.options } do
    for _, known in ipairs(list) do
      if known == word then return true end
    end
  end
  return false
end

--- What is wrong with the command line, as far as that depends on the action.
local function check(given)
  local action, names = actions[given.action], table.concat(NAMES, ", ", 1, #NAMES - 1)
  if not given.action then return ("what is to be done? %s or %s"):format(names, NAMES[#NAMES]) end
  if not action then return ("there is no '%s', but %s and %s"):format(text.brief(given.action), names, NAMES[#NAMES]) end
  for word in pairs(OPTIONS) do
    if given[arguments.name_of(word, OPTIONS[word])] ~= nil and not goes_with(word, action) then
      return ("%s does not go with %s"):format(word, given.action)
    end
  end
  local count = #given.words
  if count < (action.least or 0) then return ("%s takes %s"):format(given.action, action.wanted) end
  if count > (action.most or math.huge) then return ("unknown argument '%s'"):format(text.brief(given.words[action.most + 1])) end
end

--- Do it.
---@param given table
---@return integer status
function command.run(given)
  local wrong = check(given)
  if wrong then return failure.of_usage(wrong) end
  local ok, status = pcall(function() return actions[given.action].run(open.state("state", given), given) end)
  return ok and status or failure.of(status)
end

return command
