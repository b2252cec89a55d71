--- zproc repl: try things out. On a terminal with history and completion, and whatever goes wrong it goes on; otherwise it reads standard
--- input to its end, and stops at what goes wrong.

local complete = require "zproc.cli.complete"
local core = require "zproc.core"
local environment = require "zproc.cli.environment"
local errors = require "zproc.errors"
local failure = require "zproc.cli.failure"
local open = require "zproc.cli.open"
local out = require "zproc.cli.out"
local program = require "zproc.cli.program"
local runtime = require "zproc.runtime"
local signal = require "zproc.signal"

local command = {
  usage = "repl [ADDRESS]",
  summary = "try things out: an interactive Lua with `state` and `ctx` at hand",
  arguments = {
    options = open.STATE_OPTIONS,
    operands = { "address" },
  },
}

command.help = [[
usage: zproc repl [ADDRESS] [--namespace NAME] [--transport auto|network] [--secret-key-file FILE]

Read Lua code, run it, and print what it returns, or the value of an expression, until the end of input (^D). Code may go over several
lines. `zproc` is at hand, as are `ctx`, a Context, and `state`, its State: of the server at the address or, without one, with a server of
their own, which ends with the repl. A local variable lives for one piece of code; what is to stay is a global.

On a terminal the tabulator key completes names, and ^C ends what runs, or gives up what was typed. What was entered is kept in
~/.zproc_history, or the file that $ZPROC_HISTORY names; if that is empty, nowhere. Without a terminal, what goes wrong ends it with status 1.
]]

local NAME <const> = "repl" -- of the code in messages
local PROMPT <const>, MORE_PROMPT <const> = "> ", ">> "

--- The next piece of code, from as many lines as it takes: a function; or nil and what is wrong with it; nothing at the end of input.
---@param read_line fun(prompt: string): string?
---@param first integer? the number of its first line
local function read_chunk(read_line, first)
  local code = read_line(PROMPT)
  if not code then return end
  while true do
    local chunk, wrong = environment.compile(code, NAME, first)
    if chunk or not wrong:find "<eof>$" then return chunk, wrong end
    local line = read_line(MORE_PROMPT)
    if not line then return nil, wrong end
    code = code .. "\n" .. line
  end
end

--- Print what a piece of code has returned.
local function show(...)
  local parts = table.pack(...)
  for i = 1, parts.n do parts[i] = environment.describe(parts[i]) end
  if parts.n > 0 then print(table.concat(parts, "\t")) end
end

--- A line of standard input; nil at its end. Raises if it cannot be read, which is no end.
local function read_input()
  local line, wrong = io.read "l"
  if not line and wrong then error(("cannot read stdin: %s"):format(wrong), 0) end
  return line
end

--- Without a terminal: run what there is, unless something is no Lua. Raises what it raises.
---@return integer status
local function run_all()
  local lines = 0
  local function read_line()
    lines = lines + 1
    return read_input()
  end
  while true do
    local chunk, wrong = read_chunk(read_line, lines + 1)
    if chunk then
      show(chunk())
      if not out.is_taken() then return failure.FAILED end
    elseif wrong then
      runtime.say(wrong)
      return failure.FAILED
    else
      return 0
    end
  end
end

--- Where the history is kept; nil: nowhere.
local function history_file()
  local path, home = os.getenv "ZPROC_HISTORY", os.getenv "HOME"
  if path then return path ~= "" and path or nil end
  return home and home ~= "" and home .. "/.zproc_history" or nil
end

--- How lines are read from a terminal.
local function open_terminal()
  local ok, err = pcall(core.open_editor, history_file())
  if ok then
    return function(prompt)
      local line = core.read_line(prompt, complete)
      if line then core.note_line(line) end
      return line
    end
  end
  runtime.say(("repl: %s (Debian: libedit2)"):format(err.message))
  return function(prompt)
    io.write(prompt)
    io.stdout:flush()
    return read_input()
  end
end

--- Report what was raised; the exit status, if that is the end.
local function report(result)
  local raised = result.raised
  if errors.is(raised, "ProcessExit") then return raised.status end
  if errors.is(raised, "SignalError") then
    runtime.say(tostring(raised))
  else
    runtime.say(result.text)
  end
end

--- On a terminal. ^C is for what runs just then; a second one, if that does not listen, ends the whole.
local function converse()
  local read_line = open_terminal()
  print(("zproc %s (%s): zproc, ctx and state are at hand; ^D ends"):format(core.version, _VERSION))
  while true do
    signal.end_by "SIGINT"
    local ok, chunk, wrong = pcall(read_chunk, read_line)
    if not ok then
      if not errors.is(chunk, "SignalError") then error(chunk, 0) end
    elseif chunk then
      local ran, result = xpcall(function() show(chunk()) end, program.report)
      local status = not ran and report(result)
      if status then return status end
    elseif wrong then
      runtime.say(wrong)
    else
      print()
      return 0
    end
  end
end

--- Converse, or run what there is.
---@param given { address: string?, namespace: string?, transport: string? }
---@return integer status
function command.run(given)
  arg = { [0] = NAME }
  local ok, err = pcall(function()
    environment.install(given)
    return ctx -- made now, so that its names are there to be completed
  end)
  if not ok then return failure.of(err) end
  if core.is_terminal(0) and core.is_terminal(1) then return program.finish(converse()) end
  local status
  local failed = program.run(function() status = run_all() end)
  return failed ~= 0 and failed or status
end

return command
