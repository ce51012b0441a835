-- Make a lane known to the workers, and tell them if it is new.
--
-- KEYS: lanes (sorted set: lane -> when it was last announced, epoch s), events (stream)
-- ARGV: lane. Returns 1 if it was not known, else 0.
local added = redis.call('ZADD', KEYS[1], redis.call('TIME')[1], ARGV[1])
-- An event only saves time: without it workers find the lane at their next heartbeat.
if added == 1 then redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', 1000, '*', 'lane', ARGV[1]) end
return added
