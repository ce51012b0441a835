-- Forget contexts whose effects are done: DUE -> ABSENT. Idempotent.
--
-- ARGV: context, ... Returns how many contexts this call finished.
local now, finished = now_ms(), 0
for _, context in ipairs(ARGV) do
  local record = redis.call('HGET', CONTEXTS, context)
  if record and redis.call('ZREM', DUE, context) == 1 then
    local _, _, tombstone = head(record)
    if tombstone and tombstone > 0 then
      redis.call('ZADD', TOMBSTONES, now + tombstone, context)
    end
    redis.call('HDEL', CONTEXTS, context)
    redis.call('HDEL', OUTCOMES, context)
    finished = finished + 1
  end
end
redis.call('ZREMRANGEBYSCORE', TOMBSTONES, '-inf', now)
return finished
