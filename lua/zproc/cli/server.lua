--- zproc server: a state server in the foreground.

local core = require "zproc.core"
local arguments = require "zproc.cli.arguments"
local errors = require "zproc.errors"
local failure = require "zproc.cli.failure"
local out = require "zproc.cli.out"
local server = require "zproc.server"

local command = {
  usage = "server [--bind ADDRESS ...] [...]",
  summary = "keep a state at an address until a signal ends it",
  arguments = {
    options = {
      ["--bind"] = { takes = "an address", many = true },
      ["--data-dir"] = { takes = "a value" },
      ["--sync"] = { takes = "a value", read = arguments.choice("never", "interval", "always") },
      ["--restore"] = { takes = "a value", read = arguments.choice("data", "snapshot") },
      ["--insecure"] = {},
    },
  },
}

command.help = [=[
usage: zproc server [--bind ADDRESS ...] [--data-dir DIR [--sync never|interval|always] [--restore snapshot|data]]
       [--secret-key-file FILE] [--insecure] [--allow-user NAME]

Start a server, print its addresses, and keep it until SIGTERM, SIGINT or SIGHUP. Its state begins empty and is gone with it, unless
there is a data directory.

  --bind ADDRESS   ipc:///path/of/a/socket, tcp://127.0.0.1:7000, tcp://*:7000; a port * is any that is free. May be given several
                   times, for one ipc:// address and any TCP addresses. Without it a random address on this machine
  --data-dir DIR   keep the state in this directory, and go on with what is in it: it survives the end of the server, however it ends,
                   with every update that was acknowledged
  --sync MODE      what a power failure may cost: always: nothing, and each update waits for the disk; interval (the default): what
                   came after the last snapshot, which is taken every second or, if it is large, less often; never: everything
  --restore WHAT   where the data are missing, damaged, or not as they were left, a server does not start, and says what is wrong. With
                   snapshot it goes on from the snapshot that is there, and data.mdb is kept as data.damaged; with data from data.mdb as it
                   is, if that is whole
  --secret-key-file FILE
                   the key that clients need, and that all they say is encrypted with; or $ZPROC_SECRET_KEY. Without a key a server
                   listens at addresses of this machine alone
  --allow-user NAME
                   use a data directory, or files in it, of this user. Otherwise they have to be your own, even if you are root
  --insecure       listen at other addresses without a key: whoever can reach them can run code here
]=]

--- An error of the API, which speaks of options of the API.
local function in_own_words(err)
  if errors.is(err, "UsageError") then
    err.message = err.message:gsub("a secret_key", "--secret-key-file"):gsub("insecure = true", "--insecure")
  elseif errors.is(err, "SystemError") then
    err.message = err.message:gsub('restore = "(%l+)"', "--restore %1")
  end
  return err
end

--- Keep a server until a signal ends it.
---@param given { bind: string[]?, data_dir: string?, sync: string?, restore: string?, insecure: boolean? }
---@return integer status
function command.run(given)
  if given.sync and not given.data_dir then return failure.of_usage("--sync goes with --data-dir") end
  if given.restore and not given.data_dir then return failure.of_usage("--restore goes with --data-dir") end
  local ok, kept = pcall(server.start, "server", given.bind or {}, given)
  if not ok then return failure.of(in_own_words(kept)) end
  core.hold_termination() -- whoever reads the address may send a signal at once, and then, too, the data are to be closed in order
  for _, address in ipairs(kept.server_addresses) do print(address) end
  local is_known = out.is_taken() -- or nobody may know where it is
  if is_known then core.await_termination() end
  kept:stop()
  return is_known and 0 or failure.FAILED
end

return command
