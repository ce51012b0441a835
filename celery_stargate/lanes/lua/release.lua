-- Give the lease back, so that another process can take the lane at once.
--
-- ARGV: lease ("<owner>:<fencing token>"). Returns 1 if the caller held it, else 0.
if redis.call('GET', LEASE) ~= ARGV[1] then return 0 end
redis.call('DEL', LEASE)
return 1
