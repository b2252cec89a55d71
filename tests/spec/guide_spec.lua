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

describe("the figure of the README", function()
  local function read(path)
    local file <close> = assert(io.open(source .. "/" .. path))
    return file:read "a"
  end
  local figure, page = read "docs/figure.svg", read "docs/performance.md"

  it("has numbers of docs/performance.md, and bars as long as its scale says", function()
    local at = {} -- where the lines of its scale are
    for x, number in figure:gmatch '<line x1="(%d+)"[^>]*/><text [^>]*>([%d.]+) µs</text>' do at[tonumber(number)] = tonumber(x) end
    local bars = 0
    for x, width, who, number in figure:gmatch '<rect [^>]*x="(%d+)"[^>]*width="(%d+)"[^>]*/><text [^>]*>(%a+) [%a ]-([%d.]+)</text>' do
      bars = bars + 1
      local cell = who == "zproc" and "| " .. number .. " µs |" or ": " .. number .. " µs |"
      assert.is_truthy(page:find(cell, 1, true), cell .. " is not in docs/performance.md")
      assert.near(at[0.1] + (at[100] - at[0.1]) * (math.log(tonumber(number), 10) + 1) / 3, x + width, 1.5)
    end
    assert.equal(6, bars)
  end)
end)
