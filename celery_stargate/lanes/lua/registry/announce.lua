-- Make a lane known to the workers, and tell them if it is new.
--
-- KEYS: lanes (sorted set: lane -> when it was last announced, epoch s), events (stream)
-- ARGV: lane. Returns 1 if it was not known, else 0.
local added = redis.call('ZADD', KEYS[1], redis.call('TIME')[1], ARGV[1])
if added == 1 then redis.call('XADD', KEYS[2], 'MAXLEN', '~', 1000, '*', 'lane', ARGV[1]) end
return added
