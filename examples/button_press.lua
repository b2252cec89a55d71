-- Button press: was it a long or a short one? A process calls the handler whenever the button is pressed; the handler waits half
-- a second for the release. Here a script presses the button; it could be a pin or a socket.
--
-- Output:
--   button pressed
--   its a SHORT press
--   button is released
--   button pressed
--   its a LONG press
--   button is released

local zproc = require "zproc"

local ctx = zproc.context()
local state = ctx.state
state.button = false

local LONG <const> = 0.5 -- seconds

-- live: a press that nobody reacted to in time is of no interest to a person.
ctx:call_when_equal("button", true, function(_, own)
  print "button pressed"
  own.noted = (own.noted or 0) + 1
  local released = own:get_when_equal("button", false, { timeout = LONG })
  if released then
    print "its a SHORT press"
  else
    print "its a LONG press"
    own:get_when_equal("button", false)
  end
  print "button is released"
  io.stdout:flush()
  own.handled = (own.handled or 0) + 1
end, { live = true })

local reader = ctx:process(function(own)
  own.button = true
  own:get_when_equal("noted", 1) -- hold it until somebody has noticed
  own.button = false
  own:get_when_equal("handled", 1)

  own.button = true
  zproc.sleep(LONG * 2)
  own.button = false
  own:get_when_equal("handled", 2)
end)

reader:wait()
