--- Watching: the State's watchers, their iterators, and the Context's call_when family.
---
--- Every watcher is one call of core.watch, which waits in this process and gives the snapshot of the revision that matched.

local core = require "zproc.core"
local class = require "zproc.class"
local context = require "zproc.context"
local errors = require "zproc.errors"
local options = require "zproc.options"
local process = require "zproc.process"
local state = require "zproc.state"

local methods = core.state_methods

local COMMON <const> = { live = "boolean", timeout = "seconds", duplicate_okay = "boolean", budget = "budget" }
local ITERATOR <const> = { count = "count", since = "revision" }

--- A copy of the option spec with more options.
local function with(spec, more)
  local all = {}
  for name, kind in pairs(spec) do all[name] = kind end
  for name, kind in pairs(more) do all[name] = kind end
  return all
end

--- Whether the last of some arguments is a table of options rather than a key or a function.
local function takes_options(value)
  return type(value) == "table" and not options.is_callable(value)
end

--- The arguments of the watchers: how each kind reads its own, giving subject, value and the options table.
--- `call` is the name of the function, for messages.
local kinds = {}

local function read_key(call, key)
  if key == nil then errors.usage("%s: a key is needed, and this one is nil; is its name spelt right?", call) end
  return key
end

--- get_when_change(key, ..., [options])
kinds.change = {
  name = "when_change",
  spec = with(COMMON, { exclude = "boolean" }),
  read = function(call, ...)
    local keys = table.pack(...)
    local opts = nil
    if takes_options(keys[keys.n]) then
      opts = keys[keys.n]
      keys[keys.n] = nil
      keys.n = keys.n - 1
    end
    for i = 1, keys.n do read_key(call, keys[i]) end
    keys.n = nil
    return keys, nil, opts
  end,
}

--- get_when(test_fn, [options])
kinds.predicate = {
  name = "when",
  spec = COMMON,
  read = function(call, test, opts, ...)
    class.refuse_surplus(call, 0, ...)
    if type(test) ~= "function" then
      errors.usage("%s: the predicate must be a function of a snapshot, not %s", call, options.describe(test))
    end
    return test, nil, opts
  end,
}

--- get_when_none(key, [options]) and its like
for kind, name in pairs { none = "when_none", not_none = "when_not_none", available = "when_available" } do
  kinds[kind] = {
    name = name,
    spec = COMMON,
    read = function(call, key, opts, ...)
      class.refuse_surplus(call, 0, ...)
      return read_key(call, key), nil, opts
    end,
  }
end

--- get_when_equal(key, value, [options]) and its like
for kind, name in pairs { equal = "when_equal", not_equal = "when_not_equal" } do
  kinds[kind] = {
    name = name,
    spec = COMMON,
    read = function(call, key, value, opts, ...)
      class.refuse_surplus(call, 0, ...)
      if value == nil then
        errors.usage("%s: a value is needed; for an absent key there is %s", call,
          kind == "equal" and "get_when_none" or "get_when_not_none")
      end
      return read_key(call, key), value, opts
    end,
  }
end

--- What a call gives when its time is up.
local function time_is_up(call, timeout)
  return errors.timeout(call, timeout)
end

--- state:get_when_xxx(...): the snapshot of the next match, or nil and a TimeoutError.
local function define_watcher(kind, shape)
  local method = "get_" .. shape.name
  local call = "state:" .. method
  methods[method] = function(self, ...)
    state.check_self(self, call)
    local subject, value, opts = shape.read(call, ...)
    opts = options.check(call, opts, shape.spec)
    local snapshot = core.watch(self, kind, subject, value, opts)
    if snapshot == nil then return time_is_up(call, opts.timeout) end
    return snapshot
  end
end

--- state:when_xxx(...): an iterator over the snapshots of all matches. It ends after `count` of them, or when no match has
--- come for `timeout` seconds. A match has been dealt with when the next one is asked for, or the loop is left without an error; one whose
--- body has raised is there for the next iterator.
local function define_iterator(kind, shape)
  local call = "state:" .. shape.name
  local spec = with(shape.spec, ITERATOR)
  methods[shape.name] = function(self, ...)
    state.check_self(self, call)
    local subject, value, opts = shape.read(call, ...)
    opts = options.check(call, opts, spec)
    if opts.since then core.set_cursor(self, opts.since, call) end
    -- What the body of the loop changes itself is no news to it, or a loop on a condition that stays true would run on its own.
    local watched = { live = opts.live, timeout = opts.timeout, duplicate_okay = opts.duplicate_okay, budget = opts.budget,
      exclude = opts.exclude, own_known = true, gapless = opts.since ~= nil }
    local left, dealt_with = opts.count or math.huge, core.bookmark(self)
    return function()
      dealt_with:move()
      if left <= 0 then return nil end
      left = left - 1
      local snapshot = core.watch(self, kind, subject, value, watched)
      watched.gapless = true -- from the first match on
      return snapshot
    end, nil, nil, dealt_with
  end
end

for kind, shape in pairs(kinds) do
  define_watcher(kind, shape)
  define_iterator(kind, shape)
end

--- state:go_live(): forget what has happened so far; the next watcher considers only what comes from now on.
function methods.go_live(self, ...)
  state.check_self(self, "state:go_live")
  class.refuse_surplus("state:go_live", 0, ...)
  core.go_live(self)
end

--- state:get_raw_update([options]): the next update of another author, as before, after, identical.
---@param opts? { live: boolean?, timeout: number?, duplicate_okay: boolean? }
---@return table? before
---@return table|zproc.Error after
---@return boolean? identical
function methods.get_raw_update(self, opts, ...)
  state.check_self(self, "state:get_raw_update")
  class.refuse_surplus("state:get_raw_update", 0, ...)
  opts = options.check("state:get_raw_update", opts, COMMON)
  local before, after, identical = core.watch(self, "update", nil, nil, opts)
  if before == nil then return time_is_up("state:get_raw_update", opts.timeout) end
  return before, after, identical
end

--- Take the options of a process out of a table that has those of a watcher as well.
local function split_options(call, opts, spec)
  local for_watch, for_process = {}, {}
  for name, value in pairs(options.check(call, opts, with(process.OPTIONS, spec))) do
    if spec[name] then for_watch[name] = value else for_process[name] = value end
  end
  return for_watch, for_process
end

--- Split the arguments of call_when_xxx: those of the watcher, the target if there is one, the options.
local function split_call(call, kind, ...)
  local arguments = table.pack(...)
  local opts, target = nil, nil
  local fixed = kind == "change" and 0 or (kind == "equal" or kind == "not_equal") and 2 or 1
  local last = arguments[arguments.n]
  local is_nil = last == nil and arguments.n > fixed + 1 and options.is_callable(arguments[arguments.n - 1]) -- options that are nil
  if is_nil or arguments.n > fixed and takes_options(last) then
    opts = last
    arguments.n = arguments.n - 1
    last = arguments[arguments.n]
  end
  if arguments.n > fixed and (last == nil or options.is_callable(last)) then
    options.check_target(call, last)
    target = last
    arguments.n = arguments.n - 1
  end
  if kind == "change" then
    for i = 1, arguments.n do
      if type(arguments[i]) == "function" then
        errors.usage("%s: a function cannot be a key; the target comes last, after the keys: %s(key, ..., target)", call, call)
      end
    end
  end
  return arguments, target, opts
end

--- ctx:call_when_xxx(..., target, [options]): a Process that runs target(snapshot, state, ...) at every match; without a target,
--- a function that takes it.
local function define_call(kind, shape)
  local call = "ctx:call_" .. shape.name
  context.Context["call_" .. shape.name] = function(self, ...)
    context.check_open(self, call)
    local arguments, target, opts = split_call(call, kind, ...)
    local for_watch, for_process = split_options(call, opts, shape.spec)
    local subject, value, surplus = shape.read(call, table.unpack(arguments, 1, arguments.n))
    if surplus ~= nil then options.check_target(call, surplus) end
    if for_process.stateful ~= nil or for_process.pass_context ~= nil then
      errors.usage("%s: the target is called with a snapshot and a State; 'stateful' and 'pass_context' do not apply", call)
    end
    for_watch.own_known, for_watch.gapless = true, true

    local function start(fn)
      options.check_target(call, fn)
      for_process.name = for_process.name or process.name_of(fn)
      return self:process(function(own, ...)
        local dealt_with <close> = core.bookmark(own)
        while true do
          dealt_with:move()
          local snapshot = core.watch(own, kind, subject, value, for_watch)
          if snapshot == nil then error(select(2, time_is_up(call, for_watch.timeout))) end
          fn(snapshot, own, ...)
        end
      end, for_process)
    end

    if target == nil then return start end
    return start(target)
  end
end

for kind, shape in pairs(kinds) do define_call(kind, shape) end

return kinds
