-- Find published callbacks whose tasks have not started in time, and claim them.
--
-- KEYS: when (sorted set: task id -> when it is published again, epoch ms), kept (hash: task id ->
--       "<when it was kept first, epoch ms>\n<body>")
-- ARGV: least ms until the next time, ms after which a callback is given up, max count
-- Returns {task id, body, ...}; the body of one that was given up, and is forgotten, is "".
-- Each wait is as long as all waits before it together.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local least, bound, reply = tonumber(ARGV[1]), tonumber(ARGV[2]), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[3]))) do
  local since, body = string.match(redis.call('HGET', KEYS[2], id) or '', '^(%d+)\n(.*)$')
  local lasted = now - (tonumber(since) or 0)
  if not since or lasted > bound then
    redis.call('ZREM', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
    body = ''
  else
    redis.call('ZADD', KEYS[1], now + math.max(least, lasted), id)
  end
  reply[#reply + 1] = id
  reply[#reply + 1] = body
end
return reply
