-- Forget an empty lane and release it: its next life begins with a new generation.
-- ARGV: lease. Returns 1 where it was empty and ours, and is gone.
if redis.call('GET', LEASE) ~= ARGV[1] then return 0 end
if redis.call('HLEN', CONTEXTS) > 0 or redis.call('XLEN', LOG) > 0 then return 0 end
if redis.call('ZCARD', TOMBSTONES) > 0 then return 0 end
redis.call('DEL', LOG, DEADLINES, OUTCOMES, DUE, META, LEASE)
return 1
