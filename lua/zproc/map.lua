--- process_map: a function over the items of a sequence, by worker processes, lazily and in order.
---
--- The items go into the server's queue of tasks, workers claim them in chunks (zproc.worker), and a MapResult takes the results
--- one after the other. Arrays and ranges are there as a whole from the beginning, so the work goes on whatever this process does
--- meanwhile; iterators are read ahead while results are asked for, and only so far.

local core = require "zproc.core"
local address = require "zproc.address"
local class = require "zproc.class"
local context = require "zproc.context"
local errors = require "zproc.errors"
local modules = require "zproc.modules"
local options = require "zproc.options"
local process = require "zproc.process"
local progress = require "zproc.progress"
local range = require "zproc.range"
local runtime = require "zproc.runtime"
local traceback = require "zproc.traceback"
local worker = require "zproc.worker"

local Context = context.Context
local getpid <const> = core.getpid

local BLOCK_ITEMS <const>, BLOCK_BYTES <const> = 4096, 64 << 10 -- of items that travel together, at most about
local BLOCK_GROWTH <const> = 4 -- the first block is one item, so that the workers have something to do
local AHEAD_ITEMS <const>, AHEAD_BYTES <const> = 1 << 20, 4 << 20 -- that an iterator is read ahead of the workers
local AHEAD_SECONDS <const> = 0.005 -- at a time
local LOOK <const> = 0.1 -- seconds between looks whether workers have died
local MAX_ATTEMPTS <const> = 3
local MOST <const> = 1 << 30 -- of attempts, and of items in a chunk
local FULL_PAUSE <const>, FULL_TRIES <const> = 0.02, 50 -- of putting items where there is no room
local FAILURES_MAX <const> = 5 -- of workers, in a row

local OPTIONS <const> = {
  map_iter = "sequence",
  map_args = "sequence",
  map_kwargs = "sequence",
  args = "arguments",
  kwargs = "table",
  count = "workers",
  stateful = "boolean",
  new = "boolean",
  return_task = "boolean",
  chunk_size = "count",
  max_attempts = "count",
  on_error = "on_error",
  progress = "progress",
  seed = "seed",
  namespace = "string",
}

-- ---- sequences ----

--- What items come out of, one after the other.
---@class zproc.Source
---@field n integer? how many there are, if that is known without looking and all of them can be put into the queue at once
---@field array table? that they are the elements of
---@field next fun(): any the next one, or nil

local NAMES <const> = { "the sequence", "map_args", "map_kwargs" }

--- What ends this process, or interrupts it, is no matter of the sequence.
local function is_passing(err) return errors.is(err, "SignalError") or errors.is(err, "ProcessExit") end

local function raise_nil(i, place) errors.usage("ctx:process_map: item %d of %s is nil", i, NAMES[place]) end

--- The elements 1 to n of anything that can be indexed. It may be long, and cost no memory until it is looked at.
local function source_of_indexed(sequence, n, place)
  local i = 0
  return {
    n = n <= AHEAD_ITEMS and n or nil,
    next = function()
      if i == n then return nil end
      i = i + 1
      local item = sequence[i]
      if item == nil then raise_nil(i, place) end
      return item
    end,
  }
end

local function source_of_array(array, n, place)
  local source = source_of_indexed(array, n, place)
  source.n, source.array = n, array
  return source
end

---@param sequence table|function
---@param place integer of NAMES
---@return zproc.Source
local function source_of(sequence, place)
  if options.is_callable(sequence) then return { next = function() return (sequence()) end } end
  if range.is(sequence) then return source_of_indexed(sequence, #sequence, place) end
  local n, meta = rawget(sequence, "n"), getmetatable(sequence)
  if type(meta) == "table" and rawget(meta, "__len") or math.type(n) ~= "integer" or n < 0 then n = #sequence end
  return meta and source_of_indexed(sequence, n, place) or source_of_array(sequence, n, place)
end

--- Several sequences side by side, cut off at the shortest: an item is { item, args, kwargs }.
local function join(sources)
  local n, parts, is_known = math.huge, {}, true
  for place, source in pairs(sources) do
    parts[#parts + 1] = { place = place, next = source.next, is_array = source.array ~= nil }
    if source.n then n = math.min(n, source.n) else is_known = false end
  end
  table.sort(parts, function(a, b) return a.place < b.place end)
  local taken = 0
  return {
    n = is_known and n or nil, -- else it may be shorter
    next = function()
      if taken == n then return nil end -- without asking the others
      local item = {}
      for _, part in ipairs(parts) do
        local place, value = part.place, part.next()
        if value == nil then return nil end
        if place > 1 and type(value) ~= "table" then
          errors.usage("ctx:process_map: item %d of %s must be a table, not %s", taken + 1, NAMES[place], options.describe(value))
        end
        if place == 2 and not options.count_arguments(value) then
          errors.usage("ctx:process_map: item %d of %s has too many arguments, or an 'n' that is no number of arguments", taken + 1,
            NAMES[place])
        end
        -- The next sequence may change it when it is asked.
        if type(value) == "table" and not part.is_array then value = core.decode(core.encode(value, ("item %d"):format(taken + 1))) end
        item[place] = value
      end
      taken = taken + 1
      return item
    end,
  }
end

-- ---- putting items into the queue ----

--- The next items of an array as a block.
local function read_array(self, count)
  local source = self._source
  local first = self._put + 1
  local bytes, n, err = core.pack(source.array, first, math.min(count, source.n - self._put), BLOCK_BYTES)
  if err == false then _, err = pcall(raise_nil, first + n, 1) end
  return { bytes = bytes, count = n, is_end = err ~= nil or self._put + n == source.n, failed = err and { err } }
end

--- The next items of a source as a block, each as it is when it is given. What was read before an interrupt comes the next time.
local function read_items(self, count, deadline)
  local run, next_item, clock = self._run, self._source.next, core.clock
  local add, put, n, is_end = self._add, self._put, run:count(), false
  local function fill()
    local size = run:size()
    while n < count and size < BLOCK_BYTES do
      local item, err = next_item(), nil
      if item == nil then
        is_end = true
        return
      end
      err, size = add(item, put + n + 1)
      if err then error(err, 0) end
      n = n + 1
      if deadline and clock() > deadline then return end
    end
  end
  local ok, raised = pcall(fill)
  if not ok and is_passing(raised) then error(raised, 0) end
  local block = { bytes = run:finish(), count = n, is_end = is_end or not ok }
  if not ok then block.failed = { traceback.without_place(raised) } end
  run:clear()
  return block
end

--- Put one block of the source's next items into the queue, within the time if one is given. If the source raises, or gives what
--- cannot travel, the sequence ends there, and the error comes at its end. If there is no room nothing is lost, either: the block
--- waits.
local function put_block(self, seconds)
  local block = self._block
  if not block then
    block = self._source.array and read_array(self, self._block_items)
      or read_items(self, self._block_items, seconds and core.clock() + seconds)
    self._block = block
  end
  self._queue:put(self._task, block.bytes, block.count, block.is_end, self._put)
  self._block = nil
  if block.is_end then self._source, self._source_failure = nil, block.failed end
  self._put = self._put + block.count
  self._block_items = math.min(BLOCK_ITEMS, math.max(1, block.count) * BLOCK_GROWTH)
end

--- Read an iterator ahead, for a moment, unless the workers have enough.
---@return boolean whether it was any use
local function read_ahead(self)
  if not self._source then return false end
  local info = self._queue:describe(self._task)
  if not info then return false end
  local ahead = math.max(info.put - info.next, self._put - self._position)
  if ahead > AHEAD_ITEMS or info.block_bytes > AHEAD_BYTES then return false end
  local ok, err = pcall(put_block, self, AHEAD_SECONDS)
  if ok then
    self._full_tries = 0
    return true
  end
  if not errors.is(err, "StateFull") then error(err, 0) end
  if self._put > self._position then return false end -- there will be room, when these are taken
  -- What was freed last may still be held by somebody who reads.
  self._full_tries = self._full_tries + 1
  if self._full_tries > FULL_TRIES then error(err, 0) end
  core.sleep(FULL_PAUSE)
  return true
end

-- ---- workers ----

--- A worker whose server is elsewhere has died: the server cannot see that, nor of what.
local function mourn(self, one)
  if not self._link.connection or one._is_thread or one.exitcode >= 0 and not one.notepad:task() then return end
  local client, item, span = one.notepad:read()
  if client then self._link.connection:bury(client, item, span) end
end

--- Forget the workers that have ended. One that was killed is replaced without a word; but when several in a row could not do
--- their work, no more of them will, and what the last one has said is raised.
local function sweep(self)
  for i = #self._worker_list, 1, -1 do
    local one = self._worker_list[i]
    if not one.is_alive then
      table.remove(self._worker_list, i)
      mourn(self, one)
      if one.exitcode > 0 then
        self._worker_failures = (self._worker_failures or 0) + 1
        if self._worker_failures > FAILURES_MAX then
          self._worker_failures = 0
          one:wait()
        end
      end
    end
  end
end

--- Start workers until so many of the pool are alive.
local function ensure_workers(self, count, pool, only)
  sweep(self)
  local alive = 0
  for _, one in ipairs(self._worker_list) do alive = alive + (one.pool == pool and 1 or 0) end
  local given = self._options.process or {}
  for _ = alive + 1, count do
    local notepad, is_thread = core.notepad(), given.backend == "thread"
    local one = process.new("ctx:process_map", worker.main, self.server_address, {
      name = "worker",
      stateful = false,
      backend = given.backend,
      args = { n = 4, self._link:pack(), pool, only, not is_thread and notepad or nil },
    }, self, notepad)
    one._pool = pool
    self._worker_list[#self._worker_list + 1] = one
  end
end

--- Drop the tasks that finalisers could not.
local function drop_garbage(self)
  local garbage = self._garbage
  while #garbage > 0 and self._queue:drop(garbage[#garbage]) do worker.call_off(self._worker_list, table.remove(garbage)) end
end

--- The queue of a Context's server, opened once.
local function queue_of(self)
  if not self._queue then
    self._queue = self._link:queue()
    self._pool = core.new_pool()
    self._results = setmetatable({}, { __mode = "k" }) -- those that are to be dropped with the Context
    self._garbage = {} -- tasks that a finaliser was kept from dropping
    runtime.on_open()
  end
  drop_garbage(self)
  return self._queue
end

--- The queue, and the pool of the workers for a map that is made now. Workers that were forked before the modules became what they are now
--- finish what they were forked for; others take their places.
local function pool_of(self)
  local queue = queue_of(self)
  if self._modules and modules.have_changed(self._modules) then
    for _, one in ipairs(self.worker_list) do
      if one.pool == self._pool then
        one.notepad:retire()
        one:_urge()
      end
    end
    self._pool, self._modules = core.new_pool(), nil
  end
  self._modules = self._modules or modules.take()
  return queue, self._pool
end

-- ---- results ----

---@class zproc.MapResult
local MapResult = { __name = "MapResult" }
class.seal(MapResult, {}, nil, function(name)
  if math.type(name) ~= "integer" then return "" end
  return ": r:collect() gives an array of the results"
end)

--- Results come one after the other, so there is no array yet.
local function no_array()
  errors.usage "a MapResult is no array: r:collect() gives one; or go through it: for i, result in r do ... end"
end

MapResult.__len, MapResult.__pairs = no_array, no_array

local function result_of(fields)
  fields._block_items = 1
  fields._run = core.run()
  fields._add = fields._run:adder()
  fields._put = 0
  fields._full_tries = 0
  fields._place, fields._count = 0, 0 -- in the chunk at hand
  fields._failures, fields._closed = false, false -- what is looked at for every result is there
  fields._pid = core.getpid()
  fields._context._results[fields] = true
  return setmetatable(fields, MapResult)
end

local function check_usable(self, call)
  class.check_self(self, MapResult, call)
  if self._pid ~= core.getpid() then errors.usage("%s: this MapResult belongs to process %d", call, self._pid) end
  if self._context._closed then errors.usage("%s: the Context of this MapResult is closed", call) end
  if self._closed then errors.usage("%s: this MapResult is closed", call) end
end

local function tell_progress(self, info)
  if not self._progress then return end
  info = info or self._queue:describe(self._task)
  if info then self._progress(info.finished, info.total, info.finished == info.total) end
end

--- Workers that were started for this task alone can go.
local function dismiss(self)
  if self._only then self._queue:disband(self._pool) end
end

--- Nothing more comes: false, or, once, the error that has cut the sequence off.
local function say_end(self)
  local failed = self._source_failure
  self._source_failure = nil
  if failed then error(failed[1], 0) end
  return false
end

--- The sequence is at its end.
local function finish(self)
  self._is_done = true
  dismiss(self)
  if self._progress then self._progress(self._position, self._position, true) end
  return say_end(self)
end

--- Get the next chunk of results, waiting for it, into the array behind the offset: false at the end; nil if there is none at the deadline.
local function fetch(self, into, offset, deadline)
  local queue, task = self._queue, self._task
  if self._is_done then return say_end(self) end
  if self._unacknowledged then
    self._results, self._failures = nil, false
    self._unacknowledged = false
    if queue:acknowledge(task, self._position) then return finish(self) end
  end
  while true do
    queue:arm_result(task, self._position)
    local to, failures, attempts, errs = queue:take(task, self._position, into, offset)
    if to then
      if failures == false then
        failures = { errors.new("RemoteError", ("item %d: each of %d workers died while it ran the target"):format(self._position + 1,
          attempts), { where = false }) }
      end
      for place, err in pairs(errs or {}) do
        err.message = ("the result of item %d cannot be read here: %s"):format(self._position + place, err.message)
        failures = failures or {}
        failures[place] = err
      end
      self._results, self._failures, self._offset = into, failures or false, offset
      self._place, self._count = 0, to - self._position
      self._position = to
      self._unacknowledged = true
      self._context._worker_failures = 0
      if self._source then read_ahead(self) end
      tell_progress(self)
      return true
    end
    local info = queue:describe(task)
    if not info then
      error(errors.new("TaskLost", ("task %d is not there any more: it was dropped, or taken by somebody else"):format(task)))
    end
    if info.taken > self._position then
      error(errors.new("TaskLost", ("somebody else takes the results of task %d: one at a time can"):format(task)))
    end
    if info.total == self._position then
      queue:acknowledge(task, self._position)
      return finish(self)
    end
    if not info.is_produced and info.put == self._position and not self._source then
      error(errors.new("TaskLost", ("the process that was to give the items of task %d after %d of them is dead"):format(task,
        info.put)))
    end
    tell_progress(self, info)
    local left = deadline and math.max(0, deadline - core.clock()) or LOOK
    if not read_ahead(self) then
      -- Of a pool that is no more the current one, workers that are started now are for this task alone.
      local only = self._only or self._pool ~= self._context._pool and task or nil
      ensure_workers(self._context, self._workers, self._pool, only)
      if not queue:wait(math.min(LOOK, left)) then
        queue:recover()
        drop_garbage(self._context)
        worker.call_off_dropped(queue, self._context._worker_list, task)
      end
    end
    if left <= 0 then return nil end
  end
end

--- The next result and its number; waits for it. nil, nil at the end. Raises what the target raised, unless on_error = "return". With a timeout
--- (seconds): nil and a TimeoutError when the time is up; the result comes the next time.
---@param timeout number?
---@return any result
---@return integer|zproc.Error|nil i
function MapResult:next(timeout)
  check_usable(self, "result:next")
  options.check_timeout("result:next", timeout)
  if self._place == self._count then
    local is_there = fetch(self, {}, 0, timeout and core.clock() + timeout)
    if is_there == nil then return errors.timeout("waiting for result " .. self._position + 1, timeout) end
    if not is_there then return nil, nil end
  end
  local place = self._place + 1
  self._place = place
  local failures = self._failures
  local i = self._position - self._count + place
  local failure = failures and failures[place]
  if failure then
    if not errors.is(failure) then failure = runtime.read_error(failure[2], failure[1]) end
    if self._on_error == "return" then return failure, i end
    error(failure, 0)
  end
  return self._results[self._offset + place], i
end

--- for i, result in r do
function MapResult:__call()
  local place = self._place + 1
  if place <= self._count and not self._failures and self._pid == getpid() and not self._context._closed then -- most of the time
    self._place = place
    return self._position - self._count + place, self._results[self._offset + place]
  end
  local result, i = self:next()
  return i, result
end

--- All results that are left, as an array; `.n` is how many.
---@return any[]
function MapResult:collect()
  check_usable(self, "result:collect")
  local all, n = {}, 0
  while self._place < self._count do -- of a chunk that was begun
    n = n + 1
    all[n] = (self:next())
  end
  while fetch(self, all, n) do
    if self._failures then
      for k = 1, self._count do all[n + k] = (self:next()) end
    end
    n = n + self._count
    self._place = self._count
  end
  all.n = n
  return all
end

--- Drop the task, if that is still to be done: false if a signal has prevented it.
local function drop(self)
  self._closed = true
  self._position, self._place, self._count = self._position - self._count + self._place, 0, 0
  self._results, self._failures, self._source, self._block, self._run, self._add = nil, false, nil, nil, nil, nil
  if self._progress then self._progress() end
  if self._context._closed or self._is_done then return true end
  if not self._queue:drop(self._task) then return false end
  worker.call_off(self._context._worker_list, self._task)
  dismiss(self)
  return true
end

--- Give up what was not taken yet: nothing of it is begun any more, and what was begun is ended.
function MapResult:close()
  if getmetatable(self) ~= MapResult then check_usable(self, "result:close") end
  if self._closed or self._pid ~= core.getpid() then return end
  if not drop(self) then
    table.insert(self._context._garbage, self._task)
    core.sleep(0) -- raises the signal
  end
end

MapResult.__close = MapResult.close

--- Nobody can ask for the results any more. Those of a task that was made to be passed on stay for whoever asks next. A Context
--- that is closed has taken the queue with it.
function MapResult:_abandon()
  if self._closed or self._is_pulled or self._pid ~= core.getpid() then return end
  if self._context._link.connection and not self._context._closed then -- a finaliser does not wait for the network
    if not self._is_done then table.insert(self._context._garbage, self._task) end
    return
  end
  local ok, is_dropped = pcall(drop, self)
  if ok and not is_dropped then table.insert(self._context._garbage, self._task) end
end

MapResult.__gc = MapResult._abandon

function MapResult:__tostring()
  return ("MapResult (task %d, %d taken%s)"):format(self._task, self._position - self._count + self._place,
    self._closed and ", closed" or "")
end

MapResult.__unsendable = "a MapResult, which belongs to the process that asked for it: use return_task = true and send the task"

-- ---- tasks ----

local function specification(self, target, opts, sequence)
  local has_parts = opts.map_args ~= nil or opts.map_kwargs ~= nil
  return {
    target = target,
    args = opts.args,
    kwargs = opts.kwargs,
    stateful = opts.stateful or nil,
    namespace = opts.namespace or (self._options.process or {}).namespace or self.namespace,
    seed = math.tointeger(opts.seed),
    has_item = sequence ~= nil,
    has_parts = has_parts,
    is_plain = not has_parts and not opts.args and not opts.kwargs and not opts.stateful,
    range = range.is(sequence) and not has_parts and { first = sequence.first, step = sequence.step } or nil,
  }
end

local function find_sources(sequence, opts)
  local sources = {}
  if sequence ~= nil then sources[1] = source_of(sequence, 1) end
  if opts.map_args then sources[2] = source_of(opts.map_args, 2) end
  if opts.map_kwargs then sources[3] = source_of(opts.map_kwargs, 3) end
  if next(sources) == nil then errors.usage "ctx:process_map: a sequence is needed, or map_args, or map_kwargs" end
  return (sources[2] or sources[3]) and join(sources) or sources[1]
end

--- The arguments of ctx:process_map(target, [sequence,] [options]).
local function read_arguments(target, sequence, opts)
  options.check_target("ctx:process_map", target)
  if opts == nil and type(sequence) == "table" and not options.is_sequence(sequence) then
    local has_options = false
    for name in pairs(sequence) do has_options = has_options or OPTIONS[name] ~= nil end
    if not has_options then
      local name = next(sequence)
      errors.usage("ctx:process_map: a sequence is an array, a zproc.range or an iterator function; this table has no items, and %s is no option%s",
        options.describe(name), options.hint(name, OPTIONS))
    end
    sequence, opts = nil, sequence
  end
  if type(opts) == "table" and (sequence == next or rawget(opts, 1) ~= nil) and options.is_callable(sequence) then
    errors.usage("ctx:process_map: a sequence is an array, a zproc.range, or an iterator function alone, not all that ipairs or pairs "
      .. "gives; others can be made one: coroutine.wrap(function() for key, value in pairs(t) do coroutine.yield(value) end end)")
  end
  opts = options.check("ctx:process_map", opts, OPTIONS)
  if sequence == nil then sequence = opts.map_iter end
  if sequence ~= nil and not options.is_sequence(sequence) then
    errors.usage("ctx:process_map: a sequence is an array, a zproc.range or an iterator function, not %s", options.describe(sequence))
  end
  return sequence, opts
end

--- ctx:process_map(target, [sequence,] [options]): target([state,] item, map_args[i]..., args..., kwargs) for every item.
---@param target function
---@param sequence? any[]|zproc.Range|fun(): any
---@param opts? table
---@return zproc.MapResult|table task with return_task
function Context:process_map(target, sequence, opts, ...)
  context.check_open(self, "ctx:process_map")
  core.check_fork()
  sequence, opts = read_arguments(target, sequence, opts)
  class.refuse_surplus("ctx:process_map", 0, ...)
  local source = find_sources(sequence, opts)
  if opts.namespace then self._link:state(opts.namespace):close() end -- a name that is none
  local spec = specification(self, target, opts, sequence)
  local bytes = runtime.encode_job("ctx:process_map", spec)
  local queue, pool = pool_of(self)
  local count = opts.count or core.cpu_count()
  if opts.new then pool = core.new_pool() end
  local total = spec.range and #sequence or nil
  local task = queue:add(pool, total, count, math.min(opts.max_attempts or MAX_ATTEMPTS, MOST),
    math.min(opts.chunk_size or 0, MOST), bytes, not opts.return_task, worker.is_self())
  local result = result_of {
    _context = self,
    _queue = queue,
    _task = task,
    _workers = count,
    _pool = pool,
    _only = opts.new and task or nil,
    _position = 0,
    _on_error = opts.on_error,
    _source = not spec.range and source or nil,
    _progress = progress.new(opts.progress),
  }
  local ok, err = pcall(function()
    ensure_workers(self, count, pool, result._only)
    if source.n or opts.return_task then
      while result._source do put_block(result) end
      if result._source_failure then error(result._source_failure[1], 0) end
    else
      local till = core.clock() + AHEAD_SECONDS
      while read_ahead(result) and core.clock() < till do end
    end
  end)
  if not ok then
    result:close()
    error(err, 0)
  end
  if not opts.return_task then return result end
  result._is_done = true -- so that it is not dropped with this handle
  return { task = task, server_address = self.server_address, server = self._link:server_name(), count = count }
end

--- ctx:pull_results_for_task(task): the results of a task that was made with return_task, from where they were not yet taken. By
--- any Context on the same server, also if the process that has made the task is dead; by one at a time.
---@param task { task: integer, server_address: string, server: string?, count: integer }
---@param opts? { on_error: string?, progress: boolean|function|nil }
---@return zproc.MapResult
function Context:pull_results_for_task(task, opts)
  context.check_open(self, "ctx:pull_results_for_task")
  opts = options.check("ctx:pull_results_for_task", opts, { on_error = "on_error", progress = "progress" })
  local is_task = type(task) == "table" and not address.holder(task) and getmetatable(task) ~= MapResult
  local id = is_task and math.tointeger(task.task)
  local count = is_task and math.tointeger(task.count)
  if not id or not count or type(task.server_address) ~= "string" then
    errors.usage("ctx:pull_results_for_task takes what ctx:process_map gives with return_task = true, not %s", options.describe(task))
  end
  if not self._link:is_server_of(task) then
    errors.usage("ctx:pull_results_for_task: the task is one of the server %s, not of %s", task.server_address, self.server_address)
  end
  local queue, pool = pool_of(self)
  local info = queue:describe(id)
  if not info or not queue:adopt(id, pool) then
    error(errors.new("TaskLost", ("there is no task %d any more: all its results were taken, or it was dropped"):format(id)))
  end
  if info.finished ~= info.total then ensure_workers(self, count, pool) end
  return result_of {
    _is_pulled = true,
    _context = self,
    _queue = queue,
    _task = id,
    _workers = count,
    _pool = pool,
    _position = info.taken,
    _on_error = opts.on_error,
    _progress = progress.new(opts.progress),
  }
end

class.limit_methods(Context, "ctx", { pull_results_for_task = 2 })
class.limit_methods(MapResult, "result", { collect = 0, close = 0 })
