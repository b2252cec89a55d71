--- Text for a person or for JSON, made of bytes that anybody may have chosen: names of processes, values from a command line.

local text = {}

local REPLACEMENT <const> = utf8.char(0xFFFD)

--- Bytes as UTF-8: what is none is replaced, byte by byte.
---@param bytes string
---@return string
function text.of(bytes)
  local parts, from = {}, 1
  while true do
    local _, bad = utf8.len(bytes, from)
    parts[#parts + 1] = bytes:sub(from, (bad or 0) - 1)
    if not bad then return table.concat(parts, REPLACEMENT) end
    from = bad + 1
  end
end

--- Bytes as they may go to a terminal: on one line, and without a way to make it do something. Of the control characters, those from U+0080
--- to U+009F are two bytes each.
---@param bytes string
---@return string
function text.shown(bytes)
  return (text.of(bytes):gsub("%c", "?"):gsub("\xc2[\x80-\x9f]", "?"))
end

--- The same, cut to so many characters.
---@param bytes string
---@param most integer
---@return string
function text.cut(bytes, most)
  local shown = text.shown(bytes:sub(1, most * 4)) -- what is cut off in the middle of a character is cut off
  local stop = utf8.offset(shown, most + 1)
  return stop and shown:sub(1, stop - 1) or shown
end

local BRIEF <const> = 80

--- The same for a message that repeats what was given: as much of it as tells what is meant.
---@param bytes string
---@return string
function text.brief(bytes)
  local start = text.cut(bytes, BRIEF)
  return utf8.len(start) == BRIEF and #bytes > #start and start .. "..." or start
end

return text
