-- Every example does what its header says.

local source = assert(os.getenv "SRCDIR")

local support = dofile(source .. "/tests/support.lua")
local quote = support.quote

local function examples()
  local names = {}
  local listing <close> = assert(io.popen("ls " .. quote(source .. "/examples")))
  for name in listing:lines() do
    if name:find "%.lua$" then names[#names + 1] = name end
  end
  return names
end

--- The lines below "-- Output:" in the header of an example.
local function expected_output(path)
  local lines, within = {}, false
  for line in io.lines(path) do
    if not line:find "^%-%-" then break end
    if within then lines[#lines + 1] = line:match "^%-%-   (.*)$" end
    within = within or line == "-- Output:"
  end
  assert(#lines > 0, path .. " does not say what it prints")
  return table.concat(lines, "\n") .. "\n"
end

--- Run it as a command of the shell has it: by its path, or by its name where it is.
local function check(name, command)
  local run = assert(io.popen(command))
  local output = run:read "a"
  assert.is_true(run:close(), name .. " failed")
  assert.equal(expected_output(source .. "/examples/" .. name), output)
end

describe("the example", function()
  for _, name in ipairs(examples()) do
    it(name .. " prints what its header says", function()
      check(name, ("%s run %s"):format(quote(os.getenv "ZPROC"), quote(source .. "/examples/" .. name)))
    end)
    it(name .. " does so in lua5.4 and in its own directory, too", function()
      check(name, ("cd %s && %s %s"):format(quote(source .. "/examples"), quote(source .. "/tests/run-lua"), quote(name)))
    end)
  end
end)
