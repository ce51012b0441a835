-- Find settled contexts whose effects are not done, and claim them for a while.
--
-- ARGV: lease, grace ms (how long the claim lasts), max count, offset (-1: only contexts that are
--       due now; 0 and up: all of them from that place on, for an owner that has just taken over)
-- Returns {0, context, record, JSON list, ...}, or {1} if another process has the lease.
if redis.call('GET', LEASE) ~= ARGV[1] then return { 1 } end
local now, count, offset = now_ms(), tonumber(ARGV[3]), tonumber(ARGV[4])
local contexts
if offset < 0 then
  contexts = redis.call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, count)
else
  contexts = redis.call('ZRANGE', DUE, offset, offset + count - 1)
end
local reply = { 0 }
if #contexts > 0 then pass_when_full() end
for _, context in ipairs(contexts) do
  local record, outcome = redis.call('HGET', CONTEXTS, context), redis.call('HGET', OUTCOMES, context)
  if record and outcome then
    if offset < 0 then redis.call('ZADD', DUE, now + tonumber(ARGV[2]), context) end
    reply[#reply + 1] = context
    reply[#reply + 1] = record
    reply[#reply + 1] = string.match(outcome, '^[^\n]*\n(.*)$')
  else
    redis.call('ZREM', DUE, context)
  end
end
return reply
