-- Keep an owner among the living, count those of its kind, and list the lanes.
--
-- KEYS: workers or callers (sorted set: owner -> until when it counts as alive, epoch ms), lanes
--       (as in announcement.lua)
-- ARGV: owner ("" to look only), time to live ms (0: leave)
-- Returns {count of living owners of this kind, lane, ...}.
-- A time too far ahead is no owner's: it would count for ever, and keep a share of the lanes from
-- the others. Owners of its kind remove it.
local t = redis.call('TIME')
local now, ttl = t[1] * 1000 + math.floor(t[2] / 1000), tonumber(ARGV[2])
local bound = now + (ttl > 0 and math.max(4 * ttl, 300000) or 86400000)
if ARGV[1] ~= '' then
  -- The first write needs no memory, so a full Redis accepts the others, and lanes can be drained.
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', bound), '+inf')
  if ttl > 0 then
    redis.call('ZADD', KEYS[1], now + ttl, ARGV[1])
  else
    redis.call('ZREM', KEYS[1], ARGV[1])
  end
end
local reply = redis.call('ZRANGE', KEYS[2], 0, -1)
table.insert(reply, 1, redis.call('ZCOUNT', KEYS[1], now, string.format('%.0f', bound)))
return reply
