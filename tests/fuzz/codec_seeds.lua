-- codec_seeds -- writes the seeds from which codec_fuzz.c starts: what the codec makes of values of every kind, one file each.
--
--   zproc run tests/fuzz/codec_seeds.lua [DIRECTORY]     (tests/fuzz/corpus/codec unless told)
--
-- To be run again when the format changes; tests/static/seeds.sh says when that was forgotten. There are no functions among them: they hold
-- bytecode, which is another with each Lua, and from strangers the decoder takes none.

local core = require "zproc.core"
local zproc = require "zproc"

local VALUE <const>, KEY <const> = "\0", "\1" -- the first byte, by which codec_fuzz.c knows what follows

local directory = arg[1] or "tests/fuzz/corpus/codec"

local function write(name, bytes)
  local file <close> = assert(io.open(directory .. "/" .. name, "wb"))
  assert(file:write(bytes))
end

local function cyclic()
  local t = { 1, 2 }
  t.self, t[3] = t, { t }
  return t
end

local function shared()
  local inner = { "inner" }
  return { inner, inner, a = inner, [inner] = true }
end

local function nested(depth)
  local t = {}
  for _ = 1, depth do t = { t } end
  return t
end

local function mixed()
  return { "a", 2, 3.5, false, [1.5] = 1, [-7] = 2, [false] = 3, [true] = 4, z = zproc.null, ["\0"] = "", [2 ^ 53] = {} }
end

local values = {
  ["false"] = false,
  ["true"] = true,
  null = zproc.null,
  ["float"] = 0.1,
  ["float-nan"] = string.unpack("<d", "\0\0\0\0\0\0\xf8\x7f"), -- what 0 / 0 is, down to its sign, depends on the machine
  ["float-negative-zero"] = -0.0,
  ["integer-8"] = -128,
  ["integer-16"] = 32767,
  ["integer-32"] = -2147483648,
  ["integer-64"] = math.mininteger,
  ["integer-small"] = 111,
  ["string-binary"] = "\0\255\n",
  ["string-empty"] = "",
  ["string-long"] = ("0123456789abcdef"):rep(9),
  ["string-short"] = "apples",
  ["table-array"] = { 1, 2, 300, "four", { 5 } },
  ["table-cyclic"] = cyclic(),
  ["table-empty"] = {},
  ["table-metatable"] = setmetatable({ 1 }, { __name = "Point", x = 1 }),
  ["table-mixed"] = mixed(),
  ["table-nested"] = nested(40),
  ["table-object-keys"] = { [{ 1 }] = 1, [{ 2 }] = 2, [{}] = 3 },
  ["table-pairs"] = { a = 1, b = { c = "d" }, jobs = { { file = "x" } } },
  ["table-shared"] = shared(),
  ["table-shared-metatable"] = (function()
    local meta = { __name = "Shared" }
    return { setmetatable({}, meta), setmetatable({}, meta), meta }
  end)(),
}

for name, value in pairs(values) do write("value-" .. name, VALUE .. core.encode(value)) end
write("value-nil", VALUE .. core.encode(nil))

--- A number's rank among the keys of a state, as src/codec/key.c has it: its bits in an order that is that of the numbers.
local function rank(number)
  local bits = string.unpack(">i8", string.pack(">d", number))
  return string.pack(">i8", bits < 0 and ~bits or bits | math.mininteger)
end

local keys = {
  ["false"] = "\1",
  ["true"] = "\2",
  ["float"] = "\3" .. rank(1.5),
  ["float-infinite"] = "\3" .. rank(-math.huge),
  integer = "\3" .. rank(-7.0),
  ["integer-large"] = "\3" .. rank(2.0 ^ 53) .. string.pack(">i8", (1 << 53) + 1 ~ math.mininteger),
  ["string"] = "\4apples",
  ["string-binary"] = "\4\0\255",
  ["string-empty"] = "\4",
}

for name, bytes in pairs(keys) do write("key-" .. name, KEY .. bytes) end
