-- JSON, and the records of keys and values that are made of it.
local core = require "zproc.core"
local json = require "zproc.cli.json"
local records = require "zproc.cli.records"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")
local refuses = support.refuses

--- Whether two values are the same to the bit, down to the types of numbers.
local function same(a, b) return core.encode(a) == core.encode(b) end

describe("json", function()
  it("gives back what was written, to the bit", function()
    for _, value in ipairs {
      0, -1, math.maxinteger, math.mininteger, 9007199254740993, 0.5, 1.0, -0.0, 0.1, 1 / 3, 1e300, 5e-324, 2 ^ 53, 1e15, 123456789012345680.0,
      "", "text", 'q"\\/\n\r\t\b\f\0\127', "ünïcode \u{1F600}\u{9B}", true, false, core.null, {}, { 1, { 2, {} }, "x" },
      { a = 1, ["b c"] = { d = { 1.0, core.null } }, [""] = false },
    } do
      local text = json.encode(value, "it")
      local read, wrong = json.decode(text)
      assert.is_nil(wrong)
      assert.is_true(same(value, read), text)
    end
  end)

  it("has one text for equal values", function()
    assert.equal('{"a":[1,2.5,null],"b":{},"c":true}', json.encode({ c = true, b = {}, a = { 1, 2.5, core.null } }, "it"))
    assert.equal([["\"\\\u0001\n\u007fé"]], json.encode("\"\\\1\n\127é", "it"))
    assert.equal("\"\\u0080\\u009b\u{A0}31m\"", json.encode("\u{80}\u{9B}\u{A0}31m", "it"))
  end)

  it("reads what others write", function()
    assert.same({ a = { 1, 2 }, b = "x/y" }, (json.decode ' { "a" : [ 1 , 2 ] ,\r\n\t"b":"x\\/y" } '))
    assert.equal("\u{1F600}é\b\f", (json.decode [["\ud83d\ude00\u00E9\b\f"]]))
    assert.equal("float", math.type(json.decode "1e2"))
    assert.equal("integer", math.type(json.decode "-9223372036854775808"))
  end)

  it("names what it cannot write, and where that is", function()
    local cycle = {}
    cycle.me = { cycle }
    local deep = {}
    for _ = 1, 2000 do deep = { deep } end
    refuses("state.jobs[2].f: JSON has no functions", json.encode, { jobs = { 1, { f = print } } }, "state")
    refuses('state["a b"]: JSON has no inf', json.encode, { ["a b"] = math.huge }, "state")
    refuses("it: JSON has no nan", json.encode, 0 / 0, "it")
    refuses("it[1]: JSON has no strings of bytes that are not UTF-8", json.encode, { "\xff" }, "it")
    refuses("it: JSON has no keys that are no strings, such as 2", json.encode, { [2] = 2, x = 1 }, "it")
    refuses("it.list: JSON has no arrays with holes: there is [4], but not [2]", json.encode, { list = { 1, nil, 3, 4 } }, "it")
    refuses("it: JSON has no arrays with holes: there is [2], but not [1]", json.encode, { [2] = 2 }, "it")
    refuses("it: JSON has no keys that are no strings, such as true", json.encode, { [true] = 1 }, "it")
    refuses("it.me[1]: JSON has no tables that contain themselves", json.encode, cycle, "it")
    local err = refuses("it is nested more than 1000 deep, the most that is written as JSON", json.encode, deep, "it")
    assert.is_truthy(err.message:find "^it%[1%]%[1%].*%.%.%..*%[1%]: ")
    assert.is_true(#err.message < 300)
  end)

  it("says what is wrong with a text", function()
    for text, wrong in pairs {
      [""] = "no value at byte 1", ["abc"] = "no value at byte 1", ["01"] = "no value at byte 1", ["+1"] = "no value at byte 1",
      ["nul"] = "no value at byte 1", ["1 2"] = "something behind the value at byte 3", ["1."] = "something behind the value at byte 2",
      ["[1,]"] = "no value at byte 4", ["[1 2]"] = "neither , nor ] in an array at byte 4", ["[1"] = "neither , nor ] in an array at byte 3",
      ["{1:2}"] = "no key, which is a string, at byte 2", ['{"a" 1}'] = "no : behind a key at byte 6",
      ['{"a":1,}'] = "no key, which is a string, at byte 8", ['{"a":1'] = "neither , nor } in an object at byte 7",
      ['"a'] = "a string without an end at byte 3", ['"\n"'] = "a control character in a string at byte 2",
      [ [["\x"]] ] = "an unknown escape in a string at byte 3", [ [["\u12"]] ] = "\\u takes four hexadecimal digits at byte 4",
      [ [["\ud800"]] ] = "half of a surrogate pair at byte 8", [ [["\udc00\udc00"]] ] = "half of a surrogate pair at byte 8",
      ["1e999"] = "a number that is too large at byte 1", ["[1e-999]"] = "a number that is too small at byte 2",
      ["9223372036854775808"] = "an integer that takes more than 64 bits at byte 1",
      ["-9223372036854775809"] = "an integer that takes more than 64 bits at byte 1",
      ["18446744073709551615e0"] = "an integer that takes more than 64 bits at byte 1",
      ["92233720368547758080e-1"] = "an integer that takes more than 64 bits at byte 1",
      ['{"a":[1,{"b":100000000000000000000}]}'] = "an integer that takes more than 64 bits at byte 14", ['"\xff"'] = "no UTF-8 at byte 2",
      [("["):rep(2000)] = "more than 1000 arrays and objects within each other, the most that is read, at byte 1002",
    } do
      local value, said = json.decode(text)
      assert.is_nil(value)
      assert.equal(wrong, said)
    end
  end)
end)

describe("a number", function()
  it("is an integer to the bit, or a float, and never the one for the other", function()
    for text, number in pairs {
      ["9223372036854775807"] = math.maxinteger, ["-9223372036854775808"] = math.mininteger, ["[0]"] = { 0 }, ["-0.0"] = -0.0, ["0e5"] = 0.0,
      ["1e19"] = 1e19, ["9223372036854775808.0"] = 2.0 ^ 63, ["1E2"] = 100.0, ["0.000e-999"] = 0.0, ["5e-324"] = 5e-324,
    } do
      local value, wrong = json.decode(text)
      assert.is_nil(wrong)
      assert.same(number, value)
      assert.equal(math.type(number), math.type(value))
    end
  end)
end)

describe("a record", function()
  local shared = {}

  it("carries every key and value that a state can have", function()
    for _, pair in ipairs {
      { "apples", 5 }, { 5, "five" }, { 1.5, true }, { false, 0.1 }, { "", core.null }, { "\xff\0", "\xfe" }, { math.huge, -math.huge },
      { "table", { 1, x = { [true] = 2 } } }, { "shared", { shared, shared } }, { "sparse", { [1] = 1, [3] = 3 } }, { "nul", "a\0b" },
    } do
      local line = records.write(pair[1], pair[2])
      assert.is_falsy(line:find "\n")
      local key, value = records.read(line)
      assert.is_true(same(pair[1], key), line)
      assert.is_true(same(pair[2], value), line)
    end
    local _, double = records.read(records.write("f", function(x) return 2 * x end))
    assert.equal(6, double(3))
  end)

  it("is plain JSON wherever that is enough", function()
    assert.equal('{"key":"a","value":[1,2.0]}', records.write("a", { 1, 2.0 }))
    assert.equal('{"key":1,"deleted":true}', records.write(1, nil))
    assert.is_truthy(records.write("a", math.huge):find '^{"key":"a","value_bytes":"%x+"}$')
    assert.is_truthy(records.write("\xff", 1):find '^{"key_bytes":"%x+","value":1}$')
  end)

  it("that is none is refused with the reason", function()
    for line, wrong in pairs {
      ["x"] = "it cannot be read as JSON: no value at byte 1",
      ["5"] = "it is no object",
      ['{"key":1}'] = "it has to have a key and a value",
      ['{"value":1}'] = "it has to have a key and a value",
      ['{"key":1,"vaule":1}'] = "there is no field 'vaule' in a dump",
      ['{"key":1,"value_bytes":"xy"}'] = "value_bytes is no string of hexadecimal digits",
      ['{"key":1,"value_bytes":"123"}'] = "value_bytes is no string of hexadecimal digits",
      ['{"key":1,"value_bytes":5}'] = "value_bytes is no string of hexadecimal digits",
    } do
      local key, said = records.read(line)
      assert.is_nil(key)
      assert.equal(wrong, said)
    end
    local key, said = records.read '{"key":1,"value_bytes":"ff"}'
    assert.is_nil(key)
    assert.is_truthy(said:find("DecodeError", 1, true))
  end)

  it("of an update has what differs, in key order", function()
    local old = { a = 1, b = { 1 }, c = "x", [2] = 1 }
    local new = { a = 1.0, b = { 1 }, d = true, [2] = 1, [1] = 0 }
    assert.equal('{"revision":7,"changes":[{"key":1,"value":0},{"key":"a","value":1.0},{"key":"c","deleted":true},{"key":"d","value":true}]}',
      records.update(7, old, new))
    assert.equal('{"revision":7,"changes":[{"key":"d","value":true}]}', records.update(7, old, new, { "b", "d" }))
    assert.is_nil(records.update(7, old, new, { "b" }))
    assert.is_nil(records.update(7, old, old))
  end)
end)
