-- Keep callbacks that are about to be published, until their tasks have started.
--
-- KEYS: when, kept (as in overdue). ARGV: ms until they are published again, then task id and body of
-- each.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local since = string.format('%.0f\n', now)
for i = 2, #ARGV, 2 do
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), ARGV[i])
  redis.call('HSET', KEYS[2], ARGV[i], since .. ARGV[i + 1])
end
