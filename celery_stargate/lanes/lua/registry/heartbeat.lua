-- Keep an owner among the living, count those of its kind, and list the lanes.
--
-- KEYS: workers or callers (sorted set: owner -> until when it counts as alive, epoch ms), lanes
--       (as in announce)
-- ARGV: owner ("" to look only), time to live ms (0: leave)
-- Returns {count of living owners of this kind, lane, ...}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if ARGV[1] ~= '' then
  -- The first write needs no memory, so a full Redis accepts the others, and lanes can be drained.
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
  if tonumber(ARGV[2]) > 0 then
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
  else
    redis.call('ZREM', KEYS[1], ARGV[1])
  end
end
local reply = redis.call('ZRANGE', KEYS[2], 0, -1)
table.insert(reply, 1, redis.call('ZCOUNT', KEYS[1], now, '+inf'))
return reply
