-- Servers that are reached by the network: addresses, keys, lost connections, and what one client does to the others.
local core = require "zproc.core"
local zproc = require "zproc"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses, eventually, kill, GENEROUS = support.refuses, support.eventually, support.kill, support.GENEROUS

-- What travels takes its globals along; those of a script, not the environment that specs run in.
local describe, it, before_each, after_each, assert = describe, it, before_each, after_each, assert
local _ENV <const> = _G

local KEY <const> = "correct horse battery staple"
local NETWORK <const> = { transport = "network" }

--- Whether a State goes through shared memory.
local function is_direct(state) return core.link_of(state).directory ~= nil end

local increment = zproc.atomic(function(snapshot) snapshot.count = (snapshot.count or 0) + 1 end)

describe("a TCP address", function()
  local server, address

  before_each(function() server, address = zproc.start_server "tcp://127.0.0.1:*" end)
  after_each(function() server:stop() end)

  it("has a port that is free, and stays the same when the server is started again", function()
    local port = math.tointeger(tonumber(address:match "^tcp://127%.0%.0%.1:(%d+)$"))
    assert.is_true(port > 0)
    local state = zproc.state(address, NETWORK)
    state.a = 1
    local pid = zproc.ping(address)
    assert.equal(server.pid, pid)
    kill(pid)
    eventually("another server", function() return server.pid and server.pid ~= pid end)
    assert.equal(server.pid, zproc.ping(address))
    assert.equal(1, state.a)
  end)

  it("can be one that is given, and is free again when the server was stopped", function()
    server:stop()
    for _ = 1, 3 do
      server = zproc.start_server(address)
      assert.equal(address, server.server_address)
      assert.equal(server.pid, zproc.ping(address))
      server:stop()
    end
  end)

  it("is for any number of Contexts and States, beside those of an ipc address", function()
    local path = os.tmpname()
    os.remove(path)
    local both <close> = zproc.start_server("ipc://" .. path, { bind = { "tcp://127.0.0.1:*", "tcp://[::1]:*" } })
    assert.equal(3, #both.server_addresses)
    local states = {}
    for i, one in ipairs(both.server_addresses) do
      states[#states + 1] = zproc.state(one, NETWORK)
      states[#states + 1] = zproc.state(one)
      local ctx <close> = zproc.context(one, NETWORK)
      ctx.state[i] = one
    end
    for _, state in ipairs(states) do assert.same(both.server_addresses, state:copy()) end
  end)

  it("leads to shared memory, unless the network is asked for", function()
    local direct, remote = zproc.state(address), zproc.state(address, NETWORK)
    assert.is_true(is_direct(direct))
    assert.is_false(is_direct(remote))
    direct.a = { 1 }
    assert.same({ 1 }, remote.a)
    assert.is_true(direct == remote)
    assert.is_false(is_direct(remote:fork()))
    local ctx <close> = zproc.context(address, NETWORK)
    assert.is_false(is_direct(ctx.state))
    assert.is_false((ctx:process(function(state) return is_direct(state) end):wait()))
    assert.is_false((ctx:process(function(inner) return is_direct(inner.state) end, { pass_context = true }):wait()))
    local own <close> = zproc.context { transport = "network" }
    assert.is_false(is_direct(own.state))
    own.state.b = 2
    assert.equal(2, zproc.state(own.server_address).b)
  end)

  it("works with servers and processes in threads", function()
    local threaded <close>, place = zproc.start_server("tcp://127.0.0.1:*", { backend = "thread" })
    local ctx <close> = zproc.context(place, { transport = "network", process = { backend = "thread" } })
    ctx.state.count = 0
    ctx:process_factory(function(state) for _ = 1, 50 do increment(state) end end, { count = 3 })
    ctx:wait_all()
    assert.equal(150, ctx.state.count)
    assert.same({ 1, 4, 9, n = 3 }, ctx:process_map(function(n) return n * n end, { 1, 2, 3 }):collect())
    assert.is_true(threaded.is_alive)
  end)

  it("lists the processes of the server", function()
    local ctx <close> = zproc.context(address, NETWORK)
    local names = {}
    for _, row in ipairs(ctx:processes()) do names[row.pid] = row.name end
    assert.equal("server", names[server.pid])
  end)

  it("is refused if it is none, not free, not here, or open to everybody without a key", function()
    refuses("is no host and port", zproc.start_server, "tcp://127.0.0.1")
    refuses("is no host and port", zproc.start_server, "tcp://127.0.0.1:70000")
    refuses("is no host and port", zproc.start_server, "tcp://:7000")
    refuses("is no host and port", zproc.state, "tcp://[::1:7000")
    refuses("is in use by another program", zproc.start_server, address)
    refuses("is not one of this machine", zproc.start_server, "tcp://192.0.2.1:7000", { insecure = true })
    refuses("anybody could run code here", zproc.start_server, "tcp://*:*")
    refuses("'*' is for servers", zproc.state, "tcp://*:7000", NETWORK)
    refuses("one ipc:// address is all", zproc.start_server, "ipc:///tmp/zproc-a", { bind = { "ipc:///tmp/zproc-b" } })
    refuses("option 'transport' must be 'auto' or 'network', not the string \"pigeon\"", zproc.state, address, { transport = "pigeon" })
    local open <close>, everywhere = zproc.start_server("tcp://*:*", { insecure = true })
    assert.equal(open.pid, zproc.ping((everywhere:gsub("0%.0%.0%.0", "127.0.0.1"))))
  end)

  it("at which nobody listens is a lost server at once", function()
    server:stop()
    for _, call in ipairs { zproc.ping, zproc.state, zproc.context } do
      assert.equal("ServerLost", refuses("nobody can be reached", call, address).name)
    end
    assert.equal("ServerLost", refuses("cannot look up", zproc.state, "tcp://no-such-host.invalid:7000").name)
  end)
end)

describe("an ipc address", function()
  it("of a server that is stopped is not waited at longer than a ping or a watcher may take", function()
    local path = os.tmpname()
    os.remove(path)
    local stopped <close> = zproc.start_server("ipc://" .. path)
    local state = zproc.state(stopped.server_address, NETWORK)
    kill(stopped.pid, "STOP")
    local pid, err = zproc.ping(stopped.server_address, { timeout = 0.2, transport = "network" })
    local snapshot, late = state:get_when_equal("never", 1, { timeout = 0.5 })
    local state_ok, lost = pcall(zproc.state, stopped.server_address, NETWORK)
    kill(stopped.pid, "CONT")
    assert.is_nil(pid)
    assert.is_true(zproc.is_error(err, "TimeoutError"))
    assert.is_nil(snapshot)
    assert.is_true(zproc.is_error(late, "TimeoutError"))
    assert.is_true(not state_ok and zproc.is_error(lost, "ServerLost"))
    assert.equal(stopped.pid, zproc.ping(stopped.server_address, { transport = "network" }))
    assert.is_nil(state.never)
  end)
end)

describe("a secret key", function()
  local server, address

  before_each(function()
    server, address = zproc.start_server("tcp://127.0.0.1:*", { secret_key = KEY })
  end)
  after_each(function() server:stop() end)

  it("lets in who has it, by both transports, and their processes", function()
    local local_address = "ipc://" .. server.directory .. "/server"
    for _, one in ipairs { address, local_address } do
      for _, transport in ipairs { "auto", "network" } do
        local ctx <close> = zproc.context(one, { secret_key = KEY, transport = transport })
        assert.equal(KEY, ctx.secret_key)
        ctx.state.count = 0
        ctx:process_factory(function(state) increment(state) end, { count = 2 })
        ctx:process(function(inner) increment(inner.state) end, { pass_context = true })
        ctx:wait_all()
        assert.equal(3, ctx.state.count)
        assert.same({ 2, n = 1 }, ctx:process_map(function(n) return n + 1 end, { 1 }):collect())
        assert.equal(server.pid, ctx:ping())
        assert.equal(server.pid, zproc.ping(one, { secret_key = KEY, transport = transport }))
      end
    end
  end)

  it("keeps out who has another one, or none, and says so", function()
    local local_address = "ipc://" .. server.directory .. "/server"
    for _, one in ipairs { address, local_address } do
      for _, opts in ipairs {
        {}, { secret_key = "guess" }, { transport = "network" }, { secret_key = "guess", transport = "network" },
      } do
        assert.equal("AuthError", refuses("secret key", zproc.state, one, opts).name)
        assert.equal("AuthError", refuses("secret key", zproc.context, one, opts).name)
        opts.timeout = GENEROUS
        assert.equal("AuthError", refuses("secret key", zproc.ping, one, opts).name)
      end
    end
    assert.equal(server.pid, zproc.ping(address, { secret_key = KEY }))
  end)

  it("is not taken by a server that has none", function()
    local plain <close>, place = zproc.start_server "tcp://127.0.0.1:*"
    for _, transport in ipairs { "auto", "network" } do
      assert.equal("AuthError", refuses("secret key", zproc.state, place, { secret_key = KEY, transport = transport }).name)
    end
    assert.equal(plain.pid, zproc.ping(place))
  end)

  it("must not be empty, and is a string", function()
    refuses("option 'secret_key' must be a string that is not empty", zproc.state, address, { secret_key = "" })
    refuses("option 'secret_key' must be a string that is not empty, not 5", zproc.start_server, { secret_key = 5 })
  end)

  it("is a Context's own, and its processes have it without being told", function()
    local ctx <close> = zproc.context { secret_key = KEY }
    assert.is_true(is_direct(ctx.state))
    assert.equal(KEY, ctx.secret_key)
    ctx:process(function(state) state.a = 1 end):wait()
    ctx:process(function(state) state.b = 2 end, { backend = "thread" }):wait()
    assert.same({ a = 1, b = 2 }, ctx.state:copy())
    refuses("secret key", zproc.state, ctx.server_address)
    assert.same({ a = 1, b = 2 }, zproc.state(ctx.server_address, { secret_key = KEY }):copy())
  end)

  it("is for the environment to give", function()
    local out = support.run_script(([[
      local zproc = require "zproc"
      print(zproc.state(%q).a, zproc.state(%q, { transport = "network" }).a)
    ]]):format(address, address))
    assert.is_truthy(out:read "a":find "AuthError")
    out:close()
    zproc.state(address, { secret_key = KEY }).a = 5
    local script <close> = io.popen(([[
      file=$(mktemp); printf %%s %s > $file
      ZPROC_SECRET_KEY=%s %s run $file 2>&1; rm -f $file]]):format(
      support.quote(('print(require "zproc".state(%q, { transport = "network" }).a)'):format(address)), support.quote(KEY),
      os.getenv "ZPROC"))
    assert.equal("5\n", script:read "a")
  end)
end)

describe("a lost connection", function()
  local server, address, state

  before_each(function()
    server, address = zproc.start_server "tcp://127.0.0.1:*"
    state = zproc.state(address, NETWORK)
  end)
  after_each(function() server:stop() end)

  it("costs no update and doubles none, however often the server is killed", function()
    state.count = 0
    local deaths, counts = 0, zproc.context(address, NETWORK)
    local clients = counts:process_factory(function(own)
      local done, unknown = 0, 0
      repeat
        local ok, err = pcall(increment, own)
        if ok then done = done + 1
        elseif zproc.is_error(err, "ServerLost") then unknown = unknown + 1
        else error(err) end
      until own.stop
      return { done, unknown }
    end, { count = 3 })
    while deaths < 8 do
      local pid, before = server.pid, zproc.state(address).count
      if pid then
        eventually("progress", function() return zproc.state(address).count > before + 5 end)
        kill(pid)
        deaths = deaths + 1
        eventually("another server", function() return server.pid and server.pid ~= pid end)
      end
    end
    zproc.state(address).stop = true
    local done, unknown = 0, 0
    for _, client in ipairs(clients) do
      local result = client:wait()
      done, unknown = done + result[1], unknown + result[2]
    end
    local count = state.count
    counts:close()
    assert.is_true(done > 0)
    assert.is_true(count >= done and count <= done + unknown, ("%d done, %d unknown, %d counted"):format(done, unknown, count))
    assert.is_true(unknown <= deaths * 3)
  end)

  it("is no reason for a watcher to miss anything", function()
    local watcher = zproc.process(function(own)
      local seen = {}
      for snapshot in own:when_change("news", { count = 60 }) do seen[#seen + 1] = snapshot.news end
      return seen
    end, address, NETWORK)
    local writer = zproc.state(address)
    for i = 1, 60 do
      writer.news = i
      if i % 20 == 0 then
        local pid = eventually("a server", function() return server.pid end)
        kill(pid)
        eventually("another server", function() return server.pid and server.pid ~= pid end)
      end
    end
    local seen = watcher:wait(GENEROUS)
    for i = 1, 60 do assert.equal(i, seen[i]) end
  end)

  it("does not lose or double an item of a map", function()
    local ctx <close> = zproc.context(address, NETWORK)
    local result = ctx:process_map(function(n) zproc.sleep(0.002) return -n end, zproc.range(1, 400), { count = 3 })
    local pid = server.pid
    for i, value in result do
      assert.equal(-i, value)
      if i == 100 then kill(pid) end
    end
    assert.not_equal(pid, eventually("another server", function() return server.pid end))
  end)

  it("is none for who comes while there is no server: it waits for the next one", function()
    local near <close>, place = zproc.start_server()
    local own = zproc.state(place, NETWORK)
    own.a = 1
    repeat -- until it is not started again at once
      local pid = eventually("a server", function() return near.pid end)
      kill(pid)
      eventually("its end", function() return near.pid ~= pid end)
    until not near.pid
    local child = zproc.process(function() return own.a end, place, { stateful = false }) -- connects for itself
    assert.equal(1, child:wait(GENEROUS))
    assert.equal(1, own.a)
  end)

  it("does not double an item that an iterator gives, when it is not known whether it was put", function()
    local ctx <close> = zproc.context(address, NETWORK)
    local given, padding = 0, ("."):rep(5000)
    local result = ctx:process_map(function(text) return math.tointeger(text:match "^%d+") end, function()
      given = given + 1
      if given <= 3000 then return given .. padding end
    end, { count = 2, max_attempts = 100 })
    local others <close> = zproc.context()
    others:process(function()
      for _ = 1, 6 do
        zproc.sleep(math.random() * 0.3) -- any instant will do
        for _ = 1, 2 do kill((zproc.ping(address))) end -- and the next one, which is asked what became of all that
      end
    end, { stateful = false })
    local expected = 1
    for i, value in result do
      assert.equal(expected, i)
      assert.equal(expected, value)
      expected = expected + 1
    end
    assert.equal(3001, expected)
    others:wait_all()
  end)

  it("is a ServerLost if there is another state at the address by now, and nothing happens to that", function()
    state.x = 1
    local waiter = zproc.process(function(own)
      own.waits = true
      return select(2, pcall(own.get_when_equal, own, "never", 1)).name
    end, address, NETWORK)
    local idle = zproc.context(address, NETWORK)
    state:get_when_available("waits", { timeout = GENEROUS })
    server:stop()
    server = zproc.start_server(address)
    assert.equal("ServerLost", refuses("there is another one now", function() return state.x end).name)
    assert.equal("ServerLost", refuses("", function() state.x = 2 end).name)
    assert.equal("ServerLost", refuses("", increment, state).name)
    assert.equal("ServerLost", refuses("", idle.process_map, idle, print, { 1 }).name)
    assert.equal("ServerLost", waiter:wait(GENEROUS))
    local fresh = zproc.state(address, NETWORK)
    assert.is_true(fresh == {})
    fresh.x = 3
    assert.equal(3, zproc.state(address).x)
    refuses("", function() return state.x end)
    pcall(idle.close, idle)
  end)

  it("is none when the same state has another server, from its data directory", function()
    local pipe <close> = assert(io.popen "mktemp -d")
    local data_dir = pipe:read "l"
    server:stop()
    server = zproc.start_server(address, { data_dir = data_dir })
    local own = zproc.state(address, NETWORK)
    own.x = 1
    for i = 2, 4 do
      server:stop()
      server = zproc.start_server(address, { data_dir = data_dir })
      assert.equal(i - 1, own.x)
      own.x = i
    end
    assert.equal(4, zproc.state(address).x)
    server:stop()
    os.execute("rm -rf " .. data_dir)
  end)

  it("is a ServerLost once the server is gone for good, also for who waits at it", function()
    local waiter = zproc.process(function(own)
      own.waits = true
      return select(2, pcall(own.get_when_equal, own, "never", 1)).name
    end, address, NETWORK)
    state:get_when_available("waits", { timeout = GENEROUS })
    server:stop()
    assert.equal("ServerLost", refuses("", increment, state).name)
    assert.equal("ServerLost", waiter:wait(GENEROUS))
  end)

  it("is not made by a signal: the request is given up, and the next one works", function()
    local outcome = zproc.process(function(own)
      zproc.signal_to_error(zproc.signal.SIGUSR1)
      local ok, err = pcall(function()
        own.ready = zproc.getpid()
        own:get_when_equal("never", 1)
      end)
      own.after = 5
      return ok, err.name, own.after
    end, address, NETWORK)
    kill(state:get_when_available("ready", { timeout = GENEROUS }).ready, "USR1")
    assert.same({ false, "SignalError", 5 }, { outcome:wait(GENEROUS) })
  end)
end)

describe("what one client does", function()
  local server, address, state, other

  before_each(function()
    server, address = zproc.start_server "tcp://127.0.0.1:*"
    state, other = zproc.state(address, NETWORK), zproc.state(address, NETWORK)
  end)
  after_each(function() server:stop() end)

  it("does not delay the others, who only read, while its atomic function takes its time", function()
    local slow = zproc.process(function(own)
      zproc.atomic(function(snapshot)
        os.execute "sleep 2"
        snapshot.done = true
      end)(own)
    end, address, NETWORK)
    eventually("the atomic function holds the state", function()
      local rows = io.popen("ps -o args= -C sleep 2>/dev/null"):read "a"
      return rows:find("sleep 2", 1, true)
    end)
    local reads = 0
    while slow.is_alive do
      assert(other.done == nil or other.done == true)
      reads = reads + 1
    end
    slow:wait()
    assert.is_true(reads > 100)
    assert.is_true(other.done)
  end)

  it("may end the process that runs its atomic function: nothing has changed, and the next one works", function()
    state.count = 1
    local err = refuses("has ended with status 3; nothing has changed", zproc.atomic(function(snapshot)
      snapshot.count = 100
      os.exit(3)
    end), state)
    assert.equal("SystemError", err.name)
    refuses("was killed by signal 9", zproc.atomic(function(snapshot)
      snapshot.count = 100
      os.execute "kill -9 $PPID"
    end), state)
    increment(state)
    assert.equal(2, state.count)
  end)

  it("is told if that process is killed after its change, and before it could tell the result", function()
    local pids = {}
    for _, row in ipairs(zproc.context(address):processes()) do pids[row.name] = row.pid end
    local caller = zproc.process(function(own)
      -- The result does not fit into the socket, and the server, which is stopped, takes nothing of it.
      zproc.atomic(function(snapshot, server)
        snapshot.count, snapshot.runner = 1, zproc.getpid()
        os.execute("kill -STOP " .. server)
        return ("x"):rep(1 << 24)
      end)(own, pids.server)
    end, address, NETWORK)
    local here = zproc.state(address)
    local runner = here:get_when_available("runner", { timeout = GENEROUS }).runner
    kill(runner)
    kill(pids.server, "CONT")
    local ok, err = pcall(caller.wait, caller, GENEROUS)
    assert.is_false(ok)
    assert.equal("ServerLost", err.cause.name)
    assert.is_truthy(err.cause.message:find("killed by signal 9; it has changed the state, but its result is lost", 1, true))
    increment(state)
    assert.equal(2, here.count)
  end)

  it("may leave something running that outlives the process of its atomic function, and nobody waits for that", function()
    state.count = 1
    local path = os.tmpname()
    local leave = zproc.atomic(function(snapshot)
      snapshot.count = 100
      os.execute(("sleep 1000 >/dev/null 2>&1 & echo $! >%s; kill -9 $PPID"):format(path))
    end)
    local caller = zproc.process(function(own) return select(2, pcall(leave, own)).message end, address, NETWORK)
    local message = caller:wait(GENEROUS)
    kill(io.open(path):read "l")
    os.remove(path)
    assert.is_truthy(message and message:find("was killed by signal 9; nothing has changed", 1, true))
    increment(state)
    assert.equal(2, state.count)
  end)

  it("has its atomic function stopped when it goes away in the middle of it", function()
    local endless = zproc.process(function(own)
      own.began = true
      zproc.atomic(function(snapshot)
        snapshot.began = false
        while true do end
      end)(own)
    end, address, NETWORK)
    state:get_when_equal("began", true, { timeout = GENEROUS })
    kill(endless.pid)
    pcall(endless.wait, endless)
    increment(state) -- which has to wait for that one to be stopped
    assert.equal(1, state.count)
    assert.is_true(state.began)
  end)

  it("passes errors on as they were, with the traceback of the place", function()
    local ok, err = pcall(zproc.atomic(function() error({ code = 5 }) end), state)
    assert.is_false(ok)
    assert.same({ code = 5 }, err)
    err = refuses("Custom: because", zproc.atomic(function() error(zproc.error_class "Custom" "because") end), state)
    assert.is_truthy(err.traceback:find("network_spec.lua", 1, true))
  end)

  it("is told what of an atomic function cannot travel, and then nothing has happened", function()
    local file = io.stdout
    refuses("result 2 of the atomic function: cannot send a userdata", zproc.atomic(function(snapshot)
      snapshot.half = 1
      return 1, io.stdout
    end), state)
    assert.is_nil(state.half)
    refuses("the atomic function, upvalue file of function", zproc.atomic(function() return file end), state)
    refuses("cannot send a State", zproc.atomic(function() return state.a end), state)
    refuses("argument 3 of the atomic function.a: cannot send a userdata", zproc.atomic(print), state, nil, 1, { a = file })
    refuses("result 1 of the atomic function: cannot send the snapshot", zproc.atomic(function(snapshot) return snapshot end), state)
  end)

  it("cannot use the state within its atomic function by another State: it is told so, and does not wait for itself", function()
    for _, outer in ipairs { state, zproc.state(address) } do
      for _, use in ipairs {
        function(own) return own.a end,
        function(own) own.a = 1 end,
        function(own) own:get_when_equal("a", 1, { timeout = 0 }) end,
        function(own) zproc.atomic(function() end)(own) end,
      } do
        refuses("an atomic function is running", zproc.atomic(function(snapshot, there)
          snapshot.half = 1
          use(require "zproc".state(there, { transport = "network" }))
        end), outer, address)
      end
    end
    assert.is_true(state == {})
  end)

  it("takes as long a payload of a ping as an ipc address, and no longer", function()
    assert.equal(server.pid, state:ping { payload = ("x"):rep(32768) })
    refuses("at most 32768 bytes, not 32769", state.ping, state, { payload = ("x"):rep(32769) })
  end)

  it("is not limited by the size of a frame", function()
    local large = ("0123456789"):rep(1000000)
    state.large = large
    assert.equal(large, other.large)
    assert.equal(#large, (zproc.atomic(function(snapshot, more) return #snapshot.large + #more end)(other, "")))
    assert.equal(large, other:pop "large")
  end)

  it("is one of many: twenty wait for as many keys, and each is woken by its own", function()
    local ctx <close> = zproc.context(address, NETWORK)
    local waiters = ctx:process_factory(function(own)
      local mine = zproc.atomic(function(snapshot)
        snapshot.waiting = (snapshot.waiting or 0) + 1
        return snapshot.waiting
      end)(own)
      return mine, own:get_when_equal("key " .. mine, mine)["key " .. mine]
    end, { count = 20 })
    state:get_when_equal("waiting", 20, { timeout = GENEROUS })
    for i = 1, 20 do other["key " .. i] = i end
    for _, one in ipairs(waiters) do
      local mine, got = one:wait(GENEROUS)
      assert.equal(mine, got)
    end
  end)

  it("is closed for those whose finalisers come after its own at the end of a program", function()
    local out <close> = support.run_script(([[
      local zproc = require "zproc"
      local state
      older = setmetatable({}, { __gc = function()
        print(select(2, pcall(function() return state.key end)).message)
        print(select(2, pcall(state.update, state, { key = 1 })).message)
      end })
      state = zproc.state(%q, { transport = "network" })
      print(state.key)
    ]]):format(address))
    assert.equal("nil\nthis State is closed\nthis State is closed\n", out:read "a")
  end)
end)
