-- What the user guide shows of a shell is what happens there.
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local zproc = require "zproc"

--- The console blocks of a page: each a list of commands with the output that they promise.
local function blocks(path)
  local found, current = {}, nil
  for line in io.lines(path) do
    if line == "```" then
      current = nil
    elseif line == "```console" then
      current = {}
      found[#found + 1] = current
    elseif current then
      local command = line:match "^%$ (.*)$"
      if command then current[#current + 1] = { command = command, output = "" }
      else current[#current].output = current[#current].output .. line .. "\n" end
    end
  end
  return found
end

describe("the user guide", function()
  local place, server

  before_each(function()
    place = os.tmpname()
    os.remove(place)
    server = zproc.start_server("ipc://" .. place)
  end)

  after_each(function() server:stop() end)

  for i, block in ipairs(blocks(os.getenv "SRCDIR" .. "/docs/guide.md")) do
    it("tells the truth about commands, block " .. i, function()
      assert.is_true(#block > 0)
      for _, step in ipairs(block) do
        local command = step.command:gsub("ipc:///tmp/place", function() return "ipc://" .. place end)
        local pipe = assert(io.popen(("zproc() { %s \"$@\"; }\n%s 2>&1"):format(support.quote(os.getenv "ZPROC"), command)))
        local output = pipe:read "a"
        assert.equal(step.output, output, step.command)
        assert.is_true(pipe:close(), step.command)
      end
    end)
  end
end)
