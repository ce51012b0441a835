-- Take the lane's lease, or renew it. One without a time to live is none: nobody would ever end it.
--
-- ARGV: owner, time to live ms, generation (that may begin)
-- Returns {1, fencing token, generation, sent} if the caller holds the lease now, or {0, lease} if
--       another process does; the lease is "<owner>:<fencing token>". Every new hold has a new
--       fencing token, which fences off all earlier holders.
-- A hold sends new messages only under a generation of its own: Redis may have come back without its
-- tail while nobody owned the lane, and then it gives numbers again that Pulsar has under the old
-- one. Messages up to "tried" are what they were, and go under the old generation first.
local owner, ttl = ARGV[1], tonumber(ARGV[2])
pass_when_full()
local held = redis.call('GET', LEASE)
if held and redis.call('PTTL', LEASE) >= 0 then
  local by, token = string.match(held, '^(.*):(%d+)$')
  if by ~= owner then return { 0, held } end
  redis.call('PEXPIRE', LEASE, ttl)
  return { 1, tonumber(token), redis.call('HGET', META, 'generation'),
    tonumber(redis.call('HGET', META, 'sent') or '0') }
end
local token = redis.call('HINCRBY', META, 'fencing_token', 1)
local tried = tonumber(redis.call('HGET', META, 'tried') or '0')
local begin = redis.call('XRANGE', LOG, '-', '+', 'COUNT', 1)[1]
if redis.call('HEXISTS', META, 'generation') == 0 or not begin
  or tonumber(string.match(begin[1], '^%d+')) > tried then
  redis.call('HDEL', META, 'tried')
  redis.call('HSET', META, 'generation', ARGV[3], 'begun_by', token)
end
redis.call('SET', LEASE, owner .. ':' .. string.format('%.0f', token), 'PX', ttl)
return { 1, token, redis.call('HGET', META, 'generation'),
  tonumber(redis.call('HGET', META, 'sent') or '0') }
