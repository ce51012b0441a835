-- Forget contexts whose effects are done: DUE -> ABSENT. Idempotent.
--
-- ARGV: context, its first number (as in settle), ... Returns how many contexts this call finished.
local now, finished = now_ms(), 0
for i = 1, #ARGV, 2 do
  local context = ARGV[i]
  local record = redis.call('HGET', CONTEXTS, context)
  local first, _, tombstone
  if record then first, _, tombstone = head(record) end
  if first and is_meant(first, ARGV[i + 1]) and redis.call('ZREM', DUE, context) == 1 then
    if tombstone > 0 then redis.call('ZADD', TOMBSTONES, now + tombstone, context) end
    redis.call('HDEL', CONTEXTS, context)
    redis.call('HDEL', OUTCOMES, context)
    finished = finished + 1
  end
end
prune_tombstones(now)
return finished
