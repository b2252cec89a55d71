-- What travels: every kind of value, through the state and back, also in another process.
local zproc = require "zproc"
local core = require "zproc.core"

local function round(value) return core.decode(core.encode(value)) end

local function refuses(words, value)
  local ok, err = pcall(core.encode, value, "value")
  assert.is_false(ok, "no error was raised")
  assert.equal("EncodeError", err.name)
  assert.is_truthy(err.message:find(words, 1, true), ("%q is not in %q"):format(words, err.message))
end

describe("the codec", function()
  it("carries scalars to the bit", function()
    for _, value in ipairs { true, false, 0, -1, math.maxinteger, math.mininteger, 0.0, -0.0, 1.0, 0.1, math.huge, -math.huge,
      5e-324, 2 ^ 53, "", "text", "\0\255", ("long"):rep(1000), zproc.null } do
      local back = round(value)
      assert.equal(value, back)
      assert.equal(math.type(value), math.type(back))
      if math.type(value) == "float" then assert.equal(string.pack("<d", value), string.pack("<d", back)) end
    end
    assert.is_nil(round(nil))
    local nan = round(0 / 0)
    assert.is_true(nan ~= nan)
  end)

  it("carries tables, shared and cyclic ones too", function()
    local shared = { 1 }
    local t = { a = shared, b = shared, list = { 1, 2, nil, 4 }, [1.5] = true, [false] = 0 }
    t.self = t
    local back = round(t)
    assert.is_true(rawequal(back.a, back.b))
    assert.is_true(rawequal(back.self, back))
    assert.equal(4, back.list[4])
    assert.is_true(back[1.5])
    assert.equal(0, back[false])
  end)

  it("gives equal values equal bytes, in whatever order they were built", function()
    local a, b = {}, {}
    for i = 1, 50 do a["k" .. i] = i end
    for i = 50, 1, -1 do b["k" .. i] = i end
    for i = 1, 20 do a[i] = i end
    for i = 20, 1, -1 do b[i] = i end
    a.gone = 1
    a.gone = nil
    assert.equal(core.encode(a), core.encode(b))
  end)

  it("carries metatables", function()
    local Point = { __add = function(p, q) return p.x + q.x end }
    Point.__index = Point
    function Point:double() return self.x * 2 end
    local back = round(setmetatable({ x = 4 }, Point))
    assert.equal(8, back:double())
    assert.equal(8, back + back)
  end)

  it("carries functions with their upvalues, shared ones shared", function()
    local n = 10
    local counter = { up = function() n = n + 1 return n end, get = function() return n end }
    local back = round(counter)
    assert.equal(11, back.up())
    assert.equal(11, back.get())
    assert.equal(10, n)
  end)

  it("carries recursive functions", function()
    local function fib(k) return k < 2 and k or fib(k - 1) + fib(k - 2) end
    assert.equal(55, round(fib)(10))
  end)

  it("carries library functions and modules by name", function()
    assert.equal(string.format, round(string.format))
    assert.equal(print, round(print))
    assert.equal(string, round(string))
    assert.equal(zproc, round(zproc))
    local format, s = string.format, string
    local f = round(function(x) return format("%d", x) .. s.rep("a", 2) end)
    assert.equal("5aa", f(5))
  end)

  it("carries the script's globals that a function uses", function()
    -- In a script of its own: the globals of a spec are not the globals of the VM.
    local path = os.tmpname()
    local script = assert(io.open(path, "w"))
    script:write [[
      local core = require "zproc.core"
      factors = { factor = 3 }
      function helper(x) return x * factors.factor end
      function recursive(k) return k == 0 and 0 or 1 + recursive(k - 1) end
      unsendable = io.stdout -- not used by what travels, so no obstacle
      local user, deep = core.encode(function(x) return helper(x) end), core.encode(recursive)
      helper, factors, recursive = nil, nil, nil
      print(core.decode(user)(5), core.decode(deep)(5), helper, factors, recursive)
      print(pcall(core.encode, function() return unsendable end))
    ]]
    script:close()
    local run = assert(io.popen(("'%s' run '%s' 2>&1"):format(os.getenv "ZPROC", path)))
    local output = run:read "a"
    os.remove(path)
    assert.is_true(run:close(), output)
    assert.is_truthy(output:find("15\t5\tnil\tnil\tnil\n", 1, true), output)
    assert.is_truthy(output:find("unsendable", 1, true), output)
    assert.is_truthy(output:find("cannot send a userdata (FILE*)", 1, true), output)
  end)

  it("carries atomic functions", function()
    local ctx <close> = zproc.context()
    ctx.state.count = 1
    round(zproc.atomic(function(snapshot) snapshot.count = snapshot.count + 1 end))(ctx.state)
    assert.equal(2, ctx.state.count)
  end)

  it("names what cannot travel by its path", function()
    refuses("value: cannot send a userdata (FILE*)", io.stdout)
    refuses("value.a[2].b: cannot send a userdata (FILE*)", { a = { 1, { b = io.stdout } } })
    refuses("value.co: cannot send a coroutine", { co = coroutine.create(print) })
    refuses("log", (function()
      local log = io.stdout
      return function() return log end
    end)())
    local deep = {}
    for _ = 1, 100000 do deep = { deep } end
    refuses("nested", deep)
  end)

  it("refuses bytes that are none", function()
    for _, bytes in ipairs { "", "x", "\255\255\255", core.encode({ 1, 2, 3 }):sub(1, -2), core.encode(1) .. "x" } do
      local ok, err = pcall(core.decode, bytes)
      assert.is_false(ok)
      assert.equal("DecodeError", err.name)
    end
  end)

  it("carries functions and classes into the state and to other processes", function()
    local ctx <close> = zproc.context()
    local base = 100
    ctx.state.fn = function(x) return x + base end
    base = 0
    assert.equal(105, ctx:process(function(state) return state.fn(5) end):wait())
    assert.equal(105, ctx.state.fn(5))
  end)
end)
