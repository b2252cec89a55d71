--- What the kernel says about processes and memory, for the benchmarks.

local procfs = {}

local function read(path)
  local file <close> = io.open(path)
  return file and file:read "a" or ""
end

--- "S": it sleeps; "R": it runs; "Z": it has ended; nil: there is none. And the rest of its line, from the fourth field on.
---@param pid integer
---@return string?, string?
function procfs.stat(pid)
  return read(("/proc/%d/stat"):format(pid)):match "^.*%) (%u) (.*)"
end

--- Clock ticks of CPU time, user and system, that a process has used: what "idle" is held against.
---@param pid integer
---@return integer
function procfs.ticks(pid)
  local fields = {}
  for field in select(2, procfs.stat(pid)):gmatch "%S+" do fields[#fields + 1] = field end
  return fields[11] + fields[12]
end

--- Milliseconds of CPU time, more finely than ticks of 10 ms, from kernels that count them so (else from the ticks).
---@param pid integer
---@return number
function procfs.cpu(pid)
  local nanoseconds = read(("/proc/%d/schedstat"):format(pid)):match "^%d+"
  return nanoseconds and nanoseconds / 1e6 or procfs.ticks(pid) * 10
end

--- Wait until all processes of a list sleep; raises if one has ended.
---@param pids integer[]
---@param sleep fun(seconds: number)
function procfs.settle(pids, sleep)
  for _, pid in ipairs(pids) do
    while true do
      local now = procfs.stat(pid)
      assert(now and now ~= "Z", "a process that should wait has ended")
      if now == "S" then break end
      sleep(0.001)
    end
  end
end

--- Kilobytes of memory of a process, what it shares with others divided by their number.
---@param pid integer
---@return integer
function procfs.proportional(pid)
  return math.tointeger(read(("/proc/%d/smaps_rollup"):format(pid)):match "\nPss:%s+(%d+)") or 0
end

--- Kilobytes that the files of a directory take.
---@param path string
---@return integer
function procfs.disk_usage(path)
  local pipe <close> = assert(io.popen("du -sk " .. path))
  return math.tointeger(pipe:read "a":match "^%d+")
end

--- Kilobytes of memory that processes can still have, and of all that there is.
---@return integer, integer
function procfs.memory()
  local info = read "/proc/meminfo"
  return math.tointeger(info:match "MemAvailable:%s+(%d+)"), math.tointeger(info:match "MemTotal:%s+(%d+)")
end

return procfs
