-- Secret keys: who has the key shares the state, who has not is turned away.
--
-- Output:
--   the key of the Context: muchsecret
--   attacker: AuthError
--   attacker with a guess: AuthError
--   friend: 5 gold

local zproc = require "zproc"

local server, address = zproc.start_server("tcp://127.0.0.1:*", { secret_key = "muchsecret" })

local home = zproc.context(address, { secret_key = "muchsecret" })
print("the key of the Context: " .. home.secret_key)
home.state.gold = 5

-- By the network, as if it were another machine. On this one zproc asks for the key, too; but there it guards against mistakes alone, as
-- the state is in files that are the user's own.
local _, err = pcall(zproc.context, address, { transport = "network" })
print("attacker: " .. err.name)
_, err = pcall(zproc.context, address, { transport = "network", secret_key = "123456" })
print("attacker with a guess: " .. err.name)

local friend = zproc.context(address, { transport = "network", secret_key = "muchsecret" })
print(("friend: %d gold"):format(friend.state.gold))

friend:close()
home:close()
server:stop()
