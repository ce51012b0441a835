-- Give the lease back, so that another may take the lane at once.
-- ARGV: lease ("<owner>:<fencing token>"). Returns 1 where the caller held it.
if redis.call('GET', LEASE) ~= ARGV[1] then return 0 end
redis.call('DEL', LEASE)
return 1
