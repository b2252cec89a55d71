-- Static addresses: a server is started by hand, and Contexts and States find it by an address that everybody knows. On one
-- machine that is a path; tcp:// is for several machines, and works on one as well.
--
-- Output:
--   ipc: 5 apples, the server is the one that was started: true
--   tcp: 5 apples, the server is the one that was started: true
--   a second server at the same address: refused

local zproc = require "zproc"

local function share(address)
  local server, server_address = zproc.start_server(address)
  local transport = server_address:match "^%a+"

  local ctx = zproc.context(server_address)
  ctx.state.apples = 5

  -- This could be another program.
  local state = zproc.state(server_address)
  print(("%s: %d apples, the server is the one that was started: %s"):format(transport, state.apples,
    zproc.ping(server_address, { timeout = 60 }) == server.pid))
  ctx:close()
  return server, server_address
end

local path = os.tmpname() -- a name that nobody else has; the server makes the file
os.remove(path)

local server, server_address = share("ipc://" .. path)
share("tcp://127.0.0.1:*"):stop() -- any port that is free

local ok = pcall(zproc.start_server, server_address)
print("a second server at the same address: " .. (ok and "started" or "refused"))
server:stop()
