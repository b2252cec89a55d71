-- How command lines are read.
local arguments = require "zproc.cli.arguments"

local spec = {
  options = {
    ["--timeout"] = { takes = "a number of seconds", read = arguments.seconds },
    ["--count"] = { takes = "a number from 1 to 10", read = arguments.integer(1, 10) },
    ["--mode"] = { takes = "a mode", read = arguments.choice("never", "often", "always") },
    ["--data-dir"] = { takes = "a value" },
    ["--bind"] = { takes = "an address", many = true },
    ["--json"] = {},
  },
  operands = { "address", "action" },
  wanted = "which server?",
}
local listing = { options = { ["--json"] = {} }, operands = { "address" }, rest = "keys" }
local program = { options = { ["--prefix"] = {} }, operands = { "script" }, wanted = "which script?", rest = "arguments", is_program = true }

describe("a command line", function()
  it("has options before, between and behind operands", function()
    for _, words in ipairs {
      { "--json", "--count", "3", "a", "b" }, { "a", "--count", "3", "--json", "b" }, { "a", "b", "--json", "--count", "3" },
    } do
      assert.same({ address = "a", action = "b", json = true, count = 3 }, (arguments.parse(spec, words)))
    end
  end)

  it("has values behind a space or a =", function()
    assert.same({ address = "a", data_dir = "--json" }, (arguments.parse(spec, { "a", "--data-dir", "--json" })))
    assert.same({ address = "a", data_dir = "x=y" }, (arguments.parse(spec, { "a", "--data-dir=x=y" })))
    assert.same({ address = "a", data_dir = "" }, (arguments.parse(spec, { "a", "--data-dir=" })))
  end)

  it("has operands that look like options behind --", function()
    assert.same({ address = "a", keys = { "--json", "--" } }, (arguments.parse(listing, { "a", "--", "--json", "--" })))
  end)

  it("takes negative numbers and - for operands", function()
    assert.same({ address = "a", keys = { "-5", "-", "-.5" } }, (arguments.parse(listing, { "a", "-5", "-", "-.5" })))
  end)

  it("leaves what follows a script to the script", function()
    assert.same({ prefix = true, script = "x", arguments = { "--prefix", "--", "--help" } },
      (arguments.parse(program, { "--prefix", "x", "--prefix", "--", "--help" })))
  end)

  it("collects what may be given several times", function()
    assert.same({ address = "a", bind = { "x", "y" } }, (arguments.parse(spec, { "--bind", "x", "a", "--bind=y" })))
  end)

  it("is asked for help anywhere, whatever else is wrong", function()
    assert.is_true(arguments.parse(spec, { "a", "b", "c", "--help" }).help)
    assert.is_true(arguments.parse(spec, { "-h", "--nonsense" }).help)
  end)

  it("is refused with the reason", function()
    for wrong, words in pairs {
      ["unknown argument '--jsn'"] = { "a", "--jsn" },
      ["unknown argument 'c'"] = { "a", "b", "c" },
      ["unknown argument '-x'"] = { "a", "-x" },
      ["which server?"] = { "--json" },
      ["--json takes no value"] = { "a", "--json=yes" },
      ["one --count is enough"] = { "a", "--count", "1", "--count", "2" },
      ["--count takes a number from 1 to 10"] = { "a", "--count", "11" },
      ["--bind takes an address"] = { "a", "--bind" },
      ["--mode is never, often or always"] = { "a", "--mode", "sometimes" },
      ["--timeout takes a number of seconds"] = { "a", "--timeout", "nan" },
    } do
      local given, said = arguments.parse(spec, words)
      assert.is_nil(given)
      assert.equal(wrong, said)
    end
    assert.equal("unknown option '--prefx'", select(2, arguments.parse(program, { "--prefx", "x" })))
  end)

  it("has numbers as they are meant", function()
    for _, text in ipairs { "-1", "nan", "soon", "" } do
      assert.equal("--timeout takes a number of seconds", select(2, arguments.parse(spec, { "a", "--timeout", text })))
    end
    for _, text in ipairs { "0", "11", "1.0", "0x1", " 1", "1e0", "99999999999999999999", "" } do
      assert.equal("--count takes a number from 1 to 10", select(2, arguments.parse(spec, { "a", "--count", text })))
    end
    assert.equal(0.5, arguments.parse(spec, { "a", "--timeout", "0.5" }).timeout)
    assert.equal(10, arguments.parse(spec, { "a", "--count", "10" }).count)
  end)
end)
