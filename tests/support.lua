--- What several specs use: local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")

local assert = require "luassert"
local zproc = require "zproc"

local support = {}

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
