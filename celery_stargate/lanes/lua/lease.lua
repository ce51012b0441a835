-- Take the lane's lease, or renew it.
--
-- ARGV: owner, time to live ms, generation (for a lane without one)
-- Returns {1, fencing token, generation, sent} if the caller holds the lease now, or {0, ms left}
--       if another process does. Every new hold has a new fencing token, which fences off all
--       earlier holders.
local owner, ttl = ARGV[1], tonumber(ARGV[2])
pass_when_full()
local held = redis.call('GET', LEASE)
if held then
  local by, token = string.match(held, '^(.*):(%d+)$')
  if by ~= owner then return { 0, redis.call('PTTL', LEASE) } end
  redis.call('PEXPIRE', LEASE, ttl)
  return { 1, tonumber(token), redis.call('HGET', META, 'generation'),
    tonumber(redis.call('HGET', META, 'sent') or '0') }
end
redis.call('HSETNX', META, 'generation', ARGV[3])
local token = redis.call('HINCRBY', META, 'fencing_token', 1)
redis.call('SET', LEASE, owner .. ':' .. string.format('%.0f', token), 'PX', ttl)
return { 1, token, redis.call('HGET', META, 'generation'),
  tonumber(redis.call('HGET', META, 'sent') or '0') }
