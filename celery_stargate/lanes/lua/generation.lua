-- Begin a new generation of the lane: its producer's next name, under which nothing was sent.
--
-- ARGV: lease, the generation that ends ("": whichever there is), the one that begins
-- Returns {fenced, generation}: the one that the lane has now.
if redis.call('GET', LEASE) ~= ARGV[1] then return { 1 } end
if ARGV[2] == '' or redis.call('HGET', META, 'generation') == ARGV[2] then
  redis.call('HDEL', META, 'tried')
  redis.call('HSET', META, 'generation', ARGV[3])
end
return { 0, redis.call('HGET', META, 'generation') }
