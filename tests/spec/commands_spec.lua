-- What is said about the commands in several places is the same in all of them: what they read, their help, the manual page, and what bash
-- completes.
local cli = require "zproc.cli"
local support = dofile(os.getenv "SRCDIR" .. "/tests/support.lua")

local SRCDIR <const> = os.getenv "SRCDIR"

local function read_file(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

local function output_of(command)
  local pipe <close> = assert(io.popen(command))
  return pipe:read "a"
end

local manual = read_file(SRCDIR .. "/docs/zproc.1")

--- The options of a command, sorted.
local function options_of(name)
  local words = {}
  for word in pairs(require("zproc.cli." .. name).arguments.options) do words[#words + 1] = word end
  table.sort(words)
  return words
end

--- The words in a text that look like options, each once.
local function words_in(text, pattern)
  local words = {}
  for word in text:gmatch(pattern) do words[word] = true end
  return words
end

--- What bash completes on a line: a list, sorted.
local function complete(line)
  local script = ([[
    source "$1"
    COMP_LINE=$2 COMP_POINT=${#2}
    _zproc
    printf '%s\n' "${COMPREPLY[@]}" | sort
  ]])
  local text = output_of(("bash -c %s bash %s %s"):format(support.quote(script), support.quote(SRCDIR .. "/completion/zproc.bash"),
    support.quote(line)))
  local words = {}
  for word in text:gmatch "[^\n]+" do words[#words + 1] = word end
  return words
end

describe("the tabulator key of the repl", function()
  local complete_word = require "zproc.cli.complete"

  it("completes globals, fields and methods", function()
    assert.same({ "string" }, complete_word "strin")
    assert.same({ "string.gmatch", "string.gsub" }, complete_word "string.g")
    assert.same({ "x..string" }, complete_word "x..strin")
    assert.same({ "..string.gmatch", "..string.gsub" }, complete_word "..string.g")
  end)

  it("completes nothing of what only a call could tell", function()
    for _, word in ipairs { ".pr", ":pr", ".", ":", ".server_process.pi", ":x.pr" } do assert.same({}, complete_word(word)) end
  end)
end)

local with_bash = os.execute "command -v bash >/dev/null" and it or pending

describe("a command", function()
  it("has help that begins with its usage and names its options, and no others", function()
    for _, name in ipairs(cli.names) do
      local command = require("zproc.cli." .. name)
      assert.equal(name, command.usage:match "^%S+")
      assert.is_truthy(command.help:find("^usage: zproc " .. name .. "[ \n]"), name)
      local named = words_in(command.help, "%-%-%a[%a-]*")
      named["--secret-key-file"], named["--allow-user"], named["--version"], named["--help"] = nil, nil, nil, nil
      for _, word in ipairs(options_of(name)) do
        assert.is_true(named[word], ("%s is not in the help of %s"):format(word, name))
        named[word] = nil
      end
      assert.is_nil(next(named), ("the help of %s has %s"):format(name, next(named)))
      for line in command.help:gmatch "[^\n]+" do assert.is_true(#line <= 160, line) end
    end
  end)

  it("has a section in the manual page, with its options and no others", function()
    for _, name in ipairs(cli.names) do
      local section = manual:match("\n%.Ss zproc " .. name .. "%f[\n ].-\n(.-)\n%.S[sh] ")
      assert.is_truthy(section, name)
      local named = words_in(section, "\n%.It Fl Fl ([%a-]+)")
      for _, word in ipairs(options_of(name)) do
        assert.is_true(named[word:sub(3)], ("%s of %s is not in the manual"):format(word, name))
        named[word:sub(3)] = nil
      end
      assert.is_nil(next(named), ("the manual of %s has %s"):format(name, next(named)))
    end
    for name in manual:gmatch "\n%.Ss zproc (%a+)" do
      assert.is_truthy(table.concat(cli.names, " "):find(name, 1, true), name)
    end
  end)

  with_bash("is completed, with its options and no others", function()
    local names = { "--help", "--version" }
    table.move(cli.names, 1, #cli.names, #names + 1, names)
    table.sort(names)
    local completed = complete "zproc "
    table.sort(completed)
    assert.same(names, completed)
    assert.same({ "server" }, complete "zproc se")
    for _, name in ipairs(cli.names) do
      local words = options_of(name)
      for _, common in ipairs { "--help", "--secret-key-file", "--allow-user" } do words[#words + 1] = common end
      table.sort(words)
      completed = complete("zproc " .. name .. " --")
      table.sort(completed)
      assert.same(words, completed)
    end
  end)
end)

describe("an action of zproc state", function()
  local topics = require "zproc.cli.state".topics
  local section = manual:match "\n%.Ss zproc state .-\n(.-)\n%.S[sh] "

  it("has help of its own, which names the options that go with it", function()
    for name, help in pairs(topics) do
      local usage = help:match "^[^\n]+"
      assert.is_truthy(usage:find("^usage: zproc state ADDRESS " .. name .. "%f[ \0]"), name)
      for word in pairs(words_in(usage, "%-%-%a[%a-]*")) do assert.is_truthy(help:find("\n  " .. word, 1, true), word) end
      for line in help:gmatch "[^\n]+" do assert.is_true(#line <= 160, line) end
      assert.equal(help, output_of(support.quote(os.getenv "ZPROC") .. " state ipc:///x " .. name .. " --help"))
      assert.equal(help, output_of(support.quote(os.getenv "ZPROC") .. " help state " .. name))
    end
  end)

  it("goes with the options that the manual page says", function()
    local said, meant = {}, {}
    for word, owners in section:gmatch "\n%.It Fl Fl ([%a-]+)[^\n]*\n%.Cm ([%a ,]+) :\n" do
      for name in owners:gmatch "%a+" do said[name .. " --" .. word] = true end
    end
    for name, help in pairs(topics) do
      assert.is_truthy(section:find("\n.It Cm " .. name, 1, true), name)
      for word in pairs(words_in(help:match "^[^\n]+", "%-%-%a[%a-]*")) do meant[name .. " " .. word] = true end
    end
    assert.same(meant, said)
  end)

  with_bash("is completed", function()
    local names = {}
    for name in pairs(topics) do names[#names + 1] = name end
    table.sort(names)
    assert.same(names, complete "zproc state ipc:///x ")
    assert.same(names, complete "zproc help state ")
    assert.same({}, complete "zproc help run ")
  end)

  it("does what its example shows", function()
    local zproc = require "zproc"
    for name, help in pairs(topics) do
      local place = os.tmpname()
      os.remove(place)
      local server = zproc.start_server("ipc://" .. place)
      zproc.state("ipc://" .. place):update { apples = 5, name = "Ada" }
      local commands, expected = {}, ""
      for line in help:match("\nExample:\n(.*)$"):gmatch "  ([^\n]*)\n" do
        if line:find "^%$ " then commands[#commands + 1] = line:sub(3) else expected = expected .. line .. "\n" end
      end
      local script = table.concat(commands, "\n"):gsub("/tmp/place", function() return place end)
      assert.equal(expected, output_of(("zproc() { %s \"$@\"; }\n%s"):format(support.quote(os.getenv "ZPROC"), script)), name)
      server:stop()
      os.execute(("rm -rf %s.copy"):format(place))
    end
  end)
end)

describe("bash", function()
  with_bash("completes values of options, and operands", function()
    assert.same({ "auto", "network" }, complete "zproc state ipc:///x get --transport ")
    assert.same({ "network" }, complete "zproc ps --transport n")
    assert.same({ "always", "interval", "never" }, complete "zproc server --sync=")
    assert.same({ "del", "dump" }, complete "zproc state --namespace get ipc:///x d")
    assert.same({}, complete "zproc state ipc:///x get ")
    assert.same({}, complete "zproc ping ipc:///x --timeout ")
    assert.same({}, complete "zproc nonsense ")
  end)

  with_bash("leaves what follows a script to the script", function()
    assert.same({}, complete "zproc run x.lua --pre")
    assert.same({}, complete "zproc eval --json 1 --na")
    assert.same({ "--namespace" }, complete "zproc eval --json --na")
  end)

  with_bash("completes files where a command takes one", function()
    local directory = output_of("mktemp -d"):gsub("\n", "")
    os.execute(("cd %s && mkdir sub && touch a.lua b.txt"):format(directory))
    assert.same({ directory .. "/a.lua", directory .. "/sub" }, complete("zproc run " .. directory .. "/"))
    assert.same({ directory .. "/a.lua", directory .. "/b.txt", directory .. "/sub" }, complete("zproc state x load " .. directory .. "/"))
    assert.same({ directory .. "/sub" }, complete("zproc server --data-dir " .. directory .. "/"))
    assert.same({ directory .. "/b.txt" }, complete("zproc ps --secret-key-file " .. directory .. "/b"))
    os.execute("rm -r " .. directory)
  end)

  with_bash("completes the addresses of the servers that there are", function()
    local zproc = require "zproc"
    local ctx = zproc.context()
    local address = ctx.server_address
    local start = address:sub(1, -4)
    -- What is before the last colon is there already.
    assert.same({ (address:gsub("^ipc:", "")) }, complete("zproc ps " .. start))
    assert.same({ (address:gsub("^ipc:", "")) }, complete("zproc eval --address " .. start))
    ctx:close()
    assert.same({}, complete("zproc ps " .. start))
  end)
end)
