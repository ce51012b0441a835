-- Give the lease to a pause, so that no process sends until an operator resumes, or its time is over.
--
-- ARGV: lease, owner (that the pause is), time to live ms
-- Returns {0}, or {1} if another process has the lease.
if redis.call('GET', LEASE) ~= ARGV[1] then return { 1 } end
pass_when_full()
local token = redis.call('HINCRBY', META, 'fencing_token', 1)
redis.call('SET', LEASE, ARGV[2] .. ':' .. string.format('%.0f', token), 'PX', ARGV[3])
return { 0 }
