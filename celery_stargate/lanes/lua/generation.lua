-- Begin a new generation of the lane: a new name for its producer, under which nothing was sent.
--
-- ARGV: lease, the generation that ends ("": any), the generation that begins ("": none; but the
--       present one is not this hold's own any more, so nothing new is sent under it)
-- Returns {0, the lane's generation now}, or {1} if another process has the lease.
if redis.call('GET', LEASE) ~= ARGV[1] then return { 1 } end
if ARGV[3] == '' then
  redis.call('HDEL', META, 'begun_by')
elseif ARGV[2] == '' or redis.call('HGET', META, 'generation') == ARGV[2] then
  redis.call('HDEL', META, 'tried')
  redis.call('HSET', META, 'generation', ARGV[3], 'begun_by', string.match(ARGV[1], '%d+$'))
end
return { 0, redis.call('HGET', META, 'generation') }
