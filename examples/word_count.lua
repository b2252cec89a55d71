-- Word count: the lines of text files, read by an iterator and so never all in memory, are counted by workers in batches, and the counts
-- are added up as they come. By default it reads this project's own pages:
--   zproc run examples/word_count.lua [FILE ...]
--
-- Output:
--   the most frequent word: the
--   counted by one process alone it is the same: true

local zproc = require "zproc"

local root = (arg[0]:match "^(.*)/" or ".") .. "/.."
local files = #arg > 0 and arg or { root .. "/README.md", root .. "/docs/guide.md", root .. "/docs/architecture.md" }

--- An iterator over batches of lines of all the files.
local function batches(size)
  return coroutine.wrap(function()
    for _, path in ipairs(files) do
      local batch = {}
      for line in io.lines(path) do
        batch[#batch + 1] = line
        if #batch == size then
          coroutine.yield(batch)
          batch = {}
        end
      end
      if #batch > 0 then coroutine.yield(batch) end
    end
    coroutine.yield(nil)
  end)
end

local function count(lines)
  local words = {}
  for _, line in ipairs(lines) do
    for word in line:lower():gmatch "%a+" do words[word] = (words[word] or 0) + 1 end
  end
  return words
end

local function add(total, words)
  for word, n in pairs(words) do total[word] = (total[word] or 0) + n end
end

local ctx = zproc.context()

local total = {}
for _, words in ctx:process_map(count, batches(50)) do add(total, words) end

local alone = {}
for batch in batches(50) do add(alone, count(batch)) end

local best, same = "", true
for word, n in pairs(alone) do
  same = same and total[word] == n
  if best == "" or n > alone[best] then best = word end
end
print("the most frequent word: " .. best)
print("counted by one process alone it is the same: " .. tostring(same))
