-- Renew the lease, and tell what the lane holds.
--
-- ARGV: lease, time to live ms, known (as in read)
-- Returns {0, contexts, backlog, due, ms to the next deadline (-1: none)}, {1} if another process
--       has the lease, or {2} (as in read).
if redis.call('GET', LEASE) ~= ARGV[1] then return { 1 } end
if rolled_back(ARGV[3], '') then return { 2 } end
redis.call('PEXPIRE', LEASE, tonumber(ARGV[2]))
local next_deadline = redis.call('ZRANGE', DEADLINES, 0, 0, 'WITHSCORES')[2]
local left = -1
if next_deadline then left = math.max(0, tonumber(next_deadline) - now_ms()) end
return { 0, redis.call('HLEN', CONTEXTS), redis.call('XLEN', LOG), redis.call('ZCARD', DUE), left }
