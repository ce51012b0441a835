-- Forget an empty lane with its lease; if it is used again, it begins with a new generation.
--
-- ARGV: lease. Returns 1 if the lane was empty and the caller held the lease, else 0. A lane with dead
--       letters is not empty: nobody would find them.
if redis.call('GET', LEASE) ~= ARGV[1] then return 0 end
if redis.call('HLEN', CONTEXTS) > 0 or redis.call('XLEN', LOG) > 0 then return 0 end
if DEAD and redis.call('ZCARD', DEAD) > 0 then return 0 end
prune_tombstones(now_ms())
if redis.call('ZCARD', TOMBSTONES) > 0 then return 0 end
redis.call('DEL', LOG, DEADLINES, OUTCOMES, DUE, META, LEASE, RESERVED)
return 1
