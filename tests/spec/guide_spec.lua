-- Every block of code of the user guide is a script that prints what stands behind its arrows.

local source = assert(os.getenv "SRCDIR")

local support = dofile(source .. "/tests/support.lua")

--- The Lua blocks of a page, each with the heading above it and the output that it promises.
local function blocks(path)
  local found, heading, current = {}, "", nil
  for line in io.lines(path) do
    if current and line == "```" then
      found[#found + 1] = current
      current = nil
    elseif current then
      current.code[#current.code + 1] = line
      current.output[#current.output + 1] = line:match "%-%-> (.*)$"
    elseif line == "```lua" then
      current = { heading = heading, code = {}, output = {} }
    end
    heading = line:match "^#+ (.*)$" or heading
  end
  return found
end

local function check_page(page)
  for i, block in ipairs(blocks(source .. "/" .. page)) do
    it(("%s, block %d (%s)"):format(page, i, block.heading), function()
      local path = os.tmpname()
      local script <close> = assert(io.open(path, "w"))
      script:write(table.concat(block.code, "\n"))
      script:close()
      local run = assert(io.popen(support.runner() .. " " .. support.quote(path) .. " 2>/dev/null"))
      local output = run:read "a"
      local ok = run:close()
      os.remove(path)
      assert.is_true(ok, "the script failed")
      assert.equal(table.concat(block.output, "\n"), (output:gsub("\n$", "")))
    end)
  end
end

describe("the documentation is true:", function()
  check_page "README.md"
  check_page "docs/guide.md"
end)
