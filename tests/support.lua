--- What several specs use: local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")

local assert = require "luassert"
local core = require "zproc.core"
local zproc = require "zproc"

local support = {}

support.GENEROUS = 120 -- seconds; a limit, not an expectation

--- Wait until fn() gives something; returns that.
---@param what string for the message
function support.eventually(what, fn)
  local limit = core.clock() + support.GENEROUS
  while true do
    local result = fn()
    if result then return result end
    if core.clock() > limit then error("never: " .. what) end
    core.sleep(0.001)
  end
end

--- Send a signal, by default SIGKILL.
---@param pid integer|string
---@param signal string?
function support.kill(pid, signal) os.execute(("kill -%s %s"):format(signal or "KILL", pid)) end

--- Whether there is a process, and it is no zombie.
---@param pid integer|string
function support.is_running(pid)
  local file <close> = io.open(("/proc/%s/stat"):format(pid))
  local about = file and file:read "a" -- nothing if it has just ended
  local state = about and about:match "%) (%a)"
  return state ~= nil and state ~= "Z"
end

--- What runs a script, as words of the shell: the executable, or lua5.4 with the module if that is what this spec runs in.
function support.runner()
  if os.getenv "ZP_TEST_HOST" then return support.quote(os.getenv "SRCDIR" .. "/tests/run-lua") end
  return support.quote(os.getenv "ZPROC") .. " run"
end

--- Start a script as a program of its own, unrelated to this process; returns the open pipe with its output, stderr included.
---@param source string
function support.run_script(source, ...)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(source)
  file:close()
  local words = { support.runner(), path }
  for _, word in ipairs { ... } do words[#words + 1] = support.quote(word) end
  -- The shell says that it was killed, if it was, to somebody who may have closed the pipe already.
  return assert(io.popen("trap '' PIPE; (trap - PIPE; exec " .. table.concat(words, " ") .. ") 2>&1; rm -f " .. path))
end

--- A text as one word of the shell.
function support.quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- The call must raise an error object whose text contains the words; returns it.
---@param words string
---@param fn function
---@return zproc.Error
function support.refuses(words, fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok, "no error was raised")
  assert.is_true(zproc.is_error(err), "not an error object: " .. tostring(err))
  assert.is_truthy(tostring(err):find(words, 1, true), ("%q is not in %q"):format(words, tostring(err)))
  return err
end

return support
