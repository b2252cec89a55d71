--- A worker: a process that claims chunks of tasks, runs their targets, and leaves the results.

local core = require "zproc.core"
local errors = require "zproc.errors"
local fresh = require "zproc.fresh"
local link = require "zproc.link"
local options = require "zproc.options"
local process = require "zproc.process"
local runtime = require "zproc.runtime"
local traceback = require "zproc.traceback"

local LOOK_FIRST <const>, LOOK_LAST <const> = 0.1, 2 -- seconds between looks whether other workers have died
local NOTE_SECONDS <const> = 5e-5 -- between notes of how far it is, about
local NOTE_ITEMS <const> = 1024 -- at most, between two notes
local FULL_PAUSE <const>, FULL_TRIES <const> = 0.05, 200 -- of leaving results where there is no room
local FULL_PATIENCE <const> = 100 -- of these before results are given up
local KNOWN_MAX <const>, KNOWN_BYTES <const> = 4, 16 << 20 -- tasks to remember, and their specifications, but always the last one
local IDLE_BYTES <const> = 1 << 20 -- that are worth remembering while there is nothing to do

local worker = {
  EVERYWHERE = -1, -- the pool of those who work on every task of a server
}

local own_pid -- of this process, if it is a worker

--- Whether this process is a worker: what it maps within a map is of no use to others.
function worker.is_self() return own_pid == core.getpid() end

--- The arguments that all calls have, as an array with `n`: `args`, then the keys and values of `kwargs`.
local function common_values(args, count, kwargs)
  local values = { n = count }
  for i = 1, count do values[i] = args[i] end
  for name, value in pairs(kwargs) do
    values[values.n + 1], values[values.n + 2] = name, value
    values.n = values.n + 2
  end
  return values
end

local function as_it_is(value) return value end

--- What a task's target is called with: a function of one item, or of the three parts of one.
local function make_call(spec, own)
  local target, args, kwargs = spec.target, spec.args or {}, spec.kwargs
  local count = args.n or #args
  if spec.is_plain then return target end
  local begin_copy = fresh.copier(target, common_values(args, count, kwargs or {}))
  return function(item)
    local arguments, n = {}, 0
    local copy = begin_copy and begin_copy() or as_it_is
    local function add(value)
      n = n + 1
      arguments[n] = value
    end
    if own then
      core.renew(own) -- what another item was given is news to this one
      add(own)
    end
    local parts = spec.has_parts and item or { item }
    if spec.has_item then add(parts[1]) end
    local mapped = parts[2]
    if mapped then
      for i = 1, mapped.n or #mapped do add(mapped[i]) end
    end
    for i = 1, count do add(copy(args[i])) end
    if kwargs or parts[3] then
      local merged = {}
      for name, value in pairs(kwargs or {}) do merged[copy(name)] = copy(value) end
      for name, value in pairs(parts[3] or {}) do merged[name] = value end
      add(merged)
    end
    return (target(table.unpack(arguments, 1, n)))
  end
end

--- Forget the task that was worked on longest ago.
local function forget_one(self)
  local known = table.remove(self.order, 1)
  self.known[known.task] = nil
  self.known_bytes = self.known_bytes - known.size
  if known.size > IDLE_BYTES then self.is_littered = true end
end

--- What it takes to work on a task. The tasks that were worked on last are remembered.
local function learn(self, task)
  local known, order = self.known[task], self.order
  if known and order[#order] == known then return known end
  if known then
    for i, one in ipairs(order) do
      if one == known then
        order[#order + 1] = table.remove(order, i)
        return known
      end
    end
  end
  local bytes = self.queue:specification(task)
  if not bytes then return nil end
  while #order > 0 and (#order >= KNOWN_MAX or self.known_bytes + #bytes > KNOWN_BYTES) do forget_one(self) end
  if self.is_littered then
    collectgarbage() -- or the old ones would be there beside the new one, for who knows how long
    self.is_littered = false
  end
  local spec = core.decode(bytes)
  local own = spec.stateful and self.link:state(spec.namespace) or nil
  known = { task = task, size = #bytes, spec = spec, call = make_call(spec, own) }
  order[#order + 1] = known
  self.known[task] = known
  self.known_bytes = self.known_bytes + #bytes
  return known
end

--- There is nothing to do: let go of what may never be needed again. Collecting touches all that the process has inherited, which its memory
--- then has a copy of; so it has to be worth that.
local function tidy_up(self)
  for _, known in ipairs(self.order) do known.block = nil end
  while self.known_bytes > IDLE_BYTES do forget_one(self) end
  if not self.is_littered then return end
  collectgarbage()
  core.trim_memory()
  self.is_littered = false
end

--- The decoded block that has the item, as { base, items, errors }: item number k is items[k - base], or errors[k - base] says why it cannot
--- be read. errors is nil if all can.
local function block_of(self, task, known, item)
  local block = known.block
  if block and item > block.base and item <= block.base + block.count then return block end
  local items, first, count, errs = self.queue:block(task, item)
  if not items then return nil end
  known.block = { base = first - 1, count = count, items = items, errors = errs }
  return known.block
end

--- What a target has raised, and where, without the places and the names that this module has for it. A function in C that is the target
--- itself takes these for its own.
local function as_called_by_others(thread, raised)
  local words = traceback.without_place(raised)
  local place, name = debug.traceback(thread):match "^stack traceback:\n(\t%[C%]: in function '([^'\n]+)')\n\tzproc%."
  if words == raised or not name then return words, traceback.of(thread, raised) end
  words = words:gsub("^(bad argument #%d+ to )'[%w_]+'", function(begin) return ("%s'%s'"):format(begin, name) end)
  return words, "stack traceback:\n" .. place
end

--- The error object for how the thread of a target has ended, with where.
local function describe(thread, raised)
  local where
  raised, where = as_called_by_others(thread, raised)
  if coroutine.status(thread) == "suspended" then
    raised = "the target yielded, but it is not run by a scheduler"
  elseif errors.is(raised, "ProcessExit") then
    raised = errors.new("RemoteError", ("the target has called for the end of its process (status %s)"):format(raised.status),
      { where = false })
  end
  local closed, failure = coroutine.close(thread)
  if not closed and not rawequal(failure, raised) and errors.is(failure, "SignalError") then return failure end
  return runtime.describe(raised, where)
end

--- A worker that is to end has no result for what it has claimed: that goes to others.
local function check_stop(err)
  if errors.is(err, "SignalError") and core.is_to_stop() then error(err, 0) end
end

--- An error object as it is left for the consumer: its words, and its bytes, which the consumer may not be able to read.
local function seal(err)
  local words = options.words_of(err)
  return { words, core.encode(runtime.sendable(err)) }
end

--- Of a result that cannot travel.
local function refuse_result(known, err)
  err.where = process.name_of(known.spec.target) .. ":"
  return options.advise(err, "return what is in it, or its path")
end

--- Of an item that cannot be read.
local function refuse_item(item, err)
  err.message = ("item %d cannot be read by a worker: %s"):format(item, err.message)
  err.where = false
  return err
end

--- Run the target over a chunk. Its results go into the Run, each when it is there: what it was then is what arrives, whatever later calls do
--- with it. Returns the errors by their places in the chunk, or nil.
local function run(self, task, known, from, to, is_suspect)
  local queue, call, given, seed = self.queue, known.call, known.spec.range, known.spec.seed
  local seed_random, notepad, add = core.seed_random, self.notepad, self.add
  local failures
  local place = from -- the item that is being worked on
  local span = 1

  --- There is no result of this item.
  local function fail(item, err)
    failures = failures or {}
    failures[item - from + 1] = err
    add(nil)
  end

  local function work()
    while place < to and not notepad:is_called_off() do
      local stop = math.min(place + span, to)
      local block = not given and block_of(self, task, known, place)
      if block then stop = math.min(stop, block.base + block.count + 1) end
      if block and block.errors then stop = place + 1 end
      queue:note(place, stop - place)
      local begun = core.clock()
      if given then
        local first, step = given.first, given.step
        for k = place, stop - 1 do
          place = k
          if seed then seed_random(seed, k + 1) end
          local err = add((call(first + k * step)))
          if err then fail(k, refuse_result(known, err)) end
        end
      elseif block and block.errors and block.errors[place - block.base] then
        fail(place, refuse_item(place + 1, block.errors[place - block.base]))
      elseif block then
        local items, base = block.items, block.base
        for k = place, stop - 1 do
          place = k
          if seed then seed_random(seed, k + 1) end
          local err = add((call(items[k - base])))
          if err then fail(k, refuse_result(known, err)) end
        end
      else
        return -- the task is gone
      end
      place = stop
      if is_suspect then span = 1
      elseif core.clock() - begun < NOTE_SECONDS then span = math.min(span * 2, NOTE_ITEMS)
      elseif span > 1 then span = span // 2 end
    end
  end

  notepad:begin(task)
  while place < to and not notepad:is_called_off() do
    local thread = coroutine.create(work) -- what it leaves is closed, and a yield is not ours
    local ok, raised = coroutine.resume(thread)
    if ok and coroutine.status(thread) == "dead" then break end
    local err = describe(thread, raised)
    check_stop(err)
    fail(place, err)
    place = place + 1
  end
  notepad:finish()
  if seed then seed_random() end -- the next task may want other numbers
  return failures
end

--- Whether it makes sense to wait for room: somebody may take the results before these. If it is these that he waits for, there
--- will be none.
local function may_get_room(self, task, from)
  local info = self.queue:describe(task)
  return info ~= nil and info.taken < from
end

--- In place of the largest results, small words on what is the matter.
local function replace_largest(self, count, failures, err)
  local values = core.unpack(self.run:finish(), count)
  local sizes, largest = {}, 0
  for i = 1, count do
    sizes[i] = failures[i] and 0 or #core.encode(values[i])
    largest = math.max(largest, sizes[i])
  end
  self.run:clear()
  for i = 1, count do
    if not failures[i] and sizes[i] > largest // 2 then
      values[i] = nil
      failures[i] = seal(errors.new("StateFull", "no room for the result: " .. err.message, { where = false }))
    end
    self.add(values[i])
  end
end

--- Leave the result of what was claimed, and claim more. A store that is full has room again when somebody takes his results; if
--- that takes too long, something has to be left all the same.
local function hand_over(self, task, from, count, failures, seconds)
  for place, err in pairs(failures or {}) do failures[place] = seal(err) end
  for try = 1, FULL_TRIES do
    local claim = table.pack(pcall(self.queue.finish, self.queue, self.run, failures, seconds))
    if claim[1] then return table.unpack(claim, 2, claim.n) end
    local err = claim[2]
    local is_full, is_too_much = errors.is(err, "StateFull"), errors.is(err, "EncodeError")
    if not is_full and not is_too_much then error(err, 0) end
    if is_too_much or try > FULL_PATIENCE or not may_get_room(self, task, from) then
      failures = failures or {}
      replace_largest(self, count, failures, err)
    end
    if is_full then core.sleep(FULL_PAUSE) end
  end
  error(errors.new("StateFull", "a worker finds no room for its results", { where = false }))
end

--- The task is dropped: those of the workers that work for it are to do so no more.
---@param workers zproc.Process[]
---@param task integer
function worker.call_off(workers, task)
  for _, one in ipairs(workers) do
    if one.notepad:call_off(task) then one:_urge() end
  end
end

--- Find workers that go on with a task that somebody else has dropped, and call them off. They have been at the same chunk for as long as
--- that is called again and again.
---@param queue userdata
---@param workers zproc.Process[]
---@param own integer? a task that is not dropped
function worker.call_off_dropped(queue, workers, own)
  local is_dropped = {}
  for _, one in ipairs(workers) do
    local task, begun = one.notepad:task()
    if task and task ~= own and begun == one._begun then
      if is_dropped[task] == nil then is_dropped[task] = queue:describe(task) == nil end
      if is_dropped[task] and one.notepad:call_off(task) then one:_urge() end
    end
    one._begun = begun
  end
end

--- Serve a pool until this process is ended, or, with `task`, until that task is complete.
---@param packed table the Link to the server
---@param pool integer worker.EVERYWHERE: that of all tasks
---@param only integer? the task
---@param notepad userdata? where its parent sees what it works on; a thread has it by itself
function worker.main(packed, pool, only, notepad)
  runtime.unwind_on_exit()
  own_pid = core.getpid()
  notepad = notepad or core.own_notepad()
  local _ <close> = setmetatable({}, { __close = function() notepad:finish() end })
  local way = link.unpack(packed)
  local queue = way:queue(notepad)
  queue:enlist(pool)
  local results = core.run()
  local self = { queue = queue, link = way, notepad = notepad, run = results, add = results:adder(), known = {}, order = {}, known_bytes = 0 }
  local look, is_tidy = LOOK_FIRST, false
  queue:arm_work()
  local task, from, to, is_suspect = queue:claim()
  while true do
    if task then
      look, is_tidy = LOOK_FIRST, false
      local begun = core.clock()
      local mark = runtime.mark()
      local count = to - from
      local failures
      local ok, known = pcall(learn, self, task)
      if not ok then
        check_stop(known)
        known = runtime.describe(known)
        failures = {}
        for i = 1, count do
          failures[i] = known
          self.add(nil)
        end
      elseif known then
        failures = run(self, task, known, from, to, is_suspect)
      end -- else it was dropped
      runtime.close_from(mark) -- what the target has opened and left
      local seconds = core.clock() - begun
      queue:arm_work()
      task, from, to, is_suspect = hand_over(self, task, from, count, failures, seconds)
      self.run:clear()
    else
      local info = only and queue:describe(only)
      if only and (not info or info.finished == info.total) or notepad:is_retired() then break end
      if not queue:wait(look) then
        queue:recover()
        if look == LOOK_LAST and not is_tidy then
          tidy_up(self)
          is_tidy = true
        end
        look = math.min(look * 2, LOOK_LAST)
      end
      queue:arm_work()
      task, from, to, is_suspect = queue:claim()
    end
  end
  queue:close()
end

return worker
