-- Read messages after a number, in order; note in meta that they may be sent from now on.
--
-- ARGV: lease, after (number), max count, max bytes of frames (the first may be larger), note (1,
--       or 0 to note nothing), gapless (1: stop before a number that is not the one before plus 1,
--       or 0), known (the highest number that the caller knows to be noted)
-- Returns {0, number, label, frame, place, code, ...}, {1} if another process has the lease, or
--       {2} if less is noted than the caller knows. label "": it is in the frame; place -1: in no list;
--       code: as in put
if redis.call('GET', LEASE) ~= ARGV[1] then return { 1 } end
if rolled_back(ARGV[7]) then return { 2 } end
local after, count, bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local reply, last = { 0 }, after
while count > 0 and bytes > 0 do
  local step = math.min(count, 32)
  local entries = redis.call('XRANGE', LOG,
    string.format('(%.0f-0', last), '+', 'COUNT', step)
  for _, entry in ipairs(entries) do
    local number, fields = tonumber(string.match(entry[1], '^(%d+)-')), entry[2]
    local code, frame, label, place = fields[1], fields[2], '', '-1'
    for i = 3, #fields, 2 do
      local name, value = fields[i], fields[i + 1]
      if name == 'l' then
        label = value
      elseif name == 't' then
        code = code .. value
      elseif name == 'p' then
        place = value
      end
    end
    if (bytes < #frame and #reply > 1) or (ARGV[6] == '1' and number ~= last + 1) then
      bytes = 0
      break
    end
    bytes = bytes - #frame
    count = count - 1
    last = number
    reply[#reply + 1] = number
    reply[#reply + 1] = label
    reply[#reply + 1] = frame
    reply[#reply + 1] = tonumber(place)
    reply[#reply + 1] = code
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
