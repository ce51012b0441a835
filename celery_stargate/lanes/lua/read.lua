-- Read messages after a number, in order; note in meta that they may be sent from now on.
--
-- ARGV: lease, after (number), max count, max bytes of frames (the first may be larger), note (1,
--       or 0 to note nothing), gapless (1: stop before a number that is not the one before plus 1,
--       or 0), known (as rolled_back() in common.lua gets it), generation that the caller knows ("":
--       none)
-- Returns {0, marked, number, label, frame, place, code, ...}, {1} if another process has the lease,
--       or {2} if Redis came back with an older state than the caller knows.
--       marked: field m of the last message, if its put marked it and it was noted now; else "".
--       label "": it is in the frame; place -1: in no list; code: as in put. An entry that may not be
--       sent has place -2, and the reason as its code; at one that waits for a newer process ("newer")
--       the read ends, because order is kept.
if redis.call('GET', LEASE) ~= ARGV[1] then return { 1 } end
if rolled_back(ARGV[7], ARGV[8]) then return { 2 } end
local after, count, bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local gapless = ARGV[6] == '1'
-- The last entry that was looked at, the last message that may be sent, and what was read of it.
local seen, last, read, most = after, after, 0, math.min(8, bytes)
local reply, filled = { 0, '' }, 2
while count > 0 and bytes > 0 do
  local step = math.min(count, most)
  local entries = redis.call('XRANGE', LOG,
    string.format('(%.0f-0', seen), '+', 'COUNT', step)
  local parsed, records = parse_all(entries)
  for i, found in ipairs(parsed) do
    local why = unreadable(found, records[i])
    if why then
      found = { number = found.number, label = '', frame = '', place = -2, code = why }
    elseif (bytes < #found.frame and read > 0) or (gapless and found.number ~= last + 1) then
      bytes = 0
      break
    else
      bytes = bytes - #found.frame
      last = found.number
      read = read + 1
    end
    count = count - 1
    seen = found.number
    reply[filled + 1], reply[filled + 2], reply[filled + 3] = found.number, found.label, found.frame
    reply[filled + 4], reply[filled + 5] = found.place, found.code
    filled = filled + 5
    if why == 'newer' then
      bytes = 0
      break
    end
  end
  if #entries < step then break end
  -- The next step takes no more than is likely to fit, by the size of this one's messages.
  local held = 1
  for _, each in ipairs(parsed) do held = held + #each.frame end
  most = math.max(1, math.min(128, math.floor(bytes * #parsed / held)))
end
if ARGV[5] == '1' and last > after then reply[2] = note_sent(last) end
return reply
