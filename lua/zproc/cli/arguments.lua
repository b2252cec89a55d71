--- How the arguments of every command are read: options anywhere between the operands, `--option value` or `--option=value`, `--` before
--- operands that look like options. A negative number is an operand, as is `-` alone.

local brief = require "zproc.cli.text".brief

local arguments = {}

---@class zproc.cli.Option
---@field name string? under which it is given; by default its own name: --data-dir is data_dir
---@field takes string? what value it takes, in words; nil: none, and what is given is true
---@field read (fun(text: string, word: string): any, string?)? the value of the text given to the option of that word; or nil and, if
--- there is more to say than what it takes, a sentence that says it
---@field many boolean? it may come several times, and what is given is a list

---@class zproc.cli.Spec
---@field options table<string, zproc.cli.Option> "--timeout" -> what it is
---@field operands string[]? names under which the operands are given
---@field wanted string? the question if the first operand is missing; nil: it may be
---@field rest string? the name under which further operands are given, as a list; nil: there are none
---@field is_program boolean? what follows the first operand is not for the command: a script and its arguments

-- ---- values of options ----

--- A number of seconds.
function arguments.seconds(text)
  local seconds = tonumber(text)
  if seconds and seconds >= 0 then return seconds end -- false for NaN
end

--- The reader of integers from least to most.
---@param least integer
---@param most integer
function arguments.integer(least, most)
  return function(text)
    local number = text:find "^%d+$" and math.tointeger(tonumber(text))
    if number and number >= least and number <= most then return number end
  end
end

--- The reader of one of some words.
function arguments.choice(...)
  local words = table.pack(...)
  return function(text, word)
    for i = 1, words.n do
      if words[i] == text then return text end
    end
    return nil, word .. " is " .. table.concat(words, ", ", 1, words.n - 1) .. " or " .. words[words.n]
  end
end

--- The key in a file: what is on a command line everybody can read.
local function secret_key(path) return require "zproc.core".hold_secret(path) end

--- What every command takes besides its own options.
local COMMON <const> = {
  ["--help"] = { name = "help" },
  ["-h"] = { name = "help" },
  ["--secret-key-file"] = { takes = "a file", read = secret_key },
  ["--allow-user"] = { takes = "the name of a user", many = true },
}

-- ---- reading ----

--- The name under which an option is given.
---@param word string
---@param option zproc.cli.Option
---@return string
function arguments.name_of(word, option)
  return option.name or (word:gsub("^%-+", ""):gsub("%-", "_"))
end

--- Note what an option gives; what is wrong with it, if something is.
local function take(given, word, option, text)
  local name = arguments.name_of(word, option)
  if not option.takes then
    if text then return ("%s takes no value"):format(word) end
    given[name] = true
    return nil
  end
  if not text then return ("%s takes %s"):format(word, option.takes) end
  local value, wrong = text, nil
  if option.read then value, wrong = option.read(text, word) end
  if value == nil then return wrong or ("%s takes %s"):format(word, option.takes) end
  if option.many then
    given[name] = given[name] or {}
    table.insert(given[name], value)
  elseif given[name] ~= nil then
    return ("one %s is enough"):format(word)
  else
    given[name] = value
  end
  return nil
end

--- Read the arguments of a command.
---@param spec zproc.cli.Spec
---@param list string[]
---@return table? given what options and operands give, by name; with `help` nothing else counts but `about`, the operands before it
---@return string? wrong what is wrong with them
function arguments.parse(spec, list)
  local given, operands, is_over, i = {}, {}, false, 1
  while list[i] do
    local word, text = list[i], nil
    i = i + 1
    if is_over or not word:find "^%-[^%d.]" then
      operands[#operands + 1] = word
      is_over = is_over or spec.is_program
    elseif word == "--" then
      is_over = true
    else
      local option_word, attached = word:match "^(%-%-[^=]+)=(.*)$"
      local option = spec.options[option_word or word] or COMMON[option_word or word]
      if not option then return nil, ("unknown %s '%s'"):format(spec.is_program and "option" or "argument", brief(word)) end
      text = attached
      if option.takes and not attached then
        text = list[i]
        i = i + 1
      end
      local wrong = take(given, option_word or word, option, text)
      if wrong then return nil, wrong end
      if given.help then return { help = true, about = operands } end
    end
  end
  local names = spec.operands or {}
  for k, name in ipairs(names) do given[name] = operands[k] end
  if #operands == 0 and spec.wanted then return nil, spec.wanted end
  if spec.rest then
    given[spec.rest] = table.move(operands, #names + 1, math.max(#names, #operands), 1, {})
  elseif #operands > #names then
    return nil, ("unknown argument '%s'"):format(brief(operands[#names + 1]))
  end
  return given
end

return arguments
