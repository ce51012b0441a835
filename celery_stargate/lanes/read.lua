-- Read messages after a number, in order; mark them as perhaps sent.
--
-- ARGV: lease, after (number), max count, max bytes (one message always), mark (1 or 0)
-- Returns {fenced, number, label, frame, place, ...} (place -1 where it is in no list): fenced = 1
-- and nothing else where the caller holds the lease no more.
if redis.call('GET', LEASE) ~= ARGV[1] then return { 1 } end
local after, count, bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local reply, last = { 0 }, after
while count > 0 and bytes > 0 do
  local step = math.min(count, 32)
  local entries = redis.call('XRANGE', LOG,
    string.format('(%.0f-0', last), '+', 'COUNT', step)
  for _, entry in ipairs(entries) do
    local number, fields = tonumber(string.match(entry[1], '^(%d+)-')), entry[2]
    local frame = fields[4]
    if bytes < #frame and #reply > 1 then
      bytes = 0
      break
    end
    bytes = bytes - #frame
    count = count - 1
    last = number
    reply[#reply + 1] = number
    reply[#reply + 1] = fields[2]
    reply[#reply + 1] = frame
    reply[#reply + 1] = tonumber(fields[6] or '-1')
  end
  if #entries < step then break end
end
if ARGV[5] == '1' and last > after then
  local sent = tonumber(redis.call('HGET', META, 'sent') or '0')
  if last > sent then
    pass_when_full()
    redis.call('HSET', META, 'sent', string.format('%.0f', last))
  end
end
return reply
