-- The Mandelbrot set as a picture: each row is an item, and what takes long (rows through the set) holds nobody up. Writes a PPM file:
--   zproc run examples/mandelbrot.lua [FILE [WIDTH]]
--
-- Output:
--   300 x 200 points, 18% of them within the set
--   a picture of 180015 bytes

local zproc = require "zproc"

local path, width = arg[1], tonumber(arg[2]) or 300
local height = width * 2 // 3
local ROUNDS <const> = 200

--- One row of the picture, as bytes, and how many of its points are in the set.
local function row(y, w, h)
  local pixels, inside = {}, 0
  local ci = (y / (h - 1) - 0.5) * 2.4
  for x = 0, w - 1 do
    local cr = x / (w - 1) * 3.6 - 2.4
    local zr, zi, round = 0.0, 0.0, 0
    while round < ROUNDS and zr * zr + zi * zi < 4 do
      zr, zi, round = zr * zr - zi * zi + cr, 2 * zr * zi + ci, round + 1
    end
    if round == ROUNDS then
      inside = inside + 1
      pixels[x + 1] = "\0\0\0"
    else
      pixels[x + 1] = string.char(round * 9 % 256, round * 5 % 256, 80 + round * 3 % 176)
    end
  end
  return { table.concat(pixels), inside }
end

local ctx = zproc.context()

local parts, inside = { ("P6 %d %d 255\n"):format(width, height) }, 0
for _, line in ctx:process_map(row, zproc.range(0, height - 1), { args = { width, height }, progress = path ~= nil }) do
  parts[#parts + 1] = line[1]
  inside = inside + line[2]
end
local picture = table.concat(parts)

local target = path or os.tmpname()
local file = assert(io.open(target, "wb"))
assert(file:write(picture))
file:close()
if not path then os.remove(target) end
print(("%d x %d points, %.0f%% of them within the set"):format(width, height, inside / (width * height) * 100))
print(("a picture of %d bytes"):format(#picture))
