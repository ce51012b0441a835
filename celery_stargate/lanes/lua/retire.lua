-- Forget an empty lane with its lease, and take it out of the list of lanes, in one step. If it is used
-- again, it begins with a new generation.
--
-- ARGV: lease, idle s, name of the lane, bounds (as in dead_letters.lua). Returns 1 if the lane was
--       empty, nobody announced it for that long, and the caller held the lease; else 0.
--       A lane with dead letters is not empty: nobody would find them.
if redis.call('GET', LEASE) ~= ARGV[1] then return 0 end
if redis.call('HLEN', CONTEXTS) > 0 or redis.call('XLEN', LOG) > 0 then return 0 end
if DEAD and redis.call('ZCARD', DEAD) > 0 then return 0 end
local now = now_ms()
prune_tombstones(now)
if redis.call('ZCARD', TOMBSTONES) > 0 then return 0 end
if is_announced(ARGV[3], tonumber(ARGV[2]), now / 1000) then return 0 end
redis.call('ZREM', LANES, ARGV[3])
redis.call('DEL', LOG, DEADLINES, OUTCOMES, DUE, META, LEASE, RESERVED)
return 1
