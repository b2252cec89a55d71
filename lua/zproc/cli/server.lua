--- zproc server: a state server in the foreground.

local core = require "zproc.core"
local failure = require "zproc.cli.failure"
local server = require "zproc.server"

local command = {
  usage = "server [--bind ADDRESS ...] [...]",
  summary = "keep a state at an address until a signal ends it",
}

local help = [=[
usage: zproc server [--bind ADDRESS ...] [--data-dir DIR [--sync never|interval|always]] [--secret-key-file FILE] [--insecure]

Start a server, print its addresses, and keep it until SIGTERM, SIGINT or SIGHUP. Its state begins empty and is gone with it, unless
there is a data directory.

  --bind ADDRESS   ipc:///path/of/a/socket, tcp://127.0.0.1:7000, tcp://*:7000; a port * is any that is free. May be given several
                   times, for one ipc:// address and any TCP addresses. Without it a random address on this machine
  --data-dir DIR   keep the state in this directory, and go on with what is in it: it survives the end of the server, however it ends,
                   with every update that was acknowledged
  --sync MODE      what a power failure may cost: always: nothing, and each update waits for the disk; interval (the default): what
                   came after the last snapshot, which is taken every second or, if it is large, less often; never: everything
  --secret-key-file FILE
                   the key that clients need, and that all they say is encrypted with; or $ZPROC_SECRET_KEY. Without a key a server
                   listens at addresses of this machine alone
  --insecure       listen at other addresses without a key: whoever can reach them can run code here
]=]

--- The options that take a value, and where it goes.
local TAKES_VALUE <const> = { ["--bind"] = "address", ["--data-dir"] = "data_dir", ["--sync"] = "sync" }
local SYNC <const> = { never = true, interval = true, always = true }

--- Read the arguments: a table of them, or nil and what is wrong with them.
local function parse(arguments)
  local given, i = { bind = {} }, 1
  while arguments[i] do
    local option, value = arguments[i], arguments[i + 1]
    local name = TAKES_VALUE[option]
    if option == "--insecure" then
      given.insecure = true
      i = i + 1
    else
      if not name then return nil, ("unknown argument '%s'"):format(option) end
      if not value then return nil, ("%s takes %s"):format(option, option == "--bind" and "an address" or "a value") end
      if name == "address" then
        table.insert(given.bind, value)
      else
        if given[name] then return nil, ("one %s is enough"):format(option) end
        given[name] = value
      end
      i = i + 2
    end
  end
  if given.sync and not SYNC[given.sync] then return nil, "--sync is never, interval or always" end
  if given.sync and not given.data_dir then return nil, "--sync goes with --data-dir" end
  return given
end

--- Keep a server until a signal ends it.
---@param arguments string[]
---@return integer status
function command.run(arguments)
  if arguments[1] == "--help" then
    io.write(help)
    return 0
  end
  local given, wrong = parse(arguments)
  if not given then
    return failure.of_usage("server", wrong)
  end
  local ok, kept = pcall(server.start, "server", given.bind, given)
  if not ok then return failure.of(kept) end
  for _, address in ipairs(kept.server_addresses) do print(address) end
  io.stdout:flush()
  core.await_termination()
  kept:stop()
  return 0
end

return command
