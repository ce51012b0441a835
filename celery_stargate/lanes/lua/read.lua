-- Read messages after a number, in order; note in meta that they may be sent from now on.
--
-- ARGV: lease, after (number), max count, max bytes of frames (the first may be larger), note (1,
--       or 0 to note nothing), gapless (1: stop before a number that is not the one before plus 1,
--       or 0), known (the highest number that the caller knows to be noted)
-- Returns {0, number, label, frame, place, code, ...}, {1} if another process has the lease, or
--       {2} if less is noted than the caller knows. label "": it is in the frame; place -1: in no list;
--       code: as in put. An entry that may not be sent has place -2, and the reason as its code; at
--       one that waits for a newer process ("newer") the read ends, because order is kept.
if redis.call('GET', LEASE) ~= ARGV[1] then return { 1 } end
if rolled_back(ARGV[7]) then return { 2 } end
local after, count, bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local gapless = ARGV[6] == '1'
-- The last entry that was looked at, the last message that may be sent, and what was read of it.
local seen, last, reply, read = after, after, { 0 }, 0
while count > 0 and bytes > 0 do
  local step = math.min(count, 32)
  local entries = redis.call('XRANGE', LOG,
    string.format('(%.0f-0', seen), '+', 'COUNT', step)
  for _, entry in ipairs(entries) do
    local number, label, frame, place, code, unreadable = message(entry)
    if unreadable then
      label, frame, place, code = '', '', -2, unreadable
    elseif (bytes < #frame and read > 0) or (gapless and number ~= last + 1) then
      bytes = 0
      break
    else
      bytes = bytes - #frame
      last = number
      read = read + 1
    end
    count = count - 1
    seen = number
    reply[#reply + 1] = number
    reply[#reply + 1] = label
    reply[#reply + 1] = frame
    reply[#reply + 1] = place
    reply[#reply + 1] = code
    if unreadable == 'newer' then
      bytes = 0
      break
    end
  end
  if #entries < step then break end
end
if ARGV[5] == '1' and last > after then
  local sent = tonumber(redis.call('HGET', META, 'sent') or '0')
  local tried = tonumber(redis.call('HGET', META, 'tried') or '0')
  if last > sent or last > tried then
    pass_when_full()
    redis.call('HSET', META, 'sent', string.format('%.0f', math.max(last, sent)),
      'tried', string.format('%.0f', math.max(last, tried)))
  end
end
return reply
