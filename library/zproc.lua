---@meta zproc

-- What an editor knows about zproc: LuaCATS annotations of all that a script can use, for lua-language-server. Nothing runs this file.
-- tests/spec/library_spec.lua holds it against the code. docs/guide.md says how an editor finds it.

--- Processes that share one state.
---@class zproc
---@field null lightuserdata present, but none; the same value as cjson.null
---@field AnyError zproc.ErrorClass stands for errors of any kind, in `retry_for`
---@field signal table<string, zproc.Signal> signals by name: `zproc.signal.SIGTERM`
local zproc = {}

-- ---- values ----

--- A value that can be stored, passed and returned: nil, booleans, numbers, strings, `zproc.null`, tables (nested, shared, cyclic, with
--- metatables) and Lua functions.
---@alias zproc.Value any

--- What can be a key of the state.
---@alias zproc.Key string|number|boolean

--- `ipc://PATH` or `tcp://HOST:PORT`.
---@alias zproc.Address string

--- The namespace as it was at one revision: a plain table.
---@alias zproc.Snapshot table

--- Of shared memory where the server is on this machine and this user's ("auto"), or never ("network").
---@alias zproc.Transport "auto"|"network"

---@alias zproc.ErrorName
---| "AuthError" # the secret key is wrong, or missing; or the server, or a file, belongs to another user
---| "DecodeError" # bytes that are no value, or name something that is not here
---| "EncodeError" # a value that cannot travel
---| "HistoryLost" # a revision that is no longer kept
---| "MemoryError" # there is no memory
---| "ProcessExit" # what zproc.exit raises within a process
---| "ProcessWaitError" # a process has failed that was waited for
---| "RemoteError" # what a target raised in another process
---| "ServerLost" # there is no server, or no more
---| "SignalError" # a signal that was turned into an error
---| "StateFull" # there is no room where the state is kept
---| "SystemError" # the system refused something
---| "TaskLost" # there is no such task any more
---| "TimeoutError" # the time is up
---| "UsageError" # zproc was called as it should not be

--- What every error of zproc is. `tostring(err)` is one clear message.
---@class zproc.Error
---@field name zproc.ErrorName|string what kind of error it is
---@field message string one sentence, without name and place
---@field where string? "script.lua:12:", the line of the script that led to it
---@field traceback string? of the place where it was raised, in whichever process that was
---@field exitcode integer? of a ProcessWaitError
---@field process zproc.Process? of a ProcessWaitError
---@field cause any of a ProcessWaitError: what the target raised; of words an error object whose message they are
---@field status integer? of a ProcessExit
---@field signal zproc.Signal? of a SignalError
---@field tries integer? how often a process was tried, if more than once

--- Makes errors of one kind: `error(ConnectionError "refused")`.
---@class zproc.ErrorClass
---@field name string
---@overload fun(message: string|table): zproc.Error

---@class zproc.Signal
---@field name string "SIGTERM"
---@field number integer

--- Signals that wait for the script: `for signal in signals do` gives one after the other, and waits for it.
---@class zproc.Signals
---@overload fun(): zproc.Signal?
local Signals = {}

--- The next one, in the order in which they come; waits for it. nil and a TimeoutError when the time is up.
---@param timeout? number seconds
---@return zproc.Signal?
---@return zproc.Error?
function Signals:next(timeout) end

--- The signals do again what they did before, at the end of a `local signals <close>` too.
function Signals:close() end

--- Numbers at equal distances, which take no memory; `#range` is how many they are, `range[i]` is one of them.
---@class zproc.Range
---@field first number
---@field step number
---@field n integer how many numbers it has
---@operator len: integer
---@field [integer] number

--- One row of ctx:processes().
---@class zproc.ProcessRow
---@field name string source file and line of the target, or the name that was given; of a script its path; "server"
---@field pid integer
---@field parent integer the pid of the process that has started it
---@field state "running"|"retrying"|"exited"|"gone" gone: it is there no more, and nobody saw its end
---@field started number seconds since the epoch
---@field tries integer
---@field exitcode integer? once it has exited: the exit status, or -N after signal N

--- What a `progress` function is given.
---@class zproc.Progress
---@field done integer items that have a result
---@field total integer? nil while it is not known
---@field rate number items per second
---@field remaining number? seconds, as it looks; nil while that is not known

--- What `return_task` gives: plain, so it can be stored, or sent as JSON.
---@class zproc.Task
---@field task integer
---@field server_address zproc.Address
---@field server string
---@field count integer

-- ---- options ----

---@class zproc.ContextOptions
---@field server_address zproc.Address? of a server that runs already; without it a new one is started
---@field wait boolean? wait for the processes at the end (false)
---@field cleanup boolean? stop the processes at the end (true)
---@field namespace string? "default"
---@field secret_key string?
---@field transport zproc.Transport? "auto"
---@field allow_user string|integer|(string|integer)[]|nil users whose servers, files and links this process uses, too, from now on; their code can run in it
---@field server_backend "process"|"thread"|nil "process"
---@field process zproc.ProcessOptions? the options that its processes have by default

---@class zproc.StateOptions
---@field namespace string? "default"
---@field secret_key string?
---@field transport zproc.Transport? "auto"
---@field allow_user string|integer|(string|integer)[]|nil users whose servers, files and links this process uses, too, from now on; their code can run in it

---@class zproc.ForkOptions: zproc.StateOptions
---@field server_address zproc.Address? by default that of the State

---@class zproc.ProcessOptions
---@field args any[]? arguments of the target, at most 100000; with `n` if nils are among them
---@field kwargs table? one more argument, the last
---@field stateful boolean? give the target a State as its first argument (true)
---@field pass_context boolean? give it a Context instead (false)
---@field start boolean? start at once (true)
---@field name string? what it is called in messages
---@field backend "process"|"thread"|nil "process"
---@field namespace string?
---@field secret_key string?
---@field transport zproc.Transport?
---@field allow_user string|integer|(string|integer)[]|nil users whose servers, files and links this process uses, too, from now on; their code can run in it
---@field cleanup boolean? whether it ends with the process that has started it; by default as the Context has it
---@field retry_for (zproc.Signal|zproc.ErrorClass|string|fun(err: any): boolean)[]? what to try again for
---@field retry_delay number? seconds, at most 1e9 (5)
---@field max_retries integer? without it there is no end
---@field retry_args any[]? instead of args in further tries
---@field retry_kwargs table? instead of kwargs in further tries
---@field stop zproc.StopOptions? how it is stopped

---@class zproc.StopOptions
---@field timeout number? seconds between SIGTERM and SIGKILL (2)

---@class zproc.FactoryOptions: zproc.ProcessOptions
---@field count integer? processes for each target (1)

---@class zproc.WatchOptions
---@field live boolean? only what happens from the call on counts (false)
---@field timeout number? seconds
---@field duplicate_okay boolean? updates that leave all as it was count, too (false)
---@field budget zproc.Budget? what one evaluation of a predicate may use

--- What one evaluation of a predicate may use. Over the network a server grants at most 10 seconds and 512 MiB.
---@class zproc.Budget
---@field seconds number? of its own processor time (1)
---@field bytes integer? of memory, besides what it holds already (64 MiB)

---@class zproc.ChangeOptions: zproc.WatchOptions
---@field exclude boolean? any key but these (false)

---@class zproc.IteratorOptions: zproc.WatchOptions
---@field count integer? end after so many
---@field since integer? begin after this revision; 0: as far back as is kept

---@class zproc.ChangeIteratorOptions: zproc.IteratorOptions
---@field exclude boolean? any key but these (false)

--- Those of a watcher and those of a process.
---@class zproc.CallOptions: zproc.ProcessOptions, zproc.WatchOptions

---@class zproc.ChangeCallOptions: zproc.CallOptions
---@field exclude boolean? any key but these (false)

---@class zproc.MapOptions
---@field map_iter (any[]|zproc.Range|fun(): any)? the sequence, if it is no argument
---@field map_args (any[][]|fun(): any)? further arguments of each item
---@field map_kwargs (table[]|fun(): any)? what is laid over kwargs for each item
---@field args any[]? further arguments of all items; each call has copies of the tables in it
---@field kwargs table? one more argument, the last; each call has a copy of it
---@field count integer? workers (the number of processors)
---@field stateful boolean? give the target a State as its first argument (false)
---@field new boolean? with workers of its own (false)
---@field return_task boolean? give a task instead of a MapResult (false)
---@field seed integer? item i draws the numbers of math.randomseed(seed, i): the same in every run, however many workers there are
---@field chunk_size integer? items that are worked on together; without it what they cost decides
---@field max_attempts integer? how often an item is begun whose worker is killed (3)
---@field on_error "raise"|"return"|nil "raise"
---@field progress boolean|fun(now: zproc.Progress)|nil true: a bar on standard error
---@field namespace string?

---@class zproc.PullOptions
---@field on_error "raise"|"return"|nil "raise"
---@field progress boolean|fun(now: zproc.Progress)|nil

---@class zproc.WaitAllOptions
---@field timeout number? seconds, for all together
---@field safe boolean? errors take the place of the results that they prevented (false)

---@class zproc.PingOptions
---@field timeout number? seconds
---@field payload string? that the server is to send back

---@class zproc.AddressPingOptions: zproc.PingOptions
---@field secret_key string?
---@field transport zproc.Transport?
---@field allow_user string|integer|(string|integer)[]|nil users whose servers, files and links this process uses, too, from now on; their code can run in it

---@class zproc.AtomicOptions
---@field timeout number? seconds to wait for other writers; the function that is made then returns nil and a TimeoutError. By shared memory only
---@field limit number? seconds that `fn` may take, once it has the lock; one that takes longer is ended, nothing has changed, and its caller gets a RemoteError

---@class zproc.ServerOptions
---@field backend "process"|"thread"|nil "process"
---@field data_dir string? where the state is kept; without it the state is gone with the server
---@field sync "never"|"interval"|"always"|nil what a power failure may cost ("interval")
---@field restore "snapshot"|"data"|nil what to go on from where the data are missing, damaged or not as they were left; without it that is an error
---@field secret_key string? what clients need
---@field allow_user string|integer|(string|integer)[]|nil users whose servers, files and links this process uses, too, from now on; their code can run in it
---@field insecure boolean? let anybody in who reaches an address that is not of this machine alone (false)
---@field bind zproc.Address[]? further addresses

-- ---- functions ----

--- A State and the processes that share it.
---@param server_address? zproc.Address
---@param opts? zproc.ContextOptions
---@return zproc.Context
---@overload fun(opts?: zproc.ContextOptions): zproc.Context
function zproc.context(server_address, opts) end

--- The state at an address.
---@param server_address zproc.Address
---@param opts? zproc.StateOptions
---@return zproc.State
function zproc.state(server_address, opts) end

--- A process without a Context.
---@param target function
---@param server_address zproc.Address
---@param opts? zproc.ProcessOptions
---@return zproc.Process
function zproc.process(target, server_address, opts) end

--- A function that runs `fn(snapshot, ...)` as one indivisible step on the state that it is called with, and returns what `fn` does. If
--- `fn` raises nothing has changed.
---@param fn fun(snapshot: table, ...): ...
---@param opts? zproc.AtomicOptions
---@return fun(state: zproc.State, ...): ...
function zproc.atomic(fn, opts) end

--- Start a server that runs until it is stopped, or this process ends.
---@param server_address? zproc.Address without it a random one on this machine
---@param opts? zproc.ServerOptions
---@return zproc.Server server_process
---@return zproc.Address server_address
---@overload fun(opts?: zproc.ServerOptions): zproc.Server, zproc.Address
function zproc.start_server(server_address, opts) end

--- Copy all that the server of a State keeps, of all namespaces, as it is at one instant, to a directory on which a server can be started. Everybody goes
--- on meanwhile. Only on the machine of the server, by shared memory.
---@param state zproc.State
---@param directory string one that is not there yet, or is empty
---@return integer revision of the copy
function zproc.backup(state, directory) end

--- The pid of a server that is alive; nil and a TimeoutError when the time is up.
---@param server_address zproc.Address
---@param opts? zproc.AddressPingOptions
---@return integer? pid
---@return zproc.Error?
function zproc.ping(server_address, opts) end

--- From now on the signal raises a SignalError in the running Lua code, calls that wait included.
---@param signal zproc.Signal|string|integer
function zproc.signal_to_error(signal) end

--- From now on these signals come to the object that it gives, in which they wait for the script: they are no errors, and do not do what they do
--- by default. Processes that are started are not concerned.
---@param ... zproc.Signal|string|integer
---@return zproc.Signals
function zproc.signals(...) end

--- End this process; in one that zproc has started a ProcessExit is raised. A status is from 0 to 255; -1 is 255.
---@param status? integer|boolean
function zproc.exit(status) end

--- Sleep, in seconds.
---@param seconds number
function zproc.sleep(seconds) end

--- Seconds since the epoch.
---@return number
function zproc.time() end

--- Processors that this process may use.
---@return integer
function zproc.cpu_count() end

---@return integer
function zproc.getpid() end

--- A lazy sequence for process_map, both ends included.
---@param first number
---@param last number
---@param step? number 1
---@return zproc.Range
function zproc.range(first, last, step) end

--- A class of errors.
---@param name string
---@return zproc.ErrorClass
function zproc.error_class(name) end

--- Whether a value is an error object, and if a class or a name is given, one of that.
---@param value any
---@param class? zproc.ErrorClass|zproc.ErrorName|string
---@return boolean
function zproc.is_error(value, class) end

-- ---- Context ----

---@class zproc.Context
---@field state zproc.State
---@field process_list zproc.Process[] those that nobody has waited for yet; a copy
---@field worker_list zproc.Process[] a copy
---@field server_process zproc.Server? if the Context has started it
---@field server_address zproc.Address
---@field namespace string
---@field secret_key string?
local Context = {}

--- Start a process. Without a target: a function that takes it.
---@param target function
---@param opts? zproc.ProcessOptions
---@return zproc.Process
---@overload fun(self: zproc.Context, opts: zproc.ProcessOptions): fun(target: function): zproc.Process
function Context:process(target, opts) end

--- Processes for each of these targets; a table of options may come last.
---@param target function
---@param ... function|zproc.FactoryOptions
---@return zproc.Process[]
function Context:process_factory(target, ...) end

--- `target([state,] item, map_args[i]..., args..., kwargs)` for every item, by worker processes.
---@param target function
---@param sequence? any[]|zproc.Range|fun(): any
---@param opts? zproc.MapOptions
---@return zproc.MapResult|zproc.Task result a task with `return_task`
---@overload fun(self: zproc.Context, target: function, opts: zproc.MapOptions): zproc.MapResult|zproc.Task
function Context:process_map(target, sequence, opts) end

--- The results of a task, from where they were not yet taken.
---@param task zproc.Task
---@param opts? zproc.PullOptions
---@return zproc.MapResult
function Context:pull_results_for_task(task, opts) end

--- A process that runs `target(snapshot, state, ...)` when any of these keys changes, or, without keys, anything: keys, target, options.
---@param ... zproc.Key|function|zproc.ChangeCallOptions
---@return zproc.Process|fun(target: function): zproc.Process
function Context:call_when_change(...) end

--- A process that runs `target(snapshot, state, ...)` whenever the predicate holds; without a target, a function that takes it.
---@param test fun(snapshot: zproc.Snapshot): any
---@param target? fun(snapshot: zproc.Snapshot, state: zproc.State, ...)
---@param opts? zproc.CallOptions
---@return zproc.Process|fun(target: function): zproc.Process
function Context:call_when(test, target, opts) end

---@param key zproc.Key
---@param value zproc.Value
---@param target? fun(snapshot: zproc.Snapshot, state: zproc.State, ...)
---@param opts? zproc.CallOptions
---@return zproc.Process|fun(target: function): zproc.Process
function Context:call_when_equal(key, value, target, opts) end

---@param key zproc.Key
---@param value zproc.Value
---@param target? fun(snapshot: zproc.Snapshot, state: zproc.State, ...)
---@param opts? zproc.CallOptions
---@return zproc.Process|fun(target: function): zproc.Process
function Context:call_when_not_equal(key, value, target, opts) end

--- When the key is absent or null.
---@param key zproc.Key
---@param target? fun(snapshot: zproc.Snapshot, state: zproc.State, ...)
---@param opts? zproc.CallOptions
---@return zproc.Process|fun(target: function): zproc.Process
function Context:call_when_none(key, target, opts) end

--- When the key is present and not null.
---@param key zproc.Key
---@param target? fun(snapshot: zproc.Snapshot, state: zproc.State, ...)
---@param opts? zproc.CallOptions
---@return zproc.Process|fun(target: function): zproc.Process
function Context:call_when_not_none(key, target, opts) end

--- When the key is present at all.
---@param key zproc.Key
---@param target? fun(snapshot: zproc.Snapshot, state: zproc.State, ...)
---@param opts? zproc.CallOptions
---@return zproc.Process|fun(target: function): zproc.Process
function Context:call_when_available(key, target, opts) end

--- What each process in process_list returned (its first value), in that order; `.n` is set. As soon as one has failed that is raised, and
--- the others go on. nil and a TimeoutError when the time is up.
---@param opts? number|zproc.WaitAllOptions
---@return any[]?
---@return zproc.Error?
function Context:wait_all(opts) end

--- Start every process that was not started yet.
function Context:start_all() end

--- Stop every process in process_list that was started: the exit codes, false for one that was not. All have the same time.
---@param timeout? number seconds that they have; without it what their option `stop` says, or 2
---@return (integer|false)[]
function Context:stop_all(timeout) end

--- The processes of the server, those of other Contexts included.
---@return zproc.ProcessRow[]
function Context:processes() end

--- The server's pid; nil and a TimeoutError when the time is up.
---@param opts? zproc.PingOptions
---@return integer? pid
---@return zproc.Error?
function Context:ping(opts) end

--- Wait for the processes if that was wished, stop them, and let go of the state. May be called twice.
function Context:close() end

-- ---- Process ----

---@class zproc.Process
---@field name string what it is called in messages; by default where its target is defined
---@field target function
---@field namespace string
---@field server_address zproc.Address
---@field pid integer? nil before the start
---@field exitcode integer? nil while it runs; -N after signal N
---@field is_alive boolean
local Process = {}

--- Start it, if it was made with `start = false`.
---@return integer pid
function Process:start() end

--- Ask it to end, and kill it if it does not.
---@param timeout? number seconds that it has; without it what its option `stop` says, or 2
---@return integer exitcode
function Process:stop(timeout) end

--- The same.
---@return integer exitcode
function Process:close() end

--- Wait for the end: all that the target returned. Raises a ProcessWaitError if it has failed. nil and a TimeoutError when the time is
--- up.
---@param timeout? number seconds
---@return any ...
function Process:wait(timeout) end

-- ---- MapResult ----

--- Results in the order of the items: `for i, result in r do ... end`.
---@class zproc.MapResult
---@overload fun(): integer?, any
local MapResult = {}

--- The next result and its number; waits for it. nil, nil at the end. With a timeout (seconds): nil and a TimeoutError when the time is up;
--- the result comes the next time.
---@param timeout number?
---@return any result
---@return integer|zproc.Error|nil i
function MapResult:next(timeout) end

--- All results that are left; `.n` is how many.
---@return any[]
function MapResult:collect() end

--- Give up what was not taken yet.
function MapResult:close() end

-- ---- Server ----

---@class zproc.Server
---@field server_address zproc.Address the first of its addresses
---@field server_addresses zproc.Address[]
---@field secret_key string?
---@field pid integer? nil while it is being started again, and once it was stopped
---@field is_alive boolean
---@field exitcode integer? nil until it was stopped; -N after signal N
local Server = {}

--- End it, and with it its state, unless that has a data directory.
---@return integer exitcode
function Server:stop() end

--- The same.
---@return integer exitcode
function Server:close() end

--- Wait until it was stopped; nil and a TimeoutError when the time is up.
---@param timeout? number seconds
---@return integer? exitcode
---@return zproc.Error?
function Server:wait(timeout) end

-- ---- State ----

--- `state.key` reads, `state.key = value` sets, `state.key = nil` deletes; `#state` counts the keys, `pairs(state)` goes through a
--- consistent snapshot, `state == { ... }` compares. What is read is a copy.
---@class zproc.State
---@field namespace string
---@field server_address zproc.Address
---@field [zproc.Key] zproc.Value
---@operator len: integer
local State = {}

--- The value of a key, whatever its name.
---@param key zproc.Key
---@param default? any
---@return zproc.Value
function State:get(key, default) end

--- Replace the whole content in one step.
---@param content table<zproc.Key, zproc.Value>
function State:set(content) end

--- Set these keys in one step.
---@param content table<zproc.Key, zproc.Value>
function State:update(content) end

--- Set a key unless it is there: the value that it has now.
---@param key zproc.Key
---@param value zproc.Value
---@return zproc.Value
function State:setdefault(key, value) end

--- Delete a key: the value that it had. A value that cannot be decoded here is a DecodeError, and stays.
---@param key zproc.Key
---@param default? any
---@return zproc.Value
function State:pop(key, default) end

--- Delete the last key in key order. A value that cannot be decoded here is a DecodeError, and stays.
---@return zproc.Key key
---@return zproc.Value value
function State:popitem() end

--- Delete all keys.
function State:clear() end

--- The whole content, as a plain table.
---@return zproc.Snapshot
function State:copy() end

---@return zproc.Key[]
function State:keys() end

---@return zproc.Value[]
function State:values() end

--- The pairs of key and value.
---@return any[][]
function State:items() end

---@param key zproc.Key
---@return boolean
function State:contains(key) end

--- Another State on the same server, by default on the same namespace.
---@param opts? zproc.ForkOptions
---@return zproc.State
function State:fork(opts) end

--- The server's pid; nil and a TimeoutError when the time is up.
---@param opts? zproc.PingOptions
---@return integer? pid
---@return zproc.Error?
function State:ping(opts) end

--- Let go of the state. May be called twice.
function State:close() end

--- The number of the newest revision.
---@return integer
function State:revision() end

--- The namespace as it was at a revision.
---@param revision integer
---@return zproc.Snapshot
function State:at(revision) end

--- Forget what has happened so far: the next watcher considers only what comes from now on.
function State:go_live() end

--- The next update of somebody else; nil and a TimeoutError when the time is up.
---@param opts? zproc.WatchOptions
---@return zproc.Snapshot? before
---@return zproc.Snapshot|zproc.Error after
---@return boolean? identical
function State:get_raw_update(opts) end

--- Wait until any of these keys changes, or, without keys, anything: keys, options. Every watcher gives nil and a TimeoutError when the
--- time is up.
---@param ... zproc.Key|zproc.ChangeOptions
---@return zproc.Snapshot?
---@return zproc.Error?
function State:get_when_change(...) end

--- Wait until the predicate holds.
---@param test fun(snapshot: zproc.Snapshot): any
---@param opts? zproc.WatchOptions
---@return zproc.Snapshot?
---@return zproc.Error?
function State:get_when(test, opts) end

---@param key zproc.Key
---@param value zproc.Value
---@param opts? zproc.WatchOptions
---@return zproc.Snapshot?
---@return zproc.Error?
function State:get_when_equal(key, value, opts) end

--- Wait until the key is present with another value.
---@param key zproc.Key
---@param value zproc.Value
---@param opts? zproc.WatchOptions
---@return zproc.Snapshot?
---@return zproc.Error?
function State:get_when_not_equal(key, value, opts) end

--- Wait until the key is absent or null.
---@param key zproc.Key
---@param opts? zproc.WatchOptions
---@return zproc.Snapshot?
---@return zproc.Error?
function State:get_when_none(key, opts) end

--- Wait until the key is present and not null.
---@param key zproc.Key
---@param opts? zproc.WatchOptions
---@return zproc.Snapshot?
---@return zproc.Error?
function State:get_when_not_none(key, opts) end

--- Wait until the key is present at all.
---@param key zproc.Key
---@param opts? zproc.WatchOptions
---@return zproc.Snapshot?
---@return zproc.Error?
function State:get_when_available(key, opts) end

--- `for snapshot in state:when_change("gold") do`: the snapshots of all matches. So with all that follow.
---@param ... zproc.Key|zproc.ChangeIteratorOptions
---@return fun(): zproc.Snapshot?
function State:when_change(...) end

---@param test fun(snapshot: zproc.Snapshot): any
---@param opts? zproc.IteratorOptions
---@return fun(): zproc.Snapshot?
function State:when(test, opts) end

---@param key zproc.Key
---@param value zproc.Value
---@param opts? zproc.IteratorOptions
---@return fun(): zproc.Snapshot?
function State:when_equal(key, value, opts) end

---@param key zproc.Key
---@param value zproc.Value
---@param opts? zproc.IteratorOptions
---@return fun(): zproc.Snapshot?
function State:when_not_equal(key, value, opts) end

---@param key zproc.Key
---@param opts? zproc.IteratorOptions
---@return fun(): zproc.Snapshot?
function State:when_none(key, opts) end

---@param key zproc.Key
---@param opts? zproc.IteratorOptions
---@return fun(): zproc.Snapshot?
function State:when_not_none(key, opts) end

---@param key zproc.Key
---@param opts? zproc.IteratorOptions
---@return fun(): zproc.Snapshot?
function State:when_available(key, opts) end

return zproc
